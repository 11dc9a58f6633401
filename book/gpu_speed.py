"""How fast GPUs train, on the results page: what ``make bench-gpu`` recorded, or that it was not run."""

import json
from pathlib import Path

from markup import table, text

RECORD = Path("tests", "benchmarks", "results", "gpu.json")
HEAD = ("system", "cards", "compiled", "implementation", "samples a second", "utilisation", "memory", "× the other")


def gpu_speed(root: Path) -> str:
    """The section of the results page, from the record in this checkout."""
    said = (
        "\n## Speed on GPUs\n\n"
        "Recorded by `make bench-gpu`: a training step in bf16, of CLIP beside open_clip, and of BLIP and wav2vec 2.0 "
        "beside Transformers. Both sides have the same shape, weights, batch and loss, and take turns on the same "
        "cards. *Utilisation* is the share of the card's bf16 peak that the step's floating-point operations reach; "
        "*memory* is the most that a card holds; *× the other* is how many times as many samples a second. "
        "A number of samples is the median of three starts, with the least and the most in brackets.\n\n"
        "The goal, not a measurement: on one H100, a utilisation of at least 50 % with CLIP ViT-B/16, and at least "
        "1.2 × as many samples a second as open_clip.\n\n"
    )
    path = root / RECORD
    if not path.is_file():
        return said + "not run\n"
    record = json.loads(path.read_text(encoding="utf-8"))
    where = f"\nOn {text(record['device'])}; torch {text(record['torch'])}. A batch on each card: "
    batches = {row["system"]: f"{row['batch']:,}" for row in record["steps"]}
    listed = ", ".join(f"{text(system)} {batch}" for system, batch in batches.items())
    return said + table(HEAD, map(_row, record["steps"])) + where + listed + ".\n"


def _row(row: dict) -> tuple[str, ...]:
    named = text(row["system"]), str(row["cards"]), "yes" if row["mode"] == "compiled" else "no"
    if "failed" in row:
        return *named, text(row["implementation"]), f"failed: {text(row['failed'])}", "–", "–", "–"
    least, most = min(row["of_each_start"]), max(row["of_each_start"])
    return (
        *named,
        text(row["implementation"]),
        f"{row['samples_per_second']:,.0f} ({least:,.0f} to {most:,.0f})",
        f"{row['utilisation']:.1%}" if "utilisation" in row else "–",
        f"{row['peak_gib']:.1f} GiB" if "peak_gib" in row else "–",
        f"{row['ratio']:.2f}" if "ratio" in row else "–",
    )
