"""Reading sounds, whatever they are, as 16 kHz and one channel, or saying which one cannot be read and why.

Every sound is read in blocks, so a file of many hours needs no more memory than one of a minute.
"""

import io
import math
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mmlearn.data.read import mp3, ogg

RATE = 16_000  # samples a second of every waveform in this library
WINDOW = 0.025  # seconds, the shortest sound that has a spectrum
LONGEST = 600  # seconds, the longest sound that is read whole
RATES = (4_000, 384_000)  # samples a second of files that are meant as sounds
SILENT = 1e-4  # a peak below this, -80 dB, is silence
FULL_SCALE, CLIPPED = 0.99, 1e-3  # a sound is clipped where this share of its samples is at full scale
LOUDEST = 8.0  # samples beyond are no matter of loudness but of another unit
FILTER = 32  # zero crossings of the sinc that resamples, on either side; torchaudio's 6 let much above 8 kHz through
_BLOCK = 2**16  # samples read at once
_HUSHING = Lock()  # stderr is that of all threads
_UNKNOWN = 0x7FFFF000  # bytes; programs that write to a pipe give such sizes
# The formats that are read, by how they begin behind tags of ID3v2. libsndfile would open more, for which few care.
FORMATS = {
    "WAV": rb"RIF[FX]....WAVE",
    "RF64": rb"RF64....WAVE",
    "W64": rb"riff\x2e\x91\xcf\x11",
    "AIFF": rb"FORM....AIF[FC]",
    "AU": rb"\.snd|dns\.",
    "FLAC": rb"fLaC",
    "OGG": rb"OggS",
    "MP3": rb"\xff[\xe2-\xff]",
}
# What is often taken for a sound, by how it begins.
_INSTEAD = {
    rb"\x89PNG": "a PNG picture",
    rb"\xff\xd8\xff": "a JPEG picture",
    rb"GIF8": "a GIF picture",
    rb"....ftyp(hei|hev|mif|msf|avi)": "a HEIF or AVIF picture",
    rb"%PDF": "a PDF document",
    rb"PK\x03\x04": "a ZIP archive",
    rb"\x1aE\xdf\xa3": "a WebM or Matroska video",
    rb"<": "a web page",
    rb"....ftyp|\xff[\xf0\xf1\xf8\xf9]": "MP4 or AAC; turn it into WAV, FLAC, Ogg or MP3",
    rb".{28}\x7fFLAC": "FLAC within Ogg; turn it into FLAC by itself, WAV or MP3",
}
_CODECS = (0, 0x01, 0x02, 0x03, 0x06, 0x07, 0x11, 0x31, 0x45, 0x55, 0x64, 0xFFFE)  # of WAV, that libsndfile may read


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

    Raises ``FileNotFoundError`` for a missing file. Raises ``ValueError`` naming a file that is no sound, is cut off or
    damaged as far as its format tells, holds NaN, is shorter than 25 ms, or is longer than ten minutes without
    ``seconds``.
    """
    report = _Report(name or _name_of(source))
    most = round((LONGEST if seconds is None else seconds) * RATE)
    blocks, length = [], 0
    for block in _blocks(source, report):
        blocks.append(block)
        length += len(block)
        if length > most and seconds is None:
            raise ValueError(
                f"{report.name} is longer than {LONGEST // 60} minutes: take a part with seconds=…, or go through it "
                "with stream_sound."
            )
        if length > most:
            report.converted.append(f"only its first {seconds:g} s are taken")
            break
    report.tell(notes)
    return torch.cat(blocks)[:most]


def stream_sound(
    source: str | Path | bytes, seconds: float, *, name: str | None = None, notes: list[str] | None = None
) -> Iterator[Float[Tensor, "samples"]]:
    """A sound of any length in parts of ``seconds``, the last one shorter: together what :func:`read_sound` gives.

    Memory is that of one part. The parts have no seams: resampling looks beyond their ends. Errors are those of
    :func:`read_sound`, raised on arrival at what is wrong; its line of ``notes`` comes after the last part.
    """
    report, size = _Report(name or _name_of(source)), round(seconds * RATE)
    if size < 1:
        raise ValueError(f"Parts of {seconds:g} s hold no sample: give more seconds.")
    rest = torch.empty(0)
    for block in _blocks(source, report):
        *parts, rest = torch.cat([rest, block]).split(size)
        yield from parts
    yield rest
    report.tell(notes)


def probe_sound(source: str | Path | bytes, *, name: str | None = None) -> str:
    """What :func:`read_sound` would convert, as one line naming the file, or "" for nothing; from its header alone.

    Errors are those of :func:`read_sound` that a header shows.
    """
    report = _Report(name or _name_of(source))
    with _opened(source, report):
        return report.line()


def _name_of(source: str | Path | bytes) -> str:
    return "a sound" if isinstance(source, bytes) else str(source)


@dataclass
class _Report:
    """What is known of a sound while it is read."""

    name: str
    converted: list[str] = field(default_factory=list)
    samples: int = 0  # of all channels
    clipped: int = 0
    peak: float = 0.0  # of any channel
    mixed_peak: float = 0.0

    def check(self, block: np.ndarray, start: float, lossy: bool) -> np.ndarray:
        """Check a block, (frames, channels), and average its channels. ``start`` is in seconds."""
        loud = np.abs(block)
        peak = float(loud.max())
        if not math.isfinite(peak):
            raise ValueError(f"{self.name} holds samples that are NaN or infinite, near {start:.1f} s.")
        if peak > LOUDEST and lossy:
            raise ValueError(f"{self.name} is damaged: near {start:.1f} s it has samples up to {peak:.4g}.")
        if peak > LOUDEST:
            raise ValueError(f"{self.name} has samples up to {peak:.4g}: divide them so that they lie in [-1, 1].")
        channels = block.shape[1]
        mixed = block @ np.full(channels, 1 / channels, np.float32) if channels > 1 else block[:, 0]
        self.samples += block.size
        self.clipped += int((loud >= FULL_SCALE).sum())
        self.peak = max(self.peak, peak)
        self.mixed_peak = max(self.mixed_peak, float(np.abs(mixed).max()))
        return mixed

    def line(self) -> str:
        """All that is to be said, in one line, or nothing."""
        said = list(self.converted)
        if self.samples and self.mixed_peak < SILENT:
            said.append("silent" if self.peak < SILENT else "silent, as its channels cancel out")
        if self.clipped > CLIPPED * self.samples:
            said.append(f"clipped, {self.clipped / self.samples:.2g} of its samples are at full scale")
        return f"{self.name}: {'; '.join(said)}." if said else ""

    def tell(self, notes: list[str] | None) -> None:
        """Add the line to ``notes``, or warn."""
        line = self.line()
        if line and notes is None:
            warnings.warn(line, stacklevel=3)
        elif line:
            notes.append(line)


def _blocks(source: str | Path | bytes, report: _Report) -> Iterator[Tensor]:
    """The sound at 16 kHz, block by block; at its end it is known whether it was long enough and whole."""
    length = 0
    with _opened(source, report) as (file, stream, counted):
        for block in _resampled(_mixed(file, stream, report), file.samplerate):
            length += len(block)
            yield block.clamp_(-1, 1)  # lossy formats and resampling go a little beyond
        _check_count(file, stream, counted, report)
    if length < WINDOW * RATE:
        raise ValueError(f"{report.name} lasts {1000 * length / RATE:.3g} ms, less than a window of {1000 * WINDOW:g}.")


def _mixed(file: Any, stream: Any, report: _Report) -> Iterator[Tensor]:
    """The sound as the file has it, in one channel. Of an Ogg file the pages are checked as far as it is read."""
    pages = ogg.check_pages(stream, report.name, report.converted) if file.format == "OGG" else iter(())
    lossy, read, checked = file.format in ("MP3", "OGG"), 0, 0
    while len(block := _block(file)):
        while checked < stream.tell():
            checked = next(pages, math.inf)
        yield torch.from_numpy(report.check(block, read / file.samplerate, lossy))
        read += len(block)
    for _ in pages:
        pass


def _block(file: Any) -> np.ndarray:
    with _hushed():
        return file.read(_BLOCK // file.channels, dtype="float32", always_2d=True)


@contextmanager
def _hushed() -> Iterator[None]:
    """Within this block nothing reaches stderr: decoders of MP3 write there what they think of a damaged frame."""
    with _HUSHING:
        try:
            kept = os.dup(2)
        except OSError:  # the shell closed it, as with 2>&-
            yield
            return
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 2)
        os.close(nowhere)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def _check_count(file: Any, stream: Any, counted: bool, report: _Report) -> None:
    """``ValueError`` for fewer samples than a file says it has, and for an MP3 of which a part was left unread."""
    place = stream.tell()
    left = stream.seek(0, io.SEEK_END) - place
    missing = file.frames - report.samples // file.channels
    if not counted:
        if left > mp3.ROOM:
            how = "damaged" if file.format == "MP3" else "MP3 within WAV that does not tell its length"
            raise ValueError(f"{report.name} is {how}: its decoder stopped {left:,} bytes before its end.")
    elif 0 < missing <= mp3.FRAME and file.format == "MP3":
        report.converted.append(f"its last {missing:,} samples are missing")
    elif missing > 0 and file.frames < 2**60:  # a FLAC that was written to a pipe promises nothing
        read = file.frames - missing
        raise ValueError(f"{report.name} is cut off or damaged: it holds {read:,} of {file.frames:,} samples.")
    elif file.format == "MP3" and mp3.goes_on(stream, place):
        raise ValueError(f"{report.name} {ogg.SEVERAL}")


def _resampled(blocks: Iterator[Tensor], rate: int) -> Iterator[Tensor]:
    """Blocks of ``rate`` samples a second as blocks of 16,000 a second, equal to resampling all in one piece."""
    if rate == RATE:
        yield from blocks
        return
    resample = _resampler(rate)
    step, new = rate // math.gcd(rate, RATE), RATE // math.gcd(rate, RATE)  # step samples become new ones
    reach = step * math.ceil(resample.width / step)  # of the filter, on either side
    held, done = torch.empty(0), 0  # done samples of what is held are resampled, and are there for the filter
    for block in blocks:
        held = torch.cat([held, block])
        ready = (len(held) - reach) // step * step
        if ready > done:
            yield resample(held[: ready + reach])[done // step * new : ready // step * new]
            drop = max(0, ready - reach)
            held, done = held[drop:], ready - drop
    if len(held):
        yield resample(held)[done // step * new :]


@lru_cache(maxsize=8)
def _resampler(rate: int) -> Any:
    """A filter wide enough to keep what is below 7.5 kHz as it is, and to lower what is above 8.5 by 50 dB."""
    from torchaudio.transforms import Resample

    return Resample(rate, RATE, lowpass_filter_width=FILTER, dtype=torch.float64).float()


@contextmanager
def _opened(source: str | Path | bytes, report: _Report) -> Iterator[tuple[Any, Any, bool]]:
    """The decoder of a sound whose header makes sense, the stream it reads, and whether that tells its length.

    What libsndfile raises becomes a line that names the file.
    """
    import soundfile

    if not isinstance(source, bytes) and not Path(source).is_file():
        raise FileNotFoundError(f"There is no sound {report.name}.")
    with io.BytesIO(source) if isinstance(source, bytes) else open(source, "rb", buffering=0) as stream:
        start = stream.read(4096)
        if not start:
            raise ValueError(f"{report.name} is empty (0 bytes).")
        behind = mp3.behind_tags(stream) or start
        if not any(re.match(beginning, behind, re.DOTALL) for beginning in (*FORMATS.values(), rb"ID3")):
            raise ValueError(f"{report.name} cannot be read as a sound: {_reason('', start)}.")
        try:
            file, counted = _decoder(stream)
            with file:
                _check_header(file, stream, report)
                yield file, stream, counted
        except soundfile.LibsndfileError as error:
            if start.startswith(b"OggS"):  # damage is often taken for another format
                for _ in ogg.check_pages(stream, report.name, []):
                    pass
            raise ValueError(
                f"{report.name} cannot be read as a sound: {_reason(error.error_string, start)}."
            ) from error


def _decoder(stream: Any) -> tuple[Any, bool]:
    """What decodes a file, and whether the file tells its length: libsndfile guesses that of some MP3."""
    # A path's suffix would be believed.
    file = _libsndfile(stream, stream if isinstance(stream, io.BytesIO) else stream.fileno())
    if file.format != "MP3":
        return file, not file.subtype.startswith("MPEG_LAYER")  # MP3 within WAV
    if mp3.tells_length(stream):
        return file, True
    file.close()
    file = _libsndfile(stream, mp3.Endless(stream))
    with _hushed():
        file.read(mp3.DELAY)
    return file, False


def _libsndfile(stream: Any, handle: Any) -> Any:
    import soundfile

    stream.seek(0)
    with _hushed():
        file = soundfile.SoundFile(handle, closefd=False)
    # Else each block ends with a seek to where it ended, after which MP3 lacks bits of the frame before: its decoder
    # says so on stderr, and the next block begins with a crackle.
    file.seekable = lambda: False
    return file


def _reason(said: str, start: bytes) -> str:
    """Why a file that begins so is no sound, of which libsndfile ``said`` this, or was not asked."""
    for beginning, what in _INSTEAD.items():
        if re.match(beginning, start, re.DOTALL):
            return f"it is {what}"
    codec = int.from_bytes(start.partition(b"fmt ")[2][4:6], "little")
    if start[8:12] == b"WAVE" and codec not in _CODECS:
        return f"its codec, number 0x{codec:X}, is not supported; turn it into PCM, FLAC, Ogg or MP3"
    text = said.strip(" .")
    if text == "Unspecified internal error":  # of MP3 where no frame follows another
        return "it is damaged"
    if not text or text.startswith(
        ("Format not recognised", "File does not exist")
    ):  # the latter of MP3 without a single frame
        return "it is none of WAV, FLAC, Ogg, MP3 and the like"
    return text.removeprefix("Error : ")


def _check_header(file: Any, stream: Any, report: _Report) -> None:
    """``ValueError`` for a rate that cannot be read, and for a file that ends too early, as far as its format tells."""
    rate, low, high = file.samplerate, *RATES
    if not low <= rate <= high:
        raise ValueError(f"{report.name} has {rate:,} samples a second, expected {low:,} to {high:,}.")
    if rate * RATE // math.gcd(rate, RATE) ** 2 > 2**24:  # the size of the filter
        raise ValueError(f"{report.name} has {rate:,} samples a second, an odd number: turn it into 16,000.")
    if file.channels > 1:
        report.converted.append(f"{file.channels} channels mixed into one")
    if rate != RATE:
        report.converted.append(f"{rate:,} Hz resampled to {RATE:,}")
    for chunk, promised, found in re.findall(r"^\s*(.+?)\s*: (\d+) \(should be (\d+)\)", file.extra_info, re.MULTILINE):
        if chunk not in ("RIFF", "FORM") and int(found) < int(promised) < _UNKNOWN:
            raise ValueError(f"{report.name} is cut off: it holds {int(found):,} of {int(promised):,} bytes.")
    if file.format == "OGG":
        ogg.check_end(stream, report.name, report.converted)
