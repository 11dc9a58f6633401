"""Stopping a training from outside: the step that runs is finished, and saved, before it ends.

Ctrl-C (SIGINT), SIGTERM, which schedulers send before they kill, and SIGHUP, of a terminal that is closed, ask for it.
Asked again, a training stops at once and loses what came after its newest checkpoint.
"""

import re
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from mmlearn.objectives.all_gather import is_distributed

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(KeyboardInterrupt):
    """A training ended after ``step``, because the signal ``number`` asked for it."""

    def __init__(self, number: int, step: int):
        super().__init__(f"{signal.Signals(number).name} stopped the training after step {step}")
        self.number, self.step = number, step


@contextmanager
def asked_to_stop() -> Iterator[Callable[[], int]]:
    """Within this block signals do not interrupt, and the function that is given says which has come; 0 for none.

    A second one does what it did before, unless there are several processes: whoever started them passes signals on to
    each, so that the same one comes twice. A signal that was ignored, as under ``nohup``, still is. Outside of the main
    thread, to which Python gives signals, nothing is changed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: 0
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}
    before = {number: does for number, does in before.items() if does not in (signal.SIG_IGN, None)}
    come: list[int] = []

    def keep(number: int, frame: Any) -> None:
        come.append(number)
        if not is_distributed():
            restore()

    def restore() -> None:
        for number, does in before.items():
            signal.signal(number, does)

    for number in before:
        signal.signal(number, keep)
    try:
        yield lambda: come[0] if come else 0
    finally:
        restore()


def leave_stopping_to_others(*_: Any) -> None:
    """For a process that prepares batches: Ctrl-C reaches it as well, and would end it in the middle of a step."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def told_of_lost_workers(workers: int) -> Iterator[None]:
    """Within this block a ``ChildProcessError`` says in one line that a process that prepares batches has gone."""
    try:
        yield
    except RuntimeError as error:
        if not re.search(r"DataLoader worker .* (exited unexpectedly|is killed)", str(error)):
            raise
        raise ChildProcessError(
            f"One of the {workers} processes that prepare batches was killed, perhaps for want of memory: go on with "
            "resume, and with fewer workers."
        ) from error
