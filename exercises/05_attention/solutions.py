"""Plain answers to the tasks; each comment is one step, and what ``mmlearn exercises hint`` gives."""

import math

import torch
from einops import rearrange, reduce


def patchify(image, size):
    # Keep only whole patches: so many rows and columns of them fit.
    rows, columns = image.shape[2] // size, image.shape[3] // size
    image = image[:, :, : rows * size, : columns * size]
    # Height is (row y) and width is (column x): y and x count within a patch. Patches come row by row, so (row column)
    # is one axis; within a patch the channel is outermost, so (c y x) is the last one.
    return rearrange(image, "b c (row y) (column x) -> b (row column) (c y x)", y=size, x=size)


def sinusoidal_positions(length, width):
    # Positions are a column, and the pairs i a row: their quotient is a table of angles (length, width / 2).
    position = torch.arange(length)[:, None]
    # Pair i turns by 10000^(-2i/d); torch.arange(0, width, 2) is 2i already.
    angle = position / 10000 ** (torch.arange(0, width, 2) / width)
    # Sine and cosine take turns along the width: stack them on a new last axis, and join the last two axes.
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)


def select_tokens(x, position):
    # Index both axes at once: row i with position[i]. The rows are torch.arange(b).
    return x[torch.arange(len(x)), position]


def attention_weights(query, key, mask=None, causal=False):
    # A score for each query and key: a product over the width of a head, divided by its root.
    scores = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])
    # Which keys may be attended, (b, h, q, n): all at first, and then less.
    allowed = torch.ones_like(scores, dtype=torch.bool)
    if mask is not None:
        # The mask lies along the keys, so it gets axes of length 1 for heads and queries.
        allowed = allowed & mask[:, None, None, :]
    if causal:
        # The last query stands at the last key: a lower triangle, shifted by as many positions as there are more keys.
        q, n = scores.shape[-2:]
        allowed = allowed & torch.ones(q, n, dtype=torch.bool).tril(n - q)
    # Hide what is not allowed before the softmax, with a finite number so low that its weight is 0. Where nothing is
    # allowed the softmax gives equal shares: multiply by what is allowed, which makes them 0.
    return scores.masked_fill(~allowed, torch.finfo(scores.dtype).min).softmax(-1) * allowed


def attention(query, key, value, mask=None, causal=False):
    scores = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])
    allowed = torch.ones_like(scores, dtype=torch.bool)
    if mask is not None:
        # Bring every form of the mask to four axes: (b, n) lacks heads and queries, (b, q, n) lacks heads.
        if mask.ndim == 2:
            mask = mask[:, None, None, :]
        elif mask.ndim == 3:
            mask = mask[:, None]
        allowed = allowed & mask
    if causal:
        # As in attention_weights: the last query stands at the last key.
        q, n = scores.shape[-2:]
        allowed = allowed & torch.ones(q, n, dtype=torch.bool).tril(n - q)
    # The weights are those of attention_weights; a query that may attend nothing has weights of 0, and so gets zeros.
    weights = scores.masked_fill(~allowed, torch.finfo(scores.dtype).min).softmax(-1) * allowed
    # The weighted mean of the values is one product of matrices.
    return weights @ value


def on_grid(masks, grid):
    rows, columns = grid
    # Booleans become numbers, so that a mean is a share.
    # Height is (row y) and width is (column x); the mean is over y and x, and patches come in reading order.
    return reduce(masks.float(), "n (row y) (column x) -> n (row column)", "mean", row=rows, column=columns)


def pointing_accuracy(maps, regions):
    # All patches that are as high as the highest of their map: several where they are equal.
    highest = maps == maps.amax(-1, keepdim=True)
    # Which patches belong to the region.
    inside = regions >= 0.1
    # Of the highest patches of each map, the share that lies inside; then the mean over maps.
    share = (highest & inside).sum(-1) / highest.sum(-1)
    return share.mean().item()


def entropy(maps):
    # Each map is divided by its own sum.
    weights = maps / maps.sum(-1, keepdim=True)
    # -w ln w, in which 0 ln 0 is 0: torch.special.entr.
    spread = torch.special.entr(weights).sum(-1)
    # The most that is possible is ln p, for a flat map: divide by it, and take the mean over maps.
    return (spread / math.log(maps.shape[-1])).mean().item()


def mass_ratio(maps, regions):
    weights = maps / maps.sum(-1, keepdim=True)
    # A patch is in or out.
    inside = (regions >= 0.1).float()
    # Of each map: the weight inside, over the share of all patches that is inside; then the mean over maps.
    return ((weights * inside).sum(-1) / inside.mean(-1)).mean().item()
