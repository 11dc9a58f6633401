"""What the published presets need: counted by the planner, kept in ``results/presets.json``, and shown on a page.

Counting all of them takes a quarter of an hour, so that it is done beforehand: ``python book/plans.py`` counts those
that are missing, and with names of systems that changed all of theirs.
"""

import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from markup import table

from mmlearn.data.fields import Batch
from mmlearn.files import written_whole
from mmlearn.recipes.discovery import find_recipe, system_files
from mmlearn.training.counting import count, count_training
from mmlearn.training.plan import GIB

RECORD = Path(__file__).parent / "results" / "presets.json"
BATCH, CHUNK, PRECISION = 64, 16, "bf16"
CARDS = 24, 40, 80  # GiB
WAYS = "plain", "recomputed", "in chunks"
TEXT_LENGTH = {"blip": 30}  # where the official code cuts texts shorter than 77 tokens for pretraining


def texts(b: int, t: int) -> Batch:
    """Texts with gaps, and no pictures."""
    tokens = torch.zeros(b, t, dtype=torch.int64)
    return {"tokens": tokens, "mask": torch.ones(b, t, dtype=torch.bool), "token_label": tokens}


def images(b: int, t: int) -> Batch:
    """Pictures with their classes, and no texts."""
    return {"image": torch.zeros(b, 3, 224, 224), "label": torch.zeros(b, dtype=torch.int64)}


# Presets that read a part of what `mmlearn train` would give them, and that part.
PARTS = {("perceiver-io", "language"): texts, ("perceiver-io", "fourier"): images}


def published(name: str) -> list[str]:
    """The presets of a system that are not made for two CPU cores."""
    return [preset for preset in find_recipe(name).config.PRESETS if not preset.startswith("tiny")]


def all_published() -> dict[str, list[str]]:
    """The systems that have some, and these."""
    return {name: presets for name in system_files() if (presets := published(name))}


def needs(name: str, preset: str) -> dict[str, Any]:
    """What a step of one device needs: parameters, FLOPs a sample, and bytes by the way of training."""
    recipe, t = find_recipe(name), TEXT_LENGTH.get(name, 77)
    config = recipe.config.preset(preset)
    if part := PARTS.get((name, preset)):
        with torch.device("meta"):
            system = recipe.make(config).train()
        found = count_training(
            system, recipe.stages[0].optimizer_steps, [part(BATCH, t)], chunk=CHUNK, precision=PRECISION
        )
    else:
        found = count(recipe, config, BATCH, chunk=CHUNK, precision=PRECISION, text_length=t)
    return {
        "parameters": found.parameters,
        "flops": round(found.flops / BATCH),
        "bytes": {way: round(found.memory[way]["all"]) for way in WAYS if way in found.memory},
    }


def recorded() -> dict[str, dict[str, Any]]:
    """What was kept, by system and preset."""
    return json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.is_file() else {}


def record(wanted: Iterable[tuple[str, str]]) -> None:
    """Count these presets of systems anew, and keep them with all others that there still are, in their order."""
    order = all_published()
    for name, preset in wanted:
        known, found = recorded(), needs(name, preset)
        known.setdefault(name, {})[preset] = found
        kept = {n: {p: known[n][p] for p in presets if p in known[n]} for n, presets in order.items() if n in known}
        with written_whole(RECORD) as unfinished:
            unfinished.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
        print(name, preset, flush=True)


def plans_page(known: Mapping[str, Mapping[str, Any]], wanted: Mapping[str, Iterable[str]]) -> str:
    """A table of the wanted presets of each system; those that are not known are said not to be counted yet."""
    head = ["system", "preset", "parameters", "FLOPs a sample", *WAYS, "card", "at least"]
    rows = []
    for name, preset in ((name, preset) for name, presets in wanted.items() for preset in presets):
        row = known.get(name, {}).get(preset, {"parameters": "not counted yet", "flops": None, "bytes": {}})
        ways, count = row["bytes"], row["parameters"]
        cells = [f"[{name}](systems/{name}.md)", f"`{preset}`", f"{count:,}" if isinstance(count, int) else count]
        cells += [f"{row['flops']:.3g}"] if ways else ["–"]
        cells += [f"{ways[way] / GIB:.1f}" if way in ways else "–" for way in WAYS]
        rows.append([*cells, *((card(ways["plain"]), card(min(ways.values()))) if ways else "––")])
    return f"# What the presets need\n\n{TEXT}\n" + table(head, rows)


def card(needed: float) -> str:
    """The smallest card that holds so many bytes."""
    return next((f"{size} GB" for size in CARDS if needed <= size * GIB), "more")


TEXT = f"""\
The published presets of all systems, as the planner counts them from fake tensors: one that does not fit a card is
known before it is run. A step is a forward and a backward pass in {PRECISION} with AdamW, on one device, and on
**{BATCH} samples**; texts have 77 tokens, or as many as the system takes at most; BLIP's have 30, where its official
code cuts them. Floating-point operations (FLOPs) are those of a step, divided by its samples.

Memory is in GiB (2³⁰ bytes). It holds weights, gradients, the optimiser's state, and what the forward pass keeps:

- *plain*: all that it computes;
- *recomputed*: of each transformer block only its input (`--recompute`);
- *in chunks*, where the towers of a contrastive system can read {CHUNK} samples at a time (`--chunk {CHUNK}`).

*Card* is the smallest of {CARDS[0]}, {CARDS[1]} and {CARDS[2]} GB that holds a plain step, and *at least* the smallest
that holds the step which takes least of the three. A measured peak may be up to 15 % higher, and the driver needs a
part of each card, so leave a margin. Where a system is trained in several stages, this is the first of them. MISA and
MulT read features of faces in their presets, which nothing here makes; they are counted on as many numbers a frame.
Perceiver IO's presets read texts alone or pictures alone, of 224 pixels, which are given to them from Python.
`mmlearn plan SYSTEM --preset PRESET` answers for other batches and precisions, and for several devices.
"""

if __name__ == "__main__":
    every = [(name, preset) for name in sys.argv[1:] or system_files() for preset in published(name)]
    record(one for one in every if sys.argv[1:] or one[1] not in recorded().get(one[0], {}))
