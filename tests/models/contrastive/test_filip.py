"""FILIP: every token has an embedding of its own, and pairs are learned."""

import pytest
import torch
from testing_tools import assert_unit_length, pairs

from mmlearn.models.contrastive.filip import FILIP, FILIPConfig

TINY = FILIPConfig.tiny()


def test_every_token_has_unit_length_and_the_scale_is_exponentiated():
    batch = pairs()
    output = FILIP(TINY)(**batch)
    assert_unit_length(output.image_tokens)
    assert_unit_length(output.text_tokens[batch["mask"]])
    assert output.image_tokens.shape == (8, 16, 64)
    assert output.text_tokens.shape == (8, 12, 64)
    assert output.logit_scale.item() == pytest.approx(1 / 0.03)


def test_later_words_change_no_earlier_one():
    model, tokens = FILIP(TINY), pairs()["tokens"]
    changed = tokens.clone()
    changed[:, 5:] = 2
    assert torch.equal(model.encode_text(changed)[:, :5], model.encode_text(tokens)[:, :5])
