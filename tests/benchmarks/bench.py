"""Step time beside Transformers on this CPU: ``make bench`` prints a table and keeps it in ``results/step_time.json``.

Seven systems, and one of them as it writes with a cache, at two sizes, on one thread and on two; ``bench.py clip bert``
measures these alone, and keeps nothing.
Both sides have the same shape, weights, batch, loss and optimiser (``twins.py``). Each is in a process of its own and
they take steps in turn, so that a machine that slows down slows both. A ratio is our time over theirs, of the medians
of a start; what counts is the median over starts, because where a process finds its memory makes all its steps a few
per cent faster or slower. ``BOUND`` is aimed at and marked where it is missed; nothing is asserted.
"""

import json
import multiprocessing
import os
import platform
import statistics
import sys
import time
from pathlib import Path

import torch
from twins import SIZES, SMALL, build

RECORD = Path(__file__).parent / "results" / "step_time.json"
BOUND = 1.05
SIDES = "mmlearn", "Transformers"
THREADS = 1, 2
STARTS, BEFORE, ROUNDS = 3, 2, 7  # of the processes; steps that do not count, and that do
PAUSE = 0.02  # seconds before a step, in which threads of the other process go to sleep
# Freed memory is kept for the next step: else chance decides who has to ask the system for it anew.
KEEP = {"MALLOC_MMAP_THRESHOLD_": str(32 * 2**20), "MALLOC_TRIM_THRESHOLD_": str(2**31 - 1)}


def serve(side, pipe):
    """Build each system that is asked for, by its name and size, then take a step for each number of threads."""
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    while request := pipe.recv():
        if isinstance(request, tuple):
            name, size = request
            torch.set_num_threads(1)
            model, batch = build(SMALL[name], size)[side], SMALL[name].given(size, size["batch"])
            optimizer = torch.optim.AdamW(model.train().parameters(), lr=1e-4, fused=True)
            pipe.send(None)
            continue
        torch.set_num_threads(request)
        started = time.perf_counter()
        if SMALL[name].writes:
            model.eval()(batch)
        else:
            optimizer.zero_grad()
            model(batch).backward()
            optimizer.step()
        pipe.send(time.perf_counter() - started)


def start(names):
    """Median seconds of a step of each side, by size, system and threads; new processes."""
    context, pipes, processes, found = multiprocessing.get_context("spawn"), {}, [], {}
    for side in SIDES:
        pipes[side], other = context.Pipe()
        processes.append(context.Process(target=serve, args=(side, other), daemon=True))
        processes[-1].start()
        other.close()  # so that a process that dies ends the wait below
    for label, size in SIZES.items():
        for name in names:
            for pipe in pipes.values():
                pipe.send((name, size))
                pipe.recv()
            for threads in THREADS:
                found[label, name, threads] = in_turn(pipes, threads)
                print(".", end="", file=sys.stderr, flush=True)
    for pipe, process in zip(pipes.values(), processes):
        pipe.send(None)
        process.join()
    return found


def in_turn(pipes, threads):
    times = {side: [] for side in SIDES}
    for _ in range(BEFORE + ROUNDS):
        for side, pipe in pipes.items():
            time.sleep(PAUSE)
            pipe.send(threads)
            times[side].append(pipe.recv())
    return [statistics.median(times[side][BEFORE:]) for side in SIDES]


def rows(starts):
    """One for each size, system and number of threads."""
    for label, name, threads in starts[0]:
        seconds = [found[label, name, threads] for found in starts]
        ratios = [round(ours / theirs, 3) for ours, theirs in seconds]
        ours, theirs = (round(1e3 * statistics.median(side), 1) for side in zip(*seconds))
        yield {
            "size": label,
            "system": SMALL[name].system,
            "threads": threads,
            "step_ms": ours,
            "twin_step_ms": theirs,
            "ratio": statistics.median(ratios),
            "ratio_of_each_start": ratios,
        } | tokens_a_second(name, label, ours, theirs)


def tokens_a_second(name, label, *milliseconds):
    """Of ours and of theirs, where a system writes."""
    if not SMALL[name].writes:
        return {}
    size = SIZES[label]
    count = size["batch"] * (size["length"] - size["length"] // 4 - 1)
    return dict(zip(("tokens_a_second", "twin_tokens_a_second"), (round(1e3 * count / each) for each in milliseconds)))


def main(*names):
    if unknown := [name for name in names if name not in SMALL]:
        return f"There is no system {unknown[0]!r}; there are {', '.join(SMALL)}."
    os.environ.update(KEEP, HF_HUB_OFFLINE="1")
    found = list(rows([start(names or tuple(SMALL)) for _ in range(STARTS)]))
    print(file=sys.stderr)
    for row in found:
        what = f"{row['size']:18}  {row['threads']} thread(s)  {row['system']:14}"
        times = f"{row['step_ms']:7.1f} ms, {row['twin_step_ms']:7.1f} ms of Transformers: {row['ratio']:.3f}"
        rate = f", {row['tokens_a_second']:,} tokens a second" if "tokens_a_second" in row else ""
        print(f"{what} {times}{'!' if row['ratio'] > BOUND else ''}{rate}")
    if not names:
        machine = f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"
        record = {"machine": machine, "torch": torch.__version__, "bound": BOUND, "steps": found}
        RECORD.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
