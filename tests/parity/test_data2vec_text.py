"""data2vec's encoder of text equals Transformers' Data2VecTextForMaskedLM and Data2VecTextModel."""

import pytest
import torch
from published import TEXTS, text_inputs, to_guess
from testing_tools import close
from transformers import Data2VecTextConfig, Data2VecTextForMaskedLM, Data2VecTextModel


def inputs(case, padded):
    case_sizes = TEXTS[case]
    config, tokens, mask, token_type = text_inputs(
        Data2VecTextConfig, case, max_position_embeddings=case_sizes["max_position_embeddings"] + 2, hidden_act="gelu"
    )
    tokens = tokens.clamp(min=3)  # none that theirs takes for padding
    mask = mask if padded else torch.ones_like(mask)
    return config, tokens.masked_fill(~mask, 1), mask, token_type % config.type_vocab_size


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("case", TEXTS)
def test_masked_words(case, padded, twins, assert_same_gradients):
    torch.manual_seed(1)
    config, tokens, mask, token_type = inputs(case, padded)
    published, ours = twins(Data2VecTextForMaskedLM(config))
    label = to_guess(tokens, mask)
    expected = published(tokens, mask.long(), token_type, labels=label)
    output = ours(tokens, mask, token_type)
    close(ours.token_logits(output.tokens)[mask], expected.logits[mask])
    loss = ours.loss(dict(tokens=tokens, mask=mask, token_type=token_type, token_label=label))["mlm"]
    close(loss, expected.loss)
    assert_same_gradients(published, ours, loss, expected.loss)


@pytest.mark.parametrize("case", TEXTS)
def test_padding_between_words_has_no_position(case, twins):
    torch.manual_seed(1)
    config, tokens, mask, token_type = inputs(case, False)
    tokens[:, 1::3] = config.pad_token_id
    published, ours = twins(Data2VecTextModel(config))
    close(ours(tokens, mask, token_type).tokens, published(tokens, mask.long(), token_type).last_hidden_state)


@pytest.mark.parametrize("case", TEXTS)
def test_encoder_alone(case, twins, assert_same_gradients):
    torch.manual_seed(1)
    config, tokens, mask, token_type = inputs(case, True)
    published, ours = twins(Data2VecTextModel(config))
    expected = published(tokens, mask.long(), token_type)
    output = ours(tokens, mask, token_type)
    close(output.tokens[mask], expected.last_hidden_state[mask])
    close(output.pooled, expected.pooler_output)
    assert output.prediction is None
    losses = output.tokens[mask].square().mean() + output.pooled.sum()
    expected = expected.last_hidden_state[mask].square().mean() + expected.pooler_output.sum()
    assert_same_gradients(published, ours, losses, expected)
