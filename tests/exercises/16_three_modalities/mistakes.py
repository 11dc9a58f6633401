"""Wrong answers that people really give, and what each is told: ``MISTAKES[task][what it says][name]``."""

import math
from functools import partial

import torch
import torch.nn.functional as F
from common_mistakes import from_global_state, from_own_seed, then

from mmlearn.models.trimodal.drop_token import drop_tokens
from mmlearn.models.trimodal.mult import read_others
from mmlearn.objectives import binding_loss, info_nce, mil_nce

# Fewer tokens.


def _share(n, rate):
    return math.ceil((1 - rate) * n - 1e-9)


def _drop(
    x,
    mask,
    rate,
    generator,
    *,
    draw=lambda b, n, generator: torch.rand(b, n, generator=generator),
    share=_share,
    padding_last=True,
    own_share=True,
    first_real=True,
    sort=True,
):
    """DropToken, or what differs in a single position."""
    b, n, _ = x.shape
    mask = torch.ones(b, n, dtype=torch.bool) if mask is None else mask
    if rate == 0 and share is _share:
        return x, mask, torch.arange(n).expand(b, n)
    chance = draw(b, n, generator)
    drawn = (chance.masked_fill(~mask, 2) if padding_last else chance).argsort(1)[:, : share(n, rate)]
    kept = mask.gather(1, drawn)
    if own_share:
        kept = kept & (torch.arange(drawn.shape[1]) < torch.tensor([share(int(k), rate) for k in mask.sum(1)])[:, None])
    if sort:
        order = torch.where(kept | (not first_real), drawn, drawn + n).argsort(1)
        drawn, kept = drawn.gather(1, order), kept.gather(1, order)
    return x.gather(1, drawn[..., None].expand(-1, -1, x.shape[2])), kept, drawn


def _sorted_after(x, mask, rate, generator):
    """Tokens as they were drawn, and then the positions in order."""
    tokens, kept, position = _drop(x, mask, rate, generator, sort=False)
    return tokens, kept, position.sort(1).values


def _gone_as_zeros(x, mask, rate, generator):
    tokens, kept, position = drop_tokens(x, mask, rate, generator)
    whole = torch.zeros_like(x).scatter(1, position[..., None].expand_as(tokens), tokens)
    return whole, torch.zeros(x.shape[:2], dtype=torch.bool).scatter(1, position, kept), torch.arange(x.shape[1])


def _all_is_real(x, mask, rate, generator):
    tokens, kept, position = drop_tokens(x, mask, rate, generator)
    return tokens, torch.ones_like(kept) if rate else kept, position


# Pairs, sets of texts, and what is missing.


def _mil(
    video,
    text,
    scale,
    candidate_mask=None,
    *,
    together=lambda logits: logits.logsumexp(-1),
    hidden=-1e9,
    below=lambda pairs: torch.cat([pairs, pairs.T.masked_fill(torch.eye(len(pairs), dtype=torch.bool), -1e9)], 1),
    mean=lambda loss, rows: loss.masked_fill(~rows, 0).sum() / rows.sum().clamp(min=1),
):
    """MIL-NCE, or what differs in a single position."""
    logits = scale * torch.einsum("id,jcd->ijc", video, text)
    if candidate_mask is None:
        candidate_mask = torch.ones(text.shape[:2], dtype=torch.bool)
    pairs = together(logits.masked_fill(~candidate_mask, hidden))
    return mean(below(pairs).logsumexp(1) - pairs.diagonal(), candidate_mask.any(1))


def _without_own(pairs):
    own = torch.eye(len(pairs), dtype=torch.bool)
    return torch.cat([pairs.masked_fill(own, -1e9), pairs.T.masked_fill(own, -1e9)], 1)


def _each_text_by_itself(video, text, scale, candidate_mask=None):
    return torch.stack([mil_nce(video, part[:, None], scale) for part in text.unbind(1)]).mean()


def _exp_over_sum(video, text, scale, candidate_mask=None):
    pairs = (scale * torch.einsum("id,jcd->ijc", video, text)).exp()
    pairs = (pairs if candidate_mask is None else pairs * candidate_mask).sum(-1)
    own = pairs.diagonal()
    rows = own > 0
    return -(own / (pairs.sum(1) + pairs.sum(0) - own))[rows].log().mean()


def _both_ways(video, text, scale, candidate_mask=None):
    pairs = (scale * torch.einsum("id,jcd->ijc", video, text)).logsumexp(-1)
    own = torch.arange(len(pairs))
    return (F.cross_entropy(pairs, own) + F.cross_entropy(pairs.T, own)) / 2


def _contrast(image, other, scale, positives=None, *, join=lambda one, two: (one + two) / 2):
    """InfoNCE that does not mind an empty batch."""
    logits = scale * image @ other.T
    fits = torch.eye(len(logits)) if positives is None else positives.float()
    one = -((fits / fits.sum(1, keepdim=True)) * logits.log_softmax(1)).sum(1).mean()
    two = -((fits.T / fits.T.sum(1, keepdim=True)) * logits.T.log_softmax(1)).sum(1).mean()
    return join(one, two)


def _bind(image, other, scale, present, positives=None, *, loss=_contrast, part=lambda p, m: p[m][:, m], nothing=None):
    """Binding, or what differs in a single position."""
    if not present.any() and nothing is not False:
        return 0 * (image.sum() + other.sum()) if nothing is None else nothing
    positives = None if positives is None else part(positives, present)
    return loss(image[present], other[present], scale, positives)


def _zeroed(image, other, scale, present, positives=None):
    return _contrast(image * present[:, None], other * present[:, None], scale, positives)


def _after_the_softmax(image, other, scale, present, positives=None, *, leave_out=lambda logits, present: logits):
    """All b rows compete; the mean is over those that are present."""
    logits = scale * image @ other.T
    own = torch.eye(len(image)) if positives is None else positives.float()
    total = 0 * logits.sum()
    for z, fits in ((leave_out(logits, present), own), (logits.T, own.T)):
        rows = -((fits / fits.sum(1, keepdim=True)) * z.log_softmax(1)).masked_fill(fits == 0, 0).sum(1)
        total = total + rows[present].sum() / present.sum().clamp(min=1) / 2
    return total


def _over_all(image, other, scale, present, positives=None):
    return binding_loss(image, other, scale, present, positives) * present.float().mean()


# One sequence reads the others.


def _read(target, sources, masks, looks, *, see=lambda look, x, source, mask: look(x, source, mask), join=torch.cat):
    read = [see(look, target, source, mask) for source, mask, look in zip(sources, masks, looks)]
    return join(read, dim=-1)


def _one_after_another(target, sources, masks, looks):
    read = []
    for source, mask, look in zip(sources, masks, looks):
        target = look(target, source, mask)
        read.append(target)
    return torch.cat(read, dim=-1)


RIGHT = {  # right answers that are written in another way than the library's
    "drop_tokens": _drop,
    "mil_nce": _mil,
    "binding_loss": _bind,
    "read_others": _read,
}

MISTAKES = {
    "drop_tokens": {
        "must have shape": {
            "rate is what is kept": partial(_drop, share=lambda n, rate: math.ceil(rate * n - 1e-9)),
            "zeros": _gone_as_zeros,
        },
        "Each row must keep tokens of its own choice": {
            "the first ones": partial(_drop, draw=lambda b, n, generator: torch.arange(float(n)).div(n).expand(b, n)),
            "one choice for all": partial(
                _drop, draw=lambda b, n, generator: torch.rand(n, generator=generator).expand(b, n)
            ),
        },
        "must stay in its order": {"as they were drawn": partial(_drop, sort=False)},
        "token and position do not belong together": {"positions sorted afterwards": _sorted_after},
        "Seven tokens at rate 0.75": {"rounded down": partial(_drop, share=lambda n, rate: int((1 - rate) * n + 1e-9))},
        "Ten tokens at rate 0.7": {
            "one too many by rounding": partial(_drop, share=lambda n, rate: math.ceil((1 - rate) * n))
        },
        "The same seed must give the same result": {"torch's own generator": from_global_state(drop_tokens)},
        "Another seed must give another result": {"a seed of its own": from_own_seed(drop_tokens)},
        "must keep half of them, rounded up": {
            "padding as likely": partial(_drop, padding_last=False, own_share=False),
            "as many real ones as fit": partial(_drop, own_share=False),
        },
        "must say of each kept token whether it is real": {"all is real": _all_is_real},
        "At rate 0 nothing may be dropped or moved": {
            "True for what is not real": then(drop_tokens, lambda y: y._replace(mask=~y.mask))
        },
        "It must return tokens, mask and position": {"tokens alone": then(drop_tokens, lambda y: y.tokens)},
        "must leave its arguments as they are": {
            "in place": lambda x, mask, rate, generator: drop_tokens(x.mul_(1 - rate), mask, rate, generator)
        },
    },
    "mil_nce": {
        "the loss must be ln(2b - 1)": {
            "rows only": partial(_mil, below=lambda pairs: pairs),
            "the diagonal twice": partial(_mil, below=lambda pairs: torch.cat([pairs, pairs.T], 1)),
            "two softmaxes": _both_ways,
            "its own not below the line": partial(_mil, below=_without_own),
            "a sum over rows": partial(_mil, mean=lambda loss, rows: loss.masked_fill(~rows, 0).sum()),
        },
        "It must be enough that one of the texts fits": {"each text by itself": _each_text_by_itself},
        "Candidates must be compared with the video before they are put together": {
            "the mean of logits": partial(_mil, together=lambda logits: logits.mean(-1)),
            "the mean text": lambda video, text, scale, mask=None: mil_nce(video, text.mean(1, keepdim=True), scale),
        },
        "share among all pairs of the row and of the column": {
            "the best text": partial(_mil, together=lambda logits: logits.amax(-1))
        },
        "At logit_scale 100": {"exp that overflows": _exp_over_sum},
        "A text that does not exist must change nothing": {
            "no mask": lambda video, text, scale, mask=None: mil_nce(video, text, scale),
            "an inverted mask": lambda video, text, scale, mask=None: mil_nce(
                video, text, scale, None if mask is None else ~mask
            ),
        },
        "With candidate_mask: It must agree": {"a logit of 0": partial(_mil, hidden=0.0)},
        "A video without any text must take no part as a row": {
            "the mean over all rows": partial(_mil, mean=lambda loss, rows: loss.masked_fill(~rows, 0).mean())
        },
        "A gradient must flow": {
            "no graph": lambda video, text, scale, mask=None: mil_nce(video, text, scale, mask).detach()
        },
    },
    "binding_loss": {
        "mean of both directions": {
            "one direction": partial(_bind, loss=partial(_contrast, join=lambda one, two: one)),
            "both added": partial(_bind, loss=partial(_contrast, join=torch.add)),
        },
        "What stands where no sound is must change nothing": {
            "all rows": lambda u, v, scale, present, positives=None: info_nce(u, v, scale, positives),
            "left out after the softmax": _after_the_softmax,
        },
        "True must mean that a row is present": {
            "inverted": lambda u, v, scale, present, positives=None: binding_loss(
                u, v, scale, present if present.all() else ~present, positives
            )
        },
        "A picture without a sound must change nothing": {
            "pictures compete": partial(
                _after_the_softmax, leave_out=lambda logits, present: logits.masked_fill(~present[None], -torch.inf)
            )
        },
        "InfoNCE among the rows that are present": {"made zero": _zeroed, "divided by b": _over_all},
        "Where one caption is present twice": {
            "no positives": lambda u, v, scale, present, positives=None: binding_loss(u, v, scale, present),
            "the first rows of positives": partial(_bind, part=lambda p, m: p[: m.sum(), : m.sum()]),
            "rows of positives alone": partial(_bind, part=lambda p, m: p[m]),
        },
        "Where none is present": {
            "a mean over nothing": partial(_bind, nothing=False),
            "a 0 without a graph": partial(_bind, nothing=torch.tensor(0.0)),
        },
        "A gradient must flow to every input": {
            "no graph": lambda u, v, scale, present, positives=None: binding_loss(
                u.detach(), v, scale, present, positives
            )
        },
    },
    "read_others": {
        "What is read of the first source must stand first": {
            "the second first": lambda x, sources, masks, looks: read_others(x, sources[::-1], masks[::-1], looks[::-1])
        },
        "The target must ask and the source be read": {
            "the other way": partial(_read, see=lambda look, x, source, mask: look(source, x, None))
        },
        "The target must read the others, not itself": {
            "itself": partial(_read, see=lambda look, x, source, mask: look(x, x, None))
        },
        "Each look must begin with the target as it was": {"one after another": _one_after_another},
        "here a mask is missing": {"no masks": partial(_read, see=lambda look, x, source, mask: look(x, source, None))},
        "here a mask is inverted": {
            "inverted masks": partial(_read, see=lambda look, x, source, mask: look(x, source, ~mask))
        },
        "The mask must be that of the source which is read": {
            "masks exchanged": lambda x, sources, masks, looks: read_others(x, sources, masks[::-1], looks)
        },
        "Each source must be read by the look that is meant for it": {
            "looks exchanged": lambda x, sources, masks, looks: read_others(x, sources, masks, looks[::-1]),
            "one look for all": lambda x, sources, masks, looks: read_others(
                x, sources, masks, [looks[0]] * len(sources)
            ),
        },
        "Each part must be what its look gives": {
            "the target is added": partial(_read, see=lambda look, x, source, mask: x + look(x, source, mask))
        },
        "must have shape (2, 6, 10)": {
            "one below the other": partial(_read, join=lambda read, dim: torch.cat(read, 1)),
            "added": partial(_read, join=lambda read, dim: sum(read)),
        },
        "One source": {
            "always two": lambda x, sources, masks, looks: (
                read_others(x, sources[:2], masks[:2], looks[:2])[..., : 2 * x.shape[2]]
                if len(sources) > 1
                else read_others(x, [*sources] * 2, [*masks] * 2, [*looks] * 2)
            )
        },
    },
}
