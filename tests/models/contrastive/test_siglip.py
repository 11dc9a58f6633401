"""SigLIP: nothing leaks, pairs are learned, and the size is the published one."""

import dataclasses

import pytest
import torch
from testing_tools import (
    assert_rows_are_independent,
    assert_unit_length,
    close,
    count_parameters,
    mean_loss,
    other_padding,
    overfit,
    pairs,
)

from mmlearn.models.contrastive.siglip import SigLIP, SigLIPConfig
from mmlearn.objectives import pairwise_sigmoid, same_caption

TINY = SigLIPConfig.tiny()


def test_embeddings_have_unit_length_and_the_scale_is_exponentiated():
    output = SigLIP(TINY)(**pairs())
    assert_unit_length(output.image_embedding)
    assert_unit_length(output.text_embedding)
    assert output.image_embedding.shape == output.text_embedding.shape == (8, 64)
    assert output.logit_scale.item() == pytest.approx(10)
    assert output.logit_bias.item() == -10


def test_with_a_mask_padding_changes_nothing_and_without_one_it_is_read():
    model, batch = SigLIP(TINY), pairs()
    changed = other_padding(batch)
    assert torch.equal(model.encode_text(changed, batch["mask"]), model.encode_text(batch["tokens"], batch["mask"]))
    padded = ~batch["mask"].all(1)
    difference = (model.encode_text(changed) - model.encode_text(batch["tokens"])).norm(dim=-1)
    assert (difference[padded] > 1e-3).all()
    assert (difference[~padded] == 0).all()


def test_the_last_position_reads_every_token_both_ways():
    model, tokens = SigLIP(TINY), pairs()["tokens"][:1].clone()
    embedding = model.encode_text(tokens)
    for position in range(tokens.shape[1]):
        changed = tokens.clone()
        changed[0, position] = 2
        assert not torch.allclose(model.encode_text(changed), embedding, atol=1e-3)
    close(embedding, torch.nn.functional.normalize(model.text_head(model.text_encoder(tokens)[:, -1]), dim=-1), 1e-6)


def test_rows_do_not_depend_on_each_other():
    model, batch = SigLIP(TINY), pairs()
    assert_rows_are_independent(model.encode_image, batch["image"])
    assert_rows_are_independent(model.encode_text, batch["tokens"], batch["mask"])


def test_loss_starts_at_what_the_bias_costs_the_matching_pairs():
    """−log σ(10 cos − 10) is 10 − 10 cos for the pair that matches, and next to nothing for the others.

    Cosines of random towers are within 0.1 of 0 on the average over seeds, so the loss within 1 of 10.
    """
    assert mean_loss(lambda: SigLIP(TINY), pairs) == pytest.approx(10, abs=1)


def test_one_batch_is_learned_by_heart():
    model, batch = SigLIP(TINY), pairs()
    assert overfit(model, batch, steps=150, learning_rate=3e-3) < 0.1
    output = model(**batch)
    logits = output.logit_scale * output.image_embedding @ output.text_embedding.T + output.logit_bias
    assert ((logits > 0) == torch.eye(8, dtype=torch.bool)).all()  # every question is answered


@pytest.mark.parametrize("chunk_size", [None, 3])
def test_loss_counts_repeated_captions_as_matches(chunk_size):
    model, batch = SigLIP(dataclasses.replace(TINY, chunk_size=chunk_size)), pairs()
    caption_id = torch.tensor([0, 1, 0, 2, 3, 4, 1, 5])
    output = model(**batch)
    assert list(model.loss(batch)) == ["sigmoid"]
    close(model.loss(batch)["sigmoid"], pairwise_sigmoid(*output), 1e-6)
    expected = pairwise_sigmoid(*output, same_caption(caption_id))
    close(model.loss(batch | {"caption_id": caption_id})["sigmoid"], expected, 1e-6)
    assert abs(expected - pairwise_sigmoid(*output)).item() > 1


@pytest.mark.parametrize(
    ("preset", "count"),
    [("base-patch16-224", 203_155_970), ("large-patch16-256", 652_150_786), ("so400m-patch14-384", 877_960_498)],
)
def test_presets_have_the_published_size(preset, count):
    assert count_parameters(SigLIP, SigLIPConfig.preset(preset)) == count


def test_unknown_preset():
    with pytest.raises(
        ValueError, match=r"no preset 'base'; did you mean 'base-patch16-224'\? choose from tiny, base-patch16-224, "
    ):
        SigLIPConfig.preset("base")
