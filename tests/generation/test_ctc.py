"""Reading texts out of frames: greedy by hand, the search equal to trying every text, and what is padding."""

import math
from itertools import groupby, product

import pytest
import torch
from testing_tools import close, refused

from mmlearn.generation.ctc import collapse, ctc_beam_search, ctc_best_path, ctc_greedy
from mmlearn.objectives.ctc import ctc_log_likelihood


def frames(b, s, v, seed=0, spread=1.0):
    generator = torch.Generator().manual_seed(seed)
    return (spread * torch.randn(b, s, v, generator=generator, dtype=torch.double)).log_softmax(-1)


def texts(tokens, mask):
    return [row[real].tolist() for row, real in zip(tokens, mask)]


def all_texts(log_probs, blank=0):
    """Every text that some path reads → its probability: all paths, one after the other."""
    s, v = log_probs.shape
    total = {}
    for path in product(range(v), repeat=s):
        text = tuple(symbol for symbol, _ in groupby(path) if symbol != blank)
        total[text] = total.get(text, 0) + math.exp(sum(log_probs[t, symbol].item() for t, symbol in enumerate(path)))
    return total


def sure(path, v=4):
    """Frames that say this path, almost certainly."""
    return torch.nn.functional.one_hot(torch.tensor(path), v).float().mul(20).log_softmax(-1)


def test_repeats_merge_and_blanks_go():
    assert collapse(torch.tensor([0, 1, 1, 0, 1, 2, 2, 0, 0])).tolist() == [1, 1, 2]
    assert collapse(torch.tensor([2, 2, 1, 1, 2]), blank=2).tolist() == [1]
    assert collapse(torch.tensor([0, 0])).tolist() == collapse(torch.tensor([], dtype=torch.long)).tolist() == []


@pytest.mark.parametrize("decode", [ctc_greedy, ctc_beam_search])
def test_what_frames_say_is_read(decode):
    log_probs = torch.stack([sure([1, 1, 0, 1, 3]), sure([0, 0, 0, 0, 0]), sure([2, 3, 3, 2, 2])])
    tokens, mask = decode(log_probs)[:2]
    assert texts(tokens, mask) == [[1, 1, 3], [], [2, 3, 2]]
    assert (tokens[~mask] == 0).all()
    last = decode(log_probs, blank=3)
    assert texts(*last[:2]) == [[1, 0, 1], [0], [2, 2]]
    assert (last[0][~last[1]] == 3).all()


@pytest.mark.parametrize("decode", [ctc_greedy, ctc_beam_search])
def test_padded_frames_say_nothing(decode):
    log_probs = frames(3, 7, 4, spread=3)
    mask = torch.arange(7) < torch.tensor([[7], [4], [0]])
    tokens, real = decode(log_probs, mask)[:2]
    other = decode(torch.where(mask[..., None], log_probs, log_probs.flip(0, 2)), mask)
    assert texts(*other[:2]) == texts(tokens, real)
    for i, row in enumerate(texts(tokens, real)):
        assert row == texts(*decode(log_probs[i : i + 1, mask[i]])[:2])[0]
    assert texts(tokens, real)[2] == []


@pytest.mark.parametrize("blank", [0, 2])
@pytest.mark.parametrize(("s", "v"), [(1, 3), (4, 3), (6, 3), (4, 4)])
def test_search_with_beams_enough_finds_the_likeliest_text(s, v, blank):
    log_probs = frames(6, s, v, seed=s)
    tokens, mask, score = ctc_beam_search(log_probs, blank=blank, beams=10_000)
    for rows, text, found in zip(log_probs, texts(tokens, mask), score):
        probability = all_texts(rows, blank)
        best = max(probability, key=probability.get)
        assert tuple(text) == best
        assert found.exp().item() == pytest.approx(probability[best], rel=1e-9)


def test_score_is_the_log_likelihood_and_a_narrow_search_knows_less_of_it():
    log_probs = frames(4, 6, 4)
    tokens, mask, score = ctc_beam_search(log_probs, beams=10_000)
    close(score, ctc_log_likelihood(log_probs, tokens, token_mask=mask), 1e-9)
    for beams in (1, 3):
        tokens, mask, narrow = ctc_beam_search(log_probs, beams=beams)
        assert (narrow <= ctc_log_likelihood(log_probs, tokens, token_mask=mask) + 1e-9).all()
        assert (narrow <= score + 1e-9).all()


def test_the_likeliest_path_is_not_the_likeliest_text():
    """The blank twice has 0.36, and reads nothing; a has 0.64 over its three paths. One beam drops it too early."""
    log_probs = torch.tensor([[[0.6, 0.4], [0.6, 0.4]]]).log()
    assert texts(*ctc_greedy(log_probs)) == [[]]
    assert texts(*ctc_beam_search(log_probs, beams=1)[:2]) == [[]]
    tokens, mask, score = ctc_beam_search(log_probs, beams=2)
    assert texts(tokens, mask) == [[1]]
    assert score.exp().item() == pytest.approx(0.64)


def test_one_beam_is_not_greedy():
    """After an a, the blank and a second a both leave the text a: together more than b, which is best of the three."""
    log_probs = torch.tensor([[[0.1, 0.8, 0.1], [0.32, 0.32, 0.36]]]).log()
    assert texts(*ctc_greedy(log_probs)) == [[1, 2]]
    assert texts(*ctc_beam_search(log_probs, beams=1)[:2]) == [[1]]


def test_the_same_token_twice_needs_a_blank_between():
    log_probs = torch.stack([sure([1, 0, 1]), sure([1, 1, 1])])
    assert texts(*ctc_beam_search(log_probs, beams=4)[:2]) == [[1, 1], [1]]


def test_wider_searches_find_texts_at_least_as_likely_as_greedy_on_average():
    log_probs = frames(20, 8, 5)
    greedy = ctc_greedy(log_probs)
    found = ctc_beam_search(log_probs, beams=16)
    likelihood = [ctc_log_likelihood(log_probs, x, token_mask=m).mean().item() for x, m in (greedy, found[:2])]
    assert likelihood[1] > likelihood[0] + 0.1


@pytest.mark.parametrize("decode", [ctc_greedy, ctc_beam_search])
def test_no_sound_and_no_frame(decode):
    assert [len(x) for x in decode(torch.zeros(0, 5, 3))] in ([0, 0], [0, 0, 0])
    tokens, mask = decode(torch.zeros(2, 0, 3))[:2]
    assert tokens.shape == mask.shape == (2, 0)


def test_wrong_input_is_told(unchecked):
    refused("at least one beam, got 0", ctc_beam_search, frames(1, 2, 3), beams=0)


def listed_best(log_probs, text, blank):
    """Of all paths that read a text the likeliest: every path is written down."""
    score = {
        path: sum(log_probs[t, symbol].item() for t, symbol in enumerate(path))
        for path in product(range(log_probs.shape[1]), repeat=len(log_probs))
        if collapse(torch.tensor(path), blank).tolist() == list(text)
    }
    return max(score, key=score.get)


@pytest.mark.parametrize("text", [(1,), (1, 2), (1, 1), (2, 1, 2), ()])
@pytest.mark.parametrize("blank", [0, 2])
def test_the_likeliest_path_of_a_text_is_that_of_all_listed(text, blank):
    text = tuple({blank: 0}.get(token, token) for token in text)
    symbols = [blank] + [symbol for token in text for symbol in (token, blank)]
    log_probs = torch.cat([frames(1, 4, 3, seed=seed, spread=2.0) for seed in range(5)])
    states = ctc_best_path(log_probs, torch.tensor([text] * 5, dtype=torch.long), blank=blank)
    for path, each in zip(states.tolist(), log_probs):
        assert tuple(symbols[state] for state in path) == listed_best(each, text, blank)


def test_the_likeliest_path_leaves_padding_out():
    """Texts and sounds of different lengths at once are aligned as each alone is, and behind its end a path stays."""
    log_probs, tokens = frames(2, 5, 3, spread=2.0), torch.tensor([[1, 2, 1], [2, 0, 0]])
    frame_mask = torch.tensor([[True] * 5, [True, True, True, False, False]])
    both = ctc_best_path(log_probs, tokens, frame_mask, tokens > 0)
    assert both[0].tolist() == ctc_best_path(log_probs[:1], tokens[:1])[0].tolist()
    alone = ctc_best_path(log_probs[1:, :3], tokens[1:, :1])[0].tolist()
    assert both[1].tolist() == alone + [alone[-1]] * 2


def test_the_likeliest_path_takes_nothing_of_probability_0():
    certain = torch.eye(3)[[0, 1, 2]].log()[None]  # −∞ for all other symbols
    assert ctc_best_path(certain, torch.tensor([[1, 2]])).tolist() == [[0, 1, 3]]
    refused("probability 0", ctc_best_path, certain, torch.tensor([[2, 1]]))


def test_a_text_that_no_path_reads_has_no_likeliest_one():
    refused("2 frames are too few for a text of 2", ctc_best_path, frames(1, 2, 3), torch.tensor([[1, 1]]))
    log_probs, tokens = frames(2, 2, 3), torch.tensor([[1, 2], [1, 1]])
    refused("2 frames are too few", ctc_best_path, log_probs, tokens)
