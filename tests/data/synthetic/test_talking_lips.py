"""Talking lips: what eye and ear can tell is exactly what the table of units says, frame by frame."""

from collections import Counter, defaultdict
from dataclasses import replace
from functools import cache
from itertools import groupby, pairwise

import numpy as np
import pytest
import torch

from mmlearn.data.synthetic import talking_lips as talking
from mmlearn.data.synthetic.talking_lips import (
    HOP,
    MOUTHS,
    SEEN,
    SPEAKERS,
    SPLITS,
    TOKENS,
    UNITS,
    TalkingLips,
    ceiling,
    speak,
)
from mmlearn.data.synthetic.talking_lips import draw as draw_speech

LETTERS = ("", *UNITS)


@cache
def some(split="train", count=120, size=16, **options):
    return TalkingLips(split, size=size, **options).__getitems__(range(count))


# What eye and ear can tell.


def swapped(speech, one, other):
    """The same clips with one unit wherever there was another, and the other way round."""
    number = np.arange(len(LETTERS))
    number[[LETTERS.index(one), LETTERS.index(other)]] = LETTERS.index(other), LETTERS.index(one)
    return replace(speech, unit=number[speech.unit])


def shown(speech):
    breath = np.random.default_rng(0).random((len(speech.unit), speech.unit.shape[1] * HOP), np.float32)
    return draw_speech(speech, 16), talking.sound(speech, breath)


def test_units_look_alike_or_sound_alike_where_the_table_says_so():
    """Bit for bit in every frame, whatever is said around it; and those that do not, differ."""
    speech = speak("train", np.arange(6), 0, 50)
    video, sound = shown(speech)
    for one in UNITS:
        for other in UNITS:
            if one >= other or not np.isin([LETTERS.index(one), LETTERS.index(other)], speech.unit).all():
                continue
            seen, heard = shown(swapped(speech, one, other))
            same_mouth, same_sound = (a == b for a, b in zip(UNITS[one], UNITS[other]))
            assert (seen == video).all() == same_mouth, (one, other)
            assert (heard == sound).all() == same_sound, (one, other)
            changed = np.isin(speech.unit, [LETTERS.index(one), LETTERS.index(other)])
            if not same_mouth:
                assert (abs(seen - video).max((2, 3, 4)) > 0.1)[changed].all()
            frames = abs(heard - sound).reshape(6, 50, HOP).max(2)
            assert (frames[~changed] == 0).all()
            if not same_sound:
                assert (frames[changed] > 0.01).all()


def test_ceilings_follow_from_the_table():
    assert len(set(UNITS.values())) == len(UNITS) == 12
    assert ceiling(audio=True, video=True) == 1
    assert ceiling(audio=True, video=False) == 9 / 12  # six vowels, and one of each two consonants
    assert ceiling(audio=False, video=True) == 5 / 12  # one of each mouth
    assert ceiling(audio=False, video=False) == 1 / 12
    assert {mouth for mouth, _ in UNITS.values()} | {"rest"} == set(MOUTHS)


def nearest(known, unknown):
    """For each row of ``unknown`` the number of the nearest row of ``known``."""
    return torch.cdist(unknown, known).argmin(1)


def test_ceilings_are_reached_and_not_passed():
    """A nearest neighbour that sees frames of the same speaker: from the waveform, from pixels, and from both."""
    parts = defaultdict(list)
    for split in ("train", "test"):
        for sample in some(split):
            spectrum = torch.fft.rfft(sample.waveform.view(-1, HOP)).abs()
            spectrum = torch.nn.functional.avg_pool1d(spectrum[:, None], 4).squeeze(1)[:, :60]
            parts[split].append((sample.speaker, sample.units, spectrum, sample.video.flatten(1)))
    right = Counter()
    for speaker in range(SEEN):
        (units, *known), (truth, *unknown) = (
            [torch.cat(column) for column in list(zip(*[row for row in parts[split] if row[0] == speaker]))[1:]]
            for split in ("train", "test")
        )
        known, unknown, units, truth = (
            [x[units > 0] for x in known],
            [x[truth > 0] for x in unknown],
            units[units > 0],
            truth[truth > 0],
        )
        known[0], unknown[0] = (torch.nn.functional.normalize(x) for x in (known[0], unknown[0]))  # not loudness
        near = [units[nearest(a, b)] for a, b in zip(known, unknown)]
        table = [("", ""), *UNITS.values()]
        right["units"] += len(truth)
        right["sounds"] += sum(table[a][1] == table[b][1] for a, b in zip(near[0].tolist(), truth.tolist()))
        right["mouths"] += sum(table[a][0] == table[b][0] for a, b in zip(near[1].tolist(), truth.tolist()))
        right["audio"] += int((near[0] == truth).sum())
        right["video"] += int((near[1] == truth).sum())
        both = {pair: number for number, pair in enumerate(table)}
        told = [both.get((table[v][0], table[a][1]), 0) for a, v in zip(near[0].tolist(), near[1].tolist())]
        right["both"] += sum(a == b for a, b in zip(told, truth.tolist()))
    n = right["units"]
    assert n > 3000
    assert right["sounds"] / n > 0.995
    assert right["mouths"] / n > 0.995
    assert right["both"] / n > 0.99
    assert abs(right["audio"] / n - ceiling(True, False)) < 0.03
    assert abs(right["video"] / n - ceiling(False, True)) < 0.03


def test_units_are_as_frequent_and_the_past_tells_nothing():
    units = speak("train", np.arange(3000), 0, 50).unit
    spoken = [[number for number, _ in groupby(row)] for row in units.tolist()]
    count = Counter(number for row in spoken for number in row if number)
    total = sum(count.values())
    assert total > 20000
    assert max(abs(count[number] - total / 12) for number in range(1, 13)) < 4 * (total / 12) ** 0.5
    pairs = Counter((a, b) for row in spoken for a, b in pairwise(row) if a and b)
    into = Counter((a, b) for (a, b) in pairs.elements() if a <= 6)  # a consonant and its vowel
    back = Counter((a, b) for (a, b) in pairs.elements() if a > 6)  # a vowel and the next syllable's consonant
    for table in (into, back):
        assert len(table) == 36
        expected = sum(table.values()) / 36
        assert sum((count - expected) ** 2 / expected for count in table.values()) < 80  # chi² of 35 is 35 ± 8
    lasts = defaultdict(list)
    for row in units.tolist():
        for number, group in groupby(row):
            lasts[number].append(len(list(group)))
    means = [np.mean(lasts[number]) for number in range(1, 13)]
    assert max(means) - min(means) < 0.12  # nor does how long a unit lasts


# In step.


def test_sound_and_image_change_with_the_units_between_frames():
    for sample in some():
        assert (sample.video.shape, sample.waveform.shape, sample.units.shape) == ((50, 3, 16, 16), (32000,), (50,))
        assert sample.units.dtype == torch.int64
        frames = sample.waveform.view(50, HOP)
        loud = frames.square().mean(1).sqrt()
        assert ((loud > 0.01) == (sample.units > 0)).all()
        assert not frames[sample.units == 0].any()
        assert 0.1 < sample.waveform.abs().max() <= 1
        assert 0 <= sample.video.min() <= sample.video.max() <= 1
        groups = [(number, len(list(group))) for number, group in groupby(sample.units.tolist())]
        assert groups[0][0] == groups[-1][0] == 0
        assert all(2 <= lasts <= 4 for _, lasts in groups[:-1])
        assert groups[-1][1] >= 2


def test_a_voice_goes_on_from_frame_to_frame():
    """Inside a unit a frame's edge is no jump; at a unit's ends the sound has faded out."""
    for sample in some():
        x, same = sample.waveform, sample.units[1:] == sample.units[:-1]
        jumps = x.diff().abs()
        for k in range(1, 50):
            if TOKENS[sample.units[k]] in "aoeiuy" and sample.units[k]:
                inside = jumps[k * HOP : (k + 1) * HOP - 1].max()
                assert jumps[k * HOP - 1] <= 1.2 * inside if same[k - 1] else x[k * HOP].abs() < 0.1 * x.abs().max()
                if k < 49 and not same[k]:
                    assert x[(k + 1) * HOP - 1].abs() < 0.1 * x.abs().max()


def test_words_are_where_they_are_spoken():
    for sample in some():
        assert sample.transcript == " ".join(word.text for word in sample.words) == sample.caption
        assert len(sample.words) >= 1
        spoken = torch.zeros(50, dtype=torch.bool)
        for word in sample.words:
            letters = [LETTERS[number] for number, _ in groupby(sample.units[word.first : word.stop].tolist())]
            assert "".join(letters) == word.text
            assert len(letters) in (2, 4)
            assert all((LETTERS.index(letter) > 6) == k % 2 for k, letter in enumerate(letters))
            spoken[word.first : word.stop] = True
        assert torch.equal(spoken, sample.units > 0)


def test_a_target_is_the_transcript_for_ctc():
    blank, gap = 0, TOKENS.index(" ")
    assert gap == len(UNITS) + 1
    for sample in some():
        assert "".join(TOKENS[number] for number in sample.target) == sample.transcript
        assert (sample.target != blank).all()
        assert (sample.target.diff() != 0).all()  # no letter twice in a row
        told = [number for number, _ in groupby(sample.units.tolist()) if number]
        assert told == sample.target[sample.target != gap].tolist()
        # the frames of a clip are enough for CTC
        assert len(sample.target) < 50


@pytest.mark.parametrize("seconds", [1.0, 3.2])
def test_other_lengths(seconds):
    for sample in some(count=20, seconds=seconds):
        assert len(sample.video) == round(25 * seconds)
        assert len(sample.waveform) == len(sample.video) * HOP
        assert sample.words[0].text


def test_formants_are_heard_where_they_belong():
    """A vowel is loud at its formants, and not half as loud above them, or between two that lie far apart."""
    table, waves = talking.SOUNDS, talking.voices()
    for speaker, rows in zip(SPEAKERS, waves):
        for name, row in zip(table, rows.reshape(len(table), -1)):
            power = abs(np.fft.rfft(row)) ** 2
            if len(name) > 1:
                continue
            low, high = (formant * speaker.tract for formant in table[name][0])
            near = min(power[int(hertz - 120) : int(hertz + 120)].max() for hertz in (low, high))
            assert near > 4 * power[int(high + 600) : 4000].max(), name
            if high - low > 1000:
                middle = int((low + high) / 2)
                assert near > 4 * power[middle - 120 : middle + 120].max(), name
            assert power[: speaker.pitch - 5].max() < 1e-4 * power.max()
            assert np.sqrt((row**2).mean()) == pytest.approx(0.1, rel=0.01)


def test_larger_images_show_the_same():
    for sample, known in zip(some(count=6, size=48), some()):
        assert sample.video.shape == (50, 3, 48, 48)
        small = torch.nn.functional.avg_pool2d(sample.video, 3)
        assert (small - known.video).abs().mean() < 0.03
        assert torch.equal(sample.waveform, known.waveform)
        assert torch.equal(sample.image, sample.video[25])


# Splits.


def test_two_speakers_are_never_trained_on():
    speakers = {split: {sample.speaker for sample in some(split)} for split in SPLITS}
    assert speakers["train"] == speakers["val"] == speakers["test"] == set(range(6))
    assert speakers["unseen-speaker"] == {6, 7}
    assert len({s.pitch for s in SPEAKERS}) == len({s.skin for s in SPEAKERS}) == len({s.lips for s in SPEAKERS}) == 8
    assert all(speaker.pitch not in {s.pitch for s in SPEAKERS[:6]} for speaker in SPEAKERS[6:])


def test_splits_share_no_image_and_no_sentence():
    frames = {s: {f.numpy().tobytes() for x in some(s) for f in x.video} for s in SPLITS}
    assert sum(map(len, frames.values())) == len(set().union(*frames.values()))
    grounds = [set(speak(split, np.arange(2000), 0, 50).ground.tolist()) for split in SPLITS]
    assert sorted(ground for used in grounds for ground in used) == list(range(64))
    said = {s: {x.transcript for x in some(s) if len(x.words) > 2} for s in SPLITS}
    assert sum(map(len, said.values())) == len(set().union(*said.values()))
