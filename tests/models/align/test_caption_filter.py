"""What fits stays and what does not goes; the statistics are those of counting by hand."""

import math

import pytest
import torch
from testing_tools import refused

from mmlearn.models.align.caption_filter import filter_captions, filter_statistics

WEB = ["a red ball", "buy now", "two cats", "a tree"]
SYNTHETIC = ["a ball", "a blue cup", "two cats", "a house"]
WEB_SCORE = torch.tensor([0.9, 0.1, 0.5, 0.2])
SYNTHETIC_SCORE = torch.tensor([0.8, 0.7, 0.5, 0.4])


def test_what_fits_is_kept_image_by_image():
    kept = filter_captions(WEB, SYNTHETIC, WEB_SCORE, SYNTHETIC_SCORE)
    assert [tuple(item[:3]) for item in kept] == [
        (0, "a red ball", "web"),
        (0, "a ball", "synthetic"),
        (1, "a blue cup", "synthetic"),
        (2, "two cats", "web"),  # written twice, kept once; at the threshold is kept
    ]
    assert [item.score for item in kept] == pytest.approx([0.9, 0.8, 0.7, 0.5])


def test_the_threshold_moves_from_all_to_none():
    sizes = [len(filter_captions(WEB, SYNTHETIC, WEB_SCORE, SYNTHETIC_SCORE, t)) for t in (0, 0.15, 0.5, 0.75, 0.95)]
    assert sizes == [7, 6, 4, 2, 0]


def test_one_text_scored_twice_is_kept_by_the_score_that_passes():
    kept = filter_captions(["x"], ["x"], torch.tensor([0.1]), torch.tensor([0.9]))
    assert [(item.source, item.caption) for item in kept] == [("synthetic", "x")]


def test_no_image_keeps_nothing_and_what_came_in_stays_as_it_is():
    assert filter_captions([], [], torch.zeros(0), torch.zeros(0)) == []
    web, score = list(WEB), WEB_SCORE.clone()
    filter_captions(web, SYNTHETIC, score, SYNTHETIC_SCORE)
    assert web == WEB
    assert torch.equal(score, WEB_SCORE)


def test_statistics_against_counting():
    generator = torch.Generator().manual_seed(0)
    for n in (1, 7, 200):
        score, truth = torch.rand(n, generator=generator), torch.rand(n, generator=generator) < 0.6
        for threshold in (0.0, 0.3, 0.8):
            pairs = list(zip(score.tolist(), truth.tolist()))
            kept = [true for value, true in pairs if value >= threshold]
            got = filter_statistics(score, truth, threshold)
            assert got.kept == len(kept)
            assert got.share == pytest.approx(len(kept) / n)
            assert got.before == pytest.approx(sum(truth.tolist()) / n)
            if kept:
                assert got.precision == pytest.approx(sum(kept) / len(kept))
            if truth.any():
                assert got.recall == pytest.approx(sum(kept) / sum(truth.tolist()))


def test_a_perfect_filter_and_one_that_keeps_everything():
    truth = torch.tensor([True, False, True, False, False])
    perfect = filter_statistics(truth.float(), truth)
    assert (perfect.precision, perfect.recall, perfect.before) == (1, 1, 0.4)
    everything = filter_statistics(truth.float(), truth, 0)
    assert everything.precision == everything.before
    assert everything.share == everything.recall == 1


def test_the_precision_of_nothing_is_not_a_number():
    nothing = filter_statistics(torch.zeros(3), torch.tensor([True, True, False]), 1)
    assert nothing.kept == nothing.recall == 0
    assert math.isnan(nothing.precision)
    assert math.isnan(filter_statistics(torch.ones(2), torch.zeros(2).bool()).recall)


@pytest.mark.parametrize("bad", [1.5, -0.1, math.nan, math.inf])
def test_scores_are_probabilities(bad):
    score = torch.tensor([0.5, 0.5, 0.5, bad])
    for given in ((score, SYNTHETIC_SCORE), (WEB_SCORE, score)):
        refused("probabilities from 0 to 1", filter_captions, WEB, SYNTHETIC, *given)
    refused("softmax of match logits", filter_statistics, score, torch.ones(4).bool())
    refused(f"threshold {bad}", filter_captions, WEB, SYNTHETIC, WEB_SCORE, SYNTHETIC_SCORE, bad)


@pytest.mark.usefixtures("unchecked")
def test_as_many_captions_as_scores():
    refused("got 3, 4, 4 and 4", filter_captions, WEB[:3], SYNTHETIC, WEB_SCORE, SYNTHETIC_SCORE)
    refused("got 4, 4, 4 and 2", filter_captions, WEB, SYNTHETIC, WEB_SCORE, SYNTHETIC_SCORE[:2])
    refused("got 4 scores and 3 truths", filter_statistics, WEB_SCORE, torch.ones(3).bool())
    refused("at least one caption", filter_statistics, torch.zeros(0), torch.zeros(0).bool())
