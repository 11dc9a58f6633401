"""Wrong answers that only rare inputs give away, and what each is told: ``RARE[task][what it says][name]``."""

import torch
import torch.nn.functional as F

from mmlearn.objectives.generative import caption_language_modelling


def _turned(tokens, mask):
    length = mask.sum(1, keepdim=True)
    at = torch.arange(tokens.shape[1]).expand_as(tokens)
    return tokens.gather(1, torch.where(at < length, length - 1 - at, at))


def _next(logits, tokens, mask, smooth=0.0, *, ignored=-100):
    asked = tokens.masked_fill(~mask, ignored)[:, 1:]
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), asked.flatten(), ignore_index=ignored, label_smoothing=smooth)


def _two(x, y, tokens, mask, *, said=_next):
    return said(x, tokens, mask) + said(y, _turned(tokens, mask), mask)


def _by_exp(logits, tokens, mask):
    p = logits.exp() / logits.exp().sum(-1, keepdim=True)
    cost = -p[:, :-1].gather(-1, tokens[:, 1:, None])[..., 0].log()
    return cost[mask[:, 1:]].mean()


def _contrast(u, w, scale, *, by=F.cross_entropy):
    s, own = scale * u @ w.T, torch.arange(len(u))
    return (by(s, own) + by(s.T, own)) / 2


def _softly(s, own):
    p = s.exp() / s.exp().sum(1, keepdim=True)
    return -p.diagonal().log().mean()


def _cut(s, own):
    return F.cross_entropy(s.clamp(max=100), own)


def _both(u, w, logits, tokens, mask, scale, one=1.0, two=2.0, *, by=F.cross_entropy, said=_next):
    return one * _contrast(u, w, scale, by=by) + two * said(logits, tokens, mask)


RARE = {
    "bicaptioning": {
        "It must be both causal losses": {
            "0 is padding": lambda *given: _two(*given, said=lambda x, t, m: _next(x, t, m, ignored=0))
        },
        "in the thousands: Its result must be finite": {"exp": lambda *given: _two(*given, said=_by_exp)},
    },
    "caption_language_modelling": {
        "without mask, label_smoothing: It must be what the statement says": {
            "no smoothing": lambda x, t, mask=None, label_smoothing=0.0: caption_language_modelling(
                x, t, mask, label_smoothing
            )
        },
        "mask, label_smoothing: It stops with TypeError: <lambda>() missing": {
            "a mask": lambda x, t, mask, label_smoothing=0.1: caption_language_modelling(x, t, mask, label_smoothing)
        },
        "It must be the mean cross-entropy with the smoothed target": {
            "0 is padding": lambda x, t, mask=None, label_smoothing=0.1: _next(
                x, t, torch.ones_like(t).bool() if mask is None else mask, label_smoothing, ignored=0
            )
        },
        "Without a mask: All tokens but the first must count.": {
            "0 is padding without a mask": lambda x, t, mask=None, label_smoothing=0.1: caption_language_modelling(
                x, t, t != 0 if mask is None else mask, label_smoothing
            )
        },
    },
    "contrast_and_caption": {
        "Its result must be finite; this one holds NaN or infinity": {"exp": lambda *given: _both(*given, by=_softly)},
        "It must be both losses": {"cut off": lambda *given: _both(*given, by=_cut)},
        "in the thousands: Its result must be finite": {"exp of words": lambda *given: _both(*given, said=_by_exp)},
        "It must be both losses, each with its weight": {
            "0 is padding": lambda *given: _both(*given, said=lambda x, t, m: _next(x, t, m, ignored=0))
        },
        "contrast_weight, caption_weight: It must be what the statement says": {
            "other defaults": lambda *given: _both(*given, *([1.0, 1.0][len(given) - 6 :] if len(given) < 8 else []))
        },
    },
}
