"""How :mod:`mmlearn.data.build.archives` makes the archive ``stamps`` from a package of Debian.

The package holds a drawing's SVG and upstream's PNG of it; the PNG is taken, because some SVGs need a font or have no
size. The bytes of the sounds may also depend on the processor: Opus is encoded in floating point.
"""

import gzip
import io
import re
import struct
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mmlearn.data.build.packing import as_json, open_image, webp, zipped
from mmlearn.data.packaged.stamps import SPOKEN
from mmlearn.data.readers.sound import RATE

ROOT = "usr/share/tuxpaint/stamps/"
DOCUMENTS = "usr/share/doc/tuxpaint-stamps-default/"
CAPTIONS = 900  # at least, in a language that is kept
ENGLISH = ("en_AU", "en_GB")  # nearly the captions in English that are kept anyway
# The horn is upstream's "FIXME non-free - needs replacing/deleting". The others say a name, which is no sound effect.
NO_EFFECT = re.compile("vehicles/emergency/firetruck$|symbols/alphabets/|symbols/math/|seasonal/hanukkah/dreydl")
LOUDNESS = 0.1  # root mean square
PEAK = 0.9
SILENCE = 0.01  # no effect has a lower peak
BITRATE = 16_000  # a second; RFC 6716, section 2.1.1, has 16 to 20 kbit/s for speech at 16 kHz
CODES = {"ca@valencia": "ca-valencia", "sr@latin": "sr-Latn"}


def build_stamps(packages: dict[str, Path]) -> tuple[dict[str, bytes], dict[str, Any]]:
    """Pictures, captions, spoken captions by language, sound effects, and upstream's own credits."""
    wanted = re.compile(rf"{ROOT}.*\.(png|txt|ogg)$|{DOCUMENTS}(copyright|changelog\.gz)$")
    files = unpack_debian(packages["tuxpaint-stamps-default"], wanted)
    stamps = {name.removeprefix(ROOT): content for name, content in files.items()}
    names = sorted(name[:-4] for name in stamps if name.endswith(".png") and f"{name[:-4]}.txt" in stamps)
    captions = read_captions({name: stamps[f"{name}.txt"].decode() for name in names})
    sounds = {
        f"speech-{language}": {
            f"{name}.ogg": opus(equally_loud(mono(file)))
            for name in names
            if (file := stamps.get(f"{name}_desc_{language}.ogg"))
        }
        for language in SPOKEN
    }
    sounds["effects"] = {
        f"{name}.ogg": opus(equally_loud(wave))
        for name in names
        if f"{name}.ogg" in stamps and not NO_EFFECT.match(name)
        if np.abs(wave := mono(stamps[f"{name}.ogg"])).max() > SILENCE
    }
    built = {
        "pictures.zip": zipped({f"{name}.webp": webp(open_image(stamps[f"{name}.png"])) for name in names}),
        "captions.json.gz": gzip.compress(as_json(captions), mtime=0),
        "CREDITS-changes.txt": gzip.decompress(files[f"{DOCUMENTS}changelog.gz"]),
        "CREDITS-copyright.txt": files[f"{DOCUMENTS}copyright"],
    }
    return built | {f"{kind}.zip": zipped(of) for kind, of in sounds.items()}, {
        "pictures": len(names),
        "captions": {language: len(of) for language, of in captions.items()},
        "sounds": {kind: len(of) for kind, of in sounds.items()},
    }


def unpack_debian(path: Path, wanted: re.Pattern) -> dict[str, bytes]:
    """The files of a Debian package whose names match ``wanted``. ``SystemExit`` if it is no such package.

    Source: the manual pages deb(5) and ar(5).
    """
    with open(path, "rb") as file:
        if file.read(8) != b"!<arch>\n":
            raise SystemExit(f"{path} is no Debian package: it does not begin as an ar archive.")
        while header := file.read(60):
            name, size = header[:16].decode().strip(" /"), int(header[48:58])
            if name.startswith("data.tar"):
                with tarfile.open(fileobj=io.BytesIO(file.read(size))) as tar:
                    return {
                        name: tar.extractfile(item).read()
                        for item in tar
                        if item.isfile() and wanted.match(name := item.name.removeprefix("./"))
                    }
            file.seek(size + size % 2, io.SEEK_CUR)  # members begin at even positions
    raise SystemExit(f"{path} is no Debian package: it holds no data.tar.")


def read_captions(texts: dict[str, str]) -> dict[str, dict[str, str]]:
    """Language → stamp → caption, English first, and no language that has few.

    A text's first line is English, and the others are such as ``pt_BR.utf8=Um cavalo.``
    """
    captions: dict[str, dict[str, str]] = {"en": {}}
    for name, text in texts.items():
        english, *others = text.splitlines()
        captions["en"][name] = " ".join(english.split())
        for line in others:
            language, _, caption = line.partition(".utf8=")
            if (caption := " ".join(caption.split())) and language not in ENGLISH:
                captions.setdefault(CODES.get(language, language.replace("_", "-")), {})[name] = caption
    least = min(CAPTIONS, len(texts))
    kept = {code: captions[code] for code in sorted(captions) if len(captions[code]) >= least}
    return {"en": captions["en"]} | kept


def mono(file: bytes) -> np.ndarray:
    """The sound of a file as one channel of float32 at 16 kHz, (samples,)."""
    import soundfile
    import torch
    from torchaudio.functional import resample

    wave, rate = soundfile.read(io.BytesIO(file), dtype="float32", always_2d=True)  # (samples, channels)
    return resample(torch.from_numpy(wave.mean(1)), rate, RATE).numpy()


def equally_loud(wave: np.ndarray) -> np.ndarray:
    """The sound at a root mean square of 0.1, or lower where its peak would be above 0.9.

    Speakers and recordings must not be told apart by how loud they are.
    """
    return wave * min(LOUDNESS / np.sqrt((wave**2).mean()), PEAK / np.abs(wave).max())


def opus(wave: np.ndarray) -> bytes:
    """An Ogg Opus file of this sound, the same bytes each time."""
    import soundfile

    file = io.BytesIO()
    level = 1 - (BITRATE - 6_000) / 250_000  # libsndfile's scale, from 256 to 6 kbit/s
    with soundfile.SoundFile(file, "w", RATE, 1, "OPUS", format="OGG", compression_level=level) as target:
        target.write(wave)
    return without_chance(file.getvalue())


def without_chance(file: bytes) -> bytes:
    """An Ogg Opus file with the serial number 0, which is a random one otherwise, and no padding in its comments.

    Source: RFC 3533 (Ogg), section 6; RFC 7845 (Ogg Opus), section 5.2.
    """
    written = []
    for head, body in ogg_pages(file):
        if body.startswith(b"OpusTags"):  # comments: the vendor's name, and that none follow
            (vendor,) = struct.unpack_from("<I", body, 8)
            body = body[: 12 + vendor] + struct.pack("<I", 0)
            head = head[:26] + bytes([1, len(body)])
        page = head[:14] + bytes(4) + head[18:22] + bytes(4) + head[26:] + body
        written += [page[:22], ogg_checksum(page), page[26:]]
    return b"".join(written)


def ogg_pages(file: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The head of each page of an Ogg file, with the lengths of the parts of its body, and the body."""
    start = 0
    while start < len(file):
        middle = start + 27 + file[start + 26]
        end = middle + sum(file[start + 27 : middle])
        yield file[start:middle], file[middle:end]
        start = end


MIRRORED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def ogg_checksum(page: bytes) -> bytes:
    """Bytes 22 to 25 of a page that has zeros there: a CRC that starts at 0 and takes the high bit of a byte first."""
    value = zlib.crc32(page.translate(MIRRORED), 0xFFFFFFFF) ^ 0xFFFFFFFF  # zlib takes the low bit first
    return value.to_bytes(4, "big").translate(MIRRORED)
