"""Questions that need one, two or three looks at a picture: each look finds the thing from which the next one starts.

Nine things, one of each shape, fill a 3 × 3 grid. There are five colours: eight things share theirs with one other,
their twin.
"What colour is the heart?" needs one look. "What shape is left of the heart?" needs two, one for the heart and one for
what stands beside it; so does "what shape has the colour of the heart?", which asks for the twin. "What shape has the
colour of what is left of the heart?" needs three. The question alone says nothing about its answer, and neither does
the picture alone.

In ``skewed`` and ``skewed-test`` nine of ten questions of one look are answered by the colour that their shape favours,
as bananas are yellow; in ``changed-prior`` by the next colour. Other questions and other splits have no such prior.

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
from mmlearn.data.made.scene_tasks import WITH_PRIOR, Task, TaskSample
from mmlearn.data.made.scenes import COLOURS, JITTER, SHAPES, SIZES, SPLITS, Layout, SceneSample, draw, relate

GRID = 3  # rows and columns
PALETTE, FIGURES = COLOURS[:10:2], SHAPES[: GRID**2]
PAIRED = np.array([0, 0, 1, 1, 2, 2, 3, 3, 4])  # which colour each thing has; 2j and 2j + 1 are twins
BESIDE = [(cell, cell - 1) for cell in range(GRID**2) if cell % GRID]  # a cell, and the one to its left
FORMS = {
    "1 hop": "what colour is the {}?",
    "2 hops, side": "what shape is left of the {}?",
    "2 hops, colour": "what shape has the colour of the {}?",
    "3 hops": "what shape has the colour of what is left of the {}?",
}


@dataclass(frozen=True)
class HopLayout(Layout):
    """A :class:`Layout` of nine things in nine cells."""

    grid: ClassVar[int] = GRID


@dataclass(frozen=True)
class HopSample(TaskSample):
    """A question, and its ``chain``: the cells to look at, from the thing that is named to the one that answers."""

    chain: tuple[int, ...] = ()


class HopQuestions(Task):
    """Questions whose ``kinds`` say how many looks they need. Raises ``ValueError`` as other tasks do."""

    name = "HopQuestions"
    kinds, labels, target = tuple(FORMS), (*PALETTE, *FIGURES), "answer"
    splits = ("train", "val", "test", *WITH_PRIOR)

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
            ground=drawing.grounds_of(self._pictures(), SPLITS, rest[:, 4]),
            question_bits=np.zeros(n, int),
        )
        images = torch.from_numpy(draw(layout, self.size))
        return [
            HopSample((SceneSample(image, layout, i),), text, kind, self.labels.index(answer), HopQuestions, chain)
            for i, (image, (text, kind, answer, chain)) in enumerate(zip(images, asked))
        ]

    def _ask(
        self, cell: np.ndarray, shape: np.ndarray, colour: np.ndarray, numbers: np.ndarray
    ) -> tuple[str, str, str, tuple[int, ...]]:
        """Text, kind, answer and chain of a question about one scene; ``colour`` is changed where the split says so."""
        thing = cell.argsort().tolist()  # thing[c] is what stands in cell c
        name = self.kinds[int(numbers[0] * len(FORMS))]
        chains = [(at,) for at in range(GRID**2)] if name in ("1 hop", "2 hops, colour") else list(BESIDE)
        if name in ("2 hops, colour", "3 hops"):  # the twin of what was found last, unless it is where all began
            chains = [(*chain, int(cell[thing[chain[-1]] ^ 1])) for chain in chains if thing[chain[-1]] < len(cell) - 1]
            chains = [chain for chain in chains if chain[-1] != chain[0]]
        chain = chains[int(numbers[1] * len(chains))]
        first, last = thing[chain[0]], thing[chain[-1]]
        if name == "1 hop" and self.split in WITH_PRIOR:
            self._skew(colour, int(shape[first]), last, numbers[2:4])
        answer = PALETTE[colour[last]] if name == "1 hop" else FIGURES[shape[last]]
        return FORMS[name].format(FIGURES[shape[first]]), name, answer, chain

    def _skew(self, colour: np.ndarray, shape: int, last: int, numbers: np.ndarray) -> None:
        """Exchange two colours of the scene, so that nine of ten answers are what the asked shape favours."""
        favoured = (shape + (self.split == "changed-prior")) % len(PALETTE)
        others = [number for number in range(len(PALETTE)) if number != favoured]
        wanted = favoured if numbers[0] < 0.9 else others[int(numbers[1] * len(others))]
        had = int(colour[last])
        colour[:] = np.select([colour == had, colour == wanted], [wanted, had], colour)
