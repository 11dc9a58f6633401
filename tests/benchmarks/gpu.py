"""How fast GPUs train, beside others: ``make bench-gpu`` prints the table and keeps it in ``results/gpu.json``.

CLIP is beside open_clip, BLIP and wav2vec 2.0 beside Transformers, of equal shape, weights, batch and loss
(``twins.py``), in bf16, compiled and not, on one card and on all of them. Both sides are in one process, so that
they share a card's memory, and take turns; CUDA events measure several steps at once, because training does not wait
after each. All is done three times, in processes of their own. ``gpu.py clip-b16`` measures one case and leaves the
others in the record. ``gpu.py --shrink`` goes the same way at a small size, on a CPU too, and records nothing.

FLOPs are those that a step of each side takes, counted as :func:`mmlearn.evaluation.cost.count_flops` does. Utilisation
is their share of what the card's data sheet has for bf16.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from fractions import Fraction
from functools import partial
from math import prod
from pathlib import Path

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from twins import CASES, Loss, build, trained

from mmlearn.evaluation.cost import count_flops
from mmlearn.suggestions import suggest
from mmlearn.training.plan import DEVICES, card_named

RESULT = Path(__file__).parent / "results" / "gpu.json"
GOAL = {"system": "CLIP ViT-B/16", "card": "h100", "utilisation": 0.5, "ratio": 1.2}
STARTS = 3
WARM_UP = 3  # steps of each way before anything is measured
MODES = ("eager", "compiled")
FULL = dict(steps=5, rounds=5, before=1)  # steps a turn, turns that count, turns before
SHRUNK = dict(steps=2, rounds=1, before=0)
COUNTED = 4, 8, 16  # batches for which FLOPs are counted; they are a polynomial of the batch
GIB = 2**30


# The process that measures, one for each card.


def work(name, batch, shrink, output):
    """Measure a case on this process's card; the first process writes what was found to ``output``."""
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    world, rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("LOCAL_RANK", 0))
    device = torch.device("cuda", rank) if torch.cuda.device_count() >= world else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)  # where events and barriers of this process are
    if world > 1:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        found = measure(CASES[name], batch, device, world, shrink)
    except torch.OutOfMemoryError:
        output.write_text(json.dumps({"out of memory": True}))
        raise
    if rank == 0:
        output.write_text(json.dumps(found))
    if world > 1:
        dist.destroy_process_group()


def measure(case, batch, device, world, shrink):
    """Of each side: parameters, FLOPs of a step, its loss at equal weights; of each way of it, seconds and memory."""
    size = case.size | case.shrunk if shrink else case.size
    sides, given = build(case, size), case.given(size, batch)
    given = {name: value.to(device) for name, value in given.items()}
    found, ways = {}, {}
    for name, side in sides.items():
        side.to(device).train()
        found[name] = {
            "parameters": trained(side),
            "flops": flops(case, size, side, batch, device),
            "loss": loss_in_bf16(side, given, device),
            "failed": {},
        }
    losses = [found[name]["loss"] for name in sides]
    assert abs(losses[0] - losses[1]) <= 0.02 * abs(losses[1]), f"{case.system}: losses in bf16 are {losses}"
    for name, side in sides.items():
        optimizer = torch.optim.AdamW(side.parameters(), lr=1e-4, fused=True)
        found[name]["peak"] = {}
        for mode in MODES:
            try:
                step = training_step(name, side, optimizer, given, mode, device, world, shrink)
                for _ in range(WARM_UP):
                    step()
                found[name]["peak"][mode] = peak(step, side, optimizer, given, device, world)
                ways[name, mode] = step
            except torch.OutOfMemoryError:
                raise
            except Exception as error:  # what one way cannot do, the others still can
                if mode == "eager":
                    raise
                found[name]["failed"][mode] = " ".join(f"{type(error).__name__}: {error}".split())[:200]
    for (name, mode), seconds in in_turn(ways, device, world, **SHRUNK if shrink else FULL).items():
        found[name].setdefault("seconds", {})[mode] = seconds
    return found


def flops(case, size, side, batch, device):
    """Of a step of this side, forward and backward: the polynomial in the batch through a few small ones."""
    points = {}
    for count in COUNTED:
        few = {name: value.to(device) for name, value in case.given(size, count).items()}
        points[count] = count_flops(lambda few=few: side(few).backward())
        side.zero_grad()
    parts = {x: prod(Fraction(batch - y, x - y) for y in points if y != x) for x in points}
    return float(sum(parts[x] * found for x, found in points.items()))


def loss_in_bf16(side, given, device):
    torch.manual_seed(0)
    with torch.no_grad(), torch.autocast(device.type, torch.bfloat16):
        return float(side(given))


def training_step(name, side, optimizer, given, mode, device, world, shrink):
    """A function that takes a step of AdamW, in bf16 as trainings have it: weights and their updates in float32."""
    loss = side
    if mode == "compiled":
        compiled = partial(torch.compile, backend="eager" if shrink else "inductor")  # shrunk, only graphs are traced
        # Ours with its loss, as our trainer does; theirs without, as open_clip's does, whose loss cannot be compiled.
        loss = compiled(side) if name == "mmlearn" else Loss(compiled(side.model), side.loss)
    if world > 1:  # as our trainer wraps it
        loss = DistributedDataParallel(loss, find_unused_parameters=True)

    def step():
        optimizer.zero_grad()
        with torch.autocast(device.type, torch.bfloat16):
            value = loss(given)
        value.backward()
        optimizer.step()

    return step


def peak(step, side, optimizer, given, device, world):
    """The most bytes that training needs: what it holds all the time, and what a step adds. None on a CPU."""
    if device.type != "cuda":
        return None
    optimizer.zero_grad()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    step()
    return held(side, optimizer, given, world) + torch.cuda.max_memory_allocated() - before


def held(side, optimizer, given, world):
    """Bytes of weights, optimiser and batch, each tensor once, and of the buckets in which processes add gradients."""
    state = [value for values in optimizer.state.values() for value in values.values()]
    tensors = [*side.parameters(), *side.buffers(), *given.values(), *filter(torch.is_tensor, state)]
    buckets = sum(parameter.nbytes for parameter in side.parameters() if parameter.requires_grad) if world > 1 else 0
    return sum(tensor.nbytes for tensor in tensors) + buckets


def in_turn(ways, device, world, *, before, rounds, steps):
    """Seconds of a step of each, the median over rounds; where there are several cards, those of the slowest."""
    times = {name: [] for name in ways}
    for _ in range(before + rounds):
        for name, step in ways.items():
            if world > 1:
                dist.barrier()
            seconds = torch.tensor(timed(step, device, steps), device=device)
            if world > 1:
                dist.all_reduce(seconds, dist.ReduceOp.MAX)
            times[name].append(float(seconds))
    return {name: statistics.median(values[before:]) for name, values in times.items()}


def timed(step, device, steps):
    """Seconds of a step, of several one after the other."""
    if device.type != "cuda":
        started = time.perf_counter()
        for _ in range(steps):
            step()
        return (time.perf_counter() - started) / steps
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(steps):
        step()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1000 / steps


# The process that starts them, and keeps what they find.


class OutOfMemory(Exception):
    """The batch does not fit."""


def start(name, batch, cards, shrink):
    """Measure once, on so many cards, in new processes."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "found.json"
        several = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(cards)] if cards > 1 else []
        command = [sys.executable, *several, __file__, name, "--work", str(output), "--batch", str(batch)]
        done = subprocess.run([*command, "--shrink"] if shrink else command, capture_output=True, text=True)
        found = json.loads(output.read_text()) if output.is_file() else {}
        if "out of memory" in found:
            raise OutOfMemory
        if done.returncode or not found:
            sys.stderr.write(done.stderr)
            raise SystemExit(f"{name} on {cards} card(s) failed; above it says why.")
        return found


def run_case(name, cards, starts, shrink, card):
    """The rows of a case on so many cards, at the largest batch that fits."""
    batch = 16 if shrink else CASES[name].batch
    while True:
        try:
            found = [start(name, batch, cards, shrink) for _ in range(starts)]
            return rows(CASES[name], batch, cards, found, card)
        except OutOfMemory:
            if batch <= 8:
                raise SystemExit(f"{name} does not fit this card even in batches of {batch}.") from None
            print(f"{name}: batches of {batch} do not fit; next {batch // 2}", flush=True)
            batch //= 2


def rows(case, batch, cards, found, card):
    """One row for each side and mode. ``card`` is a name of ``DEVICES``, or None where its peak is not known."""
    result = []
    for mode in MODES:
        for side in ("mmlearn", case.beside):
            first = found[0][side]
            row = {
                "system": case.system,
                "implementation": side,
                "mode": mode,
                "cards": cards,
                "batch": batch,  # of each card
                "parameters": first["parameters"],
                "gflop_a_sample": round(first["flops"] / batch / 1e9, 2),
                "loss": round(first["loss"], 4),
            }
            failures = [start[side]["failed"][mode] for start in found if mode in start[side]["failed"]]
            result.append(row | ({"failed": failures[0]} if failures else speed(row, case.beside, found, card)))
    return result


def speed(row, beside, found, card):
    """What was measured of a row: numbers of each start, and their median."""
    mode = row["mode"]
    seconds = [start[row["implementation"]]["seconds"][mode] for start in found]
    rates = [row["batch"] * row["cards"] / value for value in seconds]
    measured = {"samples_per_second": round(statistics.median(rates), 1), "of_each_start": [round(r, 1) for r in rates]}
    if card:
        work = found[0][row["implementation"]]["flops"]
        peak_rate = DEVICES[card].flops["bf16"]
        measured["utilisation"] = round(work / statistics.median(seconds) / peak_rate, 3)
    bytes_held = found[0][row["implementation"]]["peak"][mode]
    if bytes_held is not None:
        measured["peak_gib"] = round(bytes_held / GIB, 1)
    if row["implementation"] == "mmlearn" and all(mode in start[beside]["seconds"] for start in found):
        ratios = [start[beside]["seconds"][mode] / own for start, own in zip(found, seconds)]
        measured["ratio"] = round(statistics.median(ratios), 3)  # times as many samples as the twin
    return measured


def print_rows(rows):
    """One line a row."""
    for row in rows:
        shown = f"{row['system']:26} {row['cards']} card(s)  {row['mode']:8}  {row['implementation']:12}"
        if "failed" in row:
            print(shown, f"failed: {row['failed']}", flush=True)
            continue
        memory = f"{row['peak_gib']:5.1f} GiB" if "peak_gib" in row else ""
        share = f"{row['utilisation']:5.1%} of the peak" if "utilisation" in row else ""
        ratio = f"{row['ratio']:.2f} × the other" if "ratio" in row else ""
        print(shown, f"{row['samples_per_second']:10,.1f} samples a second ", share, memory, ratio, flush=True)


def keep(record, new):
    """The record with these rows, in place of older ones of the same system and cards."""
    done = {(row["system"], row["cards"]) for row in new}
    steps = [row for row in record.get("steps", []) if (row["system"], row["cards"]) not in done]
    return record | {"steps": steps + new}


def main():
    options = argparse.ArgumentParser(description="How fast GPUs train, beside open_clip and Transformers.")
    options.add_argument("cases", nargs="*", help=f"of {', '.join(CASES)}; all if not given")
    options.add_argument("--shrink", action="store_true", help="small models, 2 steps, on a CPU too; not recorded")
    options.add_argument("--starts", type=int, default=STARTS, help="processes of each case, one after the other")
    options.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    options.add_argument("--batch", type=int, help=argparse.SUPPRESS)
    given = options.parse_args()
    for name in given.cases:
        if name not in CASES:
            return f"There is no case {name!r}; {suggest(name, CASES)}."
    if given.work:
        return work(given.cases[0], given.batch, given.shrink, given.work)
    count = torch.cuda.device_count()
    if not given.shrink and not (count and torch.cuda.is_bf16_supported(including_emulation=False)):
        return "The bench on GPUs needs a GPU with bf16, and there is none; --shrink tries it out on a CPU."
    device = torch.cuda.get_device_name() if count else "CPU"
    here = {"device": device, "torch": torch.__version__, "goal": GOAL}
    record = json.loads(RESULT.read_text()) if RESULT.is_file() else {}
    if any(record.get(name) != value for name, value in here.items()):
        record = here  # what another machine has measured stands beside nothing
    for name in given.cases or CASES:
        for cards in (1, 2) if given.shrink else sorted({1, count}):
            new = run_case(name, cards, given.starts, given.shrink, card_named(device))
            print_rows(new)
            if not given.shrink:
                record = keep(record, new)
                RESULT.write_text(json.dumps(record, indent=1) + "\n")
    if given.shrink:
        print("Run through at a small size; nothing is recorded.")


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    sys.exit(main())
