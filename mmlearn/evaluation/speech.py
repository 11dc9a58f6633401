"""Is what was hidden in speech found again, and do clusters of sounds hold what is said?"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mmlearn.objectives.speech import distractor_logits


def found_among_distractors(
    context: Float[Tensor, "b s d"],
    target: Float[Tensor, "b s d"],
    codes: Int[Tensor, "b s groups"],
    distractor: Int[Tensor, "b s k"],
    masked: Bool[Tensor, "b s"],
) -> tuple[Bool[Tensor, "hidden"], Float[Tensor, "hidden"]]:
    """For each hidden frame: whether its context is nearest to its own features, and how often one that guesses is.

    Inputs are those of :func:`~mmlearn.objectives.distractor_contrast`. A guess is among different codes: distractors
    of one code are one, and those of the frame's own are none. Source: Baevski et al. 2020 (wav2vec 2.0), section 5.1.
    """
    logits = distractor_logits(context, target, codes, distractor)[masked]  # the own first
    rows = torch.arange(len(codes), device=codes.device)[:, None, None]
    number = codes[rows, distractor][masked].long()  # (hidden, k, groups)
    number = (number * (int(codes.max()) + 1) ** torch.arange(codes.shape[-1], device=codes.device)).sum(-1)
    number = number.masked_fill(logits[:, 1:] == -torch.inf, -1).sort(-1).values
    different = (number[:, :1] >= 0).sum(-1) + (number[:, 1:] != number[:, :-1]).sum(-1)
    return logits[:, 0] > logits[:, 1:].amax(-1), 1 / (1 + different)


def all_hidden(parts: Sequence[Tensor]) -> Tensor:
    """The hidden frames of all batches, joined. ``ValueError`` where there is none."""
    joined = torch.cat(list(parts))
    if not len(joined):
        raise ValueError("These sounds are too short: none has more frames than one hidden span, so nothing is hidden.")
    return joined


def phone_purity(
    cluster: Int[Tensor, "b s"], phone: Int[Tensor, "b s"], mask: Bool[Tensor, "b s"] | None = None
) -> float:
    r"""In how many frames it is right to say of each cluster the phone (the unit of speech) that it holds most of.

    .. math:: \frac{1}{N} \sum_c \max_u \left|\{ i : c_i = c,\; u_i = u \}\right|

    Only the N frames of ``mask`` count: those that are real, in which something is said. With as many clusters as
    frames it is always 1, so compare clusterings of equal size. ``ValueError`` where no frame counts.
    Source: Hsu et al. 2021 (HuBERT), where it is called phone purity.
    """
    mask = torch.ones_like(cluster, dtype=torch.bool) if mask is None else mask
    if not mask.any():
        raise ValueError("The mask leaves out every frame, so there is nothing whose purity could be measured.")
    together = F.one_hot(cluster[mask]).float().T @ F.one_hot(phone[mask]).float()  # (clusters, phones): frames of both
    return float(together.amax(1).sum() / together.sum())
