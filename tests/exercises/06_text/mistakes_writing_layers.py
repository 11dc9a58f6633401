"""Wrong answers about a table for both ends and about a cache, and what each is told."""

from functools import partial

import torch
import torch.nn.functional as F
from common_mistakes import then

# One table for both ends.


def _tied(
    table,
    bias,
    tokens,
    body,
    *,
    read=lambda table, x: table[x],
    score=lambda h, table: h @ table.T,
    last=lambda scores, bias: scores + bias,
):
    return last(score(body(read(table, tokens)), table), bias)


def _as_one_hot(table, bias, tokens, body):
    x = torch.einsum("btv,vd->btd", F.one_hot(tokens, len(table)).to(table), table)
    return torch.stack([body(x) @ row for row in table], dim=-1) + bias


# Each token is read once.


def _cached(
    query,
    key,
    value,
    kept_key,
    kept_value,
    rows=None,
    *,
    moved=lambda kept, rows: kept.index_select(0, rows),
    joined=lambda kept, new: torch.cat([kept, new], 2),
    seen=lambda q, n: torch.arange(n) <= torch.arange(n - q, n)[:, None],
    scale=lambda k: k**0.5,
    weights=lambda scores: scores.softmax(-1),
    returned=lambda output, grown, new, kept: (output, *grown),
):
    kept = kept_key, kept_value
    if rows is not None:
        kept = tuple(moved(one, rows) for one in kept)
    keys, values = grown = [joined(*pair) for pair in zip(kept, (key, value))]
    scores = query @ keys.mT / scale(query.shape[-1])
    scores = scores.masked_fill(~seen(query.shape[2], keys.shape[2]), -torch.inf)
    return returned(weights(scores) @ values, grown, (key, value), kept)


def _one_by_one(query, key, value, kept_key, kept_value, rows=None):
    """Each new token by itself, which sees all that there is by then."""
    if rows is not None:
        kept_key, kept_value = (torch.stack([one[row] for row in rows.tolist()]) for one in (kept_key, kept_value))
    said = []
    for q, k, v in zip(*(part.split(1, 2) for part in (query, key, value))):
        kept_key, kept_value = torch.cat([kept_key, k], 2), torch.cat([kept_value, v], 2)
        scores = (q * kept_key).sum(-1) / q.shape[-1] ** 0.5
        said.append((scores.softmax(-1)[..., None] * kept_value).sum(2))
    return torch.stack(said, 2), kept_key, kept_value


def _blind(query, key, value, kept_key, kept_value, rows=None):
    """It attends before it grows."""
    scores = query @ kept_key.mT / query.shape[-1] ** 0.5
    return scores.softmax(-1) @ kept_value, *_cached(query, key, value, kept_key, kept_value, rows)[1:]


def _all_moved(*given):
    """New tokens move, too."""
    output, keys, values = _cached(*given[:5])
    return (output, keys, values) if len(given) < 6 else (output, keys[given[5]], values[given[5]])


def _keys_moved(query, key, value, kept_key, kept_value, rows=None):
    return _cached(query, key, value, kept_key if rows is None else kept_key[rows], kept_value)


def _read_unmoved(*given):
    """What a row keeps is right, and what it reads is that of another."""
    return _cached(*given[:5])[0], *_cached(*given)[1:]


RIGHT = {"tied_logits": _as_one_hot, "cached_attention": _one_by_one}

MISTAKES = {
    "tied_logits": {
        "here it is what was looked up": {"no body": lambda table, c, x, body: _tied(table, c, x, lambda h: h)},
        "here there is none": {"no bias": partial(_tied, last=lambda scores, c: scores)},
        "Nothing must be divided by √d": {
            "divided": partial(_tied, score=lambda h, table: h @ table.T / table.shape[1] ** 0.5),
            "divided at the end": lambda table, *given: _tied(table, *given) / table.shape[1] ** 0.5,
        },
        "here the softmax is taken": {
            "probabilities": then(_tied, lambda scores: scores.softmax(-1)),
            "logarithms": then(_tied, lambda scores: scores.log_softmax(-1)),
        },
        "because both ends have one table": {
            "another table": partial(_tied, score=lambda h, table: h @ torch.randn_like(table).T),
            "unit length at one end": partial(_tied, score=lambda h, table: h @ F.normalize(table, dim=1).T),
            "rows exchanged": partial(_tied, score=lambda h, table: h @ table.flip(0).T),
        },
        "It must be body(E[x]) Eᵀ + c": {
            "the bias taken off": partial(_tied, last=lambda scores, c: scores - c),
            "cosine": lambda table, *given: _tied(F.normalize(table, dim=1), *given),
        },
        "There must be no second table": {
            "a copy that learns": partial(
                _tied, score=lambda h, table: h @ torch.nn.Parameter(table.detach().clone()).T
            ),
            "an embedding of its own": partial(
                _tied, read=lambda table, x: torch.nn.Embedding.from_pretrained(table, freeze=False)(x)
            ),
        },
        "only from where tokens are looked up": {
            "scores by a constant": partial(_tied, score=lambda h, table: h @ table.detach().T)
        },
        "only from where tokens are scored": {
            "looked up in a constant": partial(_tied, read=lambda table, x: table.detach()[x]),
            "a frozen embedding": partial(
                _tied, read=lambda table, x: torch.nn.Embedding.from_pretrained(table.detach())(x)
            ),
        },
        "must have shape": {
            "the last position alone": then(_tied, lambda scores: scores[:, -1]),
            "against the text": lambda table, c, x, body: body(table[x]) @ table[x].mT,
        },
    },
    "cached_attention": {
        "there are as many as before": {
            "nothing is added": partial(_cached, returned=lambda output, grown, new, kept: (output, *kept))
        },
        "it alone comes back": {
            "nothing is kept": partial(_cached, returned=lambda output, grown, new, kept: (output, *new))
        },
        "here it stands before them": {
            "in front": partial(_cached, joined=lambda kept, new: torch.cat([new, kept], 2))
        },
        "those that are kept and the new one, as they were": {
            "keys for values": partial(_cached, returned=lambda output, grown, new, kept: (output, grown[1], grown[0])),
            "keys divided": partial(
                _cached, returned=lambda output, grown, new, kept: (output, grown[0] / 2, grown[1])
            ),
        },
        "here it sees itself alone": {"itself": lambda q, k, v, *kept: (v, *_cached(q, k, v, *kept)[1:])},
        "must see itself as well": {"attended before it grew": _blind},
        "here it sees the first one alone": {
            "from the first key": partial(_cached, seen=lambda q, n: torch.ones(q, n, dtype=torch.bool).tril())
        },
        "Scores must be divided by √k": {"not divided": partial(_cached, scale=lambda k: 1)},
        "says of its last token": {
            "divided by k": partial(_cached, scale=lambda k: k),
            "no softmax": partial(_cached, weights=lambda s: s.exp() / (1 + s.exp().sum(-1, keepdim=True))),
        },
        "here each sees all of them": {
            "no mask": partial(_cached, seen=lambda q, n: torch.ones(q, n, dtype=torch.bool))
        },
        "here the first one stands at the first key": {
            "a mask from the corner": partial(
                _cached, seen=lambda q, n: torch.ones(q, n, dtype=torch.bool).tril(0 if q > 1 else n)
            )
        },
        "With nothing kept: It must be causal attention": {
            "a prompt read both ways": partial(
                _cached, seen=lambda q, n: torch.ones(q, n, dtype=torch.bool).tril(n if q == n else n - q)
            )
        },
        "here it goes on from its own": {"rows are ignored": partial(_cached, moved=lambda kept, rows: kept)},
        "here it goes on from that which names it": {
            "the other way": partial(_cached, moved=lambda kept, rows: torch.zeros_like(kept).index_copy(0, rows, kept))
        },
        "here they move as well": {"reordered at the end": _all_moved},
        "Values must move with their keys": {"keys alone": _keys_moved},
        "Each row must attend to the past that it goes on from": {"reordered too late": _read_unmoved},
        "must be finite": {
            "exp without more": partial(_cached, weights=lambda s: s.exp() / s.exp().sum(-1, keepdim=True))
        },
    },
}
