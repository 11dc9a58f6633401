r"""A set of guesses against a set of objects: each object gets the guess that fits it best, and no two the same.

``logits`` (b, q, c + 1) say what each of q guesses is, the last class being *no object*; ``guesses`` (b, q, 4) are
boxes as middle, width and height. ``classes`` (b, p) and ``boxes`` (b, p, 4), left, top, right and bottom, are what is
there; ``real`` says which of these are no padding. Source: Carion et al. 2020 (DETR), section 3.1 and official code.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mmlearn.objectives.boxes import centers_to_corners, corners_to_centers, generalised_iou
from mmlearn.tensor_checks import has_values


class Weights(NamedTuple):
    """The weights of class, L1 distance and GIoU, in matching and in the loss."""

    classes: float = 1.0
    l1: float = 5.0
    giou: float = 2.0
    no_object: float = 0.1  # of guesses without an object, in the loss


USUAL = Weights()


@torch.no_grad()
def matching_cost(
    logits: Float[Tensor, "b q c"],
    guesses: Float[Tensor, "b q 4"],
    classes: Int[Tensor, "b p"],
    boxes: Float[Tensor, "b p 4"],
    weights: Weights = USUAL,
) -> Float[Tensor, "b q p"]:
    r"""How badly each guess fits each object.

    .. math:: C_{ij} = -\lambda_c\, p_i(c_j) + \lambda_1 \lVert b_i - \hat b_j \rVert_1
       - \lambda_g\, \mathrm{GIoU}(b_i, \hat b_j)

    Source: Carion et al. 2020 (DETR), section 3.1, the matching cost, and section A.2.
    """
    probability = logits.softmax(-1)
    of_class = probability.gather(2, classes[:, None].expand(-1, logits.shape[1], -1))
    distance = (guesses[:, :, None] - corners_to_centers(boxes)[:, None]).abs().sum(-1)
    pairs = torch.broadcast_tensors(centers_to_corners(guesses)[:, :, None], boxes[:, None])
    return weights.l1 * distance - weights.classes * of_class - weights.giou * generalised_iou(*pairs)


@torch.no_grad()
def hungarian(cost: Float[Tensor, "b q p"], real: Bool[Tensor, "b p"]) -> Int[Tensor, "b p"]:
    """For each real object its guess, so that the sum of costs is the smallest that there is; −1 for padding.

    Raises ``ValueError`` for more objects than guesses. A cost that is no number counts as a very high one.
    Source: Kuhn 1955, by SciPy's ``linear_sum_assignment``.
    """
    from scipy.optimize import linear_sum_assignment

    if not has_values(cost):  # it is fake, and only what it costs is counted
        return torch.arange(real.shape[1], device=cost.device).expand(real.shape)
    chosen = torch.full(real.shape, -1, dtype=torch.long)
    numbers = torch.nan_to_num(cost.float(), nan=1e9, posinf=1e9, neginf=1e9)
    # Padding goes to the CPU as an infinite cost, so that a GPU is waited for once.
    for row, costs in enumerate(numbers.masked_fill(~real[:, None], torch.inf).cpu()):
        objects = (costs < torch.inf).all(0).nonzero()[:, 0]
        if len(objects) > cost.shape[1]:
            raise ValueError(
                f"Picture {row} of the batch has {len(objects)} objects, more than the {cost.shape[1]} queries: "
                "set num_queries."
            )
        guess, which = linear_sum_assignment(costs[:, objects].numpy())
        chosen[row, objects[torch.from_numpy(which)]] = torch.from_numpy(guess)
    return chosen.to(cost.device)


def set_losses(
    logits: Float[Tensor, "b q c"],
    guesses: Float[Tensor, "b q 4"],
    classes: Int[Tensor, "b p"],
    boxes: Float[Tensor, "b p 4"],
    real: Bool[Tensor, "b p"],
    weights: Weights = USUAL,
) -> dict[str, Float[Tensor, ""]]:
    r"""``classes``, ``l1`` and ``giou`` of the guesses, each with its weight, after :func:`hungarian`.

    .. math:: \ell = -\frac{\sum_i w_i \log p_i(c_{\sigma(i)})}{\sum_i w_i}, \quad
       \frac{\lambda_1}{n} \sum_j \lVert b_{\sigma(j)} - \hat b_j \rVert_1, \quad
       \frac{\lambda_g}{n} \sum_j \big(1 - \mathrm{GIoU}(b_{\sigma(j)}, \hat b_j)\big)

    The class of a guess without an object is *no object*, which has the weight w = ``weights.no_object``; n is the
    number of objects in the batch, at least 1. Raises ``ValueError`` as :func:`hungarian` does.
    Source: Carion et al. 2020 (DETR), equation 2 and section A.2, and official code.
    """
    whole = F.pad(boxes.new_ones(2), (2, 0))  # 0 0 1 1
    boxes = torch.where(real[..., None], boxes, whole)  # whatever padding holds
    classes = torch.where(real, classes, 0)
    match = hungarian(matching_cost(logits, guesses, classes, boxes, weights), real)
    nothing = logits.shape[-1] - 1
    asked = torch.full((len(logits), logits.shape[1] + 1), nothing, device=logits.device)
    position = torch.where(real, match, logits.shape[1])  # padding writes behind the last guess
    asked = asked.scatter(1, position, torch.where(real, classes, nothing))[:, :-1]
    weight = torch.ones(nothing + 1, dtype=logits.dtype, device=logits.device)
    weight[-1] = weights.no_object
    count = real.sum().clamp(min=1)
    found = guesses.gather(1, match.clamp(min=0)[..., None].expand(-1, -1, 4))
    distance = (found - corners_to_centers(boxes)).abs().sum(-1)
    giou = 1 - generalised_iou(centers_to_corners(found), boxes)
    return {
        "classes": weights.classes * F.cross_entropy(logits.mT, asked, weight),
        "l1": weights.l1 * (distance * real).sum() / count,
        "giou": weights.giou * (giou * real).sum() / count,
    }


def set_losses_of_blocks(
    predictions: Sequence[tuple[Float[Tensor, "b q c"], Float[Tensor, "b q 4"]]],
    classes: Int[Tensor, "b p"],
    boxes: Float[Tensor, "b p 4"],
    real: Bool[Tensor, "b p"],
    weights: Weights = USUAL,
) -> dict[str, Float[Tensor, ""]]:
    """The sums of :func:`set_losses` over blocks of a decoder, each of which predicts logits and boxes.

    Source: Carion et al. 2020 (DETR), section 3.2, auxiliary decoding losses.
    """
    blocks = len(predictions)
    logits, guesses = (torch.cat(parts) for parts in zip(*predictions))  # (blocks b, q, c), (blocks b, q, 4)
    # As one long batch, because each matching waits for a GPU. Every block has as many objects, so a mean over the long
    # batch is that of the means of blocks.
    classes, boxes, real = (torch.cat([x] * blocks) for x in (classes, boxes, real))  # (blocks b, p, …)
    losses = set_losses(logits, guesses, classes, boxes, real, weights)
    return {name: blocks * loss for name, loss in losses.items()}
