"""Hidden speech found again, clusters that hold what is said, texts heard right, and words found in time."""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mmlearn.objectives.speech import distractor_logits


def contrastive_accuracy(
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


def join_masked_frames(parts: Sequence[Tensor]) -> Tensor:
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


def linear_interpolation(mel: Float[Tensor, "mels s"], hidden: Bool[Tensor, "s"]) -> Float[Tensor, "mels s"]:
    """The clip with each band in a straight line over each gap, from the last frame that is seen to the next one.

    Before the first frame that is seen, and behind the last one, that frame goes on. It is what a guess without a
    network can do. Raises ``ValueError`` where fewer than two frames are seen.
    """
    seen = (~hidden).nonzero()[:, 0]
    if len(seen) < 2:
        raise ValueError(f"A line needs two frames that are seen; of these {len(hidden)} there are {len(seen)}.")
    position = torch.arange(len(hidden))
    right = torch.searchsorted(seen, position).clamp(1, len(seen) - 1)
    before, after = seen[right - 1], seen[right]
    share = ((position - before) / (after - before)).clamp(0, 1)
    return mel[:, before] + share * (mel[:, after] - mel[:, before])


# Texts.


def edit_distance(said: Sequence, right: Sequence) -> int:
    """How many tokens must be put in, left out or replaced, at the least, to make one of the other.

    Source: Wagner & Fischer 1974.
    """
    row = list(range(len(right) + 1))  # from nothing to each beginning of the right text
    for i, one in enumerate(said):
        before, row[0] = row[0], i + 1
        for j, other in enumerate(right):
            before, row[j + 1] = row[j + 1], min(row[j + 1] + 1, row[j] + 1, before + (one != other))
    return row[-1]


def edit_rate(said: Sequence[Sequence], right: Sequence[Sequence]) -> float:
    """All edits over the number of all right tokens: the word, letter or token error rate. It may be above 1.

    Raises ``ValueError`` for another number of texts, or where the right ones have no token.
    """
    tokens = sum(map(len, right))
    if len(said) != len(right) or not tokens:
        raise ValueError(
            f"Each right text has one that was said; got {len(right)}, of {tokens} tokens, and {len(said)}."
        )
    return sum(edit_distance(one, other) for one, other in zip(said, right)) / tokens


# Time.


def temporal_pointing(
    maps: Float[Tensor, "n words s"], begin: Float[Tensor, "n words"], end: Float[Tensor, "n words"]
) -> dict[str, float]:
    """How often a word's map is highest where the word sounds, and begins and ends with it, each to within one frame.

    ``begin`` and ``end`` are in frames. The map of a word begins and ends where it falls below half its height, on
    either side of its highest frame; height is counted from the lower quartile of the map.
    """
    highest = maps.argmax(-1, keepdim=True)
    level = (maps.amax(-1, keepdim=True) + maps.quantile(0.25, -1, keepdim=True)) / 2
    low, position = maps < level, torch.arange(maps.shape[-1])
    first = torch.where(low & (position < highest), position + 1, 0).amax(
        -1
    )  # after the last low frame before the highest
    last = torch.where(low & (position > highest), position - 1, maps.shape[-1] - 1).amin(-1)
    hits = {
        "inside": (highest[..., 0] >= begin - 1) & (highest[..., 0] <= end + 1),
        "begins": (first - begin).abs() <= 1,
        "ends": (last - end).abs() <= 1,
    }
    return {name: hit.float().mean().item() for name, hit in hits.items()}


def temporal_pointing_chance(
    frames: int, begin: Float[Tensor, "n words"], end: Float[Tensor, "n words"]
) -> dict[str, float]:
    """The mean of :func:`temporal_pointing` if the frames are drawn by chance."""
    every = torch.arange(frames)
    hits = {
        "inside": (every >= begin[..., None] - 1) & (every <= end[..., None] + 1),
        "begins": (every - begin[..., None]).abs() <= 1,
        "ends": (every - end[..., None]).abs() <= 1,
    }
    return {name: hit.float().mean().item() for name, hit in hits.items()}


def attention_over_time(
    maps: Mapping[str, Float[Tensor, "b h q n"]], grid: tuple[int, int], readers: int
) -> Float[Tensor, "b heads columns"]:
    """How much of their attention the first ``readers`` tokens give to each column of a spectrogram's patches.

    ``maps`` are those of :func:`~mmlearn.layers.record_attention`; behind the readers stand the patches of ``grid``,
    row by row. Heads of all layers come in a row.
    """
    moments = [weights[:, :, :readers, readers:].mean(2).unflatten(-1, grid).sum(2) for weights in maps.values()]
    return torch.cat(moments, 1)


def attention_peak_in_span(
    looks: Float[Tensor, "n heads columns"],
    middle: Float[Tensor, "columns"],
    begin: Float[Tensor, "n"],
    end: Float[Tensor, "n"],
) -> tuple[Float[Tensor, "heads"], Float[Tensor, "columns"]]:
    """How often each head's highest column has its middle from ``begin`` to ``end``, and how often each column has.

    The second is the control: a head that always looks at the same moment. Times are in seconds.
    """
    there = (middle >= begin[:, None]) & (middle <= end[:, None])  # (n, columns)
    hit = there[:, None].expand_as(looks).gather(2, looks.argmax(-1, keepdim=True))[..., 0]
    return hit.float().mean(0), there.float().mean(0)
