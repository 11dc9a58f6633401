"""Wrong answers about texts that are spoilt and mended, and what each is told."""

from functools import partial
from itertools import groupby, pairwise

import torch
from common_mistakes import from_global_state, from_own_seed

from mmlearn.objectives import hide_spans, permute_sentences, restore, sample_replacements, swap_segments

# Two segments.


def _swap(
    tokens,
    kind,
    mask,
    swapped,
    *,
    start=1,
    who=lambda swapped: swapped,
    part=lambda x: x,
    types=lambda first, second: [0] * (1 + second) + [1] * first,
    order=lambda first, second: [second, first],
):
    """Cut each row at its segments, and put it together again."""
    tokens, kind = tokens.clone(), kind.clone()
    for i in who(swapped).nonzero()[:, 0].tolist():
        n = int(mask[i].sum())
        n1, n2 = int((mask[i] & (kind[i] == 0)).sum()) - start, int((kind[i] == 1).sum())
        body = tokens[i, start:n]
        new = torch.cat([part(x) for x in order(body[:n1], body[n1:])])
        tokens[i, start:n] = new
        if start:
            kind[i, :n] = torch.tensor(types(n1, n2))
    return tokens, kind


# A small model fills the gaps.


def _replace(
    logits,
    tokens,
    label,
    generator,
    *,
    draw=lambda z, g: torch.multinomial(z.softmax(-1), 1, generator=g)[:, 0],
    compare=lambda drawn, label, read: drawn != label,
    base=lambda tokens, label: tokens,
):
    """Place by position, in a loop."""
    filled, replaced = base(tokens, label).clone(), torch.zeros_like(label, dtype=torch.bool)
    for (i, j), token in zip((label >= 0).nonzero().tolist(), draw(logits, generator).tolist()):
        filled[i, j] = token
        replaced[i, j] = bool(compare(token, label[i, j], tokens[i, j]))
    return filled, replaced


def _column_by_column(logits, tokens, label, generator):
    filled, replaced = sample_replacements(logits, tokens.T.contiguous(), label.T.contiguous(), generator)
    return filled.T, replaced.T


def _one_number(logits, generator):
    return (torch.rand(1, generator=generator) > logits.softmax(-1).cumsum(-1)[:, :-1]).sum(1)


def _with_gradient(logits, *rest):
    filled, replaced = sample_replacements(logits, *rest)
    return filled + 0 * logits.sum(), replaced


# Spans and their sentinels.


def _hide(
    text,
    hidden,
    first,
    *,
    sentinel=lambda first, k: first - k,
    behind=True,
    last=True,
    in_target=lambda k: k,
    in_text=lambda k: k,
):
    """Run by run."""
    short, target, k, position = [], [], 0, 0
    for gone, run in groupby(hidden.tolist()):
        n = len(list(run))
        if not gone:
            short += text[position : position + n].tolist()
        else:
            short.append(sentinel(first, in_text(k)))
            span, mark = text[position : position + n].tolist(), [sentinel(first, in_target(k))]
            target += mark + span if behind else span + mark
            k += 1
        position += n
    return text.new_tensor(short), text.new_tensor(target + ([sentinel(first, k)] if last else []))


def _a_sentinel_each(text, hidden, first):
    number = hidden.long().cumsum(0) - 1
    return torch.where(hidden, first - number, text), hide_spans(text, hidden, first)[1]


def _fill(short, target, first, *, spans=lambda spans: spans, keep=False, last=False):
    """Split the target at its sentinels, by position."""
    target = target.tolist()
    count = sum(first - 20 < token <= first for token in target)
    positions = [target.index(first - k) for k in range(count)]
    found = spans([target[a + 1 : b] for a, b in pairwise(positions)])
    text = []
    for token in short.tolist():
        if first - 20 < token <= first:
            text += ([token] if keep else []) + found[min(first - token, len(found) - 1)]
        else:
            text.append(token)
    return short.new_tensor(text + ([first - count + 1] if last else []))


# Sentences in any order, and the way back.


def _permute(
    text,
    ends,
    *,
    generator,
    order=lambda n, g: torch.randperm(n, generator=g).tolist(),
    cut=lambda ends: [i + 1 for i in ends.nonzero()[:, 0].tolist()],
    rest=True,
    inside=lambda sentence: sentence,
):
    cuts = sorted({0, *cut(ends), *([len(text)] if rest else [])})
    sentences = [inside(list(range(a, b))) for a, b in pairwise(cuts) if b <= len(text)]
    source = torch.tensor([position for i in order(len(sentences), generator) for position in sentences[i]])
    return text[source], source, len(text)


def _never_as_it_was(n, g):
    order = torch.randperm(n, generator=g).tolist()
    return order if order != sorted(order) or n < 2 else order[::-1]


def _changed(change):
    return lambda text, ends, *, generator: change(text, *permute_sentences(text, ends, generator=generator))


def _restore(corruption, missing):
    """A dictionary from positions to tokens."""
    known = {
        position: token
        for position, token in zip(corruption.source.tolist(), corruption.tokens.tolist())
        if position >= 0
    }
    rest = iter(missing.tolist())
    return torch.tensor([known[i] if i in known else next(rest) for i in range(corruption.length)])


def _masks_kept(corruption, missing):
    """A source of -1 is taken for the last position."""
    text = restore(corruption, missing)
    text[corruption.source] = corruption.tokens
    return text


def _in_their_order(corruption, missing):
    """The order of the spoilt text, with what is missing in the gaps."""
    kept = corruption.source >= 0
    text = missing.new_zeros(corruption.length)
    taken = torch.zeros(corruption.length, dtype=torch.bool)
    taken[corruption.source[kept]] = True
    text[taken], text[~taken] = corruption.tokens[kept], missing
    return text


def _behind(corruption, missing):
    kept = corruption.source >= 0
    return torch.cat([corruption.tokens[kept][corruption.source[kept].argsort()], missing])


RIGHT = {  # right answers that are written in another way than the library's
    "swap_segments": _swap,
    "sample_replacements": _replace,
    "hide_spans": _hide,
    "fill_spans": _fill,
    "permute_sentences": _permute,
    "restore": _restore,
}

MISTAKES = {
    "swap_segments": {
        "A row that is not swapped must stay": {
            "every row": partial(_swap, who=torch.ones_like),
            "the other rows": partial(_swap, who=torch.logical_not),
        },
        "The start token must stay in front": {"moved along": partial(_swap, start=0)},
        "in each the tokens in their order, the end token last": {
            "each reversed": partial(_swap, part=lambda x: x.flip(0)),
            "nothing moved": partial(_swap, order=lambda first, second: [first, second]),
        },
        "The types must be of the new order": {
            "types as they were": lambda x, kind, *rest: (swap_segments(x, kind, *rest)[0], kind),
            "types moved along": partial(_swap, types=lambda first, second: [0] + [1] * second + [0] * first),
        },
        "Padding must stay behind the text": {
            "padding inside": lambda x, kind, mask, swapped: (
                swap_segments(x, kind, torch.ones_like(mask), swapped)
                if mask.shape[1] < 10
                else (torch.where(swapped[:, None], x.flip(1).roll(1, 1), x), kind)
            )
        },
        "must keep the tokens that it had": {"through float": lambda x, *rest: swap_segments(x.float().long(), *rest)},
        "It must return tokens and token_type": {"tokens alone": lambda *given: swap_segments(*given)[0]},
    },
    "sample_replacements": {
        "What was not hidden must stay as it is read": {
            "the label everywhere": partial(_replace, base=lambda tokens, label: label.clamp(min=0))
        },
        "counts as replaced only where the draw differs": {
            "all hidden ones": partial(_replace, compare=lambda drawn, label, read: True),
            "compared with what was read": partial(_replace, compare=lambda drawn, label, read: drawn != read),
        },
        "Row i of the logits must be of the i-th hidden position": {"column by column": _column_by_column},
        "It must be a draw, not the likeliest token": {"argmax": partial(_replace, draw=lambda z, g: z.argmax(-1))},
        "as often as the softmax says": {
            "evenly": partial(
                _replace,
                draw=lambda z, g: torch.multinomial((z > z.amax(-1, keepdim=True) - 90).float(), 1, generator=g)[:, 0],
            )
        },
        "Each row must draw for itself": {"one number": partial(_replace, draw=_one_number)},
        "must hold whole numbers": {"with a gradient": _with_gradient},
        "The same seed must give the same result": {"torch's own generator": from_global_state(sample_replacements)},
        "Another seed must give another result": {"a seed of its own": from_own_seed(sample_replacements)},
    },
    "hide_spans": {
        "one sentinel, not one for each token": {"one each": _a_sentinel_each},
        "The target must end with one more sentinel": {"no last one": partial(_hide, last=False)},
        "sentinels must count down": {
            "always the same": partial(_hide, in_text=lambda k: 0),
            "from the second": partial(_hide, in_text=lambda k: k + 1),
            "counting up": partial(_hide, sentinel=lambda first, k: first + k),
        },
        "each span must stand behind its own sentinel": {
            "before its sentinel": partial(_hide, behind=False),
            "the same sentinel": partial(_hide, in_target=lambda k: 0),
        },
        "other tokens, in order": {
            "the text backwards": lambda text, hidden, first: _hide(text.flip(0), hidden.flip(0), first)
        },
        "must have shape": {"the other way": lambda text, hidden, first: hide_spans(text, ~hidden, first)},
        "It must return text and target": {"the text alone": lambda *given: hide_spans(*given)[0]},
    },
    "fill_spans": {
        "No sentinel must be left": {
            "sentinels kept": partial(_fill, keep=True),
            "the last one kept": partial(_fill, last=True),
            "the text as it was": lambda short, target, first: short,
        },
        "each span at its own gap": {
            "spans backwards": partial(_fill, spans=lambda spans: spans[::-1]),
            "tokens backwards": partial(_fill, spans=lambda spans: [span[::-1] for span in spans]),
        },
        "must have shape": {
            "one token a span": partial(_fill, spans=lambda spans: [span[:1] for span in spans]),
            "gaps left out": partial(_fill, spans=lambda spans: [[] for _ in spans]),
        },
        "must come back once, as it was": {
            "large tokens cut off": lambda short, target, first: _fill(short, target, first).clamp(max=2**29)
        },
    },
    "permute_sentences": {
        "Sentences must stay whole": {
            "tokens shuffled": partial(_permute, cut=lambda ends: range(1, len(ends))),
            "sentences backwards": partial(_permute, inside=lambda sentence: sentence[::-1]),
            "cut before the end": partial(_permute, cut=lambda ends: ends.nonzero()[:, 0].tolist()),
        },
        "here it says where each token goes": {
            "the inverse": _changed(lambda text, tokens, source, n: (tokens, source.argsort(), n))
        },
        "The tokens must be those of the positions": {
            "the text as it was": _changed(lambda text, tokens, source, n: (text, source, n)),
            "through float": _changed(lambda text, tokens, source, n: (tokens.float().long(), source, n)),
        },
        "Each order of the sentences must be as likely": {
            "never as it was": partial(_permute, order=_never_as_it_was),
            "a rotation": partial(
                _permute, order=lambda n, g: torch.arange(n).roll(int(torch.randint(n, (), generator=g))).tolist()
            ),
            "as it was": partial(_permute, order=lambda n, g: [*range(n)]),
        },
        "Where the last sentence has no end": {"the rest lost": partial(_permute, rest=False)},
        "The length must be that of the text": {
            "how many sentences": lambda text, ends, *, generator: (
                *permute_sentences(text, ends, generator=generator)[:2],
                int(ends.sum()),
            )
        },
        "It must return tokens, source and length": {
            "tokens alone": lambda *given, generator: permute_sentences(*given, generator=generator)[0]
        },
        "The same seed must give the same result": {"torch's own generator": from_global_state(permute_sentences)},
        "Each order of the sentences must": {"a seed of its own": from_own_seed(permute_sentences)},
    },
    "restore": {
        "No mask must be left in the text": {"masks at the end": _masks_kept},
        "What is left must stand at the positions": {
            "in the order of the spoilt text": _in_their_order,
            "lost ones behind": _behind,
        },
        "in the positions that nobody took, in order": {
            "backwards": lambda corruption, missing: restore(corruption, missing.flip(0)),
            "through float": lambda corruption, missing: restore(corruption, missing.float().long()),
        },
        "must have shape": {
            "the spoilt text": lambda corruption, missing: corruption.tokens,
            "what is left": lambda corruption, missing: corruption.tokens[corruption.source >= 0],
        },
    },
}
