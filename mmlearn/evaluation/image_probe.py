"""What frozen features of a scene know of it: a linear layer for each colour and shape, is it there or not?"""

from collections.abc import Sequence
from typing import Any

import torch

from mmlearn.data.synthetic.layouts import COLOURS, SHAPES
from mmlearn.evaluation.eval_mode import evaluating
from mmlearn.evaluation.measures import Rows, row
from mmlearn.evaluation.probes import linear_probe

RAREST = 0.1  # what is there, or not there, in fewer scenes is not asked


def image_probe(run: Any, samples: Sequence[Any]) -> Rows:
    """How often a linear probe of ``encode_image`` tells whether a colour or a shape is in a scene, as a mean of all.

    It learns on every second sample, and is measured on the others. Chance: always the commoner answer. Nothing for
    samples that are no scenes, or too few. Source: Alain & Bengio 2017, "Understanding Intermediate Layers Using Linear
    Classifier Probes".
    """
    if not hasattr(samples[0], "objects"):
        return {}
    with evaluating(run.system):
        features = torch.cat([run.call(run.system.encode_image, batch).float().cpu() for batch in run.batches(samples)])
    right, common = [], []
    for name in (*COLOURS, *SHAPES):
        there = torch.tensor([any(name in item.name.split() for item in sample.objects) for sample in samples]).long()
        learned, asked = there[::2], there[1::2]
        shares = [float(part.float().mean()) for part in (learned, asked) if len(part)]
        if len(shares) == 2 and all(RAREST <= share <= 1 - RAREST for share in shares):
            right.append(linear_probe(features[::2], learned, features[1::2], asked, penalty=0.1))
            common.append(max(shares[1], 1 - shares[1]))
    if not right:
        return {}
    return {"linear probe, colours and shapes": row(sum(right) / len(right), sum(common) / len(common))}
