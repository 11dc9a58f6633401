"""Attacks by whoever types, or writes a script that does: values that cannot be, and wrong folders."""

import os
from collections.abc import Iterator
from pathlib import Path

from held import Attack
from of_data import LONG
from of_data import given as with_data
from of_runs import ESCAPE, given
from starts import training

TRAIN = training("clip", "run")
NUMBERS = (
    "--steps",
    "--batch-size",
    "--seed",
    "--accumulate",
    "--checkpoint-every",
    "--log-every",
    "--workers",
    "--chunk",
    "--image-size",
    "--vocab-size",
    "--learning-rate",
    "--ema",
)
NOT = ("x", "", "-1", "nan", "1e400", "9" * 4_000, ESCAPE, "٣x", "0x10", "--", "1;2", "null")


def with_images(base: Path):
    """Good pictures, under the name that commands here have."""
    return with_data(base, "pictures", lambda data: data.rename(data.parent / "pictures"))


def words(base: Path) -> Iterator[Attack]:
    """Values of options, and commands that there are not."""
    prepare = with_images(base)
    codes = (1, 2)
    for option in NUMBERS:
        for value in NOT[: 12 if option in ("--steps", "--learning-rate") else 5]:
            yield Attack(f"{option} {value[:12]!r}", prepare, (*TRAIN, f"{option}={value}"), "", codes)
    for option in (
        "--batch-size",
        "--image-size",
        "--vocab-size",
        "--workers",
        "--steps",
        "--seed",
        "--ema",
        "--chunk",
    ):
        for value in ("1000000000", "10000000000000000000000", "0.5"):
            if (option, value) not in (("--steps", "1000000000"), ("--seed", "1000000000"), ("--ema", "0.5")):
                possible = option == "--chunk" and value == "1000000000"  # clip reads fewer at once
                yield Attack(
                    f"{option} {value}", prepare, (*TRAIN, f"{option}={value}"), "", (0,) if possible else codes
                )
    for option in (
        "--precision",
        "--optimizer",
        "--preset",
        "--objectives",
        "--stage",
        "--start",
        "--language",
        "--data",
        "--stream",
    ):
        for value in ("../../x", f"a{ESCAPE}", LONG):
            yield Attack(f"{option} {value[:12]!r}", prepare, (*TRAIN, f"{option}={value}"), "", codes)
    for setting in (
        "",
        "x",
        "=",
        "=1",
        "depth=-1",
        "depth=1000000000",
        "width=NaN",
        f"width={'[' * 100_000}",
        "depth=1e9",
        "depth=[1]",
        "depth=true",
        "num_heads=0",
        "num_heads=7",
        "patch_size=5",
        f"{ESCAPE}=1",
        f"depth={'9' * 5_000}",
        "temperature=0",
        "width=1000000000",
        "mlp_width=1000000000000",
    ):
        yield Attack(f"--set {setting[:20]!r}", prepare, (*TRAIN, "--set", setting), "", codes)
    for system in (
        "",
        "clip ",
        "CLIP\x1b",
        "../clip.py",
        "nope.py",
        "/dev/zero.py",
        LONG,
        "-",
        "clip/../clip",
        "os.system",
    ):
        yield Attack(f"train {system[:12]!r}", prepare, ("train", system, *TRAIN[2:]), "", codes)
    for command in (
        (),
        ("nope",),
        (LONG,),
        (ESCAPE,),
        ("--nope",),
        ("data", ESCAPE),
        ("data", "emojy"),
        ("data", "show"),
        ("data", "show", ""),
        ("data", "show", LONG),
        ("data", "show", "/dev/zero"),
        ("data", "show", "pictures", "--count", "1000000000"),
        ("data", "show", "pictures", "--split", ESCAPE),
        ("data", "show", "pictures", "--output", ""),
        ("data", "show", "pictures", "--output", "/"),
        ("data", "show", "pictures", "--output", "/proc/x.png"),
        ("evaluate",),
        ("evaluate", "nope", "--data", "pictures"),
        ("evaluate", "pictures", "--data", "pictures"),
        ("evaluate", "/dev/zero", "--data", "pictures"),
        ("evaluate", "", "--data", "pictures"),
        ("evaluate", LONG, "--data", "x"),
        ("generate", "nope"),
        ("generate", "pictures", "--image", "/dev/zero"),
        ("convert", "/dev/zero", "x"),
        ("convert", "pictures/0.png", "x"),
        ("convert", "nope.pt", "x"),
        ("convert", "pictures", "x"),
        ("systems", ESCAPE),
        ("systems", LONG),
        ("plan", "nope"),
        ("plan", "clip", "--batch-size", "0"),
        ("plan", "clip", "--device", ESCAPE),
        ("plan", "clip", "--pairs", "nan"),
        ("run", "nope"),
        ("run", "00", "--scale", ESCAPE),
        ("run", "00", "--seed", "-1"),
        ("exercises", "hint", ESCAPE),
        ("exercises", "solution", LONG),
        ("lab", "nope"),
    ):
        if command:
            yield Attack(" ".join(command)[:60], prepare, command, "", codes)


def outputs(base: Path) -> Iterator[Attack]:
    """Folders that a run must not take as its own."""
    prepare = with_images(base)
    for where in (
        "",
        "/",
        ".",
        "..",
        "../..",
        "//",
        "pictures/0.png",
        "pictures/0.png/run",
        "/dev/null",
        "/dev/null/x",
        "/proc/x",
        "/proc/self/x",
        "/sys/x",
        "x" * 300,
        f"{LONG}/x",
        "/" + "a/" * 3_000,
    ):
        yield Attack(f"--output {where[:30]!r}", prepare, training("clip", where), "")
    for name, spoil in {
        "a link that leads nowhere": lambda here: (here / "run").symlink_to("/nowhere/x"),
        "a link in a circle": lambda here: (here / "run").symlink_to("run"),
        "a pipe": lambda here: os.mkfifo(here / "run"),
        "a file": lambda here: (here / "run").write_text("precious"),
        "a folder with a model": lambda here: (
            (here / "run").mkdir(),
            (here / "run" / "model.safetensors").write_text(""),
        ),
        "checkpoints that are a file": lambda here: (
            (here / "run").mkdir(),
            (here / "run" / "checkpoints").write_text(""),
        ),
        "metrics that are a folder": lambda here: (here / "run" / "metrics.jsonl").mkdir(parents=True),
        "a lock that is a folder": lambda here: (here / "run" / ".lock").mkdir(parents=True),
    }.items():

        def both(here: Path, spoil=spoil) -> None:
            prepare(here)
            spoil(here)

        yield Attack(name, both, TRAIN, "")
    finished = given(base, lambda run: None)
    yield Attack("a finished run", finished, TRAIN, "holds a run already")
    yield Attack(
        "a finished run, with other steps", finished, (*TRAIN, "--resume", "--steps", "9"), "steps was 6, now 9"
    )
    yield Attack(
        "a finished run, with another seed", finished, (*TRAIN, "--resume", "--seed", "9"), "seed was 3, now 9"
    )
    yield Attack("nothing to go on with", prepare, (*TRAIN, "--resume"), "holds no run")


def resumed(base: Path) -> Iterator[Attack]:
    """Runs to go on with, of which something is no longer what it was."""
    words = (*TRAIN, "--resume")

    def attack(name: str, spoil, says: str) -> Attack:
        def prepare(here: Path) -> None:
            given(base, lambda run: (run / "model.safetensors").unlink())(here)
            spoil(here)

        return Attack(name, prepare, words, says)

    def lines(change):
        def spoil(here: Path) -> None:
            path = here / "pictures" / "captions.csv"
            head, *rows = path.read_text().splitlines()
            path.write_text("\n".join([head, *change(rows)]) + "\n")

        return spoil

    other = "started with other data"
    yield attack("rows in another order", lines(lambda rows: rows[::-1]), other)
    yield attack("two rows exchanged", lines(lambda rows: [rows[2], rows[1], rows[0], *rows[3:]]), other)
    yield attack("a row less", lines(lambda rows: rows[1:]), other)
    yield attack("a row twice", lines(lambda rows: [rows[0], *rows]), other)
    yield attack("a word changed", lines(lambda rows: [rows[0].replace("number", "nunber"), *rows[1:]]), other)
    for number in (0, 2, 14):
        yield attack(
            f"picture {number} replaced",
            lambda here, n=number: (here / "pictures" / f"{n}.png").write_bytes(
                (here / "pictures" / "1.png").read_bytes()
            ),
            other,
        )
    yield attack(
        "a picture gone", lambda here: (here / "pictures" / "4.png").unlink(), "There is no picture|other data"
    )
    yield attack("all data gone", lambda here: (here / "pictures" / "captions.csv").unlink(), "captions")
    yield attack("no configuration", lambda here: (here / "run" / "config.json").unlink(), "holds no run|model already")
    yield attack("no tokenizer", lambda here: (here / "run" / "tokenizer.json").unlink(), r"tokenizer\.json is missing")
