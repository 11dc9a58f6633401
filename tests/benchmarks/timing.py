"""Implementations side by side: each in a process of its own, with its own memory, and asked for a step in turn.

So a machine that slows down slows all of them, and none finds the memory that another has left behind. All keep freed
memory for the next step: else chance decides which of them has to ask the system for it anew, and that is up to a
fifth of a small step.
"""

import contextlib
import ctypes
import multiprocessing
import resource
import statistics
import time
from pathlib import Path

import torch

from mmlearn.evaluation.cost import count_flops

STARTS = 3  # of the processes of each comparison
ROUNDS_BEFORE = 2  # that do not count
OURS = "mmlearn", "no cache"  # of what is compared; all else is somebody else's
PAUSE = 0.02  # seconds before a step, in which threads that spun after the last one, another's, go to sleep


def _peak_mib():
    """The most memory that this process has held, in MiB."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would tell what the parent held when it started this process, if that is more
        return next(int(line.split()[1]) / 1024 for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # macOS, in bytes


def _keep_freed_memory():
    """Of glibc: no block is too large for the heap, up to 32 MiB, and its free end is never given back."""
    with contextlib.suppress(AttributeError, OSError):  # another system
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(-3, 32 * 2**20)  # M_MMAP_THRESHOLD
        libc.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD


def training_step(model, loss):
    """A function that takes a step of AdamW."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, fused=True)

    def step():
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()

    return step


def writing_step(model, write):
    """A function that writes texts."""
    model.eval()
    return torch.no_grad()(write)


def _serve(build, arguments, pipe, make_step, ours):
    """Build, take four steps to see what they need, then a step each time that a number of threads is asked for."""
    _keep_freed_memory()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model, call = build(*arguments)
    step = make_step(model, call)
    before = _peak_mib()
    for _ in range(3):
        step()
    peak = _peak_mib() - before
    flops = count_flops(step)
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    pipe.send((trained, peak, flops / 1e9))
    while threads := pipe.recv():
        torch.set_num_threads(threads)
        started = time.perf_counter()
        step()
        pipe.send(time.perf_counter() - started)


def compare(builds, rounds, threads=(1, 2), make_step=training_step, starts=STARTS):
    """Of each implementation: parameters, MiB that steps add to the process, GFLOP a step, seconds by threads.

    GFLOP are those of matrix products, convolutions and attention, forward and backward.

    ``builds`` has for each name a function at the top of a module, which returns a model and a function that computes
    its loss, and that function's arguments; ``make_step`` turns both into a step. All is done ``starts`` times, for
    where a process finds its memory makes all its steps a few per cent faster or slower: seconds are one number a
    start, the median over ``rounds`` steps, and MiB the median over starts.
    """
    starts = [_compare_once(builds, rounds, threads, make_step) for _ in range(starts)]
    results = {}
    for name in builds:
        runs = [start[name] for start in starts]
        peak = statistics.median(run["peak_mib"] for run in runs)
        seconds = {count: [run["seconds"][count] for run in runs] for count in threads}
        results[name] = runs[0] | {"peak_mib": round(peak), "seconds": seconds}
    return results


def ratio(times, others):
    """How many times as long as others: the median over starts, in each of which both took turns."""
    return round(statistics.median(time / other for time, other in zip(times, others, strict=True)), 3)


def _compare_once(builds, rounds, threads, make_step):
    context = multiprocessing.get_context("spawn")
    pipes, processes, results = {}, [], {}
    for name, (build, *arguments) in builds.items():
        pipes[name], other = context.Pipe()
        processes.append(
            context.Process(target=_serve, args=(build, arguments, other, make_step, name in OURS), daemon=True)
        )
        processes[-1].start()
        other.close()  # so that a process that dies ends the wait below
        parameters, peak, gflop = pipes[name].recv()
        results[name] = {"parameters": parameters, "peak_mib": peak, "gflop": round(gflop, 2), "seconds": {}}
    for count in threads:
        times = {name: [] for name in builds}
        for _ in range(ROUNDS_BEFORE + rounds):
            for name, pipe in pipes.items():
                time.sleep(PAUSE)
                pipe.send(count)
                times[name].append(pipe.recv())
        for name, values in times.items():
            results[name]["seconds"][count] = statistics.median(values[ROUNDS_BEFORE:])
    for pipe, process in zip(pipes.values(), processes):
        pipe.send(0)
        process.join()
    return results


def matrix_rate(threads):
    """GFLOP/s of this machine's own large matrix product."""
    torch.set_num_threads(threads)
    a = torch.randn(1024, 1024)
    for _ in range(3):
        a @ a
    rates = []
    for _ in range(7):
        started = time.perf_counter()
        for _ in range(5):
            a @ a
        rates.append(5 * 2 * 1024**3 / (time.perf_counter() - started) / 1e9)
    return statistics.median(rates)
