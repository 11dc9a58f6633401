"""Plain answers about a table and a cache. Each comment is a step, and the hints are these steps one at a time."""

import torch


def tied_logits(table, bias, tokens, body):
    # One end: row x of the table is the vector of token x.
    x = table[tokens]
    # What the model makes of these vectors.
    states = body(x)
    # The other end: a state scores a token by its product with the token's row, so the table is transposed.
    scores = states @ table.T
    # Each token has a number of its own besides, whatever the state.
    return scores + bias


def cached_attention(query, key, value, kept_key, kept_value, rows=None):
    # Where rows have changed, what is kept moves along; the new tokens are in their order already.
    if rows is not None:
        kept_key, kept_value = kept_key[rows], kept_value[rows]
    # Grow first, because new tokens see themselves.
    keys, values = torch.cat([kept_key, key], dim=2), torch.cat([kept_value, value], dim=2)
    # The scores of new queries alone, with all keys: (b, h, q, n).
    scores = query @ keys.transpose(2, 3) / query.shape[-1] ** 0.5
    # The last query stands at the last key: the diagonal begins behind the n - q keys that were kept.
    q, n = scores.shape[2:]
    sees = torch.ones(q, n, dtype=torch.bool).tril(n - q)
    # A softmax over what is seen, and the mean of values by these weights.
    weights = scores.masked_fill(~sees, float("-inf")).softmax(dim=-1)
    return weights @ values, keys, values
