"""Wrong answers that people really give, and what each is told: ``MISTAKES[task][what it says][name]``."""

from functools import partial

import torch
import torch.nn.functional as F
from common_mistakes import then

from mmlearn.evaluation import box_of_map, gradient_maps


def _maps(maps, score, *, weigh=lambda w, g: w.detach() * g.relu(), total=torch.sum, keep=True):
    gradients = torch.autograd.grad(total(score), list(maps.values()), retain_graph=keep)
    return {name: weigh(w, g) for (name, w), g in zip(maps.items(), gradients)}


def _backward(maps, score):
    for weights in maps.values():
        weights.retain_grad()
    score.sum().backward(retain_graph=True)
    result = {name: weights.detach() * weights.grad.relu() for name, weights in maps.items()}
    for weights in maps.values():
        weights.grad = None
    return result


def _box(maps, grid, threshold=0.5, *, close=1, steps=99, enough=torch.ge, end=1, relative=True, last=False):
    """The box of a map by growing from its highest patch, or one that differs in a single position."""
    boxes = []
    for m in maps.view(-1, *grid):
        high = enough(m, threshold * (m.max() if relative else 1))
        positions = (m == m.max()).nonzero().tolist()
        part = {tuple(positions[-1 if last else 0])}
        others = {tuple(position) for position in high.nonzero().tolist()}
        for _ in range(steps):
            part |= {
                other
                for other in others
                if any(
                    max(abs(other[0] - row), abs(other[1] - column)) <= 1
                    and abs(other[0] - row) + abs(other[1] - column) <= 1 + close
                    for row, column in part
                )
            }
        top, left = (min(axis) for axis in zip(*part))
        bottom, right = (max(axis) + end for axis in zip(*part))
        boxes.append([left / grid[1], top / grid[0], right / grid[1], bottom / grid[0]])
    return torch.tensor(boxes)


def _all_that_is_high(maps, grid, threshold=0.5):
    high = (maps >= threshold * maps.amax(1, keepdim=True)).view(-1, *grid)
    boxes = [[x.min() for x in h.nonzero().T] + [x.max() + 1 for x in h.nonzero().T] for h in high]
    return torch.tensor(boxes)[:, [1, 0, 3, 2]] / torch.tensor([grid[1], grid[0], grid[1], grid[0]])


RIGHT = {  # right answers that are written in another way than the library's
    "gradient_maps": _maps,
    "box_of_map": _box,
}

MISTAKES = {
    "gradient_maps": {
        "speak against the score must": {
            "weights alone": lambda maps, score: {k: w.detach() for k, w in maps.items()},
            "no relu": partial(_maps, weigh=lambda w, g: w.detach() * g),
            "its size": partial(_maps, weigh=lambda w, g: w.detach() * g.abs()),
        },
        "the sum of all weights, each must come back": {
            "gradient alone": partial(_maps, weigh=lambda w, g: g.relu()),
            "mean of the scores": partial(_maps, total=torch.mean),
            "first row's score": partial(_maps, total=lambda y: y[0]),
            "a softmax again": partial(_maps, weigh=lambda w, g: (w.detach() * g.relu()).softmax(-1)),
        },
        "multiplied by its own gradient, where that is positive": {
            "its sign": partial(_maps, weigh=lambda w, g: w.detach() * (g > 0)),
            "a mean over positions": partial(
                _maps, weigh=lambda w, g: (w.detach() * g.mean((-2, -1), keepdim=True)).relu()
            ),
        },
        "must have shape (2, 3, 4, 5); this one has (2, 4, 5)": {
            "a mean over heads": partial(_maps, weigh=lambda w, g: (w.detach() * g.relu()).mean(1))
        },
        "It stops in line": {"graph used up": partial(_maps, keep=False)},
        "It must leave no gradient on the model's weights": {"backward": _backward},
        "The maps that come back must have no graph": {"with a graph": partial(_maps, weigh=lambda w, g: w * g.relu())},
        "It must return a dict, not a list": {"a list": then(gradient_maps, lambda y: list(y.values()))},
        "one map a layer, under the same names": {
            "one layer": then(gradient_maps, lambda y: {k: w for k, w in y.items() if k == "layer 1"})
        },
    },
    "box_of_map": {
        "must be shares of the picture": {
            "in patches": lambda maps, grid, t=0.5: (
                box_of_map(maps, grid, t) * torch.tensor([grid[1], grid[0], grid[1], grid[0]])
            )
        },
        "one patch wide and high, not a point": {
            "ends where the last patch begins": partial(_box, end=0),
            "a corner and a size": lambda maps, grid, t=0.5: (lambda x: torch.cat([x[:, :2], x[:, 2:] - x[:, :2]], 1))(
                box_of_map(maps, grid, t)
            ),
        },
        "the box of that patch: left, top, right, bottom": {
            "top first": lambda maps, grid, t=0.5: box_of_map(maps, grid, t)[:, [1, 0, 3, 2]],
            "grid turned": lambda maps, grid, t=0.5: box_of_map(maps, grid[::-1], t),
        },
        "A flat map must give the whole picture": {
            "the highest patch alone": lambda maps, grid, t=0.5: box_of_map(
                F.one_hot(maps.argmax(1), maps.shape[1]).float(), grid, t
            ),
            "neighbours only": partial(_box, steps=1),
        },
        "a hundred times less must give the same box": {"threshold of 1": partial(_box, relative=False)},
        "A patch with just half of the highest weight must belong to it": {"more than": partial(_box, enough=torch.gt)},
        "With threshold 0.8 only patches": {"threshold ignored": lambda maps, grid, t=0.5: box_of_map(maps, grid)},
        "What is high elsewhere, apart from the highest patch": {"all that is high": _all_that_is_high},
        "over several patches must count to its end": {"a few steps": partial(_box, steps=5)},
        "Patches that touch at a corner must hang together": {"sides only": partial(_box, close=0)},
        "Of several highest patches that lie apart, the first": {"the last of several": partial(_box, last=True)},
    },
}
