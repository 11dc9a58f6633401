"""MP3: all of a whole file is read, whether it tells its length or not, and damage is found where it can be."""

import io
import itertools
from functools import partial

import numpy as np
import pytest
import soundfile
import torch
from testing_tools import read_quietly, refusal

from mmlearn.data.read import mp3
from mmlearn.data.read.sound import RATE, probe_sound, read_sound, stream_sound

DELAY = 1105 - 529  # samples of LAME's encoder, less what libmpg123 leaves out of its decoder's


def encoded(sound, rate=RATE, mode="VARIABLE", level=0.5):
    file = io.BytesIO()
    soundfile.write(file, sound, rate, format="MP3", bitrate_mode=mode, compression_level=level)
    return file.getvalue()


def first_frame(content):
    """Where the frame of an MP3 without tags ends that holds the count."""
    count = mp3._length(content)
    assert b"Info" in content[:count] or b"Xing" in content[:count]
    return count


def uncounted(content):
    return content[first_frame(content) :]


def sound(seconds, rate=RATE, channels=1):
    """Quiet, and then not: frames that differ in size."""
    time = np.arange(round(seconds * rate)) / rate
    one = sum(0.1 * np.sin(2 * np.pi * f * time + 3 * np.sin(f * time / 100)) for f in (131, 412, 1290, 2950))
    one += 0.05 * np.random.default_rng(0).standard_normal(len(time))
    one *= 0.05 + np.sin(np.pi * time / seconds) ** 2
    return one[:, None] * np.linspace(1, 0.5, channels)


said = partial(refusal, name="x.mp3")


RATES = (8_000, 11_025, 16_000, 22_050, 44_100, 48_000)


@pytest.mark.parametrize("mode", ["CONSTANT", "VARIABLE"])
@pytest.mark.parametrize("rate", RATES)
def test_whole_files(rate, mode, capfd):
    for channels, seconds in itertools.product((1, 2), (0.05, 0.5, 1.37, 11)):
        content, notes = encoded(sound(seconds, rate, channels), rate, mode), []
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
        content = encoded(noise * envelope, level=0.7)
        path = tmp_path / "x.mp3"
        path.write_bytes(uncounted(content))
        source = path if name == "path" else path.read_bytes()
        guessed = len(soundfile.read(path)[0])
        whole = read_quietly(source)
        assert 20 * RATE < len(whole) < 20 * RATE + 3000
        assert torch.equal(torch.cat(list(stream_sound(source, 0.7))), whole)
        notes = []
        assert torch.equal(read_sound(source, seconds=4, notes=notes), whole[: 4 * RATE])
        assert len(notes) == 1
        assert probe_sound(source) == ""
        assert (guessed < 15 * RATE) == (not envelope[-1])


@pytest.mark.parametrize("mono", [True, False])
@pytest.mark.parametrize("rate", [8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000])
def test_the_frame_that_counts(rate, mono):
    """It is found as libmpg123 looks for it, and as long as its head says."""
    content = uncounted(encoded(sound(0.5, rate, 1 if mono else 2), rate))
    joined = mp3.counted(io.BytesIO(content))
    front = joined.read(2000)
    length = mp3._length(front)
    assert mp3._tells_count(front)
    assert front[length:] == content[: len(front) - length]
    joined.seek(0)
    with soundfile.SoundFile(joined) as file:
        assert file.frames > 3 * 0.5 * rate
        assert (file.samplerate, file.channels) == (rate, 1 if mono else 2)


def test_lengths_of_frames():
    """Those of the specification: 144 (or 72) times the bits of a second over the samples of one."""
    assert mp3._length(b"\xff\xfb\x90\x00") == 144 * 128_000 // 44_100 == 417
    assert mp3._length(b"\xff\xfb\x92\x00") == 418  # padded
    assert mp3._length(b"\xff\xf3\x84\x00") == 72 * 64_000 // 24_000 == 192
    assert mp3._length(b"\xff\xe3\x18\x00") == 72 * 8_000 // 8_000 == 72
    for head in (
        b"\xff\xfd\x90\x00",
        b"\xff\xf1\x50\x80",
        b"\xff\xfb\xf0\x00",
        b"\xff\xfb\x00\x00",
        b"\xff\xfb\x9c\x00",
    ):
        assert mp3._length(head) == 0  # layer II, AAC, and what is reserved or free
    assert mp3._length(b"ID3\x03") == mp3._length(b"RIFF") == mp3._length(b"\xff\xeb\x90\x00") == 0


@pytest.mark.parametrize("tags", [1, 2])
def test_tags_before_and_behind(tags):
    content = encoded(sound(3))
    tag = b"ID3\x03\x00\x00\x00\x00\x27\x10" + bytes(0x27 << 7 | 0x10)
    ending = b"TAG" + b"title".ljust(125)
    for one in (content, uncounted(content)):
        assert torch.equal(read_quietly(tag * tags + one + ending), read_quietly(one))


def test_other_formats_are_left_alone():
    for kind in ("WAV", "FLAC", "OGG"):
        file = io.BytesIO()
        soundfile.write(file, sound(1), RATE, format=kind)
        file.seek(0)
        assert mp3.counted(file) is None
        assert file.tell() == 0
    for content in (b"", b"\xff", b"ID3", b"\xff\xfb\x90", b"ID3\x03\0\0\0\0\0\0", b"\xff" * 5000, bytes(5000)):
        assert mp3.counted(io.BytesIO(content)) is None


def test_a_part_is_missing():
    content = encoded(sound(20), mode="CONSTANT")
    frame = mp3._length(content[first_frame(content) :])
    notes = []
    assert 20 * RATE - 1200 < len(read_sound(content[: -frame // 2], name="x.mp3", notes=notes)) < 20 * RATE
    (line,) = notes
    assert line.startswith("x.mp3: its last ")
    assert line.endswith(" samples are missing.")
    for cut in (4 * frame, len(content) // 2):
        assert "x.mp3 is cut off or damaged: it holds " in said(content[:-cut])
    middle = len(content) // 2
    assert "is cut off or damaged: it holds" in said(content[:middle] + content[middle + 5 * frame :])


def test_damage_in_the_middle():
    for content in (encoded(sound(8)), uncounted(encoded(sound(8)))):
        for damage in (bytes(3000), np.random.default_rng(0).bytes(3000)):
            middle = len(content) // 2
            assert "damaged" in said(content[:middle] + damage + content[middle + 3000 :])
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
    one, other = encoded(sound(10)), encoded(sound(2))
    for second in (other, uncounted(other), b"ID3\x03\x00\x00\x00\x00\x00\x10" + bytes(16) + other):
        text = said(one + second)
        assert text.startswith("x.mp3 is several sounds one after another, of which only the first would be read")
    assert len(read_sound(one + other, seconds=3, notes=[])) == 3 * RATE
    assert len(read_quietly(uncounted(one) + uncounted(other))) > 12 * RATE  # the same as one
