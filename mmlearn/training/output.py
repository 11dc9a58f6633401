"""The folder that a training writes to: that it holds no other run, and what is left where training fails."""

import json
import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any

from mmlearn.files import is_still, open_unlinked, refuse_links, remove
from mmlearn.pretrained.chat import ChatTokenizer
from mmlearn.recipes import hinge_at_equal_similarity, ln_batch
from mmlearn.training.checkpoint import checkpoints
from mmlearn.training.data import kept_before
from mmlearn.training.runs import Run

NOT_COMPARED = ("mmlearn", "fields", "config", "training")  # compared by themselves, or not at all
SHOWN = 6  # differences that a message names


def check_folder(output: Path, resume: bool) -> None:
    """Refuse a folder that cannot be a run's own, and to overwrite a run; before anything is loaded.

    Raises ``ValueError``, and ``FileNotFoundError`` where there is nothing to ``resume``.
    """
    try:
        above = Path.cwd().is_relative_to(output.resolve())  # here, or a folder that this one lies in
    except (OSError, RuntimeError) as error:
        raise ValueError(f"{output} cannot be a folder: its links lead in a circle.") from error
    if above:
        raise ValueError(f"A run needs a folder of its own, such as runs/clip, not {str(output)!r}.")
    if output.exists() and not output.is_dir():
        raise ValueError(f"{output} is a file; give a folder.")
    refuse_links(output)
    begun = (output / "config.json").exists()
    if resume and not begun:
        raise FileNotFoundError(f"{output} holds no run to go on with; start it without --resume.")
    if begun and not resume:
        raise ValueError(f"{output} holds a run already; add --resume to go on with it, or give another folder.")
    if not begun and (output / "model.safetensors").exists():
        raise ValueError(f"{output} holds a model already; give another folder.")


def begun_run(output: Path, resume: bool) -> dict[str, Any]:
    """The ``config.json`` of a run that goes on from a checkpoint; nothing where it starts, or starts once more."""
    if not (resume and checkpoints(output / "checkpoints")):
        return {}
    return _read(output / "config.json")


def _read(path: Path) -> dict[str, Any]:
    try:
        before = json.loads(path.read_text())
        if not all(isinstance(before[name], dict) for name in ("training", "fields", "config")):
            raise ValueError("its entries are of another kind")
        kept_before(before, None, None)
    except FileNotFoundError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path} was not written by mmlearn train, or is damaged: {error}") from error
    return before


def check_output(output: Path, run: Run, training: dict[str, Any], resume: bool) -> None:
    """Refuse batches too small for a loss, and to go on with other settings than a run was started with.

    ``training`` are settings that ``run`` itself does not hold. Raises ``ValueError``, and ``FileNotFoundError`` where
    a file of the run is missing.
    """
    _check_contrast(run, training["batch_size"])
    if resume and (changed := _changes(output / "config.json", run, training)):
        changed = changed[:SHOWN] + [f"{len(changed) - SHOWN} more differ"] * (len(changed) > SHOWN)
        raise ValueError(f"{output} was started with other settings: {'; '.join(changed)}.")


def _check_contrast(run: Run, batch_size: int) -> None:
    """``ValueError`` for batches of one sample, where a loss tells the samples of a batch apart."""
    chances = [chance for task in run.tasks for one in task for chance in one.chance.values()]
    if batch_size < 2 and {ln_batch, hinge_at_equal_similarity}.intersection(chances):
        raise ValueError(f"{run.name} tells the samples of a batch apart: batch_size is at least 2, got {batch_size}.")


def _changes(path: Path, run: Run, training: dict[str, Any]) -> list[str]:
    """What differs between a run that was started and one that would go on with it."""
    with TemporaryDirectory() as folder:
        now = json.loads(json.dumps(run.to_dict(Path(folder)) | {"training": training}))  # tuples are lists there
    before = _read(path)
    started = {**before, **before["training"]}
    changed = [
        f"{name} was {started.get(name)!r}, now {value!r}"
        for name, value in {**now, **now["training"]}.items()
        if name not in NOT_COMPARED and started.get(name) != value
    ]
    return changed + ["the model is another one"] * (before["config"] != now["config"])


@contextmanager
def locked(output: Path) -> Iterator[None]:
    """No other process trains into this folder meanwhile. The system opens the lock when its process ends, however.

    The folder is made, and removed again where nothing is in it at the end. Raises ``ValueError`` with the number of
    the process that has it, and ``OSError`` where it cannot be written.
    """
    made = [path for path in (output, *output.parents) if not path.exists()]
    path = output / ".lock"
    try:
        with _own(path) as file:
            file.truncate(0)
            file.write(f"{os.getpid()}\n")
            file.flush()
            yield
    finally:
        with suppress(OSError):  # of a folder that holds something
            for folder in made:
                folder.rmdir()


@contextmanager
def _own(path: Path) -> Iterator[IO[str]]:
    """The file of a lock that this process holds; at the end it is removed."""
    import fcntl  # Windows has none

    file = None
    while file is None or not is_still(path, os.fstat(file.fileno())):
        if file:  # another run ended between these two lines, and took its file along
            file.close()
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open_unlinked(path, "a+")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            with file:
                file.seek(0)
                owner = file.read().strip() or "unknown"
            raise ValueError(
                f"{path.parent} is being written by process {owner}; wait for its end, or stop it."
            ) from error
    try:
        yield file
    finally:
        if is_still(path, os.fstat(file.fileno())):  # and not that of a run in a folder that took the place of this one
            path.unlink()
        with suppress(OSError):  # where not even its number could be written
            file.close()


@contextmanager
def nothing_half_written(output: Path) -> Iterator[None]:
    """If a run fails before its first checkpoint, what it wrote is removed: there would be nothing to go on from.

    Whoever has not :func:`locked` the folder would remove what another run writes.
    """
    before, folder = set(output.glob("*")), output.stat()
    try:
        yield
    except BaseException:
        if is_still(output, folder) and not checkpoints(output / "checkpoints"):
            for path in set(output.glob("*")) - before:
                remove(path)
        raise


def command_after(
    run: Run, output: Path, data: str, language: str | None, *, stream: bool, skip_bad: bool, own: str | None
) -> str:
    """The command that evaluates what was trained, or asks it."""
    if any(isinstance(getattr(item, "tokenizer", None), ChatTokenizer) for item in run.fields.values()):
        return shlex.join(["mmlearn", "chat", str(output), "--image", "FILE"])
    data = "FOLDER" if stream and not Path(data).is_dir() else data  # such as a pattern of shards
    found = ["mmlearn", "evaluate", str(output), "--data", data, *(["--language", language] if language else [])]
    return shlex.join(found + ["--skip-bad"] * (skip_bad and not stream) + (["--system", own] if own else []))
