"""Sounds of any format come out as the same waveform; what is wrong with one is told in one line."""

import math
import os
import struct
import tracemalloc
import warnings
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image
from sound_files import encoded, quiet, said, tone, uncounted, voice
from testing_tools import close, refused
from torchaudio.functional import resample

from mmlearn.data.read import sound
from mmlearn.data.read.sound import FILTER, RATE, probe_sound, read_sound, stream_sound

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


@pytest.mark.parametrize("name", ["vorbis.ogg", "opus.ogg", "layer.mp3", "v1.mp3", "a.flac", "adpcm.wav"])
def test_blocks_have_no_seams(tmp_path, name, capfd):
    """What a decoder carries from one block to the next is kept, and it has nothing to complain of."""
    kind, subtype, _ = FORMATS.get(name, FORMATS["layer.mp3"])
    options = {"bitrate_mode": "VARIABLE", "compression_level": 0.5} if name == "v1.mp3" else {}
    noise = 0.02 * np.random.default_rng(0).standard_normal(15 * RATE)
    soundfile.write(tmp_path / name, voice(15) + noise, RATE, format=kind, subtype=subtype, **options)
    whole, _ = soundfile.read(tmp_path / name, dtype="float32")
    capfd.readouterr()
    assert len(whole) > 3 * 2**16
    close(quiet(tmp_path / name), torch.from_numpy(whole).clamp(-1, 1), 1e-6)
    assert capfd.readouterr() == ("", "")


def test_the_name_of_a_file_is_not_believed(tmp_path):
    """Some suffixes make libsndfile read anything at all as sound."""
    sound = encoded(tone())
    for suffix in ("ogg", "mp3", "raw", "vox", "gsm", "au", "txt", "sd2"):
        path = tmp_path / f"wav.{suffix}"
        path.write_bytes(sound)
        assert torch.equal(quiet(path), quiet(sound))
        path.write_bytes(bytes(range(256)) * 100)
        assert "it is none of WAV, FLAC, Ogg, MP3 and the like" in said(path)


@pytest.mark.parametrize(
    "kind", ["CAF", "VOC", "NIST", "PAF", "MAT5", "SVX", "AVR", "IRCAM", "PVF", "XI", "SD2", "HTK"]
)
def test_other_formats_are_not_opened_whatever_they_are_called(tmp_path, kind, monkeypatch):
    """Also behind a tag of ID3v2, which libsndfile skips in any format."""
    subtype = {"SVX": "PCM_16", "XI": "DPCM_16"}.get(kind, "PCM_16")
    content = encoded(tone(), kind=kind, subtype=subtype) if kind != "SD2" else b"\0" * 5000
    monkeypatch.setattr(soundfile, "SoundFile", None)
    for number, before in enumerate((b"", b"ID3\x04\0\0\0\0\0\x05hello")):
        (tmp_path / f"{number}.wav").write_bytes(before + content)
        assert "it is none of WAV, FLAC, Ogg, MP3 and the like" in said(tmp_path / f"{number}.wav")


def test_what_decoders_think_is_not_told(capfd):
    whole = encoded(tone(seconds=2.0), kind="MP3")
    generator, refused = np.random.default_rng(0), 0
    for _ in range(30):
        content = bytearray(whole)
        for place in generator.integers(len(content), size=5):
            content[place] = generator.integers(256)
        try:
            read_sound(bytes(content), notes=[])
        except ValueError:
            refused += 1
    assert 0 < refused < 30
    assert capfd.readouterr() == ("", "")
    os.write(2, b"heard again")
    assert capfd.readouterr().err == "heard again"


# Rates and channels.


@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 22_050, 32_000, 44_100, 48_000, 96_000])
@pytest.mark.parametrize("frequency", [100.0, 440.0, 3500.0])
def test_pitch_and_length_stay(rate, frequency):
    waveform = read_sound(encoded(tone(frequency, 2.0, rate), rate), notes=[])
    assert len(waveform) == 2 * RATE
    close(waveform[800:-800], torch.from_numpy(tone(frequency, 2.0))[800:-800], 2e-3)
    spectrum = torch.fft.rfft(waveform).abs()
    assert spectrum.argmax() == 2 * frequency  # bins of 0.5 Hz


def test_what_is_too_high_does_not_come_back_lower():
    waveform = read_sound(encoded(tone(11_000, 1.0, 48_000), 48_000), notes=[])
    assert waveform[200:-200].abs().max() < 1e-4
    closer = read_sound(encoded(tone(8_600, 1.0, 48_000), 48_000), notes=[])
    assert decibels(torch.from_numpy(tone()), closer[200:-200]) > 48
    just_below = read_sound(encoded(tone(7_400, 1.0, 48_000), 48_000), notes=[])
    close(just_below[200:-200], torch.from_numpy(tone(7_400))[200:-200], 2e-3)


@pytest.mark.parametrize("rate", [8_000, 11_025, 8_060, 44_100, 48_000])
@pytest.mark.parametrize("samples", [70_001, 65_536, 200_000])
def test_resampling_is_that_of_torchaudio_and_has_no_seams(rate, samples):
    sound = torch.from_numpy(voice(samples / rate, rate))[:samples]
    expected = resample(sound, rate, RATE, lowpass_filter_width=FILTER).float()  # in float64, of the whole
    waveform = read_sound(encoded(sound.numpy(), rate, subtype="DOUBLE"), notes=[])
    assert waveform.shape == expected.shape
    close(waveform, expected, 2e-6)


def test_channels_are_averaged():
    left, right = tone(440, 0.5), tone(1000, 0.5)
    sound = encoded(np.stack([left, right], 1), subtype="FLOAT")
    waveform, line = noted(sound, name="both.wav")
    close(waveform, torch.from_numpy((left + right) / 2), 1e-6)
    assert line == "both.wav: 2 channels mixed into one."
    six = np.stack([left] * 6, 1)
    assert noted(encoded(six), name="x")[1] == "x: 6 channels mixed into one."


@pytest.mark.parametrize(("rate", "written"), [(8_000, "8,000"), (48_000, "48,000"), (44_100, "44,100")])
def test_what_was_converted_is_said(tmp_path, rate, written):
    path = tmp_path / "x.flac"
    samples = tone(440, 1.0, rate)
    soundfile.write(path, np.stack([samples, samples], 1), rate)
    expected = f"{path}: 2 channels mixed into one; {written} Hz resampled to 16,000."
    assert noted(path)[1] == probe_sound(path) == expected
    notes = []
    list(stream_sound(path, 0.3, notes=notes))
    assert notes == [expected]
    assert probe_sound(encoded(tone())) == ""


def test_a_warning_comes_once_per_file(tmp_path):
    for name in ("a.wav", "b.wav"):
        soundfile.write(tmp_path / name, tone(440, 1.0, 8_000), 8_000)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for name in ("a.wav", "b.wav", "a.wav", "a.wav"):
            read_sound(tmp_path / name)
    assert [str(item.message).partition(":")[0] for item in caught] == [
        str(tmp_path / "a.wav"),
        str(tmp_path / "b.wav"),
    ]


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
    assert text == "x.wav has samples up to 1e+04: divide them so that they lie in [-1, 1]."
    assert read_sound(encoded(np.sign(tone(100, 1.0, 44_100)), 44_100), notes=[]).abs().max() == 1  # overshoots


def test_a_wav_from_a_pipe_does_not_know_its_size():
    whole = bytearray(encoded(tone()))
    for size in (0xFFFFFFFF, 0x7FFFF000, 0x7FFFFFFF):
        whole[whole.index(b"data") + 4 :][:4] = b"    "
        place = whole.index(b"data") + 4
        whole[place : place + 4] = struct.pack("<I", size)
        assert torch.equal(quiet(bytes(whole)), quiet(encoded(tone())))


# Refused.


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_samples_that_are_no_numbers(bad):
    samples = np.concatenate([tone(seconds=8), tone()])
    samples[100_000] = bad
    sound = encoded(np.stack([samples, np.zeros_like(samples)], 1), subtype="FLOAT")
    text = said(sound, name="x.wav")
    assert text.startswith("x.wav holds samples that are NaN or infinite, near ")
    start = float(text.split()[-2])
    assert start <= 100_000 / RATE < start + 2.1
    assert len(next(stream_sound(sound, 0.5, name="x.wav", notes=[]))) == 8000  # what comes before is there


@pytest.mark.parametrize("samples", [0, 1, 100, 399])
def test_shorter_than_a_window(samples):
    text = said(encoded(tone()[:samples]), name="x.wav")
    assert text.startswith("x.wav lasts ")
    assert text.endswith(" ms, less than a window of 25.")
    said(encoded(tone()[:samples]), name="x.wav", read=lambda *a, **k: list(stream_sound(*a, 1.0, **k)))
    assert len(quiet(encoded(tone()[:400]))) == 400


def test_empty_missing_and_folders(tmp_path):
    path = tmp_path / "x.ogg"
    assert said(path, FileNotFoundError) == f"There is no sound {path}."
    path.write_bytes(b"")
    assert said(path) == f"{path} is empty (0 bytes)."
    assert said(tmp_path, FileNotFoundError) == f"There is no sound {tmp_path}."
    assert said(b"", name="x in y.zip") == "x in y.zip is empty (0 bytes)."
    for read in (probe_sound, lambda source: next(stream_sound(source, 1.0))):
        assert said(path, read=read) == f"{path} is empty (0 bytes)."


@pytest.mark.parametrize("share", [0.999, 0.9, 0.5, 0.1])
@pytest.mark.parametrize("name", [name for name in FORMATS if name != "layer.mp3"])
def test_a_file_that_is_cut_off(tmp_path, name, share):
    kind, subtype, _ = FORMATS[name]
    path = tmp_path / name
    soundfile.write(path, np.concatenate([tone(), voice(2)]), RATE, format=kind, subtype=subtype)
    quiet(path)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    text = said(path)
    assert any(words in text for words in ("is cut off", "lost sync", "malformed")), text


def test_a_long_file_that_is_cut_off_is_told_by_its_last_page(tmp_path):
    for name in ("vorbis.ogg", "opus.ogg"):
        path = tmp_path / name
        kind, subtype, _ = FORMATS[name]
        path.write_bytes(encoded(voice(24), RATE, kind, subtype))
        quiet(path)
        whole = path.read_bytes()
        pages = [i for i in range(len(whole)) if whole[i : i + 4] == b"OggS"]
        path.write_bytes(whole[: pages[-1] - 5])
        assert said(path, read=probe_sound) == f"{path} is cut off: its last page is not complete."
        path.write_bytes(whole[: pages[-1] + 10])
        assert said(path).endswith("its last page is not complete.")
        path.write_bytes(whole[: pages[-1]])  # nothing is missing of the pages that are there
        assert noted(path)[1] == f"{path}: its end is not marked, so it may be cut off."


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"\xff\xd8\xff\xe0" + bytes(500), "it is a JPEG picture."),
        (b"%PDF-1.7" + bytes(500), "it is a PDF document."),
        (b"\x00\x00\x00\x20ftypM4A " + bytes(500), "it is MP4 or AAC; turn it into WAV, FLAC, Ogg or MP3."),
        (b"\x00\x00\x00\x20ftypheic" + bytes(500), "it is a HEIF or AVIF picture."),
        (b"\x00\x00\x00\x20ftypmif1" + bytes(500), "it is a HEIF or AVIF picture."),
        (b"\x00\x00\x00\x20ftypavif" + bytes(500), "it is a HEIF or AVIF picture."),
        (b"\xff\xf1\x50\x80" + bytes(500), "it is MP4 or AAC; turn it into"),
        (b"\xff\xd8", "it is none of"),
        (b"\xff", "it is none of"),
        (b"<!DOCTYPE html><title>404</title>", "it is a web page."),
        (b"captions,sound\n" * 50, "it is none of WAV, FLAC, Ogg, MP3 and the like."),
        (b"RIFF", "it is none of"),
        (bytes(3000), "it is none of"),
        (b"\xff\xfb\x90\x00" + bytes(3000), "it is none of"),
        (b"OggS\x00\x02" + bytes(3000), "is damaged: the page of Ogg at byte 0 is not as it was written"),
        (b"fLaC\x00\x00\x00\x22" + bytes(3000), "cannot be read as a sound"),
    ],
)
def test_what_is_no_sound(tmp_path, content, says):
    path = tmp_path / "x.ogg"
    path.write_bytes(content)
    assert says in said(path)
    assert says in said(content, name="some name")


def test_a_picture_named_as_a_sound(tmp_path):
    path = tmp_path / "x.ogg"
    Image.new("RGB", (99, 99), "red").save(path, format="PNG")
    assert said(path) == f"{path} cannot be read as a sound: it is a PNG picture."


def test_a_codec_that_is_not_supported():
    sound = bytearray(encoded(tone()))
    for codec in (0x161, 0xFF, 0x5346):  # WMA, AAC, and one that there is not
        expected = f"x.wav cannot be read as a sound: its codec, number 0x{codec:X}, is not supported; turn it into PCM"
        sound[20:22] = struct.pack("<H", codec)
        assert expected in said(bytes(sound), name="x.wav")
        later = sound[:12] + b"JUNK" + struct.pack("<I", 64) + bytes(64) + sound[12:]
        assert expected in said(bytes(later), name="x.wav")
    sound[20:22] = struct.pack("<H", 0x0055)  # MP3 within WAV, as if it had three bits
    assert "codec" not in said(bytes(sound), name="x.wav")
    sound[20:22], sound[34:36] = struct.pack("<H", 1), struct.pack("<H", 99)  # PCM of so many bits
    assert "codec" not in said(bytes(sound), name="x.wav")


def test_mp3_within_wav():
    """It does not tell its length, and what libsndfile guesses is no promise."""
    head = struct.pack("<HHIIHHHHIHHH", 0x55, 1, RATE, 4000, 1, 0, 12, 1, 2, 144, 1, 0)
    for mode in ("CONSTANT", "VARIABLE"):
        data = uncounted(encoded(voice(20), kind="MP3", bitrate_mode=mode, compression_level=0.5))
        chunks = b"WAVEfmt " + struct.pack("<I", len(head)) + head + b"data" + struct.pack("<I", len(data)) + data
        sound = b"RIFF" + struct.pack("<I", len(chunks)) + chunks
        if mode == "CONSTANT":
            assert 20 * RATE - 1200 < len(quiet(sound)) < 20 * RATE + 2500
        else:  # frames that differ in size
            assert "x.wav is MP3 within WAV that does not tell its length: its decoder" in said(sound, name="x.wav")


@pytest.mark.parametrize("rate", [1, 3_999, 384_001, 2**31 - 1])
def test_a_rate_that_cannot_be_meant(rate):
    sound = bytearray(encoded(tone()))
    sound[24:28] = struct.pack("<I", rate)
    assert said(bytes(sound), name="x").startswith(f"x has {rate:,} samples a second, expected 4,000 to 384,000")


def test_a_rate_that_would_need_an_enormous_filter():
    text = said(encoded(tone(), 44_101), name="x")
    assert text == "x has 44,101 samples a second, an odd number: turn it into 16,000."


def test_files_at_random():
    """Whatever bytes: a sound, or one line."""
    draw = np.random.default_rng(0)
    for kind, subtype, _ in list(FORMATS.values())[:8:2]:
        whole = encoded(voice(0.3), kind=kind, subtype=subtype)
        for _ in range(25):
            broken = bytearray(whole)
            for place in draw.integers(0, len(whole), 5):
                broken[place] = draw.integers(256)
            try:
                waveform = read_sound(bytes(broken), name="x", notes=[])
                assert waveform.isfinite().all()
                assert waveform.abs().max() <= 1
            except ValueError as error:
                assert str(error).startswith("x ")  # noqa: PT017


# Long files.


@pytest.fixture(scope="module")
def hour(tmp_path_factory):
    """An hour; each second of a minute is louder than the one before, so that parts can be told apart."""
    path = tmp_path_factory.mktemp("hour") / "hour.flac"
    minute = np.concatenate([tone(50, amplitude=(number + 1) / 100) for number in range(60)])
    with soundfile.SoundFile(path, "w", RATE, 1, subtype="PCM_16", compression_level=0) as file:
        for _ in range(60):
            file.write(minute)
    return path


def test_an_hour_is_streamed_in_the_memory_of_a_part(hour):
    list(stream_sound(encoded(tone()), 1.0))  # imports come before
    tracemalloc.start()
    total, loudness = 0, []
    for part in stream_sound(hour, 20.0):
        total += len(part)
        loudness += part.view(-1, RATE).amax(1).tolist()
    _, peak = tracemalloc.get_traced_memory()  # of numpy and Python; the next test is of tensors
    tracemalloc.stop()
    assert total == 3600 * RATE
    close(torch.tensor(loudness), torch.arange(1, 61).repeat(60) / 100, 2e-3)
    assert peak < 3 * 2**20


def test_resampling_holds_a_few_blocks(monkeypatch):
    for rate in (8_000, 8_060, 48_000):
        lengths, filter = [], sound._resampler(rate)

        def resampler(_, filter=filter, lengths=lengths):
            def counting(x):
                lengths.append(x.untyped_storage().nbytes() // x.element_size())
                return filter(x)

            counting.width = filter.width
            return counting

        monkeypatch.setattr(sound, "_resampler", resampler)
        blocks = (torch.zeros(5_000) for _ in range(60))
        assert sum(len(block) for block in sound._resampled(blocks, rate)) == math.ceil(300_000 / rate * RATE)
        assert max(lengths) < 3 * 5_000 + rate
        assert len(lengths) > 20
        monkeypatch.undo()


def test_only_what_is_asked_for_is_read(hour, monkeypatch):
    frames, original = [], soundfile.SoundFile.read

    def read(self, count, **options):
        frames.append(count)
        return original(self, count, **options)

    monkeypatch.setattr(soundfile.SoundFile, "read", read)
    waveform, line = noted(hour, seconds=2.5)
    assert len(waveform) == 2.5 * RATE
    assert line == f"{hour}: only its first 2.5 s are taken."
    next(stream_sound(hour, 2.5))
    assert sum(frames) < 3 * 2**16 + 5 * RATE
    text = said(hour)
    assert text.endswith("is longer than 10 minutes: take a part with seconds=…, or go through it with stream_sound.")


@pytest.mark.parametrize("rate", [16_000, 44_100, 8_000])
@pytest.mark.parametrize("seconds", [0.01, 0.7, 1.0, 5.0, 100.0])
def test_parts_are_the_whole(rate, seconds):
    sound = encoded(voice(5, rate), rate, subtype="FLOAT")
    parts = list(stream_sound(sound, seconds, notes=[]))
    assert {len(part) for part in parts[:-1]} <= {round(seconds * RATE)}
    assert 0 < len(parts[-1]) <= round(seconds * RATE)
    assert torch.equal(torch.cat(parts), read_sound(sound, notes=[]))


def test_a_part_has_a_length(hour):
    refused(r"Parts of 1e-05 s hold no sample: give more seconds\.", next, stream_sound(hour, 1e-5))


def test_files_are_closed(tmp_path):
    soundfile.write(tmp_path / "x.wav", tone(seconds=20), RATE)
    folder = Path("/proc/self/fd")
    if not folder.exists():
        pytest.skip("counts open files by /proc")
    before = len(list(folder.iterdir()))
    for _ in range(3):
        read_sound(tmp_path / "x.wav")
        read_sound(tmp_path / "x.wav", seconds=0.1, notes=[])
        next(stream_sound(tmp_path / "x.wav", 0.5))
        probe_sound(tmp_path / "x.wav")
    assert len(list(folder.iterdir())) == before
