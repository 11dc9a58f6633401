"""Released weights become safetensors in this library's own layout: pickles, and what CTranslate2 writes of Whisper.

Pickles are of UNITER, ALBEF, ViLBERT, VL-BERT and DeCoAR 2.0. A pickle is a program. It is read by PyTorch's
weights-only loader, which builds tensors, numbers and texts and nothing else; what asks for more is refused. What is
written, ``config.json`` and ``model.safetensors`` under our names, is read by :func:`~mmlearn.load_pretrained`. Names
and shapes are those of the official codes, which each layout names.
"""

import argparse
import json
import mmap
import re
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from mmlearn.files import refuse_links, written_whole
from mmlearn.pretrained.ctranslate2 import LAYOUT as CTRANSLATE2
from mmlearn.pretrained.ctranslate2 import is_ctranslate2, read_ctranslate2
from mmlearn.pretrained.extras import EXTRAS, gguf_of_extra, is_extra, read_extra
from mmlearn.pretrained.gguf_convert import convert_gguf
from mmlearn.pretrained.layouts import LAYOUTS, Layout, Tensors
from mmlearn.pretrained.loading import build_own, rename

WRITTEN = ("config.json", "model.safetensors", "tokenizer.json", "special_tokens.json")
WRITTEN += ("tokenizer_config.json", "chat_template.jinja")  # of a GGUF
MODEL_FILES = ("model.safetensors", "config.json", "*.safetensors*")  # a pickle may lie beside what it becomes


def convert(file: Path, folder: Path, force: bool = False) -> str:
    """Write what a released file holds to ``folder``, as a checkpoint of ours. Returns what was done, in one line.

    ``file`` is a pickle, CTranslate2's ``model.bin``, or the name of an extra (:mod:`mmlearn.pretrained.extras`). A
    ``tokenizer.json`` that belongs to it is copied. A GGUF becomes a published checkpoint
    (:func:`~mmlearn.pretrained.gguf_convert.convert_gguf`).

    Raises ``FileNotFoundError`` without the file; ``ValueError`` where the folder has links, or a model already, unless
    that is to be overwritten by ``force``, for a pickle that wants to run code, a damaged file, a layout that is not
    known, and tensors that are missing, left over, sparse, or of another shape.
    """
    refuse_links(folder, [folder / name for name in WRITTEN])
    there = [path.name for pattern in MODEL_FILES for path in sorted(folder.glob(pattern))]
    if there and not force:
        raise ValueError(f"{folder} holds a {there[0]} already; give another folder, or add --force.")
    if file.suffix == ".gguf" or (file.is_file() and _begins(file) == b"GGUF"):
        return convert_gguf(file, folder)
    if is_extra(file) and EXTRAS[str(file)][0].path.endswith(".gguf"):
        return convert_gguf(gguf_of_extra(str(file)), folder)
    published, tokenizer = _released(file)
    layout = _layout_of(published, file)
    left, twins, rest = [], {}, {}
    for name, tensor in published.items():
        if reason := _first(layout.unread, name):
            left.append(reason)
        elif twin := _first(layout.tied, name):
            twins[name] = twin
        else:
            rest[name] = tensor
    tensors = {ours: tensor for ours, (_, tensor) in rename(layout.renames, rest, file, layout.packed).items()}
    for name, twin in twins.items():
        if twin not in tensors:
            raise ValueError(f"{file} looks like {layout.system}, but has nothing for our {twin}.")
        if not torch.equal(published[name], tensors[twin]):
            raise ValueError(f"{file}: {name} should be our {twin} once more, and is another; this is not built here.")
    try:
        tensors = layout.finish(tensors)
        config = {"model_type": "mmlearn", "system": layout.system, "config": layout.settings(tensors)}
    except KeyError as error:
        raise ValueError(f"{file} looks like {layout.system}, but has nothing for our {error.args[0]}.") from error
    except (IndexError, RuntimeError, ValueError, ZeroDivisionError) as error:  # of shapes that no such model has
        reason = " ".join(str(error).split())
        raise ValueError(f"{file} looks like {layout.system}, but its shapes do not: {reason}") from error
    tensors = {name: value.float() if value.is_floating_point() else value for name, value in tensors.items()}
    build_own(config, tensors, file)
    _write(config, tensors, folder)
    if tokenizer is not None:
        with written_whole(folder / "tokenizer.json") as unfinished:
            unfinished.write_bytes(tokenizer)
    count = sum(value.numel() for value in tensors.values())
    without = f", without {', '.join(dict.fromkeys(left))}" if left else ""
    return f"{file} is {layout.system}: {len(tensors)} tensors, {count:,} numbers{without}"


def _released(file: Path) -> tuple[Tensors, bytes | None]:
    """The tensors by their released names, and the ``tokenizer.json`` that belongs to them, if any."""
    if not file.is_file():
        if str(file) in EXTRAS:
            content, tokenizer = read_extra(str(file))
            return _plain_names(read_ctranslate2(content, file)), tokenizer
        raise FileNotFoundError(f"There is no file {file}, and no extra of this name; extras are {', '.join(EXTRAS)}.")
    with file.open("rb") as opened:
        if not is_ctranslate2(opened.read(64)):
            return _plain_names(_tensors_in(_read(file), file)), None
        with mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as mapped, memoryview(mapped) as content:
            tensors = _plain_names(read_ctranslate2(content, file))
    beside = file.with_name("tokenizer.json")
    return tensors, beside.read_bytes() if beside.is_file() else None


def _begins(file: Path) -> bytes:
    with file.open("rb") as opened:
        return opened.read(4)


def _read(file: Path) -> Any:
    """What the pickle holds, read without running anything."""
    try:
        # Namespaces hold the options of fairseq's programs: a plain object, whose parts are checked like all others.
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged bytes make the loader stumble in many ways
        text = " ".join(str(error).split())
        if wanted := re.search(r"GLOBAL (\S+)|Unsupported (?:class|global) ([\w.]+)|(TorchScript)", text):
            name = next(filter(None, wanted.groups()))
            raise ValueError(
                f"{file} wants to run code when it is opened ({name}), and so it is not opened. Only tensors, numbers "
                "and texts are read."
            ) from error
        raise ValueError(f"{file} is no whole pickle of PyTorch; download it again.") from error


def _tensors_in(content: Any, file: Path) -> Tensors:
    """The weights: all there is, or what lies under one of the usual names."""
    for name in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(name), dict):
            content = content[name]
            break
    named = content.items() if isinstance(content, dict) else ()
    found = {name: value for name, value in named if isinstance(name, str) and isinstance(value, Tensor)}
    if not found:
        raise ValueError(f"{file} holds no weights by name, but a {type(content).__name__}.")
    for name, value in found.items():
        if value.layout is not torch.strided or value.is_meta or value.is_quantized or value.is_nested:
            kind = "meta, and without numbers" if value.is_meta else "sparse, quantized or nested"
            raise ValueError(f"{file}: {name:.60} is {kind}; only plain tensors are read.")
    return found


def _plain_names(tensors: Tensors) -> Tensors:
    """Names without what training on several GPUs put before all, and with PyTorch's words for a norm."""
    before = "module." if all(name.startswith("module.") for name in tensors) else ""
    return {
        re.sub(r"\.beta$", ".bias", re.sub(r"\.gamma$", ".weight", name[len(before) :])): value
        for name, value in tensors.items()
    }


def _first(patterns: dict[str, str], name: str) -> str | None:
    """What is said of the first of these patterns that the name has."""
    return next((said for pattern, said in patterns.items() if re.search(pattern, name)), None)


def _layout_of(tensors: Tensors, file: Path) -> Layout:
    for layout in (*LAYOUTS, CTRANSLATE2):
        if any(re.search(layout.mark, name) for name in tensors):
            return layout
    known = ", ".join(layout.system for layout in (*LAYOUTS, CTRANSLATE2))
    some = ", ".join(list(tensors)[:3])
    raise ValueError(f"{file} has no layout that is known here ({known}); it begins with {some:.200}.")


def _write(config: dict[str, Any], tensors: Tensors, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    whole = {name: value.contiguous().clone() for name, value in tensors.items()}
    with written_whole(folder / "model.safetensors") as unfinished:
        unfinished.write_bytes(save(whole, metadata={"format": "pt"}))  # save_file raises no OSError
    with written_whole(folder / "config.json") as unfinished:
        unfinished.write_text(json.dumps(config, indent=2), encoding="utf-8")
