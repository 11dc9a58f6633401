"""The page of what presets need: all of them are there, and what is stated is what the planner says."""

import importlib.util
import sys
from pathlib import Path

import pytest

from mmlearn.recipes.discovery import find_recipe, system_files
from mmlearn.training.counting import count
from mmlearn.training.plan import GIB, plan

BOOK = Path(__file__).parents[2] / "book"
sys.path.insert(0, str(BOOK))  # as conf.py has it
spec = importlib.util.spec_from_file_location("mmlearn_book_plans", BOOK / "plans.py")
plans = importlib.util.module_from_spec(spec)
spec.loader.exec_module(plans)
COUNTED = [  # the quickest: with towers and without, of pictures, texts and sounds, that fit and that do not
    ("albert", "xxlarge-v2"),
    ("bert", "distilbert-base"),
    ("decoar2", "base"),
    ("clip", "ViT-B/32"),
]


def test_all_published_presets_are_recorded():
    assert {name: list(presets) for name, presets in plans.recorded().items()} == plans.all_published()


def test_what_is_recorded_is_in_order_and_published():
    wanted, known = plans.all_published(), plans.recorded()
    assert list(known) == [name for name in wanted if name in known]
    assert all(list(rows) == [preset for preset in wanted[name] if preset in rows] for name, rows in known.items())
    page = plans.plans_page(known, wanted)
    assert all(f"| [{name}](systems/{name}.md) | `{preset}` |" in page for name in wanted for preset in wanted[name])


@pytest.mark.parametrize(("name", "preset"), COUNTED)
def test_what_is_recorded_is_what_is_counted(name, preset):
    assert plans.recorded()[name][preset] == plans.needs(name, preset)


def test_what_is_recorded_is_what_mmlearn_plan_says():
    recipe = find_recipe("ast")
    counted = count(recipe, recipe.config.preset("small"), plans.BATCH, precision="bf16")
    made = plan(counted, samples=1e6, device="h100")
    row = plans.recorded()["ast"]["small"]
    assert row["parameters"] == made.parameters
    assert row["flops"] == pytest.approx(made.flops / plans.BATCH)
    for way, needed in row["bytes"].items():
        assert needed == pytest.approx(made.memory[way]["all"])


@pytest.mark.parametrize("name", [name for name in system_files() if plans.published(name)])
def test_parameters_are_those_of_the_pages_of_systems(name):
    """Which are counted anew for each book; a preset that changes is noticed here."""
    import torch

    recipe = find_recipe(name)
    for preset, row in plans.recorded().get(name, {}).items():
        with torch.device("meta"):
            config = recipe.config.preset(preset)
            system = recipe.make(config if (name, preset) in plans.PARTS else recipe.for_examples(config))
        assert row["parameters"] == sum(x.numel() for x in system.parameters())


def test_the_smallest_card_that_holds_it():
    assert [plans.card(size * GIB) for size in (0.1, 24, 24.1, 40.5, 80, 80.1)] == [
        "24 GB", "24 GB", "40 GB", "80 GB", "80 GB", "more",
    ]  # fmt: skip


def test_a_page_by_hand():
    row = {"parameters": 1234567, "flops": 2.5e12, "bytes": {"plain": 50 * GIB, "recomputed": 30 * GIB}}
    page = plans.plans_page({"clip": {"ViT-B/16": row}}, {"clip": ["ViT-B/16", "ViT-B/32"]})
    assert page.startswith("# What the presets need\n")
    assert f"**{plans.BATCH} samples**" in page
    *_, head, rule, line, missing = page.splitlines()
    assert len({text.count("|") for text in (head, rule, line, missing)}) == 1
    cells = "1,234,567 | 2.5e+12 | 50.0 | 30.0 | – | 80 GB | 40 GB"
    assert line == f"| [clip](systems/clip.md) | `ViT-B/16` | {cells} |"
    assert missing.startswith("| [clip](systems/clip.md) | `ViT-B/32` | not counted yet | – |")


def test_everything_is_counted():
    known = plans.recorded()
    assert all(row["flops"] and row["bytes"] for rows in known.values() for row in rows.values())
    chunked = {name for name, rows in known.items() for row in rows.values() if "in chunks" in row["bytes"]}
    assert {"clip", "siglip"} <= chunked
    assert "blip" not in chunked
