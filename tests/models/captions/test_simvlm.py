"""SimVLM: what is given is seen both ways, and what is written from left to right."""

import dataclasses

import pytest
import torch
from testing_tools import close, pairs, refused, shaken

from mmlearn.generation.cache import pad_left, start_prompts, uncached
from mmlearn.generation.decoding import beam_search, greedy
from mmlearn.layers.recording import record_attention
from mmlearn.models import SimVLM, SimVLMConfig

TINY = dataclasses.replace(SimVLMConfig.tiny(), end_token=511)


def build(seed=0):
    torch.manual_seed(seed)
    return shaken(SimVLM(TINY)).eval()


def changed(system, image, tokens, prefix, position):
    """By how much logits change at each position when this token is another."""
    other = tokens.clone()
    other[:, position] = 400
    one, two = (system(image, each, None, prefix).token_logits for each in (tokens, other))
    return (one - two).abs().amax(-1)[0]


@torch.no_grad()
def test_all_that_is_asked_sees_the_whole_prefix_and_nothing_later():
    system, batch = build(), pairs()
    image, tokens = batch["image"][:1], torch.randint(4, 500, (1, 10))
    prefix = torch.arange(10)[None] < 4
    for position in range(10):
        moved = changed(system, image, tokens, prefix, position)[3:]  # at position 3 the fourth word is asked
        assert (moved[: max(position - 3, 0)] == 0).all(), position
        assert (moved[max(position - 3, 0) :] > 1e-5).all(), position


@torch.no_grad()
def test_the_encoder_reads_the_prefix_both_ways_and_no_other_word():
    system, batch = build(), pairs()
    tokens, prefix = torch.randint(4, 500, (8, 10)), (torch.arange(10)[None] < 4).expand(8, 10)
    with record_attention(system) as maps:
        system(batch["image"], tokens, None, prefix)
    read, written = maps["encoder.blocks.1.attention"], maps["decoder.blocks.1.attention"]
    assert (read[..., : 64 + 4] > 0).all()
    assert (read[..., 64 + 4 :] == 0).all()
    assert (written[..., :3] == 0).all()  # of what is given the decoder reads the last word alone
    assert (written[..., 3:, 3:].triu(1) == 0).all()
    looked = maps["decoder.blocks.1.cross_attention"]
    assert (looked[..., : 64 + 4] > 0).all()
    assert (looked[..., 64 + 4 :] == 0).all()


@torch.no_grad()
@pytest.mark.parametrize("decode", [greedy, beam_search])
def test_what_is_written_behind_a_prompt_is_what_the_loss_scores(decode):
    system, image = build(), pairs()["image"][:3]
    prompt, mask = pad_left([[9, 8, 7], [30], [4, 5]])
    written = system.generate(image, decode, prompt=prompt, prompt_mask=mask, max_length=8)
    start, real = start_prompts(1, prompt, mask)
    anew = decode(uncached(system.step_function(image, start, real), real), start, end_token=511, max_length=9)
    assert torch.equal(written[:, 3:], anew[:, 4:])
    if decode is greedy:
        for i, own in enumerate(([9, 8, 7], [30], [4, 5])):
            text = torch.tensor([[1, *own, *written[i, 3:].tolist()]])
            prefix = torch.arange(text.shape[1])[None] <= len(own)
            guess = system(image[i : i + 1], text, None, prefix).token_logits.argmax(-1)
            assert torch.equal(guess[0, len(own) : -1], text[0, len(own) + 1 :])


@torch.no_grad()
def test_only_what_is_not_given_is_asked():
    system, batch = build(), pairs()
    prefix = (torch.arange(12)[None] < 3).expand(8, 12)
    logits = system(batch["image"], batch["tokens"], batch["mask"], prefix).token_logits.log_softmax(-1)
    asked = (batch["mask"] & ~prefix)[:, 1:]
    expected = -logits[:, :-1].gather(-1, batch["tokens"][:, 1:, None])[..., 0][asked].mean()
    close(system.loss(batch | {"prefix": prefix})["lm"], expected)


def test_what_cannot_be_is_told():
    system, batch = build(), pairs()
    refused(r"of 64 pixels here, got \(64, 96\)", system, torch.randn(1, 3, 64, 96), batch["tokens"][:1])
    long = torch.zeros(1, 33, dtype=torch.long)
    refused("33 tokens are more than the 32", system, batch["image"][:1], long)
