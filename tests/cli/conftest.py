"""The command in this process, a folder of the user's own, and chapters that cost nothing."""

import json
import sys
from typing import NamedTuple

import pytest
from PIL import Image

from mmlearn import cli


class Said(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def mmlearn(capsys, monkeypatch, tmp_path, unchecked):
    """A function that runs ``mmlearn …`` in an empty folder and returns its exit code, stdout and stderr."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["mmlearn", *map(str, arguments)])
        with pytest.raises(SystemExit) as done:
            cli.main()
        return Said(done.value.code, *capsys.readouterr())

    return call


@pytest.fixture
def works(mmlearn):
    """A function that runs ``mmlearn …`` and expects no error."""

    def call(*arguments):
        said = mmlearn(*arguments)
        assert said.code == 0, said.err
        return said

    return call


@pytest.fixture
def fails(mmlearn, tmp_path):
    """A function that runs ``mmlearn …`` and expects one line that says all of ``says``, and no file touched."""

    def call(*arguments, says=(), after_progress=False):
        before = _files(tmp_path)
        said = mmlearn(*arguments)
        *progress, line = said.err.splitlines()
        assert said.code == 1, said.err
        assert said.out == ""
        assert line.startswith("mmlearn: "), said.err
        assert after_progress or not progress, said.err
        assert "Traceback" not in said.err
        assert len(line) < 500
        for fragment in [says] if isinstance(says, str) else says:
            assert fragment in line, line
        assert _files(tmp_path) == before

    return call


def _files(folder):
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


@pytest.fixture(scope="session")
def images(tmp_path_factory):
    """A folder as a user has one: 24 plain pictures with captions, of which 16 are to train on."""
    folder = tmp_path_factory.mktemp("pictures")
    names = ("red", "green", "blue", "grey", "pink", "black")
    lines = ["image,caption,split"]
    for i in range(24):
        name, size = names[i % 6], 24 + i
        Image.new("RGB", (size, size), name).save(folder / f"{i}.png")
        lines.append(f"{i}.png,a {name} field {size} wide,{'train' if i < 16 else 'test'}")
    (folder / "captions.csv").write_text("\n".join(lines))
    return folder


@pytest.fixture
def short(images):
    """Arguments of a training that is over at once."""
    return ["--data", images, "--steps", 3, "--batch-size", 8, "--image-size", 32, "--vocab-size", 300]


@pytest.fixture
def notebooks(tmp_path_factory, monkeypatch):
    """Two chapters that are never run."""
    folder = tmp_path_factory.mktemp("shipped") / "notebooks"
    folder.mkdir()
    for name, title in (("00_first_lesson", "0. The lesson"), ("07_contrastive", "Chapter 7: Pairs")):
        cells = [{"cell_type": "markdown", "source": [f"# {title}\n", "Text."], "metadata": {}}]
        notebook = {"cells": cells, "metadata": {"mmlearn": {"minutes": 2}}, "nbformat": 4, "nbformat_minor": 5}
        (folder / f"{name}.ipynb").write_text(json.dumps(notebook))
    monkeypatch.setattr("mmlearn.notebooks.notebooks_folder", lambda: folder)
    return folder
