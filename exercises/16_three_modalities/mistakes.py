"""Wrong answers that people really give, and what each is told: ``MISTAKES[task][name] = (function, fragment)``."""

import math
from functools import partial

import torch
import torch.nn.functional as F

from mmlearn.models.trimodal.drop_token import drop_tokens
from mmlearn.models.trimodal.mult import read_others
from mmlearn.objectives import binding_loss, central_moment_discrepancy, difference_loss, info_nce, mil_nce

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
    """DropToken, or what differs in a single place."""
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


def _inverted(x, mask, rate, generator):
    tokens, kept, position = drop_tokens(x, mask, rate, generator)
    return tokens, ~kept, position


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
    """MIL-NCE, or what differs in a single place."""
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
    """Binding, or what differs in a single place."""
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


# Shared and private.


def _cmd(
    x,
    y,
    moments=5,
    low=0.0,
    high=1.0,
    *,
    moment=lambda x, k: (x - x.mean(0)).pow(k).mean(0),
    norm=torch.linalg.vector_norm,
    width=lambda low, high, k: (high - low) ** k,
    last=1,
):
    """CMD, or what differs in a single place."""
    total = norm(x.mean(0) - y.mean(0)) / width(low, high, 1)
    for k in range(2, moments + last):
        total = total + norm(moment(x, k) - moment(y, k)) / width(low, high, k)
    return total


def _pooled(x, y, moments=5, low=0.0, high=1.0):
    return central_moment_discrepancy(x.flatten()[:, None], y.flatten()[:, None], moments, low, high)


def _row_by_row(x, y, moments=5, low=0.0, high=1.0):
    return (x - y).norm(dim=1).mean() / (high - low)


def _written_out(difference):
    return difference.square().sum().sqrt()


def _difference(
    x,
    y,
    *,
    centre=lambda x: x - x.mean(0),
    unit=lambda x: F.normalize(x, dim=-1, eps=1e-6),
    loss=lambda product: product.square().mean(),
):
    """The difference loss, or what differs in a single place."""
    x, y = (unit(centre(view)) for view in (x, y))
    return loss(x.T @ y)


def _unit_first(x, y):
    x, y = (F.normalize(view, dim=-1) for view in (x, y))
    x, y = (view - view.mean(0) for view in (x, y))
    return (x.T @ y).square().mean()


MISTAKES = {
    "drop_tokens": {
        "rate is what is kept": (
            partial(_drop, share=lambda n, rate: math.ceil(rate * n - 1e-9)),
            "must have shape (3, 8, 4); this one has (3, 0, 4)",
        ),
        "the first ones": (
            partial(_drop, draw=lambda b, n, generator: torch.arange(float(n)).div(n).expand(b, n)),
            "Each row must keep tokens of its own choice",
        ),
        "one choice for all": (
            partial(_drop, draw=lambda b, n, generator: torch.rand(n, generator=generator).expand(b, n)),
            "Each row must keep tokens of its own choice",
        ),
        "as they were drawn": (partial(_drop, sort=False), "must stay in its order"),
        "positions sorted afterwards": (_sorted_after, "token and position do not belong together"),
        "rounded down": (
            partial(_drop, share=lambda n, rate: int((1 - rate) * n + 1e-9)),
            "Seven tokens at rate 0.75",
        ),
        "one too many by rounding": (
            partial(_drop, share=lambda n, rate: math.ceil((1 - rate) * n)),
            "Ten tokens at rate 0.7",
        ),
        "torch's own generator": (
            lambda x, mask, rate, generator: drop_tokens(x, mask, rate, torch.default_generator),
            "The same seed must keep the same tokens",
        ),
        "a seed of its own": (
            lambda x, mask, rate, generator: drop_tokens(x, mask, rate, torch.Generator().manual_seed(0)),
            "Another seed must keep other tokens",
        ),
        "padding as likely": (
            partial(_drop, padding_last=False, own_share=False),
            "must keep half of them, rounded up",
        ),
        "as many real ones as fit": (partial(_drop, own_share=False), "must keep half of them, rounded up"),
        "all is real": (_all_is_real, "must say of each kept token whether it is real"),
        "True for what is not real": (_inverted, "At rate 0 nothing may be dropped or moved"),
        "zeros": (_gone_as_zeros, "must have shape"),
        "tokens alone": (
            lambda x, mask, rate, generator: drop_tokens(x, mask, rate, generator).tokens,
            "It must return tokens, mask and positions",
        ),
        "in place": (
            lambda x, mask, rate, generator: drop_tokens(x.mul_(1 - rate), mask, rate, generator),
            "must leave its arguments as they are",
        ),
    },
    "mil_nce": {
        "rows only": (partial(_mil, below=lambda pairs: pairs), "the loss must be ln(2b - 1)"),
        "the diagonal twice": (
            partial(_mil, below=lambda pairs: torch.cat([pairs, pairs.T], 1)),
            "the loss must be ln(2b - 1)",
        ),
        "two softmaxes": (_both_ways, "the loss must be ln(2b - 1)"),
        "its own not below the line": (partial(_mil, below=_without_own), "the loss must be ln(2b - 1)"),
        "a sum over rows": (
            partial(_mil, mean=lambda loss, rows: loss.masked_fill(~rows, 0).sum()),
            "the loss must be ln(2b - 1)",
        ),
        "each text by itself": (_each_text_by_itself, "It must be enough that one of the texts fits"),
        "the mean of logits": (
            partial(_mil, together=lambda logits: logits.mean(-1)),
            "Candidates must be compared with the video before they are put together",
        ),
        "the mean text": (
            lambda video, text, scale, mask=None: mil_nce(video, text.mean(1, keepdim=True), scale),
            "Candidates must be compared with the video before they are put together",
        ),
        "the best text": (
            partial(_mil, together=lambda logits: logits.amax(-1)),
            "share among all pairs of the row and of the column",
        ),
        "exp that overflows": (_exp_over_sum, "At logit_scale 100"),
        "no mask": (
            lambda video, text, scale, mask=None: mil_nce(video, text, scale),
            "A text that does not exist must change nothing",
        ),
        "an inverted mask": (
            lambda video, text, scale, mask=None: mil_nce(video, text, scale, None if mask is None else ~mask),
            "A text that does not exist must change nothing",
        ),
        "a logit of 0": (partial(_mil, hidden=0.0), "With candidate_mask: It must agree"),
        "the mean over all rows": (
            partial(_mil, mean=lambda loss, rows: loss.masked_fill(~rows, 0).mean()),
            "A video without any text must take no part as a row",
        ),
        "no graph": (
            lambda video, text, scale, mask=None: mil_nce(video, text, scale, mask).detach(),
            "A gradient must flow",
        ),
    },
    "binding_loss": {
        "one direction": (
            partial(_bind, loss=partial(_contrast, join=lambda one, two: one)),
            "mean of both directions",
        ),
        "both added": (partial(_bind, loss=partial(_contrast, join=torch.add)), "mean of both directions"),
        "all rows": (
            lambda u, v, scale, present, positives=None: info_nce(u, v, scale, positives),
            "What stands where no sound is must change nothing",
        ),
        "inverted": (
            lambda u, v, scale, present, positives=None: binding_loss(
                u, v, scale, present if present.all() else ~present, positives
            ),
            "True must mean that a row is present",
        ),
        "left out after the softmax": (_after_the_softmax, "What stands where no sound is must change nothing"),
        "pictures compete": (
            partial(
                _after_the_softmax, leave_out=lambda logits, present: logits.masked_fill(~present[None], -torch.inf)
            ),
            "A picture without a sound must change nothing",
        ),
        "made zero": (_zeroed, "InfoNCE among the rows that are present"),
        "divided by b": (_over_all, "InfoNCE among the rows that are present"),
        "no positives": (
            lambda u, v, scale, present, positives=None: binding_loss(u, v, scale, present),
            "Equal captions must be no wrong answers",
        ),
        "the first rows of positives": (
            partial(_bind, part=lambda p, m: p[: m.sum(), : m.sum()]),
            "Equal captions must be no wrong answers",
        ),
        "rows of positives alone": (partial(_bind, part=lambda p, m: p[m]), "Where one caption is present twice"),
        "a mean over nothing": (partial(_bind, nothing=False), "Where none is present"),
        "a 0 without a graph": (partial(_bind, nothing=torch.tensor(0.0)), "The 0 must have a graph"),
        "no graph": (
            lambda u, v, scale, present, positives=None: binding_loss(u.detach(), v, scale, present, positives),
            "A gradient must flow to every input",
        ),
    },
    "read_others": {
        "the second first": (
            lambda x, sources, masks, looks: read_others(x, sources[::-1], masks[::-1], looks[::-1]),
            "What is read of the first source must stand first",
        ),
        "the other way": (
            partial(_read, see=lambda look, x, source, mask: look(source, x, None)),
            "The target must ask and the source be read",
        ),
        "itself": (
            partial(_read, see=lambda look, x, source, mask: look(x, x, None)),
            "The target must read the others, not itself",
        ),
        "one after another": (_one_after_another, "Each look must begin with the target as it was"),
        "no masks": (
            partial(_read, see=lambda look, x, source, mask: look(x, source, None)),
            "here a mask is missing",
        ),
        "inverted masks": (
            partial(_read, see=lambda look, x, source, mask: look(x, source, ~mask)),
            "here a mask is inverted",
        ),
        "masks exchanged": (
            lambda x, sources, masks, looks: read_others(x, sources, masks[::-1], looks),
            "The mask must be that of the source which is read",
        ),
        "looks exchanged": (
            lambda x, sources, masks, looks: read_others(x, sources, masks, looks[::-1]),
            "Each source must be read by the look that is meant for it",
        ),
        "one look for all": (
            lambda x, sources, masks, looks: read_others(x, sources, masks, [looks[0]] * len(sources)),
            "Each source must be read by the look that is meant for it",
        ),
        "the target is added": (
            partial(_read, see=lambda look, x, source, mask: x + look(x, source, mask)),
            "Each part must be what its look gives",
        ),
        "one below the other": (
            partial(_read, join=lambda read, dim: torch.cat(read, 1)),
            "must have shape (2, 6, 10); this one has (2, 12, 5)",
        ),
        "added": (partial(_read, join=lambda read, dim: sum(read)), "must have shape (2, 6, 10)"),
        "always two": (
            lambda x, sources, masks, looks: (
                read_others(x, sources[:2], masks[:2], looks[:2])[..., : 2 * x.shape[2]]
                if len(sources) > 1
                else read_others(x, [*sources] * 2, [*masks] * 2, [*looks] * 2)
            ),
            "One source",
        ),
    },
    "central_moment_discrepancy": {
        "row by row": (_row_by_row, "It stops in line"),
        "squared": (partial(_cmd, norm=lambda x: x.square().sum()), "A sample that is only moved must differ"),
        "the mean over features": (partial(_cmd, norm=lambda x: x.abs().mean()), "A sample that is only moved"),
        "all features as one": (_pooled, "A sample that is only moved must differ"),
        "moments about 0": (partial(_cmd, moment=lambda x, k: x.pow(k).mean(0)), "A sample that is only moved"),
        "no width": (partial(_cmd, width=lambda low, high, k: 1), "A sample that is only moved must differ"),
        "the width, not its power": (
            partial(_cmd, width=lambda low, high, k: high - low),
            "It must be the same as for features from 0 to 1",
        ),
        "divided by n - 1": (
            partial(_cmd, moment=lambda x, k: (x - x.mean(0)).pow(k).sum(0) / (len(x) - 1)),
            "or all of them twice, must give 0",
        ),
        "a moment too few": (partial(_cmd, last=0), "With 2 moments it must sum"),
        "a moment too many": (partial(_cmd, last=2), "With one moment it must be the distance of the means"),
        "without the sign": (
            partial(_cmd, moment=lambda x, k: (x - x.mean(0)).abs().pow(k).mean(0)),
            "With 3 moments it must sum",
        ),
        "a root written out": (partial(_cmd, norm=_written_out), "Its gradient must be finite"),
        "no graph": (lambda *given: central_moment_discrepancy(*given).detach(), "A gradient must flow"),
    },
    "difference_loss": {
        "rows with rows": (lambda x, y: (x @ y.T).square().mean(), "It stops in line"),
        "centred over features": (
            partial(_difference, centre=lambda x: x - x.mean(1, keepdim=True)),
            "A constant that is added to a feature",
        ),
        "not centred": (partial(_difference, centre=lambda x: x), "A constant that is added to a feature"),
        "unit length first": (_unit_first, "A constant that is added to a feature"),
        "features of unit length": (
            partial(_difference, unit=partial(F.normalize, dim=0)),
            "A view and its opposite do vary together",
        ),
        "not squared": (partial(_difference, loss=torch.mean), "A view and its opposite do vary together"),
        "summed": (
            partial(_difference, loss=lambda product: product.square().sum()),
            "A view and its opposite do vary together",
        ),
        "the norm": (partial(_difference, loss=torch.linalg.matrix_norm), "A view and its opposite do vary together"),
        "the diagonal": (
            partial(_difference, loss=lambda product: product.diagonal().square().mean()),
            "A view and its opposite do vary together",
        ),
        "any length": (partial(_difference, unit=lambda x: x), "A view that is some times larger must give the same"),
        "divided by n": (
            lambda x, y: difference_loss(x, y) * (4 / len(x)) ** 2,
            "the mean of the squares of all d · e entries",
        ),
        "a division by 0": (
            partial(_difference, unit=lambda x: x / x.norm(dim=1, keepdim=True)),
            "One row",
        ),
        "no graph": (lambda x, y: difference_loss(x, y.detach()), "A gradient must flow to every input"),
    },
}
