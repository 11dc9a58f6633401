"""MP3: all of a whole file is read, whether it tells its length or not, and damage is found where it can be."""

import io
import itertools
from functools import partial

import numpy as np
import pytest
import soundfile
import torch
from sound_files import encoded, frame_length, quiet, said, uncounted, voice

from mmlearn.data.read import mp3
from mmlearn.data.read.sound import RATE, probe_sound, read_sound, stream_sound

DELAY = 1105 - 529  # samples of LAME's encoder, less what is left out of the decoder's


def sound(seconds, rate=RATE, channels=1):
    """Quiet, and then not: frames that differ in size."""
    loudness = 0.05 + np.sin(np.pi * np.arange(round(seconds * rate)) / rate / seconds) ** 2
    return (voice(seconds, rate, channels, noise=0.05).T * loudness).T


mp3_of = partial(encoded, kind="MP3", bitrate_mode="VARIABLE", compression_level=0.5)
refused = partial(said, name="x.mp3", notes=[])


@pytest.mark.parametrize("mode", ["CONSTANT", "VARIABLE"])
@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 22_050, 44_100, 48_000])
def test_whole_files(rate, mode, capfd):
    for channels, seconds in itertools.product((1, 2), (0.05, 0.5, 1.37, 11)):
        content, notes = mp3_of(sound(seconds, rate, channels), rate, bitrate_mode=mode), []
        counted = read_sound(content, name="x", notes=notes)
        assert abs(len(counted) - seconds * RATE) <= 1
        other = read_sound(uncounted(content), name="x", notes=notes)
        delay = DELAY * RATE / rate
        assert len(counted) + delay - 2 < len(other) < len(counted) + delay + 1500 * RATE / rate
        if rate == RATE:
            assert (other[DELAY:][: len(counted)] - counted)[: round((seconds - 0.03) * RATE)].abs().max() < 1e-4
        assert not any(word in "".join(notes) for word in ("damaged", "missing", "cut"))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["path", "bytes"])
def test_a_length_that_is_not_told_is_not_guessed(name, tmp_path):
    """Frames at the start are small or large, others not: libsndfile by itself reads a part, or promises more."""
    time = np.arange(20 * RATE) / RATE
    noise = 0.2 * np.random.default_rng(0).standard_normal(len(time))
    for envelope in (time > 3, time < 3):
        path = tmp_path / "x.mp3"
        path.write_bytes(uncounted(mp3_of(noise * envelope, compression_level=0.7)))
        source = path if name == "path" else path.read_bytes()
        guessed = len(soundfile.read(path)[0])
        whole = quiet(source)
        assert 20 * RATE < len(whole) < 20 * RATE + 3000
        assert torch.equal(torch.cat(list(stream_sound(source, 0.7))), whole)
        notes = []
        assert torch.equal(read_sound(source, seconds=4, notes=notes), whole[: 4 * RATE])
        assert len(notes) == 1
        assert probe_sound(source) == ""
        assert (guessed < 15 * RATE) == (not envelope[-1])


@pytest.mark.parametrize("tags", [1, 2])
def test_tags_before_and_behind(tags):
    content = mp3_of(sound(3))
    tag = b"ID3\x03\x00\x00\x00\x00\x27\x10" + bytes(0x27 << 7 | 0x10)
    ending = b"TAG" + b"title".ljust(125)
    for one in (content, uncounted(content)):
        assert mp3.tells_length(io.BytesIO(tag * tags + one)) == (one is content)
        assert torch.equal(quiet(tag * tags + one + ending), quiet(one))


def test_a_part_is_missing():
    content = mp3_of(sound(20), bitrate_mode="CONSTANT")
    frame = frame_length(uncounted(content))
    notes = []
    assert 20 * RATE - 1200 < len(read_sound(content[: -frame // 2], name="x.mp3", notes=notes)) < 20 * RATE
    (line,) = notes
    assert line.startswith("x.mp3: its last ")
    assert line.endswith(" samples are missing.")
    for cut in (4 * frame, len(content) // 2):
        assert "x.mp3 is cut off or damaged: it holds " in refused(content[:-cut])
    middle = len(content) // 2
    assert "is cut off or damaged: it holds" in refused(content[:middle] + content[middle + 5 * frame :])


def test_an_end_that_cannot_be_known_is_read_to(capfd):
    """Of a file without a count, wherever it is cut, all frames are there, and its last half is followed by silence."""
    content = uncounted(mp3_of(sound(1.2)))
    whole = quiet(content)
    for length in range(len(content) - 400, len(content)):
        part = quiet(content[:length])
        assert len(whole) - 4 * 576 < len(part) <= len(whole)
        same = len(part) - 3 * 576
        assert torch.equal(part[:same], whole[:same])
        assert part[same:].abs().max() < 2 * whole[same - 1000 :].abs().max()
    assert capfd.readouterr() == ("", "")


def test_damage_in_the_middle():
    for content in (mp3_of(sound(8)), uncounted(mp3_of(sound(8)))):
        for damage in (bytes(3000), np.random.default_rng(0).bytes(3000)):
            middle = len(content) // 2
            assert "damaged" in refused(content[:middle] + damage + content[middle + 3000 :])
    draw, lines = np.random.default_rng(0), []
    for _ in range(40):
        broken = bytearray(content)
        for place in draw.integers(2000, len(content), 50):
            broken[place] = draw.integers(256)
        try:
            read_sound(bytes(broken), name="x.mp3", notes=[])
        except ValueError as error:
            lines.append(str(error))
    assert any("is damaged: its decoder stopped" in line for line in lines)
    assert any("is damaged: near " in line for line in lines)
    assert all(line.startswith("x.mp3 is damaged: ") for line in lines)


def test_several_in_one():
    one, other = mp3_of(sound(10)), mp3_of(sound(2))
    for second in (other, uncounted(other), b"ID3\x03\x00\x00\x00\x00\x00\x10" + bytes(16) + other):
        text = refused(one + second)
        assert text.startswith("x.mp3 is several sounds one after another, of which only the first would be read")
    assert len(read_sound(one + other, seconds=3, notes=[])) == 3 * RATE
    assert len(quiet(uncounted(one) + uncounted(other))) > 12 * RATE  # the same as one
