"""Pixel-BERT: pixels are a set, samples are repeatable and fair, sizes are the published ones."""

import copy
import dataclasses
import math
from contextlib import contextmanager

import pytest
import torch
from batches import labelled, only
from testing_tools import close, overfit, pairs, refused
from torch import nn
from torchvision.models import resnet50

from mmlearn.layers import record_attention
from mmlearn.models.fusion.pixel_bert import PixelBERT, PixelBERTConfig, resnet_backbone
from mmlearn.models.text.bert import BERT, BERTConfig

TINY = PixelBERTConfig.tiny()
VQA = dataclasses.replace(TINY, pretraining_heads=False, answers=7)


class Cells(nn.Module):
    """A backbone that one can see through: each 16 × 16 cell is its mean colour."""

    def forward(self, image):
        return nn.functional.avg_pool2d(image, 16)


CELLS = dataclasses.replace(TINY, stride=16, feature_width=3, sampled_pixels=5)


def read(model, batch, generator=None):
    return model(batch["image"], batch["tokens"], batch["mask"], generator=generator)


@contextmanager
def record_input(module):
    """What a module is called with, call by call."""
    seen = []
    hook = module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach().clone()))
    yield seen
    hook.remove()


def test_every_word_and_pixel_reads_every_other():
    model, batch = PixelBERT(TINY), pairs(1)
    before = torch.cat(model(batch["image"], batch["tokens"])[:2], dim=1)
    tokens, image = batch["tokens"].clone(), batch["image"].clone()
    tokens[0, 5] = 2
    image[:, :, 32:40, 32:40] += 1
    for inputs in ((batch["image"], tokens), (image, batch["tokens"])):
        after = torch.cat(model(*inputs)[:2], dim=1)
        assert ((after - before).abs().amax(-1) > 1e-7).all()
    positions = (after - before).abs().amax(-1)[0].topk(4).indices - 12
    assert set(positions.tolist()) == {4 * 8 + 4, 4 * 8 + 5, 5 * 8 + 4, 5 * 8 + 5}  # the pixels that see what changed


def test_pixels_are_a_set_whose_positions_only_the_backbone_knows():
    model, batch = PixelBERT(CELLS, Cells()), pairs(2)
    before = read(model, batch)
    moved = read(model, batch | {"image": batch["image"].roll((16, 32), dims=(2, 3))})
    close(moved.pooled, before.pooled)
    close(moved.pixels.view(2, 4, 4, -1), before.pixels.view(2, 4, 4, -1).roll((1, 2), dims=(1, 2)))
    with_convolutions = PixelBERT(TINY)
    moved = read(with_convolutions, batch | {"image": batch["image"].roll((16, 32), dims=(2, 3))})
    assert not torch.allclose(moved.pooled, read(with_convolutions, batch).pooled, atol=1e-6)


def test_all_pixels_share_one_bias_that_tells_them_from_words():
    model, batch = PixelBERT(CELLS, Cells()), pairs(2)
    with record_input(model.transformer) as seen:
        read(model, batch)
        with torch.no_grad():
            model.image_projection.bias += 1
        read(model, batch)
    words = batch["tokens"].shape[1]
    close(seen[1][:, :words], seen[0][:, :words])
    close(seen[1][:, words:], seen[0][:, words:] + 1)


def test_a_sample_is_some_pixels_of_each_image_and_nothing_else():
    """The first pass of the blocks sees 5 of the 16 cells, each once; a cell that is left out changes nothing."""
    model, batch = PixelBERT(CELLS, Cells()), pairs(4)
    words = batch["tokens"].shape[1]
    with record_input(model.transformer) as seen:
        read(model, batch)
        output = read(model, batch, torch.Generator().manual_seed(1))
    whole, sampled = (x[:, words:] for x in seen)
    assert output.pixels.shape == (4, 5, 64)
    kept = (sampled[:, :, None] == whole[:, None]).all(-1)  # (b, k, p)
    assert (kept.sum(2) == 1).all()
    assert (kept.sum(1) <= 1).all()
    kept = kept.any(1)
    assert len({tuple(row) for row in kept.tolist()}) > 1
    hidden = (~kept).view(4, 1, 4, 4).repeat_interleave(16, 2).repeat_interleave(16, 3)
    other = batch | {"image": torch.where(hidden, torch.randn_like(batch["image"]), batch["image"])}
    assert torch.equal(read(model, other, torch.Generator().manual_seed(1)).pooled, output.pooled)
    assert not torch.allclose(read(model, other).pooled, read(model, batch).pooled, atol=1e-4)


def test_every_pixel_is_as_likely():
    model, image = PixelBERT(CELLS, Cells()), torch.arange(16.0).view(1, 1, 4, 4)
    image = image.repeat_interleave(16, 2).repeat_interleave(16, 3).expand(500, 3, 64, 64)
    tokens = torch.ones(500, 3, dtype=torch.long)
    with record_input(model.image_projection) as seen:
        for seed in range(4):
            model(image, tokens, generator=torch.Generator().manual_seed(seed))
    counts = torch.cat(seen)[..., 0].round().long().flatten().bincount(minlength=16)
    expected, deviation = 2000 * 5 / 16, (2000 * 5 / 16 * 11 / 16) ** 0.5
    assert counts.sum() == 2000 * 5
    assert ((counts - expected).abs() < 4 * deviation).all()


def test_samples_follow_from_the_step_and_the_seed_and_nothing_else():
    model, batch = PixelBERT(CELLS, Cells()), only(labelled(), "token_label")
    losses = []
    for _ in range(3):
        losses.append(model.loss(batch)["mlm"].item())
        torch.manual_seed(len(losses))
        assert model.loss(batch)["mlm"].item() == losses[-1]
        model.after_step()
    assert len(set(losses)) == 3
    resumed = PixelBERT(CELLS, Cells())
    state = copy.deepcopy(model.state_dict())
    resumed.load_state_dict(state)
    assert resumed.loss(batch)["mlm"].item() == model.loss(batch)["mlm"].item()
    other = PixelBERT(dataclasses.replace(CELLS, seed=1), Cells())
    other.load_state_dict(state)
    assert other.loss(batch)["mlm"].item() != model.loss(batch)["mlm"].item()


def test_nothing_is_sampled_after_pretraining():
    """Neither in evaluation, nor where questions are answered, nor where the configuration says so."""
    labels = {"answer": torch.arange(8) % 7}
    config = dataclasses.replace(CELLS, answers=7)
    model, batch = PixelBERT(config, Cells()), only(labelled(), "token_label", "match_label")
    pixels = []
    model.transformer.register_forward_pre_hook(lambda _, inputs: pixels.append(inputs[0].shape[1] - 12))
    model.loss(batch)
    model.loss(batch | labels)
    model.eval().loss(batch)
    assert pixels == [5, 16, 16]
    all_of_them = PixelBERT(dataclasses.replace(CELLS, sampled_pixels=0), Cells())
    assert read(all_of_them, batch, torch.Generator()).pixels.shape[1] == 16
    more_than_there_are = PixelBERT(dataclasses.replace(CELLS, sampled_pixels=99), Cells())
    assert read(more_than_there_are, batch, torch.Generator()).pixels.shape[1] == 16


def test_answers_are_learned_by_heart():
    batch = labelled(4) | {"answer": torch.arange(4)}
    assert overfit(PixelBERT(VQA), only(batch, "answer"), steps=80, learning_rate=3e-3) < 0.05


def test_attention_is_recorded_over_the_pixels_of_the_sample():
    model, batch = PixelBERT(TINY).eval(), pairs(2)
    with record_attention(model) as maps:
        read(model, batch, torch.Generator())
    assert maps["transformer.blocks.0.attention"].shape[-1] == 12 + 32


@pytest.mark.parametrize("size", [64, (64, 96), (70, 65)])
def test_the_grid_is_that_of_the_feature_map(size):
    height, width = (size, size) if isinstance(size, int) else size
    image, tokens = torch.randn(1, 3, height, width), torch.ones(1, 3, dtype=torch.long)
    model = PixelBERT(dataclasses.replace(TINY, image_size=size))
    assert model(image, tokens).pixels.shape[1] == math.prod(model.grid)
    published = dataclasses.replace(TINY, image_size=size, backbone="resnet-50", stride=64, feature_width=2048)
    published = PixelBERT(published)
    assert published(image, tokens).pixels.shape[1] == math.prod(published.grid)


def test_a_resnet_takes_torchvisions_weights():
    theirs, ours = resnet50(weights=None).eval(), resnet_backbone("resnet-50").eval()
    unfilled, unused = ours.load_state_dict(theirs.state_dict(), strict=False)
    assert unfilled == []
    assert unused == ["fc.weight", "fc.bias"]
    image, before_pooling = torch.randn(1, 3, 96, 130), []
    theirs.layer4.register_forward_hook(lambda module, inputs, output: before_pooling.append(output))
    with torch.no_grad():
        theirs(image)
        features = ours(image)
    rows, columns = before_pooling[0].shape[2:]
    assert (rows, columns) == (3, 5)
    for row in range(2):
        for column in range(3):
            block = before_pooling[0][..., 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
            close(features[..., row, column], block.amax((2, 3)))


def test_a_backbone_that_there_is_not():
    config = dataclasses.replace(TINY, backbone="vgg")
    refused("backbone is 'convolutions', 'resnet-50' or 'x152', not 'vgg'", PixelBERT, config)


def test_published_size():
    """BERT-base as published (109,482,240 with pooler), ResNet-50 and ResNeXt-152 without their classifiers."""
    for preset, backbone in (("resnet-50", 23_508_032), ("x152", 57_902_400)):
        with torch.device("meta"):
            model = PixelBERT(PixelBERTConfig.preset(preset))
        sizes = {name: sum(p.numel() for p in part.parameters()) for name, part in model.named_children() if part}
        assert sizes["backbone"] == backbone
        assert sizes["embedding"] + sizes["transformer"] + sizes["pooler"] == 109_482_240
        assert sizes["image_projection"] == 2049 * 768


def test_berts_weights_fit():
    """The paper starts from BERT: its names are kept, so its weights load."""
    bert, model = BERT(dataclasses.replace(BERTConfig.tiny(), language_head=True)), PixelBERT(TINY)
    unfilled, unused = model.load_state_dict(bert.state_dict(), strict=False)
    assert unused == []
    assert {name.split(".")[0] for name in unfilled} == {"image_projection", "match_head", "backbone", "steps"}
