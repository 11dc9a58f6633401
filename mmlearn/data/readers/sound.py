"""Reading sounds as 16 kHz and one channel, by libsndfile, or saying which one cannot be read and why.

What libsndfile reads is a sound: WAV, FLAC, Ogg, MP3, AIFF and others, whatever a file is called.
"""

import io
import math
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

RATE = 16_000  # samples a second of every waveform in this library
WINDOW = 0.025  # seconds, the shortest sound that has a spectrum
LONGEST = 600  # seconds, the longest sound that is read whole
RATES = (4_000, 384_000)  # samples a second of files that are meant as sounds
SILENT = 1e-4  # a peak below this, -80 dB, is silence
FULL_SCALE, CLIPPED = 0.99, 1e-3  # a sound is clipped where this share of its samples is at full scale
LOUDEST = 8.0  # samples beyond are no matter of loudness but of another unit, or of damage
FILTER = 32  # zero crossings of the sinc that resamples, on either side; torchaudio's 6 let much above 8 kHz through
BEYOND = 0.1  # seconds that are read after what is taken: more than the filter reaches
FRAME = 1152  # samples in a frame of MP3, the last of which a decoder may not give
TAGS = 4096  # bytes that may follow the end of an MP3
UNKNOWN = 2**60  # samples or more are what libsndfile says of a FLAC from a pipe
_STDERR = Lock()  # which all threads share


@dataclass(frozen=True)
class SoundSample:
    """A sound, float32 (samples,) at 16 kHz in [-1, 1], what is said of it, and where it came from.

    ``image`` is float32 (3, size, size) in [0, 1] where there is one; ``notes`` tell what was converted in reading.
    """

    waveform: Float[Tensor, "samples"]
    caption: str
    source: str
    speaker: str = ""
    image: Float[Tensor, "3 size size"] | None = None
    notes: tuple[str, ...] = ()


def read_sound(
    source: str | Path | bytes, *, seconds: float | None = None, name: str | None = None, notes: list[str] | None = None
) -> Float[Tensor, "samples"]:
    """A sound at 16 kHz in [-1, 1], its channels averaged; all of it, or the first ``seconds``.

    What was converted, and that a sound is silent or clipped, is one line naming the file: added to ``notes`` if given,
    else a warning, which Python shows once. ``source`` is a path, or the bytes of a file that ``name`` stands for.

    Raises ``FileNotFoundError`` for a missing file. Raises ``ValueError`` naming a file that libsndfile cannot read,
    that has fewer samples than it says, or more than can be decoded, that holds NaN, is shorter than 25 ms, or is
    longer than ten minutes without ``seconds``. Damage that a decoder mends by itself is not found.
    """
    most = round((LONGEST if seconds is None else seconds) * RATE)
    with _opened(source, name) as (file, stream, name):
        rate, said = file.samplerate, _conversions(file, stream, name)
        samples = _decoded(file, stream, math.ceil((most / RATE + BEYOND) * rate), name)  # (samples, channels)
    if not len(samples):
        raise ValueError(f"{name} is empty or damaged: no sample of it can be decoded.")
    mixed = _mixed(samples, rate, name)
    waveform = _resampler(rate)(torch.from_numpy(mixed)) if rate != RATE else torch.from_numpy(mixed)
    if len(waveform) < WINDOW * RATE:
        raise ValueError(f"{name} lasts {1000 * len(waveform) / RATE:.3g} ms, less than a window of {1000 * WINDOW:g}.")
    if len(waveform) > most:
        if seconds is None:
            raise ValueError(f"{name} is longer than {LONGEST // 60} minutes: take a part with seconds=…, or cut it.")
        said.append(f"only its first {seconds:g} s are taken")
    said += _loudness(samples, mixed)
    if said and notes is None:
        warnings.warn(_line(name, said), stacklevel=2)
    elif said:
        notes.append(_line(name, said))
    return waveform[:most].clamp(-1, 1)  # lossy formats and resampling go a little beyond


def probe_sound(source: str | Path | bytes, *, name: str | None = None) -> str:
    """What :func:`read_sound` would convert, as one line naming the file, or "" for nothing; from its header alone.

    Errors are those of :func:`read_sound` that a header shows.
    """
    with _opened(source, name) as (file, stream, name):
        return _line(name, _conversions(file, stream, name))


def _line(name: str, said: list[str]) -> str:
    return f"{name}: {'; '.join(said)}." if said else ""


@contextmanager
def _opened(source: str | Path | bytes, name: str | None) -> Iterator[tuple[Any, Any, str]]:
    """What decodes a sound, the stream it reads, and its name, which is in the line that an error becomes."""
    import soundfile

    name = name or ("a sound" if isinstance(source, bytes) else str(source))
    if not isinstance(source, bytes) and not Path(source).is_file():
        raise FileNotFoundError(f"There is no sound {name}.")
    with io.BytesIO(source) if isinstance(source, bytes) else open(source, "rb", buffering=0) as stream:
        if not stream.read(1):
            raise ValueError(f"{name} is empty (0 bytes).")
        stream.seek(0)
        # Of a path the suffix would be believed.
        handle = stream if isinstance(source, bytes) else stream.fileno()
        try:
            with _hushed():
                file = soundfile.SoundFile(handle, closefd=False)
            with file:
                yield file, stream, name
        except soundfile.LibsndfileError as error:
            reason = error.error_string.removeprefix("Error : ").strip(" .")
            if "does not exist" in reason:  # of a file that looks like MP3
                reason = "It has no whole frame"
            raise ValueError(
                f"{name} cannot be read as a sound ({reason}); expected WAV, FLAC, Ogg, MP3 or the like, undamaged."
            ) from error


@contextmanager
def _hushed() -> Iterator[None]:
    """Within this block nothing reaches stderr: decoders of MP3 write there what they think of a damaged frame."""
    with _STDERR, open(os.devnull, "wb") as nowhere:
        try:
            kept = os.dup(2)
        except OSError:  # the shell closed it, as with 2>&-
            yield
            return
        os.dup2(nowhere.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def _conversions(file: Any, stream: Any, name: str) -> list[str]:
    """What is to be converted. ``ValueError`` for a rate that cannot be meant, and for a header that promises more."""
    rate, low, high = file.samplerate, *RATES
    if not low <= rate <= high:
        raise ValueError(f"{name} has {rate:,} samples a second, expected {low:,} to {high:,}.")
    if rate * RATE // math.gcd(rate, RATE) ** 2 > 2**24:  # the size of the filter
        raise ValueError(f"{name} has {rate:,} samples a second, an odd number: turn it into 16,000.")
    for chunk, promised, found in re.findall(r"^\s*(.+?)\s*: (\d+) \(should be (\d+)\)", file.extra_info, re.MULTILINE):
        if chunk not in ("RIFF", "FORM") and int(found) < int(promised) < 0x7FFFF000:  # more is said by what pipes
            raise ValueError(f"{name} is cut off: it holds {int(found):,} of {int(promised):,} bytes.")
    found = [f"{file.channels} channels mixed into one"] if file.channels > 1 else []
    found += [f"{rate:,} Hz resampled to {RATE:,}"] if rate != RATE else []
    return found + (_check_last_page(stream, name) if file.format == "OGG" else [])


def _check_last_page(stream: Any, name: str) -> list[str]:
    """A note if the end of an Ogg file is not marked. ``ValueError`` if it is cut off: libsndfile says neither."""
    here = stream.tell()
    stream.seek(max(0, stream.seek(0, io.SEEK_END) - 2**16))  # no page is longer
    end = stream.read()
    stream.seek(here)
    page = end[end.rfind(b"OggS") :]
    if not page.startswith(b"OggS"):  # what follows the last page is longer
        return []
    lengths = page[27 : 27 + page[26]] if len(page) > 26 else b""  # of the parts of its body
    if len(page) < 28 or len(page) < 27 + len(lengths) + sum(lengths):
        raise ValueError(f"{name} is cut off: its last page is not complete.")
    return [] if page[5] & 4 else ["its end is not marked, so it may be cut off"]


def _decoded(file: Any, stream: Any, count: int, name: str) -> np.ndarray:
    """So many samples, (samples, channels), or all. ``ValueError`` where there are fewer, or more, than promised."""
    with _hushed():
        samples = file.read(count, dtype="float32", always_2d=True)
    is_mp3 = file.subtype.startswith("MPEG")
    expected = min(count, file.frames) - (FRAME if is_mp3 else 0)
    if len(samples) < expected and file.frames < UNKNOWN:
        raise ValueError(
            f"{name} is cut off or damaged{', or does not tell its length' if is_mp3 else ''}: it holds "
            f"{len(samples):,} of {file.frames:,} samples. Take another copy, or turn it into WAV or FLAC."
        )
    if len(samples) < count:
        rest = stream.read(2**16)
        tags = len(rest) <= TAGS or rest.startswith((b"TAG", b"APETAGEX"))
        if (is_mp3 and not tags) or (file.format == "OGG" and b"OggS" in rest):
            raise ValueError(
                f"{name} is damaged, holds several sounds, or does not tell its length: more follows what can be "
                "decoded. Take another copy, or turn it into WAV or FLAC."
            )
    return samples


def _mixed(samples: np.ndarray, rate: int, name: str) -> np.ndarray:
    """The mean of all channels. ``ValueError`` for samples that are no numbers, or far too large."""
    finite = np.isfinite(samples).all(1)
    if not finite.all():
        raise ValueError(f"{name} holds samples that are NaN or infinite, near {finite.argmin() / rate:.1f} s.")
    if (peak := float(np.abs(samples).max())) > LOUDEST:
        raise ValueError(f"{name} is damaged, or not in [-1, 1]: it has samples up to {peak:.4g}.")
    channels = samples.shape[1]
    return samples @ np.full(channels, 1 / channels, np.float32) if channels > 1 else samples[:, 0]


def _loudness(samples: np.ndarray, mixed: np.ndarray) -> list[str]:
    """That a sound is silent, or clipped."""
    loud, found = np.abs(samples), []
    if np.abs(mixed).max() < SILENT:
        found.append("silent" if loud.max() < SILENT else "silent, as its channels cancel out")
    if (share := (loud >= FULL_SCALE).mean()) > CLIPPED:
        found.append(f"clipped, {share:.2g} of its samples are at full scale")
    return found


@lru_cache(maxsize=8)
def _resampler(rate: int) -> Any:
    """A filter wide enough to keep what is below 7.5 kHz as it is, and to lower what is above 8.5 by 50 dB."""
    from torchaudio.transforms import Resample

    return Resample(rate, RATE, lowpass_filter_width=FILTER, dtype=torch.float64).float()
