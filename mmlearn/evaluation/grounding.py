"""Does a fused model look where the words say? Boxes from maps, gradients on attention, and the head that points best.

Boxes are shares of the picture: left, top, right, bottom. Maps come from :func:`mmlearn.layers.record_attention`, one
(b, h, q, n) a layer, and keep their graph.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor

from mmlearn.evaluation.alignment import choose_head, entropy, pointing_accuracy, pointing_chance
from mmlearn.evaluation.mentions import Mentions

# Boxes.


def iou(box: Float[Tensor, "n 4"], other: Float[Tensor, "n 4"]) -> Float[Tensor, "n"]:
    r"""Intersection over union of each pair of boxes, :math:`|A \cap B| / |A \cup B|`; 0 where both are empty.

    Raises ``ValueError`` for an inverted box.
    """
    for boxes in (box, other):
        if not (boxes[:, :2] <= boxes[:, 2:]).all():
            raise ValueError(
                "A box is left, top, right, bottom, with left <= right and top <= bottom; got one inverted."
            )
    shared = (torch.minimum(box[:, 2:], other[:, 2:]) - torch.maximum(box[:, :2], other[:, :2])).clamp(min=0).prod(-1)
    union = (box[:, 2:] - box[:, :2]).prod(-1) + (other[:, 2:] - other[:, :2]).prod(-1) - shared
    return torch.where(union > 0, shared / union.where(union > 0, 1), 0)


def referring_accuracy(box: Float[Tensor, "n 4"], truth: Float[Tensor, "n 4"], threshold: float = 0.5) -> float:
    """How often the box found and the true one share at least half of what they cover together.

    Raises ``ValueError`` where there are none. Source: Yu et al. 2016, "Modeling Context in Referring Expressions".
    """
    if not len(box):
        raise ValueError("An accuracy needs at least one box.")
    return float((iou(box, truth) >= threshold).float().mean())


def best_region(
    weights: Float[Tensor, "n p"], boxes: Float[Tensor, "n p 4"], region_mask: Bool[Tensor, "n p"] | None = None
) -> Float[Tensor, "n 4"]:
    """The box of the real region with the highest weight, the first of several. ``ValueError`` where none is real."""
    if region_mask is not None:
        if not region_mask.any(1).all():
            raise ValueError("Each row needs at least one real region.")
        weights = weights.masked_fill(~region_mask, -torch.inf)
    return boxes[torch.arange(len(boxes), device=boxes.device), weights.argmax(1)]


def box_of_map(maps: Float[Tensor, "n p"], grid: tuple[int, int], threshold: float = 0.5) -> Float[Tensor, "n 4"]:
    """A box around where a map on a (rows, columns) grid of patches is high.

    The rule: take the patch with the highest weight (the first of several) and all patches with at least ``threshold``
    of it that hang together with it, by a side or a corner; the box is the smallest that holds them.
    Raises ``ValueError`` for maps that do not fit the grid, are negative or not finite.
    Source: Zhou et al. 2016, "Learning Deep Features for Discriminative Localization", section 3.2, which takes a
    fifth of the highest.
    """
    _check_maps(maps, grid)
    rows, columns = grid
    high = rearrange(maps >= threshold * maps.amax(1, keepdim=True), "n (row column) -> n 1 row column", row=rows)
    peak = F.one_hot(maps.argmax(1), rows * columns).bool()
    part = rearrange(peak, "n (row column) -> n 1 row column", row=rows)
    while True:  # grow by one patch all round, within what is high
        grown = high & (F.max_pool2d(part.float(), 3, stride=1, padding=1) > 0)
        if torch.equal(grown, part):
            break
        part = grown
    (top, bottom), (left, right) = (_extent(part[:, 0].any(axis)) for axis in (2, 1))
    return torch.stack([left / columns, top / rows, right / columns, bottom / rows], dim=-1)


def _extent(used: Bool[Tensor, "n side"]) -> tuple[Float[Tensor, "n"], Float[Tensor, "n"]]:
    """Where the first used position starts and the last one ends."""
    used = used.float()  # argmax takes the first of equals
    return used.argmax(1).float(), used.shape[1] - used.flip(1).argmax(1).float()


def _check_maps(maps: Tensor, grid: tuple[int, int]) -> None:
    if maps.shape[1] != grid[0] * grid[1]:
        raise ValueError(f"A map on a {grid[0]} × {grid[1]} grid has {grid[0] * grid[1]} patches; got {maps.shape[1]}.")
    if not ((maps >= 0) & maps.isfinite()).all():
        raise ValueError(
            "A box is read from weights that are finite and not negative; for others clamp or shift first."
        )


# Maps.


def gradient_maps(
    maps: dict[str, Float[Tensor, "b h q n"]], score: Float[Tensor, "b"]
) -> dict[str, Float[Tensor, "b h q n"]]:
    r"""Each attention weight times how much it speaks for the score, :math:`A \odot (\partial y / \partial A)^+`.

    ``maps`` are of one run under ``record_attention``, and ``score`` is one number a row of the same run: the logit of
    *match*, an answer's, a similarity. Rows of a batch must not depend on each other.
    Raises ``ValueError`` for a score without a graph, or a layer that the score does not depend on.
    Source: Selvaraju et al. 2017 (Grad-CAM), equation 1 and section 3; Li et al. 2021 (ALBEF), official code; Chefer et
    al. 2021, "Generic Attention-model Explainability", equation 5, before its mean over heads.
    """
    for name, weights in maps.items():
        if not (score.requires_grad and weights.requires_grad):
            raise ValueError(f"The score and the map {name!r} have no graph; run the model outside torch.no_grad().")
    gradients = torch.autograd.grad(score.sum(), list(maps.values()), retain_graph=True, allow_unused=True)
    for name, gradient in zip(maps, gradients):
        if gradient is None:
            raise ValueError(f"The score does not depend on the map {name!r}; give only maps that it depends on.")
    return {name: weights.detach() * gradient.relu() for (name, weights), gradient in zip(maps.items(), gradients)}


def grad_cam(maps: dict[str, Float[Tensor, "b h q n"]], score: Float[Tensor, "b"]) -> dict[str, Float[Tensor, "b q n"]]:
    """The mean of :func:`gradient_maps` over heads: one map a layer, each word's row over patches or regions."""
    return {name: weights.mean(1) for name, weights in gradient_maps(maps, score).items()}


def phrase_maps(maps: dict[str, Float[Tensor, "b h t p"]], mentions: Mentions) -> dict[str, Float[Tensor, "n h p"]]:
    """Of maps from words to patches, for each head, those of the n phrases that name an object."""
    return {
        name: torch.stack([mentions.select(weights[:, head]) for head in range(weights.shape[1])], dim=1).detach()
        for name, weights in maps.items()
    }


# The head to show.


class HeadReport(NamedTuple):
    """The head that points best where it was chosen, and what it is worth where it was not."""

    layer: str
    head: int
    table: Float[Tensor, "layers h"]  # pointing accuracy of every head, on the split that chose
    accuracy: float  # pointing accuracy on the other split, as all that follows
    chance: float
    entropy: float
    occlusion: dict[str, float]  # how much the score falls, by what was covered


def report_head(
    choose_maps: dict[str, Float[Tensor, "n h p"]],
    choose_regions: Float[Tensor, "n p"],
    maps: dict[str, Float[Tensor, "m h p"]],
    regions: Float[Tensor, "m p"],
    occlusion: Callable[[Float[Tensor, "m p"]], dict[str, float]] | None = None,
) -> HeadReport:
    """Choose layer and head on one split and report them on another: the best of many is lucky where it was chosen.

    ``occlusion`` gets the chosen head's maps and says how much the score falls when the positions of their highest
    weights are covered, and others: see :func:`peak_positions`, :func:`region_occlusion_check` and
    :func:`~mmlearn.evaluation.occlusion_check`. Raises ``ValueError`` where the splits differ in layers or heads.
    """
    heads = {name: weights.shape[1] for name, weights in choose_maps.items()}
    if heads != {name: weights.shape[1] for name, weights in maps.items()} or len(set(heads.values())) != 1:
        raise ValueError("Both splits need maps of the same layers, all with as many heads.")
    layer, head, table = choose_head(choose_maps, choose_regions)
    chosen = maps[layer][:, head]
    return HeadReport(
        layer=layer,
        head=head,
        table=table,
        accuracy=pointing_accuracy(chosen, regions),
        chance=pointing_chance(regions),
        entropy=entropy(chosen),
        occlusion=occlusion(chosen) if occlusion else {},
    )


def peak_positions(maps: Float[Tensor, "n p"]) -> Bool[Tensor, "n p"]:
    """Where each map is highest: one region or patch a row, the first of several."""
    return F.one_hot(maps.argmax(1), maps.shape[1]).bool()


def region_occlusion_check(
    score: Callable[[Float[Tensor, "b p f"]], Float[Tensor, "b"]],
    regions: Float[Tensor, "b p f"],
    hidden: dict[str, Bool[Tensor, "b p"]],
) -> dict[str, float]:
    """How much ``score`` falls, on average, when the features of each kind of region are replaced by zeros.

    It is :func:`~mmlearn.evaluation.occlusion_check` for models that read regions. Give controls too: a random region,
    one that the caption does not name.
    """
    with torch.no_grad():
        whole = score(regions)
        return {
            name: float((whole - score(regions.masked_fill(mask[..., None], 0))).mean())
            for name, mask in hidden.items()
        }
