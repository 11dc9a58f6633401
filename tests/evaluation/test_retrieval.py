"""Ranks and recall against counting by hand: every order that ties allow, averaged."""

import statistics
from itertools import pairwise, permutations
from math import inf, nan
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from mmlearn.evaluation import Embeddings, belongs, embed, first_seen, median_rank, recall_at, retrieval, similarity
from mmlearn.evaluation.retrieval import ranks


def orders(scores, right):
    """The rank of the first right item in every order of the items that puts no lower score first."""
    return [
        next(rank for rank, item in enumerate(order, 1) if right[item])
        for order in permutations(range(len(scores)))
        if all(scores[one] >= scores[other] for one, other in pairwise(order))
    ]


def by_hand(scores, positives):
    """Expected rank of each query, and its chance to be among the first k for every k from 1."""
    found = [orders(row, right) for row, right in zip(scores.tolist(), positives.tolist())]
    means = [statistics.mean(ranks) for ranks in found]
    recalls = [
        statistics.mean(sum(rank <= k for rank in ranks) / len(ranks) for ranks in found)
        for k in range(1, scores.shape[1] + 3)
    ]
    return means, recalls


def random_case(generator, levels):
    queries, items = 5, 6
    scores = torch.randint(0, levels, (queries, items), generator=generator).float()
    positives = torch.rand(queries, items, generator=generator) < 0.35
    positives[torch.arange(queries), torch.randint(0, items, (queries,), generator=generator)] = True
    return scores, positives


@pytest.mark.parametrize("levels", [1, 2, 3, 100])
def test_ties_count_as_broken_at_random(levels):
    generator = torch.Generator().manual_seed(levels)
    for _ in range(8):
        scores, positives = random_case(generator, levels)
        means, recalls = by_hand(scores, positives)
        assert median_rank(scores, positives) == pytest.approx(statistics.median(means), abs=1e-5)
        for k, expected in enumerate(recalls, 1):
            assert recall_at(k, scores, positives) == pytest.approx(expected, abs=1e-5)


def test_without_positives_the_pairs_are_the_diagonal():
    generator = torch.Generator().manual_seed(0)
    for queries, items in ((6, 6), (4, 6)):
        scores = torch.randint(0, 3, (queries, items), generator=generator).float()
        means, recalls = by_hand(scores, torch.eye(queries, items) > 0)
        assert median_rank(scores) == pytest.approx(statistics.median(means), abs=1e-5)
        assert [recall_at(k, scores) for k in range(1, 9)] == pytest.approx(recalls[:8], abs=1e-5)


def test_a_model_that_always_says_the_same_gets_chance():
    same = torch.full((100, 100), 0.5)
    assert recall_at(1, same) == pytest.approx(0.01, abs=1e-6)
    assert recall_at(10, same) == pytest.approx(0.1, abs=1e-6)
    assert median_rank(same) == pytest.approx(50.5, abs=1e-4)


def test_without_ties_ranks_are_those_of_a_sort():
    scores = torch.rand(200, 300, generator=torch.Generator().manual_seed(1))
    place = scores.argsort(1, descending=True).argsort(1)[torch.arange(200), torch.arange(200)]
    better, wrong, right = ranks(scores)
    assert torch.equal(better, place.float())
    assert wrong.sum() == 0
    assert (right == 1).all()
    assert recall_at(7, scores) == pytest.approx(float((place < 7).float().mean()))
    assert median_rank(scores) == pytest.approx(statistics.median((place + 1).tolist()))


def test_one_of_several_captions_is_enough():
    scores = torch.tensor([[0.1, 0.9, 0.5, 0.2], [0.4, 0.3, 0.2, 0.1]])
    positives = torch.tensor([[True, True, False, False], [False, False, True, True]])
    assert recall_at(1, scores, positives) == 0.5
    assert recall_at(2, scores, positives) == 0.5
    assert recall_at(3, scores, positives) == 1
    assert median_rank(scores, positives) == 2  # of ranks 1 and 3


def test_both_directions_and_their_mean():
    generator = torch.Generator().manual_seed(3)
    scores, positives = torch.rand(5, 6, generator=generator), torch.zeros(5, 6, dtype=torch.bool)
    positives[[0, 1, 2, 3, 4, 4], range(6)] = True  # picture 4 has two captions
    got = retrieval(scores, positives=positives, ks=(1, 3))
    for name, matrix, right in (("image_to_text", scores, positives), ("text_to_image", scores.T, positives.T)):
        means, recalls = by_hand(matrix, right)
        assert got[f"{name}_R@1"] == pytest.approx(recalls[0], abs=1e-6)
        assert got[f"{name}_R@3"] == pytest.approx(recalls[2], abs=1e-6)
        assert got[f"{name}_median_rank"] == pytest.approx(statistics.median(means), abs=1e-5)
    for k in (1, 3):
        assert got[f"R@{k}"] == pytest.approx((got[f"image_to_text_R@{k}"] + got[f"text_to_image_R@{k}"]) / 2)
    other = retrieval(scores, -scores.T, positives, ks=(1, 3))  # late interaction has two matrices
    assert {name: other[name] == got[name] for name in got if "to" in name} == {
        name: name.startswith("image") for name in got if "to" in name
    }


@pytest.mark.parametrize("wrong", [nan, inf, -inf])
def test_what_is_not_finite_is_refused(wrong):
    scores = torch.zeros(3, 3)
    scores[1, 2] = wrong
    with pytest.raises(ValueError, match=r"not finite.*NaN in the embeddings"):
        recall_at(1, scores)
    with pytest.raises(ValueError, match="not finite"):
        retrieval(scores)


def test_a_query_without_a_right_item_is_refused():
    with pytest.raises(ValueError, match="at least one right item"):
        recall_at(1, torch.zeros(2, 2), torch.tensor([[True, False], [False, False]]))
    with pytest.raises(ValueError, match="at least one right item"):
        median_rank(torch.zeros(3, 2))


# From samples to similarities.


class Recorder(nn.Module):
    """Embeds a picture as its mean by channel and a text as its first token, and notes in what mode it was."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.modes, self.sizes = [], []

    def encode_image(self, image):
        self.modes.append((self.training, torch.is_grad_enabled()))
        self.sizes.append(len(image))
        return image.mean((2, 3))

    def encode_text(self, tokens, mask):
        return torch.stack([tokens[:, 0].float(), mask.sum(1).float(), torch.zeros(len(tokens))], 1)


def collate(samples):
    tokens = torch.tensor([[ord(sample.caption[0]), 0, 0, 0] for sample in samples])
    mask = torch.arange(4) < torch.tensor([len(sample.caption) for sample in samples])[:, None]
    return {"image": torch.stack([sample.image for sample in samples]), "tokens": tokens, "mask": mask}


@pytest.mark.parametrize("batch_size", [1, 2, 3, 100])
@pytest.mark.parametrize("training", [True, False])
def test_embed_takes_each_caption_once(batch_size, training):
    captions = ["a", "bb", "a", "c", "bb", "a", "dd"]
    samples = [SimpleNamespace(image=torch.full((3, 2, 2), float(i)), caption=c) for i, c in enumerate(captions)]
    system = Recorder().train(training)
    got = embed(system, samples, collate, batch_size=batch_size)
    assert got.captions == ["a", "bb", "c", "dd"]
    assert torch.equal(got.image, torch.arange(7.0)[:, None].expand(7, 3))
    assert got.text[:, 0].tolist() == [ord(letter) for letter in "abcd"]
    assert got.text[:, 1].tolist() == [1, 2, 1, 2]
    assert got.text_mask.sum(1).tolist() == [1, 2, 1, 2]
    assert got.positives.tolist() == [[caption == other for other in got.captions] for caption in captions]
    assert set(system.modes) == {(False, False)}
    assert sum(system.sizes) == 7
    assert max(system.sizes) == min(batch_size, 7)
    assert system.training is training


@pytest.mark.parametrize("batch_size", [1, 2, 3, 100])
def test_embed_takes_each_picture_once(batch_size):
    """As in COCO, where a picture has about five captions: none of them is wrong, and no copy competes with it."""
    shown, captions = [3, 1, 3, 3, 0, 1], ["a", "bb", "c", "a", "bb", "dd"]
    samples = [SimpleNamespace(image=torch.full((3, 2, 2), float(i)), caption=c) for i, c in zip(shown, captions)]
    system = Recorder()
    got = embed(system, samples, collate, batch_size=batch_size)
    assert got.image[:, 0].tolist() == [3, 1, 0]
    assert got.first == [0, 1, 4]
    assert sum(system.sizes) == 3
    pairs = set(zip(shown, captions))
    assert got.positives.tolist() == [[(i, caption) in pairs for caption in got.captions] for i in (3, 1, 0)]
    assert (
        recall_at(1, got.positives.float(), got.positives)
        == recall_at(1, got.positives.T.float(), got.positives.T)
        == 1
    )


def test_first_seen_and_belongs():
    assert first_seen("abcab") == ([0, 1, 2, 0, 1], [0, 1, 2])
    assert first_seen([]) == ([], [])
    assert belongs([0, 1, 0], [2, 0, 1]).tolist() == [[False, True, True], [True, False, False]]


def test_similarity_of_single_vectors_is_the_cosine():
    image, text = torch.randn(3, 4), torch.randn(5, 4)
    got = similarity(
        Embeddings(image, text, torch.ones(5, 2, dtype=torch.bool), torch.ones(3, 5) > 0, list("abcde"), [0, 1, 2])
    )
    expected = torch.tensor([[sum(a * b for a, b in zip(u, v)) for v in text.tolist()] for u in image.tolist()])
    torch.testing.assert_close(got[0], expected)
    assert torch.equal(got[1], got[0].T)


def test_similarity_of_a_vector_a_token_is_late_interaction():
    n, m, p, t, d = 70, 4, 3, 5, 6  # more pictures than one chunk holds
    generator = torch.Generator().manual_seed(0)
    image, text = torch.randn(n, p, d, generator=generator), torch.randn(m, t, d, generator=generator)
    mask = torch.arange(t) < torch.tensor([5, 1, 3, 2])[:, None]
    got = similarity(Embeddings(image, text, mask, torch.ones(n, m) > 0, list("abcd"), list(range(n))))
    for i in (0, 63, 64, 69):
        for j in range(m):
            table = image[i] @ text[j, mask[j]].T  # (p, real tokens)
            assert got[0][i, j] == pytest.approx(float(table.amax(1).mean()), abs=1e-5)
            assert got[1][j, i] == pytest.approx(float(table.amax(0).mean()), abs=1e-5)
