"""Wrong answers that only rare inputs give away, and what each is told: ``RARE[task][what it says][name]``."""

import torch


def _best(queries, texts, *, last=None):
    return last(torch.einsum("bqd,md->bmq", queries, texts))


def _from_zero(every):
    best = torch.zeros(every.shape[:-1])
    for q in range(every.shape[-1]):
        best = torch.maximum(best, every[..., q])
    return best


def _from_minus_one(every):
    best = torch.full(every.shape[:-1], -1.0)
    for q in range(every.shape[-1]):
        best = torch.maximum(best, every[..., q])
    return best


RARE = {
    "query_text_similarity": {
        "?": {
            "from zero": lambda q, t: _best(q, t, last=_from_zero),
            "from minus one": lambda q, t: _best(q, t, last=_from_minus_one),
            "not below 0": lambda q, t: _best(q, t, last=lambda s: s.amax(-1).clamp(min=0)),
            "squeezed": lambda q, t: _best(q, t, last=lambda s: s.amax(-1)).squeeze(),
            "by size": lambda q, t: _best(q, t, last=lambda s: s.gather(-1, s.abs().argmax(-1, keepdim=True))[..., 0]) ,
        },
    },
}
