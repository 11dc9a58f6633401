"""Wrong answers that only rare inputs give away, and what each is told: ``RARE[task][what it says][name]``."""

import torch


def _gaps(order, text, hidden, mask_token, end_token, *, mask=None, end=None):
    mask, end = mask_token if mask is None else mask, end_token if end is None else end
    before = torch.cat([torch.tensor([False]), hidden[:-1]])
    gaps = torch.where(hidden, mask, text)[~(hidden & before)]
    return torch.cat([order, gaps, torch.tensor([end])]), torch.cat([text, torch.tensor([end])])


def _unique(order, text, hidden, mask_token, end_token):
    gaps = torch.where(hidden, mask_token, text).unique_consecutive()
    end = torch.tensor([end_token])
    return torch.cat([order, gaps, end]), torch.cat([text, end])


def _rates(sizes, t, limit, root=lambda x, t: x ** (1 / t)):
    weight = root(sizes.clamp(max=limit).float(), t)
    return weight / weight.sum()


RARE = {
    "quantise": {
        "bins: It must be the nearest bin": {
            "bytes": lambda x, bins: (x * (bins - 1)).round().to(torch.uint8),
            "signed bytes": lambda x, bins: (x * (bins - 1)).round().to(torch.int8),
            "half": lambda x, bins: (x.half() * (bins - 1)).round().long(),
            "at least 2": lambda x, bins: (x * max(bins - 1, 10)).round().long(),
        }
    },
    "mixing_rates": {
        "With one task: Its result must have shape": {"squeezed": lambda s, t, limit: _rates(s, t, limit).squeeze()},
        "At a temperature of a half: It must be the square of sizes": {
            "root of whole": lambda s, t, limit: _rates(s, max(t, 1.0), limit)
        },
        "several tasks are above the limit: The limit must cut each of them": {
            "limit without the largest": lambda s, t, limit: _rates(
                torch.where(s == s.max(), s.clamp(max=limit), s), t, 10**12
            )
        },
    },
    "infilling_task": {
        "With spans inside: Each span must become one mask, however long": {
            "mask is 3": lambda *given: _gaps(*given, mask=3)
        },
        "With spans inside: What is read must end with the end token": {
            "end is 2": lambda *given: _gaps(*given, end=2)
        },
        "With spans inside: Its result must have shape": {"repeats merged": _unique},
    },
}
