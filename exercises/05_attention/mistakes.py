"""Wrong answers that people really give, and what each is told: ``MISTAKES[task][what it says][name]``."""

from functools import partial

import torch
import torch.nn.functional as F
from einops import rearrange, reduce

from mmlearn.exercises.mistakes import then

MASKS = {2: "b n -> b 1 1 n", 3: "b q n -> b 1 q n", 4: "b h q n -> b h q n"}
LOWEST = torch.finfo(torch.float32).min

# Right answers with one place where they can go wrong.


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


def _scaled_in_place(query, key, mask=None, causal=False):
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


def _argmax(maps, regions, covered=0.1):
    return (regions.gather(-1, maps.argmax(-1, keepdim=True)) >= covered).float().mean()


def _share_of_the_highest(maps, regions):
    highest = (maps == maps.amax(-1, keepdim=True)).float()
    return ((highest * (regions >= 0.1)).sum(-1) / highest.sum(-1)).mean()


def _any_of_the_highest(maps, regions):
    return ((maps == maps.amax(-1, keepdim=True)) & (regions >= 0.1)).any(-1).float().mean()


def _all_of_the_highest(maps, regions):
    return ((maps < maps.amax(-1, keepdim=True)) | (regions >= 0.1)).all(-1).float().mean()


def _entropy(maps, normalise=True, log=torch.log, small=1e-30):
    weights = maps / maps.sum(-1, keepdim=True) if normalise else maps
    return -(weights * log(weights + small)).sum(-1)


def _ln(maps):
    return torch.tensor(maps.shape[-1]).log()


def _inside(maps, regions, covered=0.1):
    """The weight inside, and the share of patches inside."""
    inside = (regions >= covered).float()
    return (maps / maps.sum(-1, keepdim=True) * inside).sum(-1), inside.mean(-1)


def _ratio_to_outside(maps, regions):
    inside = regions >= 0.1
    return ((maps * inside).sum(-1) / inside.sum(-1) / ((maps * ~inside).sum(-1) / (~inside).sum(-1))).mean()


RIGHT = {  # right answers that are written in another way than the library's
    "patchify": _patches,
    "sinusoidal_positions": _clock,
    "select_tokens": lambda x, position: x.gather(1, position[:, None, None].expand(-1, 1, x.shape[2]))[:, 0],
    "attention_weights": _weights,
    "attention": _attend(_weights),
    "on_grid": lambda masks, grid: F.adaptive_avg_pool2d(masks.float(), grid).flatten(1),
    "pointing_accuracy": _share_of_the_highest,
    "entropy": lambda maps: (_entropy(maps) / _ln(maps)).mean(),
    "mass_ratio": lambda maps, regions: torch.div(*_inside(maps, regions)).mean(),
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
        "must leave its arguments as they are": {"changes the query": _scaled_in_place},
        "No query may see a later key": {
            "causal forgotten": lambda q, k, mask=None, causal=False: _weights(q, k, mask)
        },
        "sees later ones only": {"upper triangle": partial(_weights, triangle=torch.triu)},
        "A query must see its own place": {"not itself": partial(_weights, triangle=lambda x: x.tril(-1))},
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
        "With a mask and causal together: Both must hold": {
            "either mask or causal": _attend(lambda q, k, mask, causal: _weights(q, k, mask, causal and mask is None))
        },
    },
    "on_grid": {
        "A share is at most 1": {
            "sum of pixels": lambda masks, grid: (
                F.adaptive_avg_pool2d(masks.float(), grid).flatten(1) * masks[0].numel()
            )
        },
        "of which half is covered must have share 0.5": {
            "touched or not": lambda masks, grid: F.adaptive_max_pool2d(masks.float(), grid).flatten(1),
            "nearest pixel": lambda masks, grid: F.interpolate(masks[:, None].float(), grid).flatten(1),
        },
        "Every pixel of a patch must count alike": {
            "bilinear": lambda masks, grid: F.interpolate(masks[:, None].float(), grid, mode="bilinear").flatten(1)
        },
        "Patches must come in reading order": {
            "column by column": lambda masks, grid: F.adaptive_avg_pool2d(masks.float(), grid).mT.flatten(1),
            "columns × rows": lambda masks, grid: F.adaptive_avg_pool2d(masks.float(), grid[::-1]).flatten(1),
        },
        "must have shape (1, 6); this one has (1, 2, 3)": {
            "a grid, not a row of patches": lambda masks, grid: F.adaptive_avg_pool2d(masks.float(), grid)
        },
        "A grid of (4, 2): Its result must have shape": {
            "square patches only": lambda masks, grid: reduce(
                masks.float(), "n (r y) (c x) -> n (r c)", "mean", y=4, x=4
            )
        },
    },
    "pointing_accuracy": {
        "A flat map knows nothing": {
            "argmax takes the first of a tie": _argmax,
            "any of a tie": _any_of_the_highest,
            "all of a tie": _all_of_the_highest,
        },
        "only 0.05 is covered must not count": {"touched is enough": partial(_argmax, covered=1e-9)},
        "lies on any patch of the region must count 1": {
            "mostly covered": partial(_argmax, covered=0.5),
            "the best covered patch only": lambda maps, regions: (maps.argmax(-1) == regions.argmax(-1)).float().mean(),
            "a count": lambda maps, regions: _argmax(maps, regions) * len(maps),
        },
        "lies beside the region must count 0": {"the weight on the region": then(_inside, lambda y: y[0].mean())},
        "must return one number, not a Tensor of shape (40,)": {
            "one answer a map": lambda maps, regions: regions.gather(-1, maps.argmax(-1, keepdim=True))[:, 0] >= 0.1
        },
    },
    "entropy": {
        "whatever their number. Expected 1": {
            "not over ln p": then(_entropy, lambda y: y.mean()),
            "sign": lambda maps: -(_entropy(maps) / _ln(maps)).mean(),
            "two bases": lambda maps: (_entropy(maps, log=torch.log2) / _ln(maps)).mean(),
            "sum over maps": lambda maps: (_entropy(maps) / _ln(maps)).sum(),
            "a large epsilon": lambda maps: (_entropy(maps, small=1e-3) / _ln(maps)).mean(),
        },
        "zeros elsewhere: Its result must be finite": {
            "0 ln 0": lambda maps: (_entropy(maps, small=0) / _ln(maps)).mean()
        },
        "Its entropy must be 0": {
            "softmax of weights": lambda maps: (_entropy(maps.softmax(-1)) / _ln(maps)).mean(),
            "of the mean map": lambda maps: _entropy(maps.mean(0)) / _ln(maps),
        },
        "Five times a map must have the same entropy": {
            "not normalised": lambda maps: (_entropy(maps, normalise=False) / _ln(maps)).mean()
        },
        "must return one number, not a Tensor of shape (6,)": {"one a map": lambda maps: _entropy(maps) / _ln(maps)},
    },
    "mass_ratio": {
        "A flat map must have ratio 1": {
            "not over the area": then(_inside, lambda y: y[0].mean()),
            "over the number of patches": lambda maps, regions: (
                _inside(maps, regions)[0] / (regions >= 0.1).sum(-1)
            ).mean(),
        },
        "Seven times a map must have the same ratio": {
            "not normalised": lambda maps, regions: (
                (maps * (regions >= 0.1)).sum(-1) / (regions >= 0.1).float().mean(-1)
            ).mean()
        },
        "with all its weight on the region": {
            "shares in place of in or out": lambda maps, regions: (
                (maps / maps.sum(-1, keepdim=True) * regions).sum(-1) / regions.mean(-1)
            ).mean(),
            "touched is enough": lambda maps, regions: torch.div(*_inside(maps, regions, 1e-9)).mean(),
            "ratio of the means": then(_inside, lambda y: torch.div(*(x.mean() for x in y))),
            "softmax of weights": lambda maps, regions: torch.div(*_inside(maps.softmax(-1), regions)).mean(),
        },
        "Its result must be finite; this one is inf": {"inside over outside": _ratio_to_outside},
        "must return one number": {"one a map": then(_inside, lambda y: torch.div(*y))},
    },
}
