"""The data that comes with the package, in ``mmlearn/data/archives``: one folder for what shares a licence."""

import gzip
import io
import json
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from mmlearn.data.readers.images import read_image

ARCHIVES = Path(__file__).parent.parent / "archives"


@contextmanager
def reading(archive: str, file: str) -> Iterator[Path]:
    """The path of this file. ``FileNotFoundError`` where there is none, ``ValueError`` for any error while reading."""
    path = ARCHIVES / archive / file
    advice = f"Reinstall mmlearn, or run `python -m mmlearn.data.build {archive}`."
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing. {advice}")
    try:
        yield path
    except Exception as error:  # each format's reader raises its own
        raise ValueError(f"{path} is damaged ({type(error).__name__}: {error}). {advice}") from error


def read_json(archive: str, file: str) -> Any:
    """What a JSON file of an archive says; also where it is gzipped. It is read once."""
    with reading(archive, file) as path:
        return _json(path)


@lru_cache
def _json(path: Path) -> Any:
    content = path.read_bytes()
    return json.loads(gzip.decompress(content) if path.suffix == ".gz" else content)


@lru_cache
def _zip(path: Path) -> zipfile.ZipFile:
    """A zip in memory: a file would share its position with the workers of a ``DataLoader``."""
    return zipfile.ZipFile(io.BytesIO(path.read_bytes()))


class Members:
    """The files of a zip by their names without suffix: decoded when first asked for, then kept as whole numbers.

    ``decode(content, name=…)`` gives float32 numbers in [-1, 1], which are rounded to those of ``kept_as``.
    """

    def __init__(self, archive: str, file: str, decode: Callable[..., Tensor], kept_as: torch.dtype):
        self.archive, self.file, self.decode, self.kept_as = archive, file, decode, kept_as
        self.largest = torch.iinfo(kept_as).max
        with reading(archive, file) as path:
            self.files = {name.rpartition(".")[0]: name for name in _zip(path).namelist()}
        self._kept: dict[str, Tensor] = {}

    def __contains__(self, name: str) -> bool:
        return name in self.files

    def __getitem__(self, name: str) -> Float[Tensor, "..."]:
        if name not in self._kept:
            with reading(self.archive, self.file) as path:
                decoded = self.decode(_zip(path).read(self.files[name]), name=self.files[name])
            self._kept[name] = (decoded.clamp(-1, 1) * self.largest).round().to(self.kept_as)
        return self._kept[name].float().div_(self.largest)

    def get(self, name: str) -> Float[Tensor, "..."] | None:
        """What the file of this name holds, or None where there is none."""
        if name not in self:
            return None
        return self[name]


def images(archive: str, size: int) -> Members:
    """The pictures of an archive, (3, size, size) each. Raises ``ValueError`` for a size below 1."""
    if size < 1:
        raise ValueError(f"A picture is at least 1 pixel wide, got size {size}.")
    return Members(archive, "pictures.zip", partial(read_image, size=size), torch.uint8)
