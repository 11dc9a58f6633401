"""Patches that labels hide, and codes that a tokenizer gives them."""

from functools import partial

import pytest
import torch

from mmlearn.data import load
from mmlearn.data.fields import MaskedPatches, PatchCodes, Patches, VisiblePatches, size
from mmlearn.models.vision.beit import BEiTConfig

CONFIG = BEiTConfig.tiny()


def generator():
    return torch.Generator().manual_seed(0)


@pytest.fixture(scope="module")
def scenes():
    return load("scenes", "train", size=64)


def test_labels_hide_the_share_of_the_configuration():
    batch = Patches().example(6, CONFIG, generator())
    sizes = {"patch_size": 8, "mask_share": 0.5}.__getitem__
    visible = VisiblePatches()(batch, generator(), sizes)["visible"]
    assert visible.shape == (6, 32)
    assert (visible.diff(dim=1) > 0).all()
    masked = MaskedPatches()(batch, generator(), sizes)["masked_patches"]
    assert masked.shape == (6, 64)
    assert (masked.sum(1) <= 32).all()
    assert masked.float().mean() > 0.4
    assert torch.equal(MaskedPatches()(batch, generator(), sizes)["masked_patches"], masked)


def test_a_fitted_field_tells_labels_what_the_configuration_says(scenes, tmp_path):
    fitted = Patches().fitted(scenes, CONFIG, 0)
    assert fitted.sizes() == {"image_size": 64, "patch_size": 8, "mask_share": 0.4}
    assert fitted.load(tmp_path, fitted.save(tmp_path)) == fitted


def test_codes_are_made_of_the_data_and_tell_patches_apart(scenes, tmp_path):
    fitted = PatchCodes().fitted(scenes, CONFIG, 0)
    assert fitted.sizes() == {"codes": 64}
    code = fitted([scenes[i] for i in range(12)])["code"]
    assert code.shape == (12, 64)
    assert len(code.unique()) > 20
    assert torch.equal(fitted.load(tmp_path, fitted.save(tmp_path))([scenes[0]])["code"], code[:1])
    assert PatchCodes().fitted(scenes, CONFIG, 0) == fitted


def test_example_codes_are_in_the_codebook():
    code = PatchCodes().example(5, CONFIG, generator())["code"]
    assert code.shape == (5, 64)
    assert code.min() >= 0
    assert code.max() < 64
    assert partial(size, CONFIG)("codes") == 64


def test_centroids_that_cannot_be_are_told():
    with pytest.raises(ValueError, match="rows of 12 finite numbers"):
        PatchCodes(centroids=((0.0,) * 11,))
    with pytest.raises(ValueError, match="rows of 12 finite numbers"):
        PatchCodes(centroids=((float("nan"),) * 12,))
