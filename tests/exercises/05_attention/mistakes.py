"""Wrong answers that people really give, and what each is told: ``MISTAKES[task][what it says][name]``."""

from functools import partial

import torch
import torch.nn.functional as F
from common_mistakes import then
from einops import rearrange

MASKS = {2: "b n -> b 1 1 n", 3: "b q n -> b 1 q n", 4: "b h q n -> b h q n"}
LOWEST = torch.finfo(torch.float32).min

# Right answers with one position where they can go wrong.


def _patches(image, size, pattern="b c (row y) (column x) -> b (row column) (c y x)"):
    rows, columns = image.shape[2] // size, image.shape[3] // size
    return rearrange(image[:, :, : rows * size, : columns * size], pattern, y=size, x=size)


def _clock(length, width, exponent=None, start=0, base=10_000.0, turn=torch.div):
    exponent = torch.arange(0, width, 2) / width if exponent is None else exponent
    angle = turn(torch.arange(start, start + length)[:, None], base**exponent)
    return torch.stack([angle.sin(), angle.cos()], -1).flatten(1)


def _weights(query, key, mask=None, causal=False, *, divisor=None, axis=-1, fill=LOWEST, zero=True, triangle=None):
    q, n = query.shape[-2], key.shape[-2]
    allowed = torch.ones(q, n, dtype=torch.bool)
    if mask is not None:
        allowed = allowed & rearrange(mask, MASKS[mask.ndim])
    if causal:
        allowed = allowed & (triangle(torch.ones(q, n)).bool() if triangle else torch.ones(q, n).tril(n - q).bool())
    scores = query @ key.mT / (divisor or query.shape[-1] ** 0.5)
    weights = scores.masked_fill(~allowed, fill).softmax(axis)
    return weights * allowed if zero else weights


def _attend(weights, **settings):
    def attention(query, key, value, mask=None, causal=False):
        return weights(query, key, mask, causal, **settings) @ value

    return attention


# Mistakes that need more than a line.


def _pad_to_whole_patches(image, size):
    return _patches(F.pad(image, (0, -image.shape[3] % size, 0, -image.shape[2] % size)), size)


def _crop_bottom_right(image, size):
    return _patches(image[:, :, image.shape[2] % size :, image.shape[3] % size :], size)


def _no_crop(image, size):
    return rearrange(image, "b c (row y) (column x) -> b (row column) (c y x)", y=size, x=size)


def _angle_for_each_feature(length, width):
    angle = torch.arange(length)[:, None] / 10_000 ** (torch.arange(width) / width)
    return torch.where(torch.arange(width) % 2 == 0, angle.sin(), angle.cos())


def _sines_then_cosines(length, width):
    positions = _clock(length, width)
    return torch.cat([positions[:, 0::2], positions[:, 1::2]], -1)


def _cosine_first(length, width):
    return rearrange(_clock(length, width), "l (half pair) -> l half pair", pair=2).flip(-1).flatten(1)


def _exp_over_sum(query, key, mask=None, causal=False):
    e = (query @ key.mT / query.shape[-1] ** 0.5).exp()
    return e / e.sum(-1, keepdim=True)


def _mask_of_queries(query, key, mask=None, causal=False):
    mask = mask if mask is None else mask[:, None, :, None].expand(-1, query.shape[1], -1, key.shape[2])
    return _weights(query, key, mask, causal)


def _scores_times_mask(query, key, mask=None, causal=False):
    scores = query @ key.mT / query.shape[-1] ** 0.5
    return (scores if mask is None else scores * mask[:, None, None]).softmax(-1)


def _scores_plus_mask(query, key, mask=None, causal=False):
    scores = query @ key.mT / query.shape[-1] ** 0.5
    return (scores if mask is None else scores + mask[:, None, None]).softmax(-1)


def _mask_after_softmax(query, key, mask=None, causal=False):
    weights = _weights(query, key, None, causal)
    return weights if mask is None else weights * mask[:, None, None]


def _scaled_in_position(query, key, mask=None, causal=False):
    query /= query.shape[-1] ** 0.5
    return _weights(query, key, mask, causal, divisor=1)


def _fused_from_the_top_left(query, key, value, mask=None, causal=False):
    mask = mask if mask is None else rearrange(mask, MASKS[mask.ndim])
    return F.scaled_dot_product_attention(query, key, value, mask, is_causal=causal)


def _nan_to_num(query, key, value, mask=None, causal=False):
    scores = query @ key.mT / query.shape[-1] ** 0.5
    if mask is not None:
        scores = scores + torch.where(rearrange(mask, MASKS[mask.ndim]), 0, -torch.inf)
    return scores.softmax(-1).nan_to_num(0) @ value


def _only_masks_of_keys(query, key, value, mask=None, causal=False):
    return F.scaled_dot_product_attention(query, key, value, mask if mask is None else mask[:, None, None])


RIGHT = {  # right answers that are written in another way than the library's
    "patchify": _patches,
    "sinusoidal_positions": _clock,
    "select_tokens": lambda x, position: x.gather(1, position[:, None, None].expand(-1, 1, x.shape[2]))[:, 0],
    "attention_weights": _weights,
    "attention": _attend(_weights),
}

MISTAKES = {
    "patchify": {
        "pixels of the top left square": {
            "reshape without moving axes": lambda image, size: image.reshape(len(image), -1, image.shape[1] * size**2)
        },
        "Patches must come before their pixels": {
            "features first, as unfold gives them": lambda image, size: F.unfold(image, size, stride=size)
        },
        "Patches must come row by row": {
            "column by column": partial(_patches, pattern="b c (row y) (column x) -> b (column row) (c y x)")
        },
        "all pixels of one channel": {
            "channels last": partial(_patches, pattern="b c (row y) (column x) -> b (row column) (y x c)")
        },
        "Within a channel, pixels must come row by row": {
            "pixels column by column": partial(_patches, pattern="b c (row y) (column x) -> b (row column) (c x y)")
        },
        "must have shape (2, 6, 27)": {
            "patches keep their axes": partial(_patches, pattern="b c (row y) (column x) -> b (row column) c y x")
        },
        "beyond the last whole patch must be left out": {
            "pads instead of cropping": _pad_to_whole_patches,
            "crops the wrong side": _crop_bottom_right,
        },
        "can't divide axis of length 7 in chunks of 3": {"does not crop": _no_crop},
    },
    "sinusoidal_positions": {
        "must take turns": {"all sines, then all cosines": _sines_then_cosines},
        "The sine must come first": {"cosine first": _cosine_first},
        "must have the same angle": {"an angle for each feature": _angle_for_each_feature},
        "Position 0 must have angle 0": {"counts from 1": partial(_clock, start=1)},
        "the slower it must turn": {"multiplies by the frequency": partial(_clock, turn=torch.mul)},
        "10000^(-2i/d)": {
            "2i doubled again": lambda length, width: _clock(length, width, 2 * torch.arange(0, width, 2) / width),
            "another base": partial(_clock, base=1000.0),
        },
        "one radian a position": {
            "degrees": lambda length, width: _clock(length, width, turn=lambda p, f: torch.deg2rad(p / f))
        },
        "must have shape (20,": {"features before positions": then(_clock, lambda y: y.T)},
    },
    "select_tokens": {
        "not the tokens at all b positions": {"every position of every row": lambda x, position: x[:, position]},
        "must come from row i": {"one row for all": lambda x, position: x[0, position]},
        "it must take those tokens": {
            "the last token": lambda x, position: x[:, -1],
            "positions from 1": lambda x, position: x[torch.arange(len(x)), position - 1],
            "the mean of all tokens": lambda x, position: x.mean(1),
        },
        "must have shape (4, 5); this one has (4, 1, 1)": {
            "gather without its features": lambda x, position: x.gather(1, position[:, None, None])
        },
    },
    "attention_weights": {
        "divided by √k = 2.00; these are divided by 1.00": {"no scale": partial(_weights, divisor=1)},
        "these are divided by 4.00": {
            "scale without the root": lambda q, k, *rest, **named: _weights(q, k, *rest, **named, divisor=q.shape[-1])
        },
        "these are divided by 2.65": {
            "root of the number of keys": lambda q, k, *rest, **named: _weights(
                q, k, *rest, **named, divisor=k.shape[-2] ** 0.5
            )
        },
        "these sum to 1 over the queries": {"softmax over queries": partial(_weights, axis=-2)},
        "these sum to 1 over the heads": {"softmax over heads": partial(_weights, axis=1)},
        "Weights must be positive": {"no softmax": lambda q, k, *rest, **named: q @ k.mT / q.shape[-1] ** 0.5},
        "must sum to 1 over its keys.": {
            "sigmoid": lambda q, k, *rest, **named: (q @ k.mT / q.shape[-1] ** 0.5).sigmoid()
        },
        "Scores of many hundreds: Its result must be finite": {"exp that overflows": _exp_over_sum},
        "True must mean that a key may be attended": {
            "inverted mask": lambda q, k, mask=None, causal=False: _weights(
                q, k, None if mask is None else ~mask, causal
            )
        },
        "this one hides queries": {"mask of queries": _mask_of_queries},
        "A masked key must get weight 0": {
            "scores times mask": _scores_times_mask,
            "scores plus mask": _scores_plus_mask,
        },
        "the real keys must share the whole weight": {"mask after the softmax": _mask_after_softmax},
        "zeros, not NaN": {
            "minus infinity": partial(_weights, fill=-torch.inf, zero=False),
            "equal shares of nothing": partial(_weights, zero=False),
        },
        "must leave its arguments as they are": {"changes the query": _scaled_in_position},
        "No query may see a later key": {
            "causal forgotten": lambda q, k, mask=None, causal=False: _weights(q, k, mask)
        },
        "sees later ones only": {"upper triangle": partial(_weights, triangle=torch.triu)},
        "A query must see its own position": {"not itself": partial(_weights, triangle=lambda x: x.tril(-1))},
        "2 queries and 5 keys: The last query": {"triangle from the first key": partial(_weights, triangle=torch.tril)},
        "A mask and causal together": {
            "either mask or causal": lambda q, k, mask=None, causal=False: _weights(q, k, mask, causal and mask is None)
        },
    },
    "attention": {
        "divided by √k = 3.00; these are divided by 1.00": {"no scale": _attend(_weights, divisor=1)},
        "these are divided by 5.20": {
            "root of all heads' width": lambda q, k, v, *rest, **named: (
                _weights(q, k, *rest, **named, divisor=27**0.5) @ v
            )
        },
        "the result is a weighted mean": {
            "softmax over queries": _attend(_weights, axis=-2),
            "no softmax": lambda q, k, v, *rest, **named: q @ k.mT / 3 @ v,
        },
        "must have shape": {
            "keys for values": lambda q, k, v, *rest, **named: _weights(q, k, *rest, **named) @ k,
            "the weights": lambda q, k, v, *rest, **named: _weights(q, k, *rest, **named),
        },
        "True must mean that a key may be attended": {
            "inverted mask": lambda q, k, v, mask=None, causal=False: (
                _weights(q, k, None if mask is None else ~mask, causal) @ v
            )
        },
        "With a mask (b, q, n)": {"mask of keys only": _only_masks_of_keys},
        "With a mask (b, n): Each query must read exactly the keys": {
            "mask forgotten": lambda q, k, v, mask=None, causal=False: _weights(q, k, causal=causal) @ v
        },
        "zeros, not NaN": {
            "minus infinity": _attend(_weights, fill=-torch.inf, zero=False),
            "mean of everything": _attend(_weights, zero=False),
        },
        "Its gradient must be finite": {"NaN mended too late": _nan_to_num},
        "A gradient must flow to every input": {
            "no gradient": lambda q, k, v, *rest, **named: _weights(q.detach(), k, *rest, **named) @ v
        },
        "The first query may see": {
            "causal forgotten": _attend(lambda q, k, mask, causal: _weights(q, k, mask)),
            "upper triangle": _attend(_weights, triangle=torch.triu),
            "sees one key too many": _attend(_weights, triangle=lambda x: x.tril(x.shape[1] - x.shape[0] + 1)),
        },
        "4 queries and 6 keys: The last query": {"triangle from the first key": _fused_from_the_top_left},
        "A mask and causal together: Only keys that both allow": {
            "either mask or causal": _attend(lambda q, k, mask, causal: _weights(q, k, mask, causal and mask is None))
        },
    },
}
