"""The data of a training: as the system's fields want them, and the very same again where a run goes on.

``config.json`` has what the data say as one fingerprint, and what they must know to be the same again, and
``data.safetensors`` has eight bytes for each file. So it can be told which files are others now. One that is broken may
be left out; any other one makes another data set.
"""

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from mmlearn.data.catalogue import given_options, load
from mmlearn.data.hashing import fingerprint, mark
from mmlearn.data.readers.files import Files
from mmlearn.data.readers.stream import ShardStream
from mmlearn.files import written_whole
from mmlearn.recipes.discovery import find_recipe
from mmlearn.training.runs import Data, Run, with_options

FILE = "data.safetensors"


def load_training_data(
    name: str,
    data: str,
    *,
    preset: str = "tiny",
    stage: str | None = None,
    objectives: Sequence[str] | None = None,
    together: bool = False,
    start: Run | None = None,
    options: Mapping[str, Any] | None = None,
    language: str | None = None,
    skip_bad: bool = False,
    stream: str | None = None,
    epoch_samples: int | None = None,
    as_before: Sequence[dict[str, Any] | None] = (),
) -> Data:
    """The training split of a data set, as the system's fields want it: pictures of their size, sounds that fit.

    Objectives with a data set of their own add that. ``stream`` is the mode, and ``epoch_samples`` the length, of a
    :class:`~mmlearn.data.readers.stream.ShardStream`. ``as_before`` is, for each data set, what it must know to have
    the very same samples again. Other arguments and errors as in :func:`new_run`.
    """
    recipe = find_recipe(name)
    tasks = recipe.stage(stage).tasks(objectives, together)
    config = start.system.config if start else recipe.config.preset(preset)
    wanted: dict[str, Any] = {}
    for item, with_them in with_options(recipe.fields(tasks), options or {}, Path(name).name).items():
        known = start.fields.get(item) if start else None
        wanted |= (known or with_them).data_options(config)
    if stream:
        if language or any(task[0].data for task in tasks):
            raise ValueError("A stream has one language and serves no objective with a data set of its own.")
        size = {key: value for key, value in wanted.items() if key == "size"}
        before = next(iter(as_before), None)
        return ShardStream(data, mode=stream, length=epoch_samples, skip_bad=skip_bad, as_before=before, **size)
    if epoch_samples:
        raise ValueError("Only of a stream can the samples of an epoch be set: add --stream resampled.")
    found = {}
    sources = dict.fromkeys(task[0].data for task in tasks)
    for source, before in zip_longest(sources, as_before[: len(sources)]):
        asked_for = given_options(source or data, language=language, skip_bad=skip_bad, **wanted)
        found[source] = load(source or data, "train", as_before=before, **asked_for)
    return found[None] if list(found) == [None] else found


def sets_of(samples: Data) -> list[Any]:
    """The data sets that a system learns from: most often one."""
    return list(samples.values()) if isinstance(samples, Mapping) else [samples]


def described(samples: Any) -> list[dict[str, Any] | None]:
    """Of each data set of files what ``config.json`` says of it."""
    return [
        {"fingerprint": fingerprint(part.told()), "kept": part.kept()} if isinstance(part, Files) else None
        for part in sets_of(samples)
    ]


def write_marks(samples: Any, folder: Path) -> None:
    """Write what tells each file from others; nothing where there are none."""
    marks = {str(number): _marks(part) for number, part in enumerate(sets_of(samples)) if isinstance(part, Files)}
    if marks:
        with written_whole(folder / FILE) as unfinished:
            unfinished.write_bytes(save(marks))


def _marks(part: Any) -> Tensor:
    found = [mark(one.path, one.start, one.length, one.name) for one in part.parts()]
    return torch.tensor([list(one) for one in found], dtype=torch.uint8).view(-1, 8)


def kept_before(config: Mapping[str, Any], data: str | None, stream: str | None) -> list[dict[str, Any] | None]:
    """Of each data set what it must know to be the same again; nothing where it is not that which a run began with.

    Raises ``ValueError`` for what nobody wrote so.
    """
    data_before = config.get("data") or []
    found = [one and one["kept"] for one in data_before]
    for one in filter(None, data_before):
        kept = one["kept"]
        if not (
            isinstance(one["fingerprint"], str)
            and all(isinstance(key, list) and len(key) < 3 for key in kept.get("left_out", []))
            and all(size is None or type(size) is int for size in kept.get("sizes", []))
            and all(type(count) is int and count < 1e9 for count in kept.get("counts", {}).values())
        ):
            raise ValueError("what it says of its data cannot be")
    started = config.get("training", {})
    same = started.get("data") == data and bool(started.get("stream")) == bool(stream)
    return found if same else []


def _read_marks(folder: Path) -> dict[str, Tensor]:
    try:
        return load_file(folder / FILE)
    except SafetensorError as error:
        raise ValueError(f"{folder / FILE} is damaged ({error}).") from error


def _missing(samples: Any, folder: Path) -> str:
    """How many files of a run's data are missing, where all others are what they were; else nothing."""
    marks = _read_marks(folder) if (folder / FILE).is_file() else {}
    for number, part in enumerate(sets_of(samples)):
        if isinstance(part, Files) and str(number) in marks:
            old, new = (list(map(bytes, each.tolist())) for each in (marks[str(number)], _marks(part)))
            still = set(new)
            gone = [index for index, one in enumerate(old) if one not in still]
            if gone and [one for one in old if one in still] == new:
                before = f"behind {part.parts()[gone[0] - 1].path}" if gone[0] else "at the start"
                count = f"{len(gone)} of its {len(old)} files {'is' if len(gone) == 1 else 'are'} missing"
                return (
                    f"{folder} was started with other data: {count} now, the first {before}. Put back what is missing."
                )
    return ""


def check_data(samples: Any, folder: Path, config: Mapping[str, Any]) -> None:
    """Refuse other data than a run began with; files that are broken since then are noted, if bad ones are skipped.

    Raises ``ValueError``, and ``FileNotFoundError`` where a broken file is not there any more.
    """
    other = f"{folder} was started with other data, or its rows stood in another order"
    before, now = config.get("data"), described(samples)
    told = [[one and one["fingerprint"] for one in each or []] for each in (before, now)]
    if told[0] != told[1]:
        raise ValueError(_missing(samples, folder) or f"{other}.")
    if not any(now):
        return
    marks = _read_marks(folder)
    for number, part in enumerate(sets_of(samples)):
        if not isinstance(part, Files):
            continue
        old, new = marks.get(str(number)), _marks(part)
        if old is None or old.shape != new.shape:
            raise ValueError(f"{other}.")
        files, broken = part.parts(), []
        for index in (old != new).any(1).nonzero().flatten().tolist():
            try:
                files[index].read()
            except (OSError, ValueError) as error:
                path = files[index].path
                known = path.exists() or isinstance(error, FileNotFoundError)
                broken.append(error if known else FileNotFoundError(f"There is no {path} any more."))
            else:
                raise ValueError(f"{other}: {files[index].name or files[index].path} has changed.")
        for unreadable in broken:
            part.leave_out(unreadable)
