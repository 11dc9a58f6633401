"""Tasks side by side: what each function must do, told one property at a time."""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
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
    expect_whole,
    task,
)
from mmlearn.exercises.inputs import between, seeded, uniform


def mixing_rates(sizes: Int[Tensor, "k"], temperature: float, limit: int) -> Float[Tensor, "k"]:
    """How often each task comes, by how many examples it has."""
    weight = sizes.clamp(max=limit).double() ** (1 / temperature)
    return (weight / weight.sum()).float()


@task(
    mixing_rates,
    difficulty=2,
    minutes=10,
    example=by_hand(torch.tensor([100, 10000]), 2.0, 2500, gives=torch.tensor([0.1667, 0.8333])),
)
def check_mixing_rates(function: Callable) -> None:
    """In proportion to sizes, up to a limit, and the more evenly the higher the temperature."""
    sizes = torch.tensor([40, 900, 5000, 90000]) + torch.randint(30, (4,), generator=seeded())
    t, limit = uniform(2, 3), 20000 + between(0, 999)
    got = expect_tensor(function(sizes, t, limit), (4,))
    capped = sizes.clamp(max=limit).double()

    def rates(weight: Tensor) -> Tensor:
        return (weight / weight.sum()).float()

    root = "min(size, limit) ** (1 / temperature), and then over the sum."
    raw = (capped ** (1 / t)).float()
    expect_not(got, raw, "Rates must sum to 1; here they do not.", root)
    expect_not(got, rates(sizes.double() ** (1 / t)), "No size may count for more than the limit; here one does.", root)
    expect_not(got, rates(capped**t), "A higher temperature must make rates more alike; here it sets them apart.", root)
    expect_not(got, rates(capped), "The temperature must count; here rates are in proportion to sizes.", root)
    soft = (capped / t).softmax(0).float()
    expect_not(got, soft, "Sizes must not go through a softmax; it is a root of them.", root)
    expect_not(got, rates(capped.log()), "It must be a root of sizes; here it is their logarithm.", root)
    expect_not(got, torch.full((4,), 0.25), "Larger tasks must come more often; here all come alike.", root)
    same = agreement(function, mixing_rates)
    same((sizes, t, limit), "It must be the root of sizes up to the limit, over its sum.", root)
    with case("At a temperature of 1 and below the limit"):
        expect_close(function(sizes, 1.0, 10**6), rates(sizes.double()), "Rates must be in proportion to sizes.", root)
    with case("At a temperature of a thousand"):
        alike = torch.full((4,), 0.25)
        expect_close(function(sizes, 1000.0, limit), alike, "All tasks must come alike.", root, tolerance=5e-3)
    with case("At a temperature of a half"):
        square = rates(sizes.clamp(max=9000).double() ** 2)
        expect_close(function(sizes, 0.5, 9000), square, "It must be the square of sizes.", root)
    with case("Where several tasks are above the limit"):
        same((sizes, t, 500), "The limit must cut each of them.", "clamp(max=limit).")
    with case("With one task"):
        expect_close(function(sizes[:1], t, limit), torch.ones(1), "It must come always.", "no squeeze().")
    with case("Where one task alone has examples"):
        alone = torch.tensor([0, 700])
        expect_close(function(alone, t, limit), torch.tensor([0.0, 1.0]), "The other must never come.", root)


def infilling_task(
    order: Int[Tensor, "m"], text: Int[Tensor, "n"], hidden: Bool[Tensor, "n"], mask_token: int, end_token: int
) -> tuple[Int[Tensor, "s"], Int[Tensor, "o"]]:
    """What is read: the order, and the text with one mask for each span. What is to be written: the whole text."""
    end = torch.tensor([end_token])
    before = torch.cat([torch.tensor([False]), hidden[:-1]])
    gaps = torch.where(hidden, mask_token, text)[~(hidden & before)]
    return torch.cat([order, gaps, end]), torch.cat([text, end])


@task(
    infilling_task,
    difficulty=2,
    minutes=15,
    example=by_hand(
        torch.tensor([90, 91]), torch.arange(11, 17), torch.tensor([False, False, True, True, False, True]), 3, 2,
        gives=(torch.tensor([90, 91, 11, 12, 3, 15, 3, 2]), torch.tensor([11, 12, 13, 14, 15, 16, 2])),
    ),
)  # fmt: skip
def check_infilling_task(function: Callable) -> None:
    """One mask for each span, however long, and a target that is the whole text."""
    mask, end = (10 + torch.randperm(30, generator=seeded())[:2]).tolist()  # tokens may have any number
    order = torch.randint(50, 60, (between(2, 3),), generator=seeded()).repeat_interleave(2)
    text = 2**25 + torch.randperm(40, generator=seeded())[: between(12, 14)]
    n = len(text)
    text[9] = text[10]  # a word may be said twice
    cases = {
        "With spans inside": torch.isin(torch.arange(n), torch.tensor([2, 3, 4, 7])),
        "With spans at both ends": torch.isin(torch.arange(n), torch.tensor([0, 1, 5, n - 1])),
        "With the whole text hidden": torch.ones(n, dtype=torch.bool),
        "With nothing hidden": torch.zeros(n, dtype=torch.bool),
    }
    for name, hidden in cases.items():
        with case(name):
            spans = int((hidden & ~torch.cat([torch.tensor([False]), hidden[:-1]])).sum())
            parts = expect_parts(function(order, text, hidden, mask, end), "source", "target")
            whole = infilling_task(order, text, hidden, mask, end)
            source, target = map(expect_tensor, parts)
            if source.ndim == target.ndim == 1:
                for part, what in ((source, "What is read"), (target, "The target")):
                    ends = len(part) > 0 and part[-1] == end
                    expect(ends, f"{what} must end with the end token.", "torch.cat([…, end]).")
                masks = int((source == mask).sum())
                one = f"Each span must become one mask, however long: {spans} here; these are {masks}."
                expect(masks == spans, one, "a hidden token counts where the one before it is not hidden.")
                ahead = torch.equal(source[: len(order)], order.to(source.dtype))
                expect(ahead, "The order must stand first.", "torch.cat([order, …]).")
                gone = torch.equal(target[:-1], text[hidden].to(target.dtype)) and not hidden.all()
                expect(not gone, "The target must be the whole text; here it is what was hidden.", "text, and the end.")
            source = expect_whole(source, tuple(whole[0].shape))
            target = expect_whole(target, tuple(whole[1].shape))
            expect(torch.equal(target, whole[1]), "The target must be the text as it was.", "no mask, and no order.")
            position = "A mask must stand where its span stood, and all else stay in its order."
            expect(
                torch.equal(source, whole[0]), position, "torch.where(hidden, mask_token, text), less what is too much."
            )
