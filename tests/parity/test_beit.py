"""BEiT equals Transformers' BeitForMaskedImageModeling and BeitForImageClassification: logits, losses, gradients."""

import pytest
import torch
from published import RELATIVE, relative_inputs
from testing_tools import close
from transformers import BeitConfig, BeitForImageClassification, BeitForMaskedImageModeling


@pytest.mark.parametrize("case", RELATIVE)
def test_codes(case, twins, assert_same_gradients):
    torch.manual_seed(1)
    config, image, p = relative_inputs(BeitConfig, case, vocab_size=11, use_mask_token=True)
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


@pytest.mark.parametrize("case", RELATIVE)
def test_classifier(case, twins, assert_same_gradients):
    torch.manual_seed(1)
    config, image, _ = relative_inputs(BeitConfig, case, num_labels=3)
    published, ours = twins(BeitForImageClassification(config))
    label = torch.arange(len(image)) % 3
    expected = published(pixel_values=image, labels=label)
    close(ours(image).logits, expected.logits)
    loss = ours.loss(dict(image=image, label=label))["classification"]
    close(loss, expected.loss)
    assert_same_gradients(published, ours, loss, expected.loss)


def test_another_size_of_images(twins):
    """Whose relative positions are interpolated."""
    config, *_ = relative_inputs(BeitConfig, "shared positions", num_labels=3)
    published, ours = twins(BeitForImageClassification(config))
    image = torch.randn(2, 3, 35, 42)
    close(ours(image).logits, published(pixel_values=image).logits)
