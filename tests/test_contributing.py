"""CONTRIBUTING.md adds a system in three files and edits nothing else: they are taken out of the page and tried."""

import re
import sys
from pathlib import Path

import pytest
from contract import PROMISES

import mmlearn
import mmlearn.models
import mmlearn.recipes
from mmlearn.recipes.discovery import find_recipe, system_files

PAGE = Path(mmlearn.__file__).parents[1] / "CONTRIBUTING.md"
FILES = dict(re.findall(r"```python\n# (\S+)\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL))


@pytest.fixture
def added(tmp_path, monkeypatch):
    """The files of the page, in folders that the library's packages look into as well."""
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    import mmlearn.models.contrastive

    for package in (mmlearn.models, mmlearn.models.contrastive, mmlearn.recipes):
        folder = tmp_path / package.__name__.replace(".", "/")
        monkeypatch.setattr(package, "__path__", [*package.__path__, str(folder)])
    yield tmp_path
    for name in ("mmlearn.models.contrastive.cyclip", "mmlearn.recipes.cyclip"):
        sys.modules.pop(name, None)


def test_the_page_has_a_model_a_recipe_and_a_test():
    assert [name.partition("/")[0] for name in FILES] == ["mmlearn", "mmlearn", "tests"]


def test_it_is_found_and_keeps_the_contract(added, tmp_path):
    assert "cyclip" in system_files()
    assert find_recipe("cyclip").architecture
    for promise in PROMISES:
        (run := tmp_path / promise.__name__).mkdir()
        promise("cyclip", run)


def test_its_own_test_passes(added):
    names: dict = {}
    exec(FILES["tests/models/contrastive/test_cyclip.py"], names)
    names["test_cyclic_losses_are_those_of_two_loops"]()
