"""Questions that need one, two or three looks at a picture: each look finds the thing from which the next one starts.

Nine things, one of each shape, fill a 3 × 3 grid. Eight of them share their colour with one other thing. "What colour is
the heart?" needs one look. "What colour is left of the heart?" needs two: one finds the heart, the other what stands
beside it. "What shape has the colour of what is left of the heart?" needs a third, for the thing of the same colour. The
words of a question say nothing about its answer, and the picture nothing without the question.

In ``skewed`` and ``skewed-test`` nine of ten questions about a colour are answered by the colour that their shape
favours, as bananas are yellow; in ``changed-prior`` by the next colour. Other splits have no such prior.

Source: Yang et al. 2016, "Stacked Attention Networks for Image Question Answering", figure 1, for questions that need
several looks; Johnson et al. 2017 (CLEVR), section 3, for chains of relations; Agrawal et al. 2018 (VQA-CP) for the
changed prior.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from mmlearn.data.hashing import stream, uniform
from mmlearn.data.made import drawing
from mmlearn.data.made.scene_tasks import Task, TaskSample
from mmlearn.data.made.scenes import COLOURS, JITTER, SHAPES, SIZES, SPLITS, Layout, SceneSample, draw, relate

GRID = 3  # rows and columns
PALETTE, FIGURES = COLOURS[::2], SHAPES[: GRID**2]
PAIRED = np.array(
    [0, 0, 1, 1, 2, 2, 3, 3, 4]
)  # which of a scene's five colours each thing has; 2j and 2j + 1 are twins
SIDES = {"left of": (0, -1), "right of": (0, 1), "above": (-1, 0), "below": (1, 0)}
BESIDE = [  # a cell, a side of it, and the cell there
    (GRID * row + column, side, GRID * (row + down) + column + right)
    for row in range(GRID)
    for column in range(GRID)
    for side, (down, right) in SIDES.items()
    if 0 <= row + down < GRID and 0 <= column + right < GRID
]
FORMS = {
    "1 hop": "what colour is the {0}?",
    "2 hops": "what colour is {1} the {0}?",
    "3 hops": "what shape has the colour of what is {1} the {0}?",
}
PICTURES = {"skewed": "train", "skewed-test": "test", "changed-prior": "test"}  # split → that of its pictures


@dataclass(frozen=True)
class HopLayout(Layout):
    """A :class:`Layout` of nine things in nine cells."""

    grid: ClassVar[int] = GRID


@dataclass(frozen=True)
class HopSample(TaskSample):
    """A question, and its ``chain``: the cells to look at, from the thing that is named to the one that answers."""

    chain: tuple[int, ...] = ()

    @property
    def facts(self) -> tuple[str, ...]:
        """What the picture shows, in words, cell by cell."""
        return tuple(f"{item.colour} {item.shape}" for item in self.pictures[0].objects)


class HopQuestions(Task):
    """Questions whose ``kinds`` say how many looks they need. Raises ``ValueError`` as other tasks do."""

    name = "HopQuestions"
    kinds, labels, target = tuple(FORMS), (*PALETTE, *FIGURES), "answer"
    splits = ("train", "val", "test", *PICTURES)

    def _pictures(self) -> str:
        return PICTURES.get(self.split, self.split)

    def _render(self, index: np.ndarray) -> list[HopSample]:
        n, things = len(index), GRID**2
        numbers = uniform(stream("hop questions", self.split, self.seed), index, 4 * things + len(PALETTE) + 5)
        where, what, right, down, colours, rest = np.split(numbers, [9, 18, 27, 36, 36 + len(PALETTE)], axis=1)
        cell, shape = where.argsort(1), what.argsort(1)
        colour = colours.argsort(1)[:, PAIRED]
        asked = [self._ask(*row) for row in zip(cell, shape, colour, rest)]  # which may exchange two colours
        layout = HopLayout(
            colour=2 * colour,
            shape=shape,
            size=np.full((n, things), SIZES.index("large")),
            texture=np.zeros((n, things), int),
            cell=cell,
            jitter=(np.stack([right, down], -1) * (2 * JITTER + 1)).astype(int),
            count=np.full(n, things),
            mentioned=np.tile([0, 1], (n, 1)),
            relation=relate(cell[:, 0], cell[:, 1], GRID, rest[:, 4]),
            template=np.zeros(n, int),
            ground=self._grounds(rest[:, 4]),
            question_bits=np.zeros(n, int),
        )
        images = torch.from_numpy(draw(layout, self.size))
        return [
            HopSample((SceneSample(image, layout, i),), text, kind, self.labels.index(answer), HopQuestions, chain)
            for i, (image, (text, kind, answer, chain)) in enumerate(zip(images, asked))
        ]

    def _grounds(self, number: np.ndarray) -> np.ndarray:
        """Grounds that no other split of pictures has."""
        count = len(drawing.grounds(self.size)) // len(SPLITS)
        return (number * count).astype(int) * len(SPLITS) + SPLITS.index(self._pictures())

    def _ask(
        self, cell: np.ndarray, shape: np.ndarray, colour: np.ndarray, numbers: np.ndarray
    ) -> tuple[str, str, str, tuple[int, ...]]:
        """Text, kind, answer and chain of a question about one scene; ``colour`` is changed where the split says so."""
        kind, thing = int(numbers[0] * len(FORMS)), cell.argsort().tolist()  # thing[c] is what stands in cell c
        if kind == 0:
            chains = [("", (at,)) for at in range(GRID**2)]
        else:
            chains = [(side, (at, beside)) for at, side, beside in BESIDE]
        if kind == 2:
            twins = [(side, at, beside, thing[beside] ^ 1) for side, (at, beside) in chains if thing[beside] < 8]
            chains = [(side, (at, beside, int(cell[k]))) for side, at, beside, k in twins if k != thing[at]]
        side, chain = chains[int(numbers[1] * len(chains))]
        first, last = thing[chain[0]], thing[chain[-1]]
        if kind < 2 and self.split in PICTURES:
            self._skew(colour, int(shape[first]), last, numbers[2:4])
        text, name = FORMS[self.kinds[kind]].format(FIGURES[shape[first]], side), self.kinds[kind]
        return text, name, FIGURES[shape[last]] if kind == 2 else PALETTE[colour[last]], chain

    def _skew(self, colour: np.ndarray, shape: int, last: int, numbers: np.ndarray) -> None:
        """Exchange two colours of the scene, so that nine of ten answers are what the asked shape favours."""
        favoured = (shape + (self.split == "changed-prior")) % len(PALETTE)
        others = [number for number in range(len(PALETTE)) if number != favoured]
        wanted = favoured if numbers[0] < 0.9 else others[int(numbers[1] * len(others))]
        had = int(colour[last])
        colour[:] = np.select([colour == had, colour == wanted], [wanted, had], colour)
