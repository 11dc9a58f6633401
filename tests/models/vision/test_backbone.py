"""The packaged picture tower: frozen, with its own size and colours, and useful as it is."""

import re

import pytest
import torch
from testing_tools import refused

from mmlearn.data.packaged import archives
from mmlearn.data.packaged.emoji import Emoji
from mmlearn.models.vision.backbone import MEAN, STD, BackboneConfig
from mmlearn.pretrained.backbone import load_backbone, load_positions


@pytest.fixture(scope="module")
def backbone():
    return load_backbone(64)


def test_the_backbone_is_frozen_and_stays_in_evaluation_mode(backbone):
    torch.nn.Sequential(backbone).train()
    assert not any(module.training for module in backbone.modules())
    assert not any(parameter.requires_grad for parameter in backbone.parameters())
    assert sum(parameter.numel() for parameter in backbone.parameters()) == 2_223_872 - 17_056  # folded norms
    assert {parameter.dtype for parameter in backbone.parameters()} == {torch.float32}
    images = torch.rand(2, 3, 40, 56, requires_grad=True)
    backbone(images).sum().backward()
    assert images.grad.abs().sum() > 0


def test_the_backbone_resizes_and_normalises_by_itself(backbone):
    images = torch.rand(2, 3, 40, 56)
    features = backbone(images)
    assert features.shape == (2, backbone.width) == (2, 1280)
    resized = torch.nn.functional.interpolate(images, (64, 64), mode="bilinear", antialias=True)
    mean, std = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))
    expected = backbone.features((resized - mean) / std).mean((2, 3))
    torch.testing.assert_close(features, expected)
    torch.testing.assert_close(backbone(resized), expected)
    assert load_backbone(96).features(torch.zeros(1, 3, 96, 96)).shape == (1, 1280, 3, 3)


@pytest.mark.parametrize("shape", [(2, 1, 64, 64), (2, 4, 64, 64), (2, 64, 64, 3), (3, 64, 64)])
@pytest.mark.usefixtures("unchecked")
def test_the_backbone_refuses_what_is_no_image(backbone, shape):
    """One channel would be normalised as if it were three."""
    refused(re.escape(f"(b, 3, height, width); got torch.float32 {shape}"), backbone, torch.zeros(shape))
    refused(r"got torch\.uint8", backbone, torch.zeros(2, 3, 64, 64, dtype=torch.uint8))
    assert backbone(torch.zeros(0, 3, 40, 40)).shape == (0, 1280)


def test_the_backbone_sees_what_two_drawings_have_in_common(backbone):
    features = []
    for style in ("noto", "twemoji"):
        data = Emoji("unseen-concept", styles=[style])
        images = torch.stack([sample.image for sample in data])
        with torch.no_grad():
            features.append(backbone(images))
    noto, twemoji = (torch.nn.functional.normalize(each - each.mean(0), dim=1) for each in features)
    found = ((noto @ twemoji.T).argmax(1) == torch.arange(200)).float().mean()
    assert found > 0.3  # chance is 0.005


def test_a_backbone_that_is_damaged_or_missing_or_too_small(tmp_path, monkeypatch):
    refused("at least 32 pixels, got input_size 16", load_backbone, 16)
    weights = (archives.ARCHIVES / "backbone" / "mobilenet_v2.safetensors").read_bytes()
    monkeypatch.setattr(archives, "ARCHIVES", tmp_path)
    with pytest.raises(FileNotFoundError, match="build backbone"):
        load_backbone()
    (tmp_path / "backbone").mkdir()
    (tmp_path / "backbone" / "mobilenet_v2.safetensors").write_bytes(weights[:-2])
    refused(r"mobilenet_v2.safetensors is damaged .*build backbone", load_backbone)


def test_positions_are_means_of_fields_and_may_come_ready():
    tower = load_positions(BackboneConfig(image_size=128, patch_size=64))
    images = torch.rand(2, 3, 128, 128)
    fields = tower(images)
    assert fields.shape == (2, 4, 1280)
    grid = tower.features((images - tower.mean) / tower.std)  # (2, 1280, 4, 4)
    corner = torch.nn.functional.layer_norm(grid[:, :, :2, 2:].mean((2, 3)), (1280,))  # upper right
    torch.testing.assert_close(fields[:, 1], corner)
    torch.testing.assert_close(tower(fields.mT.unflatten(2, (2, 2))), fields)
    assert tower(torch.rand(1, 3, 50, 70)).shape == (1, 4, 1280)


@pytest.mark.parametrize(("image_size", "patch_size"), [(128, 48), (100, 32), ((64, 128), 64)])
def test_fields_that_the_network_does_not_have_are_refused(image_size, patch_size):
    with pytest.raises(ValueError, match=f"into fields of {patch_size}"):
        load_positions(BackboneConfig(image_size=image_size, patch_size=patch_size))
