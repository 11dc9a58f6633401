"""AST equals Transformers' ASTModel and ASTForAudioClassification: tokens, logits, losses, gradients, padding."""

import pytest
import torch
from testing_tools import close
from transformers import ASTConfig, ASTForAudioClassification, ASTModel

CASES = {
    "odd": dict(
        num_mel_bins=23,
        max_length=31,
        patch_size=7,
        frequency_stride=5,
        time_stride=3,
        hidden_size=40,
        num_hidden_layers=2,
        num_attention_heads=5,
        intermediate_size=33,
        num_labels=3,
        batch=3,
    ),
    "no overlap": dict(
        num_mel_bins=16,
        max_length=40,
        patch_size=8,
        frequency_stride=8,
        time_stride=8,
        hidden_size=24,
        num_hidden_layers=3,
        num_attention_heads=3,
        intermediate_size=96,
        num_labels=7,
        hidden_act="relu",
        layer_norm_eps=1e-6,
        batch=4,
    ),
    "batch of one": dict(
        num_mel_bins=20,
        max_length=19,
        patch_size=16,
        frequency_stride=2,
        time_stride=10,
        hidden_size=28,
        num_hidden_layers=1,
        num_attention_heads=7,
        intermediate_size=56,
        num_labels=5,
        batch=1,
    ),
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
    loss.backward()
    expected.loss.backward()
    assert_same_gradients(published, ours)


def test_several_labels(twins, assert_same_gradients):
    config, mel = inputs("odd")
    published, ours = twins(ASTForAudioClassification(config))
    label = torch.tensor([[1.0, 0, 1], [0, 0, 0], [0, 1, 1]])
    expected = published(input_values=mel.mT, labels=label).loss
    loss = ours.loss({"mel": mel, "label": label})["classification"]
    close(loss, expected)
    loss.backward()
    expected.backward()
    assert_same_gradients(published, ours)


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
    representation.square().sum().backward()
    expected.pooler_output.square().sum().backward()
    assert_same_gradients(published, ours)
