"""Contrast where some pairs are wrong on purpose."""

import math

import pytest
import torch
from testing_tools import close
from torch.nn.functional import normalize

from mmlearn.objectives import info_nce, matched_info_nce, matched_rows

SCALE = torch.tensor(7.0)


def pairs(b=6):
    generator = torch.Generator().manual_seed(0)
    return [normalize(torch.randn(b, 5, generator=generator), dim=-1) for _ in range(2)]


def test_where_all_pairs_are_true_or_none_is_it_is_info_nce():
    image, text = pairs()
    for matched in (torch.ones(6, dtype=torch.bool), torch.zeros(6, dtype=torch.bool)):
        assert matched_rows(matched).all()
        close(matched_info_nce(image, text, SCALE, matched), info_nce(image, text, SCALE))


def test_equal_captions_are_all_right():
    (image, text), caption_id = pairs(), torch.tensor([0, 1, 0, 2, 3, 0])
    positives = caption_id[:, None] == caption_id
    found = matched_info_nce(image, text, SCALE, torch.ones(6, dtype=torch.bool), caption_id)
    close(found, info_nce(image, text, SCALE, positives))


def test_wrong_pairs_ask_nothing_and_are_wrong_answers():
    (image, text), matched = pairs(), torch.tensor([True, False, True, True, False, True])
    image.requires_grad_()
    logits = SCALE * image @ text.T
    own = torch.arange(6)
    expected = 0.5 * sum(
        torch.nn.functional.cross_entropy(scores[matched], own[matched]) for scores in (logits, logits.T)
    )
    found = matched_info_nce(image, text, SCALE, matched)
    close(found, expected)
    found.backward()
    assert image.grad[1].abs().sum() > 0  # as a wrong answer


def test_a_image_of_a_wrong_pair_fits_no_text():
    """Text 1 stands beside a wrong picture and is that of picture 0: picture 1 does not fit text 0."""
    (image, text), matched = pairs(), torch.tensor([True, False, True, True, True, True])
    caption_id = torch.tensor([0, 0, 2, 3, 4, 5])
    close(
        matched_info_nce(image, text, SCALE, matched, caption_id) - matched_info_nce(image, text, SCALE, matched),
        (SCALE * image @ text.T).log_softmax(1)[0, :2] @ torch.tensor([0.5, -0.5]) / 10,
    )


def test_nothing_known_costs_ln_b():
    same = torch.ones(8, 3)
    close(matched_info_nce(same, same, SCALE, torch.rand(8) < 0.5), torch.tensor(math.log(8)))
    with pytest.raises(ValueError, match="at least one pair"):
        matched_info_nce(torch.ones(0, 3), torch.ones(0, 3), SCALE, torch.ones(0, dtype=torch.bool))
