"""Wrong answers that people really give, and what each is told: ``MISTAKES[task][what it says][name]``."""

import math
from collections import Counter
from functools import partial, reduce

import torch
import torch.nn.functional as F
from common_mistakes import deaf, detached, then
from torch import Tensor

from mmlearn.objectives.rewards import self_critical, until_end


def _written(tokens, end, *, stop=None):
    """Row by row, up to where the list has its first end."""
    rows = []
    for row in tokens.tolist():
        last = (stop or (lambda row, end: row.index(end) + 1))(row, end) if end in row else len(row)
        rows.append([i < last for i in range(len(row))])
    return torch.tensor(rows)


def _last_end(row, end):
    return len(row) - row[::-1].index(end)


def _two_ends(row, end):
    first = row.index(end) + 1
    return row.index(end, first) + 1 if end in row[first:] else len(row)


def _loss(logits, tokens, mask, *, shift=1, ask=1, counts=None, last=torch.mean):
    """The log-probability of each token by the logits ``shift`` positions behind the one before it."""
    said = logits[:, ask - 1 + shift :][:, : tokens.shape[1] - ask]
    some = mask[:, ask:] if counts is None else counts(mask)
    logs = said.log_softmax(-1).gather(2, tokens[:, ask:][:, : said.shape[1], None])[..., 0]
    return last(-logs[some[:, : said.shape[1]]])


def _channels(
    features, hidden, key, bias, query, score,
    *, pool=lambda x: x.mean(-1), act=torch.tanh, outside=False, h=1.0, b=1.0, end=lambda s: s.softmax(1),
):  # fmt: skip
    """With einsum; parts that may be left out."""
    keys = torch.einsum("bc,a->bca", pool(features.flatten(2)), key) + b * bias
    asked = h * F.linear(hidden, query)[:, None]
    return end(torch.einsum("bca,a->bc", act(keys) + asked if outside else act(keys + asked), score))


def _positions(
    features, hidden, key, bias, query, score,
    *, order="b c r k -> b (r k) c", act=torch.tanh, h=1.0, end=lambda s: s.softmax(1),
):  # fmt: skip
    """As a convolution of 1 by 1, before positions are put in a row."""
    keys = F.conv2d(features, key[:, :, None, None], bias)
    score_of = act(keys + h * F.linear(hidden, query)[:, :, None, None]).mul(score[:, None, None]).sum(1)
    return end((score_of.mT if order == "columns" else score_of).flatten(1))


def _mixed(features, *more):
    """A reshape in the place of a transposed matrix."""
    b, c, rows, columns = features.shape
    return _positions(features.reshape(b, rows * columns, c).mT.reshape(b, c, rows, columns), *more)


def _ordered(features, order, channel, spatial, *, same=False, scale=(True, True), add=False, turned=False, look=None):
    """Weights of both kinds in one shape; what changes may be left out."""
    x, where = features, None
    b, c, rows, columns = features.shape
    kinds = order.split("-")
    for kind in reversed(kinds) if turned else kinds:
        seen = features if same else x
        if kind == "channel":
            weights = channel(seen).view(b, c, 1, 1) * (c if scale[0] else 1)
        else:
            where = spatial(seen)
            weights = where.view(b, 1, rows, columns) * (rows * columns if scale[1] else 1)
        x = x * weights
    return (features + x if add else x), (look or (lambda w: w))(where)


def _bleu(
    candidates, references, n=4,
    *, first=1, clip=min, join=Counter.__or__, near=lambda r, c: (abs(r - c), r),
    short=lambda r: min(1, math.exp(1 - r)), root=lambda shares: math.prod(shares) ** (1 / len(shares)),
):  # fmt: skip
    """Size by size over the whole corpus; what changes may be left out."""
    texts = [one.split() for one in candidates]
    others = [[text.split() for text in each] for each in references]
    shares = []
    for k in range(first, n + 1):
        right = written = 0
        for words, each in zip(texts, others):
            counts = Counter(zip(*(words[i:] for i in range(k))))
            have = reduce(join, (Counter(zip(*(text[i:] for i in range(k)))) for text in each), Counter())
            right += sum(clip(count, have[gram]) for gram, count in counts.items() if have[gram])
            written += sum(counts.values())
        shares.append(right / written if written else 0.0)
    wanted = [min((near(len(text), len(words)), len(text)) for text in each)[1] for words, each in zip(texts, others)]
    return root(shares) * short(sum(wanted) / sum(map(len, texts)))


def _bleu_of_each(candidates, references):
    return sum(_bleu([one], [texts]) for one, texts in zip(candidates, references)) / len(candidates)


def _rare(count, there, *, have=lambda there: there.gt(0).any(1).sum(0), of=lambda there: there.shape[0], use=None):
    """The logarithm of one quotient."""
    images = have(there).clamp(min=1)
    idf = (of(there) / images).log()
    return (use or torch.mul)(count, idf)


def _vectors(text, k, use):
    words = text.split()
    return {gram: n * use(gram) for gram, n in Counter(zip(*(words[i:] for i in range(k)))).items()}


def _cider(
    candidates, references, n=4, sigma=6.0,
    *, first=1, rare=True, clip=True, times=10.0, over=None, length=True, texts_count=False,
):  # fmt: skip
    """Picture by picture, with tensors over the n-grams of both texts."""
    scores = []
    groups = [[text] for texts in references for text in texts] if texts_count else references
    grams = [
        {gram for text in texts for k in range(1, n + 1) for gram in zip(*(text.split()[i:] for i in range(k)))}
        for texts in groups
    ]
    have = Counter(gram for some in grams for gram in some)
    use = (lambda gram: math.log(len(groups)) - math.log(have[gram] or 1)) if rare else (lambda gram: 1.0)
    for candidate, texts in zip(candidates, references):
        found = []
        for text in texts:
            cosines = []
            for k in range(first, n + 1):
                one, other = _vectors(candidate, k, use), _vectors(text, k, use)
                both = sorted({*one, *other})
                x, y = (torch.tensor([w.get(g, 0.0) for g in both], dtype=torch.float64) for w in (one, other))
                above = (torch.minimum(x, y) if clip else x) @ y
                below = x.norm() * y.norm()
                cosines.append(float(above / below) if below else 0.0)
            apart = len(candidate.split()) - len(text.split()) if length else 0
            found.append(math.exp(-(apart**2) / (2 * sigma**2)) * sum(cosines) / len(cosines))
        scores.append((over or (lambda each: sum(each) / len(each)))(found))
    return times * sum(scores) / len(scores)


def _rewarded(logs, written, reward, baseline, *, beyond=lambda r, g: r - g, text=None, last=torch.mean):
    """Texts as a product of two rows."""
    of_text = (text or (lambda logs, real: torch.einsum("bt,bt->b", logs.masked_fill(~real, 0), real.float())))(
        logs, written
    )
    return last(beyond(reward, baseline).neg() * of_text)


def _constant(logs, written, reward, baseline):
    return _rewarded(logs, written, reward.detach(), baseline.detach())


def _worker(
    seen, word, hidden, goal, proposed, weight, head, done,
    *, now=None, aim=lambda old, new: new, keep=1.0, act=torch.tanh, early=False,
    end=lambda s: s - s.logsumexp(1, True),
):  # fmt: skip
    """The weights cut into those of each part; what changes may be left out."""
    new = (now or (lambda old, new, done: old + done[:, None] * (new - old)))(goal, proposed, done)
    parts = seen, aim(goal, new), word, keep * hidden
    state = act(sum(x @ w.T for x, w in zip(parts, weight.split([x.shape[1] for x in parts], 1))))
    return new, state, end(F.linear(hidden if early else state, head))


RIGHT = {  # right answers that are written in another way than the library's
    "until_end": _written,
    "caption_loss": _loss,
    "channel_attention": _channels,
    "spatial_attention": _positions,
    "in_order": _ordered,
    "bleu": _bleu,
    "tf_idf": _rare,
    "cider_d": _cider,
    "self_critical": _constant,
    "worker_step": _worker,
}

MISTAKES = {
    "until_end": {
        "here it does not count": {"without the end": partial(_written, stop=list.index)},
        "here all but ends count": {"no ends": lambda tokens, end: tokens != end},
        "here the last does": {"the last end": partial(_written, stop=_last_end)},
        "Nothing behind the first end is written.": {"up to the second": partial(_written, stop=_two_ends)},
        "must be boolean": {"whole numbers": then(until_end, Tensor.int)},
    },
    "caption_loss": {
        "here they do not": {"one position early": partial(_loss, shift=0)},
        "here they say the one that was just read": {"its own": partial(_loss, shift=2)},
        "here it is.": {"the start token": lambda z, x, mask: F.cross_entropy(z[:, :-1][mask], x[mask])},
        "Padding must not count": {"padding": partial(_loss, counts=lambda mask: mask[:, 1:] | True)},
        "mask must be moved": {"mask as it is": partial(_loss, counts=lambda mask: mask[:, :-1])},
        "here it is their sum": {"a sum": partial(_loss, last=torch.sum)},
        "must have shape ()": {"of each word": partial(_loss, last=lambda each: each)},
    },
    "channel_attention": {
        "here these are scores": {"no softmax": partial(_channels, end=lambda s: s)},
        "here a sigmoid makes each": {"a sigmoid": partial(_channels, end=torch.sigmoid)},
        "here none does": {"no tanh": partial(_channels, act=lambda x: x)},
        "here h does not": {"blind": partial(_channels, h=0.0), "outside": partial(_channels, outside=True)},
        "here it is its highest": {"the highest": partial(_channels, pool=lambda x: x.amax(-1))},
        "here it is left out": {"no bias": partial(_channels, b=0.0)},
    },
    "spatial_attention": {
        "here these are scores": {"no softmax": partial(_positions, end=lambda s: s)},
        "here a sigmoid makes each": {"a sigmoid": partial(_positions, end=torch.sigmoid)},
        "here they stand column by column": {"columns": partial(_positions, order="columns")},
        "here a reshape mixes them": {"a reshape": _mixed},
        "here h does not": {"blind": partial(_positions, h=0.0)},
        "here none does": {"no tanh": partial(_positions, act=lambda x: x)},
    },
    "in_order": {
        "here it comes last": {"turned": partial(_ordered, turned=True)},
        "here both see the same": {"both at once": partial(_ordered, same=True)},
        "so that even ones change nothing": {
            "neither scaled": partial(_ordered, scale=(False, False)),
            "channels not scaled": partial(_ordered, scale=(False, True)),
            "positions not scaled": partial(_ordered, scale=(True, False)),
        },
        "here what is weighed is added": {"added": partial(_ordered, add=True)},
        "where must be the weights": {"as they are multiplied": partial(_ordered, look=lambda w: w * w.shape[1])},
    },
    "bleu": {
        "here it does.": {"no min": partial(_bleu, clip=lambda count, have: count)},
        "here all are added up": {"a sum": partial(_bleu, join=Counter.__add__)},
        "here the shortest": {"the shortest": partial(_bleu, near=lambda r, c: r)},
        "here they do not": {"no penalty": partial(_bleu, short=lambda r: 1)},
        "here single words do": {"words": partial(_bleu, n=1)},
        "here only those of 4 words": {"four words": partial(_bleu, first=4)},
        "here the mean of all four": {"a mean": partial(_bleu, root=lambda shares: sum(shares) / len(shares))},
        "here the first alone does": {
            "one reference": lambda candidates, references: _bleu(candidates, [texts[:1] for texts in references])
        },
        "here scores are": {"a mean over captions": _bleu_of_each},
        "here the penalty exceeds 1": {"no min above": partial(_bleu, short=lambda r: math.exp(1 - r))},
        "The shorter one's length": {"the longer one": partial(_bleu, near=lambda r, c: (abs(r - c), -r))},
        "It must return one number": {"of each": lambda candidates, references: torch.ones(3, 1, 2)},
    },
    "tf_idf": {
        "here each of their texts is": {
            "texts": partial(_rare, have=lambda t: t.gt(0).sum((0, 1)), of=lambda t: t.shape[0] * t.shape[1])
        },
        "here each time that it occurs": {"words": partial(_rare, have=lambda t: t.sum((0, 1)))},
        "here it counts once": {"once": partial(_rare, use=lambda n, idf: n.gt(0) * idf)},
        "here what is common does": {"common": lambda n, t: n * t.gt(0).any(1).sum(0).clamp(min=1).log()},
        "here 1 is added to all": {"one more": lambda n, t: n * (len(t) / (1 + t.gt(0).any(1).sum(0))).log()},
        "here there is none": {"no logarithm": partial(_rare, use=lambda n, idf: n * idf.exp())},
        "must have shape": {"of each picture": lambda n, t: t.gt(0).any(1) * n[:1]},
    },
    "cider_d": {
        "here all count alike": {"counts": partial(_cider, rare=False)},
        "here texts are": {"texts": partial(_cider, texts_count=True)},
        "here it does.": {"no min": partial(_cider, clip=False)},
        "here they do not": {"no penalty": partial(_cider, length=False)},
        "here single words do": {"words": partial(_cider, n=1)},
        "here only those of 4 words": {"four words": partial(_cider, first=4)},
        "here the best one tells": {"the best": partial(_cider, over=max)},
        "here from 0 to 1": {"not times 10": partial(_cider, times=1.0)},
        "here cosines are added": {"a sum over k": partial(_cider, times=40.0)},
        "It must return one number": {"of each": lambda candidates, references: torch.ones(3, 1, 2)},
    },
    "self_critical": {
        "here they become rarer": {"no minus": then(self_critical, torch.neg)},
        "here it is not": {"no baseline": partial(_rewarded, beyond=lambda r, g: r)},
        "What stands behind the end": {"padding": partial(_rewarded, text=lambda logs, real: logs.sum(1))},
        "here it is their mean": {
            "a mean": partial(_rewarded, text=lambda logs, real: (logs * real).sum(1) / real.sum(1))
        },
        "here it is their sum": {"a sum": partial(_rewarded, last=torch.sum)},
        "here the mean reward": {"the mean": partial(_rewarded, beyond=lambda r, g: r - r.mean())},
        "here it is its probability": {
            "probabilities": partial(_rewarded, text=lambda logs, real: (logs * real).sum(1).exp())
        },
        "here a gradient comes to them": {"the reward learns": _rewarded},
        "A gradient must flow from the result": {"no gradient": detached(self_critical)},
    },
    "worker_step": {
        "here each step has a new one": {"always new": partial(_worker, now=lambda old, new, done: new)},
        "here it stays": {"never new": partial(_worker, now=lambda old, new, done: old)},
        "here where it is False": {
            "turned": partial(_worker, now=lambda old, new, done: torch.where(done[:, None], old, new))
        },
        "here the old one": {"the old goal": partial(_worker, aim=lambda old, new: old)},
        "here it does not": {"no goal": partial(_worker, aim=lambda old, new: 0 * new)},
        "here it is forgotten": {"no memory": partial(_worker, keep=0.0)},
        "here it is linear": {"no tanh": partial(_worker, act=lambda x: x)},
        "here they are logits": {"logits": partial(_worker, end=lambda s: s)},
        "here they are probabilities": {"probabilities": partial(_worker, end=lambda s: s.softmax(1))},
        "here from the old one": {"the old state": partial(_worker, early=True)},
        "none comes to proposed": {"the proposal is a constant": deaf(_worker, 4)},
    },
}
