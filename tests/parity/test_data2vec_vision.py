"""data2vec's encoder of pictures equals Transformers' Data2VecVisionModel, also with hidden patches."""

import pytest
import torch
from published import sizes
from testing_tools import close
from transformers import Data2VecVisionConfig, Data2VecVisionForImageClassification, Data2VecVisionModel

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
    return Data2VecVisionConfig(**case), torch.randn(batch, 3, size, size), (size // case["patch_size"]) ** 2


@pytest.mark.parametrize("case", CASES)
def test_states_with_hidden_patches(case, twins, assert_same_gradients):
    torch.manual_seed(1)
    config, image, p = inputs(case, use_mask_token=True)
    published, ours = twins(Data2VecVisionModel(config, add_pooling_layer=False))
    masked = torch.rand(len(image), p) < 0.6
    expected = published(image, bool_masked_pos=masked).last_hidden_state
    output = ours(image, masked)
    close(output.tokens, expected)
    assert output.prediction is output.logits is None
    assert_same_gradients(published, ours, output.tokens.square().mean(), expected.square().mean())


@pytest.mark.parametrize("case", CASES)
def test_classifier(case, twins, assert_same_gradients):
    torch.manual_seed(1)
    config, image, _ = inputs(case, num_labels=3)
    published, ours = twins(Data2VecVisionForImageClassification(config))
    label = torch.arange(len(image)) % 3
    expected = published(image, labels=label)
    close(ours(image).logits, expected.logits)
    loss = ours.loss(dict(image=image, label=label))["classification"]
    close(loss, expected.loss)
    assert_same_gradients(published, ours, loss, expected.loss)
