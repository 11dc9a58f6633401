"""A GGUF file, read without believing it: what it announces must lie within it.

A file begins with a magic word, a version, the numbers of tensors and of settings; then come the settings, and of each
tensor its name, shape, type and offset; then the tensors. Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.
The package ``gguf`` turns blocks of small whole numbers, each with its scale, into numbers again. Its own reader of
files is not used, because it trusts counts and offsets.
"""

import math
import mmap
import struct
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mmlearn.escaping import plain

# Types that are read; what else there is keeps less of the weights, or is made for certain chips.
READ = ("F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K")
# The types of settings, in the order of their numbers.
NUMBERS = {
    0: "<u1",
    1: "<i1",
    2: "<u2",
    3: "<i2",
    4: "<u4",
    5: "<i4",
    6: "<f4",
    7: "?",
    10: "<u8",
    11: "<i8",
    12: "<f8",
}
STRING, ARRAY = 8, 9
SMALLEST_SETTING, SMALLEST_TENSOR = 8 + 4 + 1, 8 + 4 + 8 + 4 + 8  # bytes


class Stored(NamedTuple):
    """A tensor in the file."""

    shape: tuple[int, ...]
    kind: str
    start: int  # byte of the file
    size: int  # bytes


class GGUF:
    """The settings of a file and its tensors, which are read one by one. All errors are ``ValueError``.

    They are of a file that is no GGUF or ends early; that announces more than it holds; whose tensors overlap, are
    named twice, or are of a type that is not read: the message names it, and those that are.
    """

    def __init__(self, path: Path):
        self.path = path
        with path.open("rb") as file:
            size = file.seek(0, 2)
            self.bytes: Any = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else b""
        self.position = 0
        if (magic := self._take(4, "its magic word")) != b"GGUF":
            raise ValueError(f"{path} is no GGUF file: it begins with {magic!r}.")
        version = self._number("<I", "its version")
        if version not in (2, 3):
            other = "; it is of a machine with another order of bytes" if version & 0xFFFF == 0 else ""
            raise ValueError(f"{path} is of GGUF's version {version}, and 2 and 3 are read{other}.")
        tensors, settings = self._number("<Q", "its counts"), self._number("<Q", "its counts")
        self._fits(settings, SMALLEST_SETTING, "settings")
        self.settings: dict[str, Any] = {}
        for _ in range(settings):
            name = self._name()
            if name in self.settings:
                raise ValueError(f"{path} has the setting {name:.60} twice.")
            self.settings[name] = self._value(self._number("<I", "a type"))
        self._fits(tensors, SMALLEST_TENSOR, "tensors")
        self.tensors = self._located([self._announced() for _ in range(tensors)])

    # The parts of a file.

    def _take(self, count: int, what: str) -> bytes:
        """The next bytes."""
        if count > len(self.bytes) - self.position:
            raise ValueError(f"{self.path} ends within {what}: {count:,} bytes are announced that are not there.")
        self.position += count
        return self.bytes[self.position - count : self.position]

    def _number(self, form: str, what: str) -> int:
        return struct.unpack(form, self._take(struct.calcsize(form), what))[0]

    def _fits(self, count: int, least: int, what: str) -> None:
        """A count is looked at before anything is done so often."""
        if count * least > len(self.bytes) - self.position:
            raise ValueError(f"{self.path} announces {count:,} {what}, for which it is too short.")

    def _text(self) -> str:
        content = self._take(self._number("<Q", "a text"), "a text")
        try:
            return content.decode()
        except UnicodeDecodeError as error:
            raise ValueError(f"{self.path} has a text that is not UTF-8: {content[:20]!r}.") from error

    def _name(self) -> str:
        """A name that a message can repeat."""
        if plain(name := self._text()) != name:  # control characters, or longer than any name
            raise ValueError(f"{self.path} has a name that cannot be printed: {name!r:.60}.")
        return name

    def _value(self, kind: int) -> Any:
        if kind == STRING:
            return self._text()
        if kind != ARRAY:
            return self._numbers(kind, 1)[0].item()
        kind, count = self._number("<I", "a type"), self._number("<Q", "a count")
        if kind != STRING:
            return self._numbers(kind, count).tolist()
        self._fits(count, 8, "texts")
        return [self._text() for _ in range(count)]

    def _numbers(self, kind: int, count: int) -> np.ndarray:
        if kind not in NUMBERS:
            raise ValueError(f"{self.path} has a setting of type {kind}, and there is none.")
        form = np.dtype(NUMBERS[kind])
        return np.frombuffer(self._take(count * form.itemsize, "a list of numbers"), form)

    def _announced(self) -> tuple[str, tuple[int, ...], int, int]:
        """Name, shape, type and offset of a tensor; the innermost axis is the first in the file."""
        name, axes = self._name(), self._number("<I", "a shape")
        if not 1 <= axes <= 4:
            raise ValueError(f"{self.path}: {name:.60} has {axes} axes; a tensor has 1 to 4.")
        shape = tuple(self._number("<Q", "a shape") for _ in range(axes))[::-1]
        return name, shape, self._number("<I", "a type"), self._number("<Q", "an offset")

    def _located(self, announced: list[tuple[str, tuple[int, ...], int, int]]) -> dict[str, Stored]:
        """Where tensors lie, behind all else. Each must be within the file, and none on another."""
        kinds = _kinds()
        alignment = self.settings.get("general.alignment", 32)
        if type(alignment) is not int or alignment < 1 or alignment & (alignment - 1) or alignment > 2**16:
            raise ValueError(f"{self.path}: general.alignment is a power of two up to 65,536, not {alignment!r:.40}.")
        begin = -(-self.position // alignment) * alignment
        strange = sorted({kinds.get(kind, (f"type {kind}",))[0] for *_, kind, _ in announced} - set(READ))
        if strange:
            raise ValueError(
                f"{self.path} is quantised as {', '.join(strange)}, which {'is' if len(strange) == 1 else 'are'} not "
                f"read here; read are {', '.join(READ)}."
            )
        found: dict[str, Stored] = {}
        for name, shape, number, offset in announced:
            kind, block, size = kinds[number]
            if not all(shape) or shape[-1] % block:
                raise ValueError(f"{self.path}: {name:.60} has shape {shape}, which {kind} does not come in.")
            count = math.prod(shape) // block * size
            if offset % alignment or begin + offset + count > len(self.bytes):
                raise ValueError(
                    f"{self.path}: {name:.60} of shape {shape} should lie at byte {begin + offset:,}, and the file "
                    f"has {len(self.bytes):,}. It was cut off, or lies."
                )
            if name in found:
                raise ValueError(f"{self.path} has {name:.60} twice.")
            found[name] = Stored(shape, kind, begin + offset, count)
        order = sorted(found, key=lambda name: found[name].start)
        for one, two in pairwise(order):
            if found[one].start + found[one].size > found[two].start:
                raise ValueError(f"{self.path}: {one:.60} and {two:.60} share memory, and each has its own weights.")
        return found

    def read(self, name: str) -> Tensor:
        """This tensor: in float16 and bfloat16 as it is stored, else in float32."""
        from gguf import GGMLQuantizationType
        from gguf.quants import dequantize

        shape, kind, start, size = self.tensors[name]
        stored = np.frombuffer(self.bytes, np.uint8, size, start)
        if kind in ("F16", "BF16"):
            numbers = torch.from_numpy(stored.view(np.int16).copy())
            return numbers.view(torch.float16 if kind == "F16" else torch.bfloat16).view(shape)
        _, _, block = _kinds()[GGMLQuantizationType[kind]]
        rows = stored.reshape(math.gcd(size // block, 64), -1)  # of whole blocks: few long rows are read fastest
        return torch.from_numpy(np.array(dequantize(rows, GGMLQuantizationType[kind]), np.float32)).view(shape)


def _kinds() -> dict[int, tuple[str, int, int]]:
    """Of each type its name, and how many numbers a block of it holds in how many bytes, by the type's number."""
    try:
        from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
    except ImportError as error:
        raise ValueError(
            "A GGUF file is read with the package gguf; in the clone of mmlearn: pip install -e '.[gguf]'."
        ) from error
    return {kind.value: (kind.name, *GGML_QUANT_SIZES[kind]) for kind in GGMLQuantizationType}
