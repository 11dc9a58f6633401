"""Wrong answers that people really give, and what each is told: ``MISTAKES[task][what it says][name]``."""

from functools import partial

import torch
import torch.nn.functional as F
from common_mistakes import from_global_state, from_own_seed, then

from mmlearn.objectives import (
    mask_tokens,
    masked_cross_entropy,
    masked_region_classification,
    masked_region_kl,
    masked_region_regression,
)

# Words.


def _mask(
    tokens,
    mask,
    *,
    vocab_size,
    mask_token,
    special,
    generator,
    probability=0.15,
    words=None,
    real=True,  # or padding can be hidden
    reserved=True,  # or special tokens can be hidden
    shares=(0.8, 0.9),  # below the first mask_token, from the second a random token
    pool=None,  # what random tokens are drawn from: all ordinary ones
    within=True,  # or random tokens appear anywhere
    anyway=torch.amin,  # which position is hidden where chance picks none
    join=None,  # how the draws of a word's pieces become one: the first is taken
):
    """The right answer, or one that differs in a single position."""
    kept = torch.isin(tokens, torch.tensor([*special, mask_token]))
    possible = (mask if real else torch.ones_like(mask)) & ~(kept if reserved else torch.zeros_like(kept))
    chance = torch.rand(tokens.shape, generator=generator)
    if words is not None:
        same = words[:, :, None] == words[:, None]
        if join is None:
            chance = chance.gather(1, same.int().argmax(-1))
        else:
            chance = join(chance[:, None].expand(same.shape), same)
    hidden = chance < probability
    if anyway is not None:
        hidden = hidden | (chance == anyway(chance.masked_fill(~possible, 1), 1, keepdim=True))
    hidden = hidden & possible
    kind = torch.rand(tokens.shape, generator=generator)
    ordinary = torch.arange(vocab_size)
    ordinary = ordinary[~torch.isin(ordinary, torch.tensor([*special, mask_token]))] if pool is None else pool(tokens)
    drawn = ordinary[torch.randint(len(ordinary), tokens.shape, generator=generator)]
    read = tokens.masked_fill(hidden & (kind < shares[0]), mask_token)
    read = torch.where((kind >= shares[1]) & (hidden if within else ~kept), drawn, read)
    return read, tokens.masked_fill(~hidden, -100)


def _vocabulary(tokens, mask, *, vocab_size, **more):
    return _mask(tokens, mask, vocab_size=vocab_size, pool=lambda _: torch.arange(vocab_size), **more)


def _one_for_all(tokens, mask, *, vocab_size, special, mask_token, generator, **more):
    ordinary = torch.tensor([i for i in range(vocab_size) if i not in {*special, mask_token}])
    one = ordinary[torch.randint(len(ordinary), (1,), generator=generator)]
    settings = {"vocab_size": vocab_size, "special": special, "mask_token": mask_token, "generator": generator}
    return _mask(tokens, mask, pool=lambda _: one, **settings, **more)


def _from_the_text(tokens, mask, *, special, mask_token, **more):
    kept = torch.tensor([*special, mask_token])
    pool = lambda tokens: tokens[~torch.isin(tokens, kept)]  # noqa: E731
    return _mask(tokens, mask, special=special, mask_token=mask_token, pool=pool, **more)


def _labels(change):
    """The right text, and labels that are changed: ``change(read, label, tokens)``."""

    def function(tokens, mask, **more):
        read, label = mask_tokens(tokens, mask, **more)
        return read, change(read, label, tokens)

    return function


def _in_position(tokens, mask, **more):
    read, label = mask_tokens(tokens, mask, **more)
    tokens.copy_(read)
    return tokens, label


def _twice(tokens, mask, *, mask_token, **more):
    """Hides by one draw, and labels by another."""
    read, _ = mask_tokens(tokens, mask, mask_token=mask_token, **more)
    return read, mask_tokens(tokens, mask, mask_token=mask_token, **more)[1]


def _any_piece(chance, same):
    return chance.masked_fill(~same, 1).amin(-1)


def _first_piece_alone(tokens, mask, *, words=None, **more):
    if words is None:
        return mask_tokens(tokens, mask, **more)
    first = (words[:, :, None] == words[:, None]).int().argmax(-1) == torch.arange(words.shape[1])
    read, label = mask_tokens(tokens, mask, words=words, **more)
    return torch.where(first, read, tokens), label.masked_fill(~first, -100)


def _same_for_all_texts(tokens, mask, *, words=None, **more):
    read, label = mask_tokens(tokens, mask, words=words, **more)
    if words is not None:
        hidden = label[:1] != -100
        read, label = torch.where(hidden, more["mask_token"], tokens), tokens.masked_fill(~hidden, -100)
    return read, label


def _first_anyway(chance, dim, keepdim):
    """The draw of the first position that can be hidden, if none is hidden."""
    first = (chance < 1).int().argmax(1, keepdim=True)
    return chance.gather(1, first)


def _positions(logits, label):
    """The cost of each position, 0 where nothing is hidden."""
    return F.cross_entropy(logits.reshape(-1, logits.shape[-1]), label.reshape(-1), reduction="none").view(label.shape)


def _mean_of_means(logits, label):
    if label.ndim < 2:
        return masked_cross_entropy(logits, label)
    return (_positions(logits, label).sum(1) / (label != -100).sum(1).clamp(min=1)).mean()


def _minus_100_is_a_class(logits, label):
    return F.cross_entropy(logits.reshape(-1, logits.shape[-1]), label.reshape(-1).clamp(min=0))


def _next_token(logits, label):
    """Shifted by one, as a language model that reads from left to right."""
    return masked_cross_entropy(logits[..., :-1, :], label[..., 1:])


def _log_after_softmax(logits, label):
    hidden = label != -100
    return -logits.softmax(-1)[hidden].log().gather(1, label[hidden][:, None]).sum() / hidden.sum().clamp(min=1)


def _two_axes_only(logits, label):
    b, t = label.shape
    return masked_cross_entropy(logits.view(b * t, -1), label.view(b * t))


# Regions.


def _regions(cost, *, which=lambda masked: masked, mean=None):
    """A loss of hidden regions, from the cost of each of them: the right mean, or another one."""

    def function(x, target, masked):
        hidden = which(masked)
        each = cost(x, target).masked_fill(~hidden, 0)
        return mean(each, hidden) if mean else each.sum() / hidden.sum().clamp(min=1)

    return function


def _of_all_regions(each, hidden):
    return each.sum() / hidden.numel()


def _of_images(each, hidden):
    return (each.sum(1) / hidden.sum(1).clamp(min=1)).mean()


def _nothing_by_nothing(each, hidden):
    return each.sum() / hidden.sum()


def _everywhere(masked):
    return torch.ones_like(masked)


def _stops_backward(function):
    return lambda x, target, masked: function(x, target, masked) if masked.any() else torch.tensor(0.0)


def _square(x, target):
    return (x - target).square().sum(-1)


def _class(x, classes):
    return -x.log_softmax(-1).gather(-1, classes.argmax(-1, keepdim=True))[..., 0]


def _by_confidence(x, classes, masked):
    weight = classes.amax(-1)[masked]
    return (weight * _class(x, classes)[masked]).sum() / weight.sum()


def _soft(x, classes):
    return -(classes * x.log_softmax(-1)).sum(-1)


def _kl(x, classes):
    return F.kl_div(x.log_softmax(-1), classes, reduction="none").sum(-1)


def _reversed_kl(x, classes):
    return F.kl_div(classes.log(), x.softmax(-1), reduction="none").sum(-1)


RIGHT = {  # right answers that are written in another way than the library's
    "mask_tokens": _mask,
    "masked_cross_entropy": lambda z, y: _positions(z, y).sum() / (y != -100).sum().clamp(min=1),
    "masked_region_regression": _regions(_square),
    "masked_region_classification": _regions(_class),
    "masked_region_kl": _regions(_kl),
}

MISTAKES = {
    "mask_tokens": {
        "-100 where nothing is hidden": {
            "labels everywhere": _labels(lambda read, label, tokens: tokens),
            "label 0 elsewhere": _labels(lambda read, label, tokens: label.clamp(min=0)),
        },
        "It must return tokens and label": {"labels alone": then(mask_tokens, lambda y: y[1])},
        "The text to read must come first": {"labels first": then(mask_tokens, lambda y: y[::-1])},
        "must leave its arguments as they are": {"changes the text itself": _in_position},
        "Padding must never be hidden": {"padding too": partial(_mask, real=False)},
        "Special tokens must never be hidden": {"special tokens too": partial(_mask, reserved=False)},
        "label must be the token of the text": {
            "labels are what is shown": _labels(lambda read, label, tokens: torch.where(label == -100, label, read))
        },
        "What is not hidden must stay as it is": {
            "random tokens anywhere": partial(_mask, within=False),
            "hides by one draw and labels by another": _twice,
        },
        "It must hide this share": {"always 15 %": lambda *args, probability=0.15, **more: mask_tokens(*args, **more)},
        "Without an argument it must hide 15 %": {
            "another default": lambda *args, probability=0.2, **more: mask_tokens(
                *args, probability=probability, **more
            )
        },
        "this leaks nearly every label": {
            "shows what it hides": lambda tokens, mask, **more: (tokens.clone(), mask_tokens(tokens, mask, **more)[1])
        },
        "at 80 % of hidden positions": {"always mask_token": partial(_mask, shares=(1, 1))},
        "10 % of hidden positions must show their own": {
            "never a random token": partial(_mask, shares=(0.8, 1)),
            "never its own token": partial(_mask, shares=(0.8, 0.8)),
            "a tenth of what is left": partial(_mask, shares=(0.8, 0.98)),
        },
        "A random token must not be special": {"random tokens may be special": _vocabulary},
        "any ordinary one of the vocabulary": {
            "random tokens from the text": _from_the_text,
            "one random token for all": _one_for_all,
        },
        "The same seed must give the same result": {"global state": from_global_state(mask_tokens)},
        "Another seed must give another result": {"a generator of its own": from_own_seed(mask_tokens)},
        "must be hidden together": {
            "ignores words": lambda *args, words=None, **more: _mask(*args, **more),
            "first piece alone": _first_piece_alone,
        },
        "Each text must draw for itself": {"one draw for all texts": _same_for_all_texts},
        "A word of 2 must be hidden as often as any": {"any piece hides the word": partial(_mask, join=_any_piece)},
        "must have something hidden": {"nothing hidden in short texts": partial(_mask, anyway=None)},
        "The one that is hidden anyway must be any of four": {
            "the first one is hidden anyway": partial(_mask, anyway=_first_anyway)
        },
    },
    "masked_cross_entropy": {
        "must have shape ()": {"one cost a position": _positions},
        "Logits that know nothing must cost ln v": {
            "sum over positions": lambda z, y: masked_cross_entropy(z, y) * (y != -100).sum(),
            "mean over all positions": then(_positions, lambda y: y.mean()),
            "no minus": then(masked_cross_entropy, lambda y: -y),
        },
        "sure and right must cost 0": {
            "softmax before cross-entropy": lambda z, y: masked_cross_entropy(z.softmax(-1), y),
            "the next token": _next_token,
        },
        "Logits where label is -100 must not matter": {"-100 is class 0": _minus_100_is_a_class},
        "It stops in line": {
            "ignores 0, not -100": lambda z, y: F.cross_entropy(
                z.reshape(-1, z.shape[-1]), y.reshape(-1), ignore_index=0
            ),
            "texts in a batch only": _two_axes_only,
        },
        "With logits of ±200: Its result must be finite": {"log of a softmax": _log_after_softmax},
        "every hidden position counts the same": {"mean of means": _mean_of_means},
        "With nothing hidden: Its result must be finite": {
            "0 by 0": lambda z, y: F.cross_entropy(z.reshape(-1, z.shape[-1]), y.reshape(-1))
        },
        "With nothing hidden: The 0 must have a graph": {
            "0 that stops backward": lambda z, y: masked_cross_entropy(z, y) if (y != -100).any() else torch.tensor(0.0)
        },
        "A gradient must flow": {"no gradient": lambda z, y: masked_cross_entropy(z, y).detach() + 0 * z.sum()},
    },
    "masked_region_regression": {
        "a sum over features": {
            "mean over features": _regions(lambda x, y: (x - y).square().mean(-1)),
            "the length, not squared": _regions(lambda x, y: (x - y).norm(dim=-1)),
            "absolute differences": _regions(lambda x, y: (x - y).abs().sum(-1)),
            "mean over all regions": _regions(_square, mean=_of_all_regions),
            "sum over regions": _regions(_square, mean=lambda each, hidden: each.sum()),
            "distance of the normalised": _regions(
                lambda x, y: _square(F.normalize(x, dim=-1), F.normalize(y, dim=-1))
            ),
        },
        "A prediction that is right must cost 0": {"similarity": _regions(lambda x, y: (x * y).sum(-1))},
        "not hidden must not matter": {
            "the regions that can be seen": _regions(_square, which=torch.logical_not),
            "all regions": _regions(_square, which=_everywhere),
        },
        "every hidden region counts the same": {"mean of means": _regions(_square, mean=_of_images)},
        "With nothing hidden: Its result must be finite": {"0 by 0": _regions(_square, mean=_nothing_by_nothing)},
        "With nothing hidden: The 0 must have a graph": {
            "0 that stops backward": _stops_backward(masked_region_regression)
        },
    },
    "masked_region_classification": {
        "also where the detector has doubts": {
            "all that the detector says": _regions(_soft),
            "the least likely": _regions(lambda x, y: _class(x, -y)),
        },
        "Logits that know nothing must cost ln c": {
            "weighted by how likely": _regions(lambda x, y: y.amax(-1) * _class(x, y)),
            "kl": _regions(_kl),
            "softmax without a logarithm": _regions(
                lambda x, y: -x.softmax(-1).gather(-1, y.argmax(-1, keepdim=True))[..., 0]
            ),
            "mean over all regions": _regions(_class, mean=_of_all_regions),
        },
        "at the detector's first choice": {
            "the model's own choice": _regions(lambda x, y: _class(x, x)),
            "mean of means": _regions(_class, mean=_of_images),
        },
        "Only which class is likeliest must matter": {"a mean weighted by how likely": _by_confidence},
        "not hidden must not matter": {
            "the regions that can be seen": _regions(_class, which=torch.logical_not),
            "all regions": _regions(_class, which=_everywhere),
        },
        "With nothing hidden: Its result must be finite": {
            "0 by 0": lambda x, y, m: F.cross_entropy(x[m], y[m].argmax(-1))
        },
        "With nothing hidden: The 0 must have a graph": {
            "0 that stops backward": _stops_backward(masked_region_classification)
        },
    },
    "masked_region_kl": {
        "this is KL(model || detector)": {"the other direction": _regions(_reversed_kl)},
        "Where model and detector agree, the loss must be 0": {
            "cross-entropy": _regions(_soft),
            "first choice only": _regions(_class),
            "probabilities for logarithms": _regions(lambda x, y: F.kl_div(x.softmax(-1), y, reduction="none").sum(-1)),
            "softmax of probabilities": _regions(lambda x, y: _kl(x, y.softmax(-1))),
        },
        "A divergence must never be negative": {"no minus": _regions(lambda x, y: -_kl(x, y))},
        "With a detector without doubt, for which it is classification: Logits that know nothing must cost ln c": {
            "both directions": _regions(lambda x, y: (_kl(x, y) + _reversed_kl(x, y.clamp(min=1e-9))) / 2),
            "mean over classes": lambda x, y, m: F.kl_div(x[m].log_softmax(-1), y[m], reduction="none").mean(),
            "mean over pictures": lambda x, y, m: _regions(_kl, mean=lambda each, hidden: each.sum() / len(each))(
                x, y, m
            ),
        },
        "With a detector without doubt, for which it is classification: Its result must be finite": {
            "0 log 0": _regions(lambda x, y: (y * (y / x.softmax(-1)).log()).sum(-1))
        },
        "not hidden must not matter": {
            "the regions that can be seen": _regions(_kl, which=torch.logical_not),
            "all regions": _regions(_kl, which=_everywhere),
        },
        "every hidden region counts the same": {"mean of means": _regions(_kl, mean=_of_images)},
        "With nothing hidden: Its result must be finite": {"0 by 0": _regions(_kl, mean=_nothing_by_nothing)},
        "With nothing hidden: The 0 must have a graph": {"0 that stops backward": _stops_backward(masked_region_kl)},
    },
}
