"""Chapters: what a result is held to, the sizes of each scale, what is written and what is drawn."""

import json
import math
from pathlib import Path

import pytest
import torch
from testing_tools import refused
from torch import nn

from mmlearn import chapters
from mmlearn.chapters import Chapter, Result, Table, counted_presets, recorded
from mmlearn.models.contrastive.clip import CLIPConfig
from mmlearn.notebooks import Notebook, record
from mmlearn.training import TrainingOptions
from mmlearn.training.throughput import Pace

INF = math.inf


@pytest.fixture
def chapter(tmp_path, monkeypatch):
    """A chapter that writes to a folder of its own."""
    monkeypatch.setenv("MMLEARN_RUN", str(tmp_path / "run"))

    def build(scale="laptop", **options):
        return Chapter("07_contrastive", scale=scale, **options)

    return build


def written(tmp_path):
    return json.loads((tmp_path / "run" / "metrics.json").read_text(encoding="utf-8"))


# Results.


@pytest.mark.parametrize(
    ("obtained", "at_least", "at_most", "holds"),
    [
        (0.9, 0.9, None, True),
        (math.nextafter(0.9, 0), 0.9, None, False),
        (0.9, None, 0.9, True),
        (math.nextafter(0.9, 1), None, 0.9, False),
        (0.5, 0.4, 0.6, True),
        (0.3, 0.4, 0.6, False),
        (0.7, 0.4, 0.6, False),
        (-5.0, None, None, True),
        (0.0, 0.0, None, True),
        (-1e-9, 0.0, None, False),
        (1e-9, None, 0.0, False),
        (INF, 0.4, None, True),
        (INF, None, 1.0, False),
        *((math.nan, low, high, False) for low in (None, 0.1) for high in (None, 0.9)),
    ],
)
def test_bounds(obtained, at_least, at_most, holds):
    assert Result("R@1", obtained, at_least, at_most).holds is holds


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"at_least": 0.9}, "≥ 0.9"),
        ({"at_most": 0.125}, "≤ 0.125"),
        ({"at_least": 0, "at_most": 1}, "≥ 0 and ≤ 1"),
        ({}, "reported"),
        ({"at_least": 0.7, "goal": "≥ 0.9, not reached yet"}, "≥ 0.9, not reached yet"),
    ],
)
def test_what_was_expected_in_words(options, expected):
    assert Result("R@1", 0.5, **options).expected == expected


def test_a_table_in_a_terminal_and_in_a_notebook():
    table = Table([Result("R@1", 0.98765, at_least=0.9, chance=1 / 256), Result("long name of it", 2.0)], "laptop")
    assert (
        str(table)
        == repr(table)
        == (
            "result           expected  obtained  chance\n"
            "R@1              ≥ 0.9     0.988     0.00391\n"
            "long name of it  reported  2.000     –"
        )
    )
    assert table._repr_markdown_() == (
        "| result (laptop) | expected | obtained | chance |\n|---|---|---|---|\n"
        "| R@1 | ≥ 0.9 | 0.988 | 0.00391 |\n| long name of it | reported | 2.000 | – |"
    )
    assert str(Table([], "smoke")) == "result  expected  obtained  chance"


def test_a_chapter_that_holds_shows_its_table_and_writes_it(chapter, tmp_path):
    one = chapter(seed=3)
    one.result("R@1", 0.95, at_least=0.9, chance=0.004)
    one.result("gap", 1, goal="small")
    one.details["curve"] = [1, 2]
    table = one.finish()
    assert table.rows() == [("R@1", "≥ 0.9", "0.950", "0.004"), ("gap", "small", "1.000", "–")]
    content = written(tmp_path)
    assert (content["chapter"], content["scale"], content["seed"]) == ("07_contrastive", "laptop", 3)
    assert content["details"] == {"curve": [1, 2]}
    assert [row["holds"] for row in content["results"]] == [True, True]
    assert content["results"][0]["obtained"] == pytest.approx(0.95)
    assert content["results"][0]["at_least"] == 0.9
    assert content["versions"]["torch"] == torch.__version__
    assert content["peak_memory_mb"] > 50
    assert 0 <= content["seconds"] < 60
    assert "CPU" in content["device"] or torch.cuda.is_available()


@pytest.mark.parametrize("scale", ["laptop", "long"])
def test_a_chapter_that_does_not_hold_fails_by_name_and_writes_all_the_same(chapter, tmp_path, scale):
    one = chapter(scale)
    one.result("R@1", 0.5, at_least=0.9)
    one.result("pointing", 0.99, at_least=0.9)
    one.result("gap", math.nan, at_most=1)
    with pytest.raises(AssertionError) as caught:
        one.finish()
    assert str(caught.value) == "R@1: 0.500, expected ≥ 0.9; gap: nan, expected ≤ 1"
    assert [row["holds"] for row in written(tmp_path)["results"]] == [False, True, False]


@pytest.mark.parametrize("scale", ["smoke", "gpu"])
def test_a_bound_of_a_laptop_holds_nowhere_else(chapter, tmp_path, scale):
    one = chapter(scale)
    one.result("R@1", 0.0, at_least=0.9)
    one.result("gap", 2.0, at_most=1)
    one.result("loss", 2.0, at_most={"laptop": 1})
    assert [row[1] for row in one.finish().rows()] == ["reported"] * 3
    assert [row["at_least"] for row in written(tmp_path)["results"]] == [None] * 3


def test_each_scale_has_its_own_bound(chapter):
    bound = {"laptop": 0.5, "gpu": 0.9}
    for scale, expected in (("smoke", "reported"), ("laptop", "≥ 0.5"), ("long", "reported"), ("gpu", "≥ 0.9")):
        one = chapter(scale)
        one.result("R@1", 0.95, at_least=bound)
        assert one.results[0].expected == expected


def test_a_control_is_held_at_its_scale_alone(chapter, tmp_path):
    bounds = {"at_least": {"control": 0.6, "loss": 0.1}, "at_most": {"loss": 0.2}}
    runs = {name: chapter(*scale) for name, scale in {"held": (), "not held": (), "long": ("long",)}.items()}
    for run in runs.values():
        run.result("control", 0.5, chance=0.25, goal="above the rest")
        run.result("loss", 0.15)
        run.hold("laptop", **bounds) if run is not runs["not held"] else None
    with pytest.raises(AssertionError, match=r"^control: 0\.500, expected above the rest$"):
        runs["held"].finish()
    assert written(tmp_path)["results"][1] | {"at_least": 0.1, "at_most": 0.2} == written(tmp_path)["results"][1]
    runs["not held"].finish()
    runs["long"].finish()
    refused("no result 'los'; did you mean 'loss'", runs["held"].hold, "laptop", at_least={}, at_most={"los": 1.0})


def test_no_bound_holds_for_a_readers_own_images(chapter, tmp_path):
    one = chapter(data="holiday")
    one.result("R@1", 0.0, at_least=0.9)
    one.result("gap", 2.0, at_most={"laptop": 1})
    one.hold("laptop", at_least={"R@1": 0.9}, at_most={"what has no boxes": 1})
    assert [row[1] for row in one.finish().rows()] == ["reported"] * 2
    assert [row["at_most"] for row in written(tmp_path)["results"]] == [None] * 2


def test_no_bound_holds_for_a_gpu_scale_made_small(chapter, monkeypatch):
    monkeypatch.setenv("MMLEARN_SHRINK", "1")
    one = chapter("gpu")
    one.result("R@1", 0.0, at_least={"gpu": 0.9})
    one.result("control", 0.0)
    one.hold("gpu", at_least={"control": 0.9}, at_most={})
    assert [row[1] for row in one.finish().rows()] == ["reported"] * 2


def test_other_scales_are_unknown(chapter):
    refused("smoke, laptop, long, gpu", chapter, "laptops")


SIZES = dict(
    smoke=dict(model=CLIPConfig.tiny(), steps=2, rates=(0.1,), name="a", whole=True),
    laptop=dict(model=CLIPConfig.tiny(), steps=20, rates=(0.1, 0.2), name="a", whole=True),
    gpu=dict(model=CLIPConfig.preset("ViT-B/32"), steps=200, rates=(0.3, 0.4), name="b", whole=False),
)


def test_the_settings_of_a_scale(tmp_path, monkeypatch):
    monkeypatch.setenv("MMLEARN_RUN", str(tmp_path))
    of = {scale: Chapter("x", scale=scale).settings(**SIZES, long=dict(steps=90)) for scale in chapters.SCALES}
    assert {scale: (at.steps, at.rates, at.name) for scale, at in of.items()} == {
        "smoke": (2, (0.1,), "a"),
        "laptop": (20, (0.1, 0.2), "a"),
        "long": (90, (0.1, 0.2), "a"),
        "gpu": (200, (0.3, 0.4), "b"),
    }
    assert of["gpu"].model == CLIPConfig.preset("ViT-B/32")
    less = SIZES | {"gpu": {"steps": 1}}
    refused("Each scale needs a value for model, name, rates, whole", Chapter("x").settings, **less)


def test_a_shrunk_gpu_scale_keeps_all_but_sizes(tmp_path, monkeypatch):
    monkeypatch.setenv("MMLEARN_RUN", str(tmp_path))
    monkeypatch.setenv("MMLEARN_SHRINK", "1")
    chapter = Chapter("x", scale="gpu")
    at = chapter.settings(**SIZES)
    assert (at.steps, at.rates, at.name, at.whole) == (2, (0.1,), "b", False)
    assert at.model == CLIPConfig.preset("ViT-B/32").narrowed()
    assert Chapter("x", scale="laptop").settings(**SIZES).steps == 20
    chapter.result("never", 0.0, at_least={"gpu": 0.5})
    chapter.finish()
    shrunk = json.loads((tmp_path / "metrics.json").read_text())
    assert shrunk["shrunk"]
    assert shrunk["results"][0]["at_least"] is None
    refused("not recorded", record, Notebook("00", "x", "x", 1, tmp_path), [shrunk], tmp_path)


def test_what_the_machine_is_used_for(tmp_path, monkeypatch):
    monkeypatch.setenv("MMLEARN_RUN", str(tmp_path))
    assert Chapter("x").hardware == {"options": TrainingOptions()}
    own = dict(precision="bf16", workers=8, compile=True, log_every=10)
    assert Chapter("x", scale="gpu").hardware == {"options": TrainingOptions(**own)}
    found = Chapter("x", scale="gpu").options(compile=False, decay="cosine")
    assert found == TrainingOptions(**own | dict(compile=False, decay="cosine"))
    for scale, dtype in (("laptop", torch.float32), ("gpu", torch.bfloat16)):
        chapter = Chapter("x", scale=scale)
        x = torch.ones(2, 2, device=chapter.device)
        with chapter.autocast():
            assert (x @ x).dtype == dtype


@pytest.mark.parametrize(("knows", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_a_shrunk_gpu_scale_computes_in_bf16_where_the_processor_can(tmp_path, monkeypatch, knows, dtype):
    monkeypatch.setenv("MMLEARN_RUN", str(tmp_path))
    monkeypatch.setenv("MMLEARN_SHRINK", "1")
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: knows)
    chapter = Chapter("x", scale="gpu")
    assert chapter.options().precision == ("bf16" if knows else "no")
    x = torch.ones(2, 2, device=chapter.device)
    with chapter.autocast():
        assert (x @ x).dtype == dtype


def test_only_the_gpu_scale_compiles(tmp_path, monkeypatch):
    monkeypatch.setenv("MMLEARN_RUN", str(tmp_path))
    backends = []
    monkeypatch.setattr(torch, "compile", lambda function, backend: backends.append(backend) or function)
    for shrink in ("", "1"):
        monkeypatch.setenv("MMLEARN_SHRINK", shrink)
        for scale in ("smoke", "laptop", "gpu"):
            assert Chapter("x", scale=scale).compiled(len) is len
    assert backends == ["inductor", "aot_eager"]


def test_only_the_gpu_scale_tells_its_speed(tmp_path, monkeypatch):
    monkeypatch.setenv("MMLEARN_RUN", str(tmp_path))
    pace, system = Pace(), nn.Linear(2, 2)
    pace.times = [0.0, 1.0, 1.5]
    system.loss = lambda batch: {"a": system(batch["x"]).sum()}
    for scale in ("smoke", "laptop", "gpu"):
        chapter = Chapter("x", scale=scale)
        chapter.speed(pace, system, [{"x": torch.ones(4, 2)}], 4)
        told = {result.name: result.obtained for result in chapter.results}
        assert bool(told) == (scale == "gpu")
    assert told["training: samples a second"] == 8
    assert told["training: TFLOP/s"] == pytest.approx(2 * 2 * (2 * 4 * 2 * 2) / 1e12)  # no gradient of the input


def test_figures_are_saved_and_handed_back(chapter, tmp_path):
    from mmlearn.visualization import bars

    figure = bars({"a": 1.0}, label="x")
    assert chapter().figure("bars", figure) is figure
    assert (tmp_path / "run" / "bars.png").read_bytes().startswith(b"\x89PNG")


def test_files_go_to_runs_unless_told_otherwise(tmp_path, monkeypatch):
    monkeypatch.delenv("MMLEARN_RUN", raising=False)
    monkeypatch.chdir(tmp_path)
    assert Chapter("00_first").folder == Path("runs") / "00_first"
    assert (tmp_path / "runs" / "00_first").is_dir()


def test_counted_presets_come_with_a_wheel_and_lie_in_a_checkout(tmp_path, monkeypatch):
    assert counted_presets()["clip"]["ViT-B/32"]["parameters"] == 151_277_313
    monkeypatch.setattr(chapters, "PACKAGE", tmp_path / "mmlearn")
    for folder in (tmp_path / "book" / "results", tmp_path / "mmlearn" / "_shipped" / "results"):
        folder.mkdir(parents=True)
        found = {"clip": {"here": {"parameters": len(folder.parts)}}}
        (folder / "presets.json").write_text(json.dumps(found), encoding="utf-8")
        assert counted_presets() == found


def test_compare_draws_this_run_beside_the_recorded_ones(tmp_path, monkeypatch):
    monkeypatch.setenv("MMLEARN_RUN", str(tmp_path / "run"))
    monkeypatch.setattr(chapters, "PACKAGE", tmp_path / "mmlearn")
    notebook = Notebook("07", "07_contrastive", "x", 1, tmp_path)
    old = [{"scale": "laptop", "results": [{"name": "R@1", "obtained": 0.0}]}]
    record(notebook, old, tmp_path / "mmlearn" / "_shipped" / "results")  # a checkout's own go first
    for scale, numbers in (("laptop", (0.25, 0.5)), ("long", (0.75,)), ("smoke", (0.125,))):
        results = [[{"name": "R@1", "obtained": n}, {"name": "else", "obtained": 9}] for n in numbers]
        record(notebook, [{"scale": scale, "results": rows} for rows in results], tmp_path / "book" / "results")
    assert recorded("07_contrastive")["laptop"] == {"R@1": [0.25, 0.5], "else": [9, 9]}
    assert recorded("05_attention") == {}
    chapter = Chapter("07_contrastive")
    chapter.result("R@1", 0.375, chance=0.125)
    chapter.result("new", 0.5)
    figure = chapter.compare({"found at once": "R@1", "new": "new"}, label="R@1", title="both")
    (axis,) = figure.axes
    assert [bar.get_width() for bar in axis.patches] == [0.375, 0.5]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["found at once", "new"]
    dots = {tuple(line.get_xdata()) for line in axis.get_lines() if line.get_marker() == "o"}
    assert dots == {(0.25, 0.5), (0.75,)}
    told = {text.get_text() for text in figure.legends[0].get_texts()}
    assert told == {"this run", "laptop, recorded", "long, recorded", "chance"}
    refused("no result 'R@5' yet; .*R@1", chapter.compare, ["R@5"], label="x")
