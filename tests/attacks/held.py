"""What an attack is, and what it means that the library held.

An attack is a command in a folder that somebody prepared. It runs in a process of its own, forked from one that has
everything imported, with little memory and a limit of time, so that a hang or a kill is a failure like any other.
"""

import multiprocessing
import os
import re
import resource
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

SECONDS = 40  # a guard against hangs on a slow machine; nothing needs a tenth of it
MEMORY = 3 * 2**29  # bytes that a command may map beyond what all have mapped: 1.5 GiB
LINE = 1000  # letters


class Attack(NamedTuple):
    """``prepare`` spoils a fresh folder; then ``mmlearn *words`` runs there, and must end as is said here."""

    name: str
    prepare: Callable[[Path], object]
    words: tuple[str, ...]
    says: str = ""  # a regular expression that its line must have: it is refused for this reason, and for no other
    codes: tuple[int, ...] = (1,)
    first: Callable[[], object] | None = None  # done in the command's own process before it, there in the folder
    changes: bool = False  # a refused command may leave other files than it found
    silent: bool = False  # nothing can be told
    then: Callable[[Path], str | None] | None = None  # what is wrong with the folder afterwards


class Said(NamedTuple):
    """How a command ended: ``code`` is None for one that was still running, and below 0 for one that was killed."""

    code: int | None
    out: str
    err: str


def run_here(words: tuple[str, ...], here: str, out: str, first: Callable[[], object] | None = None) -> None:
    """In a forked process: the command, in this folder, with its streams in files beside ``out``."""
    from mmlearn import cli

    os.chdir(here)
    os.environ |= {"HOME": here, "TMPDIR": here}
    for descriptor, name in ((1, "out"), (2, "err")):
        with open(f"{out}.{name}", "wb") as file:
            os.dup2(file.fileno(), descriptor)
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + MEMORY, mapped + MEMORY))
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which shells ignore in the background
    sys.argv = ["mmlearn", *words]
    if first:
        first()
    Path(f"{out}.begun").touch()
    try:
        cli.main()
    except KeyboardInterrupt:  # before the command looks for one
        os._exit(128 + signal.SIGINT)
    except SystemExit as done:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(done.code or 0)


@contextmanager
def processes() -> Iterator[Callable]:
    """A function that starts ``(work, *arguments)`` in a process that has everything imported already."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), *([before] if before else [])])
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["imported"])

    def start(work: Callable, *arguments: object) -> multiprocessing.Process:
        process = context.Process(target=work, args=arguments)
        process.start()
        return process

    try:
        yield start
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


def command(
    start: Callable,
    words: tuple[str, ...],
    here: Path,
    out: Path,
    seconds: float = SECONDS,
    first: Callable[[], object] | None = None,
) -> Said:
    """Run ``mmlearn *words`` in this folder."""
    process = start(run_here, tuple(map(str, words)), str(here), str(out), first)
    process.join(seconds)
    code = process.exitcode
    if code is None:
        process.kill()
        process.join()
    texts = [Path(f"{out}.{name}") for name in ("out", "err")]
    return Said(code, *(text.read_bytes().decode(errors="replace") if text.exists() else "" for text in texts))


def tree(folder: Path) -> dict[str, bytes | None]:
    """All that lies in a folder, byte for byte; links and pipes are not followed."""
    found = {}
    for path in sorted(folder.rglob("*")):
        plain = path.is_file() and not path.is_symlink()
        found[str(path.relative_to(folder))] = path.read_bytes() if plain else None
    return found


def problems(attack: Attack, said: Said, before: dict, after: dict) -> list[str]:
    """Why the library did not hold; nothing where it did.

    It held if it ended in time with the right code, told an error in one line that was meant for it, printed nothing
    that a terminal would obey, and left all files as they were.
    """
    if said.code is None:
        return ["was still running when its time was over"]
    found = [] if said.code in attack.codes else [f"ended with {said.code} instead of {attack.codes}"]
    lines = re.split(r"[\r\n]+", said.err.strip())
    if not all(line.isprintable() for line in lines + said.out.split("\n")):
        found.append("printed control characters")
    if max(map(len, lines)) > LINE + len("mmlearn: "):
        found.append("printed a line that is too long")
    if re.search(r"Traceback|was not foreseen|\[Errno", said.err):
        found.append("told an error that was not foreseen")
    if said.code and not attack.silent and not lines[-1].startswith("mmlearn: "):
        found.append("did not tell an error in a line of its own")
    if said.code and not re.search(attack.says, lines[-1]):
        found.append(f"did not say {attack.says!r}")
    if said.code and after != before and not attack.changes:
        changed = sorted(name for name in before.keys() | after.keys() if before.get(name, 0) != after.get(name, 0))
        found.append(f"changed {', '.join(changed)}"[:200])
    return [*found, f"said {lines[-1][:400]!r}"] if found else []


def tried(start: Callable, attack: Attack, folder: Path, seconds: float = SECONDS) -> list[str]:
    """Prepare and run an attack in an empty ``folder``: the problems."""
    here = folder / "here"
    here.mkdir(parents=True)
    (folder / "secret.png").write_bytes(b"of somebody else")
    attack.prepare(here)
    before = tree(folder)
    said = command(start, attack.words, here, folder.parent / f"{folder.name}-said", seconds, attack.first)
    found = problems(attack, said, before, tree(folder))
    if not found and attack.then and (wrong := attack.then(here)):
        found = [wrong, f"said {said.err[-400:]!r}"]
    return found
