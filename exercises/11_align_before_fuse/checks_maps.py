"""Maps from gradients, and boxes from maps: what each must do, told one property at a time."""

from collections.abc import Callable

import torch
from torch import Tensor

from mmlearn.evaluation import box_of_map, gradient_maps
from mmlearn.exercises import agreement, by_hand, case, expect, expect_tensor, near, task


def _of_one_score(function: Callable) -> None:
    """The example of the statement: weights 0.2, 0.3, 0.5, and a score of twice the first less the second."""
    weights = torch.tensor([0.2, 0.3, 0.5]).view(1, 1, 1, 3).requires_grad_()
    score = (weights * torch.tensor([2.0, -1.0, 0.0])).sum((1, 2, 3))
    gives = {"layer": torch.tensor([[[[0.4, 0.0, 0.0]]]])}
    by_hand(gives=gives)(lambda: function({"layer": weights}, score))


@task(gradient_maps, difficulty=3, minutes=20, example=_of_one_score)
def check_gradient_maps(function: Callable) -> None:
    """Weights times what speaks for the score, layer by layer."""
    shape = (2, 3, 4, 5)
    leaf = torch.randn(2, *shape, requires_grad=True)  # stands for a model's weights
    towards = torch.randn(2, *shape)

    def maps() -> dict[str, Tensor]:
        return {f"layer {i}": scores.softmax(-1) for i, scores in enumerate(leaf.unbind())}

    def ask(maps: dict[str, Tensor], score: Tensor) -> dict[str, Tensor]:
        result, hint = function(maps, score), "{name: … for name in maps}"
        expect(isinstance(result, dict), f"It must return a dict, not a {type(result).__name__}.", hint)
        expect(list(result) == list(maps), "It must give one map a layer, under the same names.", hint)
        return {name: expect_tensor(got, shape) for name, got in result.items()}

    def compare(score: Callable, property: str, hint: str) -> None:
        given = maps()
        asked = score(*given.values())
        wanted = gradient_maps(given, asked)
        for name, got in ask(given, asked).items():
            expect(near(got, wanted[name]), property, hint)

    compare(
        lambda one, other: (one + other).sum((1, 2, 3)),
        "Where the score is the sum of all weights, each must come back as it is.",
        "the gradient is 1 there, so weight times gradient is the weight; add the scores of a batch, no mean.",
    )
    compare(
        lambda one, other: -(one + other).sum((1, 2, 3)),
        "Weights that speak against the score must become 0.",
        "relu of the gradient: neither its size nor its sign may stay.",
    )
    compare(
        lambda one, other: (one * towards[0]).sum((1, 2, 3)) + (other * towards[1]).sum((1, 2, 3)) ** 2,
        "Each weight must be multiplied by its own gradient, where that is positive.",
        "entry by entry: no mean of the gradient over positions or heads, and no sign in place of it.",
    )
    with case("Asked twice of one run"):
        given = maps()
        score = (given["layer 0"] * given["layer 1"]).sum((1, 2, 3))
        first, second = ask(given, score), ask(given, score)
        same = all(near(second[name], got) for name, got in first.items())
        expect(same, "It must say the same.", "torch.autograd.grad(…, retain_graph=True) keeps the graph.")
    expect(
        leaf.grad is None,
        "It must leave no gradient on the model's weights, where the optimiser would take it.",
        "torch.autograd.grad hands gradients back; backward() stores them.",
    )
    expect(
        not any(got.requires_grad for got in first.values()),
        "The maps that come back must have no graph.",
        "detach the weights; they are for looking at.",
    )


@task(
    box_of_map,
    difficulty=4,
    minutes=25,
    example=by_hand(
        torch.tensor([[0.1, 0.6, 0.0, 0.7, 0.0, 1.0, 0.0, 0.0]]), (2, 4), gives=torch.tensor([[0.25, 0.0, 0.5, 1.0]])
    ),
)
def check_box_of_map(function: Callable) -> None:
    """Around the highest patch and what hangs together with it."""
    grid = rows, columns = 4, 6

    def compare(maps: Tensor, property: str, hint: str, *threshold: float) -> None:
        same((maps.flatten(1), grid, *threshold), property, hint)

    same = agreement(function, box_of_map)
    one = torch.eye(rows * columns).view(-1, rows, columns)  # map i has all its weight on patch i
    got = expect_tensor(function(one.flatten(1), grid), (len(one), 4))
    expect((got <= 1).all(), "Numbers must be shares of the picture, from 0 to 1.", "divide by columns and by rows.")
    expect(
        (got[:, 2:] - got[:, :2] > 1e-3).all(),
        "A box of one patch must be one patch wide and high, not a point.",
        "it ends where its last patch ends: last column + 1.",
    )
    compare(
        one,
        "A map with one high patch must give the box of that patch: left, top, right, bottom.",
        "patch i is in row i // columns and column i % columns; left and right are of columns, over their number.",
    )
    compare(torch.ones(2, rows, columns), "A flat map must give the whole picture.", "every patch is as high as any.")
    block = 0.3 * torch.rand(3, rows, columns)
    block[:, 1:3, 2:5] = 0.55
    block[:, 1, 3] = 1
    compare(block, "The box must hold all neighbours that are high enough.", "at least half of the highest weight.")
    compare(
        0.01 * block,
        "A map of which all is a hundred times less must give the same box.",
        "the threshold is a share of the map's highest weight.",
    )
    compare(
        1e-9 * block,
        "A map of tiny weights must give the same box.",
        "nothing is added to the highest weight, and level means ==.",
    )
    block[:, 1:3, 2:5] = block[:, 1:3, 2:5].clamp(max=0.5)
    block[:, 1, 3] = 1
    compare(block, "A patch with just half of the highest weight must belong to it.", "at least: >=.")
    compare(block, "With threshold 0.8 only patches with 0.8 of the highest may count.", "use the argument.", 0.8)
    _check_parts(compare, rows, columns)
    compare(torch.zeros(1, rows, columns), "A map of zeros is flat, too.", "0 is at least half of 0.")
    with case("On a grid of 11 × 9, along a way that turns often"):
        way = 0.05 * torch.rand(11, 9)
        way[::2], way[1::4, -1], way[3::4, 0], way[0, 0] = 0.9, 0.9, 0.9, 1
        whole = "What hangs together must count to its end, however far that is."
        same((way.flatten()[None], (11, 9)), whole, "until nothing is added, not a number of steps.")
    for other in ((1, 5), (7, 1), (3, 8)):
        with case(f"On a grid of {other[0]} × {other[1]}"):
            maps = torch.rand(9, other[0] * other[1])
            same((maps, other), "The rule must hold.", "rows and columns come from grid.")
    for threshold in (0.2, 0.5):
        maps = torch.rand(20, rows, columns)
        compare(maps, "On random maps the rule must hold too.", "from the highest patch, as far as it goes.", threshold)


def _check_parts(compare: Callable, rows: int, columns: int) -> None:
    apart = torch.zeros(1, rows, columns)
    apart[0, 0, 0], apart[0, 3, 4:] = 1, 0.9
    compare(
        torch.cat([apart, apart.flip(1, 2)]),
        "What is high elsewhere, apart from the highest patch, must not count.",
        "grow from the highest patch over neighbours that are high.",
    )
    chain = torch.zeros(1, rows, columns)
    chain[0, 0], chain[0, :, 5], chain[0, 3, 2:] = 0.9, 0.9, 0.9
    chain[0, 0, 0] = 1
    compare(
        chain,
        "What hangs together over several patches must count to its end.",
        "repeat until nothing is added: one step reaches direct neighbours only.",
    )
    corner = torch.zeros(1, rows, columns)
    corner[0, 1, 1], corner[0, 2, 2] = 1, 0.9
    compare(corner, "Patches that touch at a corner must hang together.", "each patch has eight neighbours.")
    tied = torch.zeros(1, rows, columns)
    tied[0, 0, 4] = tied[0, 3, 0] = 1
    compare(tied, "Of several highest patches that lie apart, the first must be taken.", "argmax takes the first.")
