"""Wrong answers that only rare inputs give away, and what each is told: ``RARE[task][what it says][name]``."""

import torch


def _best(queries, texts, *, last=None):
    return last(torch.einsum("bqd,md->bmq", queries, texts))


def _from_zero(every):
    best = torch.zeros(every.shape[:-1])
    for q in range(every.shape[-1]):
        best = torch.maximum(best, every[..., q])
    return best


RARE = {
    "query_text_similarity": {
        "It must be the highest": {"from zero": lambda q, t: _best(q, t, last=_from_zero)},
        "It must be the highest of them, which is below": {
            "not below 0": lambda q, t: _best(q, t, last=lambda s: s.amax(-1).clamp(min=0))
        },
        "For a batch of one: Its result must have shape": {
            "squeezed": lambda q, t: _best(q, t, last=lambda s: s.amax(-1)).squeeze()
        },
    }
}
