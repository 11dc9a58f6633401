"""VLP: two masks, their mix, and captions written by asking for [MASK]."""

import dataclasses

import pytest
import torch
from testing_tools import close, refused, shaken

from mmlearn.generation.cache import pad_left, start_prompts, uncached
from mmlearn.generation.decoding import beam_search, greedy
from mmlearn.layers.recording import record_attention
from mmlearn.models import VLP, VLPConfig
from mmlearn.recipes.discovery import find_recipe

RECIPE = find_recipe("vlp")
TINY = dataclasses.replace(VLPConfig.tiny(), end_token=511)
SHOWN = ("regions", "boxes", "region_classes", "region_mask")


def build(seed=0):
    torch.manual_seed(seed)
    return shaken(VLP(TINY)).eval()


def batches():
    """One to be read both ways, and one from left to right."""
    return RECIPE.examples(TINY)


@torch.no_grad()
def test_two_masks():
    system, (both, onward) = build(), batches()
    maps = []
    for batch in (both, onward):
        with record_attention(system) as recorded:
            system(**{name: value for name, value in batch.items() if name not in ("caption_id", "token_label")})
        maps.append(recorded["transformer.blocks.2.attention"])
    p = 1 + both["regions"].shape[1]
    real = torch.cat([torch.ones(8, 1, dtype=torch.bool), both["region_mask"], both["mask"]], 1)
    seen = real[:, None, None].expand_as(maps[0])
    assert (maps[0][seen] > 0).all()
    assert (maps[0][~seen] == 0).all()
    assert (maps[1][:, :, :p, p:] == 0).all()  # no region sees a word
    assert (maps[1][:, :, p:, p:].triu(1) == 0).all()
    past = torch.ones_like(maps[1][0, 0], dtype=torch.bool).tril()
    past[:, :p] = True
    past = past & seen
    assert (maps[1][past] > 0).all()


def test_three_batches_of_four_are_read_from_left_to_right():
    shares = {task[0].name: share for task, share in RECIPE.stages[0].tasks().items()}
    assert shares == {"bidirectional": 0.25, "seq2seq": 0.75}
    names = [set(build().loss(batch)) for batch in batches()]
    assert names == [{"bidirectional"}, {"seq2seq"}]


def test_the_end_of_a_caption_may_be_hidden_and_its_start_is_not():
    both, _ = RECIPE.examples(TINY, b=200)
    hidden = both["token_label"][both["token_label"] != -100]
    assert (hidden == 2).any()
    assert not (hidden == 1).any()


@torch.no_grad()
def test_a_region_is_features_class_and_box_as_equation_1_says():
    system, (batch, _) = build(), batches()
    seq2seq = torch.tensor([True, False] * 4)
    x, real = system.embed_regions(*(batch[name] for name in SHOWN), seq2seq)
    area = (batch["boxes"][..., 2:] - batch["boxes"][..., :2]).prod(-1, keepdim=True)

    def standard(x):
        return (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True, unbiased=False) + 1e-5).sqrt()

    position = torch.cat([standard(batch["region_classes"]), standard(torch.cat([batch["boxes"], area], -1))], -1)
    expected = batch["regions"] @ system.region_projection.weight.T + system.position_projection(position)
    expected = system.embedding.norm(expected + system.embedding.token_types.weight[2 * seq2seq.long()][:, None])
    close(x[:, 1:][batch["region_mask"]], expected[batch["region_mask"]])
    assert torch.equal(real[:, 1:], batch["region_mask"])


@torch.no_grad()
@pytest.mark.parametrize("decode", [greedy, beam_search])
def test_a_word_is_what_stands_for_the_mask_behind_what_is_written(decode):
    system, (batch, _) = build(), batches()
    shown = {name: batch[name][:3] for name in SHOWN}
    prompt, mask = pad_left([[9, 8, 7], [30], [4, 5]])
    written = system.generate(**shown, decode=decode, prompt=prompt, prompt_mask=mask, max_length=9)
    start, real = start_prompts(1, prompt, mask)
    anew = decode(uncached(system.step_function(**shown), real), start, end_token=511, max_length=10)
    assert torch.equal(written[:, 3:], anew[:, 4:])
    if decode is greedy:
        text = torch.tensor([[1, *written[0].tolist()]])
        one = {name: value[:1] for name, value in shown.items()}
        for i in range(4, text.shape[1]):
            asked = torch.cat([text[:, :i], torch.tensor([[TINY.mask_token]])], 1)
            logits = system(tokens=asked, **one, seq2seq=torch.tensor([True])).token_logits
            assert logits[0, -1].argmax() == text[0, i]


def test_what_cannot_be_is_told():
    system, (batch, _) = build(), batches()
    shown = {name: batch[name][:1] for name in SHOWN}
    refused("33 tokens are more than the 32", system, tokens=torch.zeros(1, 33, dtype=torch.long), **shown)
    narrow = shown | {"regions": shown["regions"][..., 1:]}
    refused("region_width is 216", system, tokens=batch["tokens"][:1], **narrow)
    refused("four types", VLP, dataclasses.replace(TINY, token_types=2))
