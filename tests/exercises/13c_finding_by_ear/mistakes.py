"""Wrong answers that people really give, and what each is told: ``MISTAKES[task][what it says][name]``."""

import math
from functools import partial

import torch
import torch.nn.functional as F


def _question(takes, *, over=lambda x: x.sum(-2), unit=lambda x: x / x.norm(dim=-1, keepdim=True).clamp(min=1e-9)):
    """By a sum, whose direction is that of the mean, or what differs in a single position."""
    return unit(over(takes))


def _style(features, style, *, mean=None, rest=torch.sub, last=lambda x: F.normalize(x, dim=-1)):
    """By sums at the positions of styles, or what differs in a single position."""
    if mean is None:
        position = style.unique(return_inverse=True)[1]
        count = torch.bincount(position)
        sums = torch.zeros(len(count), features.shape[1]).index_add(0, position, features)
        mean = lambda x, s: (sums / count[:, None])[position]  # noqa: E731
    return last(rest(features, mean(features, style)))


def _own(features, style):
    return torch.stack([features[style == number].mean(0) for number in style])


def _of_all_styles(features, style):
    return torch.stack([features[style == number].mean(0) for number in style.unique()]).mean(0)


def _numbered(features, style):
    """As if styles were numbered from 0."""
    return _style(features, style, mean=lambda x, s: torch.stack([x[s == one].mean(0) for one in s.unique()])[s])


def _chance(right, k, *, each=None, last=lambda x: sum(x) / len(x)):
    """Place by place in plain numbers, or what differs in a single position."""
    n = right.shape[1]

    def found(r):
        missed = 1.0
        for j in range(min(k, n)):
            missed *= max(n - r - j, 0) / (n - j)
        return 1 - missed

    return last([each(n, r, k) if each else found(r) for r in right.sum(1).tolist()])


def _averaged(right, k):
    n, r = right.shape[1], right.sum(1).float().mean().item()
    return 1 - math.prod(max(0.0, n - r - j) / (n - j) for j in range(min(k, n)))


def _draw(weight, image, size, generator, *, odds=lambda w: w / w.sum(), order=lambda x: x, seen=None):
    """By even numbers on a cumulative sum, or what differs in a single position."""
    even = torch.rand(size, generator=generator)
    text = order(torch.searchsorted(odds(weight).cumsum(0), even, right=True).clamp(max=len(weight) - 1))
    return text, image[text] if seen is None else seen(image, text, generator)


def _again(image, text, generator):
    return image[torch.randint(len(image), text.shape, generator=generator)]


def _in_turn(weight, image, size, generator):
    """Without replacement as long as there are texts, and then from the beginning."""
    rounds = []
    while sum(map(len, rounds)) < size:
        rounds.append(weight.multinomial(int((weight > 0).sum()), generator=generator))
    text = torch.cat(rounds)[:size]
    return text, image[text]


RIGHT = {  # right answers that are written in another way than the reference
    "question_of": _question,
    "without_style": _style,
    "recall_by_chance": _chance,
    "draw_pairs": _draw,
}

MISTAKES = {
    "question_of": {
        "here it is the mean itself": {"a mean": lambda takes: takes.mean(-2)},
        "here it is the sum itself": {"a sum": lambda takes: takes.sum(-2)},
        "here only the first does": {"the first take": partial(_question, over=lambda x: x[..., 0, :])},
        "here all together have": {"one length for all": lambda takes: takes.mean(-2) / takes.mean(-2).norm()},
        "here it is the sum": {"sum of numbers": partial(_question, unit=lambda x: F.normalize(x, p=1, dim=-1))},
        "here it is the largest": {"the largest": partial(_question, over=lambda x: x.amax(-2))},
        "must have shape": {"over clips": lambda takes: F.normalize(takes.mean(0), dim=-1)},
        "One clip alone": {"always three axes": lambda takes: F.normalize(takes.mean(1), dim=-1)},
        "Where takes cancel each other": {
            "divided by 0": lambda takes: takes.mean(-2) / takes.mean(-2).norm(dim=-1, keepdim=True)
        },
    },
    "without_style": {
        "here nothing is lost": {"styles stay": lambda features, style: F.normalize(features, dim=-1)},
        "here it is as long as it was": {"no unit length": partial(_style, last=lambda x: x)},
        "here all share one": {"one mean": partial(_style, mean=lambda x, s: x.mean(0))},
        "here it is the other way": {
            "unit length first": lambda x, s: F.normalize(x, dim=-1) - _own(F.normalize(x, dim=-1), s),
            "and last": lambda x, s: _style(F.normalize(x, dim=-1), s),
        },
        "here it is the mean of all styles": {"of all styles": partial(_style, mean=_of_all_styles)},
        "here it is over the features": {"over features": partial(_style, mean=lambda x, s: x.mean(1, keepdim=True))},
        "here it is added": {"added": partial(_style, rest=torch.add)},
        "Features of a hundred-thousandth": {
            "an epsilon": partial(_style, last=lambda x: x / (x.norm(dim=-1, keepdim=True) + 1e-5))
        },
        "It stops in line": {"numbered from 0": _numbered},
        "alone in its style": {"divided by 0": partial(_style, last=lambda x: x / x.norm(dim=-1, keepdim=True))},
        "It must be features less their style's mean": {
            "by the variance too": partial(_style, last=lambda x: F.normalize(x / x.std(0), dim=-1))
        },
    },
    "recall_by_chance": {
        "here each query has one": {"k of n": lambda right, k: k / right.shape[1]},
        "here it is at the first position": {"one position": lambda right, k: right.float().mean().item()},
        "Hits must not be added": {
            "added": partial(_chance, each=lambda n, r, k: r * k / n),
            "up to 1": partial(_chance, each=lambda n, r, k: min(1, r * k / n)),
        },
        "here each position draws from all": {
            "with replacement": partial(_chance, each=lambda n, r, k: 1 - (1 - r / n) ** k)
        },
        "here right items share one": {"positions twice": partial(_chance, each=lambda n, r, k: 1 - (1 - k / n) ** r)},
        "here it is the chance to miss all": {"missed": lambda right, k: 1 - _chance(right, k)},
        "here all must be found": {"all of them": partial(_chance, each=lambda n, r, k: (k / n) ** r)},
        "is averaged first": {"averaged first": _averaged},
        "Where k is more than all items": {
            "no end": partial(
                _chance, each=lambda n, r, k: 1 - math.prod(max(0, n - r - j) / (n - j) for j in range(k))
            )
        },
        "Among 3,000 items": {
            "factorials": lambda right, k: _chance(
                right,
                k,
                each=lambda n, r, k: (
                    1.0
                    if n - r < k
                    else 1
                    - float(math.factorial(n - r))
                    * math.factorial(max(0, n - k))
                    / math.factorial(n)
                    / math.factorial(n - r - k)
                ),
            )
        },
        "A query without a right item": {
            "left out": partial(_chance, last=lambda x: sum(x) / max(1, sum(one > 0 for one in x)))
        },
        "must return one number": {"of each query": lambda right, k: torch.tensor([k / len(row) for row in right])},
    },
    "draw_pairs": {
        "A text of weight 0 must never come": {
            "evenly": partial(_draw, odds=lambda w: torch.full_like(w, 1 / len(w))),
            "by softmax": partial(_draw, odds=lambda w: w.softmax(0)),
        },
        "as often as their weights say": {
            "squares": partial(_draw, odds=lambda w: w.square() / w.square().sum()),
            "in turn": _in_turn,
        },
        "the next one may be the same": {"sorted": partial(_draw, order=lambda x: x.sort().values)},
        "Each text must have its own picture": {"pictures by chance": partial(_draw, seen=_again)},
        "It must hold whole numbers": {
            "real numbers": partial(_draw, order=lambda x: x, seen=lambda image, text, _: image[text].float())
        },
        "Only ratios of weights must matter": {
            "an epsilon": partial(_draw, odds=lambda w: (w + 1e-6 * (w > 0)) / (w + 1e-6 * (w > 0)).sum())
        },
        "must return text and picture": {
            "pictures alone": lambda w, p, size, g: p[w.multinomial(size, True, generator=g)]
        },
    },
}
