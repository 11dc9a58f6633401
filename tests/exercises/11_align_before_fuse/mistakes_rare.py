"""Wrong answers that only rare inputs give away, and what each is told: ``RARE[task][what it says][name]``."""

import torch
import torch.nn.functional as F


def _box(maps, grid, threshold=0.5, *, least=0.0, steps=None):
    rows, columns = grid
    high = (maps >= threshold * maps.amax(1, keepdim=True) + least).view(-1, 1, *grid)
    part = F.one_hot(maps.argmax(1), rows * columns).bool().view(-1, 1, *grid)
    for _ in range(steps(*grid) if steps else rows * columns):
        part = high & (F.max_pool2d(part.float(), 3, stride=1, padding=1) > 0)
    boxes = []
    for one in part[:, 0]:
        y, x = one.nonzero().T
        boxes.append([x.min() / columns, y.min() / rows, (x.max() + 1) / columns, (y.max() + 1) / rows])
    return torch.tensor(boxes)


RARE = {
    "box_of_map": {
        "often: What hangs together must count to its end, however far that is": {
            "as many steps as both sides": lambda *given: _box(*given, steps=lambda r, c: r + c),
            "ten steps": lambda *given: _box(*given, steps=lambda r, c: 10),
        },
        "with RuntimeError: min():": {
            "more than zero": lambda maps, grid, threshold=0.5: _box(maps, grid, threshold, least=1e-30)
        },
    }
}
