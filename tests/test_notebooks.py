"""Notebooks of chapters: found by number or name, run, recorded, kept and copied."""

import base64
import io
import json
import os
import re
from pathlib import Path

import pytest
from PIL import Image
from testing_tools import refused

from mmlearn import notebooks
from mmlearn.notebooks import Notebook, find, keep_outputs, record, run, start


def cell(source, kind="code", tags=()):
    extra = {"execution_count": None, "outputs": []} if kind == "code" else {}
    return {
        "cell_type": kind,
        "id": f"c{abs(hash(str(source))) % 10**8}",
        "metadata": {"tags": list(tags)},
        "source": source,
    } | extra


def write(path, cells, **metadata):
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    content = {"cells": cells, "metadata": {"kernelspec": kernel} | metadata, "nbformat": 4, "nbformat_minor": 5}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    """A package with four chapters and two exercises."""
    root = tmp_path / "package"
    write(
        root / "notebooks" / "07_contrastive.ipynb",
        [cell("# 7 — Pulling pairs\ntext", "markdown")],
        mmlearn={"minutes": 3},
    )
    write(root / "notebooks" / "00_first.ipynb", [cell("x = 1"), cell(["no\n", "# Chapter 00: First\n"], "markdown")])
    write(root / "notebooks" / "05_attention.ipynb", [cell("## no\n# Attention", "markdown")], mmlearn={"minutes": 0.5})
    write(root / "notebooks" / "13a_hearing.ipynb", [cell("# 13a · Hearing", "markdown")], mmlearn={"minutes": 2})
    write(root / "notebooks" / "labs" / "05-lab_maps.ipynb", [cell("# Lab 05: can maps be trusted?", "markdown")])
    write(root / "notebooks" / "draft.ipynb", [cell("# Draft", "markdown")])
    for path in ("notebooks/scales.toml", "notebooks/heroes/05.png"):  # what lessons need beside them
        (root / path).parent.mkdir(exist_ok=True)
        (root / path).write_text(path)
    for path in ("05_attention/exercise.ipynb", "05_attention/checks.py", "07_contrastive/checks.py"):
        (root / "exercises" / path).parent.mkdir(parents=True, exist_ok=True)
        (root / "exercises" / path).write_text(path)
    monkeypatch.setattr(notebooks, "notebooks_folder", lambda: root / "notebooks")
    return root


# Finding.


def test_chapters_in_order_with_title_and_minutes(shipped):
    assert [(c.number, c.name, c.title, c.minutes) for c in notebooks.chapters()] == [
        ("00", "00_first", "First", 1),
        ("05", "05_attention", "Attention", 0.5),
        ("05-lab", "05-lab_maps", "can maps be trusted?", 1),
        ("07", "07_contrastive", "Pulling pairs", 3),
        ("13a", "13a_hearing", "Hearing", 2),
    ]


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        ("13a", "13a_hearing"),
        ("00", "00_first"),
        ("0", "00_first"),
        ("5", "05_attention"),
        ("05-lab", "05-lab_maps"),
        ("07", "07_contrastive"),
        ("00_first", "00_first"),
    ],
)
def test_a_chapter_by_number_or_name(shipped, asked, name):
    assert find(asked).name == name


def test_an_unknown_chapter_is_answered_with_the_nearest(shipped):
    refused("no chapter '05_atention'; did you mean '05_attention'", find, "05_atention")
    refused(r"no chapter '99'; .*00, .*05, .*07", find, "99")


def test_a_chapter_in_parts_is_found_by_part_and_otherwise_lists_them(shipped):
    write(shipped / "notebooks" / "13b_speech.ipynb", [cell("# 13b · Speech: alone", "markdown")])
    assert (find("13a").name, find("13b").name, find("13b_speech").number) == ("13a_hearing", "13b_speech", "13b")
    with pytest.raises(
        ValueError, match=r"Chapter 13 is in 2 parts; choose from 13a \(Hearing\), 13b \(Speech: alone\)"
    ):
        find("13")
    with pytest.raises(ValueError, match="no chapter '1';"):
        find("1")
    with pytest.raises(ValueError, match="no chapter '13c'; did you mean '13"):
        find("13c")


def test_without_notebooks_it_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(notebooks, "PACKAGE", tmp_path / "site" / "mmlearn")
    with pytest.raises(FileNotFoundError, match="No notebooks came with this installation"):
        notebooks.notebooks_folder()
    write(tmp_path / "site" / "mmlearn" / "_shipped" / "notebooks" / "00_a.ipynb", [])
    assert notebooks.notebooks_folder() == tmp_path / "site" / "mmlearn" / "_shipped" / "notebooks"
    write(tmp_path / "site" / "notebooks" / "00_a.ipynb", [])  # a checkout goes first
    assert notebooks.notebooks_folder() == tmp_path / "site" / "notebooks"


# Running.

PARAMETERS = cell('SCALE = "laptop"\nSEED = 0', tags=["parameters"])
USE = """
from mmlearn.chapters import Chapter
chapter = Chapter("03_small", scale=SCALE, seed=SEED)
chapter.result("a <number>", 0.25, at_least=0.1, chance=0.0)
print("seen", SEED)
chapter.finish()
"""


def small(tmp_path, *cells):
    path = write(tmp_path / "03_small.ipynb", [cell("# Small", "markdown"), PARAMETERS, *cells])
    return Notebook("03", "03_small", "Small", 1, path)


def test_a_notebook_is_run_and_its_results_come_back(tmp_path, monkeypatch):
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    chapter = small(tmp_path, cell(USE))
    before = chapter.path.read_bytes()
    got = run(chapter, tmp_path / "out", scale="smoke", seed=7, progress=False)
    assert (got["chapter"], got["scale"], got["seed"]) == ("03_small", "smoke", 7)
    assert got["results"][0]["obtained"] == 0.25
    assert got == json.loads((tmp_path / "out" / "metrics.json").read_text(encoding="utf-8"))
    page = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    assert "seen 7" in page
    executed = json.loads((tmp_path / "out" / "03_small.ipynb").read_text(encoding="utf-8"))
    assert any("seen 7" in str(item.get("outputs")) for item in executed["cells"])
    assert chapter.path.read_bytes() == before
    assert "MMLEARN_RUN" not in os.environ


def test_a_cell_that_fails_is_told_in_one_line_and_leaves_no_old_results(tmp_path, monkeypatch):
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "metrics.json").write_text('{"results": "of an earlier run"}')
    with pytest.raises(
        ValueError, match=r"^03_small failed in cell \d+: ZeroDivisionError: division by zero"
    ) as caught:
        run(small(tmp_path, cell("1 / 0")), tmp_path / "out", scale="smoke", progress=False)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out" / "metrics.json").exists()
    assert (tmp_path / "out" / "03_small.ipynb").is_file()  # to look at
    assert "MMLEARN_RUN" not in os.environ


def test_an_unknown_scale_is_refused_before_anything_is_written(tmp_path):
    refused("smoke, laptop, long, gpu", run, small(tmp_path), tmp_path / "out", scale="large")
    assert not (tmp_path / "out").exists()


def test_data_of_ones_own_reach_a_chapter_that_takes_some(tmp_path, monkeypatch):
    monkeypatch.delenv("MMLEARN_RUN", raising=False)
    refused("takes no data of your own", run, small(tmp_path, cell(USE)), tmp_path / "out", data="photos")
    takes = cell('SCALE = "laptop"\nSEED = 0\nDATA = ""', tags=["parameters"])
    path = write(tmp_path / "03_small.ipynb", [takes, cell(USE + "print(DATA)")])
    run(Notebook("03", "03_small", "Small", 1, path), tmp_path / "out", data="photos", progress=False)
    assert "photos" in (tmp_path / "out" / "03_small.ipynb").read_text()


# Keeping.


def test_record_keeps_every_seed(tmp_path):
    chapter = Notebook("07", "07_contrastive", "x", 1, tmp_path)
    runs = [
        {"scale": "laptop", "seed": seed, "results": [{"name": "größer", "obtained": seed / 10}]} for seed in range(3)
    ]
    path = record(chapter, runs, tmp_path / "results")
    assert path == tmp_path / "results" / "07" / "laptop.json"
    assert json.loads(path.read_text(encoding="utf-8")) == {"chapter": "07_contrastive", "runs": runs}
    assert "größer" in path.read_text(encoding="utf-8")
    record(chapter, runs[:1], tmp_path / "results")
    assert len(json.loads(path.read_text(encoding="utf-8"))["runs"]) == 1
    gpu = record(chapter, [{"scale": "gpu"}], tmp_path / "results")
    assert gpu.name == "gpu.json"
    assert path.is_file()


def png(width):
    image, stream = Image.new("RGB", (width, width)), io.BytesIO()
    image.putdata([(x * 7 % 256, y * 5 % 256, (x + y) % 256) for y in range(width) for x in range(width)])
    image.save(stream, "PNG")
    return base64.b64encode(stream.getvalue()).decode()


def test_outputs_of_a_run_are_kept_in_the_chapter(tmp_path):
    sources = ["x = 1\n", "y = 2\nshow(y)\n"]
    path = write(tmp_path / "07_x.ipynb", [cell("# T", "markdown"), *(cell([part]) for part in sources)])
    clean = json.loads(path.read_text())
    ran = json.loads(path.read_text())
    ran["cells"].insert(1, cell("SEED = 3", tags=["injected-parameters"]))
    image = png(64)
    ran["cells"][3] |= {
        "execution_count": 9,
        "metadata": {"papermill": {"duration": 3}},
        "outputs": [
            {"output_type": "stream", "name": "stderr", "text": ["warning"]},
            {"output_type": "stream", "name": "stdout", "text": ["größer\n"]},
            {
                "output_type": "display_data",
                "metadata": {},
                "data": {"application/vnd.jupyter.widget-view+json": {}, "text/plain": "0%"},
            },
            {
                "output_type": "execute_result",
                "execution_count": 9,
                "metadata": {},
                "data": {"image/png": image, "text/plain": "Figure"},
            },
        ],
    }
    executed = tmp_path / "run" / "07_x.ipynb"
    executed.parent.mkdir()
    executed.write_text(json.dumps(ran))
    chapter = Notebook("07", "07_x", "T", 1, path)
    keep_outputs(chapter, executed)
    kept = json.loads(path.read_text(encoding="utf-8"))
    assert "größer" in path.read_text(encoding="utf-8")
    assert [c.get("execution_count") for c in kept["cells"]] == [None, 1, 2]
    out = kept["cells"][2]["outputs"]
    assert [o.get("name", o["output_type"]) for o in out] == ["stdout", "execute_result"]
    assert out[1]["execution_count"] == 2
    small = Image.open(io.BytesIO(base64.b64decode(out[1]["data"]["image/png"])))
    assert small.size == (64, 64)
    assert len(small.getcolors()) <= 256
    for one in kept["cells"]:
        if one["cell_type"] == "code":
            one |= {"execution_count": None, "outputs": []}
    assert kept == clean


def test_outputs_of_another_text_are_refused(tmp_path):
    path = write(tmp_path / "07_x.ipynb", [cell("# T", "markdown"), cell("x = 1")])
    before = path.read_bytes()
    executed = write(tmp_path / "run.ipynb", [cell("# T", "markdown"), cell("x = 2")])
    refused("run the chapter again", keep_outputs, Notebook("07", "07_x", "T", 1, path), executed)
    assert path.read_bytes() == before


def test_start_copies_what_is_not_there_and_never_overwrites(shipped, tmp_path):
    target = tmp_path / "mine"
    copied, kept = start(target)
    expected = {
        *(f"notebooks/{name}.ipynb" for name in ("00_first", "05_attention", "07_contrastive", "13a_hearing", "draft")),
        "notebooks/labs/05-lab_maps.ipynb",
        "notebooks/scales.toml",
        "notebooks/heroes/05.png",
        "exercises/05_attention/exercise.ipynb",
        "exercises/05_attention/checks.py",
        "exercises/07_contrastive/checks.py",
    }
    copied = {path.relative_to(target).as_posix() for path in copied}
    assert {path for path in expected if not path.endswith("checks.py")} <= copied <= expected
    assert kept == []
    for name in copied:
        assert (target / name).read_bytes() == (shipped / name).read_bytes()
    (target / "notebooks" / "00_first.ipynb").write_text("my own work")
    (target / "notebooks" / "draft.ipynb").unlink()
    again, kept = start(target)
    assert again == [target / "notebooks" / "draft.ipynb"]
    assert len(kept) == len(copied) - 1
    assert (target / "notebooks" / "00_first.ipynb").read_text() == "my own work"


def test_titles_lose_their_number_in_every_form(tmp_path, monkeypatch):
    titles = ["Chapter 05 — A", "05: A", "5. A", "A", "05 A"]
    for i, title in enumerate(titles):
        write(tmp_path / f"{i:02}_x.ipynb", [cell(f"# {title}", "markdown")])
    monkeypatch.setattr(notebooks, "notebooks_folder", lambda: tmp_path)
    assert [chapter.title for chapter in notebooks.chapters()] == ["A"] * 5
    assert all(re.fullmatch(r"\d\d", chapter.number) for chapter in notebooks.chapters())


@pytest.mark.parametrize(
    "path", sorted((Path(__file__).parents[1] / "notebooks").rglob("[0-9]*.ipynb")), ids=lambda p: p.stem
)
def test_every_figure_of_a_chapter_is_shown_in_it(path):
    """A semicolon at the end of a cell would keep it in a file that readers of notebook and book never see."""
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "code" and "chapter.figure(" in source and not source.startswith("if DATA:"):
            shown = [output for output in cell["outputs"] if "image/png" in output.get("data", {})]
            assert shown, source[-80:]


def test_the_last_run_draws_the_others_and_all_are_recorded(tmp_path, monkeypatch):
    """Seed 0, whose outputs are kept, runs last; the record has every seed in order."""
    from mmlearn import run_command

    seen, notebook = [], Notebook("07", "07_contrastive", "x", 1, tmp_path / "07_contrastive.ipynb")

    def pretend(chapter, output, *, scale, seed, data, weights):
        path = Path("book") / "results" / "07" / "laptop.json"
        kept = [run["seed"] for run in json.loads(path.read_text())["runs"]] if path.is_file() else []
        seen.append((seed, kept))
        return {"scale": scale, "seed": seed, "results": [], "seconds": 1, "peak_memory_mb": 1, "device": "x"}

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(notebooks, "find", lambda number: notebook)
    monkeypatch.setattr(notebooks, "run", pretend)
    monkeypatch.setattr(notebooks, "keep_outputs", lambda chapter, executed: seen.append(executed.parent.name))
    run_command.run("07", scale="laptop", seed=0, seeds=3, keep=True, weights=False, output=None)
    assert seen == [(2, []), (1, []), (0, [1, 2]), "seed-0"]
    record = json.loads((tmp_path / "book" / "results" / "07" / "laptop.json").read_text())
    assert [run["seed"] for run in record["runs"]] == [0, 1, 2]


def test_each_chapter_keeps_the_outputs_of_one_run_from_a_clean_kernel():
    for path in sorted((Path(__file__).parents[1] / "notebooks").rglob("[0-9]*.ipynb")):
        code = [c for c in json.loads(path.read_text(encoding="utf-8"))["cells"] if c["cell_type"] == "code"]
        assert [c["execution_count"] for c in code] == list(range(1, len(code) + 1)), path.name
