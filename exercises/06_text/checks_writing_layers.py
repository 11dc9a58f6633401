"""One table for both ends, and keys that are kept: what each function must do, told one property at a time."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from mmlearn.exercises import (
    agreement,
    by_hand,
    case,
    expect,
    expect_close,
    expect_not,
    expect_parts,
    expect_tensor,
    expect_trains,
    near,
    task,
)
from mmlearn.exercises.inputs import between, evenly, numbers
from mmlearn.layers import attention

# One table for both ends.


def tied_logits(
    table: Float[Tensor, "v d"], bias: Float[Tensor, "v"], tokens: Int[Tensor, "b t"], body: Callable
) -> Float[Tensor, "b t v"]:
    """The scores of all tokens, by the table in which the tokens were looked up."""
    return F.linear(body(F.embedding(tokens, table)), table, bias)


def _mixing(d: int) -> Callable:
    """A body in which a token reads those before it."""
    weight = numbers(d, d) / d**0.5
    return lambda x: (x.cumsum(1) @ weight).tanh()


@task(
    tied_logits,
    difficulty=2,
    minutes=15,
    example=by_hand(
        torch.tensor([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]]),
        torch.tensor([0.0, 0.0, 1.0]),
        torch.tensor([[1]]),
        lambda x: 2 * x,
        gives=torch.tensor([[[0.0, 8.0, 5.0]]]),
    ),
)
def check_tied_logits(function: Callable) -> None:
    """Tokens are looked up and scored by one table, and a gradient comes to it from both ends."""
    b, t, v, d = 3, between(5, 7), between(9, 12), between(13, 16)
    table, bias, tokens, body = numbers(v, d), numbers(v), torch.randint(v, (b, t)), _mixing(d)
    given = table, bias, tokens, body
    got, wanted = expect_tensor(function(*given), (b, t, v)), tied_logits(*given)
    unread = F.linear(table[tokens], table, bias)
    expect_not(got, unread, "It must be states that score; here it is what was looked up.", "body(table[tokens]).")
    expect_not(got, wanted - bias, "Each token's bias must be added to its score; here there is none.", "+ bias.")
    divided = (wanted - bias) / d**0.5 + bias, wanted / d**0.5
    expect_not(got, divided, "Nothing must be divided by √d.", "attention divides its scores; this does not.")
    odds = wanted.softmax(-1), wanted.log_softmax(-1)
    expect_not(got, odds, "It must be scores; here the softmax is taken.", "the loss takes the softmax.")
    with case("With a body that changes nothing and a bias of 0"):
        every = function(table, torch.zeros(v), torch.arange(v)[None], lambda x: x)
        square = expect_tensor(every, (1, v, v))[0]
        property = "Token i must score j as j scores i, because both ends have one table."
        expect(near(square, square.T, 1e-4), property, "the scores are states @ table.T.")
    same = agreement(function, tied_logits, tolerance=1e-4)
    same(given, "It must be body(E[x]) Eᵀ + c.", "look up, body, times the transposed table, plus bias.")
    _expect_both_ends(function, *given)
    expect_trains(function, table, bias, like=tied_logits, fixed=(tokens, body))


def _expect_both_ends(function: Callable, table: Tensor, bias: Tensor, tokens: Tensor, body: Callable) -> None:
    leaves = [one.clone().requires_grad_() for one in (table, bias)]
    made = [one for one in _begins(function(*leaves, tokens, body)) if not any(one is leaf for leaf in leaves)]
    property = "There must be no second table: table and bias alone are learned; here something else is, too."
    expect(not made, property, "nn.Parameter, nn.Embedding and nn.Linear make weights of their own; use table itself.")
    way = numbers(*tokens.shape, len(table))

    def gradient(logits: Callable) -> Tensor | None:
        leaf = table.clone().requires_grad_()
        total = (logits(leaf) * way).sum()
        return torch.autograd.grad(total, leaf, allow_unused=True)[0] if total.requires_grad else None

    got = gradient(lambda leaf: function(leaf, bias, tokens, body))
    if got is None:  # which is told in other words
        return
    hint = "no detach(), no no_grad() and no copy of table at the other end."
    property = "The gradient must reach the table from both ends; here it comes only from where tokens are"
    read = gradient(lambda leaf: F.linear(body(F.embedding(tokens, leaf)), table, bias))
    expect_not(got, read, f"{property} looked up.", hint, tolerance=1e-4)
    scored = gradient(lambda leaf: F.linear(body(F.embedding(tokens, table)), leaf, bias))
    expect_not(got, scored, f"{property} scored.", hint, tolerance=1e-4)


def _begins(result: Tensor) -> list[Tensor]:
    """The tensors at which the graph of a result begins: those that backward() brings a gradient to."""
    nodes, seen, found = [result.grad_fn], set(), []
    while nodes:
        node = nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        found += [node.variable] if hasattr(node, "variable") else []
        nodes += [one for one, _ in node.next_functions]
    return found


# Each token is read once.


def cached_attention(
    query: Float[Tensor, "b h q k"],
    key: Float[Tensor, "b h q k"],
    value: Float[Tensor, "b h q k"],
    kept_key: Float[Tensor, "b h m k"],
    kept_value: Float[Tensor, "b h m k"],
    rows: Int[Tensor, "b"] | None = None,
) -> tuple[Float[Tensor, "b h q k"], Float[Tensor, "b h n k"], Float[Tensor, "b h n k"]]:
    """What new tokens read of what is kept and of themselves, and all keys and values, to be kept."""
    kept = (kept_key, kept_value) if rows is None else (kept_key[rows], kept_value[rows])
    keys, values = (torch.cat(pair, 2) for pair in zip(kept, (key, value)))
    return attention(query, keys, values, causal=True), keys, values


def _one(number: float) -> Tensor:
    return torch.full((1, 1, 1, 1), number)


def _row(*numbers: float) -> Tensor:
    return torch.tensor(numbers)[None, None, :, None]


@task(
    cached_attention,
    difficulty=3,
    minutes=20,
    example=by_hand(
        _one(1.0), _one(math.log(3)), _one(8.0), _one(0.0), _one(4.0),
        gives=(_one(7.0), _row(0, math.log(3)), _row(4.0, 8.0)),
    ),
)  # fmt: skip
def check_cached_attention(function: Callable) -> None:
    """The rows of causal attention over the whole text, whatever was read before; and a cache that grows."""
    b, h, n, k = 3, between(2, 3), between(7, 9), between(4, 6)
    text = tuple(1.5 * numbers(b, h, n, k) for _ in range(3))
    whole = attention(*text, causal=True)

    def split(m: int) -> tuple[Tensor, ...]:
        """Query, key and value of what is new behind m tokens, and key and value of these."""
        return *(part[:, :, m:] for part in text), *(part[:, :, :m] for part in text[1:])

    _check_one_token(function, split(n - 1), whole[:, :, -1:])
    hint = "new token i stands at position m + i, and sees the keys up to there."
    with case("With several new tokens"):
        given = split(n - 3)
        got, (_, keys, values) = _parts(function(*given)), cached_attention(*given)
        property = "No new token must see a later one; here each sees all of them."
        expect_not(got[0], attention(given[0], keys, values), property, hint)
        corner = torch.ones(1, 3, n, dtype=torch.bool).tril()
        property = "The last new token must stand at the last key; here the first one stands at the first key."
        expect_not(got[0], attention(given[0], keys, values, corner), property, "tril(n - q), not tril().")
        _same(got, cached_attention(*given), "It must be what causal attention over the whole text says of them.", hint)
    with case("With nothing kept"):
        _same(function(*split(0)), (whole, *text[1:]), "It must be causal attention over the new tokens.", hint)
    with case("Token by token"):
        kept, said = (text[1][:, :, :0], text[2][:, :, :0]), []
        for i in range(n):
            one, *kept = _parts(function(*(part[:, :, i : i + 1] for part in text), *kept))
            said.append(one)
        property = "It must say what causal attention over the whole text says."
        expect_close(torch.cat(said, 2), whole, property, "what one step returns the next one gets.", tolerance=1e-4)
    with case("With rows"):
        _check_rows(function, split(n - 1))
    with case("Scores of hundreds"):
        query, key = 100 + 100 * evenly(b, h, n, k), 1 + 0.01 * numbers(b, h, n, k)
        given = query[:, :, -2:], key[:, :, -2:], *split(n - 2)[2:3], key[:, :, :-2], *split(n - 2)[4:]
        property = "Only the differences of scores must count."
        _same(function(*given), cached_attention(*given), property, "softmax, no exp of your own.", tolerance=1e-3)


def _parts(got: tuple) -> tuple:
    return tuple(map(expect_tensor, expect_parts(got, "output", "keys", "values")))


def _same(got: tuple, wanted: tuple, property: str, hint: str, tolerance: float = 1e-4) -> None:
    for one, right in zip(_parts(got), wanted):
        expect_close(one, right, property, hint, tolerance=tolerance)


def _check_one_token(function: Callable, given: tuple, last: Tensor) -> None:
    """One token behind several."""
    output, *caches = expect_parts(function(*given), "output", "keys", "values")
    query, new, kept = given[0], given[1:3], given[3:]
    output = expect_tensor(output, query.shape)
    hint = "torch.cat of what is kept and what is new, in this order, dim=2."
    for name, cache, before, behind in zip(("keys", "values"), caches, kept, new):
        cache, grow = expect_tensor(cache), f"The {name} must grow by that of the new token; here"
        expect(cache.shape != before.shape, f"{grow} there are as many as before.", hint)
        expect(cache.shape != behind.shape, f"{grow} it alone comes back.", hint)
        grown = torch.cat([before, behind], 2)
        expect_tensor(cache, grown.shape)
        property = f"The new one of the {name} must stand behind those that are kept; here it stands before them."
        expect_not(cache, torch.cat([behind, before], 2), property, hint)
        expect_close(cache, grown, f"The {name} must be those that are kept and the new one, as they were.", hint)
    keys, values = caches
    expect_not(output, new[1], "The new token must see what is kept; here it sees itself alone.", "query @ keys.mT.")
    blind = attention(query, *kept)
    expect_not(output, blind, "The new token must see itself as well; here it does not.", "grow first, then attend.")
    property = "The new token is the last one, and must see all keys; here it sees the first one alone."
    expect_not(output, values[:, :, :1], property, "tril() and is_causal=True put the first query at the first key.")
    unscaled = (query @ keys.mT).softmax(-1) @ values
    expect_not(output, unscaled, "Scores must be divided by √k; here they are not.", "k is the width of a head.")
    property = "It must be what causal attention over the whole text says of its last token."
    expect_close(output, last, property, "softmax(query · keys / √k), times the values.", tolerance=1e-4)


def _check_rows(function: Callable, given: tuple) -> None:
    """What is kept in the order of a search."""
    new, kept, rows = given[1:3], given[3:], torch.tensor([2, 0, 1])
    got = _parts(function(*given, rows))
    stay, moved = ([torch.cat(pair, 2) for pair in zip(past, new)] for past in (kept, [one[rows] for one in kept]))
    property = "Row i must go on from the kept row rows[i]; here it goes on from"
    expect_not(got[1], stay[0], f"{property} its own.", "kept_key[rows], and kept_value too.")
    back = torch.cat([kept[0][rows.argsort()], new[0]], 2)
    expect_not(got[1], back, f"{property} that which names it.", "kept_key[rows] takes; kept_key[…, rows] = … puts.")
    property = "The new tokens are in their order already, and must stay there; here they move as well."
    expect_not(got[1], stay[0][rows], property, "reorder what is kept, and then grow it.")
    expect_not(got[2], stay[1], "Values must move with their keys; here they stay.", "kept_value[rows], too.")
    hint = "reorder, grow, attend."
    wanted = attention(given[0], *moved), *moved
    _same(got, wanted, "Each row must attend to the past that it goes on from, and keep it.", hint)
    twice = torch.tensor([1, 1, 0])
    property = "Two rows may go on from one, and none from another."
    _same(function(*given, twice), cached_attention(*given, twice), property, "index with rows; swap nothing.")
