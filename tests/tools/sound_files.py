"""Sounds to test readers with, as files of any format, and what readers say of them."""

import io
import warnings

import numpy as np
import pytest
import soundfile

from mmlearn.data.readers.sound import RATE, read_sound


def tone(frequency=440.0, seconds=1.0, rate=RATE, amplitude=0.5):
    """A sine, (samples,)."""
    return (amplitude * np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def voice(seconds, rate=RATE, channels=1, noise=0.0):
    """Something with all frequencies below 3 kHz, changing all the time, (samples,) or (samples, channels)."""
    time = np.arange(round(seconds * rate)) / rate
    one = sum(0.1 * np.sin(2 * np.pi * f * time + 3 * np.sin(f * time / 100)) for f in (131, 412, 1290, 2950))
    one = one + noise * np.random.default_rng(0).standard_normal(len(time))
    return one if channels == 1 else one[:, None] * np.linspace(1, 0.5, channels)


def encoded(samples, rate=RATE, kind="WAV", subtype=None, **options):
    """The bytes of a file."""
    file = io.BytesIO()
    channels = samples.shape[1] if samples.ndim > 1 else 1
    with soundfile.SoundFile(file, "w", rate, channels, format=kind, subtype=subtype, **options) as out:
        for part in np.array_split(samples, 1 + len(samples) // (5 * rate)):  # more does not fit Vorbis's stack
            out.write(part)
    return file.getvalue()


def quiet(source, **options):
    """A sound of which there is nothing to be said."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return read_sound(source, **options)


def said(source, error=ValueError, read=read_sound, **options):
    """The line with which a sound is refused; it names the file."""
    with pytest.raises(error) as caught:
        read(source, **options)
    text = str(caught.value)
    assert "\n" not in text
    assert (str(source) if not isinstance(source, bytes) else options["name"]) in text
    return text


def frame_length(head):
    """Bytes of the frame of MPEG layer III with this head: 144, or 72, times the bits of a second over its samples."""
    version, bitrate, rate, padded = head[1] >> 3 & 3, head[2] >> 4, head[2] >> 2 & 3, head[2] >> 1 & 1
    rates = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}[version]
    if version == 3:
        kbps = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)[bitrate]
    else:
        kbps = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)[bitrate]
    return (144 if version == 3 else 72) * 1000 * kbps // rates[rate] + padded


def uncounted(content):
    """An MP3 without the frame that tells its length."""
    length = frame_length(content)
    assert b"Info" in content[:length] or b"Xing" in content[:length]
    return content[length:]
