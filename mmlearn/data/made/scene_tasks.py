"""What a fusion model is pretrained for: questions, pairs of pictures, expressions and entailment, all about scenes.

Sample i of a task's split is a function of (split, i, seed), as scenes are, and its pictures are scenes of that split:
train, val and test share none. Where a label could be guessed from the text alone, every text comes once with each
label, so that guessing is exactly at chance; for questions there are splits in which guessing misleads.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch

from mmlearn.data.collate import Collate
from mmlearn.data.fields import Batch, Field, Image, Regions, Tokens
from mmlearn.data.hashing import stream, uniform
from mmlearn.data.made.drawing import GRID
from mmlearn.data.made.questions import ANSWERS, KINDS, Question, ask, place, plural
from mmlearn.data.made.rendered import Rendered
from mmlearn.data.made.scenes import (
    COLOURS,
    SHAPES,
    SPLITS,
    TEXTURES,
    Layout,
    Scenes,
    SceneSample,
    draw_samples,
    lay_out,
)
from mmlearn.data.tokenizer import Tokenizer

# Splits whose answers have a prior → the split of their pictures.
WITH_PRIOR = {"skewed": "train", "skewed-test": "test", "changed-prior": "test"}


@dataclass(frozen=True)
class TaskSample:
    """A text about one or two scenes, what kind of text it is, and the number of the right answer."""

    pictures: tuple[SceneSample, ...]
    text: str
    kind: str
    label: int
    task: "type[Task]"


@dataclass(frozen=True)
class Pictures(Field):
    """What ``fields`` make of a task's pictures; of tasks about two, with an axis of two behind the first.

    With ``blind`` no picture is shown: ``image`` and ``regions`` are 0, every box is the whole picture and every class
    as likely as any other. What a model still gets right, it gets from the text. Source: Goyal et al. 2017, "Making the
    V in VQA Matter", section 4, for models that see only the question.
    """

    fields: tuple[Field, ...] = (Image(), Regions())
    blind: bool = False

    def __call__(self, samples: Sequence[Any]) -> Batch:
        pictures = [picture for sample in samples for picture in sample.pictures]
        batch = {name: value for field in self.fields for name, value in field(pictures).items()}
        if self.blind:
            batch = {name: BLIND[name](value) for name, value in batch.items()}
        if len(pictures) > len(samples):
            batch = {name: value.unflatten(0, (len(samples), -1)) for name, value in batch.items()}
        return batch


BLIND = {
    "image": torch.zeros_like,
    "regions": torch.zeros_like,
    "boxes": lambda boxes: torch.tensor([0.0, 0.0, 1.0, 1.0]).expand_as(boxes).clone(),
    "region_mask": torch.ones_like,  # how many there are would tell something
    "region_classes": lambda classes: torch.full_like(classes, 1 / classes.shape[-1]),
}


class Target(Field):
    """``answer``, ``label`` or ``referred`` (b,), as the task says, and the ``kind`` (b,) of each text.

    Where an object is referred to there is also ``referred_box`` (b, 4), in shares of the picture. Raises
    ``ValueError`` for samples of several tasks.
    """

    def __call__(self, samples: Sequence[Any]) -> Batch:
        tasks = {sample.task for sample in samples}
        if len(tasks) != 1:
            raise ValueError(f"A batch holds samples of one task; got samples of {len(tasks)} tasks.")
        task = tasks.pop()
        batch = {"kind": torch.tensor([task.kinds.index(sample.kind) for sample in samples])}
        batch[task.target] = torch.tensor([sample.label for sample in samples])
        if task.target == "referred":
            scenes = [sample.pictures[0] for sample in samples]
            boxes = torch.stack([scene.boxes[sample.label] for scene, sample in zip(scenes, samples)])
            batch["referred_box"] = (boxes / scenes[0].image.shape[-1]).clamp(0, 1)
        return batch


def task_collate(
    tokenizer: Tokenizer, fields: tuple[Field, ...] = (Image(), Regions()), *, blind: bool = False
) -> Collate:
    """The collation for samples of one task: its pictures by ``fields``, its text, and its target."""
    return Collate((Pictures(fields, blind), Tokens(tokenizer, repeats=False, source="text"), Target()))


class Task(Rendered):
    """What the tasks share: their pictures are scenes of the same split.

    ``kinds`` are the kinds of texts, to be reported apart; ``labels`` the names of what is predicted; ``target`` its
    name in a batch.
    """

    kinds: ClassVar[tuple[str, ...]]
    labels: ClassVar[tuple[str, ...]]
    target: ClassVar[str]
    splits: ClassVar[tuple[str, ...]] = SPLITS

    def __init__(self, split: str = "train", *, size: int = 64, seed: int = 0, length: int = 100_000):
        super().__init__(split, size=size, seed=seed, length=length)
        self.scenes = Scenes(self._pictures(), size=size, seed=seed, length=length)

    def _pictures(self) -> str:
        """The split of the scenes that this split shows."""
        return WITH_PRIOR.get(self.split, self.split)

    def _numbers(self, index: np.ndarray, count: int) -> np.ndarray:
        """``count`` numbers in [0, 1) for each index."""
        return uniform(stream(type(self).__name__, self.split, self.seed), index, count)


class VQA(Task):
    """Questions about a scene, and their answers, each one of ``labels``; the kinds are those of scenes' questions.

    Besides the splits of scenes, where answers are as frequent as the scenes make them, there are three with a prior,
    as in VQA-CP. In ``skewed`` (training pictures) and ``skewed-test`` (test pictures) about nine of ten questions of
    each kind have one of that kind's ``FAVOURED`` answers; in ``changed-prior`` (test pictures) about one of ten has. A
    model that learned ``skewed`` by its priors gains on the second and loses on the third; one that looks does neither.

    Source: Antol et al. 2015 (VQA); Agrawal et al. 2018, "Don't Just Assume; Look and Answer", section 3.
    """

    name = "VQA"
    kinds, labels, target = tuple(KINDS), ANSWERS, "answer"
    splits = (*SPLITS, *WITH_PRIOR)
    FAVOURED: ClassVar[dict[str, tuple[str, ...]]] = {
        "exist": ("yes",),
        "count": ("1", "2", "3"),
        "size": ("small",),
        "texture": TEXTURES[:1],
        "colour": COLOURS[::2],
        "shape": SHAPES[::2],
        "relation": ("no",),
    }
    TRIES = 24  # questions drawn to find one with a favoured answer, or one without

    def _render(self, index: np.ndarray) -> list[TaskSample]:
        scenes = self.scenes.__getitems__(index.tolist())
        if self.split in SPLITS:
            questions = [scene.question for scene in scenes]
        else:
            numbers = self._numbers(index, 2 + self.TRIES)
            questions = [self._skewed(scene, row) for scene, row in zip(scenes, numbers)]
        return [
            TaskSample((scene,), question.text, question.kind, ANSWERS.index(question.answer), VQA)
            for scene, question in zip(scenes, questions)
        ]

    def _skewed(self, scene: SceneSample, numbers: np.ndarray) -> Question:
        kind = int(numbers[0] * len(KINDS))
        favoured = (numbers[1] < 0.9) != (self.split == "changed-prior")
        for number in numbers[2:]:
            question = ask(scene.objects, scene.graph, int(number * 2**16) * len(KINDS) + kind)
            if (question.answer in self.FAVOURED[question.kind]) == favoured:
                break
        return question


class NLVR(Task):
    """Is a sentence true of two pictures, a left and a right one? Samples 2j and 2j + 1 share sentence j: false, true.

    So the text alone is at chance; and false pairs are near misses, so that both pictures are needed. The samples'
    ``pictures`` are (left, right); in a batch ``image``, ``regions`` and their company have an axis of 2 behind b.

    Source: Suhr et al. 2019, "A Corpus for Reasoning about Natural Language Grounded in Photographs" (NLVR2).
    """

    name = "NLVR"
    kinds, labels, target = ("both", "one", "more", "total"), ("false", "true"), "label"
    POOL = 12  # scenes to choose each sentence's four from
    SENTENCES: ClassVar[dict[str, str]] = {
        "both": "both pictures show {things}",
        "one": "only one picture shows {things}",
        "more": "the left picture has more {things} than the right one",
        "total": "there are {number} {things} in the two pictures together",
    }

    def _render(self, index: np.ndarray) -> list[TaskSample]:
        sentence = index // 2
        layout = lay_out(self.split, (sentence[:, None] * self.POOL + np.arange(self.POOL)).ravel(), self.seed)
        counts = _counts(layout).reshape(len(index), self.POOL, -1)
        chosen = [self._choose(*each) for each in zip(counts, self._numbers(sentence, 6), (index % 2).tolist())]
        rows = np.array([pair for _, _, pair in chosen]).reshape(-1, 2) + np.arange(len(index))[:, None] * self.POOL
        scenes = draw_samples(layout.part(rows.ravel()), self.size)
        return [
            TaskSample((scenes[2 * i], scenes[2 * i + 1]), text, kind, int(index[i] % 2), NLVR)
            for i, (text, kind, _) in enumerate(chosen)
        ]

    def _choose(self, counts: np.ndarray, numbers: np.ndarray, label: int) -> tuple[str, str, tuple[int, int]]:
        """The sentence, its kind, and the two scenes of the pool of which it has this truth; counts are (pool, 24)."""
        kind = self.kinds[int(numbers[0] * len(self.kinds))]
        # A colour or shape that scene 0 has; the next one where the pool holds no pair of pictures for one truth.
        things = np.flatnonzero(counts[0])
        for thing in np.roll(things, -int(numbers[1] * len(things))).tolist():
            left, right = counts[:, None, thing], counts[None, :, thing]
            apart = ~np.eye(len(counts), dtype=bool) & (left + right > 0)
            both = (left > 0) & (right > 0)
            number = 0
            if kind == "both":
                truths = apart & ~both, apart & both
            elif kind == "one":
                neither = ~np.eye(len(counts), dtype=bool) & (left + right == 0)
                truths = (neither if numbers[2] < 0.5 else apart & both), apart & ~both
            elif kind == "more":
                truths = apart & (left < right), apart & (left > right)
            else:
                number = _pick((left + right)[apart], numbers[2])
                truths = apart & (left + right != number), apart & (left + right == number)
            if all(truth.any() for truth in truths):
                break
        else:
            kind, truths = "more", (left < right, left > right)
        pair = _pick(np.argwhere(truths[label]), numbers[3 + label])
        text = self.SENTENCES[kind].format(things=plural((*COLOURS, *SHAPES)[thing]), number=number)
        return text, kind, tuple(pair.tolist())


class Referring(Task):
    """Which region does an expression mean? It fits one object of the scene and no other; the label is its number.

    ``attributes`` names a colour and a shape that no other object has together; ``place`` a row and a column;
    ``relation`` one of several alike by how it stands to another object, where a scene has such, or else attributes.
    In a batch ``referred_box`` is its box, for systems that point with boxes.

    Source: Kazemzadeh et al. 2014 (ReferItGame); Yu et al. 2016 (RefCOCO).
    """

    name = "Referring"
    kinds, labels, target = ("attributes", "place", "relation"), (), "referred"

    def _render(self, index: np.ndarray) -> list[TaskSample]:
        scenes = self.scenes.__getitems__(index.tolist())
        return [self._refer(scene, row) for scene, row in zip(scenes, self._numbers(index, 2))]

    def _refer(self, scene: SceneSample, numbers: np.ndarray) -> TaskSample:
        names = [f"{item.colour} {item.shape}" for item in scene.objects]
        single = [i for i, name in enumerate(names) if names.count(name) == 1]
        kind = self.kinds[int(numbers[0] * len(self.kinds))]
        if kind == "place":
            referred = int(numbers[1] * len(names))
            phrase = f"the object {place(scene.objects[referred].cell)}"
            return TaskSample((scene,), phrase, kind, referred, Referring)
        said = [(names[i], predicate, j) for i, predicate, j in scene.graph]
        relations = [
            (i, f"the {names[i]} {predicate} the {names[j]}")
            for i, predicate, j in scene.graph
            if i not in single and j in single and said.count((names[i], predicate, j)) == 1
        ]
        if kind == "attributes" or not relations:
            kind, relations = "attributes", [(i, f"the {names[i]}") for i in single]
        referred, phrase = relations[int(numbers[1] * len(relations))]
        return TaskSample((scene,), phrase, kind, referred, Referring)


class Entailment(Task):
    """Does a picture entail a sentence, contradict it, or leave it open? Samples 3j to 3j + 2 share sentence j.

    Four cells of each picture are covered in grey, two with an object under the cover and two without. The sentence is
    about a thing at a place: it is neutral where that place is covered. Covered objects are in no list, no mask and no
    region of the sample's picture. So the text alone is at chance, and so is the picture alone.

    Source: Xie et al. 2019, "Visual Entailment: A Novel Task for Fine-Grained Image Understanding" (SNLI-VE).
    """

    name = "Entailment"
    kinds, labels = ("colour", "shape", "texture"), ("entailment", "neutral", "contradiction")
    target = "label"
    POOL = 12  # scenes to choose each sentence's three from

    def _render(self, index: np.ndarray) -> list[TaskSample]:
        sentence = index // len(self.labels)
        layout = lay_out(self.split, (sentence[:, None] * self.POOL + np.arange(self.POOL)).ravel(), self.seed)
        first = np.arange(len(index)) * self.POOL
        numbers = self._numbers(sentence, 3)
        chosen = [
            self._choose(layout, *each) for each in zip(first.tolist(), numbers, (index % len(self.labels)).tolist())
        ]
        part = layout.part(np.array([row for _, _, row, _ in chosen], int))
        order = self._numbers(index, 2 * GRID**2).reshape(-1, 2, GRID**2)
        part, covered = _cover(part, np.array([cell for *_, cell in chosen], int), index % len(self.labels) == 1, order)
        scenes = draw_samples(part, self.size, covered)
        return [
            TaskSample((scene,), text, kind, label, Entailment)
            for scene, (text, kind, _, _), label in zip(scenes, chosen, (index % len(self.labels)).tolist())
        ]

    def _choose(self, layout: Layout, first: int, numbers: np.ndarray, label: int) -> tuple[str, str, int, int]:
        """The sentence, its kind, the scene of the layout that gives it this label, and the cell it speaks of."""
        pool = np.arange(first, first + self.POOL)
        cell = layout.cell[pool, 2:]  # the caption's two objects are never covered, nor spoken of
        there = np.arange(2, cell.shape[1] + 2) < layout.count[pool, None]
        cases = [(kind, k) for kind in self.kinds for k in np.flatnonzero(there[0]).tolist()]
        start = int(numbers[0] * len(cases))
        for kind, k in cases[start:] + cases[:start]:
            values = getattr(layout, kind)[pool, 2:]
            at = there & (cell == cell[0, k])
            same, other = (at & (values == values[0, k])).any(1), (at & (values != values[0, k])).any(1)
            other_scenes = np.flatnonzero(other[1:]) + 1, np.flatnonzero((same | other)[1:]) + 1
            if all(len(scenes) for scenes in other_scenes):
                break
        contradicting, neutral = (_pick(scenes, number) for scenes, number in zip(other_scenes, numbers[1:]))
        value = {"colour": COLOURS, "shape": SHAPES, "texture": TEXTURES}[kind][values[0, k]]
        article = ("an " if value[0] in "aeiou" else "a ") if kind == "shape" else ""
        text = f"the object {place(int(cell[0, k]))} is {article}{value}"
        return text, kind, first + int((0, neutral, contradicting)[label]), int(cell[0, k])


def _counts(layout: Layout) -> np.ndarray:
    """How many objects of each colour and then of each shape there are, (n, 24)."""
    there = np.arange(layout.cell.shape[1]) < layout.count[:, None]
    values = (layout.colour, len(COLOURS)), (layout.shape, len(SHAPES))
    return np.concatenate([((v[..., None] == np.arange(n)) & there[..., None]).sum(1) for v, n in values], 1)


def _pick(values: np.ndarray, number: np.floating) -> Any:
    return values[int(number * len(values))]


def _cover(layout: Layout, cell: np.ndarray, hide: np.ndarray, order: np.ndarray) -> tuple[Layout, np.ndarray]:
    """The layout without two objects that the caption does not name, and which four cells, (n, 16), are covered.

    ``cell`` (n,) is among them where ``hide`` says so, and not where it does not.
    """
    n, k = layout.cell.shape
    rows = np.arange(n)[:, None]
    number = np.arange(k)
    free = (number >= 2) & (number < layout.count[:, None])
    chance = order[:, 0, :k] + 1
    chance = np.where(layout.cell == cell[:, None], np.where(hide, 0, 3)[:, None], chance)  # first, or last
    hidden = np.where(free, chance, 4).argsort(1)[:, :2]
    occupied = np.zeros((n, GRID**2), bool)
    i, j = np.nonzero(number < layout.count[:, None])
    occupied[i, layout.cell[i, j]] = True
    empty = np.where(occupied, 2, order[:, 1]).argsort(1)[:, :2]
    covered = np.zeros((n, GRID**2), bool)
    covered[rows, layout.cell[rows, hidden]] = True
    covered[rows, empty] = True
    gone = np.zeros((n, k), bool)
    gone[rows, hidden] = True
    kept = gone.argsort(1, kind="stable")
    names = ("colour", "shape", "size", "texture", "cell", "jitter")
    parts = {name: getattr(layout, name)[rows, kept] for name in names}
    return replace(layout, **parts, count=layout.count - 2), covered
