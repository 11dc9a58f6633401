"""Each system is compared with released code in a file of this folder, or its own file says why not."""

import re
from importlib import import_module
from pathlib import Path

import pytest

from mmlearn.recipes.discovery import find_recipe, system_files

FOLDER = Path(__file__).parent


@pytest.mark.parametrize("name", system_files())
def test_it_is_compared_or_says_why_not(name):
    compared = (FOLDER / f"test_{name.replace('-', '_')}.py").exists()
    text = " ".join((import_module(find_recipe(name).system.__module__).__doc__ or "").split())
    assert compared is not bool(re.search(r"Not compared with released code: \w.{10,}\.", text))
