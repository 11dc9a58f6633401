"""Texts that may be one of a set of answers, or what a grammar allows: against scoring every one of them."""

from functools import partial

import languages
import pytest
import torch
from testing_tools import refused

from mmlearn.generation.constrained import boxes, repeating, trie
from mmlearn.generation.decoding import beam_search, greedy, sample

END, PAD, V = 1, 0, 30
SETTINGS = dict(end_token=END, max_length=8, pad_token=PAD)


language = partial(languages.language, V, sharpness=1.5)


def written(row):
    """What stands behind the start and before the end."""
    text = row.tolist()[1:]
    assert END in text
    assert set(text[text.index(END) + 1 :]) <= {PAD}
    return tuple(text[: text.index(END)])


def log_probability(next_logits, text):
    """Of an answer and the end token, to the model: what is forbidden keeps its share."""
    tokens = [3, *text, END]
    return sum(
        float(next_logits(torch.tensor([tokens[:t]]))[0].log_softmax(-1)[tokens[t]]) for t in range(1, len(tokens))
    )


def random_answers(seed, count=12):
    """Some begin alike, and some are the beginning of others."""
    generator = torch.Generator().manual_seed(seed)
    answers = {(5,), (5, 6), (5, 6, 7)}
    while len(answers) < count:
        length = int(torch.randint(1, 5, (1,), generator=generator))
        answers.add(tuple(torch.randint(5, 9, (length,), generator=generator).tolist()))
    return sorted(answers)


@pytest.mark.parametrize("length_penalty", [0.0, 1.0])
@pytest.mark.parametrize("seed", range(4))
def test_the_search_finds_the_answer_that_is_likeliest_to_the_model(seed, length_penalty):
    next_logits, answers = language(seed=seed), random_answers(seed)
    best = max(answers, key=lambda text: log_probability(next_logits, text) / (len(text) + 1) ** length_penalty)
    search = partial(beam_search, beams=12, length_penalty=length_penalty, allowed=trie(answers, END))
    assert written(search(next_logits, torch.tensor([[3]]), **SETTINGS)[0]) == best


def test_every_answer_is_drawn_and_nothing_else():
    answers = random_answers(0)
    draw = partial(sample, allowed=trie(answers, END), generator=torch.Generator().manual_seed(0))
    got = draw(lambda tokens: torch.zeros(len(tokens), V), torch.full((2000, 1), 3), **SETTINGS)
    assert {written(row) for row in got} == set(answers)


@pytest.mark.parametrize("answers", [[(5,)], [(5, 6), (5, 7)], random_answers(3)])
def test_whatever_the_scores_say_only_answers_are_written(answers):
    """Also by beams that are more than the answers, and of texts of several lengths in one batch."""
    decoders = [greedy, *(partial(beam_search, beams=beams) for beams in (1, 2, 7))]
    for decode in decoders:
        got = decode(language(b=5), torch.full((5, 1), 3), allowed=trie(answers, END), **SETTINGS)
        assert {written(row) for row in got} <= set(answers)


@pytest.mark.parametrize(
    "decode", [greedy, partial(beam_search, beams=4), partial(sample, generator=torch.Generator())]
)
def test_boxes_are_whole_and_have_an_inside(decode):
    positions, labels = range(10, 20), range(20, 30)
    start = torch.full((6, 1), 3)
    settings = dict(end_token=END, pad_token=PAD, allowed=boxes(positions, labels, END))
    if decode is not greedy and "generator" in decode.keywords:
        decode.keywords["generator"].manual_seed(0)
    got = decode(language(b=6, sharpness=3.0), start, max_length=22, **settings)
    found = 0
    for row in got.tolist():
        text = row[1 : row.index(END)] if END in row else row[1:21]  # four whole objects, where it was cut off
        assert len(text) % 5 == 0
        for i in range(0, len(text), 5):
            top, left, bottom, right, label = text[i : i + 5]
            assert {top, left, bottom, right} <= set(positions)
            assert label in labels
            assert top <= bottom
            assert left <= right
            found += 1
    assert found > 5


def test_boxes_may_be_none():
    may = boxes(range(10, 20), range(20, 30), END)
    assert END in may(())
    assert END in may((10, 10, 10, 10, 25))
    assert all(END not in may((10, 12, 14, 16)[:t]) for t in range(1, 5))
    assert [*may((13, 12))] == [*range(13, 20)]


def never_7(tokens):
    return torch.zeros(len(tokens), V).index_fill(1, torch.tensor([7]), -torch.inf)


def test_what_cannot_be():
    for decode in (greedy, partial(beam_search, beams=2), partial(sample, generator=torch.Generator())):
        ask = partial(decode, language(), torch.tensor([[3]]), **SETTINGS)
        refused(r"allows nothing after \[\]", ask, allowed=lambda text: [])
        refused(r"allows nothing after \[7\]: allow the end token", ask, allowed=lambda text: [] if text else [7])
        for wrong in (V, 700, -1):
            says = f"allows token {wrong}, and the model knows 30, from 0: .* tokenizer of another vocabulary"
            refused(says, ask, allowed=trie([(5, wrong), (wrong,)], END))
        shut = partial(decode, never_7, torch.tensor([[3]]), **SETTINGS)
        refused(r"exclude all that the grammar allows after \[\]", shut, allowed=lambda text: [7])
    refused("no answer to choose from", trie, [], END)
    refused("end token 1 is none of them", trie, [(5,), ()], END)
    refused("end token 1 is none of them", trie, [(5, END)], END)
    for positions, labels in ((range(10, 20), range(19, 30)), (range(2), [7]), (range(0), [7]), (range(5, 9), [])):
        refused("A token is a position, a label or the end token", boxes, positions, labels, END)


@pytest.mark.parametrize("size", [0, 1, 2, 3, 7, 8])
def test_what_would_repeat_is_what_a_loop_finds(size):
    tokens = torch.randint(0, 3, (20, 7), generator=torch.Generator().manual_seed(size))
    tokens[0] = 4  # outside the vocabulary, as padding may be
    expected = torch.zeros(20, 3, dtype=torch.bool)
    for row, token in ((row, token) for row in range(20) for token in range(3)):
        text = [*tokens[row].tolist(), token]
        earlier = [text[i : i + size] for i in range(7 - size + 1)]
        expected[row, token] = size > 0 and text[8 - size :] in earlier
    assert torch.equal(repeating(tokens, size, 3), expected)


def test_limits_that_cannot_be():
    for decode in (greedy, partial(beam_search, beams=2)):
        for name in ("min_new_tokens", "no_repeat_ngram_size"):
            refused(f"{name} is at least 0", decode, *(language(), torch.tensor([[3]])), **SETTINGS, **{name: -1})
        few = dict(min_new_tokens=7, no_repeat_ngram_size=1) | SETTINGS
        for_three = languages.language(3, sharpness=1.5)
        refused("leave no token that may follow", decode, for_three, torch.tensor([[2]]), **few)
