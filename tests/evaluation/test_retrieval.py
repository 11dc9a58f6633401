"""Ranks and recall against counting by hand: every order that ties allow, averaged."""

import statistics
from inspect import signature
from itertools import pairwise, permutations
from math import inf, nan
from types import SimpleNamespace

import pytest
import torch
from testing_tools import refused
from torch import nn
from torch.nn.utils.rnn import pad_sequence

from mmlearn.evaluation import (
    Embeddings,
    embed,
    matching_items,
    median_rank,
    recall_at,
    retrieval,
    similarity,
    unique_ids,
)
from mmlearn.evaluation.measures import encode_modality
from mmlearn.evaluation.retrieval import embed_each, ranks, similarity_both_ways


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
    position = scores.argsort(1, descending=True).argsort(1)[torch.arange(200), torch.arange(200)]
    better, wrong, right = ranks(scores)
    assert torch.equal(better, position.float())
    assert wrong.sum() == 0
    assert (right == 1).all()
    assert recall_at(7, scores) == pytest.approx(float((position < 7).float().mean()))
    assert median_rank(scores) == pytest.approx(statistics.median((position + 1).tolist()))


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
    refused(r"not finite.*NaN in the embeddings", recall_at, 1, scores)
    refused("not finite", retrieval, scores)


def test_a_query_without_a_right_item_is_refused():
    refused("at least one right item", recall_at, 1, torch.zeros(2, 2), torch.tensor([[True, False], [False, False]]))
    refused("at least one right item", median_rank, torch.zeros(3, 2))


# From samples to similarities.


class Recorder(nn.Module):
    """Embeds a picture as its mean by channel and a text as its tokens, and notes in what mode it was."""

    def __init__(self, single):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.single, self.calls = single, []

    def encode_image(self, image):
        self.calls.append((len(image), self.training, torch.is_grad_enabled()))
        return image.mean((2, 3)) if self.single else image.mean((2, 3))[:, None].expand(-1, 2, -1)

    def encode_text(self, tokens, mask):
        letters = (tokens * mask)[..., None].float().expand(-1, -1, 3)
        return letters.sum(1) if self.single else letters

    def encode_audio(self, waveform):
        return waveform.mean(1, keepdim=True)


def collate(samples):
    """Texts are as long as the longest of the batch."""
    letters = [torch.tensor([*map(ord, sample.caption)]) for sample in samples]
    tokens = pad_sequence(letters, batch_first=True, padding_value=9)
    batch = {"image": torch.stack([sample.image for sample in samples]), "tokens": tokens, "mask": tokens != 9}
    return batch | {"waveform": torch.stack([sample.waveform for sample in samples])}


class Running:
    """A run, as far as embedding needs one."""

    def __init__(self, system):
        self.system = system

    def batches(self, samples, size):
        self.system.eval()
        with torch.no_grad():
            yield from (collate(samples[start : start + size]) for start in range(0, len(samples), size))

    def call(self, method, batch):
        return method(**{name: batch[name] for name in signature(method).parameters})


SHOWN, CAPTIONS, HEARD = [3, 1, 3, 3, 0, 1, 2], ["a", "bb", "cde", "a", "bb", "d", "a"], [5, 5, 6, 7, 8, 8, 5]


def samples():
    """As in COCO, a picture may have several captions; and a caption several pictures."""
    return [
        SimpleNamespace(image=torch.full((3, 2, 2), float(i)), caption=caption, waveform=torch.full((8,), float(sound)))
        for i, caption, sound in zip(SHOWN, CAPTIONS, HEARD)
    ]


@pytest.mark.parametrize("batch_size", [1, 2, 3, 100])
@pytest.mark.parametrize("single", [True, False])
def test_each_image_text_and_sound_is_embedded_once(batch_size, single):
    """With one vector each or one a token, and then what is behind a shorter text is no token."""
    system = Recorder(single).train()
    run, options = Running(system), {"batch_size": batch_size}
    got = embed(system, samples(), collate, **options)
    assert system.training
    image, text, audio = (
        embed_each(run, samples(), name, encode_modality, **options) for name in ("image", "text", "audio")
    )
    for one in (got.image, image.embedding):
        assert one[..., 0].reshape(4, -1)[:, -1].tolist() == [3, 1, 0, 2]
    for one, mask in ((got.text, got.text_mask), (text.embedding, text.mask)):
        assert mask.tolist() == [[True, False, False], [True, True, False], [True] * 3, [True, False, False]]
        letters = [[ord(letter) for letter in word] for word in ("a", "bb", "cde", "d")]
        if single:
            assert one[:, 0].tolist() == [sum(word) for word in letters]
        else:
            assert [row[real].tolist() for row, real in zip(one[..., 0], mask)] == letters
    assert audio.embedding[:, 0].tolist() == [5, 6, 7, 8]
    assert image.mask is audio.mask is None
    assert got.captions == ["a", "bb", "cde", "d"]
    assert got.first == image.first == [0, 1, 4, 6]
    assert (text.first, audio.first) == ([0, 1, 2, 5], [0, 2, 3, 4])
    assert (image.number, text.number) == ([0, 1, 0, 0, 2, 1, 3], [0, 1, 2, 0, 1, 3, 0])
    pairs = set(zip(SHOWN, CAPTIONS))
    expected = [[(i, caption) in pairs for caption in ("a", "bb", "cde", "d")] for i in (3, 1, 0, 2)]
    assert got.positives.tolist() == matching_items(image.number, text.number).tolist() == expected
    assert {call[1:] for call in system.calls} == {(False, False)}
    assert sum(call[0] for call in system.calls) == 8
    assert max(call[0] for call in system.calls) == min(batch_size, 4)


def test_first_seen_and_belongs():
    assert unique_ids("abcab") == ([0, 1, 2, 0, 1], [0, 1, 2])
    assert unique_ids([]) == ([], [])
    assert matching_items([0, 1, 0], [2, 0, 1]).tolist() == [[False, True, True], [True, False, False]]


def test_similarity_of_single_vectors_is_the_cosine():
    image, text = torch.randn(3, 4), torch.randn(5, 4)
    got = similarity_both_ways(image, text, None)
    expected = torch.tensor([[sum(a * b for a, b in zip(u, v)) for v in text.tolist()] for u in image.tolist()])
    torch.testing.assert_close(got[0], expected)
    assert torch.equal(got[1], got[0].T)


@pytest.mark.parametrize("masked", [True, False])
def test_similarity_of_a_vector_a_token_is_late_interaction(masked):
    n, m, p, t, d = 70, 4, 3, 5, 6  # more pictures than one chunk holds
    image, text = torch.randn(n, p, d), torch.randn(m, t, d)
    mask = torch.arange(t) < torch.tensor([5, 1, 3, 2] if masked else [5] * 4)[:, None]
    got = similarity_both_ways(image, text, mask if masked else None)
    for i in (0, 63, 64, 69):
        for j in range(m):
            table = image[i] @ text[j, mask[j]].T  # (p, real tokens)
            assert got[0][i, j] == pytest.approx(float(table.amax(1).mean()), abs=1e-5)
            assert got[1][j, i] == pytest.approx(float(table.amax(0).mean()), abs=1e-5)
    embeddings = Embeddings(image, text, mask, torch.ones(n, m) > 0, list("abcd"), list(range(n)))
    for one, other in zip(similarity(embeddings), got):
        assert torch.equal(one, other)


def test_of_several_vectors_of_a_image_the_best_counts():
    """As with BLIP-2's queries, beside one vector of each text."""
    queries, texts = torch.randn(70, 3, 5), torch.randn(4, 5)
    there, back = similarity_both_ways(queries, texts, None)
    assert torch.equal(there, back.T)
    for i in (0, 69):
        for j in range(4):
            torch.testing.assert_close(there[i, j], max(query @ texts[j] for query in queries[i]))
