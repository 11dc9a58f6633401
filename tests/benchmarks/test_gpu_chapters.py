"""``make gpu`` on small chapters: what is recorded, what is left out, and what is said where something fails."""

import importlib
import json
from pathlib import Path

import pytest
import torch

import mmlearn
from mmlearn import notebooks, run_command
from mmlearn.notebooks import Notebook

KERNEL = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
PARAMETERS = 'SCALE = "laptop"\nSEED = 0'
CHAPTER = """
from mmlearn.chapters import Chapter
chapter = Chapter("NAME", scale=SCALE, seed=SEED)
chapter.result("R@1", 0.5 + 0.1 * SEED, at_least={"laptop": 0.1, "gpu": 0.55})
chapter.finish()
"""


@pytest.fixture
def gpu(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(Path(__file__).parent)
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.chdir(tmp_path)
    return importlib.import_module("gpu_chapters")


def notebook(folder, name, *cells):
    cells = [
        {"cell_type": "code", "id": f"c{k}", "source": source, "outputs": [], "execution_count": None}
        | {"metadata": {"tags": ["parameters"]} if source == PARAMETERS else {}}
        for k, source in enumerate((PARAMETERS, *cells))
    ]
    path = folder / f"{name}.ipynb"
    path.write_text(json.dumps({"cells": cells, "metadata": KERNEL, "nbformat": 4, "nbformat_minor": 5}))
    return Notebook(name.partition("_")[0], name, name, 1, path)


def seeds(folder, number):
    return [run["seed"] for run in json.loads((folder / number / "gpu.json").read_text())["runs"]]


def test_chapters_are_recorded_and_one_that_fails_stops_no_other(gpu, tmp_path, capsys):
    """03 ends within a cell, 04 kills its kernel, and of 05 one seed is out of bounds."""
    known = [
        notebook(tmp_path, "03_fails", "1 / 0"),
        notebook(tmp_path, "04_dies", "import os; os._exit(1)"),
        notebook(tmp_path, "05_goes", CHAPTER.replace("NAME", "05_goes")),
    ]
    before = [chapter.path.read_bytes() for chapter in known]
    where = dict(results=tmp_path / "results", outputs=tmp_path / "runs")
    wrong = gpu.run_all(known, range(2), resume=False, keep=True, **where)
    assert list(wrong) == [("03_fails", 0), ("04_dies", 0), ("05_goes", 0)]
    assert "ZeroDivisionError: division by zero" in wrong["03_fails", 0]
    assert "R@1: 0.500, expected ≥ 0.55" in wrong["05_goes", 0]
    assert all("\n" not in reason for reason in wrong.values())
    assert sorted(path.name for path in (tmp_path / "results").iterdir()) == ["05"]
    record = json.loads((tmp_path / "results" / "05" / "gpu.json").read_text())
    assert [(run["seed"], run["scale"], run["results"][0]["holds"]) for run in record["runs"]] == [
        (0, "gpu", False),
        (1, "gpu", True),
    ]
    assert [chapter.path.read_bytes() for chapter in known] == before
    assert (tmp_path / "runs" / "05_goes" / "gpu" / "seed-1" / "index.html").is_file()
    assert "05_goes, seed 1" in capsys.readouterr().out


def pretend(ran, version=None):
    def run(chapter, output, *, scale, seed, **more):
        ran.append((chapter.number, scale, seed))
        return {"scale": scale, "seed": seed, "results": [], "versions": {"mmlearn": version or mmlearn.__version__}}

    return run


def test_a_run_that_was_stopped_goes_on(gpu, tmp_path, monkeypatch):
    known, ran = [notebook(tmp_path, name) for name in ("03_a", "05_b")], []
    where = dict(results=tmp_path / "results", outputs=tmp_path / "runs")

    def stopped(chapter, output, *, scale, seed):
        if (chapter.number, seed) == ("05", 1):
            raise KeyboardInterrupt
        return pretend(ran)(chapter, output, scale=scale, seed=seed)

    monkeypatch.setattr(gpu, "run", stopped)
    with pytest.raises(KeyboardInterrupt):
        gpu.run_all(known, range(3), resume=False, keep=True, **where)
    assert (seeds(where["results"], "03"), seeds(where["results"], "05")) == ([0, 1, 2], [0])
    ran.clear()
    monkeypatch.setattr(gpu, "run", pretend(ran))
    assert gpu.run_all(known, range(3), resume=True, keep=True, **where) == {}
    assert ran == [("05", "gpu", 1), ("05", "gpu", 2)]
    assert seeds(where["results"], "05") == [0, 1, 2]
    ran.clear()
    gpu.run_all(known, range(3), resume=False, keep=True, **where)
    assert len(ran) == 6


def test_what_another_version_recorded_is_run_again(gpu, tmp_path, monkeypatch):
    known, ran = [notebook(tmp_path, "03_a")], []
    where = dict(results=tmp_path / "results", outputs=tmp_path / "runs")
    monkeypatch.setattr(gpu, "run", pretend(ran, "0.0.1"))
    gpu.run_all(known, range(2), resume=False, keep=True, **where)
    monkeypatch.setattr(gpu, "run", pretend(ran))
    gpu.run_all(known, range(2), resume=True, keep=True, **where)
    assert len(ran) == 4
    assert {run["versions"]["mmlearn"] for run in gpu.kept(known[0], where["results"]).values()} == {
        mmlearn.__version__
    }


def test_without_a_gpu_it_stops_with_one_line_unless_it_is_shrunk(gpu, tmp_path, monkeypatch, capsys):
    ran = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(gpu, "ROOT", tmp_path)
    monkeypatch.setattr(gpu, "chapters", lambda: [notebook(tmp_path, "03_a"), notebook(tmp_path, "05_b")])
    monkeypatch.setattr(gpu, "run", pretend(ran))
    monkeypatch.delenv("MMLEARN_SHRINK", raising=False)
    said = gpu.main()
    assert said.startswith("The gpu scale needs a GPU, and PyTorch finds none")
    assert ("\n" in said, ran) == (False, [])
    monkeypatch.setenv("MMLEARN_SHRINK", "1")
    assert gpu.main("--seeds", "1") is None
    assert ran == [("03", "gpu", 0), ("05", "gpu", 0)]
    assert not (tmp_path / "book").exists()
    assert "2 chapters at gpu scale, shrunk, nothing recorded." in capsys.readouterr().out
    monkeypatch.delenv("MMLEARN_SHRINK")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert gpu.main("--seeds", "1") is None
    assert seeds(tmp_path / "book" / "results", "03") == [0]


def test_failures_are_named_at_the_end_and_unknown_chapters_at_once(gpu, tmp_path, monkeypatch):
    def fails(chapter, output, **more):
        raise ValueError("out of\nmemory")

    monkeypatch.setenv("MMLEARN_SHRINK", "1")
    monkeypatch.setattr(gpu, "chapters", lambda: [notebook(tmp_path, "03_a"), notebook(tmp_path, "05_b")])
    monkeypatch.setattr(gpu, "run", fails)
    assert gpu.main().splitlines() == ["Failed:", "  03_a, seed 0: out of memory", "  05_b, seed 0: out of memory"]
    assert gpu.main("no-such-chapter").startswith("There is no chapter 'no-such-chapter'")


@pytest.mark.parametrize("scale", ["long", "gpu"])
def test_recording_another_scale_leaves_the_outputs_of_the_notebook(gpu, tmp_path, monkeypatch, scale):
    chapter = notebook(tmp_path, "07_contrastive")
    before, kept = chapter.path.read_bytes(), []
    found = {"seconds": 1, "peak_memory_mb": 1, "device": "x"}
    monkeypatch.setattr(notebooks, "find", lambda number: chapter)
    monkeypatch.setattr(notebooks, "run", lambda *a, **more: pretend([])(*a, **more) | found)
    monkeypatch.setattr(notebooks, "keep_outputs", lambda *arguments: kept.append(arguments))
    run_command.run("07", scale=scale, seed=0, seeds=3, keep=True, weights=False, output=None)
    assert [path.name for path in (tmp_path / "book" / "results" / "07").iterdir()] == [f"{scale}.json"]
    assert (kept, chapter.path.read_bytes()) == ([], before)
    run_command.run("07", scale="laptop", seed=0, seeds=1, keep=True, weights=False, output=None)
    assert len(kept) == 1
