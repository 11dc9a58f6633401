"""``make attack``: attacks at random, for ten minutes: ``make attack OPTIONS="--minutes 2 --seed 3"``.

Runs of random systems are killed at random moments and go on; files that a run writes, data and configurations are
damaged at random; folders are moved, or have links; streams fail; and attacks by kind are drawn from those of the
tests. Printed is how many were tried and held.
"""

import argparse
import json
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from copy import deepcopy
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1] / "tools"))

import of_data
import of_runs
import of_surroundings
import of_words
from held import Attack, command, processes, run_here, tree, tried
from of_runs import DEEP, ESCAPE, HUGE, sign
from PIL import Image
from starts import RUNS, training, write_runs

BY_KIND = (
    *(of_runs.weights, of_runs.configurations, of_runs.tokenizers, of_runs.manifests, of_runs.checkpoint_files),
    *(of_data.captions, of_data.coco, of_data.shards, of_data.images, of_data.sounds, of_data.paths),
    *(of_words.words, of_words.outputs, of_words.resumed),
    *(of_surroundings.links, of_surroundings.lost_folders, of_surroundings.streams, of_surroundings.user_files),
    *(of_surroundings.left_off, of_surroundings.typed),
)
VALUES = (
    None,
    True,
    0,
    -1,
    1,
    0.5,
    HUGE,
    10**30,
    float("nan"),
    float("inf"),
    "",
    "x",
    ESCAPE,
    "x" * 5_000,
    "\ud800",
    [],
    {},
    [[]],
    {"a": 1},
)
PIECES = (
    b"\0",
    b"\xff",
    b'"',
    b",",
    b"\n",
    b"\r",
    b"{",
    b"[",
    b"..",
    b"/",
    b"\x1b[2J",
    b"\xed\xa0\x80",
    b"9" * 400,
    b"\xef\xbb\xbf",
)


# What is done at random.


def damaged(content: bytes, draw: random.Random) -> bytes:
    """Bits flipped, bytes lost, doubled or put in, or the end cut off."""
    for _ in range(draw.choice((1, 1, 1, 3, 20))):
        at, many = draw.randrange(len(content) + 1), draw.choice((1, 2, 8, 100, 5_000))
        if draw.random() < 0.3:  # where headers are
            at = min(at, draw.randrange(200))
        way = draw.randrange(5)
        if way == 0 and at < len(content):
            content = content[:at] + bytes([content[at] ^ 1 << draw.randrange(8)]) + content[at + 1 :]
        elif way == 1:
            content = content[:at] + content[at + many :]
        elif way == 2:
            content = content[:at] + content[at : at + many] * 2 + content[at + many :]
        elif way == 3:
            content = content[:at] + draw.choice(PIECES) + content[at:]
        elif draw.random() < 0.3:
            content = content[:at]
    return content


def changed(values: Any, draw: random.Random) -> Any:
    """JSON with another value somewhere, or one less."""
    positions = []

    def walk(part: Any) -> None:
        for key in part if isinstance(part, dict) else range(len(part)) if isinstance(part, list) else ():
            positions.append((part, key))
            walk(part[key])

    walk(values)
    if not positions:
        return draw.choice(VALUES)
    part, key = draw.choice(positions)
    if draw.random() < 0.2:
        del part[key]
    else:
        part[key] = deepcopy(draw.choice(VALUES))
    return values


# The classes. Each takes a folder and says what did not hold.


class Attacks:
    """What all attacks share: processes, what nothing has spoiled, and weights of runs that were never stopped."""

    def __init__(self, start: Callable, base: Path):
        self.start, self.base = start, base
        self.by_kind = {kind.__name__: list(kind(base)) for kind in BY_KIND}
        self.seconds = dict.fromkeys(RUNS, 2.5)  # of a whole run, about

    def held(self, folder: Path, prepare: Callable[[Path], object], words: tuple[str, ...], codes=(0, 1)) -> list[str]:
        """As those by kind; what is damaged at random may also be harmless."""
        return tried(self.start, Attack("", prepare, words, codes=codes), folder)

    def kills(self, folder: Path, draw: random.Random) -> list[str]:
        """A run is killed up to four times, and goes on to the same weights; what it says of that is true."""
        name, here = draw.choice(list(RUNS)), folder / "here"
        here.mkdir(parents=True)
        for data in ("pictures", "sounds"):
            shutil.copytree(self.base / data, here / data)
        told = [name]
        for _ in range(draw.randint(1, 4)):
            resume = ("--resume",) if (here / "run" / "config.json").exists() else ()
            number = draw.choice((signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP))
            process = self.start(run_here, training(name, "run", *resume), str(here), str(folder / "said"))
            while process.is_alive() and not (folder / "said.begun").exists():
                time.sleep(0.001)
            (folder / "said.begun").unlink(missing_ok=True)
            process.join(draw.random() * self.seconds[name])
            if process.is_alive():
                told.append(number.name)
                os.kill(process.pid, number)
            process.join(60)
            if process.exitcode is None:
                process.kill()
                return [f"{told} was still running after 60 s"]
            said = (folder / "said.err").read_text() if (folder / "said.err").exists() else ""
            if process.exitcode not in (0, -number, 128 + number):
                return [f"{told} ended with {process.exitcode}: {said[-400:]}"]
            if found := [line for line in said.splitlines() if " is saved; add --resume" in line]:
                step = int(found[-1].split("step ")[1].split()[0])
                if not (here / "run" / "checkpoints" / f"step-{step:08d}" / "manifest.json").exists():
                    return [f"{told} said {found[-1]!r}, and there is no such checkpoint"]
            if "Traceback" in said:
                return [f"{told} said {said[-400:]!r}"]
        resume = ("--resume",) if (here / "run" / "config.json").exists() else ()
        said = command(self.start, training(name, "run", *resume), here, folder / "said", 60)
        if said.code != 0:
            return [f"{told} did not go on ({said.code}): {said.err[-400:]}"]
        return [f"{told} differs in {one}" for one in self.differs(name, here / "run")]

    def differs(self, name: str, run: Path) -> list[str]:
        """Which files of a finished run are not those of one that was never stopped."""
        one, other = tree(self.base / name), tree(run)
        files = ("model.safetensors", "metrics.jsonl", "tokenizer.json", "checkpoints/step-00000006/model.safetensors")
        left = [path for path in other if path.rpartition("/")[2].startswith(".")]
        return [path for path in files if one.get(path) != other.get(path)] + left

    def flips(self, folder: Path, draw: random.Random) -> list[str]:
        """A file that a run wrote is damaged, and the run evaluated, asked, or gone on with."""
        name = draw.choice(list(RUNS))
        data = "sounds" if "sounds" in RUNS[name] else "pictures"
        files = [path for path, content in tree(self.base / name).items() if content]
        path, going_on = draw.choice(files), draw.random() < 0.5

        def prepare(here: Path) -> None:
            shutil.copytree(self.base / data, here / data)
            shutil.copytree(self.base / name, here / "run")
            (here / "run" / path).write_bytes(damaged((here / "run" / path).read_bytes(), draw))

        words = training(name, "run", "--resume") if going_on else ("evaluate", "run", "--data", data)
        found = self.held(folder, prepare, words)
        again = going_on and not found and "Next:" in (folder.parent / f"{folder.name}-said.err").read_text()
        if again and path not in ("config.json", "tokenizer.json", "metrics.jsonl"):
            found = [f"went on, and differs in {one}" for one in self.differs(name, folder / "here" / "run")]
        return [f"{name}, {path}: {one}" for one in found]

    def data(self, folder: Path, draw: random.Random) -> list[str]:
        """Captions, COCO, shards, pictures and sounds that are damaged at random."""
        kind = draw.choice(("pictures", "sounds", "coco", "shards"))
        files = [path for path, content in tree(self.base / kind).items() if content]
        texts = [path for path in files if path.endswith((".csv", ".json", ".tar"))]
        form = draw.choice(("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"))
        path = draw.choice(texts if draw.random() < 0.5 else files)

        def prepare(here: Path) -> None:
            shutil.copytree(self.base / kind, here / "data")
            file = here / "data" / path
            if file.suffix == ".png":
                with Image.open(file) as image:
                    image.save(file, form)
            if file.suffix == ".json" and draw.random() < 0.5:
                file.write_text(json.dumps(changed(json.loads(file.read_text()), draw)))
            else:
                file.write_bytes(damaged(file.read_bytes(), draw))

        skip = ("--skip-bad",) if draw.random() < 0.5 else ()
        output = "sheet.png" if draw.random() < 0.2 else "sheet.html"
        found = self.held(folder, prepare, ("data", "show", "data", "--output", output, *skip))
        return [f"{kind}, {path}: {one}" for one in found]

    def configurations(self, folder: Path, draw: random.Random) -> list[str]:
        """A value of a configuration, tokenizer or manifest is another one, and checksums agree."""
        name = draw.choice(list(RUNS))
        data = "sounds" if "sounds" in RUNS[name] else "pictures"
        texts = [path for path in tree(self.base / name) if path.endswith(".json")]
        path = draw.choice(texts)

        def prepare(here: Path) -> None:
            shutil.copytree(self.base / data, here / data)
            shutil.copytree(self.base / name, here / "run")
            file = here / "run" / path
            values = json.loads(file.read_text())
            for _ in range(draw.choice((1, 1, 3))):
                values = changed(values, draw)
            file.write_text(json.dumps(values) if draw.random() < 0.95 else DEEP)
            if file.name == "manifest.json" and draw.random() < 0.9:
                with suppress(
                    KeyError, TypeError, ValueError, AttributeError, OSError, RecursionError
                ):  # else it is unsigned
                    sign(file.parent)

        words = ("evaluate", "run", "--data", data) if draw.random() < 0.5 else training(name, "run", "--resume")
        return [f"{name}, {path}: {one}" for one in self.held(folder, prepare, words)]

    def links(self, folder: Path, draw: random.Random) -> list[str]:
        """Something in a run's folder is a link to what is somebody else's, in a new run and in one that goes on."""
        name, resume = draw.choice(list(RUNS)), draw.choice(((), ("--resume",)))
        more = (".lock", "tensorboard", "left_out.json", f"checkpoints/.writing-{draw.randrange(8):08d}", "a/b/c")
        path, to = draw.choice((*tree(self.base / name), *more)), draw.choice(("a file", "a folder", "nothing"))

        def prepare(here: Path) -> None:
            for data in ("pictures", "sounds"):
                shutil.copytree(self.base / data, here / data)
            if resume:
                shutil.copytree(self.base / name, here / "run")
            of_surroundings.linked(path, to, "run")(here)

        found = self.held(folder, prepare, training(name, "run", *resume), codes=(1,))
        return [f"{name} {' '.join(resume)}, {path} is {to}: {one}" for one in found]

    def moves(self, folder: Path, draw: random.Random) -> list[str]:
        """A run's folder goes at a random moment: what is said of its weights is true, and no other is touched."""
        name, here = draw.choice(list(RUNS)), folder / "here"
        does = draw.choice((of_surroundings.removed, of_surroundings.moved_away, of_surroundings.replaced))
        here.mkdir(parents=True)
        for data in ("pictures", "sounds"):
            shutil.copytree(self.base / data, here / data)
        process = self.start(run_here, training(name, "run"), str(here), str(folder / "said"))
        while process.is_alive() and not (here / "run" / "metrics.jsonl").exists():
            time.sleep(0.001)
        process.join(draw.random() * self.seconds[name] / 3)
        running = process.is_alive()
        with suppress(OSError):  # of a folder that is written meanwhile
            does(here / "run")
        process.join(60)
        if process.exitcode is None:
            process.kill()
        said, told = (folder / "said.err").read_text(), f"{name}, {does.__name__}"
        found = [] if process.exitcode in (0, 1) else [f"ended with {process.exitcode}"]
        if "Traceback" in said or "not foreseen" in said or not (running or process.exitcode == 0):
            found.append("told what was not foreseen")
        if (place := re.search(r"after step \d+ are in (\S+)\. Put", said)) and not (here / place[1]).is_file():
            found.append("did not save the weights where it says")
        if does is of_surroundings.replaced and (here / "elsewhere").exists():
            kept = here / "run" / "config.json"
            if kept.exists() and kept.read_text() != of_surroundings.PRECIOUS:
                found.append("wrote over what took the folder's place")
        return [f"{told}: {one}; said {said[-400:]!r}" for one in found]

    def surroundings(self, folder: Path, draw: random.Random) -> list[str]:
        """Damaged files of a user, and streams and homes that are not as they should be, all at once."""
        first = draw.choice((None, *of_surroundings.ODD))
        words = draw.choice((*((*("exercises", word, "info_nce"),) for word in ("hint", "reset")), ("exercises",)))

        def prepare(here: Path) -> None:
            (here / ".mmlearn").mkdir()
            for name, whole in (
                ("progress.json", ["07_contrastive/info_nce"]),
                ("hints.json", {"07_contrastive/info_nce": 1}),
            ):
                text = draw.choice((DEEP, '{"a":' * 100_000, json.dumps(changed(deepcopy(whole), draw))))
                content = text.encode("utf-8", "surrogatepass")
                (here / ".mmlearn" / name).write_bytes(damaged(content, draw) if draw.random() < 0.5 else content)

        found = tried(self.start, Attack("", prepare, words, codes=(0,), first=first), folder)
        return [f"{' '.join(words)}, {first}: {one}" for one in found]


def one_attack(attacks: Attacks, seed: int, number: int, folder: Path) -> tuple[str, list[str]]:
    """Number ``number`` of this seed: its class, and what did not hold."""
    draw = random.Random(f"{seed} {number}")
    kind = draw.choice(("kills", "flips", "data", "configurations", "links", "moves", "surroundings", "by kind"))
    if kind != "by kind":
        return f"{kind} at random", getattr(attacks, kind)(folder, draw)
    name = draw.choice(list(attacks.by_kind))
    attack = draw.choice(attacks.by_kind[name])
    return f"by kind: {name.replace('_', ' ')}", [
        f"{attack.name}: {one}" for one in tried(attacks.start, attack, folder)
    ]


def main() -> int:
    """Attack until the time is over. 0 where all held, else 1."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="the number of one attack, to see it again")
    asked = parser.parse_args()
    tries, failures = Counter(), Counter()
    with tempfile.TemporaryDirectory() as position, processes() as start:
        write_runs(start, Path(position) / "base")
        attacks = Attacks(start, Path(position) / "base")
        number, told, end = asked.only or 0, time.monotonic(), time.monotonic() + 60 * asked.minutes
        while time.monotonic() < end:
            folder = Path(position) / str(number)
            name, found = one_attack(attacks, asked.seed, number, folder)
            tries[name] += 1
            if found:
                failures[name] += 1
                again = f"make attack OPTIONS='--seed {asked.seed} --only {number}'"
                print(f"\nnot held, {name}: {'; '.join(found)}\n  again: {again}", flush=True)
            shutil.rmtree(folder, ignore_errors=True)
            if asked.only is not None:
                break
            number += 1
            if time.monotonic() > told + 20:
                told = time.monotonic()
                print(f"{sum(tries.values())} tried", file=sys.stderr, flush=True)
    print(f"\nseed {asked.seed}, {asked.minutes:g} minutes\n{'attacks':32} {'tried':>6} {'held':>6}")
    for name in sorted(tries):
        print(f"{name:32} {tries[name]:6} {tries[name] - failures[name]:6}")
    print(f"{'all':32} {sum(tries.values()):6} {sum(tries.values()) - sum(failures.values()):6}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
