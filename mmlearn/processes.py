"""The same work in several processes of this machine, which form a group: to learn and to test on, without a GPU."""

import inspect
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

RUN = "import sys; from mmlearn.processes import _process; _process(*sys.argv[1:])"


def in_processes(
    work: Callable[..., Any],
    world: int,
    *inputs: Any,
    timeout: float = 120.0,
    environment: Mapping[str, str] | None = None,
) -> list[Any]:
    """What ``work(rank, world, *inputs)`` returns in each of ``world`` processes, which can talk by ``gloo``.

    A process imports its code anew. So ``work`` is a function of a file, or one of a notebook that imports within it
    all that it needs. Each process computes on one thread; ``environment`` is added to its own. They meet in a file, so
    that no port can be taken. Raises ``ValueError`` for fewer than one process, and ``RuntimeError`` where one fails or
    ``timeout`` seconds are over; then the others are ended.
    """
    if world < 1:
        raise ValueError(f"There is at least one process, got {world}.")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "work.py").write_text(_source(work), encoding="utf-8")
        torch.save((work.__name__, world, inputs, timeout), folder / "inputs.pt")
        package = str(Path(__file__).parents[1])
        paths = os.pathsep.join([package, *filter(None, sys.path)])
        own = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"} | dict(environment or {})
        running = []
        for rank in range(world):
            with (folder / f"{rank}.log").open("w") as log:
                command = [sys.executable, "-c", RUN, name, str(rank)]
                running.append(subprocess.Popen(command, env=own, stdout=log, stderr=log, stdin=subprocess.DEVNULL))
        try:
            _wait(running, folder, timeout)
        finally:
            for process in running:
                process.kill()
                process.wait()
        return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(world)]


def _source(work: Callable) -> str:
    """A file in which a process finds ``work``."""
    if work.__module__ == "__main__":
        return inspect.cleandoc("\n" + inspect.getsource(work)) + "\n"
    return f"from {work.__module__} import {work.__qualname__}\n"


def _wait(running: list[subprocess.Popen], folder: Path, timeout: float) -> None:
    """Until all have ended well."""
    end = time.monotonic() + timeout
    while any(process.poll() is None for process in running):
        failed = [rank for rank, process in enumerate(running) if process.poll()]
        if failed or time.monotonic() > end:
            break
        time.sleep(0.02)
    for rank, process in enumerate(running):
        if process.poll():
            log = (folder / f"{rank}.log").read_text(errors="replace").strip().splitlines()
            raise RuntimeError(f"Process {rank} of {len(running)} failed: {log[-1] if log else 'it said nothing'}")
    if any(process.poll() is None for process in running):
        raise RuntimeError(f"After {timeout:g} seconds not all of the {len(running)} processes had ended.")


def _process(name: str, number: str) -> None:
    """What one process does: join the group, work, and leave what it found."""
    folder, rank = Path(name), int(number)
    sys.path.insert(0, name)
    function, world, inputs, timeout = torch.load(folder / "inputs.pt", weights_only=False)
    torch.set_num_threads(1)
    work = getattr(__import__("work"), function)
    meeting = f"file://{folder}/meeting"
    dist.init_process_group("gloo", meeting, timedelta(seconds=timeout), world, rank)
    found = work(rank, world, *inputs)
    dist.destroy_process_group()
    torch.save(found, folder / f"{rank}.pt")
