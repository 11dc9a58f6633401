"""Re-ranking: against sorting by hand, equal to full scoring where all are taken, ties broken by nothing but chance."""

from math import inf, nan

import pytest
import torch
from testing_tools import close, seeded

from mmlearn.evaluation import median_rank, recall_at
from mmlearn.evaluation.reranking import rerank, rerank_both_ways
from mmlearn.evaluation.retrieval import ranks


def scores(queries=7, items=9, levels=1000, seed=0):
    one, other = (torch.randint(0, levels, (queries, items), generator=seeded(seed + i)).float() for i in (0, 50))
    return one / 10 - 5, other / 7 - 40


def look_up(table, calls=None):
    def match(query, item):
        if calls is not None:
            calls.append((query.tolist(), item.tolist()))
        return table[query, item]

    return match


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("k", [1, 2, 5, 8, 9])
def test_the_first_k_are_sorted_again_and_the_rest_follow(k, seed):
    similarity, match = scores(seed=seed)
    similarity += torch.rand(similarity.shape, generator=seeded(9)) / 100  # no ties
    match += torch.rand(match.shape, generator=seeded(8)) / 100
    got = rerank(similarity, look_up(match), k, generator=seeded())
    assert got.isfinite().all()
    for row, before, after in zip(got.tolist(), similarity.tolist(), match.tolist()):
        old = sorted(range(9), key=lambda i: -before[i])
        expected = sorted(old[:k], key=lambda i: -after[i]) + old[k:]
        assert sorted(range(9), key=lambda i: -row[i]) == expected


@pytest.mark.parametrize("levels", [2, 4, 1000])
@pytest.mark.parametrize("k", [9, 10, 500])
def test_with_all_items_it_is_full_scoring(levels, k):
    """Also where scores are equal, and whatever the similarity says."""
    similarity, match = scores(levels=levels)
    positives = torch.rand(7, 9, generator=seeded(3)) < 0.3
    positives[:, 4] = True
    got = rerank(similarity, look_up(match), k, generator=seeded())
    for one, other in zip(ranks(got, positives), ranks(match, positives)):
        assert torch.equal(one, other)
    assert torch.equal(got[:, :, None] > got[:, None], match[:, :, None] > match[:, None])
    assert torch.equal(got[:, :, None] == got[:, None], match[:, :, None] == match[:, None])


@pytest.mark.parametrize("batch_size", [1, 4, 10_000])
def test_each_chosen_pair_is_scored_once(batch_size):
    similarity, match = scores()
    calls = []
    got = rerank(similarity, look_up(match, calls), 3, generator=seeded(), batch_size=batch_size)
    pairs = [pair for query, item in calls for pair in zip(query, item)]
    assert len(pairs) == len(set(pairs)) == 7 * 3
    assert max(len(query) for query, _ in calls) == min(batch_size, 21)
    for query in range(7):
        mine = {item for one, item in pairs if one == query}
        assert min(similarity[query, list(mine)]) >= max(similarity[query, [i for i in range(9) if i not in mine]])
    assert torch.equal(got, rerank(similarity, look_up(match), 3, generator=seeded()))


def test_no_gradient_is_kept():
    similarity, match = scores()
    match.requires_grad_()
    modes = []

    def score(query, item):
        modes.append(torch.is_grad_enabled())
        return match[query, item]

    assert not rerank(similarity, score, 3, generator=seeded()).requires_grad
    assert modes == [False]


def test_ties_stay_ties():
    """Equal scores among the k, and equal similarities among the rest, are equal afterwards."""
    similarity = torch.tensor([[5.0, 4, 3, 1, 1, 0]])
    match = torch.tensor([[2.0, 7, 2, 9, 9, 9]])
    got = rerank(similarity, look_up(match), 3, generator=seeded())[0]
    assert got[1] > got[0] == got[2] > got[3] == got[4] > got[5]


def test_a_dual_encoder_that_always_says_the_same_proposes_at_random():
    """With a perfect match function, the right one of 10 is found where it is among the 3 drawn."""
    n = 10
    match = torch.eye(n).repeat(200, 1)
    positives = match > 0
    got = rerank(torch.zeros(200 * n, n), look_up(match), 3, generator=seeded())
    assert recall_at(1, got, positives) == pytest.approx(0.3, abs=0.04)  # 4 standard errors
    best = got.argmax(1)
    assert recall_at(1, rerank(match, look_up(match), 1, generator=seeded()), positives) == 1
    other = rerank(torch.zeros(200 * n, n), look_up(match), 3, generator=seeded(1))
    assert not torch.equal(best, other.argmax(1))
    order = rerank(torch.zeros(200 * n, n), lambda query, item: -item.float(), 3, generator=seeded()).argmax(1)
    share = torch.bincount(order, minlength=n) / len(order)  # the lowest number among 3 of 10
    expected = torch.tensor([(9 - i) * (8 - i) / 240 for i in range(n)])
    assert (share - expected).abs().max() < 0.05


def test_only_the_tied_items_at_the_border_are_drawn():
    similarity = torch.tensor([[9.0, 5, 5, 5, 1]]).repeat(300, 1)
    calls = []
    rerank(similarity, look_up(torch.zeros(300, 5), calls), 3, generator=seeded())
    items = torch.tensor([item for _, part in calls for item in part]).view(300, 3)
    assert (items == 0).any(1).all()
    assert not (items == 4).any()
    for item in (1, 2, 3):
        assert (items == item).any(1).float().mean() == pytest.approx(2 / 3, abs=0.11)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_other_precisions(dtype):
    similarity, match = scores()
    got = rerank(similarity.to(dtype), look_up(match.to(dtype)), 9, generator=seeded())
    assert got.dtype == torch.float32
    match = match.to(dtype)
    assert torch.equal(got[:, :, None] > got[:, None], match[:, :, None] > match[:, None])


# Both directions.


@pytest.mark.parametrize("k", [1, 3, 9])
def test_both_directions_draw_from_one_generator(k):
    similarity, match = scores(8, 9)
    images, texts = rerank_both_ways(similarity, -similarity.T, look_up(match), k, generator=seeded())
    order = seeded()
    assert torch.equal(images, rerank(similarity, look_up(match), k, generator=order))
    assert torch.equal(texts, rerank(-similarity.T, look_up(match.T), k, generator=order))


def test_a_better_second_look_helps_and_the_limit_is_what_was_proposed():
    n, noise = 60, seeded(5)
    truth = torch.eye(n)
    similarity = truth + 0.8 * torch.randn(n, n, generator=noise)
    match = truth + 0.05 * torch.randn(n, n, generator=noise)
    before = recall_at(1, similarity)
    for k in (1, 4, 16):
        after = recall_at(1, rerank(similarity, look_up(match), k, generator=seeded()))
        assert after == pytest.approx(recall_at(k, similarity))  # the match function is perfect
    assert after > before + 0.3
    assert median_rank(rerank(similarity, look_up(match), n, generator=seeded())) == 1
    close(torch.tensor(recall_at(1, match)), torch.tensor(1.0))


# What is wrong is told.


@pytest.mark.usefixtures("unchecked")
def test_what_cannot_be_ranked():
    similarity, match = scores()

    def refused(says, similarity=similarity, match=match, k=3):
        match = match if callable(match) else look_up(match)
        with pytest.raises(ValueError, match=says) as error:
            rerank(similarity, match, k, generator=seeded())
        assert "\n" not in str(error.value)

    for k in (0, -1):
        refused(f"scored again; got k = {k} of 7 × 9", k=k)
    for shape in ((0, 9), (7, 0)):
        refused(f"got k = 3 of {shape[0]} × {shape[1]}", similarity=torch.zeros(shape))
    for wrong in (nan, inf, -inf):
        broken = similarity.clone()
        broken[2, 3] = wrong
        refused("A similarity is not finite", similarity=broken)
        refused("A score of match is not finite", match=match.new_full((7, 9), wrong))
    refused(
        r"one score for each of 21 pairs, \(21,\); got \(21, 2\)", match=lambda query, item: torch.zeros(len(query), 2)
    )
    refused(r"got \(1,\)", match=lambda query, item: torch.zeros(1))
    refused(r"got \(\)", match=lambda query, item: torch.tensor(0.5))
