"""The link to Colab: there once the project says where its source is, and only then."""

import json
import sys
from pathlib import Path

import pytest
from testing_tools import refused

sys.path.insert(0, str(Path(__file__).parents[2] / "book"))  # as conf.py has it

import colab

NOTEBOOK = json.dumps({"cells": [{"cell_type": "markdown", "source": "# One"}, {"cell_type": "code", "source": "1"}]})


def test_the_link_comes_after_the_title():
    shown = json.loads(colab.with_link(NOTEBOOK, "05_attention", "https://github.com/someone/mmlearn"))["cells"]
    assert [cell["cell_type"] for cell in shown] == ["markdown", "markdown", "code"]
    assert (
        "(https://colab.research.google.com/github/someone/mmlearn/blob/main/notebooks/05_attention.ipynb)"
        in (shown[1]["source"])
    )
    assert "git+https://github.com/someone/mmlearn" in shown[1]["source"]


@pytest.mark.parametrize("address", ["https://example.org/a/b", "https://github.com/someone", "someone/mmlearn"])
def test_an_address_that_colab_does_not_know_is_refused(address):
    refused("https://github.com/OWNER/NAME", colab.with_link, NOTEBOOK, "05_attention", address)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('[project.urls]\nSource = "https://github.com/a/b/"\n', "https://github.com/a/b"),
        ('[project.urls]\nSurvey = "https://arxiv.org"\n', ""),
        ('[project]\nname = "x"\n', ""),
    ],
)
def test_the_address_is_read_from_the_project(tmp_path, text, expected):
    (tmp_path / "pyproject.toml").write_text(text)
    assert colab.source_address(tmp_path / "pyproject.toml") == expected
