"""Checkpoints that survive being killed: written beside, synced, renamed, and checked before they are believed.

A checkpoint is a folder ``step-00000100`` of safetensors files and a ``manifest.json`` with their SHA-256, and its own.
Nothing is pickled. Where processes share the weights, their parts are put together in these files, one tensor at a
time: any number of processes can go on from them, sharded or not.
"""

import hashlib
import json
import os
import re
import shutil
import tempfile
import warnings
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.optim import Optimizer

from mmlearn.data.hashing import stream
from mmlearn.files import refuse_links, remove, removed_on_failure, written_whole
from mmlearn.training.distributed import local, part_like, wholes
from mmlearn.training.ema import MovingAverage
from mmlearn.training.random_state import random_state, restore_random_state

KEPT = 2
TABLES = 2**27  # numbers in all buffers that no file holds


def save_model(system: nn.Module, path: Path, instead: Mapping[str, Tensor] | None = None) -> None:
    """Write all parameters and buffers, or these ``instead`` of some, to one safetensors file, whole or not at all."""
    with written_whole(path) as unfinished:
        _write(unfinished, system.state_dict() | dict(instead or {}))
        _sync(unfinished)
    _sync(path.parent)


def save_checkpoint(
    folder: Path,
    step: int,
    system: nn.Module,
    optimizers: list[Optimizer],
    *,
    ema: MovingAverage | None = None,
    scaler: GradScaler | None = None,
    rank: int = 0,
    world: int = 1,
    lost: bool = False,
) -> None:
    """Write everything that training needs to go on after ``step`` steps, then drop all but the newest two.

    ``scaler`` is what keeps gradients of fp16 from vanishing. Every process calls this, for its random state and its
    part of the weights; the first one writes the rest. Where the run's folder is ``lost``, that one writes
    the weights elsewhere, and ``FileNotFoundError`` says where.
    """
    temporary, final = folder / f".writing-{step:08d}", folder / f"step-{step:08d}"
    parts = {"model": whole_state(system, rank == 0), "optimizer": _optimizer_state(optimizers, rank == 0)}
    if ema:
        parts["ema"] = ema.whole(rank == 0)
    if lost:
        where = _save_elsewhere(folder.parent, step, parts) if rank == 0 else "a folder that process 0 names"
        raise FileNotFoundError(
            f"{folder.parent} was removed, moved or replaced while it was trained into; the weights after step {step} "
            f"are in {where}. Put them beside its config.json, or go on from its last checkpoint."
        )
    with removed_on_failure(temporary):
        temporary.mkdir(parents=True, exist_ok=True)
        _write(temporary / f"random-{rank}.safetensors", random_state())
        if world > 1:
            torch.distributed.barrier()
        if rank == 0:
            for name, tensors in parts.items():
                _write(temporary / f"{name}.safetensors", tensors)
            manifest = {
                "step": step,
                "world": world,
                "optimizers": [optimizer.state_dict()["param_groups"] for optimizer in optimizers],
                "scaler": None if scaler is None else scaler.state_dict(),
                "files": {path.name: _digest(path) for path in sorted(temporary.glob("*.safetensors"))},
            }
            manifest["checksum"] = _checksum(manifest)
            (temporary / "manifest.json").write_text(json.dumps(manifest, indent=1))
            for path in temporary.iterdir():
                _sync(path)
            shutil.rmtree(final, ignore_errors=True)
            os.replace(temporary, final)
            _sync(folder)
            _drop_old(folder, step)
    if world > 1:
        torch.distributed.barrier()


def _save_elsewhere(output: Path, step: int, parts: Mapping[str, dict[str, Tensor]]) -> Path:
    """Write the weights into a new folder, as near to the lost one as can be: where."""
    try:
        near = next(path for path in output.absolute().parents if path.is_dir())  # none where we are in no folder
        folder = Path(tempfile.mkdtemp(prefix=f"{output.name}-step-{step}-", dir=near))
    except OSError:
        folder = Path(tempfile.mkdtemp(prefix=f"{output.name}-step-{step}-"))
    _write(folder / "model.safetensors", parts["model"])
    if "ema" in parts:
        _write(folder / "model-ema.safetensors", parts["ema"])
    return folder / "model.safetensors"


def whole_state(system: nn.Module, keep: bool = True) -> dict[str, Tensor]:
    """All parameters and buffers, put together where processes share them; nothing where this one need not ``keep``.

    Every process calls this.
    """
    return wholes({name: (value, value) for name, value in system.state_dict().items()}, keep)


def _optimizer_state(optimizers: list[Optimizer], keep: bool) -> dict[str, Tensor]:
    tensors = {}
    for number, optimizer in enumerate(optimizers):
        parameters = _parameters(optimizer)
        for index, values in optimizer.state_dict()["state"].items():
            for name, value in values.items():
                tensors[f"{number}.{index}.{name}"] = torch.as_tensor(value), parameters[index]
    return wholes(tensors, keep)


def _parameters(optimizer: Optimizer) -> list[Tensor]:
    """In the order of its state; of parts what they are parts of."""
    moved = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    return [getattr(parameter, "part_of", parameter) for parameter in moved]


def load_checkpoint(
    folder: Path,
    system: nn.Module,
    optimizers: list[Optimizer],
    *,
    ema: MovingAverage | None = None,
    scaler: GradScaler | None = None,
    rank: int = 0,
    world: int = 1,
) -> int:
    """Restore the newest checkpoint that is whole, and return its step. A damaged one is passed over, with a warning.

    The ``scaler`` gets its scale back, and keeps its own where the checkpoint has none. With another number of
    processes the weights are the same, and what is drawn at random is not: that is warned of.

    Raises ``FileNotFoundError`` where there is none; ``ValueError`` where it belongs to another model or to other
    optimisers, or has no average of weights that ``ema`` could go on with.
    """
    for path in checkpoints(folder):
        problem = _problem(path)
        if problem:
            warnings.warn(f"Passing over {path}: {problem}.", stacklevel=2)
            continue
        manifest = json.loads((path / "manifest.json").read_text())
        if ema and "ema.safetensors" not in manifest["files"]:
            raise ValueError(f"{path} holds no average of weights; leave ema out, or start anew.")
        if ema is None and "ema.safetensors" in manifest["files"]:
            raise ValueError(f"{path} holds an average of weights; give ema as before.")
        tensors = load_file(path / "model.safetensors")
        if found := difference(tensors, system.state_dict()):
            raise ValueError(f"{path} belongs to another model: {found}.")
        state = system.state_dict()
        system.load_state_dict({name: part_like(value, state[name]) for name, value in tensors.items()})
        if ema:
            averages = load_file(path / "ema.safetensors")
            if found := difference(averages, ema.trained):
                raise ValueError(f"{path} has an average of other weights: {found}.")
            ema.load(averages)
        try:
            _load_optimizers(optimizers, manifest["optimizers"], load_file(path / "optimizer.safetensors"))
        except (ValueError, KeyError, TypeError, AttributeError, IndexError, RuntimeError) as error:
            raise ValueError(f"{path} was written with other optimisers: {error}") from error
        if scaler is not None and manifest["scaler"]:
            scaler.load_state_dict(manifest["scaler"])
        if manifest["world"] != world and rank == 0:
            by = "1 process" if manifest["world"] == 1 else f"{manifest['world']} processes"
            found = f"{path} was written by {by}, and this run has {world}"
            warnings.warn(f"{found}: what is drawn at random, such as dropout, is drawn otherwise.", stacklevel=2)
        if rank < manifest["world"]:
            try:
                restore_random_state(load_file(path / f"random-{rank}.safetensors"))
            except (ValueError, KeyError, TypeError, RuntimeError) as error:
                raise ValueError(f"{path} holds no state of random numbers ({error}).") from error
        else:
            torch.manual_seed(int(stream("process", manifest["step"], rank)) >> 1)
        return manifest["step"]
    raise FileNotFoundError(f"{folder} holds no whole checkpoint to go on from; start without resuming.")


def resume_or_begin(output: Path, resume: bool, **state: Any) -> int:
    """The step that a run goes on after, with its ``state`` restored; 0 for a new one, where there is no other.

    What a killed process left half-written is removed. Errors as of :func:`load_checkpoint`, and ``ValueError`` for a
    folder that holds a run which is not to be resumed, or links.
    """
    if state["rank"] == 0:
        refuse_links(output)
    folder = output / "checkpoints"
    if checkpoints(folder) and not resume:
        raise ValueError(f"{folder} holds a run already; resume it, or give another folder.")
    start = load_checkpoint(folder, **state) if resume else 0
    if state["rank"] == 0:
        clear_unfinished(output, start)
    if state["world"] > 1:
        torch.distributed.barrier()
    return start


def save_trained(
    system: nn.Module, output: Path | None, model: nn.Module, average: MovingAverage | None, first: bool
) -> None:
    """Hand the weights of ``model`` back to the ``system``, and write them, with their averages, in evaluation mode.

    ``model`` is the system itself, or a sharded copy. Every process calls this; the ``first`` one writes.
    """
    if model is not system:
        system.load_state_dict(whole_state(model))
    system.eval()
    averages = average.whole(first) if average else {}
    if output and first:
        save_model(system, output / "model.safetensors")
        if averages:
            save_model(system, output / "model-ema.safetensors", averages)


def checkpoints(folder: Path) -> list[Path]:
    """The finished checkpoints in a folder, newest first."""
    found = [path for path in folder.glob("step-*") if re.fullmatch(r"step-\d{8}", path.name)]
    return sorted(found, reverse=True)


def clear_unfinished(output: Path, step: int) -> None:
    """Remove what a killed process left half-written or half-removed, in a run's folder that goes on from ``step``."""
    for path in [*output.glob(".writing-*"), *output.glob("checkpoints/.writing-*")]:
        remove(path)
    _drop_old(output / "checkpoints", step)


def _drop_old(folder: Path, step: int) -> None:
    for old in [path for path in checkpoints(folder) if path.name <= f"step-{step:08d}"][KEPT:]:
        shutil.rmtree(old)


def _problem(path: Path) -> str | None:
    """What is wrong with a checkpoint, or None."""
    try:
        manifest = json.loads(_file(path / "manifest.json").read_text())
        if manifest.pop("checksum") != _checksum(manifest):
            return "its manifest is damaged"
        if path.name != f"step-{manifest['step']:08d}":
            return f"its manifest is of step {manifest['step']}"
        world = manifest["world"]
        if type(world) is not int or not 1 <= world <= len(manifest["files"]):  # each has a file of its own
            return f"its manifest says that {world!r:.60} processes wrote it"
        random_states = [f"random-{rank}.safetensors" for rank in range(world)]
        average = [name for name in manifest["files"] if name == "ema.safetensors"]
        for name in ("model.safetensors", "optimizer.safetensors", *average, *random_states):
            if _digest(path / name) != manifest["files"][name]:
                return f"{name} is damaged"
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        return f"it is not whole ({type(error).__name__}: {error})"
    return None


def difference(saved: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str:
    """Which tensors only the file or only the model has, and which differ in shape or in kind; nothing where all agree.

    Numbers of any precision are of one kind; whole numbers, complex ones, and true or false are others.
    """
    reshaped = [
        f"{name} ({list(saved[name].shape)} instead of {list(tensor.shape)})"
        for name, tensor in wanted.items()
        if name in saved and saved[name].shape != tensor.shape
    ]
    others = [
        f"{name} ({saved[name].dtype} instead of {tensor.dtype})"
        for name, tensor in wanted.items()
        if name in saved and _kind(saved[name]) != _kind(tensor)
    ]
    parts = []
    for names, where in (
        (sorted(set(saved) - set(wanted)), "only in the file"),
        (sorted(set(wanted) - set(saved)), "only in the model"),
        (reshaped, "of another shape"),
        (others, "of another kind"),
    ):
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            parts.append(f"{', '.join(names[:3])}{more} {'is' if len(names) == 1 else 'are'} {where}")
    return "; ".join(parts)


def _kind(x: Tensor) -> str:
    return "float" if x.is_floating_point() else "complex" if x.is_complex() else str(x.dtype == torch.bool)


def misfit(tensors: Mapping[str, Tensor], build: Callable[[], nn.Module], elsewhere: Collection[str] = ()) -> str:
    """How what ``build`` makes differs from these weights, before it takes memory; nothing where both agree.

    Parts whose weights lie ``elsewhere`` may be missing. A configuration from a stranger may ask for a billion blocks:
    a model that registers more parameters than these could fill is given up while it is built. So is one with vast
    tables that no file holds. What fits is then built again, with memory, because such tables are made by building.
    """
    left = 2 * len(tensors) + (10_000 if elsewhere else 100)  # tied ones are registered twice

    def count(*_: Any) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise OverflowError

    hook = register_module_parameter_registration_hook(count)
    try:
        with torch.device("meta"), warnings.catch_warnings(action="ignore"):  # of copies that cannot be made there
            model = build()
    except OverflowError:
        return f"the model has far more than the {len(tensors)} tensors of the file"
    finally:
        hook.remove()
    wanted = model.state_dict()
    tables = sum(value.numel() for name, value in model.named_buffers() if name not in wanted)
    if tables > TABLES:
        return f"the model keeps {tables:,} numbers besides its weights"
    own = {name: value for name, value in wanted.items() if name in tensors or name.split(".")[0] not in elsewhere}
    return difference(tensors, own)


def _load_optimizers(optimizers: list[Optimizer], settings: list[Any], tensors: dict[str, Tensor]) -> None:
    if len(settings) != len(optimizers):
        raise ValueError(f"it has {len(settings)} of them, and this run {len(optimizers)}.")
    for number, optimizer in enumerate(optimizers):
        parameters, state = _parameters(optimizer), dict[int, dict[str, Tensor]]()
        for key, value in tensors.items():
            owner, index, name = key.split(".", 2)
            if int(owner) == number:
                state.setdefault(int(index), {})[name] = local(part_like(value, parameters[int(index)]))
        _check_state(state, [parameter for group in optimizer.param_groups for parameter in group["params"]])
        optimizer.load_state_dict({"state": state, "param_groups": settings[number]})


def _check_state(state: Mapping[int, Mapping[str, Tensor]], parameters: list[Tensor]) -> None:
    """``ValueError`` where an optimiser's state is not of these parameters: it may be from a stranger."""
    for index, values in state.items():
        if values.keys() != next(iter(state.values())).keys():
            raise ValueError(f"of parameter {index} it knows {', '.join(values)}, and of others something else.")
        for name, value in values.items():
            if _kind(value) != "float" or (value.ndim and value.shape != parameters[index].shape):
                raise ValueError(f"{name} of parameter {index} is {value.dtype} of shape {list(value.shape)}.")


def _write(path: Path, tensors: dict[str, Tensor]) -> None:
    # Not save_file, whose errors are no OSError and whose temporary files nobody removes after a kill.
    copies = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}
    path.write_bytes(save(copies))


def _checksum(manifest: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def _file(path: Path) -> Path:
    """This file. ``FileNotFoundError`` where it is a folder, or a pipe that may never say anything."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path.name}")
    return path


def _digest(path: Path) -> str:
    with _file(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
