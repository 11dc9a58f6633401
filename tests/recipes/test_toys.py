"""A system is a model file and a recipe: two toys that are dropped in are found, trained, resumed and measured.

One has the shape of AttnGAN, two stages and two optimisers in turn; one that of UniT, tasks of several data sets.
"""

import shutil
import sys
from contextlib import contextmanager, nullcontext
from pathlib import Path
from unittest.mock import patch

import pytest
import testing_tools
from contract import PROMISES, keeps

import mmlearn.models
import mmlearn.recipes
from mmlearn import cli
from mmlearn.recipes.discovery import find_recipe, system_files
from mmlearn.training import loop, output

FOLDER = Path(testing_tools.__file__).parent / "toys"
TOYS = ["toy-gan", "toy-unit"]
SHORT = ["--data", "scenes", "--steps", 4, "--batch-size", 8, "--checkpoint-every", 2]


@pytest.fixture
def dropped(tmp_path, monkeypatch):
    """The toys as files of a family of their own, and no other edit."""
    shutil.copytree(FOLDER / "models", tmp_path / "models" / "toys")
    shutil.copytree(FOLDER / "recipes", tmp_path / "recipes")
    for package in (mmlearn.models, mmlearn.recipes):
        folder = str(tmp_path / package.__name__.rpartition(".")[2])
        monkeypatch.setattr(package, "__path__", [*package.__path__, folder])
    yield
    for name in [name for name in sys.modules if name.startswith(("mmlearn.models.toys", "mmlearn.recipes.toy_"))]:
        del sys.modules[name]


def in_one_file(name, folder):
    """A model and its recipe in one file, as somebody's own system may be; the path of that file."""
    model, recipe = ((FOLDER / part / f"{name}.py").read_text() for part in ("models", "recipes"))
    path = folder / f"{name}.py"
    path.write_text(model + "\n".join(line for line in recipe.splitlines() if "mmlearn.models.toys" not in line) + "\n")
    return path


@pytest.fixture
def works(monkeypatch, capsys, unchecked):
    """A function that runs ``mmlearn …``, expects no error or this exit code, and returns what is printed."""

    def call(*words, code=0):
        monkeypatch.setattr(sys, "argv", ["mmlearn", *map(str, words)])
        with pytest.raises(SystemExit) as done:
            cli.main()
        said = capsys.readouterr()
        assert done.value.code == code, said.err
        return said.out

    return call


@contextmanager
def killed_after(steps):
    """Within, training is killed when it has taken so many steps."""
    real, taken = loop.train_step, []

    def step(*arguments):
        if len(taken) == steps:
            raise SystemExit(9)
        taken.append(1)
        return real(*arguments)

    with patch.object(loop, "train_step", step), patch.object(output, "nothing_half_written", lambda _: nullcontext()):
        yield


def test_they_are_found(dropped):
    assert {*TOYS} <= {*system_files()}
    from mmlearn.models import ToyGAN

    assert find_recipe("toy-gan").system is ToyGAN


@pytest.mark.parametrize("name", TOYS)
@pytest.mark.parametrize("own_file", [False, True])
def test_they_are_trained_resumed_and_measured(dropped, works, tmp_path, name, own_file):
    """By their names, and by the path of a file that lies anywhere."""
    system = in_one_file(name.replace("-", "_"), tmp_path) if own_file else name
    words = ["train", system, *SHORT]
    words += ["--stage", "gan"] if name == "toy-gan" else []
    works(*words, "--output", tmp_path / "whole")
    with killed_after(3):
        works(*words, "--output", tmp_path / "stopped", code=9)
    works(*words, "--output", tmp_path / "stopped", "--resume")
    whole, resumed = ((tmp_path / run / "model.safetensors").read_bytes() for run in ("whole", "stopped"))
    assert whole == resumed
    again = ["--system", system] if own_file else []
    assert "chance" in works("evaluate", tmp_path / "whole", "--data", "scenes", "--limit", 16, *again)


@pytest.mark.parametrize("promise", PROMISES, ids=lambda promise: promise.__name__)
@pytest.mark.parametrize("name", TOYS)
def test_they_keep_the_contract(dropped, tmp_path, name, promise):
    (tmp_path / "run").mkdir()
    keeps(promise, name, tmp_path / "run")
