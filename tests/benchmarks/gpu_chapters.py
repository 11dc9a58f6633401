"""Every chapter at gpu scale, with three seeds, recorded: ``make gpu``.

Results go to ``book/results/NN/gpu.json`` after each seed, so that what was measured is kept where a later run is
stopped. The notebooks keep their outputs, which are of a laptop. A chapter that fails is named at the end, and the next
one goes on. Numbers out of their bounds are recorded like others, and named too. ``gpu_chapters.py 00 07a`` runs these
alone, and ``--resume`` leaves out the seeds that this version of mmlearn has recorded.

With ``MMLEARN_SHRINK=1`` chapters are small, no GPU is needed, and nothing is recorded.
"""

import argparse
import json
import os
import sys
from pathlib import Path

import mmlearn
from mmlearn.chapters import SHRUNK
from mmlearn.notebooks import chapters, find, record, run

ROOT = Path(__file__).parents[2]
SCALE = "gpu"


def one_run(chapter, output, seed):
    """What a run of this seed found, and what is wrong with it, if anything. Without results the first is None."""
    try:
        return run(chapter, output, scale=SCALE, seed=seed), None
    except Exception as error:  # of a chapter or of its kernel: the others still run
        reason = " ".join(str(error).split()) or type(error).__name__
    written = output / "metrics.json"  # the last cell writes it before it says which numbers are out of bounds
    return (json.loads(written.read_text(encoding="utf-8")) if written.is_file() else None), reason


def kept(chapter, results):
    """The runs of this chapter that this version of mmlearn has recorded, by seed."""
    path = results / chapter.number / f"{SCALE}.json"
    runs = json.loads(path.read_text(encoding="utf-8"))["runs"] if path.is_file() else []
    return {run["seed"]: run for run in runs if run["versions"]["mmlearn"] == mmlearn.__version__}


def run_all(notebooks, seeds, *, resume, keep, results, outputs):
    """Run these chapters, and record them unless ``keep`` is false. Returns what went wrong, by chapter and seed."""
    wrong = {}
    for chapter in notebooks:
        runs = kept(chapter, results) if resume else {}
        for seed in seeds:
            if seed in runs:
                print(f"{chapter.name}, seed {seed}: recorded already", flush=True)
                continue
            print(f"{chapter.name}, seed {seed}", flush=True)
            found, reason = one_run(chapter, outputs / chapter.name / SCALE / f"seed-{seed}", seed)
            if reason:
                wrong[chapter.name, seed] = reason
                print(f"{chapter.name}, seed {seed}: {reason}", flush=True)
            if found is None:
                break  # what stops one seed stops the others
            runs[seed] = found
            if keep:
                record(chapter, [runs[number] for number in sorted(runs)], results)
    return wrong


def main(*arguments):
    """Returns what to exit with: nothing, or one line that says what is missing or what went wrong."""
    options = argparse.ArgumentParser(description="Run chapters at gpu scale and record them.")
    options.add_argument("chapters", nargs="*", help="numbers or names; all if not given")
    options.add_argument("--seeds", type=int, default=3, help="run with this many seeds")
    options.add_argument("--resume", action="store_true", help="leave out what this version has recorded")
    given = options.parse_args(arguments)
    try:
        notebooks = [find(number) for number in given.chapters] or chapters()
    except ValueError as error:
        return str(error)
    shrink = bool(os.environ.get(SHRUNK))
    if not shrink:
        import torch

        if not torch.cuda.is_available():
            return "The gpu scale needs a GPU, and PyTorch finds none; MMLEARN_SHRINK=1 tries it out on a CPU."
    where = dict(results=ROOT / "book" / "results", outputs=Path("runs"))
    wrong = run_all(notebooks, range(given.seeds), resume=given.resume, keep=not shrink, **where)
    count = f"{len(notebooks)} {'chapter' if len(notebooks) == 1 else 'chapters'}"
    print(f"\n{count} at gpu scale, {'shrunk, nothing recorded' if shrink else 'recorded in book/results'}.")
    if wrong:
        return "Failed:\n" + "\n".join(f"  {name}, seed {seed}: {reason}" for (name, seed), reason in wrong.items())


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
