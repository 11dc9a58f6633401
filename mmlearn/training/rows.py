"""Lines of what ``mmlearn evaluate`` prints: a number by its name, beside what chance would give."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mmlearn.evaluation import median_rank, recall_at

Rows = dict[str, dict[str, float | None]]


def ranking_rows(
    one: str,
    similarity: Float[Tensor, "n m"],
    back: Float[Tensor, "m n"],
    positives: Bool[Tensor, "n m"],
    how: str = "",
) -> Rows:
    """Recall and median rank of texts that are looked for with pictures or sounds (``one``), and the other way.

    ``back`` is the similarity the other way, and ``how`` ends each name. Where all are alike, chance decides.
    """
    rows: Rows = {}
    for name, matrix, right in ((f"{one} to text", similarity, positives), (f"text to {one}", back, positives.T)):
        blind = torch.zeros_like(matrix)
        for k in (1, 5, 10):
            rows[f"{name} R@{k} of {matrix.shape[1]}{how}"] = {
                "obtained": recall_at(k, matrix, right),
                "chance": recall_at(k, blind, right),
            }
        rows[f"{name} median rank{how}"] = {
            "obtained": median_rank(matrix, right),
            "chance": median_rank(blind, right),
        }
    return rows


def most_common(numbers: Int[Tensor, "n"]) -> float:
    """The share of the number that is there most often."""
    return float(numbers.bincount().max() / len(numbers))
