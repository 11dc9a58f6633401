"""Causally masked language modelling: spans move to the end of a document, so that a causal model fills gaps, too.

A sentinel takes each span's place. Behind the document come, for each span, its sentinel again, its tokens, and an end:

``a b c d e`` becomes ``a ⟨0⟩ d e ⟨0⟩ b c ⟨end⟩``.

A model that reads this from left to right writes b c when it has seen what stands before the gap *and* behind it. A
document without spans stays as it is. Sentinels are not asked of the model, because where they stand is drawn.
Source: Aghajanyan et al. 2022 (CM3), section 2, and the official code, ``cm3_dataset``.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mmlearn.objectives.masked import IGNORED, masked_cross_entropy
from mmlearn.tensor_checks import values_are_readable


def draw_shares(b: int, most: int, mean: float, *, generator: torch.Generator) -> Float[Tensor, "b most 2"]:
    r"""Spans as shares of a document, from 0 to 1: beginning and end, in order; 0 and 0 where there is none.

    Their number is drawn from a Poisson distribution of this ``mean``, and is at most ``most``. Ends are drawn evenly;
    of spans that overlap, those stay that were drawn first. Source: Aghajanyan et al. 2022 (CM3), official code; in
    section 2 of the paper there is at least one.
    """
    drawn = torch.poisson(torch.full((b,), mean), generator=generator).clamp(0, most).long()
    shares = torch.zeros(b, most, 2)
    for row, count in enumerate(drawn.tolist()):
        kept: list[tuple[float, float]] = []
        for one, two in torch.rand(count**2, 2, generator=generator).tolist():
            start, end = min(one, two), max(one, two)
            if len(kept) < count and all(end <= first or start >= last for first, last in kept):
                kept.append((start, end))
        shares[row, : len(kept)] = torch.tensor(sorted(kept)).reshape(-1, 2)
    return shares


def token_spans(shares: Float[Tensor, "b m 2"], length: Int[Tensor, "b"]) -> Int[Tensor, "b m 2"]:
    """First token of each span, rounded down, and the one behind its last, rounded to the nearest.

    Documents have these lengths. An end that would reach into the next span stops there. Raises ``ValueError``, on a
    CPU, for shares outside [0, 1], an end before its beginning, and spans out of order. Source: official code of CM3,
    ``get_spans_to_mask``.
    """
    if values_are_readable(shares) and not _in_order(shares):
        raise ValueError("Spans are shares of a document, from 0 to 1, with ends behind beginnings, and in order.")
    scaled = shares * length[:, None, None]
    start, end = scaled[..., 0].long(), (scaled[..., 1] + 0.5).long()
    there = shares[..., 1] > 0
    far = 2**62  # which padding, that counts in floating point, gives back as it is
    following = start.masked_fill(~there, far).flip(1).cummin(1).values.flip(1)  # the first start from here on
    end = torch.minimum(end, F.pad(following[:, 1:], (0, 1), value=far))
    return torch.stack([start, end], -1) * (there & (end > start))[..., None]


def _in_order(shares: Float[Tensor, "b m 2"]) -> bool:
    """Whether no span overlaps the one before it, but for those that are not there."""
    there = shares[..., 1] > 0
    before = F.pad(shares[..., 1], (1, 0))[:, :-1].cummax(1).values
    right = (shares[..., 0] <= shares[..., 1]) & (shares[..., 0] >= before - 1e-6) | ~there
    return bool(right.all() and ((shares >= 0) & (shares <= 1)).all())


def move_spans(
    document: Int[Tensor, "b n"],
    length: Int[Tensor, "b"],
    spans: Int[Tensor, "b m 2"],
    sentinel: int,
    end: int,
    pad_token: int = 0,
) -> tuple[Int[Tensor, "b n+3*m"], Bool[Tensor, "b n+3*m"]]:
    """Each document with its spans at the end, and what of it is real; see the module.

    Documents are padded at their right. ``spans`` (:func:`token_spans`) are in order and do not overlap; one that is
    empty is none. Numbers from ``sentinel`` on, one for each of m spans, stand for them.
    """
    (b, n), m, device = document.shape, spans.shape[1], document.device
    start, stop = spans.unbind(-1)  # (b, m)
    there = stop > start
    position = torch.arange(n, device=device)
    inside = (position >= start[..., None]) & (position < stop[..., None])  # (b, m, n)
    number = torch.arange(m, device=device).expand(b, m)
    # Every token has a key, and the keys in order are the result. Behind the document a span has its own stretch.
    stretch, never = 2 * n + 4, 2**40
    own = (1 + (inside * number[..., None]).sum(1)) * stretch + 2 * position + 2
    key = torch.where(inside.any(1), own, 2 * position + 1)
    key = key.masked_fill(position >= length[:, None], never)
    behind = (1 + number) * stretch
    keys = [key, *(part.masked_fill(~there, never) for part in (2 * start, behind, behind + stretch - 1))]
    tokens = [document, sentinel + number, sentinel + number, torch.full_like(number, end)]
    sorted_keys, order = torch.cat(keys, 1).sort(dim=1, stable=True)
    mask = sorted_keys < never
    return torch.cat(tokens, 1).gather(1, order).masked_fill(~mask, pad_token), mask


def put_back(moved: Int[Tensor, "n"], sentinels: range, end: int) -> Int[Tensor, "m"]:
    """The document as it was: the inverse of :func:`move_spans` for one row without padding.

    Raises ``ValueError`` where a sentinel does not stand twice, or a span has no end.
    """
    rows, spans = moved.tolist(), {}
    found = [token for token in sentinels if token in rows]
    if any(rows.count(token) != 2 for token in found):
        raise ValueError("Each sentinel stands twice: where its span was, and before the span behind the document.")
    second = [rows.index(token, rows.index(token) + 1) for token in found]
    at = body = min(second, default=len(rows))
    while at < len(rows):
        if at not in second or end not in rows[at:]:
            raise ValueError(f"A span behind the document begins with its sentinel and ends with {end}: {rows[at:]}.")
        stop = rows.index(end, at)
        spans[rows[at]], at = rows[at + 1 : stop], stop + 1
    return moved.new_tensor([token for position in rows[:body] for token in spans.get(position, [position])])


def causal_masked_modelling(
    logits: Float[Tensor, "b n v"], moved: Int[Tensor, "b n"], mask: Bool[Tensor, "b n"], sentinels: range
) -> Float[Tensor, ""]:
    r"""Every token but the first from those before it, and no sentinel.

    .. math:: \ell = -\frac{1}{|m|} \sum_{i > 1,\; x_i \notin S} \log p(x_i \mid x_{<i})

    Without spans it is causal language modelling. Source: Aghajanyan et al. 2022 (CM3), section 2, where
    sentinels weigh 0.
    """
    asked = mask & ~((moved >= sentinels.start) & (moved < sentinels.stop))
    return masked_cross_entropy(logits[:, :-1], moved.masked_fill(~asked, IGNORED)[:, 1:])
