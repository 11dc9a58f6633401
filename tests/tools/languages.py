"""Tiny languages for tests of decoding."""

import torch


def language(v=4, b=1, seed=0, sharpness=2.0, impossible=0):
    """Scores that depend on the whole text so far and, for several texts, on which of them it is.

    Behind the v tokens come so many ``impossible`` ones, because a search takes no more beams than there are tokens.
    """
    cache = {}

    def next_logits(tokens):
        rows = []
        for number, row in enumerate(tokens.tolist()):
            key = (number // (len(tokens) // b), *row)
            if key not in cache:
                generator = torch.Generator().manual_seed(hash((seed, *key)) % 2**31)
                scores = sharpness * torch.randn(v, generator=generator)
                cache[key] = torch.cat([scores, torch.full((impossible,), -torch.inf)])
            rows.append(cache[key])
        return torch.stack(rows)

    return next_logits
