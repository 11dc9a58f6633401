"""Regions, streams that look at each other, and how answers are judged: what each must do, one property at a time."""

from collections.abc import Callable

import torch
from torch import Tensor

from mmlearn.evaluation import best_region, iou, nlvr_accuracy, soft_scores
from mmlearn.exercises import (
    agreement,
    case,
    expect,
    expect_close,
    expect_not,
    expect_number,
    expect_parts,
    expect_tensor,
    expect_trains,
    expect_zero,
    near,
    task,
)
from mmlearn.exercises.inputs import between, some_of
from mmlearn.layers import attention
from mmlearn.models.fusion.regions import box_sizes
from mmlearn.models.fusion.streams import co_attention
from mmlearn.objectives.masked import smooth_region_regression


def random_boxes(*shape: int) -> Tensor:
    """Left, top, right, bottom, none of them thin."""
    start = 0.5 * torch.rand(*shape, 2)
    return torch.cat([start, start + 0.1 + 0.4 * torch.rand(*shape, 2)], dim=-1)


# Two streams.


@task(box_sizes, difficulty=1, minutes=5)
def check_box_sizes(function: Callable) -> None:
    """Width, height and area, in this order."""
    b, p = 2, between(4, 8)
    boxes = random_boxes(b, p)
    got = expect_tensor(function(boxes), (b, p, 3))
    whole = torch.tensor([0.0, 0.0, 1.0, 1.0]).expand(b, p, 4)
    expect_close(
        function(whole),
        torch.ones(b, p, 3),
        "A box around the whole picture must have width, height and area 1.",
        "width is right - left, height is bottom - top, and the area is their product.",
    )
    left, top, right, bottom = boxes.unbind(-1)
    first = "Width must come first; here height does."
    expect_not(got[..., 0], bottom - top, first, "boxes are left, top, right, bottom.")
    expect(
        near(got[..., 0], right - left),
        "Width must be right minus left.",
        "boxes are left, top, right, bottom: two corners, not a corner and a size.",
    )
    expect(near(got[..., 1], bottom - top), "Height must be bottom minus top.", "the vertical numbers are 1 and 3.")
    expect_close(got, box_sizes(boxes), "The area must be width times height.", "of the box, from any corner.")


def _look(width: int, context_width: int) -> Callable:
    """A stream's look at another, with random weights: one head, added to what was there."""
    query, key = torch.randn(width, 8), torch.randn(context_width, 8)
    value = torch.randn(context_width, width)

    def look(x: Tensor, context: Tensor, context_mask: Tensor | None = None) -> Tensor:
        found = attention((x @ query)[:, None], (context @ key)[:, None], (context @ value)[:, None], context_mask)
        return x + found[:, 0]

    return look


@task(co_attention, difficulty=3, minutes=15)
def check_co_attention(function: Callable) -> None:
    """Each stream reads the other, with the other's mask, as it was before."""
    b, n, d = 3, 6, 6  # both streams as wide and as long, so that whatever is mixed up still fits

    def both(*arguments: Tensor | None) -> list[Tensor]:
        parts = expect_parts(function(*arguments), "text", "visual")
        return [expect_tensor(got, given.shape) for got, given in zip(parts, arguments)]

    streams, masks = (torch.randn(b, n, d), torch.randn(b, n, d)), (some_of(b, n, real=3), some_of(b, n, real=2))
    given = *streams, *masks, _look(d, d), _look(d, d)
    got = both(*given)
    _check_mixed_up(got, *given)
    for name, one, wanted in zip(("text", "visual"), got, co_attention(*given)):
        expect(near(one, wanted), f"The {name} must be what its look at the other stream gives.", "one call for each.")
    with case("Streams of other lengths and widths, without masks"):
        given = torch.randn(b, 4, 3), torch.randn(b, 7, 5), None, None, _look(3, 5), _look(5, 3)
        for one, wanted in zip(both(*given), co_attention(*given)):
            expect_close(one, wanted, "It must work too.", "masks may be None: hand them on as they are.")


def _check_mixed_up(
    got: list[Tensor],
    text: Tensor,
    visual: Tensor,
    mask: Tensor,
    visual_mask: Tensor,
    text_looks: Callable,
    visual_looks: Callable,
) -> None:
    """Tell what was mixed up: which text and which visual stream each mistake gives, the property, and a hint."""
    right, looked = co_attention(text, visual, mask, visual_mask, text_looks, visual_looks)
    any_mask = (mask, visual_mask, None)
    for texts, visuals, property, hint in (
        (
            (looked,),
            (right,),
            "The text stream must come back first, then the visual one.",
            "text looks at visual, and what comes back are the words.",
        ),
        (
            [text_looks(text, text, m) for m in any_mask],
            [visual_looks(visual, visual, m) for m in any_mask],
            "Each stream must look at the other; here one looks at itself.",
            "the context of the text is visual, and the context of visual is the text.",
        ),
        (
            [visual_looks(text, visual, m) for m in any_mask],
            [text_looks(visual, text, m) for m in any_mask],
            "Each stream must look with its own weights: text_looks is for the text.",
            "the queries of the text go into text_looks.",
        ),
        ((text,), (visual,), "Both must look; here one stays as it is.", "two calls, one for each stream."),
        (
            (text_looks(text, visual, mask),),
            (visual_looks(visual, text, visual_mask),),
            "The mask must be that of the stream looked at; here it is the looking one's own.",
            "a mask says which keys are real, and the keys are the other stream's.",
        ),
        (
            (text_looks(text, visual, None),),
            (visual_looks(visual, text, None),),
            "What is padding in the other stream must not be seen; here a mask is missing.",
            "hand on the mask of the stream that is looked at.",
        ),
        (
            (text_looks(text, looked, visual_mask),),
            (visual_looks(visual, right, mask),),
            "Both must see the other as it was before; here one sees what the other has become.",
            "do not write over text before visual has looked at it.",
        ),
        (
            (text_looks(text, visual, ~visual_mask),),
            (visual_looks(visual, text, ~mask),),
            "True must mean that a token is real; here a mask is inverted.",
            "a look takes a mask as you are given it.",
        ),
    ):
        expect_not(got[0], tuple(texts), property, hint)
        expect_not(got[1], tuple(visuals), property, hint)


@task(smooth_region_regression, difficulty=3, minutes=15)
def check_smooth_region_regression(function: Callable) -> None:
    """Masked regions alone; square when near, straight when far; a mean over regions and features."""
    b, p, f = 4, 6, between(5, 8)
    target, masked = torch.randn(b, p, f), some_of(b, p, real=[1, 2, 3, 4])
    noise = 3 * torch.randn(b, p, f)
    same = agreement(function, smooth_region_regression)
    expect_tensor(function(noise, target, masked), ())
    expect_close(
        function(torch.where(masked[..., None], target, noise), target, masked),
        0.0,
        "Where every masked region is guessed exactly, the loss must be 0, whatever is said of the others.",
        "prediction[masked] keeps the regions where masked is True.",
    )
    sign = torch.rand(b, p, f).sub(0.5).sign()
    expect_close(
        function(target + 0.5 * sign, target, masked),
        0.125,
        "Where every feature is off by ½, the loss must be (½)²/2 = ⅛, however many regions and features.",
        "sum over masked regions and features, divided by |m|·f; near 0 it is x²/2.",
    )
    expect_close(
        function(target + 3 * sign, target, masked),
        2.5,
        "Where every feature is off by 3, the loss must be 3 - ½.",
        "from |x| = 1 on it is |x| - ½, which meets x²/2 there.",
    )
    one = target.clone()
    one[masked] += torch.linspace(-3, 3, int(masked.sum()))[:, None]  # each region is off by another distance
    same(
        (one, target, masked),
        "Every masked region must count alike, in whichever row it stands.",
        "one sum over all of them, then one division; no mean of means.",
    )
    same(
        (noise, target, masked),
        "It must be the mean over masked regions and features of the smooth distance.",
        "feature by feature, not the distance of the whole region.",
    )
    expect_trains(function, noise, fixed=(target, masked), like=smooth_region_regression)
    with case("With nothing masked"):
        expect_zero(function, noise, target, torch.zeros_like(masked))


# Where is it?


@task(iou, difficulty=2, minutes=10)
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


@task(best_region, difficulty=2, minutes=10)
def check_best_region(function: Callable) -> None:
    """The box of the highest weight, padding never."""
    n, p = between(5, 8), 6
    boxes = random_boxes(n, p)
    order = torch.randperm(p).float()
    weights = torch.stack([order.roll(i) for i in range(n)]) - p  # all below 0, no two alike in a row
    got = expect_tensor(function(weights, boxes))
    expect(
        got.shape != (n, n, 4),
        "Row i must give a box of its own picture, not the boxes at all n places.",
        "boxes[:, best] pairs every row with every place; index the rows too: boxes[torch.arange(n), best].",
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


# Is it right?


@task(soft_scores, difficulty=1, minutes=5)
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


def _measures(got: object) -> tuple[object, object]:
    hint = 'return {"accuracy": …, "consistency": …}'
    expect(isinstance(got, dict), f"It must return a dict, not a {type(got).__name__}.", hint)
    expect({"accuracy", "consistency"} <= set(got), "The dict must hold accuracy and consistency.", hint)
    return got["accuracy"], got["consistency"]


@task(nlvr_accuracy, difficulty=2, minutes=10)
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
