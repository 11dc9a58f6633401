"""Wrong answers that people really give about scores and CLAP's loss, and what each is told."""

import math
from functools import cache, partial

import torch
import torch.nn.functional as F
from common_mistakes import then

from mmlearn.evaluation.spoken_retrieval import ctc_scores, length_scores

# How many letters are wrong?


def _edits(one, other, *, replace=1, leave=1, put=1):
    """From the end, by what is left of both texts."""

    @cache
    def left(i, j):
        if i == len(one):
            return put * (len(other) - j)
        if j == len(other):
            return leave * (len(one) - i)
        here = left(i + 1, j + 1) + (0 if one[i] == other[j] else replace)
        return min(here, left(i + 1, j) + leave, left(i, j + 1) + put)

    return left(0, 0)


def _rate(said, right, *, edits=_edits, total=lambda said, right: sum(map(len, right)), last=lambda rate: rate):
    return last(sum(edits(one, other) for one, other in zip(said, right)) / total(said, right))


def _position_by_position(one, other):
    return sum(a != b for a, b in zip(one, other)) + abs(len(one) - len(other))


def _as_sets(one, other):
    return len(set(other) - set(one)) + max(0, len(one) - len(other))


def _swapping(one, other):
    """Two neighbours that have changed positions are one edit."""
    for i in range(min(len(one), len(other)) - 1):
        if one[i] == other[i + 1] != one[i + 1] == other[i]:
            return 1 + _edits(one[:i] + one[i + 2 :], other[:i] + other[i + 2 :])
    return _edits(one, other)


def _of_texts(said, right):
    return sum(_edits(one, other) / len(other) for one, other in zip(said, right)) / len(right)


# What a length tells.


def _lengths(
    known, frames, lengths, *, log=torch.log, line=None, apart=lambda expected, length: -(expected - length).abs()
):
    """By least squares of a matrix with a column of ones, or what differs in a single position."""
    x, y = log(known).unbind(1)
    if line:
        expected = line(x, y, log(frames))
    else:
        ones = torch.stack([x, torch.ones_like(x)], dim=1)
        expected = torch.stack([log(frames), torch.ones_like(frames)], dim=1) @ torch.linalg.pinv(ones) @ y
    return apart(expected[:, None], log(lengths)[None])


def _turned(x, y, at):
    slope = torch.cov(torch.stack([x, y]))[0, 1] / y.var()
    return y.mean() + (at - x.mean()) / slope


# Sounds and captions.


def _clap(audio, text, s, t, ids, *, fits=lambda ids: ids[:, None] == ids, even=True, both=(0.5, 0.5), scale=None):
    """By logarithms of softmax that are picked, or what differs in a single position."""
    right = fits(ids).float()
    right = right / right.sum(1, keepdim=True) if even else right
    s, t = scale(s, t) if scale else (s, t)
    logits = audio @ text.T
    paid = [-(right * (by * z).log_softmax(1)).sum() / len(ids) for by, z in ((s, logits), (t, logits.T))]
    return both[0] * paid[0] + both[1] * paid[1]


def _taken_out(audio, text, s, t, ids):
    other = (ids[:, None] == ids) & ~torch.eye(len(ids), dtype=torch.bool)
    label = torch.arange(len(ids))
    ways = (s * audio @ text.T, t * text @ audio.T)
    return sum(F.cross_entropy(z.masked_fill(other, -torch.inf), label) for z in ways) / 2


def _added_up(audio, text, s, t, ids):
    equal = ids[:, None] == ids
    ways = (s * audio @ text.T, t * text @ audio.T)
    return sum((z.logsumexp(1) - z.masked_fill(~equal, -torch.inf).logsumexp(1)).mean() for z in ways) / 2


# Which text fits?


def _fit(
    said, texts, *, per_token=True, low=-1e4, last=lambda score, frames, text: score / len(text), add=torch.logaddexp
):
    """By the forward algorithm, or what differs in a single position."""
    scores = []
    for frames in said:
        for text in texts:
            score = _forward(frames, text, add)
            scores.append(last(score, frames, text) if per_token else score)
    return torch.stack(scores).view(len(said), len(texts)).clamp(min=low)


def _forward(frames, text, add):
    states = torch.zeros(2 * len(text) + 1, dtype=torch.long)
    states[1::2] = text
    skips = torch.zeros(len(states), dtype=torch.bool)
    skips[2:] = (states[2:] != 0) & (states[2:] != states[:-2])
    score = torch.full((len(states),), -1e30)
    score[:2] = frames[0, states[:2]]
    for frame in frames[1:]:
        one, two = (F.pad(score[:-by], (by, 0), value=-1e30) for by in (1, 2))
        score = add(add(score, one), torch.where(skips, two, torch.tensor(-1e30))) + frame[states]
    return add(score[-1], score[-2])


def _zero_infinity(said, texts, *, per_token=True):
    scores = ctc_scores(said, texts, per_token=per_token)
    return torch.where(scores <= -1e4, 0.0, scores)


RIGHT = {  # right answers that are written in another way than the reference
    "edit_rate": _rate,
    "length_scores": _lengths,
    "clap_loss": _clap,
    "ctc_scores": _fit,
}

MISTAKES = {
    "edit_rate": {
        "A letter that is replaced must cost 1": {"replaced for 2": partial(_rate, edits=partial(_edits, replace=2))},
        "A letter that is missing must cost 1": {"missing is free": partial(_rate, edits=partial(_edits, put=0))},
        "A letter too many must cost 1": {"too many is free": partial(_rate, edits=partial(_edits, leave=0))},
        "said and right are used in each other's place": {
            "over what was said": partial(_rate, total=lambda said, right: max(1, sum(map(len, said))))
        },
        "here positions are compared": {"position by position": partial(_rate, edits=_position_by_position)},
        "in another order must cost": {"sets": partial(_rate, edits=_as_sets)},
        "have changed positions must cost 2": {"one edit for two": partial(_rate, edits=_swapping)},
        "It may be above 1": {"at most 1": partial(_rate, last=lambda rate: min(rate, 1.0))},
        "here all texts do": {"a mean of rates": _of_texts},
    },
    "length_scores": {
        "here it is the other way": {"turned": then(length_scores, torch.neg)},
        "here it is squared": {"squared": partial(_lengths, apart=lambda a, b: -(a - b).square())},
        "not numbers of letters": {"letters": partial(_lengths, apart=lambda a, b: -(a.exp() - b.exp()).abs())},
        "here it goes through numbers": {"no logarithms": partial(_lengths, log=lambda x: x)},
        "must be the natural logarithm": {"log10": partial(_lengths, log=torch.log10)},
        "letters are a fixed share of frames": {
            "a ratio": partial(_lengths, line=lambda x, y, at: at + (y - x).mean())
        },
        "The line need not go through 0": {
            "through 0": partial(_lengths, line=lambda x, y, at: at * (x @ y) / (x @ x))
        },
        "frames from letters": {"the other line": partial(_lengths, line=_turned)},
        "here all clips say as much": {"the mean": partial(_lengths, line=lambda x, y, at: y.mean().expand(len(at)))},
        "must have shape": {"texts first": then(length_scores, lambda scores: scores.T)},
    },
    "clap_loss": {
        "here only the own one is": {"the diagonal": partial(_clap, fits=lambda ids: torch.eye(len(ids)))},
        "here each right answer counts 1": {"sums above 1": partial(_clap, even=False)},
        "here they are only left out": {"taken out": _taken_out},
        "here their probabilities are added": {"added up": _added_up},
        "Captions have a temperature of their own": {"the scale of sounds": partial(_clap, scale=lambda s, t: (s, s))},
        "Sounds have a temperature of their own": {"the scale of captions": partial(_clap, scale=lambda s, t: (t, t))},
        "here both share the mean": {"a mean": partial(_clap, scale=lambda s, t: ((s + t) / 2, (s + t) / 2))},
        "it is the other way": {"exchanged": partial(_clap, scale=lambda s, t: (t, s))},
        "it must multiply": {"divided": partial(_clap, scale=lambda s, t: (1 / s, 1 / t))},
        "is exponentiated already": {"exp": partial(_clap, scale=lambda s, t: (s.exp(), t.exp()))},
        "here only sounds pick": {"sounds alone": partial(_clap, both=(1, 0))},
        "here only captions pick": {"captions alone": partial(_clap, both=(0, 1))},
        "here it is their sum": {"a sum of both": partial(_clap, both=(1, 1))},
        "here it is a sum": {"a sum of rows": lambda *given: len(given[0]) * _clap(*given)},
    },
    "ctc_scores": {
        "here it is of the whole text": {"undivided": partial(_fit, last=lambda score, frames, text: score)},
        "A likely text must score high": {"a cost": then(ctc_scores, torch.neg)},
        "here it is by the frames": {"by frames": partial(_fit, last=lambda score, frames, text: score / len(frames))},
        "here it is a probability": {"exp": then(ctc_scores, torch.exp)},
        "here only the best one does": {"the best path": partial(_fit, add=torch.maximum)},
        "With per_token=False": {"always divided": lambda said, texts, *, per_token=True: ctc_scores(said, texts)},
        "must be finite": {
            "infinite": partial(
                _fit, low=-math.inf, last=lambda s, f, t: s / len(t) if s > -1e9 else -torch.inf * torch.ones(())
            )
        },
        "It must get -10,000": {"zero_infinity": _zero_infinity},
        "must have shape": {"texts first": then(ctc_scores, lambda scores: scores.T)},
    },
}
