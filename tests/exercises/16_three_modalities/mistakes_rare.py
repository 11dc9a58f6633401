"""Wrong answers that only rare inputs give away, and what each is told: ``RARE[task][what it says][name]``."""

import math
from functools import partial

import torch

from mmlearn.models.trimodal.drop_token import drop_tokens


def _drop(x, mask, rate, generator, *, up, order=torch.argsort):
    """Row by row, each by its own count."""
    if mask is None or rate == 0:
        return tuple(drop_tokens(x, mask, rate, generator))
    k, rows = math.ceil((1 - rate) * x.shape[1] - 1e-9), []
    for real in mask:
        at, rest = real.nonzero()[:, 0], (~real).nonzero()[:, 0]
        keep = up((1 - rate) * len(at))
        mixed = at[order(torch.rand(len(at), generator=generator))]
        chosen, left = mixed[:keep].sort().values, mixed[keep:]
        rows.append((torch.cat([chosen, rest, left])[:k], torch.arange(k) < keep))
    position, kept = (torch.stack(parts) for parts in zip(*rows))
    return x.gather(1, position[..., None].expand(-1, -1, x.shape[2])), kept, position


RARE = {
    "drop_tokens": {
        "With ten real tokens of thirteen, at rate": {"rows rounded as floats": partial(_drop, up=math.ceil)},
        "With padding, by chance: Every real token must be kept equally often": {
            "the first real ones": partial(
                _drop, up=lambda y: math.ceil(y - 1e-9), order=lambda noise: torch.arange(len(noise))
            )
        },
    }
}
