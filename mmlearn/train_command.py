"""``mmlearn train``: a system, data and settings become a folder with a trained model."""

import os
import shlex
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from inspect import signature
from pathlib import Path
from typing import Annotated, Any

import typer

from mmlearn.console import one_line, say
from mmlearn.escaping import plain

PATIENCE = 10  # seconds that a process waits to be ended after one that failed as well


def count(text: str | int) -> int:
    """``500``, ``1e4`` or ``10_000`` as a whole number of at least 1."""
    try:
        number = float(text)
    except ValueError:
        raise typer.BadParameter(f"{str(text)[:40]!r} is not a whole number, such as 500 or 1e4.") from None
    if not 1 <= number <= 1e12 or number != int(number):
        raise typer.BadParameter(f"{str(text)[:40]!r} is not a whole number from 1.")
    return int(number)


def rate(text: str | float) -> float:
    """A learning rate."""
    try:
        number = float(text)
    except ValueError:
        raise typer.BadParameter(f"{str(text)[:40]!r} is no number, such as 1e-3.") from None
    if not 0 < number < float("inf"):
        raise typer.BadParameter(f"{str(text)[:40]!r} is not above 0 and finite: nothing would be learned.")
    return number


def train(
    system: Annotated[str, typer.Argument(help="Such as clip; a wrong name is answered with all. Or a file of yours.")],
    data: Annotated[str, typer.Option(help="A packaged data set; a folder: captions.csv, COCO, shards; or a stream.")],
    output: Annotated[Path, typer.Option(help="Folder for the model and its metrics.")],
    preset: Annotated[str, typer.Option(help="tiny, or a published name.")] = "tiny",
    steps: Annotated[int, typer.Option(parser=count, metavar="N", help="How many updates, such as 500 or 1e4.")] = 1000,
    batch_size: Annotated[int, typer.Option(min=1, help="Samples in a batch, over all processes.")] = 128,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Where the random numbers start.")] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the newest checkpoint in --output.")] = False,
    precision: Annotated[str, typer.Option(help="no (float32), bf16 or fp16.")] = "no",
    learning_rate: Annotated[float, typer.Option("--learning-rate", "--lr", parser=rate, help="The highest.")] = 1e-3,
    optimizer: Annotated[str, typer.Option(help="muon or adamw.")] = "muon",
    accumulate: Annotated[int, typer.Option(min=1, max=65536, help="Batches in an update.")] = 1,
    stage: Annotated[str | None, typer.Option(help="Of a system that is trained in several; the first.")] = None,
    start: Annotated[list[str] | None, typer.Option(help="An earlier run; or PART=NAME or FOLDER, again.")] = None,
    pack: Annotated[int | None, typer.Option(min=1, help="Tokens of a row that several texts share.")] = None,
    image_size: Annotated[int | None, typer.Option(min=8, max=4096, help="Pixels of a side; 64 for most.")] = None,
    frozen_grid: Annotated[bool, typer.Option("--frozen-grid", help="Read ImageNet features, not pixels.")] = False,
    mask_grounded: Annotated[bool, typer.Option("--mask-grounded", help="Hide only nouns or colours shown.")] = False,
    language: Annotated[str | None, typer.Option(help="Of the captions, for emoji, stamps and texts.")] = None,
    vocab_size: Annotated[int | None, typer.Option(max=10**6, help="Tokens at most; 1024 if not given.")] = None,
    mark_repeats: Annotated[bool, typer.Option(help="Repeated captions in a batch all match.")] = True,
    augment: Annotated[bool, typer.Option("--augment", help="Vary pictures and spectrograms at random.")] = False,
    objectives: Annotated[str | None, typer.Option(help="Such as mlm,itm; all of the paper if not given.")] = None,
    together: Annotated[bool, typer.Option("--together", help="Each batch serves all objectives.")] = False,
    setting: Annotated[list[str] | None, typer.Option("--set", help="Of the preset, such as queue_size=4096.")] = None,
    checkpoint_every: Annotated[int, typer.Option(min=1, help="Steps.")] = 200,
    log_every: Annotated[int, typer.Option(min=1, help="Steps after which numbers are fetched from a GPU.")] = 1,
    workers: Annotated[int, typer.Option(min=0, max=128, help="Processes that prepare batches.")] = 0,
    compile: Annotated[bool, typer.Option("--compile", help="torch.compile the system.")] = False,
    recompute: Annotated[bool, typer.Option("--recompute", help="Keep less for the backward pass; slower.")] = False,
    chunk: Annotated[int | None, typer.Option(min=1, help="Rows that towers read at a time; slower.")] = None,
    ema: Annotated[float | None, typer.Option(help="Also average the weights over steps, such as by 0.9999.")] = None,
    shard: Annotated[bool, typer.Option("--shard", help="Cut weights among processes; needs adamw.")] = False,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Also log for TensorBoard.")] = False,
    stream: Annotated[str | None, typer.Option(help="exact or resampled: --data is shards, read in order.")] = None,
    epoch_samples: Annotated[int | None, typer.Option(min=1, help="Of a resampled stream; all if not given.")] = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave out files that cannot be read.")] = False,
) -> None:
    """Train a system on a data set or on a folder of yours.

    Example: mmlearn train clip --data scenes --steps 500 --output runs/clip. Ctrl-C saves and ends it; --resume goes
    on. With several processes: torchrun --nproc-per-node 2 -m mmlearn train … (see "Many GPUs" in the book).
    """
    from mmlearn.training import TrainingOptions, fit
    from mmlearn.training.data import kept_before, load_training_data
    from mmlearn.training.distributed import first_process
    from mmlearn.training.output import begun_run, command_after
    from mmlearn.training.pretrained_parts import image_side, read_start
    from mmlearn.training.runs import new_run

    first, wanted = first_process(), None if objectives is None else objectives.replace(",", " ").split()
    settings, own = _settings(setting or []), system if system.endswith(".py") else None
    reading = dict(language=language, skip_bad=skip_bad, stream=stream, epoch_samples=epoch_samples)
    learning = dict(seed=seed, steps=steps, batch_size=batch_size, learning_rate=learning_rate, optimizer=optimizer)
    computing = dict(accumulate=accumulate, precision=precision, ema=ema)  # what a run that goes on must have again
    running = dict(checkpoint_every=checkpoint_every, workers=workers, compile=compile, log_every=log_every)
    running |= dict(recompute=recompute, chunk=chunk, shard=shard, tensorboard=tensorboard)
    with _own_folder(output, resume, first, steps):
        before = begun_run(output, resume)
        begun, parts = read_start(start or [], system, preset)
        asked = _options(frozen_grid, image_size or image_side(parts), vocab_size, mark_repeats, mask_grounded)
        learned = dict(preset=preset, stage=stage, objectives=wanted, together=together, start=begun, options=asked)
        samples = load_training_data(system, data, **learned, **reading, as_before=kept_before(before, data, stream))
        _fit_to(samples, learning, settings, () if begun else (system, preset), first)
        kept = (output, before) if before and before.get("system") == Path(system).name else None
        made = new_run(system, samples, **learned, seed=seed, settings=settings, parts=parts, going_on=kept)
        training = dict(data=data, augment=augment, mark_repeats=mark_repeats, image_size=image_size, pack=pack)
        training |= dict(vocab_size=vocab_size, start=" ".join(start or []), **learning, **computing)
        training |= _recorded(samples, stream, epoch_samples, workers, frozen_grid, mask_grounded)
        collate = made.collate(seed=seed, augment=augment, pack=pack)
        _begin(output, made, samples, training, before, resume, first)
        options = TrainingOptions(**computing, **running, resume=bool(before))
        learning |= dict(optimizer_steps=made.stage.optimizer_steps, output=output, options=options)
        try:
            history = fit(made.system, samples, collate, **learning)
        finally:
            tell_bad(samples if first else [])
    after = command_after(made, output, data, language, stream=bool(stream), skip_bad=skip_bad, own=own)
    _tell_end(first, history, samples, after, output)


def _tell_end(first: bool, history: list[dict[str, float]], samples: Any, after: str, output: Path) -> None:
    """The last loss, where the model is, and what to do with it next; the ``first`` process alone says it."""
    if not first:
        return
    tell_notes(samples)
    print(f"loss {history[-1]['loss']:.3f}; " if history else "", plain(output / "model.safetensors"), sep="")
    say(f"Next: {after}")


def _options(
    frozen_grid: bool, image_size: int | None, vocab_size: int | None, repeats: bool, grounded: bool
) -> dict[str, Any]:
    """What is asked of the system's fields. Frozen features are 6 × 6 positions of 96 pixels unless a size is given."""
    image_size = image_size or (96 if frozen_grid else None)
    given = dict(frozen_grid=frozen_grid or None, image_size=image_size, vocab_size=vocab_size)
    given |= dict(repeats=None if repeats else False, grounded=grounded or None)
    return {name: value for name, value in given.items() if value is not None}


def _settings(texts: list[str]) -> dict[str, Any]:
    """What ``--set`` says. ``ValueError`` for what is an option of its own."""
    from mmlearn.training.settings import read_settings

    settings = read_settings(texts)
    for name in settings.keys() & signature(train).parameters.keys():
        raise ValueError(f"{name} is an option of its own: --{name.replace('_', '-')} {settings[name]}.")
    return settings


def _fit_to(
    samples: Any, learning: dict[str, Any], settings: dict[str, Any], new: tuple[str, ...], first: bool
) -> None:
    """A batch is no larger than the data, nor is a queue of earlier batches unless its size is set; that is told.

    ``new`` is a system and its preset where no earlier run decides the configuration.
    """
    from mmlearn.data.fields import size
    from mmlearn.recipes.discovery import find_recipe
    from mmlearn.training.data import sets_of

    tell(samples if first else [])
    count, world = min(map(len, sets_of(samples))), int(os.environ.get("WORLD_SIZE", 1))
    if learning["batch_size"] > count >= world:  # fewer than processes are refused where batches are made
        whole = count - count % world
        if first:
            say(f"a batch has {whole} samples instead of {learning['batch_size']}: the data has no more")
        learning["batch_size"] = whole
    held = size(find_recipe(new[0]).config.preset(new[1]), "queue_size") if new else None
    if held is not None and held > count and "queue_size" not in settings:
        if first:
            say(f"the queue has {count} pairs instead of {held}: the data has no more")
        settings["queue_size"] = count


def _begin(output: Path, made: Any, samples: Any, training: dict, before: dict, resume: bool, first: bool) -> None:
    """Write what a run is, or where one goes on, refuse what it is not; the ``first`` process alone does."""
    if not first:
        return
    from mmlearn.training.data import check_data, described, sets_of, write_marks
    from mmlearn.training.output import check_output
    from mmlearn.training.runs import save_run

    tell_notes(samples)  # of those that were heard on the way
    check_output(output, made, training, resume)
    if before:
        check_data(samples, output, before)
        return
    packing = _packing(made, samples, training) if training["pack"] else {}
    save_run(made, output, training=training, data=described(samples), **packing)  # also where none was saved yet
    write_marks(samples, output)
    size = sum(map(len, sets_of(samples)))
    say(f"{made.name}: {made.parameters:,} parameters to train on {size:,} samples")
    if packing:
        before_it, after_it = packing["padding"].values()
        say(f"packed into rows of {training['pack']} tokens: {after_it:.0%} of a batch is padding, not {before_it:.0%}")


def _packing(made: Any, samples: Any, training: dict) -> dict[str, dict[str, float]]:
    """The share of padding in as many texts as a batch has, one in each row, and as they are packed."""
    from mmlearn.data.packed import padding, share_rows

    lengths = made.lengths(samples, training["batch_size"])
    rows = [sum(lengths[i] for i in row) for row in share_rows(lengths, training["pack"])]
    return {"padding": {"alone": padding(lengths), "packed": padding(rows)}}


def _recorded(
    samples: Any, stream: str | None, epoch: int | None, workers: int, frozen_grid: bool, mask_grounded: bool
) -> dict:
    """What a run that goes on must have again, besides what it was told."""
    from mmlearn.training.data import sets_of

    order = f"{stream}, epoch {epoch}, workers {workers}, processes {os.environ.get('WORLD_SIZE', 1)}"
    return {
        "language": next((part.language for part in sets_of(samples) if hasattr(part, "language")), None),
        "stream": order if stream else None,
        "frozen_grid": frozen_grid or None,
        "mask_grounded": mask_grounded or None,
    }


@contextmanager
def _own_folder(output: Path, resume: bool, first: bool, steps: int) -> Iterator[None]:
    """The folder is looked at before anything is loaded, and is this run's alone; what ends the run is told.

    Only the ``first`` process writes there, and tells.
    """
    from mmlearn.data.readers.files import ADVICE
    from mmlearn.training.checkpoint import checkpoints
    from mmlearn.training.output import check_folder, locked, nothing_half_written
    from mmlearn.training.stopping import Stopped

    def saved() -> str:
        found = checkpoints(output / "checkpoints")
        return f"step {int(found[0].name[5:])} of {steps} is saved; add --resume to go on" if found else ""

    if not first:
        with _told_by_the_first():
            yield
        return
    check_folder(output, resume)
    try:
        with locked(output), nothing_half_written(output):
            yield
    except KeyboardInterrupt as stop:
        say(f"mmlearn: stopped; {saved() or 'nothing was saved yet'}.")
        sys.exit(128 + (stop.number if isinstance(stop, Stopped) else signal.SIGINT))  # as shells have it
    except (OSError, ValueError) as error:
        if ADVICE in str(error) and saved():
            raise ValueError(f"{one_line(error).rstrip('.')}; {saved()}.") from error
        if isinstance(error, OSError) and error.errno and error.filename is None:
            error.filename = str(output)  # a full disk does not say where
        if getattr(error, "errno", None) is None or not saved():
            raise
        where = shlex.quote(str(error.filename or output))
        raise OSError(f"{where}: {(error.strerror or str(error)).lower()}. Mend that, for {saved()}.") from error


@contextmanager
def _told_by_the_first() -> Iterator[None]:
    """What ends all processes of a run is told by the first, whose end also ends the others, if they wait for it."""
    from mmlearn.training.stopping import Stopped

    try:
        yield
    except KeyboardInterrupt as stop:
        sys.exit(128 + (stop.number if isinstance(stop, Stopped) else signal.SIGINT))
    except Exception:
        time.sleep(PATIENCE)  # then it is this process's own
        raise


def tell_bad(samples: Any) -> None:
    """How many files turned out to be broken while they were trained on, with an example."""
    from mmlearn.training.data import sets_of

    for part in sets_of(samples):
        if bad := getattr(part, "bad", []) if getattr(part, "skip_bad", False) else []:
            say(f"left out {len(bad)} in training that could not be read, such as: {bad[0]}")


def tell(samples: Any) -> None:
    """How many files were left out, with an example; and :func:`tell_notes`."""
    from mmlearn.training.data import sets_of

    for part in sets_of(samples):
        if skipped := getattr(part, "skipped", []):
            say(f"left out {len(skipped)} {getattr(part, 'holds', 'pictures')}, such as: {skipped[0]}")
    tell_notes(samples)


def tell_notes(samples: Any) -> None:
    """How many files are not read as they are, or are silent; only what has not been told yet."""
    from mmlearn.data.readers.files import in_short
    from mmlearn.training.data import sets_of

    for part in sets_of(samples):
        if notes := getattr(part, "new_notes", list)():
            say(f"to know of {in_short(notes, getattr(part, 'holds', 'sounds'))}")
