"""Regions, and streams that look at each other: what each must do, told one property at a time."""

from collections.abc import Callable

import torch
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
    expect_zero,
    near,
    task,
)
from mmlearn.exercises.inputs import between, random_boxes, some_of
from mmlearn.layers import attention
from mmlearn.models.fusion.regions import box_sizes
from mmlearn.models.fusion.streams import co_attention
from mmlearn.objectives.masked import smooth_region_regression

# Two streams.


@task(
    box_sizes,
    difficulty=1,
    minutes=5,
    example=by_hand(torch.tensor([[[0.2, 0.5, 0.6, 1.0]]]), gives=torch.tensor([[[0.4, 0.5, 0.2]]])),
)
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
    with case("Boxes of a ten-thousandth of the picture's side"):
        tiny = function(1e-4 * boxes) * torch.tensor([1e4, 1e4, 1e8])
        expect_close(tiny, got, "Sizes must be exact.", "no rounding, and no least size.", tolerance=1e-2)


def _look(width: int, context_width: int) -> Callable:
    """A stream's look at another, with random weights: one head, added to what was there."""
    query, key = torch.randn(width, 8), torch.randn(context_width, 8)
    value = torch.randn(context_width, width)

    def look(queries: Tensor, context: Tensor, context_mask: Tensor | None = None) -> Tensor:
        asked, keys, values = (queries @ query)[:, None], (context @ key)[:, None], (context @ value)[:, None]
        return queries + attention(asked, keys, values, context_mask)[:, 0]

    return look


def _adds(queries: Tensor, context: Tensor, context_mask: Tensor | None = None) -> Tensor:
    return queries + context.sum(1, keepdim=True)


@task(
    co_attention,
    difficulty=3,
    minutes=15,
    example=by_hand(
        torch.tensor([[[1.0]]]),
        torch.tensor([[[10.0]]]),
        None,
        None,
        _adds,
        _adds,
        gives=(torch.tensor([[[11.0]]]), torch.tensor([[[11.0]]])),
    ),
)
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
    expect_trains(function, *streams, fixed=given[2:], like=co_attention)
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
    text_attends: Callable,
    visual_attends: Callable,
) -> None:
    """Tell what was mixed up: which text and which visual stream each mistake gives, the property, and a hint."""
    right, looked = co_attention(text, visual, mask, visual_mask, text_attends, visual_attends)
    any_mask = (mask, visual_mask, None)
    for texts, visuals, property, hint in (
        (
            (looked,),
            (right,),
            "The text stream must come back first, then the visual one.",
            "text looks at visual, and what comes back are the words.",
        ),
        (
            [text_attends(text, text, m) for m in any_mask],
            [visual_attends(visual, visual, m) for m in any_mask],
            "Each stream must look at the other; here one looks at itself.",
            "the context of the text is visual, and the context of visual is the text.",
        ),
        (
            [visual_attends(text, visual, m) for m in any_mask],
            [text_attends(visual, text, m) for m in any_mask],
            "Each stream must look with its own weights: text_attends is for the text.",
            "the queries of the text go into text_attends.",
        ),
        ((text,), (visual,), "Both must look; here one stays as it is.", "two calls, one for each stream."),
        (
            (text_attends(text, visual, mask),),
            (visual_attends(visual, text, visual_mask),),
            "The mask must be that of the stream looked at; here it is the looking one's own.",
            "a mask says which keys are real, and the keys are the other stream's.",
        ),
        (
            (text_attends(text, visual, None),),
            (visual_attends(visual, text, None),),
            "What is padding in the other stream must not be seen; here a mask is missing.",
            "hand on the mask of the stream that is looked at.",
        ),
        (
            (text_attends(text, looked, visual_mask),),
            (visual_attends(visual, right, mask),),
            "Both must see the other as it was before; here one sees what the other has become.",
            "do not write over text before visual has looked at it.",
        ),
        (
            (text_attends(text, visual, ~visual_mask),),
            (visual_attends(visual, text, ~mask),),
            "True must mean that a token is real; here a mask is inverted.",
            "a look takes a mask as you are given it.",
        ),
    ):
        expect_not(got[0], tuple(texts), property, hint)
        expect_not(got[1], tuple(visuals), property, hint)


@task(
    smooth_region_regression,
    difficulty=3,
    minutes=15,
    example=by_hand(
        torch.tensor([[[0.5, 3.0], [7.0, 7.0]]]), torch.zeros(1, 2, 2), torch.tensor([[True, False]]), gives=1.3125
    ),
)
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
    with case("Where every region is guessed exactly"):
        expect_trains(function, target, fixed=(target, masked), like=smooth_region_regression)
    with case("With nothing masked"):
        expect_zero(function, noise, target, torch.zeros_like(masked))
