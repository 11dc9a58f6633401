"""The log-mel spectrogram has its pitches and times in the right positions, and padding changes none of them."""

import math

import pytest
import torch
import torchaudio
from testing_tools import close
from torchaudio.functional import mask_along_axis

from mmlearn.data.mel import FLOOR, LogMel, mel_image, spec_augment
from mmlearn.data.readers.sound import RATE

SILENCE = math.log(FLOOR)


def noise(*shape, seed=0):
    return 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def ragged(lengths, seed=0):
    """Clips of these lengths, padded with what must not matter."""
    waveform = noise(len(lengths), max(lengths), seed=seed)
    return waveform, torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]


# LogMel.


@pytest.mark.parametrize("mels", [64, 80])
@pytest.mark.parametrize("samples", [400, 1600, 16_000, 16_001, 15_999])
def test_it_is_torchaudio(mels, samples):
    waveform = noise(2, samples)
    mel, mask = LogMel(mels)(waveform)
    expected = torchaudio.transforms.MelSpectrogram(
        16_000, n_fft=400, win_length=400, hop_length=160, n_mels=mels, center=True, pad_mode="constant"
    )(waveform)
    frames = math.ceil(samples / 160)
    assert mel.shape == (2, mels, frames)
    assert mask.shape == (2, frames)
    assert mask.all()
    close(mel, expected[:, :, :frames].clamp(min=1e-6).log())


def test_it_is_the_equation():
    """The spectrum of each window by a plain DFT, times triangles."""
    waveform = noise(1, 1600)
    padded = torch.nn.functional.pad(waveform[0].double(), (200, 200))
    window = torch.hann_window(400, dtype=torch.float64)
    angle = -2j * math.pi * torch.outer(torch.arange(201).double(), torch.arange(400).double()) / 400
    spectra = [(torch.exp(angle) @ (window * padded[160 * s : 160 * s + 400]).to(torch.complex128)) for s in range(10)]
    power = torch.stack(spectra, 1).abs().square()
    edges = 700 * (10 ** (torch.linspace(0, 2595 * math.log10(1 + 8000 / 700), 82).double() / 2595) - 1)
    frequency = torch.arange(201).double() * 40
    rise = (frequency[None] - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    fall = (edges[2:, None] - frequency[None]) / (edges[2:] - edges[1:-1])[:, None]
    triangles = torch.minimum(rise, fall).clamp(min=0)
    close(LogMel(80)(waveform)[0][0].double(), (triangles @ power).clamp(min=1e-6).log(), 1e-3)


def test_no_band_is_empty():
    for mels in (40, 64, 80):
        assert (LogMel(mels).power.mel_scale.fb.sum(0) > 0).all()


def test_a_second_has_a_hundred_frames_and_a_click_is_where_it_belongs():
    for at in (0, 1600, 8000, 15_840):
        waveform = torch.zeros(1, RATE)
        waveform[0, at] = 1.0
        mel, _ = LogMel()(waveform)
        assert mel.shape[2] == 100
        assert mel[0].mean(0).argmax() == at / 160


@pytest.mark.parametrize("frequency", [200.0, 1000.0, 4000.0])
def test_a_tone_is_in_its_band(frequency):
    waveform = 0.5 * torch.sin(2 * math.pi * frequency * torch.arange(RATE) / RATE)
    mel, _ = LogMel(80)(waveform[None])
    band = 2595 * math.log10(1 + frequency / 700) / (2595 * math.log10(1 + 8000 / 700)) * 81 - 1
    assert (mel[0, :, 10:-10].argmax(0) - band).abs().max() <= 1


def test_louder_is_a_constant_more():
    mel = LogMel()
    close(mel(10 * noise(1, 4000))[0] - mel(noise(1, 4000))[0], torch.full((1, 80, 25), math.log(100)), 1e-3)


def test_silence_is_the_floor():
    mel, mask = LogMel()(torch.zeros(2, 1000))
    close(mel, torch.full((2, 80, 7), SILENCE))
    assert mask.all()


@pytest.mark.parametrize("lengths", [(16_000, 9_000, 400), (4801, 4800, 4799), (700, 1, 161), (500,)])
def test_padding_changes_nothing(lengths):
    waveform, mask = ragged(lengths)
    mel, mel_mask = LogMel()(waveform, mask)
    assert mel_mask.sum(1).tolist() == [math.ceil(length / 160) for length in lengths]
    for clip, length, frames, real in zip(waveform, lengths, mel, mel_mask):
        alone, _ = LogMel()(clip[None, :length])
        close(frames[:, real], alone[0])
        assert (frames[:, ~real] == SILENCE).all()
    other = torch.where(mask, waveform, math.nan)
    assert torch.equal(LogMel()(other, mask)[0], mel)
    longer = torch.nn.functional.pad(waveform, (0, 3210), value=0.7)
    again, _ = LogMel()(longer, torch.nn.functional.pad(mask, (0, 3210)))
    close(again[:, :, : mel.shape[2]], mel)


def test_clips_are_independent():
    waveform, mask = ragged((3000, 3000, 2000))
    mel, _ = LogMel()(waveform, mask)
    waveform[1:] = 0
    close(LogMel()(waveform, mask)[0][0], mel[0])


# SpecAugment.


def spectrogram(lengths=(300, 120, 37), mels=80):
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    return noise(len(lengths), mels, max(lengths)) + 5, mask


def augmented(*given, seed=0, **options):
    return spec_augment(*given, torch.Generator().manual_seed(seed), **options)


def test_masks_are_those_of_torchaudio():
    mel, mask = spectrogram()
    generator = torch.Generator().manual_seed(3)
    hidden = spec_augment(mel, mask, generator)
    torch.manual_seed(int(torch.randint(2**62, (), generator=torch.Generator().manual_seed(3))))
    for clip, length, got in zip(mel, (300, 120, 37), hidden):
        own = clip[:, :length]
        for _ in range(2):
            own = mask_along_axis(own, 27, 0.0, axis=0)
        for _ in range(2):
            own = mask_along_axis(own, 70 if length > 70 else length, 0.0, axis=1, p=0.2)
        assert torch.equal(got[:, :length], own)


def test_the_generator_alone_decides():
    mel, mask = spectrogram()
    before = mel.clone()
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = augmented(mel, mask)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(5)
    assert torch.equal(augmented(mel, mask), first)
    assert not torch.equal(augmented(mel, mask, seed=1), first)
    generator = torch.Generator().manual_seed(0)
    assert torch.equal(spec_augment(mel, mask, generator), first)
    assert not torch.equal(spec_augment(mel, mask, generator), first)
    assert torch.equal(mel, before)


def test_what_is_hidden():
    mel, mask = spectrogram()
    rows, columns = [], []
    for seed in range(100):
        hidden = augmented(mel, mask, seed=seed) == 0
        assert not hidden[~mask[:, None].expand_as(hidden)].any()
        for clip, length in zip(hidden, (300, 120, 37)):
            bands, spans = clip[:, :length].all(1), clip[:, :length].all(0)
            assert torch.equal(clip[:, :length], bands[:, None] | spans)  # whole bands and whole spans
            assert bands.sum() < 2 * 27
            assert spans.sum() <= 2 * min(69, int(0.2 * length))
            if length == 300:
                rows.append(bands)
                columns.append(spans)
    rows, columns = torch.stack(rows).float(), torch.stack(columns).float()
    assert 15 < rows.sum(1).mean() < 30  # two bands of 13 on average, which may overlap
    assert 35 < columns.sum(1).mean() < 70
    assert rows.mean(0)[2:-2].min() > 0.05  # all bands but the outermost are hidden now and then
    assert columns.mean(0)[60:-60].min() > 0.08
    assert not torch.equal(rows[0], rows[1])


def test_clips_have_masks_of_their_own():
    mel = torch.ones(6, 80, 200)
    hidden = augmented(mel, torch.ones(6, 200, dtype=torch.bool)) == 0
    assert len({tuple(clip.flatten().tolist()) for clip in hidden}) == 6


def test_padding_changes_no_mask():
    mel, mask = spectrogram()
    longer = torch.nn.functional.pad(mel, (0, 500)), torch.nn.functional.pad(mask, (0, 500))
    assert torch.equal(augmented(*longer)[:, :, :300], augmented(mel, mask))


@pytest.mark.parametrize("options", [dict(bands=0), dict(spans=0), dict(value=-3.0), dict(bands=0, spans=0)])
def test_numbers_of_masks(options):
    mel, mask = torch.ones(4, 80, 300), torch.ones(4, 300, dtype=torch.bool)
    hidden = augmented(mel, mask, **options) != 1
    assert hidden.all(2).any() == ("bands" not in options)
    assert hidden.all(1).any() == ("spans" not in options)
    if "value" in options:
        assert augmented(mel, mask, **options).min() == -3


def test_tiny_clips():
    mel, mask = spectrogram((3, 1, 2), mels=4)
    for seed in range(50):
        assert augmented(mel, mask, seed=seed).isfinite().all()


# Pictures.


def test_a_image_of_a_sound():
    time = torch.arange(RATE) / RATE
    low = torch.sin(2 * math.pi * 300 * time) * (time < 0.5)
    image = mel_image(0.5 * low, 32)
    assert image.shape == (3, 32, 32)
    assert image.min() >= 0
    assert image.max() <= 1
    assert image[0, 16:, :15].max() > 0.9  # low and early: below, on the left
    assert image[0, :16, :15].mean() < image[0, 16:, :15].mean()
    assert image[0, :, 18:].max() < 0.1
    assert mel_image(torch.zeros(500)).max() == 0
