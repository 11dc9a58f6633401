"""What ``scenes`` are drawn from: sprites of shapes, textures and grounds, made once for each picture size."""

from collections.abc import Callable
from functools import lru_cache
from itertools import product

import numpy as np
from jaxtyping import Float32

from mmlearn.data.hashing import stream, uniform

CANVAS = 64  # the picture's side in the units of SIZES and JITTER
GRID = 4  # rows and columns
JITTER = 1  # how far an object may be from the middle of its cell, each way
SUPERSAMPLING = 8  # per side, for smooth edges
STRETCHED_SUPERSAMPLING = 3
GROUNDS = 64  # how many there are of each size

COLOURS = {
    "red": (0.88, 0.08, 0.10),
    "orange": (1.00, 0.50, 0.05),
    "yellow": (1.00, 0.92, 0.20),
    "lime": (0.62, 0.95, 0.15),
    "green": (0.08, 0.58, 0.20),
    "cyan": (0.30, 0.90, 0.92),
    "blue": (0.12, 0.28, 0.95),
    "purple": (0.55, 0.15, 0.85),
    "magenta": (0.95, 0.15, 0.75),
    "pink": (1.00, 0.68, 0.78),
    "brown": (0.55, 0.32, 0.14),
    "white": (0.96, 0.96, 0.94),
}
PALETTE = np.array(list(COLOURS.values()), np.float32)

SIZES = {"small": 5.5, "large": 7.0}  # radius


def _star(x, y):
    spike = 2 * np.pi / 5
    from_tip = abs((np.arctan2(x, -y) + spike / 2) % spike - spike / 2) / (spike / 2)  # 0 at a tip, 1 at a notch
    return np.hypot(x, y) * (1 + 1.3 * from_tip) < 1


# Which points of the square [-1, 1]² a shape covers; y points down.
SHAPES = {
    "circle": lambda x, y: x**2 + y**2 < 0.92,
    "square": lambda x, y: np.maximum(abs(x), abs(y)) < 0.84,
    "triangle": lambda x, y: (y < 0.8) & (abs(x) < (y + 1) * 0.55),
    "diamond": lambda x, y: abs(x) / 0.72 + abs(y) < 1,
    "star": _star,
    "cross": lambda x, y: (np.minimum(abs(x), abs(y)) < 0.3) & (np.maximum(abs(x), abs(y)) < 0.95),
    "ring": lambda x, y: abs(np.hypot(x, y) - 0.75) < 0.22,
    "moon": lambda x, y: (np.hypot(x + 0.1, y) < 0.95) & (np.hypot(x - 0.45, y) > 0.8),
    "arrow": lambda x, y: np.where(y < 0, abs(x) < y + 0.95, abs(x) < 0.3) & (y < 0.9),
    "hourglass": lambda x, y: (abs(x) < abs(y) + 0.08) & (np.maximum(abs(x), abs(y)) < 0.85),
    "bar": lambda x, y: (abs(y) < 0.36) & (abs(x) < 0.97),
    "heart": lambda x, y: ((1.15 * x) ** 2 + (1.15 * y - 0.1) ** 2 - 0.7) ** 3 < -1.9 * x**2 * (y - 0.1) ** 3,
}

# How bright a point is, from 0 to 1.
TEXTURES = {
    "solid": lambda x, y: np.ones_like(x),
    "striped": lambda x, y: np.where(np.sin(4.4 * np.pi / 2 * (x + y)) > 0, 1.0, 0.45),
    "dotted": lambda x, y: np.where(np.cos(7.5 * x) * np.cos(7.5 * y) > 0.25, 0.35, 1.0),
}


@lru_cache(maxsize=8)
def sprites(size: int, side: int, offsets: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
    """How much of each of ``side`` × ``side`` pixels an object covers, and that times how bright its texture is there.

    (shapes, sizes, x, y, side, side) and (shapes, textures, sizes, x, y, side, side). ``size`` is the side of a whole
    picture in pixels; x and y number ``offsets``: how many pixels the middle of the object lies to the right of the
    middle of the pixels, and below it.
    """
    points = (np.arange(side * SUPERSAMPLING) + 0.5) / SUPERSAMPLING - side / 2  # pixels from the middle
    radii = [radius * size / CANVAS for radius in SIZES.values()]

    def averages(*patterns: Callable) -> np.ndarray:
        found = []
        for radius, right, down in product(radii, offsets, offsets):
            x, y = np.meshgrid((points - right) / radius, (points - down) / radius)
            values = np.prod([pattern(x, y) for pattern in patterns], 0)
            found.append(values.reshape(side, SUPERSAMPLING, side, SUPERSAMPLING).mean((1, 3)))
        return np.array(found, np.float32).reshape(len(radii), len(offsets), len(offsets), side, side)

    paint = [[averages(shape, texture) for texture in TEXTURES.values()] for shape in SHAPES.values()]
    return np.array([averages(shape) for shape in SHAPES.values()]), np.array(paint)


def cell_sprites(side: int) -> tuple[np.ndarray, np.ndarray]:
    """The :func:`sprites` of a cell ``side`` pixels wide; x and y number the jitter from its lowest."""
    return sprites(GRID * side, side, tuple(step * GRID * side / CANVAS for step in range(-JITTER, JITTER + 1)))


def stretched(shape: str, box: np.ndarray, side: int) -> Float32[np.ndarray, "n side side"]:
    """How much of each of ``side`` × ``side`` pixels a shape covers that is stretched over a box.

    Boxes (n, 4) are the middle and half of width and height, in pixels.
    """
    points = (np.arange(side * STRETCHED_SUPERSAMPLING) + 0.5) / STRETCHED_SUPERSAMPLING
    x, y = np.moveaxis((points - box[:, :2, None]) / box[:, 2:, None], 1, 0)
    inside = SHAPES[shape](x[:, None, :], y[:, :, None])
    cells = inside.reshape(len(box), side, STRETCHED_SUPERSAMPLING, side, STRETCHED_SUPERSAMPLING)
    return cells.mean((2, 4)).astype(np.float32)


@lru_cache(maxsize=4)
def grounds(size: int) -> np.ndarray:
    """Dark, slightly noisy grounds: (64, 3, size, size)."""
    noise = uniform(stream("grounds", size), np.arange(GROUNDS), 3 * size * size).reshape(GROUNDS, 3, size, size)
    level = np.linspace(0.04, 0.22, GROUNDS, dtype=np.float32)[:, None, None, None]
    return level + 0.06 * (noise - 0.5)


def grounds_of(split: str, splits: tuple[str, ...], number: np.ndarray) -> np.ndarray:
    """Which of all :func:`grounds` a split shows, for numbers in [0, 1): each split has its own."""
    own = GROUNDS // len(splits)
    return (number * own).astype(int) * len(splits) + splits.index(split)


def paste(images: np.ndarray, at: tuple, cover: np.ndarray, paint: np.ndarray, colour: np.ndarray) -> None:
    """Draw one object on each of some images (n, 3, h, w): ``at`` is which image, and the top and left pixel there.

    ``cover`` and ``paint`` (m, side, side) are as of :func:`sprites`.
    """
    windows = np.lib.stride_tricks.sliding_window_view(images, cover.shape[1:], axis=(2, 3), writeable=True)
    which, top, left = at
    position = which, slice(None), top, left
    windows[position] = windows[position] * (1 - cover)[:, None] + paint[:, None] * PALETTE[colour, :, None, None]
