"""Decoding against trying everything: tiny languages whose every text can be listed."""

from functools import partial
from itertools import product

import pytest
import torch

from mmlearn.generation.decoding import beam_search, greedy, nucleus

END, PAD = 1, 0


def language(v=4, b=1, seed=0, sharpness=2.0):
    """Scores that depend on the whole text so far and, for several texts, on which of them it is."""
    cache = {}

    def next_logits(tokens):
        rows = []
        for number, row in enumerate(tokens.tolist()):
            key = (number // (len(tokens) // b), *row)
            if key not in cache:
                generator = torch.Generator().manual_seed(hash((seed, *key)) % 2**31)
                cache[key] = sharpness * torch.randn(v, generator=generator)
            rows.append(cache[key])
        return torch.stack(rows)

    return next_logits


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
    next_logits = language(seed=seed)
    best = max(
        texts(4, [3], 5), key=lambda text: log_probability(next_logits, text, [3]) / (len(text) - 1) ** length_penalty
    )
    search = partial(beam_search, beams=4**4, length_penalty=length_penalty)
    assert trimmed(search(next_logits, torch.tensor([[3]]), **SETTINGS)[0]) == best


def test_greedy_is_not_always_the_best():
    """Or else the test above would say nothing of a search."""
    found = 0
    for seed in range(12):
        next_logits = language(seed=seed, sharpness=1.0)
        one, many = (
            trimmed(beam_search(next_logits, torch.tensor([[3]]), beams=beams, length_penalty=0.0, **SETTINGS)[0])
            for beams in (1, 256)
        )
        difference = log_probability(next_logits, many, [3]) - log_probability(next_logits, one, [3])
        assert difference >= -1e-5
        found += difference > 0.1
    assert found


@pytest.mark.parametrize("seed", range(4))
def test_one_beam_is_greedy(seed):
    next_logits, start = language(b=3, seed=seed), torch.tensor([[3, 2], [2, 3], [2, 2]])
    expected = greedy(next_logits, start, **SETTINGS)
    assert torch.equal(beam_search(next_logits, start, beams=1, **SETTINGS), expected)


@pytest.mark.parametrize("beams", [2, 3])
def test_a_few_beams_against_a_search_in_plain_lists(beams):
    for seed in range(6):
        next_logits = language(v=5, seed=seed)
        kept = [([3], 0.0)]
        for _ in range(4):
            longer = [item for item in kept if END in item[0]]
            for text, score in kept:
                if END not in text:
                    step = next_logits(torch.tensor([text]))[0].log_softmax(-1)
                    longer += [([*text, token], score + float(step[token])) for token in range(5)]
            kept = sorted(longer, key=lambda item: -item[1])[:beams]
        expected = max(kept, key=lambda item: item[1] / (len(item[0]) - 1))[0]
        assert trimmed(beam_search(next_logits, torch.tensor([[3]]), beams=beams, **SETTINGS)[0]) == expected


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
    random = partial(nucleus, generator=torch.Generator().manual_seed(0))
    for decode in (greedy, partial(beam_search, beams=2), random):
        asked.clear()
        got = decode(next_logits, torch.tensor([[3], [3]]), end_token=END, max_length=20, pad_token=PAD)
        assert torch.equal(got, expected)
        assert asked == [1, 2, 3, 4]


def test_an_end_token_in_the_start_ends_nothing():
    start = torch.tensor([[END, 3]])
    next_logits = language()
    for decode in (greedy, partial(beam_search, beams=2)):
        got = decode(next_logits, start, **SETTINGS)
        assert got.shape[1] > 2
        assert torch.equal(got[:, :2], start)


def counts(next_logits, mass, v, draws=4000):
    """How often each token comes first."""
    start = torch.full((draws, 1), 3)
    generator = torch.Generator().manual_seed(0)
    got = nucleus(next_logits, start, end_token=END, max_length=2, pad_token=PAD, mass=mass, generator=generator)
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
        return nucleus(next_logits, start, end_token=END, max_length=9, pad_token=PAD, generator=generator)

    before = torch.get_rng_state()
    first = draw(0)
    assert torch.equal(first, draw(0))
    assert torch.equal(before, torch.get_rng_state())
    assert draw(1).shape != first.shape or not torch.equal(first, draw(1))


def test_whole_texts_are_drawn_by_their_probability():
    next_logits = language(v=3, sharpness=1.0)
    draws = 3000
    got = nucleus(
        lambda tokens: torch.stack([next_logits(row[None])[0] for row in tokens.unique(dim=0)])[
            tokens.unique(dim=0, return_inverse=True)[1]
        ],
        torch.full((draws, 1), 2),
        end_token=END,
        max_length=4,
        pad_token=PAD,
        mass=1.0,
        generator=torch.Generator().manual_seed(0),
    )
    drawn = [tuple(trimmed(row)) for row in got]
    total = 0.0
    for text in texts(3, [2], 4):
        p = torch.tensor(log_probability(next_logits, text, [2])).exp().item()
        total += p
        assert drawn.count(tuple(text)) / draws == pytest.approx(p, abs=4 * (p * (1 - p) / draws) ** 0.5 + 1e-3)
    assert total == pytest.approx(1, abs=1e-5)


def test_what_cannot_be():
    next_logits, start = language(), torch.tensor([[3, 2, 2, 2, 2]])
    for decode in (greedy, beam_search, partial(nucleus, generator=torch.Generator())):
        with pytest.raises(ValueError, match="max_length 5 counts the 5 tokens of the start too") as error:
            decode(next_logits, start, **SETTINGS)
        assert "\n" not in str(error.value)
    for mass in (0.0, -1.0, 1.1, float("nan")):
        with pytest.raises(ValueError, match="above 0 and at most 1"):
            nucleus(next_logits, start, mass=mass, generator=torch.Generator(), **SETTINGS)
    with pytest.raises(ValueError, match="at least one beam, got 0"):
        beam_search(next_logits, start, beams=0, **SETTINGS)


def test_no_text_at_all():
    start = torch.zeros(0, 1, dtype=torch.long)
    for decode in (greedy, beam_search, partial(nucleus, generator=torch.Generator())):
        assert len(decode(language(), start, **SETTINGS)) == 0
