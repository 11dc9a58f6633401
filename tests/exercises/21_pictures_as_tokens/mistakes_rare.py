"""Wrong answers that only rare inputs give away, and what each is told: ``RARE[task][what it says][name]``."""

import torch



def _entries(count, total, new_count, new_total, decay, *, use=lambda new, old, n: new):
    n = decay * count + (1 - decay) * new_count
    m = decay * total + (1 - decay) * new_total
    n, m = use(n, count, new_count), use(m, total, new_count[:, None])
    return n, m, m / n[:, None]


def _back(moved, sentinels, end, *, by=None):
    tokens = moved.tolist()
    names = by(sentinels) if by else list(sentinels)
    out, spans, i = [], {}, 0
    seen = set()
    for at, token in enumerate(tokens):
        if token in names and token in seen:
            break
        seen.add(token) if token in names else None
    else:
        return moved
    document, rest = tokens[:at], tokens[at:]
    current = None
    for token in rest:
        if token == end:
            current = None
        elif current is None:
            current, spans[token] = token, []
        else:
            spans[current].append(token)
    for token in document:
        out += spans[token] if token in spans else [token]
    return torch.tensor(out)


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
        "?": {
            "what nothing chose stays": lambda *given: _entries(*given, use=lambda new, old, n: torch.where(n > 0, new, old)),
            "the sum stays": lambda c, t, nc, nt, d: (_entries(c, t, nc, nt, d)[0], *_entries(c, t, nc, nt, d, use=lambda new, old, n: torch.where(n > 0, new, old))[1:]),
            "at least 1e-2": lambda *given: (lambda n, m, e: (n, m, m / n[:, None].clamp(min=0.01)))(*_entries(*given)),
        },
    },
    "dead_entries": {
        "?": {
            "not more": lambda count, least: count <= least * count.mean() if least else count < 0,
            "of those that live": lambda count, least: count < least * count[count > 0].mean(),
            "at most one": lambda count, least: count < min(least, 1.0) * count.mean(),
            "at least 0.1": lambda count, least: count < max(least, 0.1) * count.mean() if least else count < 0,
        },
    },
    "put_back": {
        "?": {
            "100 and on": lambda moved, sentinels, end: _back(moved, range(100, 103), end),
            "103 ends": lambda moved, sentinels, end: _back(moved, sentinels, 103),
            "from the first sentinel up": lambda moved, sentinels, end: _back(moved, range(sentinels.start, 3000), end),
            "as they come": _in_order,
            "by number": _by_number,
            "end behind": lambda moved, sentinels, end: _back(moved, sentinels, sentinels.stop),
        },
    },
}
