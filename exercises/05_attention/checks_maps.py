"""Heat maps and their measures: what each function must do, told one property at a time."""

from collections.abc import Callable

import torch

from mmlearn.evaluation import entropy, mass_ratio, on_grid, pointing_accuracy
from mmlearn.exercises import agreement, by_hand, case, expect, expect_number, expect_tensor, near, task
from mmlearn.exercises.inputs import between


@task(
    on_grid,
    difficulty=2,
    minutes=10,
    example=by_hand(torch.tensor([[[1, 1, 1, 0], [0, 1, 0, 0]]]).bool(), (1, 2), gives=torch.tensor([[0.75, 0.25]])),
)
def check_on_grid(function: Callable) -> None:
    """The share of each patch that a mask covers, in reading order."""
    grid = rows, columns = 2, 3
    same = agreement(function, on_grid)
    full = torch.ones(1, 8, 12, dtype=torch.bool)
    got = expect_tensor(function(full, grid), (1, 6))
    expect((got <= 1).all(), "A share is at most 1.", "take the mean over the pixels of a patch, not their sum.")
    expect(near(got, 1.0), "A mask that covers everything must cover each patch with share 1.", "a mean of ones is 1.")
    patches = torch.eye(6, dtype=torch.bool).view(6, rows, columns)  # one patch of each mask, in reading order
    masks = patches.repeat_interleave(4, 1).repeat_interleave(4, 2)
    expect(
        near(expect_tensor(function(masks, grid), (6, 6)), torch.eye(6)),
        "Patches must come in reading order, and grid is (rows, columns).",
        "mask i here covers just the i-th patch of two rows of three.",
    )
    half = full.clone()
    half[:, 2:4] = half[:, 6:8] = False  # the lower half of each patch
    expect(
        near(function(half, grid), 0.5),
        "A patch of which half is covered must have share 0.5.",
        "a maximum, or one pixel in place of all, only says whether it is covered.",
    )
    masks = torch.rand(5, 8, 12) < 0.4
    same(
        (masks, grid),
        "Every pixel of a patch must count alike.",
        "a plain mean over the patch; interpolation samples a few pixels, rounding forgets the share.",
    )
    for other in ((4, 2), (1, 6)):
        with case(f"A grid of {other}"):
            same((masks, other), "It must work too.", "patches need not be square.")


@task(
    pointing_accuracy,
    difficulty=2,
    minutes=10,
    example=by_hand(
        torch.tensor([[0.1, 0.7, 0.1, 0.1], [0.1, 0.2, 0.3, 0.4], [0.4, 0.4, 0.1, 0.1]]),
        torch.tensor([0.9, 0.05, 0.0, 0.2]).expand(3, 4),
        gives=0.5,  # the mean of 0, 1 and ½
    ),
)
def check_pointing_accuracy(function: Callable) -> None:
    """The highest weight lies on the region; ties count by their share."""
    n, p = 40, 9
    regions = torch.zeros(n, p)
    regions[:, :3] = torch.tensor([0.9, 0.5, 0.3])  # on the region
    on, off = 0.5 * torch.rand(n, p), 0.5 * torch.rand(n, p)
    on[:, 2], off[:, 5] = 1, 1
    beside = "A map whose highest weight lies beside the region must count 0."
    expect_number(function(off, regions), 0, beside, "take its argmax.")
    expect_number(
        function(on, regions),
        1,
        "A map whose highest weight lies on any patch of the region must count 1.",
        "a patch belongs to the region if at least 0.1 of it is covered, not only where most is covered.",
    )
    both = torch.cat([on, off[: n // 2]]), torch.cat([regions, regions[: n // 2]])
    expect_number(function(*both), 2 / 3, "It must be the share of maps that point right.", "the mean over rows.")
    grazed = regions.clone()
    grazed[:, 5] = 0.05
    expect_number(
        function(off, grazed),
        0,
        "A patch of which only 0.05 is covered must not count as the region.",
        "a patch belongs to the region if at least 0.1 of it is covered.",
    )
    grazed[:, 5] = 0.1
    expect_number(function(off, grazed), 1, "A patch of which just 0.1 is covered must count.", "at least: >=.")
    expect_number(
        function(1e-9 * off, regions),
        0,
        "In a map of tiny weights the highest must still be the highest alone.",
        "weights are level where they are equal, ==; isclose calls all weights of a tiny map level.",
    )
    expect_number(
        function(torch.full((n, p), 1 / p), regions),
        3 / 9,
        "A flat map knows nothing and must count as a guess does: 3 of 9 patches are right.",
        "where several weights are highest, count the share of them on the region; argmax takes the first only.",
    )
    tied = torch.randint(0, 3, (n, p)).float(), torch.rand(n, p).square()
    agreement(function, pointing_accuracy)(tied, "Ties count by share.", "row by row.")


NORMALISE = "first divide each map by its sum. Take no softmax: these are weights and not scores."


@task(entropy, difficulty=1, minutes=10, example=by_hand(torch.tensor([[2.0, 2.0, 0.0, 0.0]]), gives=0.5))
def check_entropy(function: Callable) -> None:
    """0 for one patch, 1 for all alike, whatever the size of weights."""
    n, p = 6, between(8, 29)
    maps = torch.rand(n, p) + 0.01
    maps /= maps.sum(-1, keepdim=True)
    expect_number(
        function(torch.full((n, p), 1 / p)),
        1,
        f"A flat map over {p} patches must have entropy 1, whatever their number.",
        "-Σ w ln w is ln p there: divide by it, and mind the sign and the base of the logarithm.",
    )
    with case("A map with one patch, zeros elsewhere"):
        zero = "0 ln 0 counts as 0: torch.special.entr, torch.xlogy."
        expect_number(function(torch.eye(p)[:n]), 0, "Its entropy must be 0.", zero)
    same = agreement(function, entropy)
    same((5 * maps,), "Five times a map must have the same entropy.", NORMALISE)
    tiny = "A map of tiny weights must have the entropy of a large one."
    same((1e-9 * maps,), tiny, "what is added to a sum so as not to divide by 0 must be smaller than any map: clamp.")
    same((maps,), "It must be the mean over maps of -Σ w ln w / ln p.", "one per row.")


@task(
    mass_ratio,
    difficulty=2,
    minutes=10,
    example=by_hand(torch.tensor([[0.5, 0.3, 0.2, 0.0]]), torch.tensor([[1.0, 0.0, 0.0, 0.0]]), gives=2.0),
)
def check_mass_ratio(function: Callable) -> None:
    """The weight on the region over the share of the picture that the region has."""
    n, p = 30, 12
    regions = torch.where(torch.rand(n, p) < 0.3, 0.1 + 0.9 * torch.rand(n, p), 0.09 * torch.rand(n, p))
    regions[:, 0], regions[:, 1] = 0.6, 0.05
    inside = regions >= 0.1
    expect_number(
        function(torch.full((n, p), 1 / p), regions),
        1,
        "A flat map must have ratio 1, however large the region.",
        "divide the weight inside by the region's share of all patches; a patch is in or out, at 0.1 of it covered.",
    )
    expect_number(
        function(inside / inside.sum(-1, keepdim=True), regions),
        float((p / inside.sum(-1)).mean()),
        "A map with all its weight on the region must have p over the number of its patches, on average.",
        "each map has its own ratio, and then the mean; a patch is in or out, whatever share of it is covered.",
    )
    maps = torch.rand(n, p)
    maps[:, 0] += torch.rand(n)
    same = agreement(function, mass_ratio)
    same((7 * maps, regions), "Seven times a map must have the same ratio.", NORMALISE)
    tiny = "A map of tiny weights must have the ratio of a large one."
    same((1e-9 * maps, regions), tiny, "what is added so as not to divide by 0 must be smaller than any map: clamp.")
    exact = regions.clone()
    exact[:, 2] = 0.1
    same((maps, exact), "A patch of which just 0.1 is covered must be in.", "at least: >=.")
    same((maps, regions), "It must be the mean ratio.", "one per row.")
