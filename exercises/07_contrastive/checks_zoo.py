"""A look at a CLIP that was trained for longer: it never saw a box, and where does it point?"""

from collections.abc import Callable, Sequence
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

from mmlearn import load_pretrained, load_processor
from mmlearn.data import load
from mmlearn.exercises import by_hand, case, expect, expect_number, expect_one_number, task
from mmlearn.exercises.inputs import evenly, new_seed

NAME, SIDE = "zoo/clip-collages", 6  # patches of a row, and of a column


@torch.no_grad()
def zero_shot_pointing(image: Float[Tensor, "n 96 6 6"], texts: Sequence[str], boxes: Float[Tensor, "n 4"]) -> float:
    """The share of pictures in which the patch that adds most to the similarity has its middle in the box."""
    return float(inside(most_added(image, texts), boxes).float().mean())


def most_added(image: Tensor, texts: Sequence[str]) -> Tensor:
    """The number of that patch, in reading order, (n,)."""
    model, (tokens, mask) = load_pretrained(NAME), load_processor(NAME).tokenizer(texts)
    return model.contributions(image, model.encode_text(tokens, mask)).argmax(1)


def inside(patch: Tensor, boxes: Tensor) -> Tensor:
    """Whether the middle of each patch is in its box, (n,)."""
    x, y = (patch % SIDE + 0.5) / SIDE, (patch // SIDE + 0.5) / SIDE
    left, top, right, bottom = boxes.unbind(-1)
    return (left <= x) & (x < right) & (top <= y) & (y < bottom)


@lru_cache(maxsize=1)
def pictures() -> tuple[Tensor, list[list[str]], list[Tensor]]:
    """Collages that nothing learned from: features, the names of their things, and where these are."""
    samples = load("collages", "test", seed=new_seed()).__getitems__(range(64))
    features = load_processor(NAME)(torch.stack([sample.image for sample in samples]), ["" for _ in samples])["image"]
    return features, [list(sample.names) for sample in samples], [sample.boxes / sample.size for sample in samples]


def draw(n: int = 16) -> tuple[Tensor, list[str], Tensor]:
    """Some of them, each with a thing that is there once."""
    features, names, boxes = pictures()
    rows, texts, where = [], [], []
    for i in torch.randperm(len(features)).tolist():
        once = [k for k, name in enumerate(names[i]) if names[i].count(name) == 1]
        if once and len(rows) < n:
            k = once[int(torch.randint(len(once), ()))]
            rows, texts, where = [*rows, i], [*texts, f"a {names[i][k]}"], [*where, boxes[i][k]]
    return features[rows], texts, torch.stack(where)


def around(patch: Tensor, across: float, down: float) -> Tensor:
    """Boxes around the middles of these patches, which reach so many patches to each side."""
    x, y = (patch % SIDE + 0.5) / SIDE, (patch // SIDE + 0.5) / SIDE
    across, down = across / SIDE, down / SIDE
    return torch.stack([x - across, y - down, x + across, y + down], 1)


EVERYWHERE = torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0]])


@task(
    zero_shot_pointing,
    difficulty=3,
    minutes=20,
    example=by_hand(torch.ones(2, 96, SIDE, SIDE), ["a cat", "a dog"], EVERYWHERE, gives=0.5),
)
def check_zero_shot_pointing(function: Callable) -> None:
    """The trained model's own patch counts, and no other; rows and columns; each picture with its own text."""
    image, texts, boxes = draw()
    n, patch = len(image), most_added(image, texts).detach()
    row, column = patch // SIDE, patch % SIDE
    aside = row != column
    expect_one_number(function(image, texts, boxes))
    everywhere = torch.tensor([0.0, 0.0, 1.0, 1.0]).expand(n, 4)
    share = "It must be a share from 0 to 1: here every box is the whole picture, so that all point right."
    expect_number(function(image, texts, everywhere), 1.0, share, "divide by the number of pictures; x < right.")
    others = [texts[i] for i in aside.nonzero()[:, 0].tolist()], around(SIDE * column + row, 0.3, 0.3)[aside]
    mirrored = expect_one_number(function(image[aside], *others))
    own = expect_one_number(function(image, texts, around(patch, 0.3, 0.3)))
    exchanged = "Patches are numbered in reading order; here rows and columns are exchanged."
    expect(not own < 0.5 < mirrored, exchanged, "patch p is in row p // 6 and column p % 6; x belongs to the column.")
    order = torch.arange(n - 1, -1, -1)
    least = "It must be the patch that adds most to the similarity with the picture's own text."
    with case("Where each box holds the middle of that patch and no other"):
        hint = (
            f"load_pretrained({NAME!r}); model.contributions(image, model.encode_text(tokens, mask)) is (n, 36): each "
            "row has its own argmax."
        )
        expect_number(function(image, texts, around(patch, 0.3, 0.3)), 1.0, least, hint)
        turned = [texts[i] for i in order.tolist()]
        expect_number(function(image[order], turned, around(patch, 0.3, 0.3)[order]), 1.0, least, hint)
    with case("Where each box holds a part of that patch without its middle"):
        beside = around(patch, 0.1, 0.1) + torch.tensor([0.3, 0.0, 0.3, 0.0]) / SIDE
        middle = "No picture must count: what has to be in the box is the middle of the patch."
        hint = "the middle is half a patch to the right of its left edge, and half a patch below its upper one."
        expect_number(function(image, texts, beside), 0.0, middle, hint)
    with case("With noise in place of pictures"):
        noise = evenly(n, 96, SIDE, SIDE)
        expect_number(
            function(noise, texts, around(most_added(noise, texts).detach(), 0.3, 0.3)), 1.0, least, "look at each."
        )
    wanted = zero_shot_pointing(image, texts, boxes)
    expect_number(function(image, texts, boxes), wanted, "On new collages it must be the share of hits.", "all edges.")
