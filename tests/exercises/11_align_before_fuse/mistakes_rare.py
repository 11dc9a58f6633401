"""Wrong answers that only rare inputs give away, and what each is told: ``RARE[task][what it says][name]``."""

import torch
import torch.nn.functional as F


def _box(maps, grid, threshold=0.5, *, least=0.0, steps=None, peak=None, size=None, over=torch.ge):
    rows, columns = size or grid
    high = over(maps, threshold * maps.amax(1, keepdim=True) + least).view(-1, 1, *grid)
    part = (peak or (lambda m: F.one_hot(m.argmax(1), m.shape[1]).bool()))(maps).view(-1, 1, *grid)
    for _ in range(steps(*grid) if steps else grid[0] * grid[1]):
        part = high & (F.max_pool2d(part.float(), 3, stride=1, padding=1) > 0)
    boxes = []
    for one in part[:, 0]:
        y, x = one.nonzero().T
        boxes.append([x.min() / columns, y.min() / rows, (x.max() + 1) / columns, (y.max() + 1) / rows])
    return torch.tensor(boxes)


RARE = {
    "box_of_map": {
        "?": {
            "as many steps as the longer side": lambda *given: _box(*given, steps=max),
            "as many steps as both sides": lambda *given: _box(*given, steps=lambda r, c: r + c),
            "ten steps": lambda *given: _box(*given, steps=lambda r, c: 10),
            "all highest": lambda *given: _box(*given, peak=lambda m: m == m.amax(1, keepdim=True)),
            "a grid of 4 and 6": lambda *given: _box(*given, size=(4, 6)),
            "squeezed": lambda *given: _box(*given).squeeze(),
            "above": lambda maps, grid, threshold=0.5: _box(maps, grid, threshold, over=torch.gt) if threshold < 1 and maps.amin() < maps.amax() else _box(maps, grid, threshold),
            "zeros have no box": lambda maps, grid, threshold=0.5: _box(maps, grid, threshold, least=1e-30),
        },
    },
}
