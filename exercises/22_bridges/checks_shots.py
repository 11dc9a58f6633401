"""Conversations of several turns, and labels that change places: what each must do, told one property at a time."""

from collections.abc import Callable

import torch
from torch import Tensor

from mmlearn.evaluation.shots import shuffled_labels
from mmlearn.exercises import (
    by_hand,
    case,
    expect,
    expect_boolean,
    expect_rows_differ,
    expect_seeded,
    expect_share,
    expect_whole,
    task,
)
from mmlearn.exercises.inputs import between, evenly, seeded
from mmlearn.objectives.generative import responses_in_turn


@task(
    responses_in_turn,
    difficulty=2,
    minutes=15,
    example=by_hand(
        torch.tensor([[3, 1, 2, 1]]), 8,
        gives=torch.tensor([[False, False, False, True, False, False, True, False]]),
    ),
)  # fmt: skip
def check_responses_in_turn(function: Callable) -> None:
    """Every second turn responds, from its first token to its last, and nothing behind the last turn does."""
    b = 4
    lengths = torch.stack([2 + torch.randperm(4, generator=seeded()) for _ in range(b)])
    ends = lengths.cumsum(1)
    t = int(ends.max()) + between(2, 3)
    got = expect_boolean(function(lengths, t), (b, t))
    position, wanted = torch.arange(t), responses_in_turn(lengths, t)
    padding = position >= ends[:, -1:]
    turn = "cumsum tells where each turn ends; a token stands in the turn whose number is how many have ended before."
    padded = "Padding behind the last turn must not respond."
    expect(not (got & padding).any(), padded, "it stands in no turn: as many have ended as there are.")
    asked = torch.equal(got, ~wanted & ~padding)
    expect(not asked, "An instruction comes first; here instructions respond, and responses do not.", turn)
    last = torch.equal(got, wanted & (position >= ends[:, 2:3]))
    expect(not last, "Every response must count; here only the last one does.", "turns 1, 3 and so on, counted from 0.")
    only_first = torch.equal(got, wanted & (position < ends[:, 1:2]))
    expect(not only_first, "Every response must count; here only the first one does.", "turns 1, 3 and so on.")
    edge = "a turn that ends at position e has its last token at e - 1, and the next one begins at e."
    begins, closes = wanted & ~wanted.roll(1, 1), wanted & ~wanted.roll(-1, 1)
    expect((got | ~begins).all(), "A response must count from its first token on.", edge)
    expect((got | ~closes).all(), "A response must count up to its last token.", edge)
    expect(torch.equal(got, wanted), "Responses must count, and instructions must not.", edge)
    with case("Where the last turn is an instruction"):
        got = expect_boolean(function(lengths[:, :3], t), (b, t))
        expect(not (got & (position >= ends[:, 2:3])).any(), padded, "turn 3 is none where there are three, 0 to 2.")
        expect(
            torch.equal(got, responses_in_turn(lengths[:, :3], t)), "What stands before must respond as it did.", turn
        )
    with case("Where a conversation has fewer turns than others, and the rest have length 0"):
        fewer = lengths.clone()
        fewer[0, 2:], fewer[1, 3:] = 0, 0
        got, wanted = expect_boolean(function(fewer, t), (b, t)), responses_in_turn(fewer, t)
        expect(not (got & ~wanted).any(), padded, "turns of no tokens end where the one before ends.")
        expect(torch.equal(got, wanted), "What it has must respond as before.", turn)
    with case("Where nothing is padding"):
        t = int(ends[0, -1])
        got = expect_boolean(function(lengths[:1], t), (1, t))
        expect(torch.equal(got, responses_in_turn(lengths[:1], t)), "It must be the same.", edge)


@task(
    shuffled_labels,
    difficulty=3,
    minutes=20,
    example=by_hand(torch.tensor([[5, 8, 5]]), seeded, gives=torch.tensor([[8, 5, 8]])),
)
def check_shuffled_labels(function: Callable) -> None:
    """Within a row every label becomes another one of the row, the same wherever it occurs, and each as often."""
    b, m = between(300, 400), between(4, 5)
    base = 2**40 + between(0, 9)  # as ids may be
    known = base + evenly(b, 12).argsort(1)[:, :m]
    kind = torch.cat([torch.arange(m).expand(b, m), (evenly(b, 2) * m).long()], 1)
    kind = kind.gather(1, evenly(b, m + 2).argsort(1))
    label = known.gather(1, kind)
    got = expect_circle(function(label, seeded()), label)
    expect_seeded(lambda generator: function(label[:5], generator))
    expect_rows_differ(lambda generator: function(label[:1].expand(6, -1), generator))
    alike = known[:1].expand(3 * b, m)
    new = expect_circle(function(alike, seeded()), alike)
    each = "a random order of the row's labels as a circle, in which each becomes the next one."
    for other in known[0, 1:]:
        with case("Of several labels that one may become"):
            expect_share(new[:, 0] == other, 1 / (m - 1), "Each must come as often.", each)
    with case("With a single label in a row"):
        alone = expect_whole(function(label[:2, :1].expand(2, 3), seeded()), (2, 3))
        expect(torch.equal(alone, label[:2, :1].expand(2, 3)), "It must stay, because there is no other.", each)
    expect(got.dtype == torch.int64, f"Labels must be int64, as they came; these are {got.dtype}.", "keep the dtype.")


def expect_circle(got: Tensor, label: Tensor) -> Tensor:
    """Hand back ``got`` if in each row every label has become another one of that row, one for one."""
    got = expect_whole(got, label.shape)
    each = "order the row's different labels at random, and let each become the next one, as on a circle."
    there = (got[..., None] == label[:, None]).any(-1)
    expect(there.all(), "Labels must be of the same row; here some are none of its own.", "one row at a time.")
    same, was = got[:, :, None] == got[:, None], label[:, :, None] == label[:, None]
    expect(
        not (was & ~same).any(), "Where a label occurs twice, both must become the same one.", "labels, not positions."
    )
    expect(not (same & ~was).any(), "Two different labels must not become the same one.", each)
    stays = "No label may stay; here some do."
    expect((got != label).all(), stays, f"a random order may leave one where it was: {each}")
    return got
