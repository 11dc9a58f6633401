"""Samples into tar files as WebDataset has them, which :class:`mmlearn.data.readers.shards.Shards` reads."""

import io
import tarfile
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from PIL import Image


def write_shards(folder: str | Path, samples: Iterable[Any], shards: int) -> list[Path]:
    """Write pictures with captions to ``shards`` tar files under ``folder``, in turn; returns their paths.

    Sample i is ``NAME.png`` and ``NAME.txt``, and has an ``image``, float (3, height, width) from 0 to 1, and a
    ``caption``. ``ValueError`` for fewer than one shard.
    """
    if shards < 1:
        raise ValueError(f"There is at least one shard, got {shards}.")
    Path(folder).mkdir(parents=True, exist_ok=True)
    paths = [Path(folder) / f"{number:05}.tar" for number in range(shards)]
    with ExitStack() as stack:
        archives = [stack.enter_context(tarfile.open(path, "w")) for path in paths]
        for index, sample in enumerate(samples):
            stream = io.BytesIO()
            pixels = (sample.image * 255).round().clamp(0, 255).byte().permute(1, 2, 0).numpy()
            Image.fromarray(pixels).save(stream, "PNG")
            for suffix, content in (("png", stream.getvalue()), ("txt", sample.caption.encode())):
                member = tarfile.TarInfo(f"{index:09}.{suffix}")
                member.size = len(content)
                archives[index % shards].addfile(member, io.BytesIO(content))
    return paths
