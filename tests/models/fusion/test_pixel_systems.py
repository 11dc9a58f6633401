"""What ViLT and Pixel-BERT share: losses by their labels, words guessed at gaps, maps over words and pixels."""

import pytest
import torch
from batches import labelled, only
from testing_tools import pairs, refused

from mmlearn.data.fields import resize
from mmlearn.layers import record_attention
from mmlearn.recipes.discovery import find_recipe

both = pytest.mark.parametrize("name", ["vilt", "pixel-bert"])


def build(name, **sizes):
    recipe = find_recipe(name)
    return recipe.system(resize(recipe.config.tiny(), sizes)).eval()


@both
def test_losses_are_those_whose_labels_are_there(name):
    model, batch = build(name, answers=7), labelled()
    matching = {"itm", "wra"} if name == "vilt" else {"itm"}
    for label, names in (("token_label", {"mlm"}), ("match_label", matching), ("answer", {"vqa"})):
        assert set(model.loss(only(batch, label))) == names
    assert set(model.loss(batch)) == {"mlm", "vqa"} | matching
    refused(r"Nothing to learn: this \w+ has no head for any label", model.loss, only(batch))
    refused("Nothing to learn", build(name).loss, only(batch, "answer"))
    refused("at least one", model.loss, {key: rows[:0] for key, rows in batch.items()})


@both
def test_words_are_guessed_at_gaps_of_matching_pairs_only(name):
    model, batch = build(name), labelled()
    log_p = model.token_logits(model(batch["image"], batch["tokens"], batch["mask"]).tokens).log_softmax(-1)
    cost = -log_p.gather(2, batch["token_label"].clamp(min=0)[..., None])[..., 0]
    gap = batch["token_label"] != -100
    matched = gap & (batch["match_label"] == 1)[:, None]
    for labels, counted in ((("token_label", "match_label"), matched), (("token_label",), gap)):
        loss = model.loss(only(batch, *labels))["mlm"].item()
        assert loss == pytest.approx(cost[counted].mean().item(), abs=1e-5)


@both
def test_no_gap_costs_nothing(name):
    model, batch = build(name), only(labelled(), "token_label")
    loss = model.loss(batch | {"token_label": torch.full_like(batch["tokens"], -100)})["mlm"]
    loss.backward()
    assert loss.item() == 0
    assert all(parameter.grad is None or parameter.grad.isfinite().all() for parameter in model.parameters())


@both
def test_attention_is_recorded_on_the_grid(name):
    model, batch = build(name), pairs(2)
    with record_attention(model) as maps:
        model(batch["image"], batch["tokens"], batch["mask"])
    assert list(maps) == [f"transformer.blocks.{i}.attention" for i in range(3)]
    weights, class_token = maps["transformer.blocks.2.attention"], int(name == "vilt")
    rows, columns = model.grid
    assert (rows, columns) == ((4, 4) if name == "vilt" else (8, 8))
    n = 12 + class_token + rows * columns
    assert weights.shape == (2, 4, n, n)
    padding = (~batch["mask"])[:, None, None].expand(-1, 4, n, -1)
    assert (weights[..., :12][padding] == 0).all()


@both
def test_wrong_input_is_told(name, unchecked):
    model, (tokens, image) = build(name), (pairs(2)[key] for key in ("tokens", "image"))
    patch = 16 if name == "vilt" else 8
    for says, given in (
        ("Each text has its picture; got 1 images and 2 texts", (image[:1], tokens)),
        (r"float tensors of shape \(b, 3, height, width\); got torch.int64", (image.long(), tokens)),
        (rf"\({patch - 1}, 64\) pixels is smaller than one {patch}-pixel patch", (image[:, :, : patch - 1], tokens)),
        ("33 tokens are more than the 32 positions", (image, torch.ones(2, 33, dtype=torch.long))),
    ):
        refused(says, model, *given)
