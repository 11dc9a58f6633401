"""CTranslate2's ``model.bin`` of a Whisper: read as bytes, in float32 or float16, with every count and size checked.

The file is a list of named arrays, all numbers little-endian::

    version, name of the specification, its revision, number of arrays
    for each array: name, rank, its sizes, type, number of bytes, and these bytes
    number of aliases, and for each its name and that of the array that it stands for

A name is its length, in two bytes, and then its letters and a 0. Nothing in a file is run, and no memory is taken that
the file does not fill. Source: https://github.com/OpenNMT/CTranslate2, python/ctranslate2/specs/model_spec.py.
"""

import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmlearn.pretrained.layouts import HEAD_WIDTH, Layout, Tensors, count_blocks, count_heads
from mmlearn.pretrained.whisper import spoken

VERSION = 6  # of the format
SPECIFICATION = "WhisperSpec"
TYPES = {0: torch.float32, 1: torch.int8, 2: torch.int16, 3: torch.int32, 4: torch.float16}
MOST = {"letters in a name": 512, "arrays": 10_000, "axes": 8}
# What a file says of its arithmetic, where ours has but one: GELU is number 3 there.
ARITHMETIC = {"activation": 3, "pre_norm": 1, "alibi": 0, "scale_embeddings": 0, "start_from_zero_embedding": 0}


def is_ctranslate2(content: bytes) -> bool:
    """Whether a file begins as CTranslate2 begins one: a small number, and then the name of a specification."""
    if len(content) < 6:
        return False
    version, length = struct.unpack_from("<IH", content)
    return 1 <= version <= 99 and content[6 : 6 + length].rstrip(b"\0").endswith(b"Spec")


@dataclass
class _Reader:
    """Takes numbers, names and bytes from the front. ``ValueError`` where the file has no more."""

    content: bytes | memoryview
    file: str | Path
    at: int = 0

    def take(self, count: int) -> bytes | memoryview:
        if count > len(self.content) - self.at:
            raise ValueError(
                f"{self.file} is cut off or damaged: at byte {self.at:,} it promises {count:,} more, and has "
                f"{len(self.content) - self.at:,}."
            )
        self.at += count
        return self.content[self.at - count : self.at]

    def number(self, form: str, what: str = "") -> int:
        value = struct.unpack("<" + form, self.take(struct.calcsize(form)))[0]
        if value > MOST.get(what, value):
            raise ValueError(
                f"{self.file} is damaged: it promises {value:,} {what}, and at most {MOST[what]:,} are read."
            )
        return value

    def name(self) -> str:
        letters = bytes(self.take(self.number("H", "letters in a name")))
        try:
            return letters.rstrip(b"\0").decode("ascii")
        except UnicodeDecodeError as error:
            raise ValueError(f"{self.file} is damaged: a name at byte {self.at:,} is no text.") from error


def read_ctranslate2(content: bytes | memoryview, file: str | Path) -> Tensors:
    """The arrays of a file by their names, with dots for slashes; those that have an alias stand under both names.

    Raises ``ValueError`` for a version or a specification that is not read, for quantised weights, and for a file that
    is damaged: sizes that do not fit, names that come twice, bytes that are missing or left over.
    """
    read = _Reader(content, file)
    version = read.number("I")
    if version != VERSION:
        raise ValueError(f"{file} is of CTranslate2's format {version}, and {VERSION} is read: convert it anew.")
    if (specification := read.name()) != SPECIFICATION:
        raise ValueError(f"{file} holds a {specification!r:.60}, and {SPECIFICATION} alone is read.")
    read.number("I")  # its revision, of which the arrays tell as much
    tensors: Tensors = {}
    for _ in range(read.number("I", "arrays")):
        name = read.name()
        if name in tensors:
            raise ValueError(f"{file} is damaged: {name!r:.60} comes twice.")
        tensors[name] = _array(read, name)
    for _ in range(read.number("I", "arrays")):
        alias, name = read.name(), read.name()
        if alias in tensors or name not in tensors:
            raise ValueError(f"{file} is damaged: {alias!r:.60} stands for {name!r:.60}, which cannot be.")
        tensors[alias] = tensors[name]
    if left := len(content) - read.at:
        raise ValueError(f"{file} is damaged: {left:,} bytes are left over.")
    return {name.replace("/", "."): tensor for name, tensor in tensors.items()}


def _array(read: _Reader, name: str) -> Tensor:
    shape = [read.number("I") for _ in range(read.number("B", "axes"))]
    kind, size = read.number("B"), read.number("I")
    if kind not in TYPES:
        raise ValueError(f"{read.file} is damaged: {name!r:.60} is of type {kind}, and there are 0 to {max(TYPES)}.")
    dtype = TYPES[kind]
    if shape and not dtype.is_floating_point:
        raise ValueError(
            f"{read.file}: {name:.60} is quantised to {str(dtype).removeprefix('torch.')}, and float16 and float32 are "
            "read: convert the model with --quantization float16."
        )
    if math.prod(shape) * dtype.itemsize != size:
        raise ValueError(f"{read.file} is damaged: {name!r:.60} has the sizes {shape} of {dtype}, and {size:,} bytes.")
    values = read.take(size)
    return torch.frombuffer(bytearray(values), dtype=dtype).view(shape) if size else torch.zeros(shape, dtype=dtype)


def _settings(tensors: Tensors) -> dict[str, Any]:
    """The configuration that shapes tell. Special tokens are those of all published vocabularies."""
    words, mels = tensors["decoder.embedding.tokens.weight"], tensors["encoder.convolution_1.weight"].shape[1]
    vocab_size, width = words.shape
    found = spoken(vocab_size)
    end_token = 50_257 if found["multilingual"] else 50_256
    return dict(
        mels=mels,
        frames=2 * len(tensors["encoder.positions"]),
        vocab_size=vocab_size,
        max_length=len(tensors["decoder.embedding.positions"]),
        pad_token=end_token,
        start_token=end_token + 1,
        end_token=end_token,
        **found,
        width=width,
        depth=count_blocks(tensors, "encoder.transformer.blocks"),
        decoder_depth=count_blocks(tensors, "decoder.transformer.blocks"),
        num_heads=count_heads(width),
        mlp_width=len(tensors["encoder.transformer.blocks.0.mlp.expand.weight"]),
    )


def _finish(tensors: Tensors) -> Tensors:
    """Without the numbers that say what the arithmetic is, and the biases of keys, which are 0 there."""
    heads = len(tensors["decoder.embedding.tokens.weight"][0]) // HEAD_WIDTH
    for stack in ("encoder", "decoder"):
        for name, expected in {"num_heads": heads, **ARITHMETIC}.items():
            if (found := tensors.pop(f"{stack}.{name}", None)) is not None and found.tolist() != expected:
                raise ValueError(f"{stack}/{name} is {found.tolist()}, and {expected} alone is built here.")
    for name in [name for name in tensors if name.endswith("attention.key.bias")]:
        if tensors.pop(name).any():
            raise ValueError(f"{name} is not 0, and Whisper's keys have no bias.")
    return tensors


LAYOUT = Layout(
    system="whisper",
    mark=r"^encoder\.conv1\.weight$",
    renames=(
        (r"^encoder\.conv(\d)\.", r"encoder.convolution_\1."),
        (r"^encoder\.position_encodings\.encodings$", "encoder.positions"),
        (r"^decoder\.position_encodings\.encodings$", "decoder.embedding.positions"),
        (r"^decoder\.embeddings\.", "decoder.embedding.tokens."),
        (r"^(encoder|decoder)\.layer_norm\.", r"\1.norm."),
        (r"\.layer_(\d+)\.", r".transformer.blocks.\1."),
        # An array "linear_0" of self-attention holds queries, keys and values; "linear_1" of the other keys and values.
        (r"\.attention\.layer_norm\.", ".cross_attention_norm."),
        (r"\.attention\.linear_0\.", ".cross_attention.query."),
        (r"\.attention\.linear_1\.", ".cross_attention.key_value."),
        (r"\.attention\.linear_2\.", ".cross_attention.output."),
        (r"\.self_attention\.layer_norm\.", ".attention_norm."),
        (r"\.self_attention\.linear_0\.", ".attention.query_key_value."),
        (r"\.self_attention\.linear_1\.", ".attention.output."),
        (r"\.ffn\.layer_norm\.", ".mlp_norm."),
        (r"\.ffn\.linear_0\.", ".mlp.expand."),
        (r"\.ffn\.linear_1\.", ".mlp.contract."),
    ),
    settings=_settings,
    tied={r"^decoder\.projection\.weight$": "decoder.embedding.tokens.weight"},
    unread={
        r"^decoder\.alignment_(heads|layer)$": "which heads tell the times of words",
        r"^(en|de)coder\.(scale_alibi|alibi_use_positive_positions)$": "settings of what is off",
    },
    finish=_finish,
    packed={
        r"(.*\.attention)\.query_key_value": (r"\1.query", r"\1.key", r"\1.value"),
        r"(.*\.cross_attention)\.key_value": (r"\1.key", r"\1.value"),
    },
)
