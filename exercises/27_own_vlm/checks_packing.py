"""Several conversations in one row: who sees whom, and which position each token has."""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from mmlearn.exercises import by_hand, expect, expect_boolean, expect_parts, expect_whole, task
from mmlearn.exercises.inputs import between


def packed(conversation: Int[Tensor, "b t"]) -> tuple[Bool[Tensor, "b t t"], Int[Tensor, "b t"]]:
    """Each token sees its own conversation up to itself, and is at the position that it would have alone."""
    t = conversation.shape[1]
    same = conversation[:, :, None] == conversation[:, None]  # (b, t, t)
    mask = same & torch.ones(t, t, dtype=torch.bool).tril() & (conversation >= 0)[:, None]
    return mask, (mask.sum(2) - 1).clamp(min=0)


def _three_words(got: tuple) -> bool:
    mask, position = (part.int().tolist() for part in got)
    return mask[0][:3] == [[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0]] and position == [[0, 1, 0, 0]]


@task(
    packed,
    difficulty=3,
    minutes=20,
    example=by_hand(
        torch.tensor([[4, 4, 9, -1]]),
        gives=_three_words,
        says="[1, 0, 0, 0], [1, 1, 0, 0] and [0, 0, 1, 0] for the three tokens, and positions [0, 1, 0, 0]",
    ),
)
def check_packed(function: Callable) -> None:
    """Nobody sees another conversation, a later token or padding; positions begin anew with each conversation."""
    rows = []
    for spare in (3, 0):
        lengths = [between(2, 4) for _ in range(3)]
        ids = torch.randperm(9)[:3].tolist()
        ids[1] = max(ids) + 1  # so that ids do not ascend
        rows.append([one for one, length in zip(ids, lengths) for _ in range(length)] + [-1] * spare)
    t = max(map(len, rows))
    conversation = torch.tensor([row + [-1] * (t - len(row)) for row in rows])
    mask, position = expect_parts(function(conversation), "mask", "position")
    b, real = len(rows), conversation >= 0
    mask, position = expect_boolean(mask, (b, t, t)), expect_whole(position, (b, t))
    block = "conversation[:, :, None] == conversation[:, None], with the past: tril()."
    later = torch.ones(t, t, dtype=torch.bool).triu(1)
    real_pair = real[:, :, None] & real[:, None]
    other = (conversation[:, :, None] != conversation[:, None]) & real_pair
    mask = mask & real[:, :, None]  # what padding sees is not asked
    expect(not (mask & ~real_pair).any(), "Nobody must see padding.", "conversation >= 0, by columns.")
    leak = "No token must see another conversation: what it says would depend on its neighbours in the row."
    expect(not (mask & other).any(), leak, block)
    expect(not (mask & later).any(), "No token must see a later one, which it is to predict.", block)
    expect(mask.diagonal(dim1=1, dim2=2)[real].all(), "Each token must see itself.", "tril() with the diagonal.")
    expect(mask[real_pair & ~other & ~later].all(), "Each token must see all of its own conversation before it.", block)
    alone = torch.tensor(
        [[row[:i].count(one) if one >= 0 else 0 for i, one in enumerate(row)] for row in (conversation.tolist())]
    )
    anew = "a position is how many tokens of its own conversation are before it: the mask has them, in its rows."
    expect(not torch.equal(position[real], alone[real] + 1), "Positions must be counted from 0.", anew)
    through = torch.arange(t).expand(b, t)
    along = "Positions must begin anew with each conversation; here they go on along the row."
    expect(not torch.equal(position[real], through[real]), along, anew)
    expect((position[~real] == 0).all(), "Padding must be at position 0.", "clamp(min=0), or masked_fill.")
    expect(torch.equal(position, alone), "Each token must be at the position that it would have alone.", anew)
