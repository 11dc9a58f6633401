"""What one vector for each modality teaches, against loops over rows and numbers worked by hand."""

import math

import pytest
import torch
import torch.nn.functional as F
from testing_tools import close, refused, seeded

from mmlearn.objectives import (
    cue_reconstruction,
    destroy_numbers,
    keep_modalities,
    pair_similarity,
    similarity_of_pairs,
)


def test_modalities_kept_as_a_loop_keeps_them():
    mask = torch.rand(200, 3, generator=seeded()) < 0.7
    chance = torch.rand(200, 3, generator=seeded(1))
    for probability in (0.0, 0.3, 0.8, 1.0):
        kept = keep_modalities(mask, chance, probability)
        for row, real, drawn in zip(kept.tolist(), mask.tolist(), chance.tolist()):
            last = max((c for c, there in zip(drawn, real) if there), default=None)
            assert row == [there and (c >= probability or c == last) for c, there in zip(drawn, real)]
    assert torch.equal(keep_modalities(mask, chance, 0.0), mask)
    assert torch.equal(keep_modalities(mask, chance, 1.0).sum(1), mask.any(1).long())


def test_of_two_modalities_both_stay_as_often_as_the_equation_says():
    both = torch.ones(20_000, 2, dtype=torch.bool)
    kept = keep_modalities(both, torch.rand(20_000, 2, generator=seeded()), 0.42)
    assert kept.all(1).float().mean().item() == pytest.approx(0.58**2, abs=0.01)
    assert kept.float().mean(0).tolist() == pytest.approx([1 / 3 + 1 / 3] * 2, abs=0.015)
    assert kept.any(1).all()


def test_numbers_destroyed_are_as_many_as_asked_and_others_stay():
    x, chance = torch.randn(50, 16, generator=seeded()), torch.rand(50, 16, generator=seeded(1))
    for share, count in ((0.0, 0), (0.25, 4), (0.5, 8), (1.0, 16)):
        spoilt = destroy_numbers(x, chance, share)
        assert ((spoilt == 0).sum(1) == count).all()
        assert torch.equal(spoilt[spoilt != 0], x[spoilt != 0])
        for row, drawn in zip(spoilt, chance):
            assert torch.equal((row == 0).nonzero()[:, 0], drawn.argsort()[:count].sort().values)


def test_reconstruction_is_the_mean_over_what_was_there():
    cues, back = torch.randn(6, 2, 5, generator=seeded()), torch.randn(6, 2, 5, generator=seeded(1))
    mask = torch.tensor([[1, 1], [1, 0], [0, 1], [1, 1], [0, 0], [1, 0]]).bool()
    errors = [(back[i, j, k] - cues[i, j, k]).item() ** 2 for i, j in mask.nonzero().tolist() for k in range(5)]
    expected = torch.tensor(sum(errors) / len(errors))
    close(cue_reconstruction(back, cues, mask), expected)
    close(cue_reconstruction(back, cues.masked_fill(~mask[..., None], torch.nan), mask), expected)
    assert cue_reconstruction(back, cues, mask & False) == 0


def test_similarity_is_a_cosine_from_0_to_1():
    text, image = torch.randn(30, 7, generator=seeded()), torch.randn(30, 7, generator=seeded(1))
    similarity = pair_similarity(text, image)
    lengths = text.norm(dim=1) * image.norm(dim=1)
    close(similarity, ((text * image).sum(1) + lengths) / (2 * lengths))
    close(pair_similarity(5 * text, 0.1 * image), similarity)
    close(pair_similarity(text, text), torch.ones(30))
    close(pair_similarity(text, -text), torch.zeros(30))
    close(pair_similarity(text, 0 * text), torch.full((30,), 0.5))
    assert pair_similarity(text.bfloat16(), image.bfloat16()).dtype == torch.float32


def test_false_pairs_should_not_be_similar():
    similarity, true = torch.tensor([0.9, 0.2, 0.6]), torch.tensor([1, 0, 0])
    expected = -(math.log(0.9) + math.log(0.8) + math.log(0.4)) / 3
    close(similarity_of_pairs(similarity, true), torch.tensor(expected))
    close(similarity_of_pairs(similarity, true), F.binary_cross_entropy(similarity, true.float()))
    sure = similarity_of_pairs(torch.tensor([0.0, 1.0]), torch.tensor([1, 0]))
    assert sure.item() == pytest.approx(6 * math.log(10), rel=0.02)
    assert similarity_of_pairs(torch.tensor([1.0]).bfloat16(), torch.tensor([0])).isfinite()


def test_probabilities_are_probabilities(unchecked):
    mask, chance = torch.ones(2, 2, dtype=torch.bool), torch.rand(2, 2)
    for wrong in (-0.1, 1.5):
        refused("from 0 to 1, got", keep_modalities, mask, chance, wrong)
        refused("from 0 to 1, got", destroy_numbers, chance, chance, wrong)
