"""Several texts in one row: who sees whom, and where each text begins."""

import torch
from jaxtyping import Bool, Int
from torch import Tensor


def packed(conversation: Int[Tensor, "b t"]) -> tuple[Bool[Tensor, "b t t"], Int[Tensor, "b t"]]:
    r"""The mask and the positions with which each text of a row is read as if it stood there alone.

    .. math:: m_{ij} = [\,c_i = c_j \ge 0\,], \qquad \mathrm{position}_i = i - \min \{ j : c_j = c_i \}

    ``conversation`` c numbers the texts, whose tokens stand together; padding is -1. Padding sees itself, and nobody
    else sees it; its position is 0. That no token sees a later one is left to causal attention. Source: Raffel et al.
    2020 (T5), section 3.1.2, for packing; Krell et al. 2021, "Efficient Sequence Packing without Cross-contamination",
    for the mask.
    """
    real = conversation >= 0
    index = torch.arange(conversation.shape[1], device=conversation.device)
    same = (conversation[:, :, None] == conversation[:, None]) & real[:, None]  # (b, t, t)
    same = same | (index[:, None] == index)  # a query that sees nothing would have no softmax
    first = (conversation != conversation.roll(1, 1)) | (index == 0)  # (b, t)
    begins = (first * index).cummax(1).values  # (b, t): where each one's text begins
    return same, (index - begins) * real
