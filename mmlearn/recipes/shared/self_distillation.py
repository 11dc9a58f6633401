"""What the recipes of data2vec share."""

from collections.abc import Sequence
from typing import Any

from mmlearn.evaluation.eval_mode import evaluating
from mmlearn.evaluation.measures import row


def masked_features_explained(run: Any, samples: Sequence[Any]) -> dict[str, dict[str, float | None]]:
    """How much of the teacher's variance at masked positions the student explains, and how large that variance is.

    The variance of a collapsed teacher is near 0. Chance: the mean of all targets.
    """
    batch = run.on_device(run.collate()(samples))
    with evaluating(run.system):
        prediction, target, masked = run.system.predictions_and_targets(batch)
    prediction, target = prediction[masked], target[masked]  # (masked, d)
    error, variance = (prediction - target).square().mean(), target.var(0).mean()
    return {"masked features explained": row(1 - error / variance, 0.0), "variance of targets": row(variance)}
