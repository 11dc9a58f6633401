"""Sounds of any format come out as the same waveform; what is wrong with one is told in one line."""

import math
import os
import struct
import warnings
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from sound_files import encoded, frame_length, quiet, said, tone, uncounted, voice
from testing_tools import close
from torchaudio.functional import resample

from mmlearn.data.readers.sound import FILTER, RATE, probe_sound, read_sound

FORMATS = {
    "pcm.wav": ("WAV", "PCM_16", 60),
    "24.wav": ("WAV", "PCM_24", 60),
    "float.wav": ("WAV", "FLOAT", 60),
    "u8.wav": ("WAV", "PCM_U8", 29),
    "a.flac": ("FLAC", "PCM_16", 60),
    "vorbis.ogg": ("OGG", "VORBIS", 20),
    "opus.ogg": ("OGG", "OPUS", 15),
    "layer.mp3": ("MP3", "MPEG_LAYER_III", 20),
    "a.aiff": ("AIFF", "PCM_16", 60),
    "a.au": ("AU", "PCM_16", 60),
    "a.rf64": ("RF64", "PCM_16", 60),
    "a.w64": ("W64", "PCM_16", 60),
    "adpcm.wav": ("WAV", "IMA_ADPCM", 20),
}
LOSSY = {"VORBIS": "OGG", "OPUS": "OGG", "MPEG_LAYER_III": "MP3"}


def noted(source, **options):
    """A sound, and the one line that is said of it."""
    notes = []
    waveform = read_sound(source, notes=notes, **options)
    (line,) = notes
    assert "\n" not in line
    return waveform, line


def decibels(signal, error):
    return 10 * math.log10(float(signal.square().mean() / error.square().mean().clamp(min=1e-20)))


# Formats.


@pytest.mark.parametrize("name", FORMATS)
def test_formats(tmp_path, name):
    kind, subtype, fidelity = FORMATS[name]
    samples = voice(1.5).astype(np.float32)
    soundfile.write(tmp_path / name, samples, RATE, format=kind, subtype=subtype)
    waveform = quiet(tmp_path / name)
    assert waveform.dtype == torch.float32
    longer = 2000 if subtype == "IMA_ADPCM" else 0  # its blocks have a fixed size
    assert len(samples) <= len(waveform) <= len(samples) + longer
    samples = torch.from_numpy(samples)
    assert decibels(samples[:20_000], waveform[:20_000] - samples[:20_000]) > fidelity
    assert torch.equal(quiet((tmp_path / name).read_bytes()), waveform)
    assert torch.equal(quiet(str(tmp_path / name)), waveform)


@pytest.mark.parametrize("subtype", LOSSY)
@pytest.mark.parametrize("rate", [8_000, 44_100, 48_000])
def test_whole_files_of_any_length(subtype, rate, capfd):
    if (subtype, rate) == ("OPUS", 44_100):
        pytest.skip("Opus has no such rate")
    for channels, seconds in ((1, 0.05), (2, 0.5), (1, 1.37), (2, 11)):
        notes = []
        content = encoded(voice(seconds, rate, channels, noise=0.01), rate, LOSSY[subtype], subtype)
        assert abs(len(read_sound(content, name="x", notes=notes)) - seconds * RATE) <= 1
        assert not any(word in "".join(notes) for word in ("damaged", "missing", "cut"))
    assert capfd.readouterr() == ("", "")


def test_the_name_of_a_file_is_not_believed(tmp_path):
    """Some suffixes make libsndfile read anything at all as sound."""
    sound = encoded(tone())
    for suffix in ("ogg", "mp3", "raw", "vox", "gsm", "au", "txt", "sd2"):
        path = tmp_path / f"wav.{suffix}"
        path.write_bytes(sound)
        assert torch.equal(quiet(path), quiet(sound))
        path.write_bytes(bytes(range(256)) * 100)
        assert "cannot be read as a sound (Format not recognised)" in said(path)


# Rates and channels.


def test_what_is_too_high_does_not_come_back_lower():
    waveform = read_sound(encoded(tone(11_000, 1.0, 48_000), 48_000), notes=[])
    assert waveform[200:-200].abs().max() < 1e-4
    closer = read_sound(encoded(tone(8_600, 1.0, 48_000), 48_000), notes=[])
    assert decibels(torch.from_numpy(tone()), closer[200:-200]) > 48
    just_below = read_sound(encoded(tone(7_400, 1.0, 48_000), 48_000), notes=[])
    close(just_below[200:-200], torch.from_numpy(tone(7_400))[200:-200], 2e-3)


@pytest.mark.parametrize("rate", [8_000, 11_025, 8_060, 44_100, 48_000])
def test_resampling_is_that_of_torchaudio_and_a_part_is_that_of_the_whole(rate):
    sound = torch.from_numpy(voice(100_001 / rate, rate))[:100_001]
    expected = resample(sound, rate, RATE, lowpass_filter_width=FILTER).float()  # in float64
    content = encoded(sound.numpy(), rate, subtype="DOUBLE")
    waveform = read_sound(content, notes=[])
    assert waveform.shape == expected.shape
    close(waveform, expected, 2e-6)
    part, line = noted(content, name="x", seconds=0.7)
    close(part, waveform[: round(0.7 * RATE)], 1e-6)
    assert "only its first 0.7 s are taken" in line


def test_channels_are_averaged():
    left, right = tone(440, 0.5), tone(1000, 0.5)
    sound = encoded(np.stack([left, right], 1), subtype="FLOAT")
    waveform, line = noted(sound, name="both.wav")
    close(waveform, torch.from_numpy((left + right) / 2), 1e-6)
    assert line == "both.wav: 2 channels mixed into one."
    six = np.stack([left] * 6, 1)
    assert noted(encoded(six), name="x")[1] == "x: 6 channels mixed into one."


@pytest.mark.parametrize(("rate", "written"), [(8_000, "8,000"), (48_000, "48,000")])
def test_what_was_converted_is_said(tmp_path, rate, written):
    path = tmp_path / "x.flac"
    samples = tone(440, 1.0, rate)
    soundfile.write(path, np.stack([samples, samples], 1), rate)
    expected = f"{path}: 2 channels mixed into one; {written} Hz resampled to 16,000."
    assert noted(path)[1] == probe_sound(path) == expected
    assert probe_sound(encoded(tone())) == ""


def test_a_warning_comes_once_per_file(tmp_path):
    for name in ("a.wav", "b.wav"):
        soundfile.write(tmp_path / name, tone(440, 1.0, 8_000), 8_000)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for name in ("a.wav", "b.wav", "a.wav", "a.wav"):
            read_sound(tmp_path / name)
    expected = [str(tmp_path / "a.wav"), str(tmp_path / "b.wav")]
    assert [str(item.message).partition(":")[0] for item in caught] == expected


# Odd, but read.


def test_silence_is_reported():
    for samples in (np.zeros(8000, np.float32), 3e-5 * np.sign(tone(50))):
        waveform, line = noted(encoded(samples), name="x.wav")
        assert waveform.abs().max() < 1e-4
        assert line == "x.wav: silent."
    opposite = np.stack([tone(), -tone()], 1)
    assert noted(encoded(opposite), name="x")[1] == "x: 2 channels mixed into one; silent, as its channels cancel out."
    assert len(quiet(encoded(tone(amplitude=0.001), subtype="FLOAT"))) == RATE


def test_clipping_is_reported():
    loud = (3 * tone()).clip(-1, 1)
    waveform, line = noted(encoded(loud), name="x.wav")
    assert line == "x.wav: clipped, 0.55 of its samples are at full scale."
    assert waveform.abs().max() <= 1
    full = tone()
    full[::2000] = 1.0  # some peaks at full scale are none
    quiet(encoded(full))
    channels = np.stack([loud, 0 * loud], 1)
    assert "clipped, 0.27 of" in noted(encoded(channels), name="x")[1]  # before they are mixed


def test_samples_beyond_full_scale():
    waveform, line = noted(encoded(3 * tone(), subtype="FLOAT"), name="x")
    assert (waveform.min(), waveform.max()) == (-1, 1)
    assert "clipped" in line
    text = said(encoded(20_000 * tone(), subtype="FLOAT"), name="x.wav")
    assert text == "x.wav is damaged, or not in [-1, 1]: it has samples up to 1e+04."
    assert read_sound(encoded(np.sign(tone(100, 1.0, 44_100)), 44_100), notes=[]).abs().max() == 1  # overshoots


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0x7FFFF000, 0x7FFFFFFF])
def test_a_wav_from_a_pipe_does_not_know_its_size(size):
    whole = bytearray(encoded(tone()))
    start = whole.index(b"data") + 4
    whole[start : start + 4] = struct.pack("<I", size)
    assert torch.equal(quiet(bytes(whole)), quiet(encoded(tone())))


@pytest.mark.parametrize("subtype", LOSSY)
@pytest.mark.parametrize("more", [b"TAG" + bytes(125), b"APETAGEX" + bytes(20_000)])
def test_tags_behind_do_no_harm(subtype, more):
    whole = encoded(voice(3), kind=LOSSY[subtype], subtype=subtype)
    assert torch.equal(quiet(whole + more), quiet(whole))


# Refused.


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_samples_that_are_no_numbers(bad):
    samples = np.concatenate([tone(seconds=8), tone()])
    samples[100_000] = bad
    sound = encoded(np.stack([samples, np.zeros_like(samples)], 1), subtype="FLOAT")
    assert said(sound, name="x.wav") == "x.wav holds samples that are NaN or infinite, near 6.2 s."
    assert len(read_sound(sound, seconds=5, notes=[])) == 5 * RATE  # what comes before is there


@pytest.mark.parametrize("samples", [1, 100, 399])
def test_shorter_than_a_window(samples):
    text = said(encoded(tone()[:samples]), name="x.wav")
    assert text.startswith("x.wav lasts ")
    assert text.endswith(" ms, less than a window of 25.")
    assert len(quiet(encoded(tone()[:400]))) == 400
    assert said(encoded(tone()[:0]), name="x.wav") == "x.wav is empty or damaged: no sample of it can be decoded."


def test_empty_missing_and_folders(tmp_path):
    path = tmp_path / "x.ogg"
    assert said(path, FileNotFoundError) == f"There is no sound {path}."
    path.write_bytes(b"")
    assert said(path) == said(path, read=probe_sound) == f"{path} is empty (0 bytes)."
    assert said(tmp_path, FileNotFoundError) == f"There is no sound {tmp_path}."
    assert said(b"", name="x in y.zip") == "x in y.zip is empty (0 bytes)."


@pytest.mark.parametrize("share", [0.999, 0.9, 0.5, 0.1])
@pytest.mark.parametrize("name", [name for name in FORMATS if name != "layer.mp3"])
def test_a_file_that_is_cut_off(tmp_path, name, share):
    kind, subtype, _ = FORMATS[name]
    path = tmp_path / name
    path.write_bytes(encoded(np.concatenate([tone(), voice(2)]), kind=kind, subtype=subtype))
    quiet(path)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    text = said(path)
    assert any(words in text for words in ("is cut off", "cannot be read as a sound", "is empty or damaged")), text


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_ogg_that_ends_too_early(subtype):
    whole = encoded(voice(24), kind="OGG", subtype=subtype)
    last = whole.rindex(b"OggS")
    for end in (last + 10, len(whole) - 1):
        assert said(whole[:end], name="x.ogg") == "x.ogg is cut off: its last page is not complete."
    # Nothing is missing of the pages that are there, as where a running stream was recorded.
    assert noted(whole[:last], name="x.ogg")[1] == "x.ogg: its end is not marked, so it may be cut off."


@pytest.mark.parametrize("subtype", LOSSY)
def test_damage_in_the_middle(subtype):
    """The decoder passes over what it cannot read, and so has fewer samples than the file says."""
    whole, draw = encoded(voice(20, noise=0.01), kind=LOSSY[subtype], subtype=subtype), np.random.default_rng(1)
    for start in draw.integers(len(whole) // 4, len(whole) // 2, 4):
        for damage in (bytes(9000), draw.bytes(9000)):
            broken = whole[:start] + damage + whole[start + 9000 :]
            text = said(broken, name="x", notes=[])
            assert "damaged" in text
        assert "damaged" in said(whole[:start] + whole[start + 9000 :], name="x", notes=[])  # a part is missing


@pytest.mark.parametrize("mode", ["CONSTANT", "VARIABLE"])
def test_mp3_that_does_not_tell_its_length(mode):
    """Of frames of one size libsndfile guesses it; of others it would read a part, and nobody would know."""
    content = uncounted(encoded(voice(20, noise=0.05), kind="MP3", bitrate_mode=mode, compression_level=0.5))
    if mode == "CONSTANT":
        assert 20 * RATE < len(quiet(content)) < 20 * RATE + 3000
        assert len(read_sound(content[: -frame_length(content) // 2], notes=[])) > 20 * RATE - 1200
    else:
        assert "does not tell its length: more follows what can be decoded. Take" in said(content, name="x.mp3")


def test_mp3_that_is_cut_off():
    whole = encoded(voice(20), kind="MP3")
    assert "x.mp3 is cut off or damaged, or does not tell its length: it holds " in said(
        whole[: len(whole) // 2], name="x.mp3"
    )


@pytest.mark.parametrize("subtype", LOSSY)
def test_several_in_one(subtype):
    one, other = (encoded(voice(seconds), kind=LOSSY[subtype], subtype=subtype) for seconds in (10, 3))
    assert "x is damaged, holds several sounds, or does not tell its length" in said(one + other, name="x")
    assert len(read_sound(one + other, seconds=3, notes=[])) == 3 * RATE


@pytest.mark.parametrize(
    "content",
    [
        b"\xff\xd8\xff\xe0" + bytes(500),  # JPEG
        b"\x89PNG\r\n\x1a\n" + bytes(500),
        b"%PDF-1.7" + bytes(500),
        b"\x00\x00\x00\x20ftypM4A " + bytes(500),
        b"\xff\xf1\x50\x80" + bytes(500),  # AAC
        b"\xff",
        b"<!DOCTYPE html><title>404</title>",
        b"captions,sound\n" * 50,
        b"RIFF",
        bytes(3000),
        b"\xff\xfb\x90\x00" + bytes(3000),  # MP3
        b"OggS\x00\x02" + bytes(3000),
        b"fLaC\x00\x00\x00\x22" + bytes(3000),
    ],
)
def test_what_is_no_sound(tmp_path, content, capfd):
    path = tmp_path / "x.ogg"
    path.write_bytes(content)
    for source, options in ((path, {}), (content, {"name": "some name"})):
        text = said(source, **options)
        assert "is cut off" in text or "expected WAV, FLAC, Ogg, MP3 or the like" in text
        assert "does not exist" not in text
    assert capfd.readouterr() == ("", "")


def test_a_codec_that_is_not_supported():
    sound = bytearray(encoded(tone()))
    for codec in (0x161, 0xFF, 0x5346):  # WMA, AAC, and one that there is not
        sound[20:22] = struct.pack("<H", codec)
        assert "x.wav cannot be read as a sound (" in said(bytes(sound), name="x.wav")


@pytest.mark.parametrize("rate", [1, 3_999, 384_001, 2**31 - 1, 44_101])
def test_a_rate_that_cannot_be_meant(rate):
    """The last would need an enormous filter."""
    sound = bytearray(encoded(tone()))
    sound[24:28] = struct.pack("<I", rate)
    expected = "an odd number: turn it into 16,000." if rate == 44_101 else "expected 4,000 to 384,000."
    assert said(bytes(sound), name="x") == f"x has {rate:,} samples a second, {expected}"


@pytest.mark.parametrize("name", list(FORMATS)[1:8:2])
def test_files_at_random(name, capfd):
    """Whatever bytes: a sound, or one line; what a decoder thinks of them is not told."""
    draw, (kind, subtype, _) = np.random.default_rng(0), FORMATS[name]
    whole = encoded(voice(0.3), kind=kind, subtype=subtype)
    for _ in range(25):
        broken = bytearray(whole)
        for position in draw.integers(0, len(whole), 5):
            broken[position] = draw.integers(256)
        try:
            waveform = read_sound(bytes(broken), name="x", notes=[])
            assert waveform.isfinite().all()
            assert waveform.abs().max() <= 1
        except ValueError as error:
            assert str(error).startswith("x ")  # noqa: PT017
    assert capfd.readouterr() == ("", "")
    os.write(2, b"heard again")
    assert capfd.readouterr().err == "heard again"


# Long files.


def test_only_what_is_asked_for_is_read(tmp_path, monkeypatch):
    path = tmp_path / "long.flac"
    with soundfile.SoundFile(path, "w", RATE, 1, subtype="PCM_16", compression_level=0) as file:
        for _ in range(11):
            file.write(np.tile(tone(50), 60))
    frames, original = [], soundfile.SoundFile.read

    def read(self, count, **options):
        frames.append(count)
        return original(self, count, **options)

    monkeypatch.setattr(soundfile.SoundFile, "read", read)
    waveform, line = noted(path, seconds=2.5)
    assert len(waveform) == 2.5 * RATE
    assert line == f"{path}: only its first 2.5 s are taken."
    assert sum(frames) < 3 * RATE
    assert said(path).endswith("is longer than 10 minutes: take a part with seconds=…, or cut it.")


def test_files_are_closed(tmp_path):
    soundfile.write(tmp_path / "x.wav", tone(seconds=20), RATE)
    folder = Path("/proc/self/fd")
    if not folder.exists():
        pytest.skip("counts open files by /proc")
    before = len(list(folder.iterdir()))
    for _ in range(3):
        read_sound(tmp_path / "x.wav")
        read_sound(tmp_path / "x.wav", seconds=0.1, notes=[])
        probe_sound(tmp_path / "x.wav")
    assert len(list(folder.iterdir())) == before
