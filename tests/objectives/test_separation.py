"""Masks of sources sum to 1, spectra turn back into their sounds, and losses read what they should."""

import math

import pytest
import torch
from testing_tools import close, refused

from mmlearn.objectives import binary_mask_loss, binary_masks, ratio_mask_loss, ratio_masks
from mmlearn.objectives.separation import from_spectrum, loudness, spectrum


@pytest.mark.parametrize(
    ("samples", "fft_size", "hop"), [(16_000, 512, 256), (1001, 510, 128), (100, 512, 256), (1, 8, 3)]
)
def test_a_spectrum_turns_back_into_its_sound(samples, fft_size, hop):
    """Also of clips shorter than a window, and ones that end just before a new frame would begin."""
    waveform = torch.randn(2, 3, samples)
    frames = spectrum(waveform, fft_size, hop)
    assert frames.shape == (2, 3, fft_size // 2 + 1, 1 + math.ceil(samples / hop))
    close(from_spectrum(frames, fft_size, hop, samples), waveform)


def test_a_tone_is_where_it_should_be_and_sums_stay_sums():
    time = torch.arange(16_000) / 16_000
    tone = torch.sin(2 * torch.pi * 1000 * time)[None]
    frames = spectrum(tone, 512, 256)
    assert (frames.abs()[0, :, 2:-2].argmax(0) == 1000 / 16_000 * 512).all()
    other = torch.randn(1, 16_000)
    close(spectrum(tone + other, 512, 256), frames + spectrum(other, 512, 256), 1e-4)


@pytest.mark.parametrize("masks", [ratio_masks, binary_masks])
@pytest.mark.parametrize("n", [1, 2, 5])
def test_masks_of_all_sources_sum_to_one(masks, n):
    magnitude = torch.randn(3, n, 9, 7).abs()
    magnitude[0, :, :4] = 0  # silence
    magnitude[1] = 1.0  # all as loud
    magnitude[2, 0] = 1e-30
    mask = masks(magnitude)
    assert torch.isfinite(mask).all()
    assert ((mask >= 0) & (mask <= 1)).all()
    close(mask.sum(1), torch.ones(3, 9, 7))


def test_masks_by_hand():
    magnitude = torch.tensor([3.0, 1.0, 0.0]).view(1, 3, 1, 1)
    close(ratio_masks(magnitude).flatten(), torch.tensor([0.75, 0.25, 0.0]))
    close(binary_masks(magnitude).flatten(), torch.tensor([1.0, 0.0, 0.0]))
    silent = torch.zeros(1, 4, 1, 1)
    close(ratio_masks(silent).flatten(), torch.full((4,), 0.25))
    close(binary_masks(silent).flatten(), torch.tensor([1.0, 0.0, 0.0, 0.0]))


def test_ideal_masks_are_right_where_sources_do_not_overlap():
    magnitude = torch.zeros(1, 2, 4, 3)
    magnitude[0, 0, :2], magnitude[0, 1, 2:] = 2.0, 5.0
    assert torch.equal(ratio_masks(magnitude), binary_masks(magnitude))
    close(ratio_masks(magnitude) * magnitude.sum(1, keepdim=True), magnitude)


def test_the_loss_of_knowing_nothing_is_ln_2_whatever_counts():
    target = (torch.rand(3, 5, 4) < 0.3).float()
    for weight in (torch.ones(3, 5, 4), torch.rand(3, 5, 4) * 7):
        assert binary_mask_loss(torch.zeros(3, 5, 4), target, weight).item() == pytest.approx(math.log(2), abs=1e-6)
    assert binary_mask_loss(torch.zeros(1, 1, 1), target[:1, :1, :1], torch.zeros(1, 1, 1)).item() == 0


def test_losses_are_weighted_means():
    logits, target, weight = torch.randn(2, 3, 4), torch.rand(2, 3, 4).round(), torch.rand(2, 3, 4)
    mask = logits.sigmoid()
    each = -(target * mask.log() + (1 - target) * (1 - mask).log())
    close(binary_mask_loss(logits, target, weight), (each * weight).sum() / weight.sum())
    close(ratio_mask_loss(mask, target, weight), ((mask - target).abs() * weight).sum() / weight.sum())
    assert ratio_mask_loss(target, target, weight).item() == 0
    assert binary_mask_loss(200 * target - 100, target, weight).item() == pytest.approx(0, abs=1e-6)


def test_bins_without_weight_do_not_count():
    logits, target = torch.randn(1, 2, 2), torch.ones(1, 2, 2)
    weight = torch.tensor([[[1.0, 0.0], [1.0, 0.0]]])
    other = logits.clone()
    other[..., 1] = 100
    assert torch.equal(binary_mask_loss(logits, target, weight), binary_mask_loss(other, target, weight))
    assert torch.equal(ratio_mask_loss(logits, target, weight), ratio_mask_loss(other, target, weight))


def test_loudness_has_two_ends():
    close(loudness(torch.tensor([0.0, 1.0, 1e9])), torch.tensor([1e-3, math.log(2), 10.0]))


def test_wrong_input_is_told(unchecked):
    refused("hop is from 1 to half of fft_size 512, got 257", spectrum, torch.zeros(1, 9), 512, 257)
    refused("got 0", spectrum, torch.zeros(1, 9), 512, 0)
    refused("at least one sample", spectrum, torch.zeros(2, 0), 512, 256)
