"""Alignment as a number: does a word point at its region, and do the two modalities share one space?

Maps are (n, p): n words, each with a weight a patch. Regions are (n, p) too: the share of each patch that belongs to
what the word names.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor

COVERED = 0.1  # a patch belongs to a region that fills at least this share of it


def on_grid(masks: Bool[Tensor, "n height width"], grid: tuple[int, int]) -> Float[Tensor, "n p"]:
    """The share of each patch of a (rows, columns) grid that a mask covers, in reading order."""
    return rearrange(F.adaptive_avg_pool2d(masks.float()[:, None], grid), "n 1 row column -> n (row column)")


def pointing_accuracy(maps: Float[Tensor, "n p"], regions: Float[Tensor, "n p"]) -> float:
    """How often the highest weight lies on the region; where several are highest, the share of them that do.

    Source: Zhang et al. 2018, "Top-down Neural Attention by Excitation Backprop", section 4.2 (the pointing game).
    """
    highest = maps == maps.amax(-1, keepdim=True)
    return float(((highest & (regions >= COVERED)).sum(-1) / highest.sum(-1)).mean())


def pointing_chance(regions: Float[Tensor, "n p"]) -> float:
    """The pointing accuracy of a map that knows nothing: the mean share of patches that belong to the region."""
    return float((regions >= COVERED).float().mean())


def hits_and_misses(maps: Float[Tensor, "n p"], regions: Float[Tensor, "n p"], count: int = 12) -> list[int]:
    """Which words to show: half of them point at their region and half do not, as far as there are any.

    Hits come first. The margin, the highest weight on the region less the highest elsewhere, falls from the clearest
    hit to the clearest miss; each half is taken at equal steps along it, so that close calls are among them.
    """
    inside = regions >= COVERED
    margin = maps.masked_fill(~inside, -torch.inf).amax(-1) - maps.masked_fill(inside, -torch.inf).amax(-1)
    order = margin.argsort(descending=True, stable=True)
    hits, misses = order[margin[order] > 0], order[margin[order] <= 0]
    shown = min(len(hits), max(count // 2, count - len(misses)))
    return [*_evenly(hits, shown), *_evenly(misses, min(len(misses), count - shown))]


def _evenly(rows: Tensor, count: int) -> list[int]:
    return rows[torch.linspace(0, len(rows) - 1, count).round().long()].tolist() if count else []


def frames_near(time: Float[Tensor, "n"], frames: int, fps: float, tolerance: int = 1) -> Bool[Tensor, "n frames"]:
    r"""Which frames of a video belong to each moment, in seconds: the one it falls in, and ``tolerance`` to each side.

    .. math:: \left|\, k - \lfloor t \cdot \mathrm{fps} \rfloor \right| \le \tau

    Frame k lasts from k / fps to (k + 1) / fps. As regions for :func:`pointing_accuracy` they say how often a map is
    right to within so many frames.
    """
    own = (time * fps).floor()
    return (torch.arange(frames, device=time.device) - own[:, None]).abs() <= tolerance


def frames_within(span: Float[Tensor, "n 2"], frames: int, fps: float, tolerance: int = 1) -> Bool[Tensor, "n frames"]:
    r"""Which frames belong to each span from a to b, in seconds: all that it touches, and ``tolerance`` to each side.

    .. math:: \lfloor a \cdot \mathrm{fps} \rfloor - \tau \le k \le \lfloor b \cdot \mathrm{fps} \rfloor + \tau

    A span that is one moment has the frames of :func:`frames_near`. As regions for :func:`pointing_accuracy` they say
    how often a map is highest while something sounds, or within so many frames of it.
    """
    first, last = (span * fps).floor().unbind(1)
    frame = torch.arange(frames, device=span.device)
    return (frame >= first[:, None] - tolerance) & (frame <= last[:, None] + tolerance)


def mass_ratio(maps: Float[Tensor, "n p"], regions: Float[Tensor, "n p"]) -> float:
    """The weight on the region over the region's area: 1 for a map that knows nothing. Maps are not negative."""
    inside = (regions >= COVERED).float()
    weights = maps / maps.sum(-1, keepdim=True).clamp(min=1e-12)
    return float(((weights * inside).sum(-1) / inside.mean(-1).clamp(min=1e-12)).mean())


def entropy(maps: Float[Tensor, "n p"]) -> float:
    """How spread a map is, from 0 (one patch) to 1 (all alike): its entropy over ln p. Maps are not negative."""
    weights = maps / maps.sum(-1, keepdim=True).clamp(min=1e-12)
    return float((torch.special.entr(weights).sum(-1) / torch.tensor(maps.shape[-1]).log()).mean())


def choose_head(
    maps: dict[str, Float[Tensor, "n h p"]], regions: Float[Tensor, "n p"]
) -> tuple[str, int, Float[Tensor, "layers h"]]:
    """The layer and head that point best, and the accuracy of every one. Report them on another split than this."""
    table = torch.tensor(
        [
            [pointing_accuracy(weights[:, head], regions) for head in range(weights.shape[1])]
            for weights in maps.values()
        ]
    )
    layer, head = divmod(int(table.argmax()), table.shape[1])
    return list(maps)[layer], head, table


def occlude(
    image: Float[Tensor, "b 3 height width"], mask: Bool[Tensor, "b height width"]
) -> Float[Tensor, "b 3 height width"]:
    """Paint the masked pixels of each picture in the picture's median colour, which in scenes is the ground."""
    ground = image.flatten(2).median(-1).values[..., None, None]
    return torch.where(mask[:, None], ground, image)


def occlusion_check(
    score: Callable[[Float[Tensor, "b 3 height width"]], Float[Tensor, "b"]],
    image: Float[Tensor, "b 3 height width"],
    masks: dict[str, Bool[Tensor, "b height width"]],
) -> dict[str, float]:
    """How much ``score`` falls, on average, when each kind of position is painted over.

    ``score`` is one number a picture, such as its similarity to its caption. If a map shows what the model uses, then
    covering what the caption names costs more than covering another object, a random patch or the ground; give all of
    them as ``masks``.
    """
    with torch.no_grad():
        whole = score(image)
        return {name: float((whole - score(occlude(image, mask))).mean()) for name, mask in masks.items()}


def random_patches(
    count: int, size: tuple[int, int], patch: int, generator: torch.Generator
) -> Bool[Tensor, "b height width"]:
    """A random square of ``patch`` pixels for each of ``count`` pictures: a control for :func:`occlusion_check`."""
    masks = torch.zeros(count, *size, dtype=torch.bool)
    for mask in masks:
        top, left = (int(torch.randint(0, side - patch + 1, (), generator=generator)) for side in size)
        mask[top : top + patch, left : left + patch] = True
    return masks


def modality_gap(image_embedding: Float[Tensor, "n d"], text_embedding: Float[Tensor, "n d"]) -> float:
    """The distance between the mean picture and the mean text: 0 where both fill the same position, at most 2.

    Source: Liang et al. 2022, "Mind the Gap", section 2.
    """
    return float((image_embedding.mean(0) - text_embedding.mean(0)).norm())


def modality_accuracy(embedding: Float[Tensor, "n modalities d"]) -> float:
    """How often the nearest mean tells from which modality an embedding comes: 1 / modalities where it cannot.

    Row i has one embedding of each modality. The means are of the first half of the rows, and the second half is told.
    ``ValueError`` for a single row, which has no first half.
    """
    if len(embedding) < 2:
        raise ValueError(f"One half of the rows gives the means and the other is told; there is {len(embedding)} row.")
    half = len(embedding) // 2
    nearest = torch.cdist(embedding[half:].flatten(0, 1), embedding[:half].mean(0)).argmin(-1)
    own = torch.arange(embedding.shape[1], device=embedding.device)
    return float((nearest.view(-1, embedding.shape[1]) == own).float().mean())


def pair_alignment(image_embedding: Float[Tensor, "n d"], text_embedding: Float[Tensor, "n d"]) -> float:
    """The mean squared distance of matching pairs: 0 is best. Source: Wang & Isola 2020, equation 1 with α = 2."""
    return float((image_embedding - text_embedding).square().sum(-1).mean())


def uniformity(embedding: Float[Tensor, "n d"]) -> float:
    """The log of the mean Gaussian potential over pairs; the lower, the more evenly spread.

    Source: Wang & Isola 2020, equation 2 with t = 2.
    """
    return float(F.pdist(embedding).square().mul(-2).exp().mean().log())
