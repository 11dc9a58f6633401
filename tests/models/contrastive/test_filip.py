"""FILIP: every token has an embedding of its own, nothing leaks, pairs are learned."""

import dataclasses
import math

import pytest
import torch
from testing_tools import (
    assert_rows_are_independent,
    assert_unit_length,
    close,
    mean_loss,
    other_padding,
    overfit,
    pairs,
)

from mmlearn.models.contrastive.filip import FILIP, FILIPConfig
from mmlearn.objectives import late_interaction, late_interaction_info_nce, same_caption

TINY = FILIPConfig.tiny()


def test_every_token_has_unit_length_and_the_scale_is_exponentiated():
    batch = pairs()
    output = FILIP(TINY)(**batch)
    assert_unit_length(output.image_tokens)
    assert_unit_length(output.text_tokens[batch["mask"]])
    assert output.image_tokens.shape == (8, 16, 64)
    assert output.text_tokens.shape == (8, 12, 64)
    assert output.logit_scale.item() == pytest.approx(1 / 0.03)


def test_padding_changes_no_real_token_no_similarity_and_no_loss():
    model, batch = FILIP(TINY), pairs()
    changed, mask = other_padding(batch), batch["mask"]
    tokens, others = model.encode_text(batch["tokens"], mask), model.encode_text(changed, mask)
    assert torch.equal(tokens[mask], others[mask])
    assert not torch.allclose(model.encode_text(batch["tokens"]), model.encode_text(changed), atol=1e-3)
    image = model.encode_image(batch["image"])
    for got, expected in zip(late_interaction(image, others, mask), late_interaction(image, tokens, mask)):
        assert torch.equal(got, expected)
    loss = model.loss(batch | {"tokens": changed})["late_interaction"]
    assert torch.equal(loss, model.loss(batch)["late_interaction"])


def test_later_words_change_no_earlier_one():
    model, tokens = FILIP(TINY), pairs()["tokens"]
    changed = tokens.clone()
    changed[:, 5:] = 2
    assert torch.equal(model.encode_text(changed)[:, :5], model.encode_text(tokens)[:, :5])


def test_rows_do_not_depend_on_each_other():
    model, batch = FILIP(TINY), pairs()
    assert_rows_are_independent(model.encode_image, batch["image"])
    assert_rows_are_independent(model.encode_text, batch["tokens"], batch["mask"])


def test_loss_starts_near_ln_b():
    """As CLIP's: half the variance of the logits adds to ln b, and at a scale of 1 that is nothing."""
    for temperature, near in ((0.07, 0.4), (1.0, 0.02)):
        config = dataclasses.replace(TINY, temperature=temperature)
        assert mean_loss(lambda config=config: FILIP(config), pairs) == pytest.approx(math.log(8), abs=near)


def test_one_batch_is_learned_by_heart():
    model, batch = FILIP(TINY), pairs()
    assert overfit(model, batch, steps=60) < 0.02
    output = model(**batch)
    for similarity in late_interaction(output.image_tokens, output.text_tokens, batch["mask"]):
        assert similarity.argmax(1).tolist() == list(range(8))


def test_loss_counts_repeated_captions_as_matches():
    model, batch = FILIP(TINY), pairs()
    caption_id = torch.tensor([0, 1, 0, 2, 3, 4, 1, 5])
    output = model(**batch)
    plain = late_interaction_info_nce(*output, batch["mask"])
    expected = late_interaction_info_nce(*output, batch["mask"], same_caption(caption_id))
    close(model.loss(batch)["late_interaction"], plain, 1e-6)
    close(model.loss(batch | {"caption_id": caption_id})["late_interaction"], expected, 1e-6)
    assert abs(expected - plain).item() > 1e-3


def test_a_step_ends_with_logits_at_most_a_hundredfold_cosine():
    model = FILIP(TINY)
    for before, after in ((3.0, 3.0), (7.0, math.log(100))):
        model.logit_scale.data.fill_(before)
        model.after_step()
        assert model.logit_scale.item() == pytest.approx(after)


def test_unknown_preset():
    with pytest.raises(ValueError, match=r"no preset 'huge'; choose from tiny, base, large"):
        FILIPConfig.preset("huge")
