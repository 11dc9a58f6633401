"""CLIP: nothing leaks, pairs are learned, the similarity is a sum over patches, sizes are the published ones."""

import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F
from testing_tools import (
    END,
    assert_rows_are_independent,
    assert_unit_length,
    close,
    count_parameters,
    mean_loss,
    other_padding,
    overfit,
    pairs,
)

from mmlearn.models.contrastive.clip import CLIP, CLIPConfig
from mmlearn.objectives import info_nce, same_caption

TINY = CLIPConfig.tiny()
CLASS = dataclasses.replace(TINY, pooling="class", image=dataclasses.replace(TINY.image, class_token=True))


@pytest.mark.parametrize("config", [TINY, CLASS])
def test_embeddings_have_unit_length_and_the_scale_is_exponentiated(config):
    output = CLIP(config)(**pairs())
    assert_unit_length(output.image_embedding)
    assert_unit_length(output.text_embedding)
    assert output.image_embedding.shape == output.text_embedding.shape == (8, 128)
    assert output.logit_scale.item() == pytest.approx(1 / 0.07)


@pytest.mark.parametrize("config", [TINY, CLASS])
def test_pictures_and_texts_are_read_as_described(config):
    """A picture at its class token or by each feature's maximum over the patches, a text at its end token."""
    model, batch = CLIP(config), pairs()
    tokens = model.image_encoder(batch["image"])
    projected = tokens @ model.image_projection.weight.T
    expected = projected[:, 0] if config is CLASS else projected.max(1).values
    close(model.encode_image(batch["image"]), expected / expected.norm(dim=-1, keepdim=True))
    words = model.text_encoder(batch["tokens"], batch["mask"])
    for i, row in enumerate(batch["tokens"].tolist()):
        expected = model.text_projection(words[i, row.index(END)])
        close(model.encode_text(batch["tokens"], batch["mask"])[i], expected / expected.norm())


def test_the_end_token_can_be_named():
    """Then it need not be the highest; a text without it is read at its first token."""
    plain, named = CLIP(TINY), CLIP(dataclasses.replace(TINY, end_token=7))
    named.load_state_dict(plain.state_dict())
    tokens = torch.tensor([[9, 300, 7, 500, 7]])
    words = F.normalize(named.text_projection(named.text_encoder(tokens)), dim=-1)[0]
    close(named.encode_text(tokens)[0], words[2])
    close(plain.encode_text(tokens)[0], words[3])
    close(named.encode_text(tokens[:, :2])[0], words[0])


def test_padding_and_what_follows_the_end_change_nothing():
    model, batch = CLIP(TINY), pairs()
    changed = other_padding(batch)
    for mask in (batch["mask"], None):  # a causal tower does not need the mask
        assert torch.equal(model.encode_text(changed, mask), model.encode_text(batch["tokens"], mask))
    before_end = batch["tokens"].clone()
    before_end[:, 0] = 2
    assert not torch.allclose(model.encode_text(before_end), model.encode_text(batch["tokens"]), atol=1e-3)


def test_rows_do_not_depend_on_each_other():
    model, batch = CLIP(TINY), pairs()
    assert_rows_are_independent(model.encode_image, batch["image"])
    assert_rows_are_independent(model.encode_text, batch["tokens"], batch["mask"])


def test_loss_starts_near_ln_b():
    """Cosines of random towers spread by about 0.05, so logits by about 0.7, and half their variance adds to ln b.

    At a scale of 1 that is nothing, and ln b stands to 0.02.
    """
    assert mean_loss(lambda: CLIP(TINY), pairs) == pytest.approx(math.log(8), abs=0.4)
    assert mean_loss(lambda: CLIP(dataclasses.replace(TINY, temperature=1.0)), pairs) == pytest.approx(
        math.log(8), abs=0.02
    )


@pytest.mark.parametrize("config", [TINY, CLASS])
def test_one_batch_is_learned_by_heart(config):
    model, batch = CLIP(config), pairs()
    assert overfit(model, batch, steps=60) < 0.02
    output = model(**batch)
    similarity = output.image_embedding @ output.text_embedding.T
    assert similarity.argmax(0).tolist() == similarity.argmax(1).tolist() == list(range(8))


def test_loss_counts_repeated_captions_as_matches():
    model, batch = CLIP(TINY), pairs()
    caption_id = torch.tensor([0, 1, 0, 2, 3, 4, 1, 5])
    output = model(**batch)
    assert list(model.loss(batch)) == ["itc"]
    close(model.loss(batch)["itc"], info_nce(*output), 1e-6)
    expected = info_nce(*output, same_caption(caption_id))
    close(model.loss(batch | {"caption_id": caption_id})["itc"], expected, 1e-6)
    assert abs(expected - info_nce(*output)).item() > 1e-3
    assert model.loss({name: x[:1] for name, x in batch.items()})["itc"].item() == 0


def test_a_step_ends_with_logits_at_most_a_hundredfold_cosine():
    model = CLIP(TINY)
    for before, after in ((3.0, 3.0), (math.log(100), math.log(100)), (7.0, math.log(100)), (-2.0, -2.0)):
        model.logit_scale.data.fill_(before)
        model.after_step()
        assert model.logit_scale.item() == pytest.approx(after)
    assert model.logit_scale.requires_grad


@pytest.mark.parametrize("seed", range(3))
def test_contributions_of_patches_sum_to_the_cosine(seed):
    """And each feature counts for the patch where it is largest, for every text that is asked about."""
    torch.manual_seed(seed)
    model, batch = CLIP(TINY), pairs(b=4, seed=seed)
    output = model(**batch)
    for text in (output.text_embedding, output.text_embedding.roll(1, 0)):
        shares = model.contributions(batch["image"], text)
        assert shares.shape == (4, 16)
        close(shares.sum(1), (output.image_embedding * text).sum(1), 1e-6)
        features = model.image_projection(model.image_encoder(batch["image"]))
        for i in range(4):
            expected = torch.zeros(16)
            for k in range(128):
                expected[features[i, :, k].argmax()] += output.image_embedding[i, k] * text[i, k]
            close(shares[i], expected, 1e-6)


def test_a_class_token_has_no_contributions():
    with pytest.raises(ValueError, match="Only max pooling"):
        CLIP(CLASS).contributions(torch.zeros(1, 3, 64, 64), torch.zeros(1, 128))


@pytest.mark.parametrize("changes", [dict(pooling="mean"), dict(pooling="class"), dict(image=CLASS.image)])
def test_pooling_goes_with_the_class_token(changes):
    with pytest.raises(ValueError, match="'class' with a class token or 'max' without"):
        CLIP(dataclasses.replace(TINY, **changes))


@pytest.mark.parametrize(
    ("preset", "count"), [("ViT-B/32", 151_277_313), ("ViT-B/16", 149_620_737), ("ViT-L/14", 427_616_513)]
)
def test_presets_have_the_published_size(preset, count):
    assert count_parameters(CLIP, CLIPConfig.preset(preset)) == count


def test_unknown_preset():
    with pytest.raises(
        ValueError, match=r"no preset 'ViT-B-32'; did you mean 'ViT-B/32'\? choose from tiny, tiny-conv, ViT-B/32, "
    ):
        CLIPConfig.preset("ViT-B-32")
