"""The measure that Vokenization and its chapter share."""

from collections.abc import Sequence
from typing import Any

import torch

from mmlearn.evaluation.eval_mode import evaluating
from mmlearn.evaluation.measures import Rows, row
from mmlearn.objectives.vokens import nearest_vokens


def token_to_image_recall(run: Any, samples: Sequence[Any]) -> Rows:
    """How many tokens are nearest to the picture of their text among all of these. Chance: one of them."""
    batch = run.on_device(run.plain(samples, "match"))
    with evaluating(run.system):
        image, text = (run.call(encode, batch) for encode in (run.system.encode_image, run.system.encode_text))
        found, mask = nearest_vokens(text, image, batch["mask"]).cpu(), batch["mask"].cpu()
    right = (found == torch.arange(len(samples))[:, None])[mask]
    return {f"token-to-image R@1, of {len(samples)}": row(right.float().mean(), 1 / len(samples))}
