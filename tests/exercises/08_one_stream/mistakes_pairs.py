"""Wrong answers that people really give, and what each is told: ``MISTAKES[task][what it says][name]``."""

from functools import partial

import torch
import torch.nn.functional as F
from common_mistakes import from_global_state, from_own_seed, then
from einops import einsum

from mmlearn.objectives import cosine_cost, ipot, random_negatives, word_region_alignment


def _other_rows(caption_id, generator):
    """Any row but itself."""
    b = len(caption_id)
    return (torch.arange(b) + torch.randint(1, b, (b,), generator=generator)) % b


def _highest_of_random(caption_id, generator):
    chance = torch.rand(len(caption_id), len(caption_id), generator=generator)
    return chance.masked_fill(caption_id[:, None] == caption_id, -1).argmax(1)


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
    """The plan of IPOT with its gradient, or one that differs in a single position."""
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


RIGHT = {  # right answers that are written in another way than the library's
    "random_negatives": _highest_of_random,
    "cosine_cost": lambda x, y: 1 - F.cosine_similarity(x[:, :, None], y[:, None], dim=-1),
    "ipot": _without_gradient(),
    "word_region_alignment": partial(_transport, plan=_without_gradient()),
}

MISTAKES = {
    "random_negatives": {
        "the row's own caption": {
            "the neighbour": lambda ids, generator: torch.arange(len(ids)).roll(1),
            "any other row": _other_rows,
            "a second try": _redraws_once,
        },
        "A row must never be its own negative": {
            "a shuffle": lambda ids, generator: torch.randperm(len(ids), generator=generator),
            "rows that fit": lambda ids, generator: torch.multinomial(
                (ids[:, None] == ids).float(), 1, generator=generator
            )[:, 0],
        },
        "It must return numbers of rows, from 0 to 7": {
            "captions": lambda ids, generator: ids[random_negatives(ids, generator)]
        },
        "must have shape (8,)": {
            "who differs": lambda ids, generator: ids[:, None] != ids,
            "a column": then(random_negatives, lambda y: y[:, None]),
        },
        "The same seed must give the same result": {"global state": from_global_state(random_negatives)},
        "It must draw anew with each call": {
            "a generator of its own": from_own_seed(random_negatives),
            "the next that differs": _next_that_differs,
        },
        "Every row with another caption must be equally likely": {"a caption first": _caption_first},
    },
    "cosine_cost": {
        "The same direction must cost 0": {
            "similarity": then(cosine_cost, lambda y: 1 - y),
            "lengths stay": lambda x, y: 1 - x @ y.mT,
            "one side normalised": lambda x, y: 1 - x @ F.normalize(y, dim=-1).mT,
            "normalised over words": lambda x, y: 1 - F.normalize(x, dim=1) @ F.normalize(y, dim=1).mT,
            "a mean over features": lambda x, y: (
                1 - (F.normalize(x, dim=-1)[:, :, None] * F.normalize(y, dim=-1)[:, None]).mean(-1)
            ),
            "the first picture for all": lambda x, y: cosine_cost(x, y[:1].expand_as(y)),
        },
        "The opposite direction must cost 2": {
            "absolute cosine": then(cosine_cost, lambda y: 1 - (1 - y).abs()),
            "squared distance": then(cosine_cost, lambda y: 2 * y),
            "half of it": then(cosine_cost, lambda y: y / 2),
        },
        "A right angle must cost 1": {"squared cosine": then(cosine_cost, lambda y: y.square() / 2)},
        "With a vector of zeros: Its result must be finite": {"0 by 0": _divides_by_length},
        "Its result must have shape (3, 4": {
            "regions by words": lambda x, y: cosine_cost(y, x),
            "every text with every picture": lambda x, y: (
                1 - einsum(F.normalize(x, dim=-1), F.normalize(y, dim=-1), "b t d, c p d -> b c t p")
            ),
        },
        "A gradient must flow to every input": {"texts detached": lambda x, y: cosine_cost(x.detach(), y)},
    },
    "ipot": {
        "All mass together must be 1": {
            "every word sends 1": _without_gradient(lengths=lambda mask: 1),
            "n and m with padding": _without_gradient(lengths=lambda mask: mask.shape[1]),
        },
        "Mass must not be negative": {"mass may be negative": then(ipot, lambda y: y - 1e-3)},
        "must receive exactly 1/m": {
            "rows last": _without_gradient(rows_last=True),
            "attention of words": _attention_of_words,
            "nearest region": _nearest_region,
        },
        "Each of n real words must send 1/n": {
            "attention of regions": lambda c, x, y, *settings: _attention_of_words(c.mT, y, x).mT,
            "forgets σ": _forgets_sigma,
        },
        "this goes where it is high": {"no minus": _without_gradient(kernel=lambda c, beta: torch.exp(c / beta))},
        "Where each word has one region of cost 0": {
            "Sinkhorn": _without_gradient(proximal=False),
            "the same mass everywhere": lambda c, x, y, *settings: _same_mass(
                c, x, y, *settings, *(0.5, 50)[len(settings) :]
            ),
        },
        "With padding: Padding must neither send nor receive": {"ignores the masks": _without_gradient(mask=False)},
        "With padding: Its result must be finite": {"0 by 0 in padding": _without_gradient(smallest=0)},
        "With a text without words: Its result must be finite": {
            "0 words": _without_gradient(lengths=lambda mask: mask.sum(1, keepdim=True))
        },
        "With a text without words: Other pairs must not change": {
            "0 for all if one has no words": lambda c, x, y, *settings: ipot(c, x, y, *settings) * x.any(1).all()
        },
        "It must be the plan of the algorithm": {
            "times beta": _without_gradient(kernel=lambda c, beta: torch.exp(-c * beta)),
            "no beta": _without_gradient(kernel=lambda c, beta: torch.exp(-c)),
            "always 50 steps": lambda c, x, y, beta=0.5, iterations=50: ipot(c, x, y, beta, max(iterations, 50)),
            "one step more": lambda c, x, y, beta=0.5, iterations=50: ipot(c, x, y, beta, iterations + 1),
        },
        "Without arguments β must be 0.5": {
            "another default": lambda c, x, y, beta=0.1, iterations=50: ipot(c, x, y, beta, iterations)
        },
        "It must have no gradient": {"a gradient": _plan},
    },
    "word_region_alignment": {
        "must have shape (3,)": {
            "one number for all": then(word_region_alignment, lambda y: y.mean()),
            "the plan": lambda w, r, *rest: ipot(cosine_cost(w, r), *rest),
        },
        "Where all words and regions have the same direction, the cost must be 0": {
            "similarity": then(word_region_alignment, lambda y: 1 - y),
            "lengths stay": partial(_transport, cost=lambda x, y: 1 - x @ y.mT),
        },
        "Where all words and regions have opposite directions, the cost must be 2": {
            "mean over words and regions": lambda w, r, *rest: (
                word_region_alignment(w, r, *rest) / (w.shape[1] * r.shape[1])
            )
        },
        "One word must pay the mean over four regions": {"the best region of each word": _best_region},
        "The same vectors in another order": {
            "the same mass everywhere": partial(_transport, plan=_same_mass),
            "Sinkhorn": partial(_transport, plan=_without_gradient(proximal=False)),
        },
        "With padding: What stands in padding must not matter": {
            "ignores the masks": _no_masks,
            "ignores region_mask": lambda w, r, x, y, *rest: word_region_alignment(w, r, x, torch.ones_like(y), *rest),
        },
        "with this β and so many steps": {
            "ignores beta and iterations": lambda w, r, x, y, *rest: word_region_alignment(w, r, x, y)
        },
        "A gradient must flow from the result": {"no gradient": torch.no_grad()(word_region_alignment)},
        "A gradient must flow to every input": {
            "words detached": lambda w, *rest: word_region_alignment(w.detach(), *rest)
        },
        "the plan counts as a constant": {"a gradient through the plan": partial(_transport, plan=_plan)},
    },
}
