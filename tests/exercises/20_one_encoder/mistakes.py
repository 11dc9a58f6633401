"""Wrong answers that people really give, and what each is told: ``MISTAKES[task][what it says][name]``."""

import math
from functools import partial

import torch
import torch.nn.functional as F
from common_mistakes import deaf, detached, then

from mmlearn.models.unified.multiway_blocks import by_modality
from mmlearn.models.unified.sparse import send_to_experts
from mmlearn.objectives.experts import balance, global_entropy
from mmlearn.objectives.masked_image import masked_pixels, normalised_patches, restore_order
from mmlearn.objectives.matched import matched_info_nce
from mmlearn.objectives.unpaired import own_gradient


def _normal(patches, *, axes=-1, unbiased=True, divide=lambda x, variance: x * (variance + 1e-6).rsqrt()):
    """By one division, or what differs in a single position."""
    variance, mean = torch.var_mean(patches, axes, correction=int(unbiased), keepdim=True)
    return divide(patches - mean, variance)


def _pixels(prediction, target, masked, *, error=torch.square, pick=lambda m: m, last=None):
    """Hidden patches alone, picked and not multiplied, or what differs in a single position."""
    each, which = error(prediction - target), pick(masked)
    return last(each, which) if last else each[which].sum() / max(1, each[which].numel())


def _of_each_image(each, which):
    return torch.stack([part[m].mean() if m.any() else 0 * part.sum() for part, m in zip(each, which)]).mean()


def _ways(x, words, text, image, pair=None, *, asks=lambda words, n: 0 < words < n):
    if pair and asks(words, x.shape[1]):
        return pair(x)
    said, seen = x.tensor_split([words], 1)
    return torch.cat((text(said), image(seen)), 1)


def _cut_late(x, words, text, image, pair=None):
    return torch.cat([text(x)[:, :words], image(x)[:, words:]], 1)


def _words_last(x, words, text, image, pair=None):
    n = x.shape[1] - words
    return torch.cat([text(x[:, n:]), image(x[:, :n])], 1)


def _one_by_one(tokens, visible, mask_token, patches, *, row=lambda k: k, start=None, position=None):
    """Place by position, or what differs in a single one of them."""
    start, images = mask_token if start is None else start(mask_token), []
    numbers = visible if position is None else position(visible)
    for k, those in enumerate(tokens):
        found = dict(zip(numbers[row(k)].tolist(), those))
        images.append(torch.stack([found.get(i, start) for i in range(patches)]))
    return torch.stack(images)


def _in_front(tokens, visible, mask_token, patches):
    b, kept, d = tokens.shape
    return torch.cat([tokens, mask_token.expand(b, patches - kept, d)], 1)


def _added(tokens, visible, mask_token, patches):
    return restore_order(tokens, visible, 0 * mask_token, patches) + mask_token


def _hooked(weight, mask):
    """A hook on the weight itself, where it stays."""
    if weight.requires_grad:
        weight.register_hook(lambda gradient: gradient * mask)
    return weight * 1.0


def _targets(layers, top, *, which=lambda layers, top: layers[-top:], each=None, last=None):
    """Layers in one tensor, or what differs in a single position."""
    stacked = torch.stack([layer.detach() for layer in which(list(layers), top)])
    stacked = F.layer_norm(stacked, stacked.shape[-1:]) if each is None else each(stacked)
    return stacked.mean(0) if last is None else last(stacked)


def _over(axis, correction=0):
    return lambda x: (x - x.mean(axis, keepdim=True)) / (x.var(axis, keepdim=True, correction=correction) + 1e-5).sqrt()


def _experts(tokens, weight, choice, experts, real, *, weigh=None, add=True, some=lambda choice: choice, pad=True):
    """Expert by expert and choice by choice, or what differs in a single position."""
    weight = weight if weigh is None else weigh(weight)
    y = [torch.zeros_like(token) for token in tokens]
    for number, expert in enumerate(experts):
        for j in range(some(choice).shape[1]):
            (rows,) = torch.where((choice[:, j] == number) & (real if pad else real | True))
            if len(rows):
                for i, answer in zip(rows.tolist(), expert(tokens[rows])):
                    y[i] = weight[i, j] * answer + (y[i] if add else 0)
    return torch.stack(y)


def _dense(tokens, weight, choice, experts, real):
    """Every expert computes every token."""
    said = torch.stack([expert(tokens) for expert in experts], 1)
    chosen = said[torch.arange(len(tokens))[:, None], choice]
    return (weight[..., None] * chosen).sum(1) * real[:, None]


def _weighed_before(tokens, weight, choice, experts, real):
    y = torch.zeros_like(tokens)
    for number, expert in enumerate(experts):
        token, rank = torch.where((choice == number) & real[:, None])
        y = y.index_add(0, token, expert(weight[token, rank, None] * tokens[token]))
    return y


def _balance(probability, real, k=1, *, scale=lambda n, e: e, share=None, likely=None, rows=None, first=False):
    """Means of the rows that are picked, or what differs in a single position."""
    p = probability[real if rows is None else rows(real)]
    if not len(p):
        return 0 * probability.sum()
    e = p.shape[1]
    chosen = F.one_hot(p.topk(1 if first else k).indices, e).float().mean((0, 1)).detach()
    mean = p.mean(0)
    return scale(len(p), e) * torch.dot(share(mean) if share else chosen, likely(chosen) if likely else mean)


def _global(probability, real, experts, *, rows=None, entropy=None, last=lambda h, e: math.log(e) - h, cut=True):
    """By PyTorch's entropy of the rows that are picked, or what differs in a single position."""
    p = probability[real if rows is None else rows(real)]
    if not len(p):
        return 0 * probability.sum()
    h = torch.special.entr(p.mean(0).clamp(min=1e-38)).sum() if entropy is None else entropy(p)
    value = last(h, experts)
    return F.relu(value) if cut else value


def _unsafe(p):
    mean = p.mean(0)
    return -(mean * mean.log()).sum()


def _matched(u, v, scale, matched, *, asks=None, both=(0.5, 0.5), use=torch.mul, last=None, among=None):
    """By cross_entropy, or what differs in a single position."""
    rows = (matched if matched.any() else ~matched) if asks is None else asks(matched)
    logits, label = use(scale, u @ v.T), torch.arange(len(u))
    if among is not None:
        logits = logits.masked_fill(~among(matched)[:, None], -1e4).masked_fill(~among(matched), -1e4)
    paid = [F.cross_entropy(each[rows], label[rows], reduction="none") for each in (logits, logits.T)]
    return sum(part * (last or (lambda paid, u: paid.mean()))(one, u) for part, one in zip(both, paid))


def _of_a_softmax(u, v, scale, matched):
    """Whose probabilities become 0 where logits are far apart."""
    rows, logits = matched | ~matched.any(), scale * u @ v.T
    return -sum(each.softmax(1).diagonal().log()[rows].mean() for each in (logits, logits.T)) / 2


RIGHT = {  # right answers that are written in another way than the library's
    "normalised_patches": _normal,
    "masked_pixels": _pixels,
    "by_modality": _ways,
    "restore_order": _one_by_one,
    "own_gradient": lambda weight, mask: weight * mask + (weight * ~mask).detach(),
    "contextual_targets": _targets,
    "send_to_experts": _experts,
    "balance": _balance,
    "global_entropy": _global,
    "matched_info_nce": _matched,
}

MISTAKES = {
    "normalised_patches": {
        "here it is the whole picture": {"of the picture": partial(_normal, axes=(1, 2))},
        "here only its mean is gone": {"not divided": partial(_normal, divide=lambda x, variance: x)},
        "not by the variance": {"of the variance": partial(_normal, divide=lambda x, v: x / (v + 1e-6))},
        "here it is over n": {"over n": partial(_normal, unbiased=False)},
        "must be finite": {"nothing added": partial(_normal, divide=lambda x, v: x / v.sqrt())},
        "before the root": {"behind the root": partial(_normal, divide=lambda x, v: x / (v.sqrt() + 1e-6))},
        "must have shape": {"one row": then(normalised_patches, lambda x: x.flatten(1))},
    },
    "masked_pixels": {
        "here all patches count": {"all patches": lambda said, wanted, masked: F.mse_loss(said, wanted)},
        "here the visible ones do": {"visible ones": partial(_pixels, pick=lambda m: ~m)},
        "here it is by all": {"diluted": partial(_pixels, last=lambda each, m: (each * m[..., None]).mean())},
        "here it is the sum": {"a sum": partial(_pixels, last=lambda each, m: each[m].sum())},
        "here they are added": {
            "pixels added": partial(_pixels, last=lambda each, m: each[m].sum() / m.sum().clamp(min=1))
        },
        "here each picture does": {"of pictures": partial(_pixels, last=_of_each_image)},
        "must be squared": {"absolute": partial(_pixels, error=torch.abs)},
        "With nothing hidden": {"a mean of nothing": partial(_pixels, last=lambda each, m: each[m].mean())},
        "must have shape ()": {"of each patch": partial(_pixels, last=lambda each, m: each.mean(-1) * m)},
        "A gradient must flow from the result": {"no gradient": detached(masked_pixels)},
    },
    "by_modality": {
        "here each sees all of them": {"cut afterwards": _cut_late},
        "here they go that of the image": {
            "ways exchanged": lambda x, words, text, image, pair=None: by_modality(x, words, image, text, pair)
        },
        "here the last tokens count as words": {"words last": _words_last},
        "here patches come first": {
            "patches first": lambda x, words, text, image, pair=None: torch.cat(
                [image(x[:, words:]), text(x[:, :words])], 1
            )
        },
        "here it is not asked": {"no pair": lambda x, words, text, image, pair=None: _ways(x, words, text, image)},
        "All tokens must go it together": {
            "pairs in parts": lambda x, words, text, image, pair=None: _ways(x, words, pair or text, pair or image)
        },
        "It is no pair": {"always a pair": partial(_ways, asks=lambda words, n: True)},
        "A text alone": {"a text is a pair": partial(_ways, asks=lambda words, n: words > 0)},
    },
    "restore_order": {
        "here they stand in front": {"in front": _in_front},
        "visible need not rise": {"sorted": partial(_one_by_one, position=lambda v: v.sort(1).values)},
        "here all have those of the first": {"the first picture's": partial(_one_by_one, row=lambda k: 0)},
        "here 0 does": {"zeros": partial(_one_by_one, start=torch.zeros_like)},
        "here the mask token is added": {"added": _added},
        "back at its position": {"from the end": partial(_one_by_one, position=lambda v: v.flip(1))},
        "none comes to mask_token": {"a constant": deaf(restore_order, 2)},
        "must have shape": {"visible ones alone": lambda tokens, visible, mask_token, patches: tokens * 1},
    },
    "own_gradient": {
        "here it is 0 where it must not learn": {"multiplied": lambda weight, mask: weight * mask},
        "The gradient must pass where mask is True": {
            "the other way round": lambda weight, mask: own_gradient(weight, ~mask)
        },
        "here all of it passes": {"no mask": lambda weight, mask: weight * 1},
        "A gradient must flow": {"nothing learns": detached(own_gradient)},
        "it learns into a copy": {
            "a copy": lambda weight, mask: own_gradient(torch.nn.Parameter(weight.clone()), mask)
        },
        "Each entry must get the gradient of its own loss": {"a hook on the weight": _hooked},
        "Going forward it must be the weight": {"doubled": then(own_gradient, lambda x: 2 * x)},
    },
    "contextual_targets": {
        "here none is": {"raw": partial(_targets, each=lambda x: x)},
        "here the mean is": {
            "normalised late": partial(_targets, each=lambda x: x, last=lambda x: F.layer_norm(x.mean(0), x.shape[-1:]))
        },
        "here it is the first": {"the first layers": partial(_targets, which=lambda layers, top: layers[:top])},
        "here all do": {"all layers": partial(_targets, which=lambda layers, top: layers)},
        "here only the last does": {"the last one": partial(_targets, which=lambda layers, top: layers[-1:])},
        "here only one does": {"one layer": partial(_targets, which=lambda layers, top: layers[-top : 1 - top])},
        "here it is their sum": {"a sum": partial(_targets, last=lambda x: x.sum(0))},
        "here it is over tokens": {"over tokens": partial(_targets, each=_over(2))},
        "here it is over d - 1": {"over d - 1": partial(_targets, each=_over(-1, 1))},
        "It must have no gradient": {
            "a gradient": lambda layers, top: torch.stack([F.layer_norm(x, x.shape[-1:]) for x in layers[-top:]]).mean(
                0
            )
        },
    },
    "send_to_experts": {
        "Padding must be 0": {"padding too": partial(_experts, pad=False)},
        "here it is only added": {"not weighed": partial(_experts, weigh=torch.ones_like)},
        "made to sum to 1": {"weights of 1 in all": partial(_experts, weigh=lambda w: w / w.sum(1, keepdim=True))},
        "not what it reads": {"weighed before": _weighed_before},
        "here only the first is": {"the first choice": partial(_experts, some=lambda choice: choice[:, :1])},
        "here the last one stays": {"overwritten": partial(_experts, add=False)},
        "The token itself must not be added": {
            "a residual path": lambda x, w, c, e, real: send_to_experts(x, w, c, e, real) + x * real[:, None]
        },
        "here it computes others, too": {
            "all compute all": _dense,
            "all compute all, as one batch": lambda x, w, c, experts, real: _dense(
                x, w, c, [lambda x, says=says: says(x[None])[0] for says in experts], real
            ),
        },
        "none comes to weight": {"weights are constants": deaf(send_to_experts, 1)},
    },
    "balance": {
        "so that even odds cost 1": {"no N": partial(_balance, scale=lambda n, e: 1)},
        "here it is the mean probability": {"P twice": partial(_balance, share=lambda mean: mean)},
        "here choices are counted": {"f twice": partial(_balance, likely=lambda chosen: chosen)},
        "Padding must not count": {"padding too": partial(_balance, rows=lambda real: real | True)},
        "must be over real tokens": {
            "over all tokens": lambda p, real, k=1: balance(p, real, k) * real.float().mean() ** 2
        },
        "here it is a count": {"counts": partial(_balance, scale=lambda n, e: n * e)},
        "The second choice must count": {"the first choice": partial(_balance, first=True)},
        "f must be the share of all k choices": {"k times as much": lambda p, real, k=1: k * balance(p, real, k)},
        "A gradient must flow": {"no gradient": detached(balance)},
    },
    "global_entropy": {
        "not the mean of entropies": {
            "of each token": partial(_global, entropy=lambda p: -torch.xlogy(p, p).sum(-1).mean(), cut=False)
        },
        "here the sign is turned": {"turned": partial(_global, last=lambda h, e: h - math.log(e), cut=False)},
        "The threshold must be there": {"no threshold": partial(_global, last=lambda h, e: -h, cut=False)},
        "take its logarithm": {"a raw threshold": partial(_global, last=lambda h, e: e - h)},
        "in nats, not in bits": {"bits": then(global_entropy, lambda x: x / math.log(2))},
        "not numbers of experts": {"numbers": partial(_global, last=lambda h, e: e - h.exp())},
        "Padding must not count": {"padding too": partial(_global, rows=lambda real: real | True)},
        "It must cost nothing": {"no clamp": partial(_global, cut=False)},
        "must be finite": {"a logarithm of 0": partial(_global, entropy=_unsafe)},
    },
    "matched_info_nce": {
        "here all rows do": {"all ask": partial(_matched, asks=lambda matched: matched | True)},
        "here the wrong ones do": {"wrong pairs ask": partial(_matched, asks=lambda matched: ~matched)},
        "here it is taken out": {"a smaller matrix": partial(_matched, among=lambda matched: matched)},
        "here only pictures pick": {"pictures": partial(_matched, both=(1, 0))},
        "here only texts pick": {"texts": partial(_matched, both=(0, 1))},
        "here it is their sum": {"a sum of both": partial(_matched, both=(1, 1))},
        "here it is by all": {"diluted": partial(_matched, last=lambda paid, u: paid.sum() / len(u))},
        "here it is a sum": {"a sum of rows": partial(_matched, last=lambda paid, u: paid.sum())},
        "here it divides": {"divided": partial(_matched, use=lambda s, x: x / s)},
        "here they are cosines": {"not scaled": partial(_matched, use=lambda s, x: x)},
        "none comes to logit_scale": {"the scale is a constant": deaf(matched_info_nce, 2)},
        "must be finite": {"a logarithm of a softmax": _of_a_softmax},
        "All rows must ask": {
            "nobody asks": partial(
                _matched, asks=lambda matched: matched, last=lambda paid, u: paid.sum() / max(1, len(paid))
            )
        },
    },
}
