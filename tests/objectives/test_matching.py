"""A negative never fits, hard ones follow the softmax of their similarity, and matching is a yes/no question."""

import math

import pytest
import torch
from testing_tools import close, refused, seeded

from mmlearn.objectives import hard_negatives, image_text_matching, random_negatives, same_caption

N = 20000


def assert_shares(drawn, expected):
    """Each column as often as expected, within four standard deviations; one without a chance never."""
    for j, p in enumerate(expected):
        assert abs((drawn == j).sum().item() - p * len(drawn)) <= 4 * math.sqrt(p * (1 - p) * len(drawn)), j


def softmax_without(similarity, positives):
    weights = [0 if fits else math.exp(s) for s, fits in zip(similarity, positives)]
    return [w / sum(weights) for w in weights]


# Matching.


def test_matching_equals_loops():
    logits = torch.randn(9, 2, generator=seeded(), dtype=torch.float64)
    label = torch.tensor([0, 1, 1, 0, 1, 0, 0, 1, 1])
    terms = [math.log(1 + math.exp(z[1 - y] - z[y])) for z, y in zip(logits.tolist(), label.tolist())]
    close(image_text_matching(logits, label).item(), sum(terms) / 9, 1e-14)


def test_index_one_says_that_they_match():
    logits = torch.tensor([[-20.0, 20.0]])
    assert image_text_matching(logits, torch.tensor([1])) < 1e-6
    assert image_text_matching(logits, torch.tensor([0])) > 30
    close(image_text_matching(torch.zeros(3, 2), torch.tensor([0, 1, 1])).item(), math.log(2))


def test_matching_needs_a_pair():
    refused("at least one", image_text_matching, torch.zeros(0, 2), torch.zeros(0, dtype=torch.long))


# Random negatives.


@pytest.mark.parametrize("seed", range(20))
def test_a_random_negative_has_another_caption(seed):
    caption_id = torch.randint(4, (12,), generator=seeded(seed))
    drawn = random_negatives(caption_id, seeded(seed))
    assert drawn.shape == (12,)
    assert drawn.dtype == torch.int64
    assert (caption_id[drawn] != caption_id).all()


def test_random_negatives_are_equally_likely():
    caption_id = torch.tensor([7, 3, 7, 1, 9])
    generator = seeded()
    drawn = torch.stack([random_negatives(caption_id, generator) for _ in range(4000)])
    assert_shares(drawn[:, 0], [0, 1 / 3, 0, 1 / 3, 1 / 3])
    assert_shares(drawn[:, 3], [1 / 4, 1 / 4, 1 / 4, 0, 1 / 4])


@pytest.mark.parametrize("ids", [[], [5], [5, 5, 5]])
def test_random_negatives_need_two_captions(ids):
    with pytest.raises(ValueError, match=rf"batch of {len(ids)} .*no negative exists"):
        random_negatives(torch.tensor(ids, dtype=torch.long), seeded())


# Hard negatives.


@pytest.mark.parametrize("seed", range(3))
def test_hard_negatives_follow_the_softmax_of_their_similarity(seed):
    similarity = 2 * torch.randn(6, generator=seeded(seed))
    positives = torch.tensor([False, True, False, False, True, False])
    drawn = hard_negatives(similarity.expand(N, 6), positives.expand(N, 6), seeded(seed))
    expected = softmax_without(similarity.tolist(), positives.tolist())
    assert_shares(drawn, expected)
    assert max(expected) > 0.4  # so uniform draws would fail


@pytest.mark.parametrize("seed", range(20))
def test_a_hard_negative_never_fits(seed):
    caption_id = torch.randint(4, (12,), generator=seeded(seed))
    positives = same_caption(caption_id)
    similarity = torch.where(positives, 50.0, torch.randn(12, 12, generator=seeded(seed)))
    drawn = hard_negatives(similarity, positives, seeded(seed))
    assert not positives[torch.arange(12), drawn].any()


def test_the_diagonal_has_no_chance_among_more_candidates_than_rows():
    positives = torch.eye(3, 8, dtype=torch.bool)
    generator = seeded()
    drawn = torch.stack([hard_negatives(torch.zeros(3, 8), positives, generator) for _ in range(3000)])
    for row in range(3):
        assert_shares(drawn[:, row], [0 if j == row else 1 / 7 for j in range(8)])


def test_similarities_may_be_extreme():
    positives = torch.eye(3, dtype=torch.bool)
    for scale in (1e4, 1e30):
        similarity = scale * (2 * positives.float() - 1) - scale * torch.tensor([0.0, 0.0, 1.0])
        assert hard_negatives(similarity, positives, seeded()).tolist() == [1, 0, hard_negatives_of_last(similarity)]
    half = torch.tensor([[300.0, -300.0, 300.0]], dtype=torch.float16)
    assert hard_negatives(half, torch.tensor([[True, False, False]]), seeded()).item() == 2


def hard_negatives_of_last(similarity):
    """The last row's two candidates are alike, so either may come."""
    return hard_negatives(similarity, torch.eye(3, dtype=torch.bool), seeded())[2].item()


def test_a_generator_pins_the_negatives():
    similarity, positives = torch.randn(50, 50, generator=seeded()), torch.eye(50, dtype=torch.bool)
    before = torch.get_rng_state()
    first, again, other = (hard_negatives(similarity, positives, seeded(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    first, again, other = (random_negatives(torch.arange(50), seeded(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("b", [0, 1, 3])
def test_hard_negatives_need_a_candidate_that_does_not_fit(b):
    positives = torch.zeros(b, b, dtype=torch.bool)
    positives[b // 2 :] = True  # one row is enough
    refused(rf"batch of {b} .*no negative exists", hard_negatives, torch.zeros(b, b), positives, seeded())


def test_no_gradient_reaches_the_similarity():
    similarity = torch.randn(4, 4, generator=seeded(), requires_grad=True)
    assert not hard_negatives(similarity, torch.eye(4, dtype=torch.bool), seeded()).requires_grad


@pytest.mark.parametrize("label", [2, -1, -100])
def test_matching_is_yes_or_no(label):
    with pytest.raises(ValueError, match="match_label is 1 where text and picture belong together and 0"):
        image_text_matching(torch.randn(3, 2), torch.tensor([0, label, 1]))


def test_similarities_that_are_no_numbers_are_refused():
    similarity = torch.randn(3, 3)
    similarity[1, 2] = torch.nan
    refused("Similarities hold NaN", hard_negatives, similarity, torch.eye(3, dtype=torch.bool), seeded())
