"""Perceiver IO: any modality that is there is asked, and what is asked of the latents does not depend on the rest."""

import dataclasses

import pytest
import torch
from testing_tools import close

from mmlearn.models.unified.perceiver_io import PerceiverIO, PerceiverIOConfig, fourier_features
from mmlearn.recipes.discovery import find_recipe

CONFIG = PerceiverIOConfig.tiny()


def system(**changes):
    torch.manual_seed(0)
    return PerceiverIO(dataclasses.replace(CONFIG, **changes)).eval()


def batch():
    return next(find_recipe("perceiver-io").examples(CONFIG))


def test_a_modality_that_is_missing_is_not_asked():
    model, given = system(num_classes=3), batch()
    both = model(given["image"], given["tokens"], given["mask"])
    text, image = model(None, given["tokens"], given["mask"]), model(given["image"])
    for one, other in ((both, text), (both, image), (text, image)):
        assert not torch.allclose(one.latents, other.latents, atol=1e-3)
    assert both.latents.shape == text.latents.shape == image.latents.shape == (8, 16, 64)
    assert image.token_logits is None
    assert image.logits.shape == (8, 3)


def test_the_work_of_latents_does_not_grow_with_the_input():
    """Only what asks the input sees it: the rest has the latents' shape."""
    model, seen = system(), []
    for block in model.processor:
        block.register_forward_hook(lambda part, inputs, output: seen.append(output.shape))
    given = batch()
    model(torch.randn(8, 3, 128, 128), given["tokens"], given["mask"])
    assert set(seen) == {(8, 16, 64)}


def test_inputs_are_a_set_that_positions_tell_apart():
    model, given = system(), batch()
    row, real = model.embed(given["image"], given["tokens"], given["mask"])
    order = torch.randperm(row.shape[1])
    latents = model.latents.expand(8, -1, -1)
    close(model.encoder(latents, row, real), model.encoder(latents, row[:, order], real[:, order]))


def test_fourier_features_are_those_of_the_equation():
    found = fourier_features(3, 5, 4, 10)
    assert found.shape == (15, 2 * (1 + 2 * 4))
    y, x = 2 / 2 * 2 - 1, 1 / 4 * 2 - 1  # the place of row 2 and column 1
    frequencies = torch.tensor([1.0, 7 / 3, 11 / 3, 5.0])
    angle = torch.cat([y * frequencies, x * frequencies]) * torch.pi
    close(found[2 * 5 + 1], torch.cat([torch.tensor([y, x]), angle.sin(), angle.cos()]))


def test_what_cannot_be_is_told():
    with pytest.raises(ValueError, match=r"Nothing to read: give tokens, an image, or both\."):
        system()()
    with pytest.raises(ValueError, match="reads no pictures: set images"):
        system(images=False)(image=batch()["image"])
    with pytest.raises(ValueError, match="reads no texts: set vocab_size"):
        system(vocab_size=0, language_head=False)(tokens=batch()["tokens"])
    with pytest.raises(ValueError, match="A Perceiver IO reads something"):
        system(vocab_size=0, language_head=False, images=False)
    with pytest.raises(ValueError, match="do not divide into 4 heads"):
        system(key_width=30)
    with pytest.raises(ValueError, match="token_label needs language_head"):
        system(language_head=False).loss(batch())
