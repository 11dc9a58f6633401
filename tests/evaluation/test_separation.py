"""SI-SDR: what does not change it, what its ends are, and ideal masks beside a mixture."""

import math

import pytest
import torch
from testing_tools import close, refused

from mmlearn.evaluation import ideal_estimates, separation_scores, si_sdr, si_sdr_improvement
from mmlearn.objectives import binary_masks, ratio_masks


def tones(*frequencies, samples=16_000):
    time = torch.arange(samples) / 16_000
    return torch.stack([0.3 * torch.sin(2 * torch.pi * f * time) for f in frequencies])


def test_known_noise_has_its_known_score():
    """Noise at right angles to a sound, of a tenth of its length: 20 dB."""
    reference, noise = tones(400, 1000)
    assert si_sdr(reference + 0.1 * noise, reference).item() == pytest.approx(20, abs=1e-3)
    assert si_sdr(reference + 10 * noise, reference).item() == pytest.approx(-20, abs=1e-3)
    assert si_sdr(reference + noise, reference).item() == pytest.approx(0, abs=1e-3)


def test_the_equation_written_out():
    estimate, reference = torch.randn(4, 999), torch.randn(4, 999)
    for row, s, score in zip(estimate, reference, si_sdr(estimate, reference)):
        row, s = row - row.mean(), s - s.mean()
        target = (row @ s) / (s @ s) * s
        assert score.item() == pytest.approx(
            10 * math.log10(target.square().sum() / (target - row).square().sum()), abs=1e-3
        )


@pytest.mark.parametrize("scale", [1e-3, 0.5, -1.0, 30.0])
def test_scales_and_constants_change_nothing(scale):
    estimate, reference = torch.randn(3, 2, 500), torch.randn(3, 2, 500)
    expected = si_sdr(estimate, reference)
    assert expected.shape == (3, 2)
    close(si_sdr(scale * estimate, reference), expected, 1e-4)
    close(si_sdr(estimate, scale * reference), expected, 1e-4)
    close(si_sdr(estimate + 0.7, reference - 2.0), expected, 1e-4)


def test_a_perfect_estimate_has_100_dB_and_nothing_of_it_minus_100():
    reference, other = tones(400, 1000)
    assert si_sdr(reference, reference).item() == pytest.approx(100, abs=0.01)
    assert si_sdr(3 * reference - 0.2, reference).item() == pytest.approx(100, abs=0.01)
    assert si_sdr(other, reference).item() == pytest.approx(-100, abs=0.01)
    assert si_sdr(torch.zeros_like(reference), reference).item() == -100
    assert si_sdr(torch.full_like(reference, 0.3), reference).item() == -100


def test_improvement_is_over_the_mixture():
    reference, other = tones(400, 1000)
    mixture = reference + other
    assert si_sdr_improvement(mixture, reference, mixture).item() == 0
    assert si_sdr_improvement(reference + 0.1 * other, reference, mixture).item() == pytest.approx(20, abs=1e-3)


def test_ideal_masks_separate_tones_far_apart():
    sources = tones(400, 1000)[None]
    before = si_sdr(sources.sum(1, keepdim=True).expand_as(sources), sources).mean()
    for masks in (ratio_masks, binary_masks):
        assert si_sdr(ideal_estimates(sources, 512, 256, masks), sources).mean() > before + 20


def test_ideal_estimates_sum_to_the_mixture():
    sources = torch.randn(2, 3, 4000)
    for masks in (ratio_masks, binary_masks):
        close(ideal_estimates(sources, 512, 128, masks).sum(1), sources.sum(1), 1e-4)


def test_the_ideal_mask_beats_the_mixture_and_any_wrong_mask():
    sources = torch.randn(4, 2, 8000) * torch.linspace(0, 1, 8000) ** torch.tensor([1.0, 0.1])[:, None]
    scores = separation_scores(sources, sources, 512, 256)
    assert scores.estimate == pytest.approx(100, abs=0.01)
    assert scores.improvement == pytest.approx(100 - scores.mixture, abs=0.01)
    assert 0 < scores.ratio_improvement < 100 - scores.mixture
    assert 0 < scores.binary_improvement < 100 - scores.mixture
    swapped = separation_scores(sources.flip(1), sources, 512, 256)
    assert swapped.improvement < 0 < swapped.ratio_improvement
    mixture = sources.sum(1, keepdim=True).expand_as(sources)
    assert separation_scores(mixture, sources, 512, 256).improvement == 0


def test_what_cannot_be_measured_is_told():
    sound = tones(400)
    for silent in (torch.zeros_like(sound), torch.full_like(sound, 0.3)):
        refused("A reference is silent", si_sdr, sound, silent)
    for wrong in (torch.nan, torch.inf):
        broken = sound.clone()
        broken[0, 5] = wrong
        refused("not finite", si_sdr, broken, sound)
        refused("not finite", si_sdr, sound, broken)
