"""Wrong answers that people really give, and what each is told: ``MISTAKES[task][what it says][name]``."""

from functools import partial

import torch
from common_mistakes import narrow, then

from mmlearn.objectives.boxes import dequantise, quantise


def _bin(x, bins, *, steps=-1, to=torch.round, last=torch.Tensor.long):
    return last(to(x * (bins + steps)))


def _token(number, kind, words, bins, *, first=lambda words, bins: (0, words, words + bins)):
    """Token by token."""
    begins = first(words, bins)
    return torch.tensor([begins[k] + i for i, k in zip(number.tolist(), kind.tolist())])


def _next(
    written, positions, end_token, all_tokens, *, back=2, end=False, words=False, codes=0, thin=True, order=(2, 3),
    after=None, row=lambda i: i,
):  # fmt: skip
    """Row by row and token by token, or what differs in a single position."""
    rows = []
    for i in range(len(written)):
        box = written[row(i)].tolist()
        t = len(box)
        may = [False] * all_tokens
        if t == 4 and after is None:
            may[end_token] = True
        else:
            least = box[t - back] + (not thin) if t in order else positions.start
            for token in range(0 if words else least, positions.stop + codes):
                may[token] = True
            may[end_token] = end
        rows.append(may)
    return torch.tensor(rows)


def _write(
    score, start, positions, *, back=2, seen=lambda tokens: tokens, hide=None, share=None, least=True, may_be=lambda v: 0,
    added=0, ordered=(2, 3),
):  # fmt: skip
    """With sums of minus infinity, or what differs in a single position."""
    tokens = start
    for t in range(4):
        scores = score(seen(tokens))
        number = torch.arange(scores.shape[1])
        low = torch.full((len(start), 1), positions.start)
        if t in ordered and least:
            low = tokens[:, [-back]] + added
        may = (number >= low) & (number < positions.stop)
        scores = scores + torch.zeros_like(scores).masked_fill(~may, -torch.inf) if hide is None else hide(scores, may)
        tokens = torch.cat([tokens, scores.argmax(1)[:, None]], 1)
    bins = tokens[:, 1:] - positions.start
    return bins / (len(positions) - 1.0) if share is None else share(bins, len(positions))


def _sorted_afterwards(score, start, positions):
    """Any four positions, and then each pair in its order."""
    box = _write(score, start, positions, least=False)
    return torch.cat([torch.minimum(box[:, :2], box[:, 2:]), torch.maximum(box[:, :2], box[:, 2:])], 1)


def _all_at_once(score, start, positions):
    """All four from the scores behind the start."""
    scores = score(start)[:, positions.start : positions.stop]
    return scores.topk(4).indices.sort(1).values / (len(positions) - 1)


RIGHT = {  # right answers that are written in another way than the library's
    "quantise": lambda x, bins: (x[..., None] - torch.linspace(0, 1, bins)).abs().argmin(-1),
    "dequantise": lambda positions, bins: torch.linspace(0, 1, bins)[positions],
    "one_vocabulary": _token,
    "next_of_box": _next,
    "write_box": _write,
}

MISTAKES = {
    "quantise": {
        "here it is the one below": {
            "no rounding": partial(_bin, to=lambda x: x),
            "floor": partial(_bin, to=torch.floor),
        },
        "here it is the one above": {"ceil": partial(_bin, to=torch.ceil)},
        "cut into B equal parts": {
            "equal parts": lambda x, bins: (x * bins).long().clamp(max=bins - 1),
            "equal parts, with buckets": lambda x, bins: torch.bucketize(x, torch.arange(1, bins) / bins, right=True),
        },
        "The last of": {"B steps": partial(_bin, steps=0), "B equal parts": partial(_bin, steps=0, to=torch.floor)},
        "here there are B": {"B steps, and cut": lambda x, bins: (x * bins).round().long().clamp(max=bins - 1)},
        "here they begin with 1": {"from 1": lambda x, bins: quantise(x, bins) + 1},
        "The first bin is 0": {"from -1": lambda x, bins: quantise(x, bins) - 1},
        "must be the last bin": {"B - 2 steps": partial(_bin, steps=-2)},
        "whole numbers": {"floats": partial(_bin, last=lambda x: x)},
        "With boxes": {"one axis": narrow(quantise)},
    },
    "dequantise": {
        "here B steps are counted": {"B steps": lambda k, bins: k / bins},
        "the middle of one of B": {"middles": lambda k, bins: (k + 0.5) / bins},
        "here they begin with 1": {"from 1": lambda k, bins: (k - 1) / (bins - 1)},
        "here they are moved by one": {"the right end of a part": lambda k, bins: (k + 1) / bins},
        "with a fraction": {"whole numbers": lambda k, bins: k // (bins - 1)},
        "the share at which a bin stands": {
            "one digit": then(dequantise, lambda x: (10 * x).round() / 10),
            "of the largest": lambda k, bins: k / k.max().clamp(min=1),
            "turned": then(dequantise, lambda x: 1 - x),
            "multiplied": lambda k, bins: k * (bins - 1.0),
        },
    },
    "one_vocabulary": {
        "Words must keep their numbers": {
            "positions first": partial(_token, first=lambda words, bins: (bins, 0, words + bins)),
            "from 1": partial(_token, first=lambda words, bins: (1, words + 1, words + bins + 1)),
        },
        "Place 0 must be": {
            "no beginnings": lambda number, kind, words, bins: number + 0,
            "one too late": partial(_token, first=lambda words, bins: (0, words + 1, words + bins + 1)),
            "one too early": partial(_token, first=lambda words, bins: (0, words - 1, words + bins - 1)),
            "a step of bins": partial(_token, first=lambda words, bins: (0, bins, 2 * bins)),
        },
        "No two may share a token": {
            "codes are positions": partial(_token, first=lambda words, bins: (0, words, words)),
            "codes one too early": partial(_token, first=lambda words, bins: (0, words, words + bins - 1)),
        },
        "Code 0 must be": {
            "a step of words": lambda number, kind, words, bins: kind * words + number,
            "a gap": partial(_token, first=lambda words, bins: (0, words, words + bins + 1)),
        },
        "whole numbers": {"floats": then(_token, torch.Tensor.float)},
    },
    "next_of_box": {
        "The end must not come": {"may stop at any time": partial(_next, end=True)},
        "No word may come": {
            "words as well": partial(_next, words=True),
            "all": lambda w, p, e, v: torch.arange(v).expand(len(w), v) > e,
        },
        "No code may come": {"one too many": partial(_next, codes=1), "codes as well": partial(_next, codes=4)},
        "here it is with the token before": {"the token before": partial(_next, back=1)},
        "must not come before the left": {
            "no order": partial(_next, order=()),
            "the bottom alone": partial(_next, order=(3,)),
            "the first row's": partial(_next, row=lambda i: 0),
        },
        "must not come before the top": {
            "the right alone": partial(_next, order=(2,)),
            "the left for both": lambda w, p, e, v: (
                _next(w[:, [0, 1, 0, 1][: w.shape[1]]], p, e, v, back=2)
                if w.shape[1] < 3
                else _next(w, p, e, v, back=w.shape[1])
            ),
        },
        "Both ends may fall into one bin": {"no thin box": partial(_next, thin=False)},
        "Behind four positions": {"on and on": partial(_next, after="places", order=(2, 3))},
        "Any position may come here": {
            "all but the last": lambda w, p, e, v: _next(w, range(p.start, p.stop - 1), e, v),
            "all but the first": lambda w, p, e, v: _next(w, range(p.start + 1, p.stop), e, v),
        },
        "Every position from there": {
            "all but the last, in the end": lambda w, p, e, v: _next(
                w, range(p.start, p.stop - (w.shape[1] in (2, 3))), e, v
            )
        },
    },
    "write_box": {
        "shares of the picture": {
            "no mask": partial(_write, hide=lambda scores, may: scores),
            "a mask of zeros": partial(_write, hide=lambda scores, may: scores * may),
            "bins": partial(_write, share=lambda bins, n: bins * 1.0),
            "codes as well": lambda score, start, positions: (
                _write(score, start, range(positions.start, positions.stop + 5)) * 2
            ),
        },
        "must not come before": {
            "no order": partial(_write, least=False),
            "the right alone": partial(_write, ordered=(2,)),
            "the bottom alone": partial(_write, ordered=(3,)),
        },
        "with those before it": {"from the start alone": partial(_write, seen=lambda tokens: tokens[:, :1])},
        "here B steps are counted": {"B steps": partial(_write, share=lambda bins, n: bins / n)},
        "the likeliest of those": {
            "sorted afterwards": _sorted_afterwards,
            "the position before alone": partial(_write, seen=lambda tokens: tokens[:, -1:]),
            "the best four": _all_at_once,
        },
        "a box can be that thin": {"no thin box": partial(_write, added=1)},
        "here all have one": {
            "the first row's": lambda score, start, positions: _write(score, start, positions)[:1].expand(len(start), 4)
        },
    },
}
