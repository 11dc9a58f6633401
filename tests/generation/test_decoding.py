"""Decoding against trying everything: tiny languages whose every text can be listed."""

import math
from functools import partial
from itertools import product

import pytest
import torch
from languages import language
from testing_tools import refused

from mmlearn.generation.decoding import beam_search, greedy, sample, sampling_probabilities

END, PAD = 1, 0


def texts(v, start, max_length):
    """Every text that begins with ``start``: up to its end token, or of the greatest length."""
    words = max_length - len(start)
    for length in range(1, words + 1):
        for body in product(range(v), repeat=length - 1):
            for last in range(v):
                if END not in body and (last == END or length == words):
                    yield [*start, *body, last]


def log_probability(next_logits, text, start):
    """Of the tokens after the start."""
    scores = [next_logits(torch.tensor([text[:t]]))[0].log_softmax(-1)[text[t]] for t in range(len(start), len(text))]
    return float(sum(scores))


def trimmed(tokens):
    """Without what stands behind the end token, which must be padding."""
    text = tokens.tolist()
    if END in text[1:]:
        end = text.index(END, 1)
        assert set(text[end + 1 :]) <= {PAD}
        text = text[: end + 1]
    return text


SETTINGS = dict(end_token=END, max_length=5, pad_token=PAD)


@pytest.mark.parametrize("seed", range(6))
def test_greedy_takes_the_likeliest_token_each_time(seed):
    next_logits = language(seed=seed)
    got = trimmed(greedy(next_logits, torch.tensor([[3]]), **SETTINGS)[0])
    expected = [3]
    while len(expected) < 5 and expected[-1] != END:
        expected.append(int(next_logits(torch.tensor([expected]))[0].argmax()))
    assert got == expected


@pytest.mark.parametrize("length_penalty", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("seed", range(4))
def test_enough_beams_find_the_best_of_all_texts(seed, length_penalty):
    next_logits = language(seed=seed, impossible=252)
    best = max(
        texts(4, [3], 5), key=lambda text: log_probability(next_logits, text, [3]) / (len(text) - 1) ** length_penalty
    )
    search = partial(beam_search, beams=4**4, length_penalty=length_penalty)
    assert trimmed(search(next_logits, torch.tensor([[3]]), **SETTINGS)[0]) == best


@pytest.mark.parametrize("seed", range(4))
def test_several_tokens_may_end_a_text(seed):
    """Where END and 2 do, the best text is that of a language in which every text has one of both, at its end."""
    next_logits, ends = language(seed=seed, impossible=252), {END, 2}
    every = [[3, *body] for length in range(1, 5) for body in product(range(4), repeat=length)]
    every = [text for text in every if not ends & {*text[1:-1]} and (text[-1] in ends or len(text) == 5)]
    best = max(every, key=lambda text: log_probability(next_logits, text, [3]) / (len(text) - 1))
    settings = SETTINGS | dict(end_token=(END, 2))
    assert beam_search(next_logits, torch.tensor([[3]]), beams=256, **settings)[0, : len(best)].tolist() == best
    written = greedy(next_logits, torch.tensor([[3]]), **settings)[0].tolist()
    alone = trimmed(greedy(next_logits, torch.tensor([[3]]), **SETTINGS)[0])
    assert written == alone[: alone.index(2) + 1] if 2 in alone else written == alone
    late = greedy(next_logits, torch.tensor([[3]]), min_new_tokens=3, **settings)[0].tolist()
    assert not ends & {*late[1:3]}


def test_turns_of_a_chat_may_have_ended():
    next_logits, start = language(), torch.tensor([[3, END, 3]])
    for decode in (greedy, beam_search):
        refused("end token, 1, at position 1", decode, next_logits, start, **SETTINGS)
        assert torch.equal(decode(next_logits, start, turns=True, **SETTINGS)[:, :3], start)


def test_greedy_is_not_always_the_best():
    """Or else the test above would say nothing of a search."""
    found = 0
    for seed in range(12):
        next_logits = language(seed=seed, sharpness=1.0, impossible=252)
        one, many = (
            trimmed(beam_search(next_logits, torch.tensor([[3]]), beams=beams, length_penalty=0.0, **SETTINGS)[0])
            for beams in (1, 256)
        )
        difference = log_probability(next_logits, many, [3]) - log_probability(next_logits, one, [3])
        assert difference >= -1e-5
        found += difference > 0.1
    assert found


@pytest.mark.parametrize("seed", range(4))
def test_one_beam_is_greedy_where_length_has_no_worth(seed):
    """Else the beam goes on behind the end of the greedy text, and may find a longer one that is better."""
    next_logits, start = language(b=3, seed=seed), torch.tensor([[3, 2], [2, 3], [2, 2]])
    expected = greedy(next_logits, start, **SETTINGS)
    assert torch.equal(beam_search(next_logits, start, beams=1, length_penalty=0.0, **SETTINGS), expected)


def search_in_lists(next_logits, start, max_length, beams, length_penalty, v):
    """The best text by plain lists, without any early stop."""

    def worth(item):
        return item[1] / (len(item[0]) - len(start)) ** length_penalty

    kept, ended = [(start, 0.0)], []
    while len(kept[0][0]) < max_length:
        longer = []
        for text, score in kept:
            step = next_logits(torch.tensor([text]))[0].log_softmax(-1)
            longer += [([*text, token], score + float(step[token])) for token in range(v)]
        longer.sort(key=lambda item: -item[1])
        ended += [item for item in longer[:beams] if item[0][-1] == END]
        kept = [item for item in longer if item[0][-1] != END][:beams]
    return max(ended + kept, key=worth)[0]


@pytest.mark.parametrize("length_penalty", [-1.0, 0.0, 0.6, 1.0, 2.0])
@pytest.mark.parametrize("beams", [1, 2, 3, 5])
def test_a_few_beams_against_a_search_in_plain_lists(beams, length_penalty):
    found = set()
    for seed in range(6):
        next_logits = language(v=5, seed=seed)
        expected = search_in_lists(next_logits, [3], 6, beams, length_penalty, 5)
        search = partial(beam_search, beams=beams, length_penalty=length_penalty)
        got = trimmed(search(next_logits, torch.tensor([[3]]), end_token=END, max_length=6, pad_token=PAD)[0])
        assert got == expected
        found.add(len(got))
    assert len(found) > 1 or length_penalty == 2.0  # which always takes the longest


def test_texts_of_a_batch_do_not_meet():
    next_logits, start = language(b=3), torch.tensor([[3], [3], [2]])

    def alone(i):
        return lambda tokens: next_logits(tokens.repeat(3, 1))[i * len(tokens) : (i + 1) * len(tokens)]

    for decode in (greedy, partial(beam_search, beams=3)):
        together = decode(next_logits, start, **SETTINGS)
        for i in range(3):
            assert trimmed(together[i]) == trimmed(decode(alone(i), start[i : i + 1], **SETTINGS)[0])


def test_what_ends_is_padded_and_nothing_is_asked_once_all_have_ended():
    asked = []

    def next_logits(tokens):
        asked.append(tokens.shape[1])
        logits = torch.zeros(len(tokens), 4)
        logits[:, 2] = 1
        logits[torch.arange(len(tokens)) * 2 // len(tokens) < 1, END] = 2.0 if tokens.shape[1] == 2 else 0.0
        logits[torch.arange(len(tokens)) * 2 // len(tokens) == 1, END] = 2.0 if tokens.shape[1] == 4 else 0.0
        return 50 * logits

    expected = torch.tensor([[3, 2, END, PAD, PAD], [3, 2, 2, 2, END]])
    random = partial(sample, generator=torch.Generator().manual_seed(0))
    for decode in (greedy, partial(beam_search, beams=2), random):
        asked.clear()
        got = decode(next_logits, torch.tensor([[3], [3]]), end_token=END, max_length=20, pad_token=PAD)
        assert torch.equal(got, expected)
        assert asked == [1, 2, 3, 4]


def test_models_that_begin_with_their_end_token_write_on():
    """As BART does; and GPT-2 pads with it as well, at the left."""
    next_logits, start = language(), torch.tensor([[END, 3], [PAD, END]])
    for decode in (greedy, partial(beam_search, beams=2)):
        got = decode(next_logits, start, **SETTINGS)
        assert got.shape[1] > 2
        assert torch.equal(got[:, :2], start)


def counts(next_logits, mass, v, draws=4000):
    """How often each token comes first."""
    start = torch.full((draws, 1), 3)
    generator = torch.Generator().manual_seed(0)
    got = sample(next_logits, start, end_token=END, max_length=2, pad_token=PAD, top_p=mass, generator=generator)
    return torch.bincount(got[:, 1], minlength=v) / draws


PROBABILITY = torch.tensor([0.1, 0.4, 0.05, 0.25, 0.2])


@pytest.mark.parametrize(
    ("mass", "inside"),
    [(1.0, [0, 1, 2, 3, 4]), (0.9, [0, 1, 3, 4]), (0.8, [1, 3, 4]), (0.5, [1, 3]), (0.39, [1]), (1e-9, [1])],
)
def test_the_nucleus_is_the_smallest_set_with_its_mass(mass, inside):
    """All subsets are tried; frequencies follow the probabilities in it, to four deviations."""
    subsets = [[i for i in range(5) if number >> i & 1] for number in range(1, 32)]
    smallest = min(
        (subset for subset in subsets if PROBABILITY[subset].sum() >= mass - 1e-6),
        key=lambda subset: (len(subset), -float(PROBABILITY[subset].sum())),
    )
    assert smallest == inside
    expected = torch.zeros(5)
    expected[inside] = PROBABILITY[inside] / PROBABILITY[inside].sum()
    got = counts(lambda tokens: PROBABILITY.log().expand(len(tokens), 5), mass, 5)
    assert (got[expected == 0] == 0).all()
    assert ((got - expected).abs() <= 4 * (expected * (1 - expected) / 4000).sqrt()).all()


def test_draws_follow_the_generator_and_nothing_else():
    next_logits, start = language(b=8, sharpness=0.5), torch.full((8, 1), 3)

    def draw(seed):
        generator = torch.Generator().manual_seed(seed)
        return sample(next_logits, start, end_token=END, max_length=9, pad_token=PAD, generator=generator)

    before = torch.get_rng_state()
    first = draw(0)
    assert torch.equal(first, draw(0))
    assert torch.equal(before, torch.get_rng_state())
    assert draw(1).shape != first.shape or not torch.equal(first, draw(1))


def test_whole_texts_are_drawn_by_their_probability():
    next_logits = language(v=3, sharpness=1.0)
    draws = 3000
    got = sample(
        lambda tokens: torch.stack([next_logits(row[None])[0] for row in tokens.unique(dim=0)])[
            tokens.unique(dim=0, return_inverse=True)[1]
        ],
        torch.full((draws, 1), 2),
        end_token=END,
        max_length=4,
        pad_token=PAD,
        top_p=1.0,
        generator=torch.Generator().manual_seed(0),
    )
    drawn = [tuple(trimmed(row)) for row in got]
    total = 0.0
    for text in texts(3, [2], 4):
        p = torch.tensor(log_probability(next_logits, text, [2])).exp().item()
        total += p
        assert drawn.count(tuple(text)) / draws == pytest.approx(p, abs=4 * (p * (1 - p) / draws) ** 0.5 + 1e-3)
    assert total == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
@pytest.mark.parametrize("top_k", [None, 1, 3, 50])
@pytest.mark.parametrize("top_p", [0.2, 0.7, 1.0])
def test_odds_are_those_of_transformers(temperature, top_k, top_p):
    from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

    logits = 2 * torch.randn(16, 20)
    expected = TemperatureLogitsWarper(temperature)(None, logits)
    if top_k is not None:
        expected = TopKLogitsWarper(top_k)(None, expected)
    expected = TopPLogitsWarper(top_p)(None, expected).softmax(-1)
    got = sampling_probabilities(logits, temperature=temperature, top_k=top_k, top_p=top_p)
    torch.testing.assert_close(got, expected)
    assert not torch.equal(got[0], got[1])


def test_equal_tokens_beyond_the_last_position_are_not_kept():
    """Of four equal ones, top_k = 2 keeps two."""
    assert (sampling_probabilities(torch.zeros(1, 4), top_k=2) > 0).sum() == 2
    assert (sampling_probabilities(torch.zeros(1, 4), top_p=0.5) > 0).sum() == 2  # which have just that much


@pytest.mark.parametrize("narrow", [dict(temperature=0.5), dict(top_k=2), dict(temperature=2.0, top_k=4, top_p=0.7)])
def test_tokens_are_drawn_as_often_as_the_odds_say(narrow):
    logits, draws = PROBABILITY.log(), 4000
    got = sample(
        lambda tokens: logits.expand(len(tokens), 5),
        torch.full((draws, 1), 3),
        end_token=END,
        max_length=2,
        pad_token=PAD,
        generator=torch.Generator().manual_seed(0),
        **narrow,
    )
    frequency = torch.bincount(got[:, 1], minlength=5) / draws
    p = PROBABILITY.double() ** (1 / narrow.get("temperature", 1))
    p = p / p.sum()
    order = p.argsort(descending=True)[: narrow.get("top_k", 5)]
    p = torch.zeros_like(p).scatter(0, order, p[order] / p[order].sum())
    if "top_p" in narrow:
        few = order[: int((p[order].cumsum(0) < narrow["top_p"]).sum()) + 1]
        p = torch.zeros_like(p).scatter(0, few, p[few] / p[few].sum())
    assert (frequency[p == 0] == 0).all()
    assert ((frequency - p).abs() <= 4 * (p * (1 - p) / draws).sqrt() + 1e-9).all()


DECODERS = (greedy, beam_search, partial(sample, generator=torch.Generator()))


def test_starts_that_cannot_be():
    next_logits = language()
    for decode in DECODERS:
        refused("max_length 5 counts the 5 tokens", decode, next_logits, torch.tensor([[3, 2, 2, 2, 2]]), **SETTINGS)
        refused("max_length 5 counts the 7 tokens", decode, next_logits, torch.full((2, 7), 3), **SETTINGS)
        refused("The start is empty", decode, next_logits, torch.zeros(2, 0, dtype=torch.long), **SETTINGS)
        start = torch.tensor([[3, 2, 2], [3, END, 2]])
        refused("Row 1 of the start has its end token, 1, at position 1", decode, next_logits, start, **SETTINGS)
        refused("end token, 1, at position 2", decode, next_logits, torch.tensor([[PAD, 3, END]]), **SETTINGS)


def test_settings_that_cannot_be():
    def asked(tokens):
        raise AssertionError("A model is asked although the settings cannot be.")

    start = torch.tensor([[3]])
    for wrong in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="temperature is above 0"):
            sample(asked, start, temperature=wrong, generator=torch.Generator(), **SETTINGS)
    for wrong in (0.0, -1.0, 1.1, float("nan")):
        with pytest.raises(ValueError, match="top_p is a probability above 0 and at most 1"):
            sample(asked, start, top_p=wrong, generator=torch.Generator(), **SETTINGS)
    refused("top_k is at least one", sample, asked, start, top_k=0, generator=torch.Generator(), **SETTINGS)
    refused("at least one beam, got 0", beam_search, asked, start, beams=0, **SETTINGS)
    refused("5 beams are more than the 4 tokens", beam_search, language(), start, beams=5, **SETTINGS)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (float("nan"), "after the 2 tokens of row 1 have nan among them"),
        (float("inf"), "after the 2 tokens of row 1 have inf among them"),
        (-float("inf"), "No token may be written after the 2 tokens of row 1"),
    ],
)
def test_scores_that_cannot_be(wrong, says):
    def next_logits(tokens):
        logits = torch.zeros(len(tokens), 4)
        logits[:, 2] = 1.0
        if tokens.shape[1] == 2:
            logits[1] = wrong
        return logits

    for decode in (greedy, partial(beam_search, beams=1), partial(sample, generator=torch.Generator(), top_k=1)):
        refused(says, decode, next_logits, torch.tensor([[3], [3]]), **SETTINGS)


def test_no_text_at_all():
    start = torch.zeros(0, 1, dtype=torch.long)
    for decode in DECODERS:
        assert len(decode(language(), start, **SETTINGS)) == 0


@pytest.mark.parametrize("after", [math.nan, -math.inf])
def test_what_is_said_after_the_end_does_not_matter(after):
    """Text 0 ends at once; whatever is scored behind its end, text 1 goes on."""

    def said(tokens):
        scores = torch.full((len(tokens), 6), -9.0)
        scores[tokens[:, 0] == 0, 2] = 9.0
        scores[tokens[:, 0] == 1, 4] = 9.0
        scores[(tokens == 2).any(1)] = after
        return scores

    start, rest = torch.tensor([[0], [1]]), dict(end_token=2, max_length=4, pad_token=5)
    wanted = torch.tensor([[0, 2, 5, 5], [1, 4, 4, 4]])
    assert torch.equal(greedy(said, start, **rest), wanted)
    assert torch.equal(sample(said, start, generator=torch.Generator().manual_seed(0), **rest), wanted)
    assert torch.equal(beam_search(said, start, beams=1, length_penalty=0.0, **rest), wanted)
