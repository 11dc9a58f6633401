"""Wrong answers about masks and experts, and what each is told: ``MISTAKES[task][what it says][name]``."""

from functools import partial

import torch
import torch.nn.functional as F
from common_mistakes import deaf, detached

from mmlearn.objectives.generative import prefix_mask


def _one_mask(seen, patches, mask, target_mask):
    """As a prefix and what follows it."""
    there = torch.cat([seen[:, :1].repeat(1, patches), mask & seen[:, 1:], target_mask], 1)
    return prefix_mask(torch.arange(there.shape[1]).expand_as(there) < patches + mask.shape[1], there)


def _blocks(seen, patches, mask, target_mask, *, way=lambda seen: seen, there=None, past=torch.tril, read=None,
            looks=True, padding=True):  # fmt: skip
    """Blocks put together, or what differs in a single position."""
    o, n, seen = target_mask.shape[1], patches + mask.shape[1], way(seen)
    words = mask if padding else mask | True
    columns = torch.cat([seen[:, :1].repeat(1, patches), words & seen[:, 1:], target_mask], 1)
    whole = torch.zeros(n + o, n + o, dtype=torch.bool)
    whole[:n, :n] = True if read is None else read(torch.ones(n, n, dtype=torch.bool))
    whole[:n, n:] = there is not None
    whole[n:, :n] = looks
    whole[n:, n:] = past(torch.ones(o, o)).bool()
    return whole & columns[:, None, :]


def _by_rows(seen, patches, mask, target_mask):
    """What is hidden sees nothing, and is seen by all."""
    whole = _blocks(seen | True, patches, mask | True, target_mask | True)
    there = torch.cat([seen[:, :1].repeat(1, patches), mask & seen[:, 1:], target_mask], 1)
    return whole & there[:, :, None]


def _queue(probability, real, capacity, *, least=0, order=None, second=False, weigh=None, padding=False, drop=-1,
           lost=0.0):  # fmt: skip
    """Token by token, with a count for each expert, or what differs in a single position."""
    n, e = probability.shape
    expert, weight, taken = [drop] * n, [torch.zeros(()) + lost] * n, [0] * e
    for i in order(probability).tolist() if order else range(n):
        choices = probability[i].argsort(descending=True).tolist()
        for k in choices if second else choices[:1]:
            if taken[k] < capacity + least and (real[i] or padding):
                taken[k] += 1
                if real[i]:
                    expert[i], weight[i] = k, weigh(probability[i, k]) if weigh else probability[i, k]
                break
    return torch.tensor(expert).masked_fill(~real, -1), torch.stack(weight)


def _likely_where(kept):
    """The right expert, with another weight."""

    def wrong(probability, real, capacity):
        expert, _ = _queue(probability, real, capacity)
        return expert, kept(probability.amax(1), expert, real)

    return wrong


def _all_together(probability, real, capacity):
    """As many tokens as all experts have room for, whoever they want."""
    kept = real & (real.cumsum(0) <= capacity * probability.shape[1])
    weight, expert = probability.max(1)
    return torch.where(kept, expert, -1), weight * kept


def _groups(logits, real, *, of=lambda z: z.softmax(-1), rows=lambda real: real, scale=lambda n, k, e: e, share=None,
            last=torch.mean):  # fmt: skip
    """Group by group, or what differs in a single position."""
    rows = rows(real)
    if not rows.any():
        return 0 * logits.sum()
    k, e = logits.shape[1:]
    probability = of(logits)[rows]
    found = []
    for group in probability.unbind(1):
        chosen = torch.bincount(group.argmax(1), minlength=e) / len(group)
        found.append(scale(len(group), k, e) * ((share(group) if share else chosen) * group.mean(0)).sum())
    return last(torch.stack(found))


def _one_choice(logits, real):
    """One expert for each token in all, and not in each group."""
    probability, (k, e) = logits.softmax(-1)[real], logits.shape[1:]
    if not len(probability):
        return 0 * logits.sum()
    chosen = F.one_hot(probability.flatten(1).argmax(1), k * e).float().mean(0).view(k, e)
    return e * (chosen * probability.mean(0)).sum(-1).mean()


def _unsafe(logits, real):
    """Divided by 0 where no token is real."""
    there, probability, e = real[:, None, None], logits.softmax(-1), logits.shape[-1]
    share, likely = ((x * there).sum(0) / real.sum() for x in (F.one_hot(probability.argmax(-1), e), probability))
    return e * (share * likely).sum(-1).mean()


RIGHT = {  # right answers that are written in another way than the library's
    "three_encodings": _one_mask,
    "route_to_one": _queue,
    "balance_of_prototypes": _groups,
}

MISTAKES = {
    "three_encodings": {
        "The picture must be seen by nobody": {
            "the picture always": partial(_blocks, way=lambda seen: seen | torch.tensor([True, False]))
        },
        "The text must be seen by nobody": {
            "the text always": partial(_blocks, way=lambda seen: seen | torch.tensor([False, True])),
            "all of it": partial(_blocks, way=lambda seen: seen | True),
            "the other way round": partial(_blocks, way=lambda seen: seen.flip(1)),
            "by rows": _by_rows,
        },
        "Padding of a text": {"text padding": partial(_blocks, padding=False)},
        "must not see the target": {"all see all": partial(_blocks, there=True)},
        "must not see later ones": {"both ways": partial(_blocks, past=lambda x: x)},
        "must see itself": {"not itself": partial(_blocks, past=lambda x: x.tril(-1))},
        "later tokens as well": {"causal throughout": partial(_blocks, read=torch.tril)},
        "The target must see all that is read": {"a target alone": partial(_blocks, looks=False)},
        "Each must see what is read": {"the last token alone": partial(_blocks, past=lambda x: torch.eye(len(x)))},
        "Each row must go its own": {"the first row's": partial(_blocks, way=lambda seen: seen[:1].expand_as(seen))},
    },
    "route_to_one": {
        "here none is ever full": {"no capacity": lambda p, real, capacity: _queue(p, real, len(p))},
        "An expert must take": {
            "one too many": partial(_queue, least=1),
            "one too few": partial(_queue, least=-1),
            "all experts together": _all_together,
        },
        "here it goes to another": {
            "the second choice": partial(_queue, second=True),
            "expert 0": partial(_queue, drop=0),
        },
        "Padding must take no position": {"padding takes places": partial(_queue, padding=True)},
        "here the surest are": {
            "the surest first": partial(_queue, order=lambda p: p.detach().amax(1).argsort(descending=True))
        },
        "it must take the first": {"the last first": partial(_queue, order=lambda p: torch.arange(len(p)).flip(0))},
        "from which a router learns nothing": {"of one alone": partial(_queue, weigh=lambda p: p / p)},
        "goes to no expert must be 0": {
            "weights of all": _likely_where(lambda likely, expert, real: likely),
            "weights of all real ones": _likely_where(lambda likely, expert, real: likely * real),
            "1 for those that are dropped": _likely_where(lambda likely, expert, real: torch.where(real, likely, 0)),
        },
        "The weight must be the probability": {
            "1 where there is none": partial(_queue, lost=1.0),
            "a root": partial(_queue, weigh=torch.sqrt),
        },
        "Padding must go to no expert": {"padding too": lambda p, real, capacity: _queue(p, real | True, capacity)},
        "A gradient must flow": {"no gradient": deaf(_queue, 0)},
    },
    "balance_of_prototypes": {
        "here it is a count": {"counts": partial(_groups, scale=lambda n, k, e: n * e)},
        "divided once more by the tokens": {"divided twice": partial(_groups, scale=lambda n, k, e: e / n)},
        "so that even odds cost 1": {"no E": partial(_groups, scale=lambda n, k, e: 1)},
        "here it is k times as much": {
            "all experts": partial(_groups, scale=lambda n, k, e: k * e),
            "a sum": partial(_groups, last=torch.sum),
        },
        "here all experts share one": {
            "one softmax": partial(_groups, of=lambda z: z.flatten(1).softmax(-1).view_as(z))
        },
        "here it is the mean probability": {"P twice": partial(_groups, share=lambda p: p.mean(0))},
        "Padding must not count": {"padding too": partial(_groups, rows=lambda real: real | True)},
        "Means must be over real tokens": {"over all": lambda z, real: _groups(z, real) * real.float().mean() ** 2},
        "here it chooses one in all": {"one choice": _one_choice},
        "here it is logits": {"no softmax": partial(_groups, of=lambda z: z)},
        "A gradient must flow": {"no gradient": detached(_groups)},
        "must be finite": {"a mean of nothing": _unsafe},
    },
}
