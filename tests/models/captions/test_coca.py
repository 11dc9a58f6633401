"""CoCa: a half that sees no picture, poolers in a row, and two losses of one pass."""

import dataclasses

import torch
import torch.nn.functional as F
from testing_tools import close, pairs, refused, shaken
from torch import nn

from mmlearn.generation.cache import pad_left, start_prompts, uncached
from mmlearn.generation.decoding import greedy
from mmlearn.layers.recording import record_attention
from mmlearn.models import CoCa, CoCaConfig

TINY = dataclasses.replace(CoCaConfig.tiny(), end_token=511)


def build(config=TINY, seed=0):
    torch.manual_seed(seed)
    return shaken(CoCa(config)).eval()


@torch.no_grad()
def test_the_first_half_sees_no_image_and_the_second_does():
    system, batch = build(), pairs()
    one, two = system(**batch), system(**batch | {"image": batch["image"].flip(0)})
    assert torch.equal(one.text_embedding, two.text_embedding)
    assert torch.equal(one.text_embedding, system.encode_text(batch["tokens"], batch["mask"]))
    assert (one.token_logits - two.token_logits).abs().amax(-1).min() > 1e-4
    with record_attention(system) as maps:
        system(**batch)
    assert not any("unimodal" in name and "cross" in name for name in maps)
    assert maps["multimodal.blocks.1.cross_attention"].shape == (8, 2, 12, 16)  # of queries, not patches


@torch.no_grad()
def test_the_class_token_sees_every_real_word_and_no_word_sees_it():
    system, batch = build(), pairs()
    with record_attention(system) as maps:
        system(**batch)
    weights = maps["unimodal.blocks.0.attention"]
    own = weights[:, :, -1, :-1]
    real = batch["mask"][:, None].expand_as(own)
    assert (own[real] > 0).all()
    assert (own[~real] == 0).all()
    assert (weights[:, :, -1, -1] > 0).all()
    assert (weights[:, :, :-1, -1] == 0).all()
    before = system(**batch).token_logits
    system.class_token += 1
    after = system(**batch)
    assert torch.equal(before, after.token_logits)


@torch.no_grad()
def test_poolers_stand_in_a_row():
    """The single query reads what the many have read of the patches."""
    system, batch = build(), pairs()
    with record_attention(system) as maps:
        embedding = system.encode_image(batch["image"])
    assert maps["caption_pooler.attention"].shape == (8, 2, 16, 16)
    assert maps["contrast_pooler.attention"].shape == (8, 2, 1, 16)
    queries, attention = system.read_image(batch["image"]), system.contrast_pooler.attention
    pooler = nn.MultiheadAttention(64, 2, batch_first=True).eval()
    parts = (attention.query, attention.key, attention.value)
    pooler.in_proj_weight.copy_(torch.cat([part.weight for part in parts]))
    pooler.in_proj_bias.copy_(torch.cat([part.bias for part in parts]))
    pooler.out_proj.load_state_dict(attention.output.state_dict())
    x = pooler(system.contrast_pooler.queries.expand(8, 1, 64), queries, queries)[0][:, 0]
    close(embedding, F.normalize(system.image_projection(system.contrast_norm(x)), dim=-1))


@torch.no_grad()
def test_each_loss_has_its_weight():
    system, batch = build(dataclasses.replace(TINY, contrast_weight=0.5, caption_weight=3.0)), pairs()
    output, losses = system(**batch), system.loss(batch)
    logits = output.logit_scale * output.image_embedding @ output.text_embedding.T
    both = F.cross_entropy(logits, torch.arange(8)) + F.cross_entropy(logits.T, torch.arange(8))
    close(losses["itc"], 0.5 * both / 2)
    labels = batch["tokens"].masked_fill(~batch["mask"], -100)[:, 1:]
    close(losses["lm"], 3 * F.cross_entropy(output.token_logits[:, :-1].flatten(0, 1), labels.flatten()))


@torch.no_grad()
def test_captions_with_the_cache_are_those_without_it():
    system, image = build(), pairs()["image"][:3]
    prompt, mask = pad_left([[9, 8, 7], [30], [4, 5]])
    written = system.generate(image, prompt=prompt, prompt_mask=mask, max_length=9)
    start, real = start_prompts(1, prompt, mask)
    anew = greedy(uncached(system.step_function(image), real), start, end_token=511, max_length=10)
    assert torch.equal(written[:, 3:], anew[:, 4:])
    text = torch.cat([torch.ones(1, 1, dtype=torch.long), written[:1]], 1)
    assert torch.equal(system(image[:1], text).token_logits.argmax(-1)[0, 3:-1], text[0, 4:])


def test_what_cannot_be_is_told():
    system, batch = build(), pairs()
    refused("smaller than one 16-pixel patch", system, torch.randn(1, 3, 8, 64), batch["tokens"][:1])
    refused("33 tokens are more than the 32", system, batch["image"][:1], torch.zeros(1, 33, dtype=torch.long))
    assert system.encode_image(torch.randn(1, 3, 96, 48)).shape == (1, 64)
