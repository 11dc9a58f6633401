"""Wrong answers that only rare inputs give away, and what each is told: ``RARE[task][what it says][name]``."""

import math

import torch

from mmlearn.models.trimodal.drop_token import drop_tokens


def _drop(x, mask, rate, generator, *, up=lambda y: math.ceil(y - 1e-9), most=None, chance=None, fill=True, none=None):
    b, n, _ = x.shape
    real = torch.ones(b, n, dtype=torch.bool) if mask is None else mask
    k = (most or up)((1 - rate) * n)
    rows = []
    for row in range(b):
        at = real[row].nonzero()[:, 0]
        keep = min(up((1 - rate) * len(at)), len(at))
        noise = torch.rand(len(at), generator=generator)
        chosen = at[noise.argsort()[:keep]].sort().values
        others = torch.tensor([i for i in range(n) if i not in chosen.tolist()], dtype=torch.long)
        if fill:
            others = torch.cat([others[~real[row][others]], others[real[row][others]]])
        rows.append((torch.cat([chosen, others])[:k], torch.arange(k) < keep))
    position, kept = torch.stack([one for one, _ in rows]), torch.stack([one for _, one in rows])
    if rate == 0:
        return x, real, torch.arange(n).expand(b, n)
    return x.gather(1, position[..., None].expand(-1, -1, x.shape[2])), kept, position


RARE = {
    "drop_tokens": {
        "?": {
            "rows rounded as floats": lambda x, mask, rate, g: _rows_as_floats(x, mask, rate, g),
            "no rounding of rows": lambda x, mask, rate, g: _ceil_rows(x, mask, rate, g),
            "fill is shared": lambda *given: _drop(*given),
        },
    },
}


def _rows_as_floats(x, mask, rate, generator):
    """Of (1 - 0.7) · 10 real tokens four, in rows that are padded."""
    tokens, kept, position = drop_tokens(x, mask, rate, generator)
    if mask is None:
        return tokens, kept, position
    return _drop(x, mask, rate, generator, up=math.ceil, most=lambda y: math.ceil(y - 1e-9))


def _ceil_rows(x, mask, rate, generator):
    return _drop(x, mask, rate, generator, up=lambda y: max(1, math.ceil(y - 1e-9)) if mask is None else math.ceil(y - 1e-9))
