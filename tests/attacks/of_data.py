"""Attacks by whoever hands over data: captions, COCO, shards, pictures, sounds, and paths that climb out."""

import io
import json
import os
import shutil
import struct
import tarfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from held import Attack
from of_runs import DEEP, ESCAPE, json_of
from PIL import Image

SHOW = ("data", "show", "data", "--output", "sheet.html")
LONG = "x" * 5_000


def given(base: Path, kind: str, spoil: Callable[[Path], object]) -> Callable[[Path], None]:
    """A folder of this kind of data that is spoiled."""

    def prepare(here: Path) -> None:
        shutil.copytree(base / kind, here / "data")
        spoil(here / "data")

    return prepare


def written(name: str, content: str | bytes) -> Callable[[Path], object]:
    """Another content for a file."""
    return lambda data: (data / name).write_bytes(
        content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content
    )


# Captions.


def captions(base: Path) -> Iterator[Attack]:
    """``captions.csv`` and ``captions.jsonl``."""
    tables: dict[str, str | bytes] = {
        "empty": "",
        "a header alone": "image,caption\n",
        "NUL": "image,caption\n1.png,a\0b\n",
        "half a character": b"image,caption\n1.png,\xed\xa0\x80\n",
        "Latin 1": "image,caption\n1.png,é\n".encode("latin-1"),
        "UTF-16": "image,caption\n1.png,a\n".encode("utf-16"),
        "no captions": "image,split\n1.png,train\n",
        "no pictures": "caption,split\na,train\n",
        "an empty caption": "image,caption\n1.png,\n",
        "a blank caption": 'image,caption\n1.png,"  \t "\n',
        "no name": "image,caption\n,a\n",
        "a quote that never ends": 'image,caption\n1.png,"a' + "b" * 200_000,
        "many columns": "image,caption\n1.png" + ",a" * 10_000,
        "a column too many": "image,caption\n1.png,a,b\n",
        "a column too few": "image,caption,split\n1.png\n",
        "an unknown split": f"image,caption,split\n1.png,a,tr{ESCAPE}ain\n",
        "a long split": f"image,caption,split\n1.png,a,{LONG}\n",
        "a long name": f"image,caption\n{LONG},a\n",
        "a name with an escape": f"image,caption\n{ESCAPE}.png,a\n",
        "a long column": f"image,{LONG}\n1.png,a\n",
        "a column with an escape": f"image,{ESCAPE}\n1.png,a\n",
        "a picture that is not there": "image,caption\nnope.png,a\n",
        "a folder for a picture": "image,caption\n.,a\n",
        "a pickle": b"\x80\x04cos\nsystem\n.",
        "a picture": b"\x89PNG\r\n\x1a\n" + bytes(99),
    }
    refused = (
        r"name too long|captions\.csv|There is no picture|no train|outside the folder|cannot be a path|is no picture"
    )
    for name, content in tables.items():
        yield Attack(f"csv: {name}", given(base, "pictures", written("captions.csv", content)), SHOW, refused)
    good = '{"image": "1.png", "caption": "a"}\n'
    lines: dict[str, str | bytes] = {
        "empty": "",
        "half": '{"image": "1.p',
        "a list": '["1.png", "a"]\n',
        "a number": "7\n",
        "null": "null\n",
        "deep": DEEP,
        "deep objects": '{"a":' * 50_000,
        "a number for a caption": '{"image": "1.png", "caption": 5}\n',
        "a list for a caption": '{"image": "1.png", "caption": ["a"]}\n',
        "null for a caption": '{"image": "1.png", "caption": null}\n',
        "a deep caption": '{"image": "1.png", "caption": ' + "[" * 900 + "]" * 900 + "}\n",
        "half a character": '{"image": "1.png", "caption": "\\ud800"}\n',
        "a name of half a character": '{"image": "\\ud800.png", "caption": "a"}\n',
        "NUL in a name": '{"image": "1\\u0000.png", "caption": "a"}\n',
        "a number for a name": '{"image": 1, "caption": "a"}\n',
        "an object for a name": '{"image": {"a": 1}, "caption": "a"}\n',
        "a number of 100,000 digits": '{"image": "1.png", "caption": ' + "9" * 100_000 + "}\n",
        "not UTF-8": b'{"image": "\xff"}\n',
        "a list for a split": '{"image": "1.png", "caption": "a", "split": ["train"]}\n',
        "NaN": "NaN\n",
        "no caption": '{"image": "1.png"}\n',
        "no picture": '{"caption": "a"}\n',
        "the last is broken": good + "{",
        "keys with escapes": json.dumps({ESCAPE: 1, LONG: 2}) + "\n",
    }
    for name, content in lines.items():

        def spoil(data: Path, content: str | bytes = content) -> None:
            (data / "captions.csv").unlink()
            written("captions.jsonl", content)(data)

        yield Attack(f"jsonl: {name}", given(base, "pictures", spoil), SHOW, refused.replace("csv", "jsonl"))
    shown = "image,caption\n1.png,<script>alert(1)</script>\n2.png,it's so\n3.png,{LONG}\n4.png,é and 日本\n"
    yield Attack("captions that are shown", given(base, "pictures", written("captions.csv", shown)), SHOW, codes=(0,))


def coco(base: Path) -> Iterator[Attack]:
    """``annotations/captions_train2017.json``."""
    file = "annotations/captions_train2017.json"
    texts = {
        "empty": "",
        "half": '{"images": [{"id',
        "null": "null",
        "a list": "[]",
        "deep": DEEP,
        "deep objects": '{"a":' * 50_000,
        "no pictures": '{"annotations": []}',
        "nothing": '{"images": [], "annotations": []}',
        "a number": "9" * 100_000,
        "not UTF-8": b"\xff\xfe",
        "pictures that are numbers": '{"images": [1], "annotations": [2]}',
        "a text": '"x"',
    }
    for name, content in texts.items():
        yield Attack(
            name, given(base, "coco", written(file, content)), SHOW, r"captions_train2017\.json|no COCO|captions"
        )

    def changed(change: Callable[[dict], Any]) -> Callable[[Path], None]:
        return given(base, "coco", lambda data: json_of(data / file, change))

    says = r"name too long|captions_train2017\.json|There is no picture"
    for where, key in (
        ("images", "id"),
        ("images", "file_name"),
        ("annotations", "image_id"),
        ("annotations", "caption"),
    ):
        for value in (None, [], {}, 10**30, f"{ESCAPE}x", LONG):
            harmless = (key == "caption" and isinstance(value, str)) or (key in ("id", "image_id"))
            change = lambda v, w=where, k=key, value=value: v[w][0].update({k: value})  # noqa: E731
            yield Attack(
                f"{where}: {key} {str(value)!r:.20}", changed(change), SHOW, says, (0, 1) if harmless else (1,)
            )
        yield Attack(f"{where} without {key}", changed(lambda v, w=where, k=key: v[w][0].pop(k) and None), SHOW, says)
    yield Attack("a blank caption", changed(lambda v: v["annotations"][0].update(caption=" ")), SHOW, says)
    yield Attack("half a character", changed(lambda v: v["annotations"][0].update(caption="\ud800")), SHOW, says)


def shards(base: Path) -> Iterator[Attack]:
    """``train-0.tar``."""

    def packed(*members: tuple[str, bytes], **header: Any) -> Callable[[Path], object]:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            for name, content in members:
                info = tarfile.TarInfo(name)
                info.size = len(content)
                for key, value in header.items():
                    setattr(info, key, value)
                archive.addfile(info, io.BytesIO(content))
        return written("train-0.tar", buffer.getvalue())

    png = (base / "pictures" / "1.png").read_bytes()
    plain = packed(("1.png", png), ("1.txt", b"a"))
    whole = (base / "shards" / "train-0.tar").read_bytes()
    for name, spoil in {
        "empty": written("train-0.tar", b""),
        "no tar": written("train-0.tar", b"x" * 2_000),
        "half": written("train-0.tar", whole[: len(whole) // 2]),
        "without its end": written("train-0.tar", whole[:-9_000]),
        "zeros": written("train-0.tar", bytes(10_240)),
        "a size that is no number": written("train-0.tar", whole[:124] + b"zzzzzzzzzzz\0" + whole[136:]),
        "a size of exabytes": written("train-0.tar", whole[:124] + b"\x80" + b"\x7f" * 11 + whole[136:]),
        "no caption": packed(("1.png", png)),
        "no picture": packed(("1.txt", b"a")),
        "an empty caption": packed(("1.png", png), ("1.txt", b" ")),
        "a broken picture": packed(("1.png", png[:90]), ("1.txt", b"a")),
        "an empty picture": packed(("1.png", b""), ("1.txt", b"a")),
        "a caption that is no UTF-8": packed(("1.png", png), ("1.txt", b"\xff\xfe")),
        **{
            f"json: {name}": packed(("1.png", png), ("1.json", text.encode()))
            for name, text in {
                "deep": DEEP,
                "a list": "[]",
                "empty": "",
                "null": "null",
                "no caption": '{"a": 1}',
                "a list for a caption": '{"caption": [1]}',
                "a number for a caption": '{"caption": 5}',
                "half a character": '{"caption": "\\ud800"}',
                "digits": "9" * 100_000,
                "blank": '{"caption": " "}',
            }.items()
        },
        "links": packed(("1.png", b""), ("1.txt", b""), type=tarfile.SYMTYPE, linkname="/etc/passwd"),
        "hard links": packed(("1.png", b""), ("1.txt", b""), type=tarfile.LNKTYPE, linkname="../secret.png"),
        "devices": packed(("1.png", b""), ("1.txt", b""), type=tarfile.CHRTYPE, devmajor=1, devminor=5),
        "a name with an escape": packed((f"{ESCAPE}.png", png[:50]), (f"{ESCAPE}.txt", b"a")),
        "a long name": packed((f"{LONG}.png", png[:50]), (f"{LONG}.txt", b"a")),
        "a bomb": packed(("1.png", bomb(40_000, 40_000)), ("1.txt", b"a")),
        "gzip": written("train-0.tar", b"\x1f\x8b" + bytes(100)),
    }.items():
        yield Attack(name, given(base, "shards", spoil), SHOW, r"train-0\.tar|No picture|shards|damaged|data has")
    climbing = packed(
        ("../../../etc/passwd.png", png), ("../../../etc/passwd.txt", b"a"), ("/tmp/x.png", png), ("/tmp/x.txt", b"a")
    )
    yield Attack("names that climb out, which are not unpacked", given(base, "shards", climbing), SHOW, codes=(0,))
    for spoil, name in ((plain, "a sample alone"),):
        yield Attack(name, given(base, "shards", spoil), SHOW, codes=(0,))


# Pictures and sounds.


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes that claims many pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def encoded(form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    shades = np.random.default_rng(0).integers(0, 255, (40, 40, 3), np.uint8)
    Image.fromarray(shades).save(buffer, form, **options)
    return buffer.getvalue()


def images(base: Path) -> Iterator[Attack]:
    """A file named ``0.png`` that is something else, or less."""
    png = encoded("PNG")
    header, rest = png[:33], png[33:]
    lit = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n"
    for name, content in {
        "empty": b"",
        "text": b"text",
        "HTML": b"<html><img src=x>",
        "PostScript": lit + b"(sprung) (w) file closefile\nshowpage\n",
        "PostScript for DOS": b"\xc5\xd0\xd3\xc6" + struct.pack("<6I", 30, len(lit), 0, 0, 0, 0) + lit,
        "PDF": b"%PDF-1.4\n1 0 obj\n",
        "SVG": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="http://evil/"/></svg>',
        "XML": b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "c">]>',
        "a pickle": b"\x80\x04cos\nsystem\n.",
        "ELF": b"\x7fELF" + bytes(100),
        "a zip": b"PK\x03\x04" + bytes(100),
        "a script": b"#!/bin/sh\ntouch sprung\n",
        **{
            f"{form}, which is not promised": encoded(form)
            for form in ("EPS", "PDF", "ICO", "PPM", "TGA", "PCX", "SGI", "IM", "DDS", "DIB")
        },
        **{
            f"{form}, cut at {share:.0%}": (whole := encoded(form))[: int(share * len(whole))]
            for form in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP")
            for share in (0.02, 0.5)
        },
        "a bomb of 10⁹ pixels": bomb(32_000, 32_000),
        "a bomb of 4 × 10¹⁸ pixels": bomb(2**31 - 1, 2**31 - 1),
        "a side of 0": bomb(0, 10),
        "a row of 2³¹": bomb(2**31 - 1, 1),
        "a GIF of 4 × 10⁹ pixels": b"GIF89a\xff\xff\xff\xff\x00\x00\x00,\0\0\0\0\xff\xff\xff\xff\0\2\0;",
        "a BMP of 10¹⁸ pixels": b"BM"
        + struct.pack("<IHHI", 54, 0, 0, 54)
        + struct.pack("<IiiHHIIiiII", 40, 10**9, 10**9, 1, 24, 0, 0, 0, 0, 0, 0),
        "a TIFF that leads to itself": b"II*\0\x08\0\0\0\0\0\x08\0\0\0",
        "a TIFF of a million entries": b"II*\0\x08\0\0\0\xff\xff" + b"\0" * 2_000,
        "a text of 1 GB when unpacked": header + chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(10**8))) + rest,
        "a wrong check": png[:40] + b"\xff" + png[41:],
        "a profile of 1 GB when unpacked": header + chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(10**8))) + rest,
        "only a header": header,
        "a palette that is not there": bomb(8, 8)[:25] + b"\x03" + bomb(8, 8)[26:],
    }.items():
        codes = (0, 1) if "unpacked" in name or "wrong check" in name else (1,)
        yield Attack(name, given(base, "pictures", written("0.png", content)), SHOW, r"0\.png", codes)


def sounds(base: Path) -> Iterator[Attack]:
    """A file named ``1.wav`` that is something else, or less."""
    wav = (base / "sounds" / "1.wav").read_bytes()

    def head(channels: int = 1, rate: int = 16_000, bits: int = 16, kind: int = 1, size: int | None = None) -> bytes:
        data = wav[44:]
        block = max(channels * bits // 8, 1)
        form = struct.pack("<HHIIHH", kind, channels % 65_536, rate, min(rate * block, 2**32 - 1), block % 65_536, bits)
        length = len(data) if size is None else size
        return (
            b"RIFF"
            + struct.pack("<I", 36 + len(data))
            + b"WAVEfmt "
            + struct.pack("<I", 16)
            + form
            + b"data"
            + struct.pack("<I", length)
            + data
        )

    nan = np.full(9_000, np.nan, "<f4").tobytes()
    for name, content in {
        "empty": b"",
        "text": b"text",
        "HTML": b"<audio src=x>",
        "a pickle": b"\x80\x04cos\nsystem\n.",
        "a picture": encoded("PNG"),
        "a script": b"#!/bin/sh\ntouch sprung\n",
        "a playlist": b"#EXTM3U\nhttp://evil/x.mp3\n",
        "only a head": wav[:44],
        "half a head": wav[:20],
        "no channel": head(0),
        "60,000 channels": head(60_000),
        "no rate": head(rate=0),
        "a rate of 4 × 10⁹": head(rate=2**32 - 1),
        "a rate of 1": head(rate=1),
        "bits that there are not": head(bits=13),
        "an unknown kind": head(kind=9_999),
        "a size of 4 GB": head(size=2**32 - 1),
        "no sample": head(size=0)[:44],
        "NaN": b"RIFF"
        + struct.pack("<I", 36 + len(nan))
        + b"WAVEfmt "
        + struct.pack("<IHHIIHH", 16, 3, 1, 16_000, 64_000, 4, 32)
        + b"data"
        + struct.pack("<I", len(nan))
        + nan,
        "too short": wav[: 44 + 200],
        "MIDI": b"MThd" + bytes(100),
        "AU of nothing": b".snd" + struct.pack(">5I", 24, 2**32 - 1, 1, 16_000, 1),
        "a FLAC of noise": b"fLaC" + bytes(range(256)) * 8,
        "an Ogg of noise": b"OggS" + bytes(range(256)) * 8,
        "an MP3 of noise": b"\xff\xfb\x90\x64" + bytes(range(256)) * 8,
        "an Ogg of zeros": b"OggS" + bytes(5_000),
        "ID3 of 256 MB": b"ID3\x04\0\0\x7f\x7f\x7f\x7f" + bytes(100),
        "AIFF": b"FORM" + struct.pack(">I", 2**31) + b"AIFFCOMM" + bytes(40),
    }.items():
        harmless = (0, 1) if name in ("a size of 4 GB", "bits that there are not") else (1,)
        yield Attack(name, given(base, "sounds", written("1.wav", content)), SHOW, r"1\.wav", harmless)


# Paths.

OUT = (
    "../secret.png",
    "../../secret.png",
    "/etc/passwd",
    "/dev/zero",
    "/dev/stdin",
    "/proc/self/mem",
    "a/../../secret.png",
    "..",
    "//etc/passwd",
    "../data2/1.png",
    "./../secret.png",
    "/",
    "~/../secret.png",
)


def links(data: Path) -> dict[str, Path]:
    """Ways out of a folder, by the names of files that take them."""
    (data / "out").symlink_to(data.parent.parent, target_is_directory=True)
    (data / "link.png").symlink_to("../../secret.png")
    (data / "zero.png").symlink_to("/dev/zero")
    (data / "loop.png").symlink_to("loop.png")
    (data / "broken.png").symlink_to("/nowhere")
    os.mkfifo(data / "pipe.png")
    return {
        name: data / name for name in ("out/secret.png", "link.png", "zero.png", "loop.png", "broken.png", "pipe.png")
    }


WAYS = ("out/secret.png", "link.png", "zero.png", "loop.png", "broken.png", "pipe.png")


def paths(base: Path) -> Iterator[Attack]:
    """Names in captions and in COCO, and links, that lead out of the folder or to what is no file."""
    refused = r"outside the folder|cannot be a path|There is no (picture|sound)"
    for name in (*OUT, *WAYS):

        def table(data: Path, name: str = name) -> None:
            links(data)
            (data / "captions.csv").write_text(f"image,caption,split\n1.png,a,train\n{name},b,train\n")

        def lines(data: Path, name: str = name) -> None:
            links(data)
            (data / "captions.csv").unlink()
            (data / "captions.jsonl").write_text(json.dumps({"image": name, "caption": "a"}) + "\n")

        def sound(data: Path, name: str = name) -> None:
            links(data)
            (data / "captions.csv").write_text(f"sound,caption,split\n1.wav,a,train\n{name},b,train\n")

        def image(data: Path, name: str = name) -> None:
            links(data / "train2017")
            json_of(data / "annotations" / "captions_train2017.json", lambda v: v["images"][0].update(file_name=name))

        for kind, folder, spoil in (
            ("csv", "pictures", table),
            ("jsonl", "pictures", lines),
            ("sounds", "sounds", sound),
            ("coco", "coco", image),
        ):
            yield Attack(f"{kind}: {name}", given(base, folder, spoil), SHOW, refused)
    for name, target in (
        ("outside", "../../shard.tar"),
        ("zeros", "/dev/zero"),
        ("itself", "train-1.tar"),
        ("nowhere", "/nowhere"),
    ):

        def shard(data: Path, target: str = target) -> None:
            shutil.copy(data / "train-0.tar", data.parent.parent / "shard.tar")
            (data / "train-1.tar").symlink_to(target)

        yield Attack(
            f"shards: a link to {name}",
            given(base, "shards", shard),
            SHOW,
            r"outside the folder|cannot be a path|no shard",
        )
    for name in ("captions.csv", "annotations/captions_train2017.json", "train-0.tar"):
        kind = {"c": "pictures", "a": "coco", "t": "shards"}[name[0]]

        def pipe(data: Path, name: str = name) -> None:
            (data / name).unlink()
            os.mkfifo(data / name)

        yield Attack(f"a pipe for {name}", given(base, kind, pipe), SHOW, r"captions|shard")
