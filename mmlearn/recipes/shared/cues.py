"""What the recipes of classic fusion share."""

from collections.abc import Sequence
from typing import Any

import torch

from mmlearn.data.fields import Cues, Labels
from mmlearn.evaluation.measures import Rows, class_accuracy, row
from mmlearn.recipes import Objective, ln


def reconstruction_error(run: Any, samples: Sequence[Any]) -> Rows:
    """The squared error of each modality from all, and from each other one alone. Chance: its mean over the samples."""
    batch = run.plain(samples)
    cues, mask, rows = batch["cues"], batch["cue_mask"], {}
    complete = mask.all(1)
    if not complete.any():
        return {}
    cues = cues[complete]
    variance = (cues - cues.mean(0)).square().mean((0, 2))
    m = cues.shape[1]
    for given in ([*range(m)], *([one] for one in range(m))):
        present = torch.isin(torch.arange(m), torch.tensor(given)).expand(len(cues), m)
        output = run.read({"cues": cues, "cue_mask": present}, lambda output, rows: output.reconstruction)
        for i, error in enumerate((output - cues).square().mean((0, 2))):
            name = f"error of modality {i} from {' and '.join(map(str, given))}"
            rows[name] = row(error, variance[i])
    return rows


READS = (Cues(), Labels(source="label"))
CLASSES = Objective("classes", {"classes": ln("num_classes")}, measures=(class_accuracy("class accuracy"),))
RECONSTRUCTION = Objective("reconstruction", {"reconstruction": None}, measures=(reconstruction_error,))
