"""AST equals Transformers' ASTModel and ASTForAudioClassification: tokens, logits, losses, gradients, padding."""

import pytest
import torch
from published import sizes
from testing_tools import close
from transformers import ASTConfig, ASTForAudioClassification, ASTModel


def patches(mels, frames, size, frequency_stride, time_stride, **more):
    strides = dict(frequency_stride=frequency_stride, time_stride=time_stride)
    return dict(num_mel_bins=mels, max_length=frames, patch_size=size) | strides | more


CASES = {
    "odd": sizes(40, 2, 5, 33) | patches(23, 31, 7, 5, 3, num_labels=3, batch=3),
    "no overlap": sizes(24, 3, 3, 96, hidden_act="relu", layer_norm_eps=1e-6)
    | patches(16, 40, 8, 8, 8, num_labels=7, batch=4),
    "batch of one": sizes(28, 1, 7, 56) | patches(20, 19, 16, 2, 10, num_labels=5, batch=1),
}


def inputs(case):
    """A configuration, and a log-mel as ours is; theirs has frames before mels."""
    case = dict(CASES[case])
    batch = case.pop("batch")
    return ASTConfig(**case), torch.randn(batch, case["num_mel_bins"], case["max_length"])


@pytest.mark.parametrize("case", CASES)
def test_classifier(case, twins, assert_same_gradients):
    torch.manual_seed(1)
    config, mel = inputs(case)
    published, ours = twins(ASTForAudioClassification(config))
    label = torch.arange(len(mel)) % config.num_labels
    expected = published(input_values=mel.mT, labels=label)
    close(ours(mel).logits, expected.logits)
    loss = ours.loss({"mel": mel, "label": label})["classification"]
    close(loss, expected.loss)
    assert_same_gradients(published, ours, loss, expected.loss)


def test_several_labels(twins, assert_same_gradients):
    config, mel = inputs("odd")
    published, ours = twins(ASTForAudioClassification(config))
    label = torch.tensor([[1.0, 0, 1], [0, 0, 0], [0, 1, 1]])
    expected = published(input_values=mel.mT, labels=label).loss
    loss = ours.loss({"mel": mel, "label": label})["classification"]
    close(loss, expected)
    assert_same_gradients(published, ours, loss, expected)


@pytest.mark.parametrize("case", CASES)
def test_encoder(case, twins, assert_same_gradients):
    torch.manual_seed(1)
    config, mel = inputs(case)
    published, ours = twins(ASTModel(config))
    expected, (tokens, _), output = published(input_values=mel.mT), ours.tokens(mel), ours(mel)
    close(tokens, expected.last_hidden_state)
    close(output.representation, expected.pooler_output)
    (tokens.square().mean() + output.representation.sum()).backward()
    (expected.last_hidden_state.square().mean() + expected.pooler_output.sum()).backward()
    assert_same_gradients(published, ours)


def test_padding(twins, assert_same_gradients):
    """They take a mask of tokens: those that are whole, and the first column of patches of a shorter clip."""
    config, mel = inputs("odd")
    published, ours = twins(ASTModel(config))
    mask = torch.arange(31) < torch.tensor([[31], [18], [4]])
    columns = torch.arange(9) < torch.tensor([[9], [4], [1]])  # 7 frames each, 3 apart
    tokens = torch.nn.functional.pad(columns[:, None].expand(-1, 4, -1).flatten(1), (2, 0), value=True)
    expected = published(input_values=mel.masked_fill(~mask[:, None], 0).mT, attention_mask=tokens.long())
    states, real = ours.tokens(mel, mask)
    assert torch.equal(real, tokens)
    close(states[tokens], expected.last_hidden_state[tokens])
    representation = ours(mel, mask).representation
    close(representation, expected.pooler_output)
    assert_same_gradients(published, ours, representation.square().sum(), expected.pooler_output.square().sum())
