"""Batches in the order of steps, prepared ahead by other processes, with what their data has to tell."""

import json
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, get_worker_info

from mmlearn.data.batches import Batches, Samples
from mmlearn.files import written_whole
from mmlearn.training import distributed
from mmlearn.training.stopping import leave_stopping_to_others

LEFT_OUT = "left_out.json"  # in a run's folder, where something was
NAMED = 10  # files that cannot be read are named while they are met; more are only counted


def check_data(system: nn.Module, batches: Batches) -> None:
    """Have those parts of a system that can look at the size of their data."""
    for part in system.modules():
        if hasattr(part, "check_data"):
            data: Any = batches.source(0)
            part.check_data(len(data))


class _Noted(Dataset):
    """Batches, and what their data has noted since the one before: each process that prepares them has its own data."""

    def __init__(self, batches: Batches):
        self.batches = batches

    def __getitem__(self, step: int) -> tuple[dict[str, Tensor], list[str], list[str]]:
        batch, data = self.batches[step], self.batches.source(step)
        notes: list[str]
        bad: list[str]
        notes, bad = (getattr(data, name, list)() if get_worker_info() else [] for name in ("new_notes", "new_bad"))
        return batch, notes, bad


def load_batches(batches: Batches, order: range, workers: int, seed: int) -> Iterator[dict[str, Tensor]]:
    """The batches of these numbers, prepared by ``workers`` other processes, whose notes of the data are gathered."""
    own = torch.Generator().manual_seed(seed)  # otherwise the loader takes numbers from the global one at each start
    ahead: dict[str, Any] = dict(num_workers=workers, prefetch_factor=4 if workers else None)
    ahead |= dict(pin_memory=torch.cuda.is_available(), worker_init_fn=leave_stopping_to_others)
    loader = DataLoader(_Noted(batches), batch_size=None, sampler=order, generator=own, **ahead)
    for number, (batch, notes, bad) in zip(order, loader):
        data: Any = batches.source(number)
        if notes:
            data.note(notes)
        if bad:
            data.note_bad(bad)
        if batches.rank == 0:
            _tell_bad(data)
        yield batch


def _tell_bad(data: Any) -> None:
    """Name what was left out since this was called last; of very much only the first, for there is a total."""
    new = data.new_bad() if hasattr(data, "new_bad") else []
    told = len(data.bad) - len(new) if new else 0
    for line in new[: max(0, NAMED - told)]:
        warnings.warn(f"left out: {line}", stacklevel=2)


def gather_bad(data: Samples | Mapping[str | None, Samples], folder: Path | None) -> None:
    """Every process knows what any of them has left out, and the ``folder`` of a run, for when it goes on."""
    for part in _parts(data):
        if distributed.is_distributed() and hasattr(part, "bad"):
            part.note_bad(line for lines in distributed.gathered(part.bad) for line in lines)
    if folder and any(bad := [getattr(part, "bad", []) for part in _parts(data)]):
        with written_whole(folder / LEFT_OUT) as unfinished:
            unfinished.write_text(json.dumps(bad, indent=1))


def recall_bad(data: Samples | Mapping[str | None, Samples], folder: Path) -> None:
    """Note what a run had left out before it stopped. ``ValueError`` where that cannot be read."""
    path = folder / LEFT_OUT
    try:
        found = json.loads(path.read_text()) if path.is_file() else []
        for part, lines in zip(_parts(data), found):
            if lines:
                part.note_bad(map(str, lines))
                part.new_bad()  # which were named then
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"{path} is damaged ({error!s:.80}): move it away, and what was left out counts anew."
        ) from error


def _parts(data: Samples | Mapping[str | None, Samples]) -> list[Any]:
    return list(data.values()) if isinstance(data, Mapping) else [data]
