"""Whether a model fits into memory, asked before anything is loaded."""

import os
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

GIB = 2**30
GROUP = Path("/sys/fs/cgroup")  # what a container may take


def available_memory() -> int:
    """Bytes that can still be taken: what the system says is available, and no more than its container has left."""
    pages = "SC_AVPHYS_PAGES" if "SC_AVPHYS_PAGES" in os.sysconf_names else "SC_PHYS_PAGES"  # the latter on macOS
    left = os.sysconf(pages) * os.sysconf("SC_PAGE_SIZE")
    if (told := Path("/proc/meminfo")).is_file():
        lines = dict(line.split(":", 1) for line in told.read_text().splitlines())
        left = int(lines["MemAvailable"].split()[0]) * 1024
    most = GROUP / "memory.max"
    if most.is_file() and (limit := most.read_text().strip()).isdigit():
        counts = dict(line.split() for line in (GROUP / "memory.stat").read_text().splitlines())
        used = int((GROUP / "memory.current").read_text()) - int(counts["inactive_file"])  # which can be dropped
        left = min(left, int(limit) - used)
    return left


def check_memory(tensors: Iterable[Tensor], dtype: torch.dtype, mapped: bool, what: str) -> None:
    """``ValueError`` where tensors that become ``dtype`` take more memory than there is. It says what they need.

    Those that are of this type already need none where they are ``mapped``: they are read from the file as they are
    used, and forgotten where others need the room.
    """
    tensors = list(tensors)
    size, free = dtype.itemsize, available_memory()
    needed = sum(x.numel() * size for x in tensors if x.is_floating_point() and not (mapped and x.dtype == dtype))
    if needed <= free:
        return
    count = sum(x.numel() for x in tensors)
    stored = max(tensors, key=Tensor.numel).dtype
    way = f"take dtype={stored}, in which the file has them, and they are mapped from there" if stored != dtype else ""
    raise ValueError(
        f"{what} has {count:,} numbers: as {str(dtype).removeprefix('torch.')} they need {needed / GIB:.1f} GiB, and "
        f"{free / GIB:.1f} GiB are free; {way or 'free some, or take a smaller model'}."
    )
