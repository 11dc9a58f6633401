"""Hashes: random numbers that are a function of where they are used, so that sample i never depends on sample i - 1;
and what tells whether two tensors hold the same."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor


def stream(*parts: int | str) -> np.uint64:
    """A 64-bit key for these parts, the same on every machine."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return np.uint64(int.from_bytes(digest, "little"))


def random_bits(key: np.uint64, index: np.ndarray, count: int) -> np.ndarray:
    """``count`` 64-bit numbers for each index, (n, count), by the SplitMix64 generator at a counter.

    Source: Steele, Lea & Flood 2014, "Fast Splittable Pseudorandom Number Generators", figure 18.
    """
    with np.errstate(over="ignore"):
        counter = np.asarray(index, np.uint64)[:, None] * np.uint64(count) + np.arange(count, dtype=np.uint64)
        z = _mix(key) + (counter + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        return _mix(z)


def _mix(z: np.ndarray | np.uint64) -> np.ndarray | np.uint64:
    with np.errstate(over="ignore"):
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def uniform(key: np.uint64, index: np.ndarray, count: int) -> np.ndarray:
    """``count`` float32 numbers in [0, 1) for each index, (n, count)."""
    return (random_bits(key, index, count) >> np.uint64(40)).astype(np.float32) * np.float32(2**-24)


def digest(*content: Tensor | str | int) -> str:
    """SHA-256 of all this, in hexadecimal: of a tensor its type, shape and numbers."""
    seen = hashlib.sha256()
    for item in content:
        if isinstance(item, Tensor):
            item = item.detach().cpu().contiguous()
            seen.update(f"\0{item.dtype} {tuple(item.shape)}\0".encode())
            seen.update(item.flatten().view(torch.uint8).numpy())
        else:
            seen.update(f"\0{type(item).__name__} {item}\0".encode())
    return seen.hexdigest()


ENDS = 4096  # bytes at either end of a file: of two pictures of one size they differ


def fingerprint(told: Iterable[object]) -> str:
    """SHA-256 of what is told, in its order."""
    seen = hashlib.sha256()
    for item in told:
        seen.update(f"\0{item!r}".encode(errors="surrogatepass"))
    return seen.hexdigest()


def mark(path: Path, start: int = 0, length: int = -1, name: str = "") -> bytes:
    """Eight bytes that tell a part of a file from others, by its length, both ends, and a name; -1 stands for the rest.

    A file that cannot be read is marked by zeros.
    """
    try:
        with path.open("rb") as file:
            length = file.seek(0, 2) - start if length < 0 else length
            file.seek(start)
            first = file.read(min(ENDS, length))
            file.seek(start + max(length - ENDS, 0))
            content = f"{length} {name}\0".encode(errors="surrogateescape") + first + file.read(min(ENDS, length))
    except OSError:
        return bytes(8)
    return hashlib.blake2b(content, digest_size=8).digest()
