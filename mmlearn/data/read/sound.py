"""Reading sounds, whatever they are, as 16 kHz and one channel, or saying which one cannot be read and why.

Every sound is read in blocks, so a file of many hours needs no more memory than one of a minute.
"""

import io
import math
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
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
_UNKNOWN = 0x7FFFF000  # bytes; programs that write to a pipe give such sizes
# What is often taken for a sound, by its first bytes.
_NO_SOUND = {
    b"\x89PNG": "a PNG picture",
    b"\xff\xd8\xff": "a JPEG picture",
    b"GIF8": "a GIF picture",
    b"%PDF": "a PDF document",
    b"PK\x03\x04": "a ZIP archive",
    b"\x1aE\xdf\xa3": "a WebM or Matroska video",
    b"<": "a web page",
}
_PICTURES = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1", b"avif", b"avis")  # brands of MP4
# What a WAV may hold, by the tag of its format: what libsndfile reads, and names of what it does not.
_READ = (0x01, 0x02, 0x03, 0x06, 0x07, 0x11, 0x31, 0x45, 0x55, 0x64)
_CODECS = {
    0x50: "MP2",
    0xFF: "AAC",
    0x160: "WMA",
    0x161: "WMA",
    0x162: "WMA",
    0x163: "WMA",
    0x1600: "AAC",
    0x1610: "AAC",
    0x2000: "AC-3",
    0x2001: "DTS",
}


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
    source: str | Path | bytes,
    *,
    seconds: float | None = None,
    name: str | None = None,
    notes: list[str] | None = None,
) -> Float[Tensor, "samples"]:
    """A sound at 16 kHz in [-1, 1], its channels averaged; all of it, or the first ``seconds``.

    What was converted, and that a sound is silent or clipped, is one line naming the file: added to ``notes`` if given,
    else a warning, which Python shows once. ``source`` is a path, or the bytes of a file that ``name`` stands for.

    Raises ``FileNotFoundError`` for a missing file. Raises ``ValueError`` naming a file that is no sound, is cut off or
    damaged as far as its format tells, holds NaN, is shorter than 25 ms, or is longer than ten minutes without
    ``seconds``.
    """
    heard = _Heard(name or _name_of(source))
    most = round((LONGEST if seconds is None else seconds) * RATE)
    parts, length = [], 0
    for part in _blocks(source, heard):
        parts.append(part)
        length += len(part)
        if length > most:
            if seconds is None:
                raise ValueError(
                    f"{heard.name} is longer than {LONGEST // 60} minutes: take a part with seconds=…, or go through "
                    "it with stream_sound."
                )
            heard.converted.append(f"only its first {seconds:g} s are taken")
            break
    heard.tell(notes)
    return torch.cat(parts)[:most]


def stream_sound(
    source: str | Path | bytes, seconds: float, *, name: str | None = None, notes: list[str] | None = None
) -> Iterator[Float[Tensor, "samples"]]:
    """A sound of any length in parts of ``seconds``, the last one shorter: together what :func:`read_sound` gives.

    Memory is that of one part. The parts have no seams: resampling looks beyond their ends. Errors are those of
    :func:`read_sound`, raised on arrival at what is wrong; its line of ``notes`` comes after the last part.
    """
    heard, size = _Heard(name or _name_of(source)), round(seconds * RATE)
    if size < 1:
        raise ValueError(f"Parts of {seconds:g} s hold no sample: give more seconds.")
    parts, length = [], 0
    for part in _blocks(source, heard):
        parts.append(part)
        length += len(part)
        if length >= size:
            *whole, rest = torch.cat(parts).split(size)
            whole, rest = (whole, rest) if len(rest) < size else ([*whole, rest], rest[:0])
            yield from whole
            parts, length = [rest], len(rest)
    if length:
        yield torch.cat(parts)
    heard.tell(notes)


def probe_sound(source: str | Path | bytes, *, name: str | None = None) -> str:
    """What :func:`read_sound` would convert, as one line naming the file, or "" for nothing; from its header alone.

    Errors are those of :func:`read_sound` that a header shows.
    """
    heard = _Heard(name or _name_of(source))
    with _opened(source, heard):
        return heard.line()


def _name_of(source: str | Path | bytes) -> str:
    return "a sound" if isinstance(source, bytes) else str(source)


@dataclass
class _Heard:
    """What is known of a sound while it is read."""

    name: str
    converted: list[str] = field(default_factory=list)
    samples: int = 0  # of all channels
    clipped: int = 0
    peak: float = 0.0  # of any channel
    mixed_peak: float = 0.0
    pages: ogg.Pages | None = None  # where it is Ogg
    counted: bool = True  # whether it tells how many samples it has
    lossy: bool = False

    def hear(self, block: np.ndarray, start: float) -> np.ndarray:
        """Check a block, (frames, channels), and average its channels. ``start`` is in seconds."""
        loud = np.abs(block)
        peak = float(loud.max())
        if not math.isfinite(peak):
            raise ValueError(f"{self.name} holds samples that are NaN or infinite, near {start:.1f} s.")
        if peak > LOUDEST and self.lossy:
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


def _blocks(source: str | Path | bytes, heard: _Heard) -> Iterator[Tensor]:
    """The sound at 16 kHz, block by block; at its end it is known whether it was long enough and whole."""
    length = 0
    with _opened(source, heard) as (file, stream):
        for block in _resampled(_mixed(file, heard), file.samplerate):
            length += len(block)
            yield block.clamp_(-1, 1)  # lossy formats and resampling go a little beyond
        if heard.pages:
            heard.pages.check(whole=True)
        _check_count(file, stream, heard)
    if length < WINDOW * RATE:
        raise ValueError(f"{heard.name} lasts {1000 * length / RATE:.3g} ms, less than a window of {1000 * WINDOW:g}.")


def _check_count(file: Any, stream: Any, heard: _Heard) -> None:
    """``ValueError`` for fewer samples than a file says it has, and for an MP3 of which a part was left unread."""
    place = stream.tell()
    left = stream.seek(0, io.SEEK_END) - place
    missing = file.frames - heard.samples // file.channels
    if not heard.counted:
        if left > mp3.ROOM:
            how = "damaged" if file.format == "MP3" else "MP3 within WAV that does not tell its length"
            raise ValueError(f"{heard.name} is {how}: its decoder stopped {left:,} bytes before its end.")
    elif 0 < missing <= mp3.FRAME and file.format == "MP3":
        heard.converted.append(f"its last {missing:,} samples are missing")
    elif missing > 0 and file.frames < 2**60:  # a FLAC that was written to a pipe promises nothing
        read = file.frames - missing
        raise ValueError(f"{heard.name} is cut off or damaged: it holds {read:,} of {file.frames:,} samples.")
    elif file.format == "MP3" and mp3.goes_on(stream, place):
        raise ValueError(f"{heard.name} {ogg.SEVERAL}")


def _mixed(file: Any, heard: _Heard) -> Iterator[Tensor]:
    read = 0
    while len(block := file.read(_BLOCK // file.channels, dtype="float32", always_2d=True)):
        if heard.pages:
            heard.pages.check()
        yield torch.from_numpy(heard.hear(block, read / file.samplerate))
        read += len(block)


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
def _opened(source: str | Path | bytes, heard: _Heard) -> Iterator[tuple[Any, Any]]:
    """The file of a sound, whose header makes sense, and the stream that it is read from.

    What libsndfile raises becomes a line that names it.
    """
    import soundfile

    name = heard.name
    if not isinstance(source, bytes) and not Path(source).is_file():
        raise FileNotFoundError(f"There is no sound {name}.")
    with io.BytesIO(source) if isinstance(source, bytes) else open(source, "rb", buffering=0) as stream:
        start, end = _ends(stream)
        if not start:
            raise ValueError(f"{name} is empty (0 bytes).")
        joined = mp3.counted(stream)
        # A path would be believed for its suffix.
        handle = joined or (stream if isinstance(source, bytes) else stream.fileno())
        try:
            with soundfile.SoundFile(handle, closefd=False) as file:
                # Else each block ends with a seek to where it ended, after which MP3 lacks bits of the frame before:
                # its decoder says so on stderr, and the next block begins with a crackle.
                file.seekable = lambda: False
                _check_header(file, heard)
                _check_end(file, end, heard)
                if file.format == "OGG":
                    heard.pages = ogg.Pages(stream, name, heard.converted)
                heard.lossy = file.format in ("MP3", "OGG")
                # Neither layer I and II nor MP3 within WAV tell a length; libsndfile guesses it.
                heard.counted = joined is None and (file.format == "MP3") == (file.subtype == "MPEG_LAYER_III")
                yield file, stream
        except soundfile.LibsndfileError as error:
            if start.startswith(b"OggS"):
                ogg.Pages(stream, name, []).check(whole=True)  # damage is often taken for another format
            raise ValueError(f"{name} cannot be read as a sound: {_reason(error, start)}.") from error


def _ends(stream: io.RawIOBase | io.BytesIO) -> tuple[bytes, bytes]:
    """The first bytes of a file, and as many of its last as a page of Ogg may have."""
    start = stream.read(4096)
    size = stream.seek(0, io.SEEK_END)
    stream.seek(max(0, size - ogg.LONGEST))
    end = stream.read(ogg.LONGEST)
    stream.seek(0)
    return start, end


def _reason(error: Any, start: bytes) -> str:
    for magic, what in _NO_SOUND.items():
        if start.startswith(magic):
            return f"it is {what}"
    if start[4:8] == b"ftyp" and start[8:12] in _PICTURES:
        return "it is a HEIF or AVIF picture"
    if start[4:8] == b"ftyp" or int.from_bytes(start[:2], "big") & 0xFFF6 == 0xFFF0:
        return "it is MP4 or AAC; turn it into WAV, FLAC, Ogg or MP3"
    if start[28:33] == b"\x7fFLAC":
        return "it is FLAC within Ogg; turn it into FLAC by itself, WAV or MP3"
    if (tag := _tag(start)) and tag not in _READ:
        return (
            f"its codec, {_CODECS.get(tag, f'number 0x{tag:X}')}, is not supported; turn it into PCM, FLAC, Ogg or MP3"
        )
    text = error.error_string.strip(" .")
    if text == "Unspecified internal error":  # of MP3 where no frame follows another
        return "it is damaged"
    if text.startswith(("Format not recognised", "File does not exist")):  # the latter of MP3 without a single frame
        return "it is none of WAV, FLAC, Ogg, MP3 and the like"
    return text.removeprefix("Error : ")


def _tag(start: bytes) -> int:
    """Which codec a WAV has, by the number in its chunk "fmt "; 0 for what is no WAV."""
    place = start.find(b"fmt ") if start[8:12] == b"WAVE" else -1
    if place < 0:
        return 0
    tag = int.from_bytes(start[place + 8 : place + 10], "little")
    return int.from_bytes(start[place + 32 : place + 34], "little") if tag == 0xFFFE else tag  # told further on


def _check_header(file: Any, heard: _Heard) -> None:
    rate, low, high = file.samplerate, *RATES
    if not low <= rate <= high:
        raise ValueError(f"{heard.name} has {rate:,} samples a second, expected {low:,} to {high:,}.")
    if rate * RATE // math.gcd(rate, RATE) ** 2 > 2**24:  # the size of the filter
        raise ValueError(f"{heard.name} has {rate:,} samples a second, an odd number: turn it into 16,000.")
    if file.channels > 1:
        heard.converted.append(f"{file.channels} channels mixed into one")
    if rate != RATE:
        heard.converted.append(f"{rate:,} Hz resampled to {RATE:,}")


def _check_end(file: Any, end: bytes, heard: _Heard) -> None:
    """``ValueError`` for a file that ends too early, as far as its format tells: sizes of chunks, or pages of Ogg."""
    for chunk, promised, found in re.findall(r"^\s*(.+?)\s*: (\d+) \(should be (\d+)\)", file.extra_info, re.MULTILINE):
        if chunk not in ("RIFF", "FORM") and int(found) < int(promised) < _UNKNOWN:
            raise ValueError(f"{heard.name} is cut off: it holds {int(found):,} of {int(promised):,} bytes.")
    if file.format != "OGG":
        return
    complete, marked = ogg.last_page(end)
    if not complete:
        raise ValueError(f"{heard.name} is cut off: its last page is not complete.")
    if not marked:
        heard.converted.append("its end is not marked, so it may be cut off")
