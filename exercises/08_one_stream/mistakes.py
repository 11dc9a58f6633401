"""Wrong answers that people really give, and what each is told: ``MISTAKES[task][name] = (function, fragment)``."""

from functools import partial

import torch
import torch.nn.functional as F
from einops import einsum

from mmlearn.objectives import (
    cosine_cost,
    ipot,
    mask_tokens,
    masked_cross_entropy,
    masked_region_classification,
    masked_region_kl,
    masked_region_regression,
    random_negatives,
    word_region_alignment,
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
    anyway=torch.amin,  # which place is hidden where chance picks none
    join=None,  # how the draws of a word's pieces become one: the first is taken
):
    """The right answer, or one that differs in a single place."""
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


def _in_place(tokens, mask, **more):
    read, label = mask_tokens(tokens, mask, **more)
    tokens.copy_(read)
    return tokens, label


def _own_generator(tokens, mask, *, generator, **more):
    return mask_tokens(tokens, mask, generator=torch.Generator().manual_seed(0), **more)


def _global_state(tokens, mask, *, generator, **more):
    return mask_tokens(tokens, mask, generator=torch.default_generator, **more)


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
    """The draw of the first place that can be hidden, if none is hidden."""
    first = (chance < 1).int().argmax(1, keepdim=True)
    return chance.gather(1, first)


def _places(logits, label):
    """The cost of each place, 0 where nothing is hidden."""
    return F.cross_entropy(logits.reshape(-1, logits.shape[-1]), label.reshape(-1), reduction="none").view(label.shape)


def _mean_of_means(logits, label):
    if label.ndim < 2:
        return masked_cross_entropy(logits, label)
    return (_places(logits, label).sum(1) / (label != -100).sum(1).clamp(min=1)).mean()


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


def _of_pictures(each, hidden):
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


# Pairs of text and picture.


def _other_rows(caption_id, generator):
    """Any row but itself."""
    b = len(caption_id)
    return (torch.arange(b) + torch.randint(1, b, (b,), generator=generator)) % b


def _redraws_once(caption_id, generator):
    drawn, again = _other_rows(caption_id, generator), _other_rows(caption_id, generator)
    return torch.where(caption_id[drawn] == caption_id, again, drawn)


def _caption_first(caption_id, generator):
    """A caption, and then one of its rows."""
    different = caption_id[:, None] != caption_id
    count = (caption_id[:, None] == caption_id).sum(0)
    return torch.multinomial(different / count, 1, generator=generator)[:, 0]


def _next_that_differs(caption_id, generator):
    b = len(caption_id)
    after = (torch.arange(b)[:, None] + torch.arange(b)) % b
    return after.gather(1, (caption_id[after] != caption_id[:, None]).int().argmax(1, keepdim=True))[:, 0]


def _divides_by_length(x, y):
    return 1 - (x / x.norm(dim=-1, keepdim=True)) @ (y / y.norm(dim=-1, keepdim=True)).mT


def _plan(
    cost,
    x_mask,
    y_mask,
    beta=0.5,
    iterations=50,
    *,
    kernel=lambda cost, beta: torch.exp(-cost / beta),
    lengths=lambda mask: mask.sum(1, keepdim=True).clamp(min=1),
    mask=True,  # or padding takes part
    proximal=True,  # or Sinkhorn: each step forgets the plan before
    rows_last=False,
    smallest=1e-30,
):
    """The plan of IPOT with its gradient, or one that differs in a single place."""
    every = torch.ones_like
    x_real, y_real = (x_mask, y_mask) if mask else (every(x_mask), every(y_mask))
    rows, columns = (x_real / lengths(x_real))[:, :, None], (y_real / lengths(y_real))[:, None]
    weight = kernel(cost, beta).masked_fill(~(x_real[:, :, None] & y_real[:, None]), 0)
    plan, delta, sigma = torch.ones_like(cost), rows, columns
    for _ in range(iterations):
        q = weight * plan if proximal else weight
        if rows_last:
            sigma = columns / (q * delta).sum(1, keepdim=True).clamp(min=smallest)
        delta = rows / (q * sigma).sum(2, keepdim=True).clamp(min=smallest)
        if not rows_last:
            sigma = columns / (q * delta).sum(1, keepdim=True).clamp(min=smallest)
        plan = delta * q * sigma
    return plan


def _without_gradient(**wrong):
    return torch.no_grad()(partial(_plan, **wrong))


@torch.no_grad()
def _forgets_sigma(cost, x_mask, y_mask, beta=0.5, iterations=50):
    """Each step begins with σ = 1/m again."""
    plan, weight = torch.ones_like(cost), torch.exp(-cost / beta)
    for _ in range(iterations):
        plan = ipot(-beta * (weight * plan).log(), x_mask, y_mask, beta, 1)
    return plan


def _nearest_region(cost, x_mask, y_mask, beta=0.5, iterations=50):
    """Each word sends all it has to one region."""
    nearest = F.one_hot(cost.masked_fill(~y_mask[:, None], torch.inf).argmin(-1), cost.shape[-1])
    return nearest * (x_mask / x_mask.sum(1, keepdim=True).clamp(min=1))[..., None]


def _attention_of_words(cost, x_mask, y_mask, beta=0.5, iterations=50):
    weight = (-cost / beta).masked_fill(~y_mask[:, None], -torch.inf).softmax(-1)
    return weight * (x_mask / x_mask.sum(1, keepdim=True).clamp(min=1))[..., None]


def _transport(words, regions, word_mask, region_mask, beta=0.5, iterations=50, *, plan=ipot, cost=cosine_cost):
    c = cost(words, regions)
    return (plan(c, word_mask, region_mask, beta, iterations) * c).sum((1, 2))


def _best_region(words, regions, word_mask, region_mask, beta=0.5, iterations=50):
    best = cosine_cost(words, regions).masked_fill(~region_mask[:, None], torch.inf).amin(-1)
    return (best * word_mask).sum(1) / word_mask.sum(1).clamp(min=1)


def _no_masks(words, regions, word_mask, region_mask, *settings):
    every = torch.ones_like
    return word_region_alignment(words, regions, every(word_mask), every(region_mask), *settings)


def _same_mass(cost, x_mask, y_mask, beta, iterations):
    both = x_mask[:, :, None] & y_mask[:, None]
    return both / both.sum((1, 2), keepdim=True).clamp(min=1)


MISTAKES = {
    "mask_tokens": {
        "labels everywhere": (_labels(lambda read, label, tokens: tokens), "-100 where nothing is hidden"),
        "label 0 elsewhere": (
            _labels(lambda read, label, tokens: label.clamp(min=0)),
            "-100 where nothing is hidden",
        ),
        "labels alone": (lambda *args, **more: mask_tokens(*args, **more)[1], "It must return two tensors"),
        "labels first": (lambda *args, **more: mask_tokens(*args, **more)[::-1], "The text to read must come first"),
        "changes the text itself": (_in_place, "must leave its arguments as they are"),
        "padding too": (partial(_mask, real=False), "Padding must never be hidden"),
        "special tokens too": (partial(_mask, reserved=False), "Special tokens must never be hidden"),
        "labels are what is shown": (
            _labels(lambda read, label, tokens: torch.where(label == -100, label, read)),
            "label must be the token of the text",
        ),
        "random tokens anywhere": (partial(_mask, within=False), "What is not hidden must stay as it is"),
        "hides by one draw and labels by another": (_twice, "What is not hidden must stay as it is"),
        "always 15 %": (
            lambda *args, probability=0.15, **more: mask_tokens(*args, **more),
            "It must hide this share",
        ),
        "another default": (
            lambda *args, probability=0.2, **more: mask_tokens(*args, probability=probability, **more),
            "Without an argument it must hide 15 %",
        ),
        "shows what it hides": (
            lambda tokens, mask, **more: (tokens.clone(), mask_tokens(tokens, mask, **more)[1]),
            "this leaks nearly every label",
        ),
        "always mask_token": (partial(_mask, shares=(1, 1)), "at 80 % of hidden places"),
        "never a random token": (partial(_mask, shares=(0.8, 1)), "10 % of hidden places must show their own"),
        "never its own token": (partial(_mask, shares=(0.8, 0.8)), "10 % of hidden places must show their own"),
        "a tenth of what is left": (partial(_mask, shares=(0.8, 0.98)), "10 % of hidden places must show their own"),
        "random tokens may be special": (_vocabulary, "A random token must not be special"),
        "random tokens from the text": (_from_the_text, "any ordinary one of the vocabulary"),
        "one random token for all": (_one_for_all, "drawn anew for each place"),
        "global state": (_global_state, "The same seed must give the same result"),
        "a generator of its own": (_own_generator, "Another seed must hide other tokens"),
        "ignores words": (lambda *args, words=None, **more: _mask(*args, **more), "must be hidden together"),
        "first piece alone": (_first_piece_alone, "must be hidden together"),
        "one draw for all texts": (_same_for_all_texts, "Each text must draw for itself"),
        "any piece hides the word": (partial(_mask, join=_any_piece), "A word of 2 must be hidden as often as any"),
        "nothing hidden in short texts": (partial(_mask, anyway=None), "must have something hidden"),
        "the first one is hidden anyway": (
            partial(_mask, anyway=_first_anyway),
            "The one that is hidden anyway must be any of four",
        ),
    },
    "masked_cross_entropy": {
        "one cost a place": (_places, "must have shape ()"),
        "sum over places": (
            lambda z, y: masked_cross_entropy(z, y) * (y != -100).sum(),
            "Logits that know nothing must cost ln v",
        ),
        "mean over all places": (lambda z, y: _places(z, y).mean(), "Logits that know nothing must cost ln v"),
        "no minus": (lambda z, y: -masked_cross_entropy(z, y), "Logits that know nothing must cost ln v"),
        "softmax before cross-entropy": (
            lambda z, y: masked_cross_entropy(z.softmax(-1), y),
            "sure and right must cost 0",
        ),
        "the next token": (_next_token, "sure and right must cost 0"),
        "-100 is class 0": (_minus_100_is_a_class, "Logits where label is -100 must not matter"),
        "ignores 0, not -100": (
            lambda z, y: F.cross_entropy(z.reshape(-1, z.shape[-1]), y.reshape(-1), ignore_index=0),
            "It stops in line",
        ),
        "log of a softmax": (_log_after_softmax, "With logits of ±200: Its result must be finite"),
        "mean of means": (_mean_of_means, "every hidden place counts the same"),
        "texts in a batch only": (_two_axes_only, "With labels of shape (n): It stops in line"),
        "0 by 0": (
            lambda z, y: F.cross_entropy(z.reshape(-1, z.shape[-1]), y.reshape(-1)),
            "With nothing hidden: Its result must be finite",
        ),
        "0 that stops backward": (
            lambda z, y: masked_cross_entropy(z, y) if (y != -100).any() else torch.tensor(0.0),
            "With nothing hidden: The loss must still have a gradient",
        ),
        "no gradient": (lambda z, y: masked_cross_entropy(z, y).detach() + 0 * z.sum(), "A gradient must flow"),
    },
    "masked_region_regression": {
        "mean over features": (_regions(lambda x, y: (x - y).square().mean(-1)), "a sum over features"),
        "the length, not squared": (_regions(lambda x, y: (x - y).norm(dim=-1)), "a sum over features"),
        "absolute differences": (_regions(lambda x, y: (x - y).abs().sum(-1)), "a sum over features"),
        "mean over all regions": (_regions(_square, mean=_of_all_regions), "a sum over features"),
        "sum over regions": (_regions(_square, mean=lambda each, hidden: each.sum()), "a sum over features"),
        "distance of the normalised": (
            _regions(lambda x, y: _square(F.normalize(x, dim=-1), F.normalize(y, dim=-1))),
            "a sum over features",
        ),
        "similarity": (_regions(lambda x, y: (x * y).sum(-1)), "A prediction that is right must cost 0"),
        "the regions that can be seen": (_regions(_square, which=torch.logical_not), "not hidden must not matter"),
        "all regions": (_regions(_square, which=_everywhere), "not hidden must not matter"),
        "mean of means": (_regions(_square, mean=_of_pictures), "every hidden region counts the same"),
        "0 by 0": (_regions(_square, mean=_nothing_by_nothing), "With nothing hidden: Its result must be finite"),
        "0 that stops backward": (_stops_backward(masked_region_regression), "The loss must still have a gradient"),
    },
    "masked_region_classification": {
        "all that the detector says": (_regions(_soft), "also where the detector has doubts"),
        "weighted by how likely": (
            _regions(lambda x, y: y.amax(-1) * _class(x, y)),
            "Logits that know nothing must cost ln c",
        ),
        "kl": (_regions(_kl), "Logits that know nothing must cost ln c"),
        "softmax without a logarithm": (
            _regions(lambda x, y: -x.softmax(-1).gather(-1, y.argmax(-1, keepdim=True))[..., 0]),
            "Logits that know nothing must cost ln c",
        ),
        "mean over all regions": (_regions(_class, mean=_of_all_regions), "Logits that know nothing must cost ln c"),
        "the model's own choice": (_regions(lambda x, y: _class(x, x)), "at the detector's first choice"),
        "the least likely": (_regions(lambda x, y: _class(x, -y)), "sure of the detector's first choice must pay 0"),
        "a mean weighted by how likely": (_by_confidence, "Only which class is likeliest must matter"),
        "the regions that can be seen": (_regions(_class, which=torch.logical_not), "not hidden must not matter"),
        "all regions": (_regions(_class, which=_everywhere), "not hidden must not matter"),
        "mean of means": (_regions(_class, mean=_of_pictures), "every hidden region counts the same"),
        "0 by 0": (
            lambda x, y, m: F.cross_entropy(x[m], y[m].argmax(-1)),
            "With nothing hidden: Its result must be finite",
        ),
        "0 that stops backward": (_stops_backward(masked_region_classification), "The loss must still have a gradient"),
    },
    "masked_region_kl": {
        "the other direction": (_regions(_reversed_kl), "this is KL(model || detector)"),
        "cross-entropy": (_regions(_soft), "Where model and detector agree, the loss must be 0"),
        "first choice only": (_regions(_class), "Where model and detector agree, the loss must be 0"),
        "probabilities for logarithms": (
            _regions(lambda x, y: F.kl_div(x.softmax(-1), y, reduction="none").sum(-1)),
            "Where model and detector agree, the loss must be 0",
        ),
        "softmax of probabilities": (
            _regions(lambda x, y: _kl(x, y.softmax(-1))),
            "Where model and detector agree, the loss must be 0",
        ),
        "no minus": (_regions(lambda x, y: -_kl(x, y)), "A divergence must never be negative"),
        "both directions": (
            _regions(lambda x, y: (_kl(x, y) + _reversed_kl(x, y.clamp(min=1e-9))) / 2),
            "With a detector without doubt, for which it is classification: Logits that know nothing must cost ln c",
        ),
        "mean over classes": (
            lambda x, y, m: F.kl_div(x[m].log_softmax(-1), y[m], reduction="none").mean(),
            "a sum over classes, a mean over hidden regions",
        ),
        "mean over pictures": (
            lambda x, y, m: _regions(_kl, mean=lambda each, hidden: each.sum() / len(each))(x, y, m),
            "a sum over classes, a mean over hidden regions",
        ),
        "0 log 0": (
            _regions(lambda x, y: (y * (y / x.softmax(-1)).log()).sum(-1)),
            "With a detector without doubt, for which it is classification: Its result must be finite",
        ),
        "the regions that can be seen": (_regions(_kl, which=torch.logical_not), "not hidden must not matter"),
        "all regions": (_regions(_kl, which=_everywhere), "not hidden must not matter"),
        "mean of means": (_regions(_kl, mean=_of_pictures), "every hidden region counts the same"),
        "0 by 0": (_regions(_kl, mean=_nothing_by_nothing), "With nothing hidden: Its result must be finite"),
        "0 that stops backward": (_stops_backward(masked_region_kl), "The loss must still have a gradient"),
    },
    "random_negatives": {
        "the neighbour": (lambda ids, generator: torch.arange(len(ids)).roll(1), "the row's own caption"),
        "a shuffle": (
            lambda ids, generator: torch.randperm(len(ids), generator=generator),
            "A row must never be its own negative",
        ),
        "any other row": (_other_rows, "A negative must never have the row's own caption"),
        "a second try": (_redraws_once, "A negative must never have the row's own caption"),
        "rows that fit": (
            lambda ids, generator: torch.multinomial((ids[:, None] == ids).float(), 1, generator=generator)[:, 0],
            "A row must never be its own negative",
        ),
        "captions": (
            lambda ids, generator: ids[random_negatives(ids, generator)],
            "It must return numbers of rows, from 0 to 7",
        ),
        "who differs": (lambda ids, generator: ids[:, None] != ids, "must have shape (8,)"),
        "a column": (lambda ids, generator: random_negatives(ids, generator)[:, None], "must have shape (8,)"),
        "global state": (
            lambda ids, generator: random_negatives(ids, torch.default_generator),
            "The same seed must draw the same rows",
        ),
        "a generator of its own": (
            lambda ids, generator: random_negatives(ids, torch.Generator().manual_seed(0)),
            "It must draw anew with each call",
        ),
        "the next that differs": (_next_that_differs, "It must draw anew with each call"),
        "a caption first": (_caption_first, "Every row with another caption must be equally likely"),
    },
    "cosine_cost": {
        "similarity": (lambda x, y: 1 - cosine_cost(x, y), "The same direction must cost 0"),
        "lengths stay": (lambda x, y: 1 - x @ y.mT, "The same direction must cost 0"),
        "one side normalised": (lambda x, y: 1 - x @ F.normalize(y, dim=-1).mT, "The same direction must cost 0"),
        "normalised over words": (
            lambda x, y: 1 - F.normalize(x, dim=1) @ F.normalize(y, dim=1).mT,
            "The same direction must cost 0",
        ),
        "a mean over features": (
            lambda x, y: 1 - (F.normalize(x, dim=-1)[:, :, None] * F.normalize(y, dim=-1)[:, None]).mean(-1),
            "The same direction must cost 0",
        ),
        "absolute cosine": (lambda x, y: 1 - (1 - cosine_cost(x, y)).abs(), "The opposite direction must cost 2"),
        "squared distance": (lambda x, y: 2 * cosine_cost(x, y), "The opposite direction must cost 2"),
        "half of it": (lambda x, y: cosine_cost(x, y) / 2, "The opposite direction must cost 2"),
        "squared cosine": (lambda x, y: cosine_cost(x, y).square() / 2, "A right angle must cost 1"),
        "0 by 0": (_divides_by_length, "With a vector of zeros: Its result must be finite"),
        "regions by words": (lambda x, y: cosine_cost(y, x), "Its result must have shape (3, 4"),
        "every text with every picture": (
            lambda x, y: 1 - einsum(F.normalize(x, dim=-1), F.normalize(y, dim=-1), "b t d, c p d -> b c t p"),
            "Its result must have shape (3, 4",
        ),
        "the first picture for all": (
            lambda x, y: cosine_cost(x, y[:1].expand_as(y)),
            "The same direction must cost 0",
        ),
        "texts detached": (lambda x, y: cosine_cost(x.detach(), y), "A gradient must flow to every input"),
    },
    "ipot": {
        "every word sends 1": (
            _without_gradient(lengths=lambda mask: 1),
            "All mass together must be 1",
        ),
        "mass may be negative": (lambda c, *rest: ipot(c, *rest) - 1e-3, "Mass must not be negative"),
        "rows last": (_without_gradient(rows_last=True), "must receive exactly 1/m"),
        "attention of words": (_attention_of_words, "must receive exactly 1/m"),
        "nearest region": (_nearest_region, "must receive exactly 1/m"),
        "attention of regions": (
            lambda c, x, y, *settings: _attention_of_words(c.mT, y, x).mT,
            "Each of n real words must send 1/n",
        ),
        "no minus": (_without_gradient(kernel=lambda c, beta: torch.exp(c / beta)), "this goes where it is high"),
        "Sinkhorn": (_without_gradient(proximal=False), "Where each word has one region of cost 0"),
        "the same mass everywhere": (
            lambda c, x, y, *settings: _same_mass(c, x, y, *settings, *(0.5, 50)[len(settings) :]),
            "Where each word has one region of cost 0",
        ),
        "ignores the masks": (_without_gradient(mask=False), "With padding: Padding must neither send nor receive"),
        "n and m with padding": (
            _without_gradient(lengths=lambda mask: mask.shape[1]),
            "With padding: All mass together must be 1",
        ),
        "0 by 0 in padding": (_without_gradient(smallest=0), "With padding: Its result must be finite"),
        "0 words": (
            _without_gradient(lengths=lambda mask: mask.sum(1, keepdim=True)),
            "With a text without words: Its result must be finite",
        ),
        "0 for all if one has no words": (
            lambda c, x, y, *settings: ipot(c, x, y, *settings) * x.any(1).all(),
            "With a text without words: Other pairs must not change",
        ),
        "times beta": (
            _without_gradient(kernel=lambda c, beta: torch.exp(-c * beta)),
            "It must be the plan of the algorithm",
        ),
        "no beta": (
            _without_gradient(kernel=lambda c, beta: torch.exp(-c)),
            "It must be the plan of the algorithm",
        ),
        "forgets σ": (_forgets_sigma, "Each of n real words must send 1/n"),
        "always 50 steps": (
            lambda c, x, y, beta=0.5, iterations=50: ipot(c, x, y, beta, max(iterations, 50)),
            "With beta 0.5 and iterations 1: It must be the plan of the algorithm",
        ),
        "one step more": (
            lambda c, x, y, beta=0.5, iterations=50: ipot(c, x, y, beta, iterations + 1),
            "It must be the plan of the algorithm",
        ),
        "another default": (
            lambda c, x, y, beta=0.1, iterations=50: ipot(c, x, y, beta, iterations),
            "Without arguments β must be 0.5",
        ),
        "a gradient": (_plan, "The plan must have no gradient"),
    },
    "word_region_alignment": {
        "one number for all": (lambda *args: word_region_alignment(*args).mean(), "must have shape (3,)"),
        "the plan": (lambda w, r, *rest: ipot(cosine_cost(w, r), *rest), "must have shape (3,)"),
        "similarity": (
            lambda w, r, *rest: 1 - word_region_alignment(w, r, *rest),
            "Where all words and regions have the same direction, the cost must be 0",
        ),
        "mean over words and regions": (
            lambda w, r, *rest: word_region_alignment(w, r, *rest) / (w.shape[1] * r.shape[1]),
            "Where all words and regions have opposite directions, the cost must be 2",
        ),
        "lengths stay": (
            partial(_transport, cost=lambda x, y: 1 - x @ y.mT),
            "Where all words and regions have the same direction, the cost must be 0",
        ),
        "the best region of each word": (_best_region, "One word must pay the mean over four regions"),
        "the same mass everywhere": (partial(_transport, plan=_same_mass), "The same vectors in another order"),
        "Sinkhorn": (
            partial(_transport, plan=_without_gradient(proximal=False)),
            "The same vectors in another order",
        ),
        "ignores the masks": (_no_masks, "With padding: What stands in padding must not matter"),
        "ignores region_mask": (
            lambda w, r, x, y, *rest: word_region_alignment(w, r, x, torch.ones_like(y), *rest),
            "With padding: What stands in padding must not matter",
        ),
        "ignores beta and iterations": (
            lambda w, r, x, y, *rest: word_region_alignment(w, r, x, y),
            "with this β and so many steps",
        ),
        "no gradient": (torch.no_grad()(word_region_alignment), "A gradient must flow from the result"),
        "words detached": (
            lambda w, *rest: word_region_alignment(w.detach(), *rest),
            "A gradient must flow to every input",
        ),
        "a gradient through the plan": (partial(_transport, plan=_plan), "the plan counts as a constant"),
    },
}
