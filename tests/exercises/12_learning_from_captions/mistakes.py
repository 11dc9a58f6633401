"""Wrong answers that people really give, and what each is told: ``MISTAKES[task][what it says][name]``."""

from functools import partial

import torch
import torch.nn.functional as F
from common_mistakes import deaf, detached, then

from mmlearn.objectives.generative import backwards, caption_language_modelling


def _turned(tokens, mask=None, *, position=lambda i, n: n - 1 - i, padding=lambda i: i):
    """Token by token."""
    b, t = tokens.shape
    mask = torch.ones(b, t, dtype=torch.bool) if mask is None else mask
    rows = []
    for row, n in zip(tokens, mask.sum(1).tolist()):
        rows.append(torch.stack([row[position(i, n) if i < n else padding(i)] for i in range(t)]))
    return torch.stack(rows)


def _lengths_ignored(tokens, mask=None):
    """Padding becomes token 0."""
    return backwards(tokens, mask).masked_fill(~mask, 0)


def _next(logits, tokens, mask, *, shift=1, real=True, last=torch.mean):
    """What next tokens cost."""
    t = tokens.shape[1]
    logs = logits[:, : t - shift] - logits[:, : t - shift].logsumexp(-1, keepdim=True)
    each = -logs.gather(2, tokens[:, shift:, None])[..., 0]
    return last(each[mask[:, shift:]] if real else each)


def _both_ways(there, back, tokens, mask, *, turn=backwards, put=lambda x, y: x + y, **how):
    return put(_next(there, tokens, mask, **how), _next(back, turn(tokens, mask), mask, **how))


def _smoothed(logits, tokens, mask=None, label_smoothing=0.1, *, shift=1, real=True, spread=None, last=torch.mean):
    t, v = logits.shape[1:]
    mask = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask
    logs = logits[:, : t - shift].log_softmax(-1)
    hot = F.one_hot(tokens[:, shift:], v).float()
    target = (spread or (lambda hot, s: hot - s * hot + s / v))(hot, label_smoothing)
    each = -(target * logs).sum(-1)
    return last(each[mask[:, shift:]] if real else each)


def _sees(
    seq2seq, regions, mask, *, leak=False, look=None, text=None, back=True, own=None, padded=(True, True), rows=None
):
    """Blocks put together for each row; each of them may be another one."""
    made, p, t = [], regions.shape[1], mask.shape[1]
    for writes, shown, real in zip((rows or (lambda s: s))(seq2seq).tolist(), regions, mask):
        whole = torch.ones(p + t, p + t)
        past = torch.ones(t, t).tril() if text is None else text(t)
        if writes:
            whole[:p, p:], whole[p:, :p], whole[p:, p:] = float(leak), float(back), past
        if look is not None and writes:
            whole[:p, :p] = look(p)
        if own is not None and not writes:
            whole[p:, p:] = own(t)
        columns = torch.cat([shown | (not padded[0]), real | (not padded[1])])
        made.append(whole.bool() & columns)
    return torch.stack(made)


def _pooled(queries, x, mask, *, scale=lambda d: d**-0.5, hide=None, axis=-1):
    scores = torch.einsum("qd,bnd->bqn", queries, x) * scale(x.shape[-1])
    scores = (hide or (lambda s, m: s.masked_fill(~m, -torch.inf)))(scores, mask[:, None])
    weights = scores.softmax(axis).nan_to_num()
    return torch.einsum("bqn,bnd->bqd", weights, x)


def _masked_later(queries, x, mask):
    weights = (torch.einsum("qd,bnd->bqn", queries, x) / x.shape[-1] ** 0.5).softmax(-1)
    return torch.einsum("bqn,bnd->bqd", weights * mask[:, None], x)


def _mean_of_all(queries, x, mask):
    mean = (x * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
    return mean[:, None] + 0 * queries


def _two(
    u,
    w,
    logits,
    tokens,
    mask,
    scale,
    contrast_weight=1.0,
    caption_weight=2.0,
    *,
    both=(0.5, 0.5),
    use=None,
    put=None,
    **how,
):
    """Both losses, or what differs in a single position."""
    similarity = (use or (lambda s, x: s * x))(scale, torch.einsum("id,jd->ij", u, w))
    ways = [(-x.diagonal() + x.logsumexp(1)).mean() for x in (similarity, similarity.T)]
    contrast = both[0] * ways[0] + both[1] * ways[1]
    put = put or (lambda x, y, a, c: a * x + c * y)
    return put(contrast, _next(logits, tokens, mask, **how), contrast_weight, caption_weight)


def _gated(text, seen, weight, bias, *, order=lambda x, y: (x, y), squash=torch.sigmoid, last=lambda g, x, y: g * y):
    score = torch.cat(order(text, seen), -1) @ weight.T + bias
    return last(squash(score), text, seen)


def _parts(part, phase, *, learns=None):
    """By a table of phases."""
    table = {1: (0, 1), 2: (2, 3), 3: (0, 1, 2, 3)} | (learns or {})
    return torch.stack([(part == one) for one in table[phase]]).any(0)


def _left_out(reviews, *, sources=lambda n, i: [j for j in range(n) if j != i], targets=lambda x: x.clone()):
    n = len(reviews)
    return torch.stack([reviews[sources(n, i)] for i in range(n)]), targets(reviews)


RIGHT = {  # right answers that are written in another way than the library's
    "backwards": _turned,
    "bicaptioning": _both_ways,
    "caption_language_modelling": _smoothed,
    "seq2seq_mask": lambda seq2seq, regions, mask: (
        _sees(seq2seq, regions, mask) & torch.cat([regions, mask], 1)[:, :, None]  # padding sees nothing
    ),
    "pool_by_attention": _pooled,
    "contrast_and_caption": _two,
    "forget_gate": _gated,
    "what_learns": _parts,
    "leave_one_out": _left_out,
}

MISTAKES = {
    "backwards": {
        "here whole rows are turned": {"flip": lambda tokens, mask=None: tokens.flip(1)},
        "here the batch is": {"another axis": lambda tokens, mask=None: tokens.flip(0)},
        "these are as they were": {"nothing": lambda tokens, mask=None: tokens.clone()},
        "Start and end must change places": {
            "ends stay": partial(_turned, position=lambda i, n: i if i in (0, n - 1) else n - 1 - i)
        },
        "Padding must stay as it is": {"zeros": _lengths_ignored},
        "must take its position from behind": {"one off": partial(_turned, position=lambda i, n: (n - i) % n)},
        "Without a mask": {
            "as it was": lambda tokens, mask=None: tokens.clone() if mask is None else backwards(tokens, mask)
        },
        "must hold whole numbers": {"floats": then(backwards, torch.Tensor.float)},
    },
    "bicaptioning": {
        "here for the text": {"the text again": partial(_both_ways, turn=lambda tokens, mask: tokens)},
        "here it leads": {"flip": partial(_both_ways, turn=lambda tokens, mask: tokens.flip(1))},
        "here they belong to their own": {"not shifted": partial(_both_ways, shift=0)},
        "Padding must not count": {"padding": partial(_both_ways, real=False)},
        "here only the forward one": {"forward": partial(_both_ways, put=lambda x, y: x)},
        "here only the backward one": {"backward": partial(_both_ways, put=lambda x, y: y)},
        "here it is their mean": {"a mean": partial(_both_ways, put=lambda x, y: (x + y) / 2)},
        "here it pays their sum": {"sums": partial(_both_ways, last=torch.sum)},
        "must have shape ()": {"of each token": partial(_both_ways, last=lambda each: each)},
        "A gradient must flow from the result": {"no gradient": detached(_both_ways)},
        "none comes to backward_logits": {"one is a constant": deaf(_both_ways, 1)},
    },
    "caption_language_modelling": {
        "here they belong to their own": {"not shifted": partial(_smoothed, shift=0)},
        "Padding must not count": {"padding": partial(_smoothed, real=False)},
        "here the true word has all of it": {"hard": partial(_smoothed, spread=lambda hot, s: hot)},
        "here the true one gets nothing of it": {
            "the others": partial(_smoothed, spread=lambda hot, s: (1 - s) * hot + s * (1 - hot) / (hot.shape[-1] - 1))
        },
        "here it is always 0.1": {
            "a constant": lambda logits, tokens, mask=None, label_smoothing=0.1: _smoothed(logits, tokens, mask)
        },
        "must have shape ()": {"of each token": partial(_smoothed, last=lambda each: each)},
        "A gradient must flow from the result": {"no gradient": detached(caption_language_modelling)},
    },
    "seq2seq_mask": {
        "Padding of texts": {"padding": partial(_sees, padded=(True, False))},
        "Regions that are no regions": {"all regions": partial(_sees, padded=(False, True))},
        "Read both ways, all must see all": {
            "always a past": partial(_sees, rows=torch.ones_like),
            "the other rows": partial(_sees, rows=lambda seq2seq: ~seq2seq),
        },
        "no region must see a word": {"a leak": partial(_sees, leak=True)},
        "Regions must see each other": {"alone": partial(_sees, look=torch.eye)},
        "A word must see all regions": {"blind": partial(_sees, back=False)},
        "must not see later ones": {"no past": partial(_sees, text=lambda t: torch.ones(t, t))},
        "A word must see itself": {"not itself": partial(_sees, text=lambda t: torch.ones(t, t).tril(-1))},
        "A word must see all words before it": {
            "one before": partial(_sees, text=lambda t: torch.ones(t, t).tril() - torch.ones(t, t).tril(-2))
        },
        "must be boolean": {"whole numbers": then(_sees, torch.Tensor.int)},
    },
    "pool_by_attention": {
        "Padding must not be read": {"no mask": partial(_pooled, hide=lambda scores, mask: scores)},
        "here padding takes some": {"masked later": _masked_later},
        "A score of 0 is no mask": {"zeros": partial(_pooled, hide=lambda scores, mask: scores * mask)},
        "here they are not": {"no scale": partial(_pooled, scale=lambda d: 1.0)},
        "here by d": {"by d": partial(_pooled, scale=lambda d: 1 / d)},
        "here queries share each token": {"over queries": partial(_pooled, axis=1)},
        "here it is the mean of all tokens": {"a mean": _mean_of_all},
        "must have shape": {"transposed": then(_pooled, lambda y: y.mT)},
        "none comes to queries": {"queries are constants": deaf(_pooled, 0)},
    },
    "contrast_and_caption": {
        "here only pictures pick": {"pictures": partial(_two, both=(1, 0))},
        "here only texts pick": {"texts": partial(_two, both=(0, 1))},
        "here it is their sum": {"a sum": partial(_two, both=(1, 1))},
        "here they are exchanged": {"exchanged": partial(_two, put=lambda x, y, a, c: c * x + a * y)},
        "here they are added as they are": {"no weights": partial(_two, put=lambda x, y, a, c: x + y)},
        "here only the contrast does": {"contrast": partial(_two, put=lambda x, y, a, c: a * x + 0 * y)},
        "here only the caption does": {"caption": partial(_two, put=lambda x, y, a, c: 0 * x + c * y)},
        "here it divides": {"divided": partial(_two, use=lambda s, x: x / s)},
        "Cosines must be scaled": {"not scaled": partial(_two, use=lambda s, x: x)},
        "here they belong to their own": {"not shifted": partial(_two, shift=0)},
        "Padding must not count": {"padding": partial(_two, real=False)},
        "none comes to text_embedding": {"texts are constants": deaf(_two, 1)},
    },
    "forget_gate": {
        "this is the gate itself": {"the gate": partial(_gated, last=lambda g, x, y: g)},
        "here it is for the text": {"the text": partial(_gated, last=lambda g, x, y: g * x)},
        "here it shuts out": {"shut": partial(_gated, last=lambda g, x, y: y - g * y)},
        "here it is a tanh": {"tanh": partial(_gated, squash=torch.tanh)},
        "here it has no sigmoid": {"linear": partial(_gated, squash=lambda score: score)},
        "here they share 1": {"softmax": partial(_gated, squash=lambda score: score.softmax(-1))},
        "here the text is added": {"a residual": partial(_gated, last=lambda g, x, y: x + g * y)},
        "The text must stand before": {"turned": partial(_gated, order=lambda x, y: (y, x))},
        "The bias must count": {"no bias": lambda text, seen, weight, bias: _gated(text, seen, weight, 0 * bias)},
        "none comes to text": {"the text is a constant": deaf(_gated, 0)},
    },
    "what_learns": {
        "Text encoder and decoder must learn": {
            "the decoder alone": partial(_parts, learns={1: (1,)}),
            "the encoder alone": partial(_parts, learns={1: (0,)}),
        },
        "There are only texts yet": {"all at once": partial(_parts, learns={1: (0, 1, 2, 3)})},
        "The decoder must stay as it is": {"with the decoder": partial(_parts, learns={2: (1, 2, 3)})},
        "The text encoder must stay": {"with texts": partial(_parts, learns={2: (0, 2, 3)})},
        "The picture encoder must learn": {"tables alone": partial(_parts, learns={2: (3,)})},
        "The table encoder must learn": {"pictures alone": partial(_parts, learns={2: (2,)})},
        "All must learn together": {"the decoder stays": partial(_parts, learns={3: (0, 2, 3)})},
        "must be boolean": {"whole numbers": then(_parts, torch.Tensor.int)},
    },
    "leave_one_out": {
        "Target i must be review i": {"turned": partial(_left_out, targets=lambda x: x.flip(0))},
        "No review must be read that is to be written": {
            "all but the last": partial(_left_out, sources=lambda n, i: list(range(n - 1)))
        },
        "Sources must stand in the order": {
            "the following ones": partial(_left_out, sources=lambda n, i: [(i + 1 + j) % n for j in range(n - 1)])
        },
        "here one is missing": {
            "one twice": partial(
                _left_out,
                sources=lambda n, i: [j for j in range(n) if j != i][:-1] + [j for j in range(n) if j != i][:1],
            )
        },
        "must have shape": {"all": partial(_left_out, sources=lambda n, i: list(range(n)))},
        "It must return sources and targets": {"sources alone": then(_left_out, lambda both: both[0])},
    },
}
