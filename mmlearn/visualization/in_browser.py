"""A trained CLIP as one file of JavaScript, so that a page can run it without a server and without the network.

The file assigns one object. Weights are written in half precision and pictures in bytes, both in base64, because a page
that is opened from a disk may load a script but may not read another file.
"""

import base64
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from mmlearn.data.tokenizer import Tokenizer
from mmlearn.files import written_whole

VARIABLE = "window.mmlearnCLIP"
ACTIVATIONS = ("gelu", "quick_gelu")  # those that clip.js has


def write_for_browser(
    path: str | Path,
    system: nn.Module,
    tokenizer: Tokenizer,
    images: Float[Tensor, "n 3 height width"],
    captions: Sequence[str],
    *,
    mean: Sequence[float],
    std: Sequence[float],
    **more: Any,
) -> None:
    """Write a CLIP, its tokenizer and a gallery of pictures with their captions as ``path``, for ``clip.js`` to run.

    ``images`` are numbers from 0 to 1; the model reads them less ``mean`` and over ``std``, one number a channel.
    ``more`` are further entries, of plain values and tensors. Pictures are rounded to bytes, and weights to half
    precision, which changes the unit embeddings by less than 1e-3.

    Raises ``ValueError`` for a configuration that ``clip.js`` does not run, for a number that half precision does not
    hold, and where there is not one caption a picture.
    """
    if len(images) != len(captions):
        raise ValueError(f"Each picture has its caption, but there are {len(images)} and {len(captions)}.")
    config = system.config.to_dict()
    if wrong := _cannot_run(config, tokenizer, tuple(images.shape[2:])):
        raise ValueError(f"clip.js cannot run a CLIP with {wrong}.")
    if len(mean) != 3 or len(std) != 3:
        raise ValueError(f"mean and std are three numbers each, not {mean} and {std}.")
    values = {
        "config": config,
        "mean": list(mean),
        "std": list(std),
        "tokenizer": json.loads(tokenizer.engine.to_str()),
        "weights": system.state_dict(),
        "gallery": [{"image": as_bytes(image), "caption": text} for image, text in zip(images, captions)],
    }
    text = json.dumps(_packed(values | more), ensure_ascii=False, separators=(",", ":"))
    with written_whole(Path(path)) as unfinished:
        unfinished.write_text(f"{VARIABLE} = {text};\n", encoding="utf-8")


def read_for_browser(path: str | Path) -> dict[str, Any]:
    """What :func:`write_for_browser` wrote: the same entries, with tensors in single precision or in bytes.

    Raises ``ValueError`` for another file.
    """
    text = Path(path).read_text(encoding="utf-8")
    start, end = f"{VARIABLE} = ", ";\n"
    if not (text.startswith(start) and text.endswith(end)):
        raise ValueError(f"{path} was not written by write_for_browser: it does not assign {VARIABLE}.")
    return _unpacked(json.loads(text[len(start) : -len(end)]))


def as_bytes(values: Float[Tensor, "..."]) -> Tensor:
    """Numbers from 0 to 1 as bytes from 0 to 255."""
    return (values.clamp(0, 1) * 255).round().to(torch.uint8)


def _cannot_run(config: Mapping[str, Any], tokenizer: Tokenizer, size: tuple[int, int]) -> str:
    """Which setting of a CLIP ``clip.js`` does not have, or nothing."""
    for tower in (config["image"], config["text"]):
        if not tower["norm_first"]:
            return "norms after the branches"
        if tower["activation"] not in ACTIVATIONS:
            return f"activation {tower['activation']!r}"
    if config["pooling"] != "max":
        return f"pooling {config['pooling']!r}, where the similarity is no sum over patches"
    if config["image"]["convolutions"]:
        return "convolutions"
    if not config["text"]["causal"]:
        return "a text tower that reads both ways"
    if config["end_token"] != tokenizer.end_token:
        return f"end_token {config['end_token']}, which is not the tokenizer's"
    expected = config["image"]["image_size"]
    if size[0] != size[1] or size != (tuple(expected) if isinstance(expected, list | tuple) else (expected, expected)):
        return f"pictures of {size[0]} × {size[1]} pixels, where it has learned positions for {expected}"
    return ""


def _packed(value: Any) -> Any:
    """The same with each tensor as a dictionary of its shape and its numbers in base64."""
    if isinstance(value, Mapping):
        return {key: _packed(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_packed(item) for item in value]
    if not isinstance(value, Tensor):
        return value
    kind, numbers = ("bytes", value.cpu()) if value.dtype == torch.uint8 else ("half", value.detach().cpu().half())
    if not numbers.isfinite().all():
        raise ValueError("Half precision holds numbers up to 65,504; these weights are larger, or no numbers.")
    little_endian = numbers.numpy().astype("u1" if kind == "bytes" else "<f2").tobytes()
    return {"shape": list(value.shape), kind: base64.b64encode(little_endian).decode()}


def _unpacked(value: Any) -> Any:
    if isinstance(value, list):
        return [_unpacked(item) for item in value]
    if not isinstance(value, dict):
        return value
    for kind, numbers in (("bytes", "u1"), ("half", "<f2")):
        if value.keys() == {"shape", kind}:
            flat = np.frombuffer(base64.b64decode(value[kind]), numbers).reshape(value["shape"])
            return torch.from_numpy(flat.astype(np.uint8 if kind == "bytes" else np.float32))
    return {key: _unpacked(item) for key, item in value.items()}
