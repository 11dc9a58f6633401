"""Wrong answers that people really give, and what each is told: ``MISTAKES[task][what it says][name]``."""

from functools import partial

import torch
import torch.nn.functional as F
from common_mistakes import detached

from mmlearn.objectives import (
    causal_language_modelling,
    inherit_knowledge,
    prefix_mask,
    replaced_token_detection,
    shifted_right,
)


def _shifted(target, start, *, rest=lambda x: x[:, :-1]):
    return torch.cat([torch.full((len(target), 1), start), rest(target)], dim=1)


def _rate(step, steps, start=1.0, *, line=lambda x: 1 - x, cut=lambda x: max(0.0, x)):
    return start * cut(line(step / steps))


def _seen(
    prefix,
    mask=None,
    *,
    past=lambda i, j: j <= i,
    whole=lambda past, prefix: past | prefix[:, None],
    hide=lambda m: m[:, None],
):
    position = torch.arange(prefix.shape[1])
    seen = whole(past(position[:, None], position), prefix)
    return seen if mask is None else seen & hide(mask)


def _one_less(past, prefix):
    """Unless all is prefix, its last token is not seen by those before it."""
    last = prefix & ~prefix.roll(-1, 1)
    return past | torch.where(prefix.all(1, keepdim=True), prefix, prefix & ~last)[:, None]


def _causal(
    logits,
    tokens,
    mask=None,
    *,
    said=lambda z: z[:, :-1],
    asked=lambda x: x[:, 1:],
    mean=lambda cost, real: (cost * real).sum() / real.sum().clamp(min=1),
):
    mask = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask
    right = said(logits).gather(2, asked(tokens)[..., None])[..., 0]
    return mean(said(logits).logsumexp(-1) - right, asked(mask))


def _mean_of_rows(cost, real):
    return torch.stack([(row[m].mean() if m.any() else row.sum() * 0) for row, m in zip(cost, real)]).mean()


def _detected(
    logits,
    replaced,
    mask,
    *,
    sign=lambda wrong: torch.where(wrong, -1.0, 1.0),
    cost=F.softplus,
    asked=lambda mask, wrong: mask,
    mean=lambda cost, real: (cost * real).sum() / real.sum().clamp(min=1),
):
    return mean(cost(sign(replaced) * logits), asked(mask, replaced))


def _greedy(
    next_logits,
    start,
    *,
    end_token,
    max_length,
    pad_token=0,
    given=lambda text: text,
    pick=lambda scores: int(scores.argmax()),
    keep_end=True,
    room=lambda text, begun: len(text),
    result=lambda text, begun: text,
):
    """Row by row."""
    texts = []
    for row in start:
        text = row.tolist()
        while room(text, len(row)) < max_length:
            token = pick(next_logits(torch.tensor([given(text)]))[0])
            if token != end_token or keep_end:
                text.append(token)
            if token == end_token:
                break
        texts.append(torch.tensor(result(text, len(row))))
    return torch.nn.utils.rnn.pad_sequence(texts, batch_first=True, padding_value=pad_token)


def _no_padding(next_logits, start, *, end_token, max_length, pad_token=0, until=torch.Tensor.any):
    """All rows go on until the last, or the first, has ended."""
    tokens = start
    while tokens.shape[1] < max_length and not until((tokens == end_token).any(1)):
        tokens = torch.cat([tokens, next_logits(tokens).argmax(-1)[:, None]], dim=1)
    return tokens


def _to_the_end(next_logits, start, *, end_token, max_length, pad_token=0):
    text = _greedy(next_logits, start, end_token=end_token, max_length=max_length, pad_token=pad_token)
    return F.pad(text, (0, max_length - text.shape[1]), value=pad_token)


def _inherit(
    loss,
    student,
    teacher,
    alpha,
    temperature=1.0,
    *,
    own=lambda a: 1 - a,
    soft=lambda z, t: (z / t).log_softmax(-1),
    divergence=lambda p, q: (p.exp() * (p - q)).sum(-1).mean(),
    square=lambda t: t * t,
    stop=torch.Tensor.detach,
    shortcut=True,
):
    if alpha == 0 and shortcut:
        return loss
    p, q = soft(stop(teacher), temperature), soft(student, temperature)
    return own(alpha) * loss + alpha * square(temperature) * divergence(p, q)


RIGHT = {  # right answers that are written in another way than the library's
    "shifted_right": _shifted,
    "inheritance_rate": _rate,
    "prefix_mask": lambda prefix, mask=None: _seen(prefix, mask, hide=lambda m: m[:, None] & m[:, :, None]),
    "causal_language_modelling": _causal,
    "replaced_token_detection": _detected,
    "greedy": _greedy,
    "inherit_knowledge": _inherit,
}

MISTAKES = {
    "shifted_right": {
        "here they move to the left": {
            "to the left": lambda x, s: torch.cat([x[:, 1:], torch.full((len(x), 1), s)], 1)
        },
        "must begin with the start token": {"rolled": lambda x, s: x.roll(1, 1), "as it was": lambda x, s: x},
        "must stand the target without its last token": {
            "the first replaced": partial(_shifted, rest=lambda x: x[:, 1:]),
            "through float": lambda x, s: shifted_right(x.float().long(), s),
        },
        "must have shape": {"one too many": partial(_shifted, rest=lambda x: x)},
        "must hold whole numbers": {"as floats": lambda x, s: shifted_right(x, s).float()},
    },
    "inheritance_rate": {
        "At step 0 the teacher": {
            "rising": partial(_rate, line=lambda x: x),
            "the start left out": lambda step, steps, start=1.0: _rate(step, steps),
        },
        "along a straight line": {
            "whole numbers": lambda step, steps, start=1.0: start * max(0, 1 - step // steps),
            "a square": partial(_rate, line=lambda x: 1 - x * x),
            "a constant": lambda step, steps, start=1.0: start if step < steps else 0.0,
            "a step late": lambda step, steps, start=1.0: _rate(max(step - 1, 0), steps, start),
        },
        "Behind the last step it must stay 0": {
            "below 0": partial(_rate, cut=lambda x: x),
            "up again": partial(_rate, cut=abs),
        },
        "Without a start it must begin with 1": {
            "another start": lambda step, steps, start=0.5: _rate(step, steps, start)
        },
    },
    "prefix_mask": {
        "here it is the other way": {"transposed": lambda *given: prefix_mask(*given).mT},
        "Each token must see itself": {"without itself": partial(_seen, past=lambda i, j: j < i)},
        "Without a prefix": {
            "the future": partial(_seen, past=lambda i, j: j >= i),
            "everything": partial(_seen, past=lambda i, j: i == i + 0 * j),
        },
        "everything must be seen by all": {
            "causal alone": partial(_seen, whole=lambda past, p: past.repeat(len(p), 1, 1))
        },
        "the whole prefix of its own row": {
            "all but its last token": partial(_seen, whole=_one_less),
            "that of another row": partial(_seen, whole=lambda past, p: past | p[[0, 2, 1, 3]][:, None]),
        },
        "also where it is not at the start": {
            "its length": partial(
                _seen, whole=lambda past, p: past | (torch.arange(p.shape[1]) < p.sum(1)[:, None])[:, None]
            )
        },
        "Nobody must see padding": {
            "no mask": lambda prefix, mask=None: prefix_mask(prefix),
            "rows for columns": partial(_seen, hide=lambda m: m[:, :, None]),
        },
        "A mask must take away columns": {
            "the text before padding": partial(_seen, hide=lambda m: m[:, None] & m.all(1)[:, None, None])
        },
        "must be boolean": {"numbers": lambda *given: prefix_mask(*given).float()},
        "must have shape": {"one for all": lambda prefix, mask=None: prefix_mask(prefix, mask)[0]},
    },
    "causal_language_modelling": {
        "here they are asked for token i": {
            "not shifted": partial(_causal, said=lambda z: z, asked=lambda x: x),
            "both cut alike": partial(_causal, asked=lambda x: x[:, :-1]),
        },
        "here they are asked for the one before": {
            "the other way": partial(_causal, said=lambda z: z[:, 1:], asked=lambda x: x[:, :-1])
        },
        "must cost ln v": {
            "a sum": partial(_causal, mean=lambda cost, real: (cost * real).sum()),
            "divided by t": partial(
                _causal, mean=lambda c, r: (c * r).sum() / r.sum().clamp(min=1) * c.shape[1] / (c.shape[1] + 1)
            ),
        },
        "With a mask: Padding must not be asked": {
            "no mask": lambda z, x, m=None: _causal(z, x) * (m is None or m.any())
        },
        "not the one before it": {
            "the mask of what is read": lambda z, x, m=None: _causal(
                z, x, None if m is None else F.pad(m[:, :-1], (1, 0), value=True)
            )
        },
        "one mean over all real tokens": {"a mean of rows": partial(_causal, mean=_mean_of_rows)},
        "must be finite": {"nothing to ask": partial(_causal, mean=lambda c, r: c[r].mean())},
        "A gradient must flow from the result": {"no gradient": detached(causal_language_modelling)},
        "must have shape ()": {"one a token": partial(_causal, mean=lambda cost, real: cost * real)},
    },
    "replaced_token_detection": {
        "here it says that it is the original": {
            "labels the other way": partial(_detected, sign=lambda wrong: torch.where(wrong, 1.0, -1.0))
        },
        "Every real token must be asked": {
            "the replaced alone": partial(_detected, asked=lambda m, wrong: wrong & m.any())
        },
        "Padding must not be asked": {
            "no mask": partial(_detected, asked=lambda m, wrong: torch.ones_like(m) & m.any())
        },
        "mean over all real tokens of the batch": {"a mean of rows": partial(_detected, mean=_mean_of_rows)},
        "must cost ln 2": {
            "a sum": partial(_detected, mean=lambda cost, real: (cost * real).sum()),
            "squares": partial(_detected, cost=lambda z: z.sigmoid() ** 2),
        },
        "must be finite": {
            "nothing to ask": partial(_detected, mean=lambda c, r: c[r].mean()),
            "log of sigmoid": partial(_detected, cost=lambda z: -torch.log(torch.sigmoid(-z))),
        },
        "so sure must cost hundreds": {
            "a small number": partial(_detected, cost=lambda z: -torch.log(torch.sigmoid(-z) + 1e-7))
        },
        "A gradient must flow from the result": {"no gradient": detached(replaced_token_detection)},
    },
    "greedy": {
        "A text must begin with its start": {
            "what was written": partial(_greedy, result=lambda text, begun: text[begun:])
        },
        "must count the tokens of the start too": {
            "so many new ones": partial(_greedy, room=lambda text, begun: len(text) - begun)
        },
        "Each token must be the likeliest": {
            "the last token alone": partial(_greedy, given=lambda text: text[-1:]),
            "the least likely": partial(_greedy, pick=lambda scores: int(scores.argmin())),
        },
        "Writing must stop once every text has ended": {"to the full length": _to_the_end},
        "Behind the end token of a text must stand pad_token": {
            "no padding": partial(_no_padding, until=torch.Tensor.all)
        },
        "must have shape": {"without the end": partial(_greedy, keep_end=False), "until the first ends": _no_padding},
    },
    "inherit_knowledge": {
        "With α = 0 it must be the loss, as it is": {
            "shares exchanged": lambda l, s, t, a, tau=1.0: _inherit(l, s, t, 1 - a, tau)
        },
        "the teacher must not be looked at": {"looked at": partial(_inherit, shortcut=False)},
        "only (1 - α) · loss must be left": {
            "the loss whole": partial(_inherit, own=lambda a: 1),
            "cross-entropy": partial(_inherit, divergence=lambda p, q: -(p.exp() * q).sum(-1).mean()),
        },
        "must be KL(teacher ‖ student)": {
            "the other way": partial(_inherit, divergence=lambda p, q: (q.exp() * (q - p)).sum(-1).mean())
        },
        "with no division by c": {
            "mean over tokens": partial(_inherit, divergence=lambda p, q: (p.exp() * (p - q)).mean())
        },
        "the mean over the n positions": {
            "a sum": partial(_inherit, divergence=lambda p, q: (p.exp() * (p - q)).sum())
        },
        "It must be (1 - α) · loss + α · KL": {
            "squares": partial(_inherit, divergence=lambda p, q: (p.exp() - q.exp()).square().sum(-1).mean())
        },
        "and the divergence multiplied by its square": {
            "no square": partial(_inherit, square=lambda t: 1),
            "no temperature": partial(_inherit, soft=lambda z, t: z.log_softmax(-1)),
        },
        "The teacher must get no gradient": {"the teacher learns": partial(_inherit, stop=lambda z: z)},
        "must be finite": {"log of softmax": partial(_inherit, soft=lambda z, t: (z / t).softmax(-1).log())},
        "none comes to loss": {"the loss detached": lambda l, *rest: inherit_knowledge(l.detach(), *rest)},
    },
}
