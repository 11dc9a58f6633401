"""The page of each system: made of its recipe, with true numbers."""

import importlib.util
from pathlib import Path

import pytest
import torch

from mmlearn.models import CLIP, CLIPConfig
from mmlearn.recipes.discovery import find_recipe, system_files
from mmlearn.visualization.architecture import draw_architecture

spec = importlib.util.spec_from_file_location("mmlearn_book_systems", Path(__file__).parents[2] / "book" / "systems.py")
systems = importlib.util.module_from_spec(spec)
spec.loader.exec_module(systems)


@pytest.fixture(scope="module")
def pages():
    return systems.system_pages()


@pytest.mark.parametrize("name", list(system_files()))
def test_every_system_has_a_page_and_a_diagram(pages, name):
    page, recipe = pages[f"systems/{name}.md"], find_recipe(name)
    assert page.startswith(f"# {systems.title_of(pages_title(recipe))}\n")
    for wanted in ("**Paper", "**Deviations**", "## Presets", f"mmlearn train {name} "):
        assert wanted in page
    for item in recipe.reads:
        assert all(f"`{entry}`" in page for entry in item.holds)
    assert f"]({name}.md)" in pages["systems/index.md"]
    drawn = draw_architecture(recipe.architecture, systems.title_of(pages_title(recipe)))
    assert pages[f"systems/{name}.svg"] == drawn
    assert f"```{{image}} {name}.svg" in page
    parts = page.partition("## Parts")[2].partition("## Presets")[0]
    with torch.device("meta"):
        system = recipe.make(recipe.tiny()) if recipe.build is None else None
    assert system is None or all(
        f"`{part}`" in parts for part, module in system.named_children() if has_weights(module)
    )


def has_weights(module):
    return any(True for _ in module.parameters())


def pages_title(recipe):
    import sys

    return sys.modules[recipe.system.__module__].__doc__


def test_presets_have_the_parameters_of_the_system():
    sizes = dict(systems.preset_sizes(find_recipe("clip")))
    assert sizes["tiny"] == f"{sum(p.numel() for p in CLIP(CLIPConfig.tiny()).parameters()):,}"
    assert sizes["ViT-B/32"] == "151,277,313"  # as OpenAI's


def test_a_docstring_becomes_markdown():
    text = "Paper: A 2020.\nOfficial code: https://github.com/a/b.\n\nDeviations: ``tiny``, see :meth:`~mmlearn.X.run`."
    assert systems._as_markdown(text) == (
        "**Paper**: A 2020.\n**Official code**: <https://github.com/a/b>.\n\n**Deviations**: `tiny`, see `run`."
    )
