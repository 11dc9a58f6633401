"""What recipes share: self distillation."""

from collections.abc import Sequence
from typing import Any

from mmlearn.evaluation.measures import row
from mmlearn.evaluation.mode import evaluating


def hidden_features_explained(run: Any, samples: Sequence[Any]) -> dict[str, dict[str, float | None]]:
    """How much of the teacher's variance at hidden places the student explains, and how large that variance is.

    Of a teacher that has collapsed the variance is near 0. Chance: to say the mean of all targets.
    """
    batch = run.on_device(run.collate()(samples))
    with evaluating(run.system):
        prediction, target, masked = run.system.predictions_and_targets(batch)
    said, wanted = prediction[masked], target[masked]
    left, spread = (said - wanted).square().mean(), wanted.var(0).mean()
    return {"hidden features explained": row(1 - left / spread, 0.0), "variance of targets": row(spread)}
