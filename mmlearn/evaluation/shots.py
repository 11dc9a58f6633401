"""A control for examples in a context: does a model use which label belongs to which of them?"""

import torch
from jaxtyping import Int
from torch import Tensor


def shuffled_labels(label: Int[Tensor, "b s"], generator: torch.Generator) -> Int[Tensor, "b s"]:
    r"""In each row labels change places: what was called one thing is now called another, each time that it occurs.

    .. math:: y'_i = \pi(y_i), \quad \pi \text{ a random cycle through the labels of the row}

    So no label stays, the row has the labels that it had, and each of m labels becomes any of the m - 1 others with the
    same chance. A row with a single label keeps it. A model that goes by the pairs must now be wrong, and one that
    wants to know no more than which labels there are is as good as before.
    Source: Min et al. 2022, "Rethinking the Role of Demonstrations", section 4, who draw any labels.
    """
    shuffled = label.clone()
    for row, new in zip(label, shuffled):
        known = row.unique()
        circle = known[torch.randperm(len(known), generator=generator, device=generator.device).to(known.device)]
        for one, other in zip(circle, circle.roll(1)):
            new[row == one] = other
    return shuffled
