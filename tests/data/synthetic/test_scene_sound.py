"""Scenes that sound: pitch, timbre, loudness and times are measured in the waveform; noise is at the SNR it says."""

from functools import cache
from itertools import combinations, product

import numpy as np
import pytest
import torch
import torchaudio
from testing_tools import refused, seeded

from mmlearn.data.mel import LogMel
from mmlearn.data.synthetic.drawing import COLOURS, SHAPES, SIZES
from mmlearn.data.synthetic.layouts import HELD_OUT, SPLITS
from mmlearn.data.synthetic.scene_sound import (
    LOUDNESS,
    NOISES,
    PITCHES,
    RATE,
    TIMBRES,
    WORDS,
    SoundScenes,
    add_noise,
    scenes_with,
    sounding_words,
    times_of_words,
)
from mmlearn.data.synthetic.scenes import Scenes

INSTRUMENTS = [("red", "circle"), ("blue", "cross"), ("white", "bar")]
HELD_OUT_NAMES = {(list(COLOURS)[colour], list(SHAPES)[shape]) for colour, shape in HELD_OUT}


@cache
def some(split="train", count=60, **options):
    return SoundScenes(split, size=24, **options).__getitems__(range(count))


def named(sample):
    """The two objects of a sample's caption, in its order."""
    return [sample.objects[span.object] for span in sample.spans]


def test_the_image_and_its_caption_are_those_of_scenes():
    for sample, scene in zip(some(), Scenes(size=24).__getitems__(range(60))):
        assert torch.equal(sample.image, scene.image)
        assert (sample.caption, sample.objects, sample.question) == (scene.caption, scene.objects, scene.question)


# What a sound says.


@cache
def waves():
    """What the amplitude of each pitch's seven harmonics is measured with, (12, 7, 4000)."""
    turns = np.array(list(PITCHES.values()))[:, None, None] * np.arange(1, 8)[:, None] * np.arange(4000) / RATE
    return (np.exp(-2j * np.pi * turns) * np.hanning(4000) * 2 / np.hanning(4000).sum()).astype(np.complex64)


@pytest.mark.parametrize("in_turn", [True, False])
def test_pitch_is_shape_timbre_is_colour_and_loudness_is_size(in_turn):
    for sample in some(in_turn=in_turn):
        for item, source, (start, stop) in zip(named(sample), sample.sources, sample.times):
            assert stop - start > 5000
            spectra = abs(waves() @ source[start + 500 : start + 4500].numpy())
            assert list(PITCHES)[spectra[:, 0].argmax()] == item.shape
            heard = spectra[spectra[:, 0].argmax()]
            loud = [number for number in range(2, 8) if heard[number - 1] > 0.5 * heard[0]]
            assert tuple(loud) == TIMBRES[item.colour]
            assert np.linalg.norm(heard) == pytest.approx(LOUDNESS[item.size], rel=0.01)


def test_no_two_tones_can_be_taken_for_each_other():
    assert list(PITCHES) == list(SHAPES)
    assert list(TIMBRES) == list(COLOURS)
    assert list(LOUDNESS) == list(SIZES)
    assert len(set(TIMBRES.values())) == 12
    assert LOUDNESS["large"] == 2 * LOUDNESS["small"]  # 6 dB
    for low, high in combinations(PITCHES.values(), 2):
        assert high / low > 1.08
        assert abs(high / low - 2) > 0.02  # an octave would be the low one's own second harmonic
    assert 7 * max(PITCHES.values()) < RATE / 2


def test_sources_add_up_to_the_mixture_and_stay_in_range():
    for in_turn in (True, False):
        for sample in some(in_turn=in_turn):
            assert sample.waveform.shape == (2 * RATE,)
            assert sample.waveform.dtype == torch.float32
            assert torch.equal(sample.waveform, sample.sources[0] + sample.sources[1])
            assert 0.1 < sample.waveform.abs().max() <= 1


# When it says it.


@pytest.mark.parametrize("in_turn", [True, False])
def test_each_object_sounds_exactly_in_its_time(in_turn):
    for sample in some(in_turn=in_turn):
        for source, span, (start, stop) in zip(sample.sources, sample.spans, sample.times):
            assert (span.onset, span.offset) == (start / RATE, stop / RATE)
            heard = source.nonzero().flatten()
            assert start <= heard[0] < start + 5
            assert stop - 5 <= heard[-1] < stop
            loudest = source.abs().max()
            for edge in (source[start : start + 16], source[stop - 16 : stop]):  # no click
                assert edge.abs().max() < 0.05 * loudest
            frames = source.view(-1, 160).abs().amax(1) > 0  # of 10 ms
            assert frames.nonzero().flatten().tolist() == list(range(start // 160, (stop - 1) // 160 + 1))
            assert 0.2 * 2 - 0.001 < span.offset - span.onset < (0.35 if in_turn else 0.75) * 2 + 0.001


def test_spans_say_which_words_are_heard_when():
    for sample in some():
        (first, second), (one, other) = sample.spans, sample.links
        assert [sample.caption[span.start : span.end] for span in sample.spans] == [x.name for x in named(sample)]
        assert (first.object, second.object) == (one.object, other.object)
        # One after the other, in the order of the words, with silence around both.
        assert 0.039 < first.onset < first.offset < second.onset - 0.039
        assert second.offset < 2 - 0.039
    gaps = [b.onset - a.offset for a, b in (sample.spans for sample in some())]
    assert max(gaps) - min(gaps) > 0.2


def test_together_both_sound_for_a_quarter_of_the_clip():
    for sample in some(in_turn=False):
        (a, b), (c, d) = sample.times
        assert min(b, d) - max(a, c) >= 0.25 * 2 * RATE - 2
        heard = (sample.sources.view(2, -1, 160).abs().amax(2) > 0).all(0)
        assert heard[50:100].all()


@pytest.mark.parametrize("seconds", [0.5, 1.5, 3.1])
def test_other_lengths_have_the_same_score(seconds):
    for sample, known in zip(some(count=8, seconds=seconds), some()):
        assert len(sample.waveform) == round(seconds * RATE)
        for times, others in zip(sample.times, known.times):
            assert np.allclose(np.array(times) / seconds, np.array(others) / 2, atol=2)
        assert sample.caption == known.caption


def test_long_tones_go_on_without_a_seam():
    sample = SoundScenes(size=24, seconds=6.0, in_turn=False)[0]
    for item, source, (start, stop) in zip(named(sample), sample.sources, sample.times):
        assert stop - start > 2.9 * RATE
        part = source[start + 160 : stop - 160]
        assert torch.allclose(part[RATE:], part[:-RATE], atol=1e-6)  # whole Hz
        steps = part.diff().abs()
        assert steps[RATE - 400 : RATE + 400].max() <= steps[:RATE].max() * 1.001
        assert item.shape in SHAPES


# Splits.


def test_combinations_held_out_are_heard_in_composition_alone():
    for split in SPLITS:
        pairs = [{(item.colour, item.shape) for item in named(sample)} for sample in some(split)]
        found = [bool(pair & HELD_OUT_NAMES) for pair in pairs]
        assert all(found) if split == "composition" else not any(found)
    sounds = [sample.waveform.numpy().tobytes() for split in SPLITS for sample in some(split)]
    assert len(set(sounds)) == len(sounds)


# Noise.


def sounds(b=4, samples=8000):
    return torch.stack([sample.waveform[6000 : 6000 + samples] for sample in some(in_turn=False)[:b]])


def decibels(sound, noise):
    return 10 * torch.log10(sound.double().square().sum(-1) / noise.double().square().sum(-1))


@pytest.mark.parametrize(("kind", "snr"), product(NOISES, (-20.0, 0.0, 7.5, 30.0)))
def test_noise_has_the_snr_it_says(kind, snr):
    clean = sounds()
    noise = add_noise(clean, snr, seeded(), kind).double() - clean.double()
    assert (decibels(clean, noise) - snr).abs().max() < 1e-4
    assert (torch.corrcoef(noise) - torch.eye(4)).abs().max() < 0.3  # each row has noise of its own


@pytest.mark.parametrize("lengths", [None, (8000, 3000, 801, 5000)])
def test_white_noise_is_that_of_torchaudio(lengths):
    clean, snr = sounds(), torch.tensor([-5.0, 0.0, 7.5, 30.0])
    counts = torch.tensor(lengths or [8000] * 4)
    real = torch.arange(8000) < counts[:, None]  # torchaudio puts noise on what is not real as well
    noise = torch.randn(4, 8000, generator=seeded())
    expected = torchaudio.functional.add_noise(clean, noise, snr, counts)
    noisy = add_noise(clean, snr, seeded(), mask=None if lengths is None else real)
    assert (noisy - expected)[real].abs().max() < 1e-5


@pytest.mark.parametrize("kind", NOISES)
def test_noise_leaves_padding_alone_and_is_measured_without_it(kind):
    clean, mask = sounds(), torch.arange(8000) < torch.tensor([8000, 3000, 801, 5000])[:, None]
    padded = clean.masked_fill(~mask, 0)
    snr = torch.tensor([-5.0, 0.0, 5.0, 10.0])
    noisy = add_noise(padded, snr, seeded(), kind, mask)
    assert torch.equal(noisy[~mask], padded[~mask])
    assert (decibels(padded, noisy - padded) - snr).abs().max() < 1e-4
    dirty = padded.masked_fill(~mask, 3.0)  # what stands in the padding does not count
    assert torch.equal(add_noise(dirty, snr, seeded(), kind, mask)[mask], noisy[mask])


def test_noise_is_a_function_of_its_generator():
    for kind in NOISES:
        one = add_noise(sounds(), 0.0, seeded(5), kind)
        torch.manual_seed(8)
        assert torch.equal(add_noise(sounds(), 0.0, seeded(5), kind), one)
        assert not torch.allclose(add_noise(sounds(), 0.0, seeded(6), kind), one)


def slope(noise):
    """Of the logarithm of power over that of frequency, from 50 to 4000 Hz."""
    power = torch.fft.rfft(noise.double()).abs().square().mean(0)
    hertz = torch.arange(len(power)) * RATE / noise.shape[1]
    bands = [
        (power[(hertz >= f) & (hertz < 2**0.5 * f)].mean().log(), np.log(f)) for f in 50 * 2 ** np.arange(0, 6.5, 0.5)
    ]
    levels, positions = zip(*bands)
    return np.polyfit(positions, levels, 1)[0]


def test_white_is_flat_pink_falls_by_its_frequency_and_babble_is_of_tones():
    clean = torch.ones(16, RATE)
    made = {kind: add_noise(clean, 0.0, seeded(), kind) - clean for kind in NOISES}
    assert abs(slope(made["white"])) < 0.05
    assert abs(slope(made["pink"]) + 1) < 0.05
    power = torch.fft.rfft(made["babble"]).abs().square().mean(0)  # one bin a hertz
    inside = power[200:4500].sum() / power.sum()
    assert inside > 0.99
    loudness = made["babble"].view(16, 100, 160).square().mean(2)
    steady = made["white"].view(16, 100, 160).square().mean(2)
    assert loudness.std(1).mean() / loudness.mean() > 2 * steady.std(1).mean() / steady.mean()


def test_noise_that_cannot_be():
    refused("no noise 'brown'; choose from white, pink, babble", add_noise, sounds(), 0.0, seeded(), "brown")
    silent = sounds()
    silent[2] = 0
    refused("Row 2 of the batch is silent", add_noise, silent, 0.0, seeded())
    silent[1] = float("nan")
    refused("Row 1", add_noise, silent, 0.0, seeded())
    with pytest.raises(ValueError, match="Row 0"):  # all that is real is silent
        add_noise(sounds(1), 0.0, seeded(), mask=torch.zeros(1, 8000, dtype=torch.bool))


# Instruments: scenes hold them, and say which is which.


@pytest.mark.parametrize("both", [False, True])
def test_scenes_hold_the_instruments_that_are_told(both):
    samples, kinds = scenes_with(INSTRUMENTS, "val", 6, both=both, size=32, seed=1)
    assert len(samples) == len(kinds) == 6
    for sample, kind in zip(samples, kinds.tolist()):
        named = [sample.objects[sample.relation[position]] for position in (0, 2)]
        looks = [(thing.colour, thing.shape) for thing in named]
        assert kind == [INSTRUMENTS.index(look) if look in INSTRUMENTS else -1 for look in looks]
        assert sample.sources.shape == (2, 16_000)
    assert ((kinds >= 0).sum(1) >= 1 + both).all()
    if both:
        assert (kinds[:, 0] != kinds[:, 1]).all()
    again, same = scenes_with(INSTRUMENTS, "val", 6, both=both, size=32, seed=1)
    assert torch.equal(kinds, same)
    assert torch.equal(samples[0].image, again[0].image)


def test_an_instrument_is_a_colour_and_a_shape():
    refused("not 'red' and 'violin'", scenes_with, [("red", "violin")], "val", 1, both=False)


@pytest.mark.parametrize(
    ("instruments", "both"),
    [([], False), ([("red", "square")], True)],  # two different ones are no one
)
def test_what_no_scene_can_have_is_refused(instruments, both):
    refused("none has such instruments", scenes_with, instruments, "train", 1, both=both)


# Words: they are those of the scene, and they sound when they are said to.


def test_words_are_those_of_the_scene_in_the_order_in_which_they_sound():
    samples, batch = sounding_words("val", 20, LogMel(40), seconds=0.8, seed=3)
    assert WORDS[0] == "-"
    assert len(set(WORDS)) == len(WORDS)
    assert batch["mel"].shape == (20, 40, 80)
    assert batch["mel_mask"].all()
    assert batch["mask"].all()
    data = SoundScenes("val", objects=2, size=24, seconds=0.8, seed=3)
    for i, (sample, row) in enumerate(zip(samples, batch["tokens"].tolist())):
        first, second = (sample.objects[link.object] for link in sample.links)
        assert [WORDS[token] for token in row] == [first.colour, first.shape, second.colour, second.shape]
        assert sample.caption == data[i].caption
        assert sample.spans[0].offset <= sample.spans[1].onset
    assert abs(float(batch["mel"].mean())) < 1.5


def test_babble_is_as_loud_as_it_is_said_to_be():
    (_, clean), (_, quiet), (samples, loud), (_, again) = (
        sounding_words("val", 12, LogMel(40), seed=1, snr=snr) for snr in (None, 60.0, 0.0, 0.0)
    )
    assert torch.equal(loud["mel"], again["mel"])
    assert torch.equal(loud["tokens"], clean["tokens"])
    apart = [(batch["mel"] - clean["mel"]).abs().mean() for batch in (quiet, loud)]
    assert 0 < apart[0] < apart[1]
    power = ((4 * loud["mel"] - 7).exp() - (4 * clean["mel"] - 7).exp()).sum((1, 2))
    ratio = power / (4 * clean["mel"] - 7).exp().sum((1, 2))
    assert 0.7 < ratio.median() < 1.4  # as loud as the sound: 0 dB
    assert samples[0].waveform.abs().max() <= 1  # and not in the samples


def test_a_word_sounds_when_it_is_said_to():
    samples, batch = sounding_words("val", 20, LogMel(40), seconds=0.8)
    begin, end = times_of_words(samples, frame=0.01)
    assert torch.equal(begin[:, 0], begin[:, 1])
    assert torch.equal(end[:, 2], end[:, 3])
    assert (begin < end).all()
    assert (end[:, 1] <= begin[:, 2]).all()
    loud = batch["mel"].amax(1)
    for row, sound in enumerate(loud):
        inside = torch.cat([sound[int(begin[row, k]) + 2 : int(end[row, k]) - 2] for k in (0, 2)])
        silent = torch.ones(80, dtype=torch.bool)
        for k in (0, 2):
            silent[max(0, int(begin[row, k]) - 2) : int(end[row, k]) + 3] = False
        assert inside.min() > sound[silent].max()
