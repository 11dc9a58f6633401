"""Attacks by what lies around a command: links, folders that go, streams that fail, locales, files of its user."""

import json
import os
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
from held import Attack
from of_runs import DEEP, ESCAPE, given
from of_words import TRAIN, with_images
from released import released, uniter
from starts import write_shard

PRECIOUS = "precious"


# Links in a folder that is written to.

LINKED = (".lock", "config.json", "metrics.jsonl", "model.safetensors", "tokenizer.json", "checkpoints", "tensorboard")
LINKED += ("checkpoints/step-00000002", "checkpoints/.writing-00000002", ".writing-1-config.json", "notes/more/today")
NOTEBOOK = ("notebooks", "notebooks/00_first_lesson.ipynb", "exercises", "exercises/07_contrastive")


def linked(name: str, to: str, under: str) -> Callable[[Path], None]:
    """Under ``here/under`` something is a link to a file or folder of somebody else, or to what is not there."""

    def spoil(here: Path) -> None:
        path, other = here / under / name, here / "theirs"
        other.mkdir()
        (other / "kept.txt").write_text(PRECIOUS)
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(path, ignore_errors=True)
        path.unlink(missing_ok=True)
        path.symlink_to({"a file": other / "kept.txt", "a folder": other, "nothing": other / "new"}[to])

    return spoil


def both(*steps: Callable[[Path], object]) -> Callable[[Path], None]:
    """One after the other."""

    def prepare(here: Path) -> None:
        for step in steps:
            step(here)

    return prepare


def links(base: Path) -> Iterator[Attack]:
    """A link out of a folder that a command writes to; the folder itself may be one."""
    new, old = with_images(base), given(base, lambda run: None)
    resume = (*TRAIN, "--resume")

    def hard(here: Path) -> None:
        (here / "run").mkdir()
        (here / "theirs.txt").write_text(PRECIOUS)
        (here / "run" / ".lock").hardlink_to(here / "theirs.txt")

    yield Attack("a new run, .lock is a hard link", both(new, hard), TRAIN, "is a link")
    for to in ("a file", "a folder", "nothing"):
        for name in LINKED:
            says = "is a link|holds a (run|model) already"
            yield Attack(f"a new run, {name} is {to}", both(new, linked(name, to, "run")), TRAIN, says)
            says = "is a link|holds no run"
            yield Attack(f"--resume, {name} is {to}", both(old, linked(name, to, "run")), resume, says)
        for name in ("model.safetensors", "config.json"):
            prepare, words = (
                both(write_released, linked(name, to, "ours")),
                ("convert", "released.pt", "ours", "--force"),
            )
            yield Attack(f"convert, {name} is {to}", prepare, words, "is a link")
        for name in NOTEBOOK:
            yield Attack(f"start, {name} is {to}", linked(name, to, "lessons"), ("start", "lessons"), "is a link")
    pipe = both(new, lambda here: ((here / "run").mkdir(), os.mkfifo(here / "run" / "metrics.jsonl")))
    yield Attack("a new run, a pipe", pipe, TRAIN, "is a pipe")

    def moved(here: Path) -> None:
        (here / "disk").mkdir()
        (here / "run").symlink_to(here / "disk")

    at = lambda here: None if (here / "disk" / "model.safetensors").is_file() else "did not write behind the link"  # noqa: E731
    yield Attack("a run's folder is a link", both(new, moved), TRAIN, codes=(0,), then=at)


def write_released(here: Path) -> None:
    torch.save(released(uniter()), here / "released.pt")


# A run's folder that goes while it trains.


def removed(run: Path) -> None:
    shutil.rmtree(run)


def moved_away(run: Path) -> None:
    run.rename(run.with_name("elsewhere"))


def replaced(run: Path) -> None:
    moved_away(run)
    run.mkdir()
    (run / "config.json").write_text(PRECIOUS)


def parent_removed(run: Path) -> None:
    shutil.rmtree(run.parent)


def at_step(does: Callable[[Path], None], step: int) -> None:
    """In the command's process: this is done to the folder when the numbers of a step are fetched."""
    from mmlearn.training.log import TrainingLog

    fetch, left = TrainingLog.fetch, [step]

    def fetched(log: TrainingLog) -> None:
        fetch(log)
        left[0] -= 1
        if left[0] == 0 and log.folder:
            does(log.folder)

    TrainingLog.fetch = fetched  # type: ignore[method-assign]


def here_removed() -> None:
    """In the command's process: the folder that it is called from is gone at the last step."""
    os.chdir("deep")
    tempfile.tempdir = None  # that of this process, which is the attack's folder
    at_step(lambda run: shutil.rmtree(Path.cwd()), 6)


def weights_elsewhere(step: int, here: Path) -> str | None:
    """What is not as was said: the weights are whole, and what took the folder's place is untouched."""
    from safetensors.torch import load_file

    found = list(here.glob(f"**/run-step-{step}-*/model.safetensors"))
    if len(found) != 1 or not load_file(found[0]):
        return f"saved {len(found)} copies of the weights elsewhere"
    place = here / "deep" / "run"
    if place.exists() and [path.name for path in place.iterdir()] != ["config.json"]:
        return "wrote into what took the folder's place"
    return None


def lost_folders(base: Path) -> Iterator[Attack]:
    """The output folder is removed, moved or replaced between two checkpoints."""
    prepare = with_images(base)
    yield Attack(
        "the working directory is removed",
        both(prepare, lambda here: shutil.copytree(here / "pictures", here / "deep" / "pictures")),
        TRAIN,
        r"was removed, moved or replaced.*after step 6 are in .*run-step-6-",
        first=here_removed,
        changes=True,
        then=partial(weights_elsewhere, 6),
    )
    words = (*TRAIN[: TRAIN.index("--output")], "--output", "deep/run", *TRAIN[TRAIN.index("--output") + 2 :])
    for does in (removed, moved_away, replaced, parent_removed):
        for step in range(1, 7):
            saved = step + step % 2  # checkpoints are written every two steps
            yield Attack(
                f"{does.__name__} at step {step}",
                prepare,
                words,
                rf"was removed, moved or replaced.*after step {saved} are in .*run-step-{saved}-",
                first=partial(at_step, does, step),
                changes=True,
                then=partial(weights_elsewhere, saved),
            )


# Streams, locales, homes.


def full(number: int) -> None:
    """A stream goes to a disk that is full."""
    os.dup2(os.open("/dev/full", os.O_WRONLY), number)


def closed_pipe(number: int) -> None:
    """Nobody reads a stream any more."""
    reading, writing = os.pipe()
    os.close(reading)
    os.dup2(writing, number)


def encoded(encoding: str) -> None:
    """Streams as in a locale with few letters."""
    for name in ("stdout", "stderr"):
        setattr(sys, name, open(getattr(sys, name).fileno(), "w", encoding=encoding, closefd=False))  # noqa: SIM115


def deleted_here() -> None:
    """The working directory is deleted."""
    folder = Path("gone")
    folder.mkdir()
    os.chdir(folder)
    os.rmdir(Path.cwd())


def without_home() -> None:
    os.environ["HOME"] = "~nobody"


ENCODINGS = ("ascii", "latin-1", "cp1252", "shift-jis")
ODD = (partial(full, 2), partial(closed_pipe, 2), without_home, *(partial(encoded, one) for one in ENCODINGS))


def streams(base: Path) -> Iterator[Attack]:
    """Streams that fail or lack letters, and places that are not there: what is asked for is done, or refused."""
    new, whole = with_images(base), given(base, lambda run: None)
    done = lambda here: None if (here / "run" / "model.safetensors").is_file() else "did not train to the end"  # noqa: E731
    for does in (full, closed_pipe):
        yield Attack(f"{does.__name__}: train", new, TRAIN, codes=(0,), first=partial(does, 2), then=done)
        words = ("evaluate", "run", "--data", "pictures")
        yield Attack(f"{does.__name__}: evaluate", whole, words, codes=(0,), first=partial(does, 2))
        yield Attack(
            f"{does.__name__}: an error", new, ("evaluate", "nope", "--data", "x"), first=partial(does, 2), silent=True
        )
    for encoding in ENCODINGS:
        for words in (("exercises",), ("systems",), ("data", "--json"), ("exercises", "hint", "info_nce")):
            yield Attack(f"{encoding}: {' '.join(words)}", new, words, codes=(0,), first=partial(encoded, encoding))
    for words in (TRAIN, ("chapters",), ("exercises",), ("data", "show", "emoji")):
        yield Attack(
            f"deleted: {words[0]}", new, words, "working directory was deleted", first=deleted_here, changes=True
        )
    for words in (("exercises",), ("exercises", "hint", "info_nce"), ("exercises", "reset", "info_nce"), TRAIN):
        yield Attack(f"no home: {' '.join(words)[:24]}", new, words, codes=(0,), first=without_home)


# Files that mmlearn keeps for its user.


def user_files(base: Path) -> Iterator[Attack]:
    """``progress.json`` and ``hints.json`` that are damaged count as empty; what cannot be saved is said."""
    contents = {"deep": DEEP, "deep objects": '{"a":' * 100_000, "empty": "", "null": "null", "a number": "7"}
    contents |= {
        "a list": "[1, [2]]",
        "an object": '{"07_contrastive/info_nce": [1]}',
        "an escape": json.dumps([ESCAPE]),
    }
    spoils: dict[str, Callable[[Path], object]] = {
        name: lambda path, text=text: path.write_text(text) for name, text in contents.items()
    }
    spoils |= {
        "not UTF-8": lambda path: path.write_bytes(b"\xff\xfe["),
        "a pipe": os.mkfifo,
        "a folder": Path.mkdir,
        "a link in a circle": lambda path: path.symlink_to(path),
        "a link": lambda path: (path.parent / "kept").write_text(PRECIOUS) and path.symlink_to(path.parent / "kept"),
    }
    for file in ("progress.json", "hints.json"):
        for name, spoil in spoils.items():

            def prepare(here: Path, file: str = file, spoil: Callable[[Path], object] = spoil) -> None:
                (here / ".mmlearn").mkdir()
                spoil(here / ".mmlearn" / file)

            for words in (("exercises",), ("exercises", "hint", "info_nce"), ("exercises", "reset", "info_nce")):
                yield Attack(f"{file}, {name}: {' '.join(words)}", prepare, words, codes=(0,), then=kept)


def kept(here: Path) -> str | None:
    """Nothing is written through a link."""
    path = here / ".mmlearn" / "kept"
    return "wrote through a link" if path.exists() and path.read_text() != PRECIOUS else None


# What a training left off with, and what is typed.


def left_off(base: Path) -> Iterator[Attack]:
    """A run that goes on finds damaged metrics, or data of which files are missing."""
    words = (*TRAIN, "--resume")
    for name, line in {
        "half a line": '{"step": 1, "lo}',
        "no object": "[1]}",
        "another object": '{"a": 1}',
        "deep": DEEP + "}",
        "a text for a step": '{"step": "x"}',
        "not UTF-8": "\udcff}",
    }.items():

        def spoil(run: Path, line: str = line) -> None:
            path = run / "metrics.jsonl"
            path.write_bytes(line.encode(errors="surrogateescape") + b"\n" + path.read_bytes())

        yield Attack(f"metrics: {name}", given(base, spoil), words, r"metrics\.jsonl is damaged")
    stream = ("train", "clip", "--data", "data", "--stream", "exact", "--image-size", "32", "--vocab-size", "280")
    stream += ("--batch-size", "4", "--output", "run")
    yield Attack(
        "braces of folders", shard_folders, (*stream[:3], "data/w{a,b}", *stream[4:]), "is a folder, and no shard"
    )
    many = ("{0..999999999}", "{0..9999}{0..9999}", "{a,b}" * 40, "{0.." + "9" * 5_000 + "}")
    for braces in many:
        words = (*stream[:3], f"data/{braces}.tar", *stream[4:])
        yield Attack(f"too many shards: {braces[:16]}", shard_folders, words, "names more than")
    yield Attack(
        "braces without --stream", shard_folders, (*stream[:3], "data/w{a,b}", "--output", "run"), "--stream exact"
    )
    empty = both(with_images(base), lambda here: (here / "pictures" / "captions.csv").write_text(" \n"))
    yield Attack("empty captions", empty, TRAIN, r"captions\.csv is empty")


def shard_folders(here: Path) -> None:
    for name in ("wa", "wb"):
        write_shard(here / "data" / name / "train-0.tar")


def typed(base: Path) -> Iterator[Attack]:
    """Names that are empty or have escapes, numbers without end, options that a data set has not, odd prompts."""
    prepare, made = with_images(base), write_released
    for words in (
        TRAIN[:-2] + ("--output", ""),
        ("data", "show", "pictures", "--output="),
        ("run", "00", "--output", ""),
    ):
        yield Attack(f"no output: {words[0]}", prepare, words, "--output is empty")
    for words in (("start", ""), ("convert", "released.pt", ""), ("convert", "", "ours")):
        yield Attack(f"no name: {words}", made, words, "name is empty")
    for words in ((*TRAIN[:-1], "run\udcff"), ("convert", "released.pt", "ours\udcff")):
        yield Attack(f"not UTF-8: {words[0]}", both(prepare, made), words, "is no name in UTF-8")
    for data in ("scenes", "emoji"):
        words = ("train", "clip", "--data", data, "--output", "run", "--skip-bad")
        yield Attack(f"--skip-bad of {data}", prepare, words, "--skip-bad: leave it out")
    words = ("data", "show", "scenes", "--language", "de")
    yield Attack("--language of scenes", prepare, words, r"--language: leave it out\.$")
    for option in ("--batch-size", "--devices", "--chunk", "--text-length", "--pairs"):
        for value in ("1" + "0" * 30, "9" * 4_000, "-1", "1e400"):
            known = {"--pairs": "1e6", "--batch-size": "8", "--device": "h100"} | {option: value}
            words = ("plan", "clip", *(f"{name}={value}" for name, value in known.items()))
            codes = (0, 1, 2) if option in ("--pairs", "--chunk") else (1, 2)
            yield Attack(f"plan {option} {value[:8]}", prepare, words, "", codes)
    yield Attack("an escape in a name", made, ("convert", "released.pt", f"a{ESCAPE}"), codes=(0,))
    yield Attack(
        "another model", both(made, other_model), ("convert", "released.pt", "ours"), "holds a config.json already"
    )
    yield Attack(
        "a model is overwritten", both(made, other_model), ("convert", "released.pt", "ours", "--force"), codes=(0,)
    )
    eye = torch.eye(4)
    for name, make in {
        "sparse": eye.to_sparse,
        "compressed rows": eye.to_sparse_csr,
        "meta": partial(eye.to, "meta"),
    }.items():

        def write(here: Path, make: Callable[[], torch.Tensor] = make) -> None:
            tensors = released(uniter())
            with warnings.catch_warnings(action="ignore"):  # which PyTorch has for sparse tensors
                torch.save(tensors | {next(iter(tensors)): make()}, here / "released.pt")

        words, says = ("convert", "released.pt", "ours"), r"only plain tensors are read|no whole pickle"
        yield Attack(f"convert: {name}", write, words, says)


def other_model(here: Path) -> None:
    (here / "ours").mkdir()
    (here / "ours" / "config.json").write_text(PRECIOUS)
