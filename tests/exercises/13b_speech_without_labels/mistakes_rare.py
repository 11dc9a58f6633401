"""Wrong answers that only rare inputs give away, and what each is told: ``RARE[task][what it says][name]``."""

from functools import partial

import torch
import torch.nn.functional as F


def _spans(real, *, generator, probability=0.065, length=10, often):
    n = real.sum(1)
    u = torch.rand(len(real), generator=generator)
    count = torch.minimum(often(probability, n, u).clamp(min=1), (n - 1).clamp(min=0) // length)
    masked = torch.zeros_like(real)
    for i, (frames, spans) in enumerate(zip(n.tolist(), count.int().tolist())):
        if spans:
            for start in torch.randperm(frames - length + 1, generator=generator)[:spans].tolist():
                masked[i, start : start + length] = True
    return masked & real


def _distractors(masked, count, *, generator, again=True, alone=False):
    """Frame by frame."""
    drawn = torch.zeros(*masked.shape, count, dtype=torch.long)
    for i, row in enumerate(masked):
        hidden = row.nonzero()[:, 0]
        for t in hidden.tolist():
            others = hidden[hidden != t]
            if again and (len(others) or alone):
                drawn[i, t] = others[torch.randint(len(others), (count,), generator=generator)]
            elif len(others):
                drawn[i, t] = others[torch.randperm(len(others), generator=generator).repeat(count)[:count]]
    return drawn


def _shared(masked, count, *, generator):
    """All frames of a clip draw the same steps from their own place."""
    b, s = masked.shape
    out = torch.zeros(b, s, count, dtype=torch.long)
    for i, row in enumerate(masked):
        hidden = row.nonzero()[:, 0]
        if len(hidden) > 1:
            step = 1 + torch.randint(len(hidden) - 1, (count,), generator=generator)
            for j, t in enumerate(hidden.tolist()):
                out[i, t] = hidden[(j + step) % len(hidden)]
    return out


def _contrast(context, target, codes, distractor, masked, temperature=0.1, *, same=None, soft=None):
    c, q = F.normalize(context, dim=-1), F.normalize(target, dim=-1)
    row = torch.arange(len(q))[:, None, None]
    logits = torch.cat([(c * q).sum(-1, keepdim=True), (c[:, :, None] * q[row, distractor]).sum(-1)], -1) / temperature
    is_target = (same or (lambda a, b: (a == b).all(-1)))(codes[row, distractor], codes[:, :, None])
    logits[..., 1:] = logits[..., 1:].masked_fill(is_target, -torch.inf)
    if soft:
        each = soft(logits)
    else:
        each = logits.logsumexp(-1) - logits[..., 0]
    return (each * masked).sum() / masked.sum().clamp(min=1)


def _by_exp(logits):
    p = logits.exp()
    return (p.sum(-1) / p[..., 0]).log()


RARE = {
    "mask_spans": {
        "by chance; here it is": {"one number for all": partial(_spans, often=lambda p, n, u: (p * n + u[:1]).floor())},
        "in a fifth of the cases; here it is": {
            "of the longest": partial(_spans, often=lambda p, n, u: (p * n.max() + u).floor()),
            "one up": partial(_spans, often=lambda p, n, u: (p * n).floor() + (u < 0.5)),
        },
    },
    "sample_distractors": {
        "Where one frame of a clip is hidden, or none: It stops in line": {
            "fails where one is hidden": partial(_distractors, alone=True)
        },
        "may come twice: of two of four it does in a quarter of the cases.": {
            "each once": partial(_distractors, again=False)
        },
        "draw its own distractors; here all take the same steps from their own": {"the same steps": _shared},
    },
    "distractor_contrast": {
        "opposite: Its result must be finite; this one holds NaN or infinity": {
            "exp": partial(_contrast, soft=_by_exp)
        },
        "With three codebooks: All codes must be the target's.": {
            "two books": partial(_contrast, same=lambda a, b: (a[..., [0, -1]] == b[..., [0, -1]]).all(-1)),
            "by sum of codes": partial(_contrast, same=lambda a, b: a.sum(-1) == b.sum(-1)),
        },
    },
}
