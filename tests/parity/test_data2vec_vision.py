"""data2vec's encoder of pictures equals Transformers' Data2VecVisionModel, also with hidden patches."""

import pytest
import torch
from published import RELATIVE, relative_inputs
from testing_tools import close
from transformers import Data2VecVisionConfig, Data2VecVisionForImageClassification, Data2VecVisionModel


@pytest.mark.parametrize("case", RELATIVE)
def test_states_with_hidden_patches(case, twins, assert_same_gradients):
    torch.manual_seed(1)
    config, image, p = relative_inputs(Data2VecVisionConfig, case, use_mask_token=True)
    published, ours = twins(Data2VecVisionModel(config, add_pooling_layer=False))
    masked = torch.rand(len(image), p) < 0.6
    expected = published(image, bool_masked_pos=masked).last_hidden_state
    output = ours(image, masked)
    close(output.tokens, expected)
    assert output.prediction is output.logits is None
    assert_same_gradients(published, ours, output.tokens.square().mean(), expected.square().mean())


@pytest.mark.parametrize("case", RELATIVE)
def test_classifier(case, twins, assert_same_gradients):
    torch.manual_seed(1)
    config, image, _ = relative_inputs(Data2VecVisionConfig, case, num_labels=3)
    published, ours = twins(Data2VecVisionForImageClassification(config))
    label = torch.arange(len(image)) % 3
    expected = published(image, labels=label)
    close(ours(image).logits, expected.logits)
    loss = ours.loss(dict(image=image, label=label))["classification"]
    close(loss, expected.loss)
    assert_same_gradients(published, ours, loss, expected.loss)
