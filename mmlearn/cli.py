"""The ``mmlearn`` command. Results go to stdout, progress and errors to stderr; the exit code is 0, 1 or 2."""

import os
import re
import shlex
import sys
import traceback
import warnings
from difflib import get_close_matches
from pathlib import Path
from sysconfig import get_path
from typing import Annotated, Any

import typer

from mmlearn import __version__, chat_command, exercise_commands, plan_command, run_command, train_command
from mmlearn.console import Json, as_cell, check_place, one_line, prepare_streams, say, show, tell_launcher
from mmlearn.escaping import plain
from mmlearn.train_command import tell, tell_notes

app = typer.Typer(
    help="Multimodal representation learning, built from scratch and measured.\n\nExample: mmlearn run 00",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
data_app = typer.Typer(invoke_without_command=True)
app.add_typer(data_app, name="data")
app.add_typer(exercise_commands.app, name="exercises")
app.command()(run_command.run)
app.command()(train_command.train)
app.command()(plan_command.plan)
app.command()(chat_command.chat)


def _tell_version(given_options: bool) -> bool:
    if given_options:
        print(__version__)
        raise typer.Exit
    return given_options


@app.callback()
def everywhere(
    version: Annotated[
        bool, typer.Option("--version", callback=_tell_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show where an error came from.")] = False,
) -> None:
    """What all commands take; ``main`` looks for ``--debug`` itself."""


@app.command()
def systems(
    name: Annotated[str | None, typer.Argument(help="Such as clip: its presets with their parameters.")] = None,
    zoo: Annotated[bool, typer.Option("--zoo", help="List the weights that come with the package instead.")] = False,
    as_json: Json = False,
) -> None:
    """List the systems: what each reads and learns, and its presets. With a name, how large its presets are.

    Example: mmlearn systems clip
    """
    from mmlearn.recipes.discovery import system_files
    from mmlearn.systems_command import presets_of, row_of, zoo_rows

    if zoo and name:
        raise ValueError("--zoo lists all weights; leave out the name.")
    show(zoo_rows() if zoo else presets_of(name) if name else [row_of(each) for each in system_files()], as_json)


@app.command()
def chapters(as_json: Json = False) -> None:
    """List the chapters.

    Example: mmlearn chapters
    """
    from mmlearn.notebooks import chapters as known

    rows = [{"chapter": c.number, "title": c.title, "minutes": c.minutes, "notebook": c.path.name} for c in known()]
    show(rows, as_json)


@app.command()
def start(folder: Annotated[Path, typer.Argument(help="Where to copy them.")]) -> None:
    """Copy notebooks and exercises to a folder of yours. Files that exist there are left as they are.

    Example: mmlearn start lessons
    """
    from mmlearn.notebooks import start as copy

    copied, kept = copy(folder)
    for path in copied:
        print(plain(path))
    if kept:
        say(f"{len(kept)} files exist already and were left as they are.")
    say(f"{len(copied)} files copied. Go on with: {shlex.join(['mmlearn', 'lab', str(folder)])}")


@app.command()
def lab(folder: Annotated[Path | None, typer.Argument(help="A folder that mmlearn start filled.")] = None) -> None:
    """Open JupyterLab at the first chapter.

    Example: mmlearn lab lessons
    """
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
        raise ValueError("JupyterLab is not installed; in the clone of mmlearn: pip install -e '.[notebooks]'.")
    if os.geteuid() == 0:
        again = shlex.join(["jupyter", "lab", "--allow-root", str(path)])
        raise ValueError(f"JupyterLab refuses to run as root; be another user, or allow it: {again}")
    raise ValueError(f"JupyterLab ended with exit code {code}; above it says why.")


@app.command()
def evaluate(
    folder: Annotated[Path, typer.Argument(help="The output folder of mmlearn train, or zoo/NAME.")],
    data: Annotated[str, typer.Option(help="A packaged data set, or a folder: captions.csv, COCO, shards.")],
    system: Annotated[Path | None, typer.Option(help="The file of a system of yours, where the run is of one.")] = None,
    split: Annotated[str | None, typer.Option(help="Which part; the held-out one if not given.")] = None,
    limit: Annotated[int, typer.Option(min=2, help="Samples at most; 256 where texts and pictures meet.")] = 5000,
    language: Annotated[str | None, typer.Option(help="Of the captions, for emoji, stamps and texts.")] = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave out files that cannot be read.")] = False,
    ema: Annotated[bool, typer.Option("--ema", help="Take the averaged weights of train --ema.")] = False,
    as_json: Json = False,
) -> None:
    """Print how well a trained system does what it learned: finding, pointing, matching, filling gaps, answering.

    Example: mmlearn evaluate runs/clip --data scenes
    """
    from mmlearn.training.evaluate import evaluate as measure
    from mmlearn.training.published import open_run

    made = open_run(folder, system, ema)
    results = measure(made, data, split=split, limit=limit, language=language, skip_bad=skip_bad, tell=tell)
    show([{"measure": name, **row} for name, row in results.items()], as_json)


@app.command()
def generate(
    folder: Annotated[Path, typer.Argument(help="The output folder of mmlearn train, or a published checkpoint.")],
    prompt: Annotated[str | None, typer.Option(help="What the text begins with, or is made of.")] = None,
    image: Annotated[list[Path] | None, typer.Option(help="What the text is about; one or several.")] = None,
    picture: Annotated[list[Path] | None, typer.Option(hidden=True)] = None,  # as --image was called before
    sound: Annotated[list[Path] | None, typer.Option(help="What is heard; one or several.")] = None,
    language: Annotated[str | None, typer.Option(help="That is spoken, such as fr; found if not given.")] = None,
    task: Annotated[str | None, typer.Option(help="transcribe, or translate into English.")] = None,
    times: Annotated[bool, typer.Option("--times", help="Write when each phrase is spoken.")] = False,
    num: Annotated[int, typer.Option(min=1, help="Texts, of each picture or sound.")] = 1,
    strategy: Annotated[str, typer.Option(help="greedy, beam, sample, top-k or nucleus.")] = "greedy",
    min_new_tokens: Annotated[int, typer.Option(min=0, help="No text ends before it has so many tokens.")] = 0,
    no_repeat_ngram_size: Annotated[int, typer.Option(min=0, help="No n tokens twice in a text; 0: any.")] = 0,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Where draws start.")] = 0,
    system: Annotated[Path | None, typer.Option(help="The file of a system of yours, where the run is of one.")] = None,
    ema: Annotated[bool, typer.Option("--ema", help="Take the averaged weights of train --ema.")] = False,
    as_json: Json = False,
) -> None:
    """Print what a trained system says: of pictures, of what it hears, or as a text goes on.

    Example: mmlearn generate runs/blip --image dog.jpg
    """
    from mmlearn.training.published import load_writer
    from mmlearn.training.writing import lines, write

    made = load_writer(folder, system, ema)
    seen, asked = [*(image or []), *(picture or [])], dict(language=language, task=task, times=times or None)
    limits = dict(min_new_tokens=min_new_tokens, no_repeat_ngram_size=no_repeat_ngram_size)
    rows = write(made, seen, sound or [], prompt, num=num, strategy=strategy, seed=seed, **limits, **asked)
    show(rows, True) if as_json else print("\n".join(map(plain, lines(rows))))


@app.command()
def convert(
    file: Annotated[Path, typer.Argument(help="A released file, such as uniter-base.pt or a GGUF; or an extra.")],
    folder: Annotated[Path, typer.Argument(help="Where to write config.json and model.safetensors.")],
    force: Annotated[bool, typer.Option("--force", help="Overwrite a model that the folder holds.")] = False,
) -> None:
    """Turn weights of UNITER, ALBEF, ViLBERT, VL-BERT, DeCoAR 2.0, Whisper, or a GGUF, into safetensors; runs nothing.

    Example: mmlearn convert uniter-base.pt models/uniter
    """
    from mmlearn.training.converted import convert as turn

    say(turn(file, folder, force))
    print(plain(folder / "model.safetensors"))


@data_app.callback()
def data(context: typer.Context, as_json: Json = False) -> None:
    """List the data sets: licence, size, counts, an example.

    Example: mmlearn data --json
    """
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

    Example: mmlearn data show emoji --count 48 --output emoji.png
    """
    import torch

    from mmlearn.data import data_sets, fetch, load
    from mmlearn.data.catalogue import given_options
    from mmlearn.files import written_whole
    from mmlearn.visualization.sheet import check_sheet, write_sheet

    if output:
        check_sheet(output)
    split = split or (data_sets()[name].splits[0] if name in data_sets() else "train")
    samples = load(name, split, **given_options(name, language=language, skip_bad=skip_bad))
    tell(samples)
    chosen = fetch(samples, torch.linspace(0, len(samples) - 1, min(count, len(samples))).long().tolist())
    tell_notes(samples)  # of what is heard in the sounds themselves, such as silence
    kind = "html" if hasattr(chosen[0], "sounds") else "png"
    label = name if name in data_sets() else Path(name).resolve().name
    path = output or Path("runs") / "data" / f"{label}-{split}.{kind}"
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(path) as unfinished:
        drawn = write_sheet(unfinished, chosen, title=f"{label}, {split}")
    if not drawn:
        page = shlex.quote(str(path.with_suffix(".html")))
        say(f"Letters that the font lacks are boxes; a page leaves them to the browser: --output {page}")
    print(plain(path))


@app.command()
def doctor(as_json: Json = False) -> None:
    """Look at this installation and say what is missing or slow.

    Example: mmlearn doctor
    """
    from mmlearn.doctor import examine

    rows = examine()
    show(rows, as_json)
    if any(row["state"] == "wrong" for row in rows):
        raise typer.Exit(1)


def _format_warning(message: Any, category: type, filename: str, line: int, *_: Any) -> str:
    """One line, without the line of code; of other packages, which users cannot mend, only with ``--debug``."""
    if Path(filename).is_relative_to(Path(__file__).parent):
        return f"mmlearn: {plain(message)}\n"
    folders = (get_path(name) for name in ("stdlib", "purelib", "platlib"))
    others = filename.startswith("<") or any(map(Path(filename).is_relative_to, folders))
    return "" if others and "--debug" not in sys.argv else f"{plain(f'{filename}, line {line}: {message}')}\n"


def main() -> None:
    """Run the command, and tell what goes wrong in one line; with ``--debug`` among its words, show where as well."""
    prepare_streams()
    words = [word for word in sys.argv[1:] if word != "--debug"]
    debug = len(words) < len(sys.argv) - 1
    if not debug:
        warnings.formatwarning = _format_warning
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    if words[:1] == ["generate"]:
        words = _one_each(words)
    if words[:1] == ["help"]:
        words = [*words[1:], "--help"]
    try:
        check_place(words)
        code = app(words or ["--help"], standalone_mode=False, prog_name="mmlearn")
        sys.stdout.flush()  # here, where an error can still be told
        if code == 130:  # what typer makes of a KeyboardInterrupt
            raise KeyboardInterrupt
        sys.exit(code if isinstance(code, int) else 0)
    except typer.Exit as done:
        sys.exit(done.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        say("mmlearn: stopped.")
        sys.exit(130)
    except BrokenPipeError:  # the reader of our output, such as head, has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except SystemExit:
        raise
    except BaseException as error:  # such as a panic of what is written in Rust
        if debug:
            traceback.print_exc()
        say(line := f"mmlearn: {_told(error, words)}")
        tell_launcher(plain(line))
        sys.exit(2 if hasattr(error, "format_message") else 1)


def _told(error: BaseException, words: list[str]) -> str:
    """What went wrong, in one line."""
    if isinstance(error, ValueError | OSError | FloatingPointError):
        return _as_typed(one_line(error), words)
    if hasattr(error, "format_message"):  # what typer raises for words that it does not understand
        text = one_line(error.format_message())
        text += _meant(words, text)
        given_options = getattr(getattr(error, "ctx", None), "command_path", "mmlearn")
        return f"{text}{'' if text.endswith(('.', '?', '!')) else '.'} See {given_options} --help."
    kind = type(error).__name__
    if kind == "OutOfMemoryError":  # PyTorch's; what would fit, training has told already
        return "The device's memory is full: end what else holds some (nvidia-smi), or take a smaller model."
    if kind == "MemoryError" or "DefaultCPUAllocator" in str(error):
        return "There is not enough memory for this: ask for less, such as a smaller preset, picture, queue or batch."
    return f"{one_line(error)[:300] or kind} ({kind}, which was not foreseen; add --debug to see where)."


def _one_each(words: list[str]) -> list[str]:
    """``generate FOLDER --image a.png b.png`` as ``--image a.png --image b.png``, which typer understands."""
    found: list[str] = []
    option = ""
    for place, word in enumerate(words):
        if word.startswith("-"):
            option = word if word in ("--image", "--picture", "--sound") else ""
        elif option and words[1][:1] != "-" and words[place - 1] != option:  # else it may be the folder
            found.append(option)
        found.append(word)
    return found


def _as_typed(text: str, words: list[str]) -> str:
    """The same with the options of the command as they are typed, which the library calls by their names in Python."""
    command = typer.main.get_command(app)
    for word in words:
        command = getattr(command, "commands", {}).get(word, command)
    for option in (one for one in command.params if one.name and one.opts[0].startswith("--")):
        bare = rf"|(?<![\w/.'\"]){option.name}(?![\w/.'\"])" if "_" in option.name else ""
        text = re.sub(rf"(?<=option )'{option.name}'{bare}", option.opts[0], text)
    return text


def _meant(words: list[str], text: str) -> str:
    """Of ``mmlearn data emojy``, and of a setting that is typed as an option, what was probably meant."""
    if (
        words[:1] == ["train"]
        and "Did you mean" not in text
        and (option := re.match(r"No such option: --([\w-]+)", text))
    ):
        return f" A setting of the system is typed --set {option[1].replace('-', '_')}=VALUE."
    if words[:1] != ["data"] or not words[1:]:
        return ""
    from mmlearn.data import data_sets

    near = get_close_matches(words[1], [*data_sets(), "show"], n=1)
    shown = f"data show {near[0]}" if near and near[0] != "show" else "data show"
    return f" Did you mean: mmlearn {shown}?" if near else ""
