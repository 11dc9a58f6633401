"""A language of brackets, in which it is known where each closing bracket has its partner."""

import torch
from jaxtyping import Int
from torch import Tensor

BRACKETS = "()[]{}<>"
FIRST = 4  # token of the first bracket; before it are padding, start, end and mask


def bracket_sentences(
    count: int, generator: torch.Generator, *, pairs: int = 8, deepest: int = 5
) -> tuple[Int[Tensor, "b n"], Int[Tensor, "b n"]]:
    """Sentences of so many pairs of brackets behind a start token, and for each closing bracket where its partner is.

    The partner of any other token is -1. At each place a bracket is opened or closed with equal odds, where both may
    be: at most ``deepest`` are open at once, and the one that was opened last is closed first. Raises ``ValueError``
    for no pair, or no depth.
    """
    if min(pairs, deepest) < 1:
        raise ValueError(f"A sentence has at least one pair and one depth, got pairs={pairs}, deepest={deepest}.")
    n = 2 * pairs
    chance = torch.rand(count, n, generator=generator).tolist()
    kind = torch.randint(len(BRACKETS) // 2, (count, n), generator=generator).tolist()
    tokens, partner = torch.ones(count, n + 1, dtype=torch.long), torch.full((count, n + 1), -1)
    for row in range(count):
        still_open, opened = [], 0
        for i in range(n):
            may_open = opened < pairs and len(still_open) < deepest
            if not still_open or (may_open and chance[row][i] < 0.5):
                still_open.append((i + 1, kind[row][i]))
                tokens[row, i + 1] = FIRST + 2 * kind[row][i]
                opened += 1
            else:
                partner[row, i + 1], which = still_open.pop()
                tokens[row, i + 1] = FIRST + 1 + 2 * which
    return tokens, partner


def spell_brackets(tokens: Int[Tensor, "n"]) -> str:
    """The brackets of a sentence, without the start token."""
    return "".join(BRACKETS[token - FIRST] for token in tokens.tolist() if token >= FIRST)
