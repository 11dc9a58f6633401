"""What CLIP, SigLIP, FILIP and LiT share: unit length, the ends of texts, repeated captions, losses at the start."""

import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F
from testing_tools import assert_unit_length, close, other_padding, overfit, pairs
from torch import nn

from mmlearn.layers import TextEncoderConfig
from mmlearn.models.contrastive.lit import LiT, LiTConfig
from mmlearn.objectives import info_nce, late_interaction_info_nce, pairwise_sigmoid, same_caption
from mmlearn.recipes.discovery import find_recipe

TEXT = TextEncoderConfig(vocab_size=512, max_length=32, width=32, depth=2, num_heads=2)


def build(name, **changes):
    if name == "lit":
        return LiT(LiTConfig(image_width=24, text=TEXT, **changes), nn.Sequential(nn.Conv2d(3, 24, 64), nn.Flatten()))
    recipe = find_recipe(name)
    return recipe.system(dataclasses.replace(recipe.config.tiny(), **changes))


@pytest.mark.parametrize(("name", "width", "scale"), [("clip", 128, 1 / 0.07), ("siglip", 64, 10), ("lit", 24, 10)])
def test_embeddings_have_unit_length_and_the_scale_is_exponentiated(name, width, scale):
    output = build(name)(**pairs())
    for embedding in (output.image_embedding, output.text_embedding):
        assert_unit_length(embedding)
        assert embedding.shape == (8, width)
    assert output.logit_scale.item() == pytest.approx(scale)


@pytest.mark.parametrize("name", ["clip", "lit"])
def test_what_follows_the_end_changes_nothing(name):
    """A causal tower does not need the mask."""
    model, batch = build(name), pairs()
    for mask in (batch["mask"], None):
        assert torch.equal(model.encode_text(other_padding(batch), mask), model.encode_text(batch["tokens"], mask))
    before_end = batch["tokens"].clone()
    before_end[:, 0] = 2
    assert not torch.allclose(model.encode_text(before_end), model.encode_text(batch["tokens"]), atol=1e-3)


@pytest.mark.parametrize("name", ["clip", "lit"])
def test_the_end_token_can_be_named(name):
    """Then it need not be the highest; a text without it is read at its first token."""
    plain, named = build(name), build(name, end_token=7)
    named.load_state_dict(plain.state_dict())
    tokens = torch.tensor([[9, 300, 7, 500, 7]])
    words = F.normalize(named.text_projection(named.text_encoder(tokens)), dim=-1)[0]
    close(named.encode_text(tokens)[0], words[2])
    close(plain.encode_text(tokens)[0], words[3])
    close(named.encode_text(tokens[:, :2])[0], words[0])


@pytest.mark.parametrize(
    ("name", "changes", "key", "apart"),
    [
        ("clip", {}, "itc", 1e-3),
        ("lit", {}, "itc", 1e-3),
        ("filip", {}, "late_interaction", 1e-3),
        ("siglip", {}, "sigmoid", 1),
        ("siglip", dict(chunk_size=3), "sigmoid", 1),
    ],
)
def test_loss_counts_repeated_captions_as_matches(name, changes, key, apart):
    model, batch = build(name, **changes), pairs()
    caption_id = torch.tensor([0, 1, 0, 2, 3, 4, 1, 5])
    objective = {"siglip": pairwise_sigmoid, "filip": late_interaction_info_nce}.get(name, info_nce)
    given = [*model(**batch), *([batch["mask"]] if name == "filip" else [])]
    plain, expected = objective(*given), objective(*given, same_caption(caption_id))
    assert list(model.loss(batch)) == [key]
    close(model.loss(batch)[key], plain, 1e-6)
    close(model.loss(batch | {"caption_id": caption_id})[key], expected, 1e-6)
    assert abs(expected - plain).item() > apart


@pytest.mark.parametrize("name", ["clip", "filip"])
def test_a_step_ends_with_logits_at_most_a_hundredfold_cosine(name):
    model = build(name)
    for before, after in ((3.0, 3.0), (math.log(100), math.log(100)), (7.0, math.log(100)), (-2.0, -2.0)):
        model.logit_scale.data.fill_(before)
        model.after_step()
        assert model.logit_scale.item() == pytest.approx(after)
    assert model.logit_scale.requires_grad


def test_siglip_answers_every_question_of_one_batch():
    model, batch = build("siglip"), pairs()
    assert model.logit_bias.item() == -10
    assert overfit(model, batch, steps=150, learning_rate=3e-3) < 0.1
    output = model(**batch)
    logits = output.logit_scale * output.image_embedding @ output.text_embedding.T + output.logit_bias
    assert ((logits > 0) == torch.eye(8, dtype=torch.bool)).all()


def test_siglip_starts_at_a_bias_that_is_a_whole_number():
    recipe = find_recipe("siglip")
    config = dataclasses.replace(recipe.config.tiny(), bias=-4)
    assert recipe.make(config).logit_bias.item() == -4.0
