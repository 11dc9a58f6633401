"""BEiT equals Transformers' BeitForMaskedImageModeling and BeitForImageClassification: logits, losses, gradients."""

import pytest
import torch
from published import sizes
from testing_tools import close
from transformers import BeitConfig, BeitForImageClassification, BeitForMaskedImageModeling

CASES = {
    "shared positions": sizes(24, 2, 3, 50, image_size=28, patch_size=7, batch=3)
    | dict(use_shared_relative_position_bias=True),
    "positions of each block": sizes(40, 3, 5, 33, image_size=24, patch_size=4, batch=4)
    | dict(use_relative_position_bias=True, hidden_act="relu", layer_scale_init_value=1e-3),
    "absolute positions, no scale, batch of one": sizes(16, 1, 1, 24, image_size=15, patch_size=5, batch=1)
    | dict(use_absolute_position_embeddings=True, layer_scale_init_value=0.0, layer_norm_eps=1e-6),
}


def inputs(case, **more):
    case = dict(CASES[case]) | more
    batch, size = case.pop("batch"), case["image_size"]
    return BeitConfig(**case), torch.randn(batch, 3, size, size), (size // case["patch_size"]) ** 2


@pytest.mark.parametrize("case", CASES)
def test_codes(case, twins, assert_same_gradients):
    torch.manual_seed(1)
    config, image, p = inputs(case, vocab_size=11, use_mask_token=True)
    published, ours = twins(BeitForMaskedImageModeling(config))
    masked, code = torch.rand(len(image), p) < 0.4, torch.randint(11, (len(image), p))
    masked[0, 0] = True
    expected = published(pixel_values=image, bool_masked_pos=masked, labels=code[masked], output_hidden_states=True)
    output = ours(image, masked)
    close(output.code_logits, expected.logits)
    close(output.tokens, expected.hidden_states[-1])
    loss = ours.loss(dict(image=image, masked_patches=masked, code=code))["codes"]
    close(loss, expected.loss)
    assert_same_gradients(published, ours, loss, expected.loss)


@pytest.mark.parametrize("case", CASES)
def test_classifier(case, twins, assert_same_gradients):
    torch.manual_seed(1)
    config, image, _ = inputs(case, num_labels=3)
    published, ours = twins(BeitForImageClassification(config))
    label = torch.arange(len(image)) % 3
    expected = published(pixel_values=image, labels=label)
    close(ours(image).logits, expected.logits)
    loss = ours.loss(dict(image=image, label=label))["classification"]
    close(loss, expected.loss)
    assert_same_gradients(published, ours, loss, expected.loss)


def test_another_size_of_pictures(twins):
    """Whose relative positions are interpolated."""
    config, *_ = inputs("shared positions", num_labels=3)
    published, ours = twins(BeitForImageClassification(config))
    image = torch.randn(2, 3, 35, 42)
    close(ours(image).logits, published(pixel_values=image).logits)
