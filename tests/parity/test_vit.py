"""ViT equals Transformers' ViTModel and ViTForImageClassification: tokens, heads, loss, gradients, picture sizes."""

import pytest
import torch
from published import sizes
from testing_tools import close
from transformers import ViTConfig, ViTForImageClassification, ViTModel

CASES = {
    "odd": sizes(40, 2, 5, 33, image_size=31, patch_size=7, num_labels=3, batch=3),
    "wide": sizes(24, 3, 3, 96, image_size=[24, 40], patch_size=8, num_labels=7, hidden_act="relu", batch=4),
    "batch of one": sizes(28, 1, 7, 56, image_size=20, patch_size=5, num_labels=5, layer_norm_eps=1e-6, batch=1),
}


def inputs(case):
    case = dict(CASES[case])
    batch, size = case.pop("batch"), case["image_size"]
    return ViTConfig(**case), torch.randn(batch, 3, *(size if isinstance(size, list) else (size, size)))


@pytest.mark.parametrize("case", CASES)
def test_classifier(case, twins, assert_same_gradients):
    torch.manual_seed(1)
    config, image = inputs(case)
    published, ours = twins(ViTForImageClassification(config))
    label = torch.arange(len(image)) % config.num_labels
    expected = published(pixel_values=image, labels=label)
    close(ours(image).logits, expected.logits)
    loss = ours.loss(dict(image=image, label=label))["classification"]
    close(loss, expected.loss)
    assert_same_gradients(published, ours, loss, expected.loss)


def test_several_classes_at_once(twins, assert_same_gradients):
    """A label that is float says yes or no to each class, there and here."""
    config, image = inputs(next(iter(CASES)))
    published, ours = twins(ViTForImageClassification(config))
    label = (torch.rand(len(image), config.num_labels) < 0.4).float()
    expected = published(pixel_values=image, labels=label).loss
    loss = ours.loss(dict(image=image, label=label))["classification"]
    close(loss, expected)
    loss.backward()
    expected.backward()
    assert_same_gradients(published, ours)


@pytest.mark.parametrize("case", CASES)
def test_encoder_with_hidden_head(case, twins, assert_same_gradients):
    torch.manual_seed(1)
    config, image = inputs(case)
    published, ours = twins(ViTModel(config))
    expected, output = published(pixel_values=image), ours(image)
    close(output.tokens, expected.last_hidden_state)
    close(output.representation, expected.pooler_output)
    (output.tokens.square().mean() + output.representation.sum()).backward()
    (expected.last_hidden_state.square().mean() + expected.pooler_output.sum()).backward()
    assert_same_gradients(published, ours)


def test_larger_image_interpolates_positions(twins):
    config, image = inputs("odd")
    published, ours = twins(ViTModel(config, add_pooling_layer=False))
    image = torch.randn(2, 3, 42, 63)
    expected = published(pixel_values=image, interpolate_pos_encoding=True)
    close(ours(image).tokens, expected.last_hidden_state)
