"""Wrong answers that only rare inputs give away, and what each is told: ``RARE[task][what it says][name]``."""

import torch


def _entries(count, total, new_count, new_total, decay, *, use=lambda new, old, n: new):
    n = decay * count + (1 - decay) * new_count
    m = decay * total + (1 - decay) * new_total
    n, m = use(n, count, new_count), use(m, total, new_count[:, None])
    return n, m, m / n[:, None]


def _back(moved, sentinels, end):
    """Token by token, until a sentinel stands for the second time."""
    tokens, seen, at = moved.tolist(), set(), 0
    while at < len(tokens) and tokens[at] not in seen:
        if tokens[at] in sentinels:
            seen.add(tokens[at])
        at += 1
    spans, current = {}, None
    for token in tokens[at:]:
        if token == end:
            current = None
        elif current is None:
            current, spans[token] = token, []
        else:
            spans[current].append(token)
    return torch.tensor([one for token in tokens[:at] for one in spans.get(token, [token])])


def _in_order(moved, sentinels, end):
    """The first span belongs to the first sentinel."""
    tokens = moved.tolist()
    first = [i for i, t in enumerate(tokens) if t in sentinels]
    if not first:
        return moved
    half = len(first) // 2
    start = first[half]
    document, rest, spans, now = tokens[:start], tokens[start:], [], None
    for token in rest:
        if token == end:
            spans.append(now)
            now = None
        elif now is None:
            now = []
        else:
            now.append(token)
    out, turn = [], iter(spans)
    for token in document:
        out += next(turn) if token in sentinels else [token]
    return torch.tensor(out)


def _by_number(moved, sentinels, end):
    """The spans by the number of their sentinels, the sentinels as they come."""
    tokens = moved.tolist()
    first = [i for i, t in enumerate(tokens) if t in sentinels]
    if not first:
        return moved
    start = first[len(first) // 2]
    text, out = " ".join(map(str, tokens[start:])), []
    spans = {}
    for part in text.split(f" {end}"):
        words = part.split()
        if words:
            spans[int(words[0])] = [int(w) for w in words[1:]]
    order = iter(sorted(spans))
    for token in tokens[:start]:
        out += spans[next(order)] if token in sentinels else [token]
    return torch.tensor(out)


RARE = {
    "moving_entries": {
        "nothing chose: Its count and its sum must become less by the decay": {
            "what nothing chose stays": lambda *given: _entries(
                *given, use=lambda new, old, n: torch.where(n > 0, new, old)
            ),
            "the sum stays": lambda c, t, nc, nt, d: (
                _entries(c, t, nc, nt, d)[0],
                *_entries(c, t, nc, nt, d, use=lambda new, old, n: torch.where(n > 0, new, old))[1:],
            ),
        },
        "that nothing chose: It must stay where it is, however small its count": {
            "at least 1e-2": lambda *given: (lambda n, m, e: (n, m, m / n[:, None].clamp(min=0.01)))(*_entries(*given))
        },
    },
    "dead_entries": {
        "just at the line: It must not be dead: it is not chosen less often": {
            "not more": lambda count, least: count <= least * count.mean() if least else count < 0,
            "of those that live": lambda count, least: count < least * count[count > 0].mean(),
        },
        "Dead is below least times the mean of all": {
            "at most one": lambda count, least: count < min(least, 1.0) * count.mean(),
            "at least 0.1": lambda count, least: count < max(least, 0.1) * count.mean() if least else count < 0,
        },
    },
    "put_back": {
        "as the end: It must undo the move": {
            "100 and on": lambda moved, sentinels, end: _back(moved, range(100, 103), end),
            "103 ends": lambda moved, sentinels, end: _back(moved, sentinels, 103),
            "end behind": lambda moved, sentinels, end: _back(moved, sentinels, sentinels.stop),
        },
        "It must undo the move": {
            "from the first sentinel up": lambda moved, sentinels, end: _back(moved, range(sentinels.start, 3000), end)
        },
        "behind, in any order: Each span must be where its own sentinel stands": {
            "as they come": _in_order,
            "by number": _by_number,
        },
    },
}
