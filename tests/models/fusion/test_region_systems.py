"""What systems of words and regions share: gaps do not leak, regions have no order, what is wrong is told."""

import pytest
import torch
from batches import read, scenes
from testing_tools import close, refused, shaken

from mmlearn.recipes.discovery import find_recipe

NAMES = ["ernie-vil", "kvl-bert", "lxmert", "oscar", "uniter", "vilbert", "vinvl", "visual-bert", "vl-bert"]
systems = pytest.mark.parametrize("name", NAMES)


def build(name):
    recipe = find_recipe(name)
    return shaken(recipe.system(recipe.config.tiny()))


@systems
def test_what_a_masked_region_holds_is_not_seen(name):
    """Not even through the whole picture."""
    model, batch = build(name), scenes()
    losses, before = model.loss(batch), read(model, batch)
    for junk in (batch["region_target"], torch.full_like(batch["regions"], torch.nan)):
        seen = batch | {"regions": torch.where(batch["masked_regions"][..., None], junk, batch["regions"])}
        for key, loss in model.loss(seen).items():
            assert torch.equal(loss, losses[key]), key
        for key in ("tokens", "regions", "pooled"):
            assert torch.equal(getattr(read(model, seen), key), getattr(before, key)), key
    shown = read(model, batch, regions=batch["region_target"], masked_regions=None)
    assert not torch.allclose(shown.pooled, before.pooled, atol=1e-3)


@systems
def test_regions_have_no_order(name):
    """Only positions: shuffled, each keeps its own state, and all else stays."""
    model, batch, order = build(name), scenes(), torch.randperm(9)
    keys = ("regions", "boxes", "region_mask", "masked_regions")
    shuffled, before = read(model, batch, **{key: batch[key][:, order] for key in keys}), read(model, batch)
    real = batch["region_mask"]
    close(shuffled.regions[real[:, order]], before.regions[:, order][real[:, order]])
    close(shuffled.tokens[batch["mask"]], before.tokens[batch["mask"]])
    close(shuffled.pooled, before.pooled)
    assert not torch.allclose(shuffled.regions[real], before.regions[real], atol=1e-2)


@systems
def test_nothing_masked_costs_nothing(name):
    model, batch = build(name), scenes()
    batch |= {"token_label": torch.full_like(batch["tokens"], -100), "masked_regions": batch["region_mask"] & False}
    losses = model.loss(batch)
    nothing = [loss for key, loss in losses.items() if key not in ("itm", "wra")]
    sum(nothing).backward(retain_graph=True)
    assert all(loss == 0 for loss in nothing)
    assert not model.language_head.bias.grad.any()
    sum(losses.values()).backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters() if parameter.grad is not None)


@systems
def test_a_padded_region_is_never_a_masked_one(name):
    model, batch = build(name), scenes()
    for masked in (batch["masked_regions"], batch["region_mask"]):
        losses = model.loss(batch | {"masked_regions": masked})
        for key, loss in model.loss(batch | {"masked_regions": masked | ~batch["region_mask"]}).items():
            close(loss, losses[key])
            assert loss.isfinite()


@systems
def test_what_does_not_fit_is_refused(name, unchecked):
    model, batch = build(name), scenes()
    shorter = {key: batch[key][:3] for key in ("regions", "boxes", "region_mask", "masked_regions")}
    for says, changes in (
        (r"region_width is 216; got torch.float32 \(6, 9, 191\)", {"regions": batch["regions"][..., :191]}),
        (r"^regions must be torch.float32 \(6, 9, 216\), .* 6 texts .* got torch.float32 \(3, 9, 216\)", shorter),
        ("no region; give at least one", {"region_mask": batch["region_mask"] & False}),
        ("left < right", {"boxes": 1 - batch["boxes"]}),
        ("at least one", {key: rows[:0] for key, rows in batch.items()}),
        ("A mask is boolean", {"mask": batch["mask"].long()}),
    ):
        refused(says, model.loss, batch | changes)
    given = {key: batch[key] for key in ("tokens", "regions", "boxes", "region_mask")}
    refused(r"Nothing to learn: this \w+ has no head for any label of a batch with tokens, regions", model.loss, given)
    nothing = read(model, {key: rows[:0] for key, rows in batch.items()})
    assert len(nothing.pooled) == len(nothing.tokens) == len(nothing.regions) == 0
