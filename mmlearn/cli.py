"""The ``mmlearn`` command. Results go to stdout, progress and errors to stderr; the exit code is 0, 1 or 2."""

import os
import shlex
import sys
import warnings
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer

from mmlearn import exercise_commands, plan_command
from mmlearn.console import Json, as_cell, say, show

app = typer.Typer(
    help="Multimodal representation learning, built from scratch and measured.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
data_app = typer.Typer(invoke_without_command=True, help="The data sets: licence, size, counts, an example.")
app.add_typer(data_app, name="data")
app.add_typer(exercise_commands.app, name="exercises")
app.command()(plan_command.plan)

USUAL_WARNING = warnings.formatwarning


def _sets(samples: Any) -> list[Any]:
    """The data sets that a system learns from: most often one."""
    return list(samples.values()) if isinstance(samples, Mapping) else [samples]


def _tell(samples: Any) -> None:
    """How many files were left out, with an example; and :func:`_tell_notes`."""
    for part in _sets(samples):
        if skipped := getattr(part, "skipped", []):
            say(f"left out {len(skipped)} {getattr(part, 'holds', 'pictures')}, such as: {skipped[0]}")
    _tell_notes(samples)


def _tell_notes(samples: Any) -> None:
    """How many files are not read as they are, or are silent; only what has not been told yet."""
    from mmlearn.data.read.files import in_short

    for part in _sets(samples):
        if notes := getattr(part, "new_notes", list)():
            say(f"to know of {in_short(notes, getattr(part, 'holds', 'sounds'))}")


@app.command()
def chapters(as_json: Json = False) -> None:
    """List the chapters."""
    from mmlearn.notebooks import chapters as known

    rows = [{"chapter": c.number, "title": c.title, "minutes": c.minutes, "notebook": c.path.name} for c in known()]
    show(rows, as_json)


@app.command()
def run(
    chapter: Annotated[str, typer.Argument(help="Number or name of a chapter, such as 00.")],
    scale: Annotated[str, typer.Option(help="smoke (wiring only), laptop, long (minutes), or gpu.")] = "laptop",
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Where the random numbers start.")] = 0,
    seeds: Annotated[int, typer.Option(min=1, help="Run with this many seeds, from --seed on.")] = 1,
    data: Annotated[str, typer.Option(help="Pictures of your own, for chapters with a DATA parameter.")] = "",
    keep: Annotated[bool, typer.Option("--record", help="Keep results in book/results, and the outputs.")] = False,
    output: Annotated[Path | None, typer.Option(help="Where to write; runs/NAME if not given.")] = None,
) -> None:
    """Run a chapter: execute its notebook, keep its figures and numbers, print its results."""
    from mmlearn.chapters import Result, Table
    from mmlearn.notebooks import find, keep_outputs, record
    from mmlearn.notebooks import run as execute

    if keep and data:
        raise ValueError("Results of your own data are not recorded as the chapter's; leave out --record or --data.")
    notebook = find(chapter)
    folder = output or Path("runs") / notebook.name
    runs = []
    for number in reversed(range(seed, seed + seeds)):
        say(f"{notebook.name}, {scale} scale, seed {number}")
        if keep and runs and number == seed:  # its outputs are kept, and it draws what is recorded
            record(notebook, runs[::-1], Path("book") / "results")
        where = folder if seeds == 1 else folder / f"seed-{number}"
        runs.append(execute(notebook, where, scale=scale, seed=number, data=data and str(Path(data).resolve())))
    runs.reverse()
    for results in runs:
        fields = [{k: v for k, v in row.items() if k != "holds"} for row in results["results"]]
        print(Table([Result(**row) for row in fields], scale))
        print(f"{results['seconds']:.0f} s, {results['peak_memory_mb']} MB, {results['device']}\n")
    first = folder if seeds == 1 else folder / f"seed-{seed}"
    if keep:
        say(f"recorded in {record(notebook, runs, Path('book') / 'results')}")
        if scale == "laptop":
            keep_outputs(notebook, first / notebook.path.name)
    say(f"Look at {first / 'index.html'} in a browser; pictures and numbers lie beside it.")
    say("Next: mmlearn lab opens the notebook to change it; mmlearn chapters lists all; mmlearn exercises has tasks.")


@app.command()
def start(folder: Annotated[Path, typer.Argument(help="Where to copy them.")]) -> None:
    """Copy notebooks and exercises to a folder of yours. Files that exist there are left as they are."""
    from mmlearn.notebooks import start as copy

    copied, kept = copy(folder)
    for path in copied:
        print(path)
    if kept:
        say(f"{len(kept)} files exist already and were left as they are.")
    say(f"{len(copied)} files copied. Go on with: {shlex.join(['mmlearn', 'lab', str(folder)])}")


@app.command()
def lab(folder: Annotated[Path | None, typer.Argument(help="A folder that mmlearn start filled.")] = None) -> None:
    """Open JupyterLab at the first chapter."""
    import subprocess
    from importlib.util import find_spec

    from mmlearn.notebooks import chapters as known

    first = known()[0].path
    path = folder / "notebooks" / first.name if folder else first
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; fill the folder with: mmlearn start {shlex.quote(str(folder))}")
    code = subprocess.call([sys.executable, "-m", "jupyter", "lab", str(path)])
    if not code:
        return
    if find_spec("jupyterlab") is None:
        raise ValueError("JupyterLab is not installed: pip install 'mmlearn[notebooks]'.")
    if os.geteuid() == 0:
        again = shlex.join(["jupyter", "lab", "--allow-root", str(path)])
        raise ValueError(f"JupyterLab refuses to run as root; be another user, or allow it: {again}")
    raise ValueError(f"JupyterLab ended with exit code {code}; above it says why.")


@app.command()
def train(
    system: Annotated[str, typer.Argument(help="Such as clip; a wrong name is answered with all. Or a file of yours.")],
    data: Annotated[str, typer.Option(help="A packaged data set; a folder: captions.csv, COCO, shards; or a stream.")],
    output: Annotated[Path, typer.Option(help="Folder for the model and its metrics.")],
    preset: Annotated[str, typer.Option(help="tiny, or a published name.")] = "tiny",
    steps: Annotated[int, typer.Option(min=1, help="How many updates.")] = 1000,
    batch_size: Annotated[int, typer.Option(min=1, help="Samples in a batch, over all processes.")] = 128,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Where the random numbers start.")] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the newest checkpoint in --output.")] = False,
    precision: Annotated[str, typer.Option(help="no (float32), bf16 or fp16.")] = "no",
    learning_rate: Annotated[float, typer.Option(help="The highest of the schedule.")] = 1e-3,
    optimizer: Annotated[str, typer.Option(help="muon or adamw.")] = "muon",
    accumulate: Annotated[int, typer.Option(min=1, help="Batches in an update.")] = 1,
    stage: Annotated[str | None, typer.Option(help="Of a system that is trained in several; the first.")] = None,
    start: Annotated[list[str] | None, typer.Option(help="A run of an earlier stage; or PART=FOLDER, again.")] = None,
    image_size: Annotated[int | None, typer.Option(min=8, help="Pixels of a side; 64 for most systems.")] = None,
    language: Annotated[str | None, typer.Option(help="Of the captions, for emoji, stamps and texts.")] = None,
    vocab_size: Annotated[int | None, typer.Option(help="Tokens at most; 1024 if not given.")] = None,
    mark_repeats: Annotated[bool, typer.Option(help="Repeated captions in a batch all match.")] = True,
    augment: Annotated[bool, typer.Option("--augment", help="Vary pictures and spectrograms at random.")] = False,
    objectives: Annotated[str | None, typer.Option(help="Such as mlm,itm; all of the paper if not given.")] = None,
    together: Annotated[bool, typer.Option("--together", help="Each batch serves all objectives.")] = False,
    setting: Annotated[list[str] | None, typer.Option("--set", help="Of the preset, such as queue_size=4096.")] = None,
    checkpoint_every: Annotated[int, typer.Option(min=1, help="Steps.")] = 200,
    log_every: Annotated[int, typer.Option(min=1, help="Steps after which numbers are fetched from a GPU.")] = 1,
    workers: Annotated[int, typer.Option(min=0, help="Processes that prepare batches.")] = 0,
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

    With several processes: torchrun --nproc-per-node 2 -m mmlearn train … (see "Many GPUs" in the book).
    """
    from mmlearn.training import fit
    from mmlearn.training.checkpoint import checkpoints
    from mmlearn.training.output import check_output, command_after, nothing_half_written
    from mmlearn.training.parts import read_start
    from mmlearn.training.runs import load_training_data, new_run, read_settings, save_run

    first = int(os.environ.get("RANK", 0)) == 0
    wanted = None if objectives is None else objectives.replace(",", " ").split()
    settings, own = read_settings(setting or []), system if system.endswith(".py") else None
    begun, parts = read_start(start or [], system, preset)
    learned = dict(preset=preset, stage=stage, objectives=wanted, together=together, start=begun)
    given = dict(image_size=image_size, vocab_size=vocab_size, repeats=None if mark_repeats else False)
    learned["options"] = {name: value for name, value in given.items() if value is not None}
    reading = dict(language=language, skip_bad=skip_bad, stream=stream, epoch_samples=epoch_samples)
    samples = load_training_data(system, data, **learned, **reading)
    _tell(samples)
    made = new_run(system, samples, **learned, seed=seed, settings=settings, parts=parts)
    _tell_notes(samples)  # of those that were heard on the way
    learning = dict(seed=seed, steps=steps, batch_size=batch_size, accumulate=accumulate)
    learning |= dict(learning_rate=learning_rate, optimizer=optimizer, precision=precision, ema=ema)
    running = dict(turns=made.stage.turns, checkpoint_every=checkpoint_every, workers=workers, compile=compile)
    running |= dict(log_every=log_every, recompute=recompute, chunk=chunk, shard=shard, tensorboard=tensorboard)
    training = {"data": data, **learning, "augment": augment, "mark_repeats": mark_repeats}
    training["language"] = next((part.language for part in _sets(samples) if hasattr(part, "language")), None)
    order = f"{stream}, epoch {epoch_samples}, workers {workers}, processes {os.environ.get('WORLD_SIZE', 1)}"
    training["stream"], training["start"] = order if stream else None, " ".join(start or [])
    if first:
        check_output(output, made, training, resume)
    going_on = resume and bool(checkpoints(output / "checkpoints"))  # stopped before its first, a run starts once more
    with nothing_half_written(output) if first else nullcontext():
        if first and not going_on:
            save_run(made, output, training=training)
            count = sum(map(len, _sets(samples)))
            say(f"{made.name}: {made.parameters:,} parameters to train on {count:,} samples")
        collate = made.collate(seed=seed, augment=augment)
        history = fit(made.system, samples, collate, **learning, **running, output=output, resume=going_on)
    if first:
        _tell_notes(samples)
        print(f"loss {history[-1]['loss']:.3f}; " if history else "", output / "model.safetensors", sep="")
        say(f"Next: {command_after(output, data, language, stream=stream is not None, skip_bad=skip_bad, own=own)}")


@app.command()
def evaluate(
    folder: Annotated[Path, typer.Argument(help="The output folder of mmlearn train.")],
    data: Annotated[str, typer.Option(help="A packaged data set, or a folder: captions.csv, COCO, shards.")],
    system: Annotated[Path | None, typer.Option(help="The file of a system of yours, where the run is of one.")] = None,
    split: Annotated[str | None, typer.Option(help="Which part; the held-out one if not given.")] = None,
    limit: Annotated[int, typer.Option(min=2, help="Samples at most; 256 where texts and pictures meet.")] = 5000,
    language: Annotated[str | None, typer.Option(help="Of the captions, for emoji, stamps and texts.")] = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave out files that cannot be read.")] = False,
    ema: Annotated[bool, typer.Option("--ema", help="Take the averaged weights of train --ema.")] = False,
    as_json: Json = False,
) -> None:
    """Print how well a trained system does what it learned: finding, pointing, matching, filling gaps, answering."""
    from mmlearn.training.evaluate import evaluate as measure
    from mmlearn.training.runs import load_run

    made = load_run(folder, system, ema)
    results = measure(made, data, split=split, limit=limit, language=language, skip_bad=skip_bad, tell=_tell)
    show([{"measure": name, **row} for name, row in results.items()], as_json)


@app.command()
def generate(
    folder: Annotated[Path, typer.Argument(help="The output folder of mmlearn train.")],
    prompt: Annotated[str | None, typer.Option(help="What the text begins with, or is made of.")] = None,
    picture: Annotated[list[Path] | None, typer.Option(help="What the text is about; may be given again.")] = None,
    num: Annotated[int, typer.Option(min=1, help="Texts, of each picture.")] = 1,
    strategy: Annotated[str, typer.Option(help="greedy, beam, sample, top-k or nucleus.")] = "greedy",
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Where draws start.")] = 0,
    system: Annotated[Path | None, typer.Option(help="The file of a system of yours, where the run is of one.")] = None,
    ema: Annotated[bool, typer.Option("--ema", help="Take the averaged weights of train --ema.")] = False,
    as_json: Json = False,
) -> None:
    """Print what a trained system says: of pictures, or as a text goes on."""
    from mmlearn.training.runs import load_run
    from mmlearn.training.writing import lines, write

    made = load_run(folder, system, ema)
    rows = write(made, pictures=picture or [], prompt=prompt, num=num, strategy=strategy, seed=seed)
    show(rows, True) if as_json else print("\n".join(lines(rows)))


@app.command()
def convert(
    file: Annotated[Path, typer.Argument(help="A released pickle, such as uniter-base.pt.")],
    folder: Annotated[Path, typer.Argument(help="Where to write config.json and model.safetensors.")],
) -> None:
    """Turn released weights of UNITER, ALBEF, ViLBERT, VL-BERT or DeCoAR 2.0 into safetensors; runs nothing in them."""
    from mmlearn.pretrained.convert import convert as turn

    say(turn(file, folder))
    print(folder / "model.safetensors")


@data_app.callback()
def data(context: typer.Context, as_json: Json = False) -> None:
    """List the data sets: licence, size, counts, an example."""
    if context.invoked_subcommand:
        return
    from mmlearn.data import data_sets

    rows = []
    for name, make in data_sets().items():
        rows.append({"name": name, "licence": make.licence, "size": make.disk})
        try:
            samples = {split: make(split) for split in make.splits}
        except ValueError as error:
            if not hasattr(make, "apart"):
                raise
            rows[-1] |= {"pairs": str(error), "shows": make.shows, "example": None}
            continue
        pairs = ", ".join(f"{split} {len(part):,}" for split, part in samples.items())
        rows[-1] |= {"pairs": pairs, "shows": make.shows, "example": samples[make.splits[0]][0].caption}
    if as_json:
        show(rows, True)
        return
    for row in rows:
        print(row.pop("name"))
        for field, value in row.items():
            print(f"  {field:8} {as_cell(value)}")


@data_app.command("show")
def data_show(
    name: Annotated[str, typer.Argument(help="A packaged data set, or a folder: captions.csv, COCO, shards.")],
    split: Annotated[str | None, typer.Option(help="Which part; the first if not given.")] = None,
    output: Annotated[Path | None, typer.Option(help="The PNG or .html to write; in runs/data if not given.")] = None,
    count: Annotated[int, typer.Option(min=1, max=200, help="Pictures.")] = 24,
    language: Annotated[str | None, typer.Option(help="Of the captions, for emoji, stamps and texts.")] = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave out files that cannot be read.")] = False,
) -> None:
    """Write a contact sheet of a data set as a PNG, or as a page (.html) where sounds can be played.

    In a PNG a sound is shown as its spectrogram.
    """
    import torch

    from mmlearn.data import data_sets, fetch, load
    from mmlearn.data.catalogue import asked
    from mmlearn.files import written_whole
    from mmlearn.visualization.sheet import check_sheet, write_sheet

    if output:
        check_sheet(output)
    split = split or (data_sets()[name].splits[0] if name in data_sets() else "train")
    samples = load(name, split, **asked(name, language=language, skip_bad=skip_bad))
    _tell(samples)
    chosen = fetch(samples, torch.linspace(0, len(samples) - 1, min(count, len(samples))).long().tolist())
    _tell_notes(samples)  # of what is heard in the sounds themselves, such as silence
    kind = "html" if hasattr(chosen[0], "sounds") else "png"
    label = name if name in data_sets() else Path(name).resolve().name
    path = output or Path("runs") / "data" / f"{label}-{split}.{kind}"
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(path) as unfinished:
        drawn = write_sheet(unfinished, chosen, title=f"{label}, {split}")
    if not drawn:
        page = shlex.quote(str(path.with_suffix(".html")))
        say(f"Letters that the font lacks are boxes; a page leaves them to the browser: --output {page}")
    print(path)


@app.command()
def doctor(as_json: Json = False) -> None:
    """Look at this installation and say what is missing or slow."""
    from mmlearn.doctor import examine

    rows = examine()
    show(rows, as_json)
    if any(row["state"] == "wrong" for row in rows):
        raise typer.Exit(1)


def _format_warning(message: Any, category: type, filename: str, *where: Any) -> str:
    """One line for a warning of ours, without the line of code that gave it."""
    if Path(filename).is_relative_to(Path(__file__).parent):
        return f"mmlearn: {message}\n"
    return USUAL_WARNING(message, category, filename, *where)


def main() -> None:
    """Run the command, and tell what goes wrong in one line."""
    warnings.formatwarning = _format_warning
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # the shell closed it, as with >&-
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
    try:
        code = app(sys.argv[1:] or ["--help"], standalone_mode=False)
        sys.stdout.flush()  # here, where an error can still be told
        if code == 130:  # what typer makes of a KeyboardInterrupt
            raise KeyboardInterrupt
        sys.exit(code if isinstance(code, int) else 0)
    except typer.Exit as done:
        sys.exit(done.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        training = sys.argv[1:2] == ["train"]  # of all commands it alone can go on
        say(f"mmlearn: stopped{'; it goes on from its newest checkpoint with --resume' if training else ''}.")
        sys.exit(130)
    except BrokenPipeError:  # the reader of our output, such as head, has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except (ValueError, OSError, FloatingPointError) as error:
        say(f"mmlearn: {_one_line(error)}")
        sys.exit(1)
    except Exception as error:
        if type(error).__name__ == "OutOfMemoryError":  # PyTorch's; what would fit, training has told already
            say("mmlearn: The device's memory is full: end what else holds some (nvidia-smi), or take a smaller model.")
            sys.exit(1)
        if not hasattr(error, "format_message"):  # what typer raises for words it does not understand
            raise
        text = _one_line(error.format_message())
        say(f"mmlearn: {text}{'' if text.endswith(('.', '?', '!')) else '.'} See mmlearn --help.")
        sys.exit(2)


def _one_line(error: object) -> str:
    text = str(error)
    if "Original Traceback" in text:  # from a process that prepares batches; its last line is the error itself
        text = text.strip().splitlines()[-1].partition(": ")[2]
    return " ".join(text.split())
