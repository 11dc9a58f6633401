"""Lessons: sizes by scale, the few numbers that are reported, what is kept, and bounds that can fail."""

import json
import math
from types import SimpleNamespace

import lesson_bounds
import pytest
from lesson_bounds import BOUNDS, out_of_bounds
from testing_tools import refused
from torch import nn

from mmlearn import lessons
from mmlearn.lessons import Lesson
from mmlearn.notebooks import notebooks_folder
from mmlearn.pretrained import zoo

SCALES = """
[07.laptop]
steps = 100
batch = 8
[07.smoke]
steps = 2
[07.gpu]
batch = 512
steps = 1000
"""
ROW = dict(here=0.5, zoo=0.9, untrained=0.1, chance=0.1)


@pytest.fixture
def at(tmp_path, monkeypatch):
    (tmp_path / "scales.toml").write_text(SCALES)
    monkeypatch.chdir(tmp_path)
    return lambda **options: Lesson("07_contrastive", **options)


def test_a_scale_says_only_what_differs_from_laptop(at, monkeypatch):
    assert vars(at().size) == {"steps": 100, "batch": 8}
    assert vars(at(scale="smoke").size) == {"steps": 2, "batch": 8}
    assert vars(at(scale="gpu").size) == {"steps": 1000, "batch": 512}
    monkeypatch.setenv("MMLEARN_SHRINK", "1")
    assert vars(at(scale="gpu").size) == {"steps": 2, "batch": 512}
    refused("There is no scale 'lapptop'; did you mean 'laptop'", at, scale="lapptop")


def test_without_its_scales_a_notebook_says_where_it_belongs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(lessons, "PACKAGE", tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"scales.toml: it belongs beside the notebooks"):
        Lesson("07_contrastive")


def test_a_report_is_shown_and_written(at, tmp_path):
    table = at().report({"right": ROW, "blind": dict(here=0.2, chance=0.1)})
    assert str(table).splitlines()[1].split() == ["right", "50.0%", "90.0%", "10.0%", "10.0%"]
    record = json.loads((tmp_path / "runs" / "07_contrastive" / "metrics.json").read_text())
    assert {row["name"]: row["obtained"] for row in record["results"]} == {
        "right": 0.5, "right, zoo": 0.9, "right, untrained": 0.1, "blind": 0.2,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ({str(k): ROW for k in range(7)}, "at most 6 rows"),
        ({"right": ROW | dict(best=1.0)}, "has a column 'best'"),
        ({"right": dict(here=0.5)}, "needs what chance or an untrained model gets"),
    ],
)
def test_a_report_is_short_and_has_its_floors(at, rows, said):
    refused(said, at().report, rows)


def test_weights_are_kept_at_long_and_only_when_asked(at, tmp_path, monkeypatch):
    monkeypatch.setattr(zoo, "ARCHIVES", tmp_path)
    kept = []
    monkeypatch.setattr(zoo, "keep", lambda name, model, record, **options: kept.append((name, record, options)))
    told = dict(steps=3, data="collages", licence="Apache-2.0", system="clip")
    at(scale="long").keep("one", nn.Linear(1, 1), **told)
    monkeypatch.setenv("MMLEARN_KEEP", "1")
    at().keep("two", nn.Linear(1, 1), **told)
    assert kept == []
    at(scale="long", seed=3).keep("three", nn.Linear(1, 1), **told)
    ((name, record, options),) = kept
    assert (name, record["seed"], record["lesson"], options["system"]) == ("three", 3, "07", "clip")


BOUND = {"here": {"right": {"at_least": 0.4}}, "zoo": {"right": {"at_least": 0.8, "at_most": 0.95}}}


@pytest.mark.parametrize(
    ("here", "in_zoo", "count"), [(0.5, 0.9, 0), (0.3, 0.9, 1), (0.5, 0.99, 1), (math.nan, 0.9, 1), (0.5, None, 1)]
)
def test_bounds_can_fail(here, in_zoo, count):
    results = [dict(name="right", obtained=here)]
    results += [] if in_zoo is None else [dict(name="right, zoo", obtained=in_zoo)]
    assert len(out_of_bounds(results, BOUND)) == count


@pytest.mark.parametrize(
    ("scale", "here", "fails"), [("laptop", 0.0, True), ("smoke", 0.0, False), ("laptop", 0.5, False)]
)
def test_a_cell_that_reports_what_it_should_not_fails_under_nbval(tmp_path, monkeypatch, scale, here, fails):
    (tmp_path / "07.toml").write_text('[here]\n"right" = { at_least = 0.4 }\n')
    monkeypatch.setattr(lesson_bounds, "BOUNDS", tmp_path)
    folder = tmp_path / "runs" / "07_contrastive"
    folder.mkdir(parents=True)
    (folder / "metrics.json").write_text(json.dumps({"scale": scale, "results": [dict(name="right", obtained=here)]}))
    cell = SimpleNamespace(source="lesson.report({})")
    call = lesson_bounds.pytest_runtest_call(SimpleNamespace(cell=cell, path=tmp_path / "07_contrastive.ipynb"))
    next(call)
    with pytest.raises(lesson_bounds.OutOfBounds if fails else StopIteration):
        call.send(None)


def lesson_files():
    return [path for path in notebooks_folder().glob("*.ipynb") if "lesson.report(" in path.read_text("utf-8")]


def test_every_lesson_has_sizes_bounds_and_a_hero():
    import tomllib

    sizes = tomllib.loads((notebooks_folder() / "scales.toml").read_text())
    for path in lesson_files():
        number = path.name.partition("_")[0]
        assert {"laptop", "smoke"} <= set(sizes[number])
        assert "here" in tomllib.loads((BOUNDS / f"{number}.toml").read_text())
        assert (notebooks_folder() / "heroes" / f"{number}.png").is_file()
    assert lesson_files()
