"""Bars of training: in the notebook or terminal that trains or, where a chapter is run as a whole, in its terminal."""

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any

from tqdm import tqdm as plain_bar
from tqdm.auto import tqdm

from mmlearn.files import ProgressStream

VARIABLE = "MMLEARN_PROGRESS"  # names the file through which a chapter's process tells how far its cell is
# Between two looks. A notebook that trains for minutes and draws oftener is flooded with messages, and some are lost.
SECONDS = 0.5


@contextmanager
def training_bar(*, disable: bool = False, **settings: Any) -> Iterator[plain_bar]:
    """A tqdm bar with these settings; where somebody watches from another process, it is drawn into their file."""
    path = os.environ.get(VARIABLE)
    if path is None or disable:
        with tqdm(disable=disable, mininterval=SECONDS, **settings) as bar:
            yield bar
    else:
        settings |= {"mininterval": SECONDS}
        with (
            closing(ProgressStream(open(path, "w", encoding="utf-8"))) as file,
            plain_bar(file=file, **settings) as bar,
        ):
            yield bar


@contextmanager
def shown_while_it_trains(path: Path) -> Iterator[None]:
    """Within this block, the newest state of a bar that another process draws into ``path`` stands on stderr."""
    over = Event()
    watch = Thread(target=_watch, args=(path, over), daemon=True)
    watch.start()
    try:
        yield
    finally:
        over.set()
        watch.join()
        path.unlink(missing_ok=True)


def _watch(path: Path, over: Event) -> None:
    with plain_bar(total=0, bar_format="  {desc}", position=1, leave=False) as line:
        while not over.wait(SECONDS):
            if path.exists():
                line.set_description_str(newest_state(path.read_text(encoding="utf-8", errors="replace")))


def newest_state(drawn: str) -> str:
    """The last state of a bar out of all that it has drawn, one over the other. Empty once it is done."""
    state = drawn.rpartition("\r")[2]
    return "" if state.endswith("\n") else state.strip()
