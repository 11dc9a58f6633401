"""LXMERT: each stream asks the other by cross layers alone; its losses, its answers and its heads."""

import dataclasses
import math
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from batches import read, scenes
from testing_tools import close, overfit, refused, shaken
from torch import nn

from mmlearn.models.fusion.heads import VQAHead
from mmlearn.models.fusion.lxmert import LXMERT, LXMERTConfig
from mmlearn.models.fusion.pretraining_losses import vqa_loss

TINY = LXMERTConfig.tiny()
WHOLE = dataclasses.replace(TINY, region_attributes=12, answers=10)
PUBLISHED_START = dataclasses.replace(WHOLE, initial_std=0.02)
INPUTS = ("tokens", "regions", "boxes", "mask", "region_mask")


# Streams.


def test_each_stream_reads_the_other_and_only_by_cross_layers():
    for depth, reads in ((0, False), (1, True), (2, True)):
        model, batch = shaken(LXMERT(dataclasses.replace(TINY, cross_depth=depth))), scenes()
        before = read(model, batch)
        other_text = read(model, batch, tokens=batch["tokens"].flip(1), mask=torch.ones_like(batch["mask"]))
        other_image = read(model, batch, regions=batch["regions"] + batch["region_mask"][..., None])
        elsewhere = read(model, batch, boxes=batch["boxes"] / 2)
        for changed, position in ((other_image, "tokens"), (elsewhere, "tokens"), (other_text, "regions")):
            real = batch["mask" if position == "tokens" else "region_mask"]
            moved = (getattr(changed, position) - getattr(before, position))[real].abs().amax(-1)
            assert (moved > 1e-4).all() if reads else (moved == 0).all()


# Losses.


def test_region_losses_start_where_nothing_is_known():
    model, batch = LXMERT(PUBLISHED_START), scenes()
    losses, masked = model.loss(batch), batch["masked_regions"]
    assert losses["mrc"].item() == pytest.approx(math.log(144), abs=0.15)
    assert losses["mrc_attributes"].item() == pytest.approx(math.log(12), abs=0.15)
    target = batch["region_target"][masked]
    assert losses["mrfr"].item() == pytest.approx(F.smooth_l1_loss(target * 0, target).item(), abs=0.03)


def test_losses_are_means_over_what_is_masked():
    model, batch = shaken(LXMERT(WHOLE)), scenes()
    losses, output, masked = model.loss(batch), read(model, batch), batch["masked_regions"]
    words = model.language_head(output.tokens, model.embedding.tokens.weight)
    predicted = {name: x[masked] for name, x in model.region_head(output.regions).items()}
    seen = {name: batch[f"region_{name}"][masked].argmax(-1) for name in ("classes", "attributes")}
    expected = {
        "mlm": F.cross_entropy(words.mT, batch["token_label"]),
        "mrfr": F.smooth_l1_loss(predicted["features"], batch["region_target"][masked]),
        "mrc": F.cross_entropy(predicted["classes"], seen["classes"]),
        "mrc_attributes": F.cross_entropy(predicted["attributes"], seen["attributes"]),
        "itm": F.cross_entropy(output.match_logits, batch["match_label"]),
        "vqa": F.cross_entropy(output.answer_logits[1::2], batch["answer"][1::2]),  # of pairs that match
    }
    assert set(losses) == set(expected)
    for name, value in expected.items():
        close(losses[name], value, 1e-4)


def answer_loss(logits, answer, match_label=None):
    batch = {"tokens": torch.zeros(len(logits), 1).long(), "answer": answer}
    batch |= {} if match_label is None else {"match_label": match_label}
    system = nn.Module()
    system.answer_head = VQAHead(8, logits.shape[-1])
    return vqa_loss(system, SimpleNamespace(answer_logits=logits), batch)["vqa"]


def test_questions_count_where_the_image_is_the_one_asked_about():
    logits, answer = torch.randn(4, 5), torch.tensor([1, -100, 4, 0])
    close(answer_loss(logits, answer), F.cross_entropy(logits[[0, 2, 3]], answer[[0, 2, 3]]))
    matched = torch.tensor([1, 1, 0, 1])
    close(answer_loss(logits, answer, matched), F.cross_entropy(logits[[0, 3]], answer[[0, 3]]))
    soft = torch.rand(4, 5)
    each = F.binary_cross_entropy_with_logits(logits, soft, reduction="none").sum(-1)
    close(answer_loss(logits, soft), each.mean())
    close(answer_loss(logits, soft, matched), each[[0, 1, 3]].mean())
    assert answer_loss(logits, soft, matched * 0) == answer_loss(logits, answer, matched * 0) == 0


def test_features_are_learned_by_heart():
    model, batch = LXMERT(TINY), scenes(b=3)
    batch = {name: batch[name] for name in (*INPUTS, "masked_regions", "region_target")}
    before = model.loss(batch)["mrfr"].item()
    assert overfit(model, batch, steps=80, learning_rate=3e-3) < 0.05 * before


# What is asked for, and what is refused.


def test_heads_are_built_where_asked():
    bare = dict(pretraining_heads=False, feature_head=False, region_classes=0)
    model, batch = LXMERT(dataclasses.replace(TINY, **bare)), scenes()
    output = read(model, batch)
    assert output.match_logits is output.answer_logits is model.region_head is model.language_head is None
    refused("Nothing to learn: this LXMERT has no head", model.loss, batch)
    refused("Nothing to learn", LXMERT(TINY).loss, {name: batch[name] for name in INPUTS})
    assert set(LXMERT(TINY).loss(batch)) == {"mlm", "mrfr", "mrc", "itm"}
