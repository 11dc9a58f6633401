"""Writing as an objective: sums by hand, who sees whom, what is asked, and what costs nothing."""

import math

import pytest
import torch
from testing_tools import close, refused, seeded

from mmlearn import objectives
from mmlearn.layers import Transformer, TransformerConfig
from mmlearn.objectives.generative import (
    backwards,
    caption_language_modelling,
    causal_language_modelling,
    draw_prefix,
    prefix_language_modelling,
    prefix_mask,
    responses_in_turn,
    shifted_right,
    span_denoising,
    text_denoising,
)

B, T, V = 5, 8, 7
MASK = torch.arange(T) < torch.tensor([8, 5, 2, 1, 8])[:, None]
PREFIX = torch.arange(T) < torch.tensor([3, 0, 1, 1, 8])[:, None]
LOSSES = {
    "causal": causal_language_modelling,
    "prefix": lambda logits, tokens, mask=None: prefix_language_modelling(logits, tokens, PREFIX, mask),
    "caption": caption_language_modelling,
    "spans": span_denoising,
    "text": text_denoising,
}


def given(seed=0):
    logits = torch.randn(B, T, V, generator=seeded(seed), dtype=torch.double, requires_grad=True)
    return logits, torch.randint(V, (B, T), generator=seeded(seed + 1))


def by_hand(name, logits, tokens, mask, smoothing):
    """Token by token, with logarithms of sums of exponentials."""
    total = count = 0
    for i in range(B):
        for t in range(T):
            if not mask[i, t] or (name == "prefix" and PREFIX[i, t]):
                continue
            said = t if name in ("spans", "text") else t - 1  # where the model says what token t is
            if said < 0:
                continue
            scores = [float(score) for score in logits[i, said].detach()]
            surprise = [math.log(sum(map(math.exp, scores))) - score for score in scores]
            total += (1 - smoothing) * surprise[tokens[i, t]] + smoothing * sum(surprise) / V
            count += 1
    return total / count


@pytest.mark.parametrize("mask", [None, MASK], ids=["whole", "padded"])
@pytest.mark.parametrize("name", LOSSES)
def test_against_sums_by_hand(name, mask):
    for seed in range(3):
        logits, tokens = given(seed)
        real = torch.ones_like(MASK) if mask is None else mask
        expected = by_hand(name, logits, tokens, real, 0.1 if name == "caption" else 0.0)
        assert LOSSES[name](logits, tokens, mask).item() == pytest.approx(expected)


@pytest.mark.parametrize("name", LOSSES)
def test_knowing_nothing_costs_ln_v(name):
    assert LOSSES[name](torch.zeros(B, T, V), given()[1], MASK).item() == pytest.approx(math.log(V))


@pytest.mark.parametrize("name", LOSSES)
def test_padding_is_not_asked_and_learns_nothing(name):
    logits, tokens = given()
    loss = LOSSES[name](logits, tokens, MASK)
    loss.backward()
    said = logits.grad.abs().amax(-1) > 0
    shift = 0 if name in ("spans", "text") else 1
    asked = MASK & ~PREFIX if name == "prefix" else MASK
    assert torch.equal(said[:, : T - shift], asked[:, shift:])
    other = torch.where(MASK, tokens, (tokens + 1) % V)
    assert torch.equal(LOSSES[name](logits, other, MASK), loss)


@pytest.mark.parametrize("name", LOSSES)
def test_nothing_to_ask_costs_nothing(name):
    logits, tokens = given()
    loss = LOSSES[name](logits, tokens, torch.zeros_like(MASK))
    loss.backward()
    assert loss.item() == 0
    assert (logits.grad == 0).all()


@pytest.mark.parametrize("name", LOSSES)
def test_tokens_of_another_vocabulary(name):
    logits, tokens = given()
    refused(f"Labels are 0 to {V - 1} here", LOSSES[name], logits, tokens + 1)


def test_smoothing_has_its_floor_at_the_entropy_of_the_target():
    tokens, smoothing = given()[1], 0.1
    target = torch.full((V,), smoothing / V).scatter(0, torch.tensor(0), 1 - smoothing + smoothing / V)
    best = torch.zeros(B, T, V).fill_(math.log(smoothing / V))
    best[:, :-1].scatter_(2, tokens[:, 1:, None], math.log(1 - smoothing + smoothing / V))
    floor = -(target * target.log()).sum()
    close(caption_language_modelling(best, tokens, None, smoothing), floor)
    worse = best + 0.1 * torch.randn(best.shape)
    assert caption_language_modelling(worse, tokens, None, smoothing) > floor
    logits = given()[0]
    plain = caption_language_modelling(logits, tokens, MASK, label_smoothing=0.0)
    close(plain, causal_language_modelling(logits, tokens, MASK))


def test_prefixes_at_both_ends():
    logits, tokens = given()
    none, all_of_it = torch.zeros_like(MASK), torch.ones_like(MASK)
    assert prefix_language_modelling(logits, tokens, all_of_it, MASK) == 0
    got = prefix_language_modelling(logits, tokens, none, MASK)
    assert torch.equal(got, causal_language_modelling(logits, tokens, MASK))


def test_who_sees_whom():
    seen = prefix_mask(PREFIX, MASK)
    for i in range(B):
        for to in range(T):
            for of in range(T):
                assert seen[i, to, of] == bool((PREFIX[i, of] or of <= to) and MASK[i, of])
    assert torch.equal(prefix_mask(torch.zeros_like(MASK))[0], torch.ones(T, T).tril().bool())


def test_no_token_that_is_asked_sees_what_comes_after_it():
    """What a transformer says at a position does not change with later tokens, unless they are of the prefix."""
    torch.manual_seed(0)
    model = Transformer(TransformerConfig(8, 2, 2, dropout=0.0)).eval()
    prefix = torch.arange(T) < 3
    x = torch.randn(1, T, 8)
    moved = []
    for of in range(T):
        other = x.clone()
        other[:, of] = torch.randn(8)
        change = (model(x, prefix_mask(prefix[None])) - model(other, prefix_mask(prefix[None]))).abs().amax(-1)[0]
        moved.append(change > 1e-6)
    moved = torch.stack(moved, 1)  # (position, token that changed)
    assert torch.equal(moved, prefix_mask(prefix[None])[0])


def test_a_decoder_reads_the_target_one_position_later():
    target = torch.tensor([[5, 6, 7], [8, 9, 0]])
    assert shifted_right(target, 3).tolist() == [[3, 5, 6], [3, 8, 9]]
    assert shifted_right(target[:, :1], 3).tolist() == [[3], [3]]


def test_all_are_objectives_of_the_library():
    for one in (causal_language_modelling, prefix_language_modelling, span_denoising, text_denoising, prefix_mask):
        assert getattr(objectives, one.__name__) is one


def test_texts_are_turned_round_and_padding_stays():
    tokens = torch.tensor([[1, 5, 6, 2, 0], [1, 2, 0, 0, 0], [0, 0, 0, 0, 0], [1, 7, 8, 9, 2]])
    mask = tokens > 0
    expected = [[2, 6, 5, 1, 0], [2, 1, 0, 0, 0], [0, 0, 0, 0, 0], [2, 9, 8, 7, 1]]
    assert backwards(tokens, mask).tolist() == expected
    assert torch.equal(backwards(backwards(tokens, mask), mask), tokens)
    assert torch.equal(backwards(tokens[3:]), tokens[3:].flip(1))


def test_all_lengths_of_a_prefix_are_as_likely_and_something_is_asked():
    mask = (torch.arange(7) < 6).repeat(6000, 1)
    prefix = draw_prefix(mask, torch.Generator().manual_seed(0))
    lengths = prefix.sum(1)
    assert torch.equal(prefix, torch.arange(7) < lengths[:, None])
    counts = lengths.bincount(minlength=7)
    assert counts[0] == counts[6] == 0
    assert (counts[1:6] > 1100).all()
    short = torch.tensor([[True, False], [False, False]])
    assert torch.equal(draw_prefix(short, torch.Generator()), short)


def test_responses_are_what_stands_behind_an_odd_number_of_turns():
    told = torch.tensor([[3, 1, 2, 2], [2, 2, 0, 0], [1, 0, 2, 1], [0, 0, 0, 0]])
    for t in (8, 11):
        by_hand = torch.zeros(4, t, dtype=torch.bool)
        for row, lengths in zip(by_hand, told.tolist()):
            start = 0
            for j, length in enumerate(lengths):
                row[start : start + length] = j % 2 == 1
                start += length
        assert torch.equal(responses_in_turn(told, t), by_hand)
    assert not responses_in_turn(told[:, :3], 8)[2, 1:].any()  # its last turn asks, and padding follows
    assert responses_in_turn(told[:0], 4).shape == (0, 4)
    assert not responses_in_turn(told[:, :0], 4).any()
    refused(r"8 tokens does not fit into 7", responses_in_turn, told, 7)
