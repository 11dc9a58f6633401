"""From a folder or a hub id in the published layout to one of our systems.

The published layout is that of Transformers: ``config.json`` and ``*.safetensors``, sharded or not.
"""

import json
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from mmlearn.layers import Config
from mmlearn.pretrained.memory import check_memory

Renames = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Family:
    """How one published family maps to ours.

    ``renames`` are regular expressions and replacements, applied in order to each published tensor name, or a function
    that gives them for all the names of a file. ``packed`` maps the beginning of a renamed tensor, a regular
    expression, to the several of ours that it holds, stacked along their first axis. ``ignored`` are tensors that can
    be derived from others, ``fresh`` tensors of ours that files lack, such as counts of steps, which begin at 0.
    ``transposed`` are patterns of matrices that are stored the other way round. ``tied`` are names of ours that a file
    may hold although the model has none, because the settings say that the other name is this tensor as well.
    """

    build: Callable[[Config], nn.Module]
    config: Callable[[dict[str, Any], set[str]], Config]
    renames: Renames | Callable[[set[str]], Renames]
    packed: dict[str, tuple[str, ...]]
    ignored: tuple[str, ...]
    fresh: tuple[str, ...] = ()
    transposed: tuple[str, ...] = ()
    tied: dict[str, str] = field(default_factory=dict)


def load_pretrained(path_or_hub_id: str | Path, dtype: torch.dtype = torch.float32) -> nn.Module:
    """The published model at this folder, or with this id on the Hugging Face hub, as one of our systems.

    ``zoo/NAME`` is a small model that was trained here and came with the package (:mod:`mmlearn.pretrained.zoo`),
    ``smollm2-135m`` a language model that a package brings (:mod:`mmlearn.pretrained.extras`); the output folder of
    ``mmlearn train`` gives its system (``load_run`` of :mod:`mmlearn.training.runs` also what it reads with).
    Returns it in evaluation mode and in float32. Every tensor must be used and every parameter filled. With another
    ``dtype``, such as ``torch.bfloat16``, tensors that the file has in it are not copied. They are mapped into memory:
    it loads at once, reads from the file what it uses, and needs the file to stay as it is. What is learned does not
    change the file.

    Raises ``FileNotFoundError`` where a folder or file is missing; ``ValueError`` for pickled or damaged weights, an
    unknown family, a configuration that we do not build, tensors that are left over, missing or of another shape, and
    a model that takes more memory than is free: the message names them.
    """
    if str(path_or_hub_id).startswith("zoo/"):
        from mmlearn.pretrained.zoo import load_zoo

        return load_zoo(str(path_or_hub_id).removeprefix("zoo/")).model.to(dtype)
    from mmlearn.pretrained.extras import is_extra, load_extra

    if is_extra(path_or_hub_id):
        return load_extra(str(path_or_hub_id), dtype)
    folder = published_folder(path_or_hub_id)
    published = read_config(folder)
    if published.get("model_type") == "mmlearn":
        return build_own(published, _read_tensors(folder), folder).to(dtype)
    if is_run(published):
        if published.get("parts") or str(published["system"]).endswith(".py"):
            run = f"mmlearn.training.runs.load_run({str(folder)!r}, system=None).system"
            raise ValueError(f"{folder} is a run of which a part or the system's file lies elsewhere: {run} opens it.")
        return build_own(published, _read_tensors(folder), folder).to(dtype)
    check_family(published, folder / "config.json")
    return build_published(published, _read_tensors(folder), folder, dtype)


def is_run(said: Mapping[str, Any]) -> bool:
    """Whether a ``config.json`` that says this lies in the output folder of ``mmlearn train``."""
    return {"system", "stage", "fields"} <= said.keys()


def check_family(published: dict[str, Any], where: Path) -> None:
    """``ValueError`` for a configuration of a family that is not built here."""
    known = families()
    if str(published.get("model_type")).replace("-", "_") not in known:
        raise ValueError(f"{where} is of model_type {published.get('model_type')!r}; mmlearn loads {', '.join(known)}.")


def build_published(
    published: dict[str, Any], tensors: dict[str, Tensor], folder: Path, dtype: torch.dtype = torch.float32
) -> nn.Module:
    """The model of a published configuration, filled with these tensors. Errors as of :func:`load_pretrained`."""
    kind = str(published.get("model_type")).replace("-", "_")
    family: Family = import_module(f"mmlearn.pretrained.{kind}").FAMILY
    try:
        with torch.device("meta"):
            model = family.build(family.config(published, set(tensors)))
    except (ValueError, RuntimeError) as error:  # the latter for numbers that overflow
        where = folder / "config.json" if folder.is_dir() else folder
        raise ValueError(f"No model can be built from {where}: {' '.join(str(error).split())}") from error
    renames = family.renames(set(tensors)) if callable(family.renames) else family.renames
    renamed = rename(renames, tensors, folder, family.packed, family.ignored, family.transposed)
    _drop_twins(family.tied, renamed, model, folder)
    _fill(model, renamed, folder, family.fresh, dtype)
    return model.eval()


def build_own(published: dict[str, Any], tensors: dict[str, Tensor], position: Path) -> nn.Module:
    """A system under our own names, in evaluation mode: what ``mmlearn convert`` writes. ``position`` is for messages.

    Its ``config.json`` has ``model_type`` "mmlearn", the name of the ``system`` and its ``config``. Raises
    ``ValueError`` for a system that there is not, a configuration that it cannot be built from, and tensors that are
    left over, missing or of another shape.
    """
    from mmlearn.recipes.discovery import find_recipe, system_files

    name = str(published.get("system"))
    if name not in system_files():
        raise ValueError(
            f"{position} is of a system {name!r}, which is not here; known are {', '.join(system_files())}."
        )
    try:
        recipe = find_recipe(name)
        if not isinstance(given := published.get("config"), dict):
            raise ValueError(f"config should be a JSON object, not {given!r:.60}.")
        config = recipe.config.from_dict(given)
        with torch.device("meta"):  # so that shapes are compared before memory is taken
            model = recipe.make(config)
    except (ValueError, RuntimeError, TypeError) as error:
        raise ValueError(f"No {name} can be built from {position}: {' '.join(str(error).split())}") from error
    _fill(model, {ours: (ours, tensor) for ours, tensor in tensors.items()}, position)
    whole = recipe.make(config)  # with what no file holds, such as the mean and spread of pixels
    whole.load_state_dict(model.state_dict())
    return whole.eval()


def families() -> list[str]:
    """The published families that can be loaded: the files beside this one that have a FAMILY, by their names."""
    files = sorted(Path(__file__).parent.glob("*.py"))
    return [path.stem for path in files if re.search(r"^FAMILY = ", path.read_text("utf-8"), re.MULTILINE)]


def published_folder(path_or_hub_id: str | Path) -> Path:
    """This folder, or that of what the hub gives for an id. ``FileNotFoundError`` where there is neither."""
    folder = Path(os.path.expanduser(path_or_hub_id))  # a user that does not exist is a folder that does not
    if os.path.isdir(folder):  # not folder.is_dir(), to which a name that is too long is an error
        return folder
    hub_id = str(path_or_hub_id)
    if isinstance(path_or_hub_id, Path) or not re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", hub_id):
        raise FileNotFoundError(
            f"There is no folder {folder}. Give a folder that holds config.json and *.safetensors, or a hub id such as "
            "openai/clip-vit-base-patch32."
        )
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        patterns = ["*config.json", "tokenizer.json", "chat_template.*", "*.safetensors*"]
        return Path(snapshot_download(hub_id, allow_patterns=patterns))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise FileNotFoundError(
            f"{hub_id!r} is no folder here, and the hub did not give it ({type(error).__name__}). Check the name and "
            "the network, or download it elsewhere and give its folder."
        ) from error


def read_config(folder: Path) -> dict[str, Any]:
    """The ``config.json`` of a folder, with the model_type that nanoVLM leaves out. Errors as of :func:`read_json`."""
    found = read_json(folder / "config.json")
    nameless = "model_type" not in found and {"vit_hidden_dim", "lm_hidden_dim"} <= found.keys()
    return found | {"model_type": "nanovlm"} if nameless else found


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object. ``FileNotFoundError`` where there is none, ``ValueError`` for something else."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; a published checkpoint has it beside its weights.")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON: {error}. Download it again.") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} should hold a JSON object, not a {type(content).__name__}.")
    return content


def _read_tensors(folder: Path) -> dict[str, Tensor]:
    index, single = folder / "model.safetensors.index.json", folder / "model.safetensors"
    if index.is_file():
        placed = read_json(index).get("weight_map")
        if not isinstance(placed, dict) or not placed:
            raise ValueError(f"{index} has no weight_map; download it again.")
        shards = sorted(set(map(str, placed.values())))
        if outside := [name for name in shards if len(PurePosixPath(name).parts) != 1 or "\\" in name or name == ".."]:
            raise ValueError(f"{index} points outside its folder, at {outside[0]!r}; do not trust it.")
        tensors = {}
        for shard in shards:
            tensors |= _read_safetensors(folder / shard)
        if absent := sorted(set(placed) - set(tensors)):
            raise ValueError(f"{_names(absent)} of {index} in none of its files; download them again.")
        return tensors
    if single.is_file():
        return _read_safetensors(single)
    if pickles := sorted(
        path.name for pattern in ("*.bin", "*.pt", "*.pth", "*.ckpt") for path in folder.glob(pattern)
    ):
        raise ValueError(
            f"{folder} holds only pickled weights ({', '.join(pickles)}). Opening a pickle runs whatever its author "
            "put in, so mmlearn does not. Use the model's safetensors revision, or convert it where you trust it: "
            "load it with Transformers and save_pretrained(folder)."
        )
    raise FileNotFoundError(f"{folder} holds no model.safetensors and no model.safetensors.index.json.")


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing, though the index names it; download it again.")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is no whole safetensors file ({error}); download it again.") from error


def rename(
    renames: Renames,
    tensors: dict[str, Tensor],
    folder: Path,
    packed: dict[str, tuple[str, ...]],
    ignored: tuple[str, ...] = (),
    transposed: tuple[str, ...] = (),
) -> dict[str, tuple[str, Tensor]]:
    """Our name → (published name, tensor); the settings are those of :class:`Family`."""
    renamed = {}
    for published, tensor in tensors.items():
        if any(re.search(pattern, published) for pattern in ignored):
            continue
        if any(re.search(pattern, published) for pattern in transposed) and tensor.ndim == 2:
            tensor = tensor.T
        name = published
        for pattern, replacement in renames:
            name = re.sub(pattern, replacement, name)
        targets = [name]
        for pattern, several in packed.items():
            if stem := re.match(pattern, name):
                targets = [stem.expand(ours) + name[stem.end() :] for ours in several]
        parts = zip(targets, tensor.chunk(len(targets)) if len(targets) > 1 else [tensor])
        for ours, part in parts:
            if ours in renamed:
                raise ValueError(f"{folder} contradicts itself: {published} and {renamed[ours][0]} are both {ours}.")
            renamed[ours] = (published, part)
    return renamed


def _drop_twins(tied: dict[str, str], tensors: dict[str, tuple[str, Tensor]], model: nn.Module, folder: Path) -> None:
    """Leave out what is another of the tensors once more, or take it for that. ``ValueError`` where it is not."""
    for name, twin in tied.items():
        if name in tensors and name not in model.state_dict():
            published, tensor = tensors.pop(name)
            if not torch.equal(tensor, tensors.setdefault(twin, (published, tensor))[1]):
                raise ValueError(
                    f"{folder} contradicts itself: by tie_word_embeddings in config.json {published} is the token "
                    "table once more, and it is another."
                )


def _fill(
    model: nn.Module,
    tensors: dict[str, tuple[str, Tensor]],
    folder: Path,
    fresh: tuple[str, ...] = (),
    dtype: torch.dtype = torch.float32,
) -> None:
    wanted = model.state_dict()
    problems = []
    if unused := sorted(published for ours, (published, _) in tensors.items() if ours not in wanted):
        problems.append(f"{_names(unused)} in the file but not in {type(model).__name__}")
    if unfilled := sorted(set(wanted) - set(tensors) - set(fresh)):
        problems.append(f"{_names(unfilled)} in {type(model).__name__} but not in the file")
    state, unfit = {}, []
    for ours, (published, tensor) in tensors.items():
        if ours not in wanted:
            continue
        shape = wanted[ours].shape
        # Published tables carry leading axes of 1, and patch projections are convolutions.
        if not any(candidate == shape for candidate in _shapes(tensor)):
            unfit.append(f"{published} has shape {tuple(tensor.shape)}, {ours} has {tuple(shape)}")
            continue
        if tensor.is_floating_point() != wanted[ours].is_floating_point():
            unfit.append(f"{published} is {tensor.dtype}, and {ours} is {wanted[ours].dtype}")
            continue
        state[ours] = tensor.reshape(shape)
    problems += unfit[:2] + ([f"{len(unfit) - 2} more do not fit either"] if len(unfit) > 2 else [])
    if problems:
        raise ValueError(f"{folder} does not fit: " + "; ".join(problems) + ".")
    mapped = dtype != torch.float32
    if not any(tensor.is_meta for tensor in state.values()):
        check_memory(state.values(), dtype, mapped, str(folder))
    for name, tensor in state.items():
        kept = tensor.to(dtype if tensor.is_floating_point() else wanted[name].dtype)
        state[name] = kept.contiguous() if mapped else kept.clone() if kept is tensor else kept
    state |= {name: torch.zeros_like(wanted[name], device="cpu") for name in fresh if name not in state}
    model.load_state_dict(state, assign=True)


def _shapes(tensor: Tensor) -> Iterable[torch.Size]:
    yield tensor.shape
    if tensor.ndim > 2:
        yield tensor.flatten(1).shape
    while tensor.ndim and len(tensor) == 1:
        tensor = tensor[0]
        yield tensor.shape


def _names(names: list[str]) -> str:
    shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    return f"{shown} {'is' if len(names) == 1 else 'are'}"
