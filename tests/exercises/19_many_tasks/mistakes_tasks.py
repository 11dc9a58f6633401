"""Wrong answers about tasks side by side, and what each is told: ``MISTAKES[task][what it says][name]``."""

from functools import partial

import torch


def _rates(sizes, temperature, limit, *, power=lambda t: 1 / t, cut=min, after=None, over=sum):
    """Task by task, or what differs in a single position."""
    weights = [float(cut(size, limit)) ** power(temperature) for size in sizes.tolist()]
    weights = [after(weight, limit) for weight in weights] if after else weights
    return torch.tensor([weight / over(weights) for weight in weights])


def _gaps(order, text, hidden, mask_token, end_token, *, each=False, mark=True, order_last=False, ends=(1, 1),
          whole=True, told=False, late=False):  # fmt: skip
    """Token by token, or what differs in a single position."""
    end, gaps, rest = [end_token], [], hidden.tolist()
    for i, (token, gone) in enumerate(zip(text.tolist(), rest)):
        last = i + 1 == len(rest) or not rest[i + 1]
        first = i == 0 or not rest[i - 1]
        if not gone:
            gaps.append(token)
        elif mark and (each or first):
            gaps.append(mask_token)
        elif late and last:
            gaps.append(token)
    source = gaps + order.tolist() if order_last else order.tolist() + gaps
    target = text.tolist() if whole else text[hidden].tolist()
    target = order.tolist() + target if told else target
    return torch.tensor(source + end * ends[0]), torch.tensor(target + end * ends[1])


def _masks_first(order, text, hidden, mask_token, end_token):
    """All masks stand in front of what is left."""
    source, target = _gaps(order, text, hidden, mask_token, end_token)
    body = source[len(order) : -1]
    body = torch.cat([body[body == mask_token], body[body != mask_token]])
    return torch.cat([order, body, source[-1:]]), target


RIGHT = {  # right answers that are written in another way than the library's
    "mixing_rates": _rates,
    "infilling_task": _gaps,
}

MISTAKES = {
    "mixing_rates": {
        "here they do not": {"weights": partial(_rates, over=lambda weights: 1)},
        "here one does": {
            "no limit": partial(_rates, cut=lambda size, limit: size),
            "the limit behind the root": partial(_rates, cut=lambda size, limit: size, after=min),
        },
        "here it sets them apart": {"a power": partial(_rates, power=lambda t: t)},
        "in proportion to sizes": {"no temperature": partial(_rates, power=lambda t: 1)},
        "here it is their logarithm": {
            "a logarithm": lambda sizes, t, limit: (x := sizes.clamp(max=limit).double().log()).div(x.sum()).float()
        },
        "not go through a softmax": {"a softmax": lambda sizes, t, limit: (sizes.clamp(max=limit) / t).softmax(0)},
        "here all come alike": {"all alike": lambda sizes, t, limit: torch.full((len(sizes),), 1 / len(sizes))},
        "It must be the root": {
            "the largest is 1 part": partial(_rates, over=lambda weights: max(weights) * len(weights) / 2),
            "the limit of what is left": partial(_rates, cut=lambda size, limit: min(size, limit / 2)),
        },
    },
    "infilling_task": {
        "however long": {"one for each token": partial(_gaps, each=True), "none": partial(_gaps, mark=False)},
        "here it is what was hidden": {"the gaps alone": partial(_gaps, whole=False)},
        "What is read must end": {"no end to read": partial(_gaps, ends=(0, 1))},
        "The target must end": {"no end to write": partial(_gaps, ends=(1, 0))},
        "The order must stand first": {"the order last": partial(_gaps, order_last=True)},
        "must have shape": {
            "the order is written": partial(_gaps, told=True),
            "the last one stays": partial(_gaps, late=True),
        },
        "A mask must stand where": {"masks in front": _masks_first},
        "as it was": {
            "a target from the end": lambda *given: (
                _gaps(*given)[0],
                torch.cat([given[1].flip(0), torch.tensor([given[4]])]),
            )
        },
        "must hold whole numbers": {"floats": lambda *given: tuple(part.double() for part in _gaps(*given))},
    },
}
