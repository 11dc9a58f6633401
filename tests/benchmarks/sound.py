"""Hours of sound that a minute reads and turns into log-mel, by format and rate, on one thread: for ``make bench``.

A file holds a minute of something like speech. It is written once, then read and turned into a spectrogram again and
again; the median counts. ``decoded`` is reading alone, at 16 kHz and one channel; ``both`` has the spectrogram as well.
"""

import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

RATE, SECONDS, ROUNDS = 16_000, 60, 7
# File, format of libsndfile, rate, channels.
FILES = {
    "speech.wav": ("PCM_16", RATE, 1),
    "speech.flac": ("PCM_16", RATE, 1),
    "vorbis.ogg": ("VORBIS", RATE, 1),
    "opus.ogg": ("OPUS", RATE, 1),
    "music-44.mp3": ("MPEG_LAYER_III", 44_100, 2),
    "music-44.flac": ("PCM_16", 44_100, 2),
    "music-48.ogg": ("VORBIS", 48_000, 2),
}


def like_speech(rate, channels):
    """A minute of noise and a hum, louder and softer four times a second."""
    time_axis = np.arange(SECONDS * rate) / rate
    noise = np.random.default_rng(0).standard_normal((len(time_axis), channels))
    hum = sum(np.sin(2 * np.pi * 120 * k * time_axis) / k for k in range(1, 20))
    return 0.2 * np.sin(np.pi * 4 * time_axis)[:, None] ** 2 * (0.2 * noise + 0.5 * hum[:, None])


def write(path, subtype, rate, channels):
    """The minute as a file, in pieces, for some encoders take no more at once."""
    import soundfile

    samples = like_speech(rate, channels)
    with soundfile.SoundFile(path, "w", rate, channels, subtype=subtype) as file:
        for start in range(0, len(samples), rate):
            file.write(samples[start : start + rate])


def seconds(work):
    """The median time of some work, the first round apart."""
    times = []
    for _ in range(1 + ROUNDS):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:])


def measure():
    """One record a file: hours a minute that are decoded, and decoded and turned into 80 bands of log-mel."""
    from mmlearn.data.mel import LogMel
    from mmlearn.data.readers.sound import read_sound

    torch.set_num_threads(1)
    log_mel, rows = LogMel(80), []
    with tempfile.TemporaryDirectory() as folder:
        for name, (subtype, rate, channels) in FILES.items():
            path = Path(folder) / name
            write(path, subtype, rate, channels)

            def decode(path=path):
                return read_sound(path, notes=[])

            decoded, both = seconds(decode), seconds(lambda decode=decode: log_mel(decode()[None]))
            hours = {"decoded": SECONDS / decoded / 60, "both": SECONDS / both / 60}
            rows.append({"file": name, "rate": rate, "channels": channels, "megabytes": path.stat().st_size / 1e6})
            rows[-1] |= {f"{what}_hours_per_minute": round(value, 1) for what, value in hours.items()}
            print(
                f"{name:14} {rate:6} Hz × {channels}  {hours['decoded']:7.1f} h decoded, {hours['both']:6.1f} h to mel"
            )
    return {"threads": 1, "sounds": rows}
