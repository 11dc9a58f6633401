"""Wrong answers about what changed since GPT-2, and what each is told: ``MISTAKES[task][what it says][name]``."""

import math
from functools import partial

import torch
import torch.nn.functional as F
from common_mistakes import then


def _width(width, multiple, *, features=lambda d: 8 * d / 3, rounds=math.ceil):
    return multiple * rounds(features(width) / multiple)


def _next_multiple(width, multiple):
    """As in LLaMA's code: cut off to a whole number, and then up."""
    return multiple * ((int(2 * 4 * width / 3) + multiple - 1) // multiple)


def _grouped(
    query,
    key,
    value,
    *,
    of=lambda i, group, kv: i // group,
    value_of=lambda i, group, kv: i // group,
    scale=lambda k: k**0.5,
    queries=lambda query, kv: query,
    reads=lambda heads, kv: heads,
    weights=lambda scores: scores.softmax(-1),
):
    """Head by head."""
    h, kv = query.shape[1], key.shape[1]
    query, group, heads = queries(query, kv), h // kv, []
    for i in range(h):
        scores = query[:, i] @ key[:, of(i, group, kv)].mT / scale(query.shape[-1])
        heads.append(weights(scores) @ value[:, value_of(i, group, kv)])
    return reads(torch.stack(heads, dim=1), kv)


def _group_mean(heads, kv):
    group = heads.shape[1] // kv
    return heads.unflatten(1, (kv, group)).mean(2).repeat_interleave(group, dim=1)


def _window(
    queries, keys, window, *, first=lambda q, n: n - q, far=lambda back, w: back < w, near=lambda back: back >= 0
):
    """Entry by entry."""
    begin = first(queries, keys)
    seen = [[near(begin + i - j) and far(begin + i - j, window) for j in range(keys)] for i in range(queries)]
    return torch.tensor(seen, dtype=torch.bool)


def _blocks(queries, keys, window):
    i, j = torch.arange(keys - queries, keys)[:, None], torch.arange(keys)
    return (j <= i) & (i // window == j // window)


def _other_way(queries, keys, window):
    return _window(keys, keys, window).mT[keys - queries :]


def _turned(x, angle):
    """Pairs are complex numbers, which a number of length 1 turns."""
    pairs = torch.complex(*x.chunk(2, -1)) * torch.polar(torch.ones_like(angle), angle).unsqueeze(-3)
    return torch.cat([pairs.real, pairs.imag], -1)


def _rotate(x, angle, *, sin=torch.sin, heads=lambda y: y.unsqueeze(-3), join=None, signs=(-1, 1), split=None):
    first, second = split(x) if split else x.chunk(2, -1)
    c, s = heads(angle.cos()), heads(sin(angle))
    parts = first * c + signs[0] * second * s, second * c + signs[1] * first * s
    return join(parts) if join else torch.cat(parts, -1)


_neighbours = partial(
    _rotate, split=lambda x: (x[..., ::2], x[..., 1::2]), join=lambda parts: torch.stack(parts, -1).flatten(-2)
)


def _step(
    query,
    key,
    value,
    kept_key,
    kept_value,
    window,
    *,
    sees=lambda grown, kept, w: grown[:, :, -w:],
    keeps=lambda grown, w: grown[:, :, -w:],
    joined=lambda kept, new: torch.cat([kept, new], 2),
    scale=lambda k: k**0.5,
    returned=lambda output, keys, values: (output, keys, values),
):
    kept = kept_key, kept_value
    grown = [joined(*pair) for pair in zip(kept, (key, value))]
    keys, values = (sees(one, old, window) for one, old in zip(grown, kept))
    output = (query @ keys.mT / scale(query.shape[-1])).softmax(-1) @ values
    return returned(output, *(keeps(one, window) for one in grown))


def _dropped_one_by_one(query, key, value, kept_key, kept_value, window):
    """The oldest falls out before the new one comes in, as in a ring."""
    if kept_key.shape[2] == window:
        kept_key, kept_value = kept_key[:, :, 1:], kept_value[:, :, 1:]
    keys, values = torch.cat([kept_key, key], 2), torch.cat([kept_value, value], 2)
    return F.scaled_dot_product_attention(query, keys, values), keys, values


def _norm(
    x,
    weight,
    upstream,
    epsilon=1e-5,
    *,
    centred=lambda x: x,
    mean=lambda x: x.mean(-1, keepdim=True),
    root=lambda mean, epsilon: (mean + epsilon) ** 0.5,
    down=lambda each: each.sum(tuple(range(each.ndim - 1))),
    weighed=lambda x, r: x / r,
    into=lambda weight, upstream: weight * upstream,
    through=lambda x, v, r: x / r**3 * (v * x).mean(-1, keepdim=True),
    back=lambda gradient, weight: gradient,
):
    x = centred(x)
    r = root(mean(x.square()), epsilon)
    v = into(weight, upstream)
    return weight * x / r, back(v / r - through(x, v, r), weight), down(upstream * weighed(x, r))


RIGHT = {
    "swiglu_width": _next_multiple,
    "grouped_attention": _grouped,
    "window_mask": _window,
    "rotate": _turned,
    "window_step": _dropped_one_by_one,
    "rms_norm_backward": _norm,
}

MISTAKES = {
    "swiglu_width": {
        "Where 2/3 of 4 d is a multiple already": {
            "one more always": partial(_width, rounds=lambda x: int(x) + 1),
            "four times the width": partial(_width, features=lambda d: 4 * d),
            "2/3 of the width": partial(_width, features=lambda d: 2 * d / 3),
        },
        "It must be a multiple of": {
            "not rounded": lambda width, multiple: 8 * width // 3,
            "the width rounded first": lambda width, multiple: 8 * (-(-width // 4) * 4) // 3,
        },
        "It must be rounded up": {
            "rounded down": partial(_width, rounds=int),
            "rounded to the nearest": partial(_width, rounds=round),
        },
    },
    "grouped_attention": {
        "here head i reads key head i % h_kv": {
            "in turn": partial(_grouped, of=lambda i, g, kv: i % kv, value_of=lambda i, g, kv: i % kv)
        },
        "Values must be those of the key's own head": {
            "values in turn": partial(_grouped, value_of=lambda i, g, kv: i % kv),
            "keys in turn": partial(_grouped, of=lambda i, g, kv: i % kv),
        },
        "here all query heads read one": {
            "the first": partial(_grouped, of=lambda i, g, kv: 0, value_of=lambda i, g, kv: 0),
            "their mean": lambda q, k, v: _grouped(q, k.mean(1, True), v.mean(1, True)),
        },
        "Scores must be divided by √k": {"not divided": partial(_grouped, scale=lambda k: 1)},
        "here a group has one mean": {
            "queries meaned": partial(_grouped, queries=_group_mean),
            "heads meaned": partial(_grouped, reads=_group_mean),
        },
        "with K and V of head i // g": {
            "divided by k": partial(_grouped, scale=lambda k: k),
            "the last group first": partial(
                _grouped, of=lambda i, g, kv: kv - 1 - i // g, value_of=lambda i, g, kv: kv - 1 - i // g
            ),
        },
        "must have shape": {
            "as many heads as keys": lambda q, k, v: _grouped(q[:, : k.shape[1]], k, v),
            "heads joined": then(_grouped, lambda heads: heads.transpose(1, 2).flatten(2)),
        },
    },
    "window_mask": {
        "here it is the other way": {"transposed": _other_way},
        "Each token must see itself": {"only earlier ones": partial(_window, near=lambda back: back > 0)},
        "No token must see a later one": {
            "both ways": partial(_window, near=lambda back: True, far=lambda back, w: abs(back) < w),
            "no causal mask": partial(_window, near=lambda back: True),
        },
        "tokens, the token's own included; here up to": {
            "one too many": partial(_window, far=lambda back, w: back <= w),
            "one too few": partial(_window, far=lambda back, w: back < w - 1),
            "no window": partial(_window, far=lambda back, w: True),
        },
        "the window slides with it": {"blocks": _blocks},
        "the last query stands at the last key": {"from the first key": partial(_window, first=lambda q, n: 0)},
        "It must be boolean": {"numbers": then(_window, torch.Tensor.float)},
    },
    "rotate": {
        "here it turns with its neighbour": {"neighbours": _neighbours},
        "here they turn the other way": {
            "the minus below": partial(_rotate, signs=(1, -1)),
            "the angle taken off": lambda x, angle: _rotate(x, -angle),
        },
        "A pair must keep its length": {
            "no minus": partial(_rotate, signs=(1, 1)),
            "no sines": partial(_rotate, signs=(0, 0)),
            "added": lambda x, angle: x + torch.cat([angle.sin(), angle.cos()], -1).unsqueeze(-3),
        },
        "Where the angle is 0, nothing must change": {
            "positions from 1": lambda x, angle: _rotate(x, angle + angle[..., 1:2, :]),
            "from the last position": lambda x, angle: _rotate(x, angle.flip(-2)),
            "halves exchanged": then(_rotate, lambda y: y.roll(y.shape[-1] // 2, -1)),
        },
        "must change with the distance": {"nothing turned": lambda x, angle: x.clone()},
        "must depend on the distance alone": {
            "the sine as a root": partial(_rotate, sin=lambda angle: (1 - angle.cos().square()).clamp(min=0).sqrt())
        },
        "It must be (x₁ cos - x₂ sin": {
            "degrees": lambda x, angle: _rotate(x, angle * math.pi / 180),
            "one angle for all pairs": lambda x, angle: _rotate(x, angle[..., :1].expand_as(angle)),
            "twice the angle": lambda x, angle: _rotate(x, 2 * angle),
        },
        "Row b of the batch must turn by angle[b]": {"no axis for heads": partial(_rotate, heads=lambda y: y)},
    },
    "window_step": {
        "here nothing is cut": {"all is kept": partial(_step, keeps=lambda grown, w: grown)},
        "here one too few is": {"cut for the next": partial(_step, keeps=lambda grown, w: grown[:, :, 1 - w :])},
        "here the first are": {
            "the oldest stay": partial(_step, keeps=lambda grown, w: grown[:, :, :w]),
            "in front": partial(_step, joined=lambda kept, new: torch.cat([new, kept], 2)),
        },
        "in the order of the text, as they were": {
            "the last are first": partial(_step, keeps=lambda grown, w: grown[:, :, -w:].flip(2)),
            "keys for values": partial(_step, returned=lambda output, keys, values: (output, values, keys)),
        },
        "here it sees all": {"cut after it attends": partial(_step, sees=lambda grown, kept, w: grown)},
        "here it sees only what was kept": {
            "attended before it grew": partial(_step, sees=lambda grown, kept, w: kept),
            "the new one left out": partial(_step, sees=lambda grown, kept, w: grown[:, :, -w:-1]),
        },
        "here one token is missing": {
            "window - 1": partial(_step, sees=lambda grown, kept, w: grown[:, :, -max(w - 1, 1) :])
        },
        "Scores must be divided by √k": {"not divided": partial(_step, scale=lambda k: 1)},
        "It must be the last row of attention": {"divided by k": partial(_step, scale=lambda k: k)},
        "Nothing must be cut; here two tokens": {
            "the first falls out always": partial(_step, keeps=lambda grown, w: grown[:, :, 1:])
        },
    },
    "rms_norm_backward": {
        "here the mean is taken off": {"layer norm": partial(_norm, centred=lambda x: x - x.mean(-1, keepdim=True))},
        "not their sum": {"the length": partial(_norm, mean=lambda x: x.sum(-1, keepdim=True))},
        "here it is added to it": {"outside": partial(_norm, root=lambda mean, epsilon: mean.sqrt() + epsilon)},
        "The output must be g x": {
            "no ε": partial(_norm, root=lambda mean, epsilon: mean.sqrt()),
            "no root": partial(_norm, root=lambda mean, epsilon: mean + epsilon),
            "one for the whole batch": partial(_norm, mean=lambda x: x.mean()),
        },
        "here it is a mean": {"the mean": partial(_norm, down=lambda x: x.mean(tuple(range(x.ndim - 1))))},
        "here it is x itself": {"x not normalised": partial(_norm, weighed=lambda x, r: x)},
        "the sum over rows of upstream": {"divided twice": partial(_norm, weighed=lambda x, r: x / r**2)},
        "r must not count as a constant": {"a constant": partial(_norm, through=lambda x, v, r: 0)},
        "g must multiply upstream first": {
            "no g": partial(_norm, into=lambda weight, upstream: upstream),
            "g at the end": partial(
                _norm, into=lambda weight, upstream: upstream, back=lambda gradient, weight: gradient * weight
            ),
        },
        "at a right angle to x": {
            "the sum for the mean": partial(_norm, through=lambda x, v, r: x / r**3 * (v * x).sum(-1, keepdim=True)),
            "r²": partial(_norm, through=lambda x, v, r: x / r**2 * (v * x).mean(-1, keepdim=True)),
            "added": partial(_norm, through=lambda x, v, r: -x / r**3 * (v * x).mean(-1, keepdim=True)),
            "without x": partial(_norm, through=lambda x, v, r: v.mean(-1, keepdim=True) / r),
        },
        "must have shape": {
            "a gradient for each row": partial(_norm, down=lambda x: x),
            "one number": partial(_norm, down=lambda x: x.sum()),
        },
        "It must be 1e-5": {"another ε": lambda x, weight, upstream, epsilon=1e-6: _norm(x, weight, upstream, epsilon)},
    },
}
