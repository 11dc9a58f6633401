"""Lessons: sizes by scale, the few numbers that are reported, what is kept, and bounds that can fail."""

import ast
import copy
import json
import math
from types import SimpleNamespace

import lesson_bounds
import pytest
import torch
import torch.nn.functional as F
from lesson_bounds import BOUNDS, out_of_bounds
from testing_tools import refused
from torch import nn

from mmlearn import lessons
from mmlearn.data import Tokenizer
from mmlearn.data.batches import Batches
from mmlearn.layers import ImageEncoderConfig, TextEncoderConfig
from mmlearn.layers.transformer import MLP
from mmlearn.lessons import Lesson
from mmlearn.models.contrastive.clip import CLIP, CLIPConfig
from mmlearn.notebooks import notebooks_folder
from mmlearn.pretrained import zoo
from mmlearn.training import TrainingOptions, fit
from mmlearn.training.optimizers import build_optimizers, schedule

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


def test_where_nothing_can_be_written_it_says_what_to_do(at, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("MMLEARN_RUN", str(tmp_path / "file" / "run"))
    with pytest.raises(OSError, match=r"cannot be made \(Not a directory\): copy the notebooks .* mmlearn start"):
        at()


def test_a_report_is_shown_and_written(at, tmp_path):
    table = at().report({"right": ROW, "blind": dict(here=0.2, chance=0.1)})
    assert str(table).splitlines()[1].split() == ["right", "50.0%", "90.0%", "10.0%", "10.0%"]
    record = json.loads((tmp_path / "runs" / "07_contrastive" / "metrics.json").read_text())
    assert {row["name"]: row["obtained"] for row in record["results"]} == {
        "right": 0.5, "right, zoo": 0.9, "right, untrained": 0.1, "blind": 0.2,
    }  # fmt: skip
    table = at().report({"loss": dict(here=1.234, chance=4.0)}, form=".2f")
    assert str(table).splitlines()[1].split() == ["loss", "1.23", "4.00"]


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


STEPS, BATCH, RATE = 10, 8, 3e-3


def loop_of(stem, name, **known):
    """The function of this name, with all that the lesson's cells define, on what is ``known``."""
    cells = json.loads((notebooks_folder() / f"{stem}.ipynb").read_text("utf-8"))["cells"]
    found = [
        statement
        for cell in cells
        if cell["cell_type"] == "code"
        for statement in ast.parse("".join(cell["source"])).body
        if isinstance(statement, ast.FunctionDef)
    ]
    known |= {"trange": lambda steps, **_: range(steps), "size": SimpleNamespace(rate=RATE, batch=BATCH)}
    known |= {"torch": torch, "F": F, "build_optimizers": build_optimizers, "schedule": schedule}
    exec(compile(ast.Module(found, []), stem, "exec"), known)
    return known[name]


class Made(Batches):
    """Batches that are there already, in their order, as data that make their own."""

    rank = 0

    def __init__(self, made):
        self.made = made

    def __len__(self):
        return BATCH * len(self.made)

    def batches(self, *_, **__):
        return self

    def source(self, step):
        return self

    def __getitem__(self, step):
        return self.made[step]


def fitted(model, batches, weight_decay):
    """The same model after :func:`fit` on these batches, with what the lessons' loops have."""
    learning = dict(optimizer="muon", learning_rate=RATE, weight_decay=weight_decay, warmup=50, batch_size=BATCH)
    options = TrainingOptions(decay="cosine")
    history = fit(model, Made(batches), dict, steps=STEPS, progress=False, options=options, **learning)
    return model, [row["loss"] for row in history]


def same_weights(model, history, other, expected, tolerance=0.0):
    near = dict(rtol=0, atol=tolerance)
    torch.testing.assert_close(torch.tensor(history), torch.tensor(expected), **near)
    for name, value in other.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], value, **near)


def test_the_loop_of_lesson_00_gives_the_weights_of_fit():
    """After ten steps on the same batches, in float64: the lesson writes the embeddings and the loss of CLIP itself."""
    words = ["a dog", "two cats above a tree", "a purple shirt", "an owl with a banana"]
    tokenizer = Tokenizer.train(words, vocab_size=300, max_length=12)
    train = [SimpleNamespace(retold=lambda k, i=i: SimpleNamespace(caption=words[(i + k) % 4])) for i in range(24)]
    image = ImageEncoderConfig(16, 1, 2, image_size=3, patch_size=1, channels=5, class_token=False, embedding_norm=True)
    text = TextEncoderConfig(16, 1, 2, vocab_size=tokenizer.vocab_size, max_length=12)
    torch.manual_seed(0)
    config = CLIPConfig(image=image, text=text, embedding_width=8, pooling="max", end_token=tokenizer.end_token)
    model = CLIP(config).double()
    start, x = copy.deepcopy(model), torch.randn(24, 5, 3, 3).double()
    known = dict(train=train, tokenizer=tokenizer, x_train=x, SEED=0, copy=copy)
    loop = loop_of("00_first_lesson", "fit_clip", **known)
    torch.manual_seed(1)
    checkpoints = {}
    history = loop(model.train(), range(24), STEPS, checkpoints=checkpoints)
    assert list(checkpoints) == [0]
    assert all(map(torch.equal, checkpoints[0].state_dict().values(), start.state_dict().values()))
    torch.manual_seed(1)
    batches = []
    for step in range(STEPS):
        rows = torch.randint(24, (BATCH,))
        tokens, mask = tokenizer([train[row].retold(step).caption for row in rows.tolist()])
        batches.append({"image": x[rows], "tokens": tokens, "mask": mask})
    same_weights(model, history, *fitted(start, batches, 0.05), tolerance=1e-10)
    assert len(set(history)) == STEPS


class Guess(nn.Module):
    """Anything that learns, with matrices for either optimiser."""

    def __init__(self):
        super().__init__()
        self.inside, self.head = MLP(6, 12), nn.Linear(6, 3)

    def forward(self, x):
        return self.head(self.inside(x))

    def loss(self, batch):
        return {"guess": F.cross_entropy(self(batch["x"]), batch["y"])}


def test_the_loop_of_lesson_08_gives_the_weights_of_fit():
    """Bit for bit."""
    torch.manual_seed(0)
    model, x, y = Guess(), torch.randn(40, 6), torch.randint(3, (40,))
    start = copy.deepcopy(model)
    loop = loop_of("08_one_stream", "fit_model", described=range(40), learned=[x, y, y, y], SEED=1)
    history = loop(model.train(), lambda model, rows, x, y, *_: model.loss({"x": x, "y": y})["guess"], STEPS)
    torch.manual_seed(1)
    rows = [torch.randint(40, (BATCH,)) for _ in range(STEPS)]
    same_weights(model, history, *fitted(start, [{"x": x[each], "y": y[each]} for each in rows], 0.01))
