"""Boxes that are found, and how answers are judged: what each must do, told one property at a time."""

from collections.abc import Callable

import torch
from torch import Tensor

from mmlearn.evaluation import best_region, iou, nlvr_accuracy, soft_scores
from mmlearn.exercises import agreement, by_hand, case, expect, expect_close, expect_number, expect_tensor, near, task
from mmlearn.exercises.inputs import between, random_boxes, some_of


@task(
    iou,
    difficulty=2,
    minutes=10,
    example=by_hand(
        torch.tensor([[0.0, 0.0, 0.4, 0.4], [0.0, 0.0, 0.4, 0.4]]),
        torch.tensor([[0.2, 0.0, 0.6, 0.4], [0.5, 0.5, 1.0, 1.0]]),
        gives=torch.tensor([1 / 3, 0.0]),
    ),
)
def check_iou(function: Callable) -> None:
    """1 for the same box, 0 for boxes apart, and the share of the union otherwise."""
    n = between(5, 8)
    box = random_boxes(n)
    other = box + 0.08 * (torch.rand(n, 4) - 0.5)  # they share something
    got = expect_tensor(function(box, other), finite=False)
    expect(got.shape != (n, n), "Box i must meet box i only, not all others.", "one number a pair, (n,).")
    expect_tensor(got, (n,))
    expect_close(
        function(box, box),
        torch.ones(n),
        "Two boxes that are the same must have IoU 1.",
        "the union is |A| + |B| - |A ∩ B|: what is shared counts once.",
    )
    with case("Boxes in pixels instead of shares"):
        property, hint = "IoU must be what it is in shares.", "a box from 2 to 5 is 3 wide: no 1 is added to a side."
        expect_close(function(300 * box, 300 * other), got, property, hint)
    with case("Boxes of a ten-thousandth of the picture's side"):
        tiny = function(1e-4 * box, 1e-4 * other)
        hint = "what is added so as not to divide by 0 must be smaller than any area: guard the division with where."
        expect_close(tiny, got, "IoU must be what it is for large ones.", hint, tolerance=1e-2)
    near_corner, far_corner = 0.4 * random_boxes(n), 0.6 + 0.4 * random_boxes(n)
    beside = torch.cat([far_corner[:, :1], near_corner[:, 1:2], far_corner[:, 2:3], near_corner[:, 3:]], dim=-1)
    for apart, where in ((far_corner, "right and below"), (beside, "right")):
        with case(f"A box and another that lies to the {where} of it"):
            expect_close(
                function(near_corner, apart),
                torch.zeros(n),
                "Boxes that do not touch must have IoU 0.",
                "a shared width or height below 0 means none: clamp(min=0) before you multiply.",
            )
    small = torch.cat([box[:, :2], (box[:, :2] + box[:, 2:]) / 2], dim=-1)
    expect_close(
        function(small, box),
        torch.full((n,), 0.25),
        "A box inside another one of four times its area must have IoU ¼.",
        "divide by the union, not by the smaller box; right and bottom are corners, not sizes.",
    )
    agreement(function, iou)((box, other), "It must be |A ∩ B| / |A ∪ B|.", "by hand, on one pair.")
    with case("Two boxes without area"):
        point = torch.cat([box[:, :2], box[:, :2]], dim=-1)
        expect_close(function(point, point), torch.zeros(n), "IoU must be 0, not NaN.", "0 / 0: guard the division.")


@task(
    best_region,
    difficulty=2,
    minutes=10,
    example=by_hand(
        torch.tensor([[-3.0, -1.0, 2.0]]),
        torch.tensor([[[0.0, 0.0, 0.4, 0.4], [0.2, 0.0, 0.6, 0.4], [0.5, 0.5, 1.0, 1.0]]]),
        torch.tensor([[True, True, False]]),
        gives=torch.tensor([[0.2, 0.0, 0.6, 0.4]]),
    ),
)
def check_best_region(function: Callable) -> None:
    """The box of the highest weight, padding never."""
    n, p = between(5, 8), 6
    boxes = random_boxes(n, p)
    order = torch.randperm(p).float()
    weights = torch.stack([order.roll(i) for i in range(n)]) - p  # all below 0, no two alike in a row
    got = expect_tensor(function(weights, boxes))
    expect(
        got.shape != (n, n, 4),
        "Row i must give a box of its own picture, not the boxes at all n positions.",
        "boxes[:, best] pairs every row with every position; index the rows too: boxes[torch.arange(n), best].",
    )
    expect_tensor(got, (n, 4))
    expect(
        (got[:, None] == boxes).all(-1).any(1).all(),
        "It must return one of the boxes as it is, from the same row.",
        "no mean of boxes: the one with the highest weight.",
    )
    same = agreement(function, best_region)
    same((weights, boxes), "It must be the box with the highest weight.", "argmax over regions.")
    with case("Where two weights are equally the highest"):
        tied = weights.clone()
        tied[:, 1] = tied[:, 4] = 1
        expect_close(function(tied, boxes), boxes[:, 1], "The first of them must be taken.", "argmax does so.")
    mask = torch.cat([torch.zeros(n, 1, dtype=torch.bool), some_of(n, p - 1, real=3)], dim=1)
    with case("With padding that has the highest weight"):
        hint = "True means real; fill the weights where the mask is False."
        same((weights + 10 + 20 * ~mask, boxes, mask), "Padding must never win, and the highest real one must.", hint)
    with case("With padding, and weights that are all negative"):
        hint = "multiplying by the mask makes padding 0, which beats them; fill with -inf."
        same((weights, boxes, mask), "Padding must not win here either.", hint)
    with case("With padding, and weights of minus a hundred thousand"):
        same((weights - 1e5, boxes, mask), "Padding must not win here either.", "fill with -inf, not with -1e4.")


# Is it right?


@task(
    soft_scores,
    difficulty=1,
    minutes=5,
    example=by_hand(torch.tensor([7, 2, 1, 0]), gives=torch.tensor([1.0, 2 / 3, 1 / 3, 0.0])),
)
def check_soft_scores(function: Callable) -> None:
    """Three people are enough, fewer count by thirds."""
    counts = torch.cat([torch.arange(11), torch.randint(0, 4, (9,))])[torch.randperm(20)].view(4, 5)
    got = expect_tensor(function(counts), (4, 5))
    expect((got <= 1).all(), "An answer is worth at most 1, however many gave it.", "clamp(max=1).")
    expect(near(got[counts == 0], 0.0), "What nobody said must be worth 0.", "the count is a factor of the score.")
    expect(
        near(got[counts >= 3], 1.0),
        "What three people said, or more, must be worth 1.",
        "divide by 3, not by the ten people who were asked, nor by the highest count.",
    )
    expect_close(got, soft_scores(counts), "One person must make ⅓, and two ⅔.", "true division: /, not //.")
    for other in (counts[0, 0], counts.view(2, 2, 5)):
        with case(f"Counts of shape {tuple(other.shape)}"):
            expect_close(function(other), soft_scores(other), "It must work too.", "one operation on the whole tensor.")


def _measures(got: object) -> tuple[object, object]:
    hint = 'return {"accuracy": …, "consistency": …}'
    expect(isinstance(got, dict), f"It must return a dict, not a {type(got).__name__}.", hint)
    expect({"accuracy", "consistency"} <= set(got), "The dict must hold accuracy and consistency.", hint)
    return got["accuracy"], got["consistency"]


@task(
    nlvr_accuracy,
    difficulty=2,
    minutes=10,
    example=by_hand(
        torch.tensor([1, 0, 1, 1]),
        torch.tensor([1, 0, 1, 0]),
        ["a", "a", "b", "b"],
        gives={"accuracy": 0.75, "consistency": 0.5},
    ),
)
def check_nlvr_accuracy(function: Callable) -> None:
    """A share of pairs, and a share of sentences."""

    def compare(right: Tensor, sentence: list[str], property: str, hint: str) -> None:
        label = torch.randint(0, 2, right.shape)
        guess = torch.where(right, label, 1 - label)
        wanted = nlvr_accuracy(guess, label, sentence)
        accuracy, consistency = _measures(function(guess, label, sentence))
        expect_number(accuracy, wanted["accuracy"], f"{property} accuracy is the share of pairs judged rightly.", hint)
        sense = "consistency is the share of sentences with every pair right."
        expect_number(consistency, wanted["consistency"], f"{property} {sense}", hint)

    sentences = [f"sentence {i}" for i in torch.randperm(50)[:6].tolist()]
    fours = [name for name in sentences for _ in range(4)]
    right = torch.ones(24, dtype=torch.bool)
    compare(right, fours, "Where all is right, both are 1:", "shares, neither counts nor percent.")
    compare(~right, fours, "Where all is wrong, both are 0:", "right is guess == label: agreeing guesses may be wrong.")
    one_wrong = right.clone()
    one_wrong[torch.arange(0, 24, 4) + torch.randint(0, 4, (6,))] = False
    compare(
        one_wrong,
        fours,
        "Where each sentence has 1 of 4 pairs wrong, accuracy is ¾ and consistency 0:",
        "all(), not any() and not a mean, over the pairs of a sentence.",
    )
    uneven = [name for name, times in zip(sentences, (1, 2, 3, 4, 5, 6)) for _ in range(times)]
    right = torch.rand(21) < 0.7
    right[:3], right[-7:] = True, False
    compare(
        right,
        uneven,
        "Where sentences have 1 to 6 pairs:",
        "each pair counts alike for accuracy, each sentence alike for consistency.",
    )
    compare(
        one_wrong.view(6, 4).T.flatten(),
        4 * sentences,
        "Where pairs of one sentence do not stand together:",
        "collect the pairs of each sentence wherever they are; itertools.groupby joins neighbours only.",
    )
