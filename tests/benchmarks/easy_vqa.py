"""easy-VQA, a published benchmark: ViLT trained from nothing, beside its reference model. About ten minutes a seed.

``python tests/benchmarks/easy_vqa.py`` keeps what it found in ``results/``. Both commands are those that a reader would
type.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SEEDS = (0, 1, 2)
REFERENCE = 0.995  # as its author reports of a larger convolutional network, trained on twice as many pictures
TRAIN = "train vilt --data easy-vqa --objectives vqa --steps 6000 --batch-size 64 --learning-rate 2e-3"
EVALUATE = "evaluate {} --data easy-vqa --limit 9673 --json"  # all questions of the published test split


def mmlearn(*words):
    return subprocess.run(
        [sys.executable, "-m", "mmlearn", *words], check=True, stdout=subprocess.PIPE, text=True
    ).stdout


def measure():
    """Accuracy of all test questions and of each kind, beside what needs no picture, for each seed."""
    runs = []
    for seed in SEEDS:
        with tempfile.TemporaryDirectory() as folder:
            output, started = str(Path(folder) / "run"), time.perf_counter()
            mmlearn(*TRAIN.split(), "--seed", str(seed), "--output", output)
            seconds = round(time.perf_counter() - started)
            rows = json.loads(mmlearn(*EVALUATE.format(output).split()))
        runs.append({"seed": seed, "seconds": seconds, "measures": rows})
        print(f"seed {seed}, {seconds} s: " + "  ".join(f"{row['measure']} {row['obtained']:.3f}" for row in rows))
    return {"command": f"mmlearn {TRAIN}", "reference": REFERENCE, "runs": runs}


if __name__ == "__main__":
    record = json.dumps(measure(), indent=1)
    (Path(__file__).parent / "results" / "easy_vqa.json").write_text(record + "\n", encoding="utf-8")
