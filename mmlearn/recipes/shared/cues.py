"""What the recipes of classic fusion share."""

from collections.abc import Sequence
from typing import Any

import torch

from mmlearn.data.fields import Cues, Labels
from mmlearn.evaluation.measures import Rows, classes, row
from mmlearn.recipes import Objective, ln


def restored(run: Any, samples: Sequence[Any]) -> Rows:
    """The squared error of each modality from all, and from each other one alone. Chance: its mean over the samples."""
    batch = run.plain(samples)
    cues, mask, rows = batch["cues"], batch["cue_mask"], {}
    whole = mask.all(1)
    if not whole.any():
        return {}
    cues = cues[whole]
    spread = (cues - cues.mean(0)).square().mean((0, 2))
    m = cues.shape[1]
    for seen in ([*range(m)], *([one] for one in range(m))):
        shown = torch.isin(torch.arange(m), torch.tensor(seen)).expand(len(cues), m)
        back = run.read({"cues": cues, "cue_mask": shown}, lambda output, rows: output.reconstruction)
        for i, error in enumerate((back - cues).square().mean((0, 2))):
            name = f"error of modality {i} from {' and '.join(map(str, seen))}"
            rows[name] = row(error, spread[i])
    return rows


READS = (Cues(), Labels(source="label"))
LEARNS = Objective("classes", {"classes": ln("num_classes")}, measures=(classes("classes told"),))
RESTORES = Objective("reconstruction", {"reconstruction": None}, measures=(restored,))
