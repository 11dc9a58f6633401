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
from mmlearn.data.synthetic import layouts
from mmlearn.data.synthetic.dataset import Rendered
from mmlearn.data.synthetic.layouts import COLOURS, SHAPES, SPLITS, TEXTURES, VALUES, Layout, scene_layout
from mmlearn.data.synthetic.questions import ANSWERS, KINDS, Question, ask, plural, position
from mmlearn.data.synthetic.scenes import SceneSample, draw_samples
from mmlearn.data.tokenizer import Tokenizer

# Splits whose answers have a prior → the split of their pictures.
WITH_PRIOR = {"skewed": "train", "skewed-test": "test", "changed-prior": "test"}


@dataclass(frozen=True)
class TaskSample:
    """A text about one or two scenes, what kind of text it is, and the number of the right answer."""

    images: tuple[SceneSample, ...]
    text: str
    kind: str
    label: int
    task: "type[Task]"
    chain: tuple[int, ...] = ()  # of HopQuestions: the cells to look at, from what is named to what answers


@dataclass(frozen=True)
class Images(Field):
    """What ``fields`` make of a task's pictures; of tasks about two, with an axis of two behind the first.

    With ``blind`` no picture is shown: ``image`` and ``regions`` are 0, every box is the whole picture and every class
    as likely as any other. What a model still gets right, it gets from the text. Source: Goyal et al. 2017, "Making the
    V in VQA Matter", section 4, for models that see only the question.
    """

    fields: tuple[Field, ...] = (Image(), Regions())
    blind: bool = False

    def __call__(self, samples: Sequence[Any]) -> Batch:
        images = [image for sample in samples for image in sample.images]
        batch = {name: value for field in self.fields for name, value in field(images).items()}
        if self.blind:
            batch = {name: BLIND[name](value) for name, value in batch.items()}
        if len(images) > len(samples):
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
            boxes = torch.stack([sample.images[0].boxes[sample.label] for sample in samples])
            batch["referred_box"] = (boxes / samples[0].images[0].image.shape[-1]).clamp(0, 1)
        return batch


def task_collate(tokenizer: Tokenizer, fields: Sequence[Field] = Images.fields, *, blind: bool = False) -> Collate:
    """The collation for samples of one task: its pictures by ``fields``, its text, and its target."""
    return Collate((Images(tuple(fields), blind), Tokens(tokenizer, repeats=False, source="text"), Target()))


class Task(Rendered):
    """What the tasks share: their pictures are scenes of the same split.

    ``kinds`` are the kinds of texts, to be reported apart; ``labels`` the names of what is predicted; ``target`` its
    name in a batch.
    """

    kinds: ClassVar[tuple[str, ...]]
    labels: ClassVar[tuple[str, ...]]
    target: ClassVar[str]
    splits: ClassVar[tuple[str, ...]] = SPLITS

    def __init__(self, split: str = "train", *, size: int = 64, **options: Any):
        super().__init__(split, size=size, **options)
        self.shown = WITH_PRIOR.get(split, split)  # the split of the scenes

    def _layout(self, index: np.ndarray) -> Layout:
        return scene_layout(self.shown, index, self.seed)

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
        **{"exist": ("yes",), "relation": ("no",), "count": ("1", "2", "3"), "size": ("small",)},
        **{"texture": TEXTURES[:1], "colour": COLOURS[::2], "shape": SHAPES[::2]},
    }
    TRIES = 24  # questions drawn to find one with a favoured answer, or one without

    def _make(self, index: np.ndarray) -> list[TaskSample]:
        scenes = draw_samples(self._layout(index), self.size)
        questions = [scene.question for scene in scenes]
        if self.split in WITH_PRIOR:
            numbers = self._numbers(index, 2 + self.TRIES)
            questions = [self._skewed(scene, row) for scene, row in zip(scenes, numbers)]
        return [
            TaskSample((scene,), text, kind, ANSWERS.index(answer), VQA)
            for scene, (kind, text, answer) in zip(scenes, questions)
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
    ``images`` are (left, right); in a batch ``image``, ``regions`` and their company have an axis of 2 behind b.

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

    def _make(self, index: np.ndarray) -> list[TaskSample]:
        sentence, label = index // 2, (index % 2).tolist()
        layout = self._layout((sentence[:, None] * self.POOL + np.arange(self.POOL)).ravel())
        counts = _counts(layout).reshape(len(index), self.POOL, -1)
        chosen = [self._choose(*each) for each in zip(counts, self._numbers(sentence, 6), label)]
        rows = np.array([pair for _, _, pair in chosen]).reshape(-1, 2) + np.arange(len(index))[:, None] * self.POOL
        scenes = draw_samples(layout.part(rows.ravel()), self.size)
        return [
            TaskSample((scenes[2 * i], scenes[2 * i + 1]), text, kind, label[i], NLVR)
            for i, (text, kind, _) in enumerate(chosen)
        ]

    def _choose(self, counts: np.ndarray, numbers: np.ndarray, label: int) -> tuple[str, str, tuple[int, int]]:
        """The sentence, its kind, and the two scenes of the pool of which it has this truth; counts are (pool, 24)."""
        kind, apart = self.kinds[int(numbers[0] * len(self.kinds))], ~np.eye(len(counts), dtype=bool)
        # A colour or shape that scene 0 has; the next one where the pool holds no pair of pictures for one truth.
        things = np.flatnonzero(counts[0])
        for thing in np.roll(things, -int(numbers[1] * len(things))).tolist():
            left, right = counts[:, None, thing], counts[None, :, thing]
            both, neither = (left > 0) & (right > 0), left + right == 0
            number = _pick((left + right)[apart & ~neither], numbers[2])
            truths = {  # where it is false, and where it is true
                "both": (~both & ~neither, both),
                "one": (neither if numbers[2] < 0.5 else both, ~both & ~neither),
                "more": (left < right, left > right),
                "total": (~neither & (left + right != number), left + right == number),
            }
            if all((truth & apart).any() for truth in truths[kind]):
                break
        else:
            kind = "more"
        pair = _pick(np.argwhere(truths[kind][label] & apart), numbers[3 + label])
        text = self.SENTENCES[kind].format(things=plural((*COLOURS, *SHAPES)[thing]), number=number)
        return text, kind, tuple(pair.tolist())


class Referring(Task):
    """Which region does an expression mean? It fits one object of the scene and no other; the label is its number.

    ``attributes`` names a colour and a shape that no other object has together; ``position`` a row and a column;
    ``relation`` one of several alike by how it stands to another object, where a scene has such, or else attributes.
    In a batch ``referred_box`` is its box, for systems that point with boxes.

    Source: Kazemzadeh et al. 2014 (ReferItGame); Yu et al. 2016 (RefCOCO).
    """

    name = "Referring"
    kinds, labels, target = ("attributes", "place", "relation"), (), "referred"

    def _make(self, index: np.ndarray) -> list[TaskSample]:
        scenes = draw_samples(self._layout(index), self.size)
        return [self._refer(scene, row) for scene, row in zip(scenes, self._numbers(index, 2))]

    def _refer(self, scene: SceneSample, numbers: np.ndarray) -> TaskSample:
        names = [f"{item.colour} {item.shape}" for item in scene.objects]
        single = [i for i, name in enumerate(names) if names.count(name) == 1]
        kind = self.kinds[int(numbers[0] * len(self.kinds))]
        said = [(names[i], predicate, j) for i, predicate, j in scene.graph]
        phrases = {
            "attributes": [(i, f"the {names[i]}") for i in single],
            "place": [(i, f"the object {position(item.cell)}") for i, item in enumerate(scene.objects)],
            "relation": [
                (i, f"the {names[i]} {predicate} the {names[j]}")
                for i, predicate, j in scene.graph
                if i not in single and j in single and said.count((names[i], predicate, j)) == 1
            ],
        }
        kind = kind if phrases[kind] else "attributes"
        referred, phrase = phrases[kind][int(numbers[1] * len(phrases[kind]))]
        return TaskSample((scene,), phrase, kind, referred, Referring)


class Entailment(Task):
    """Does a picture entail a sentence, contradict it, or leave it open? Samples 3j to 3j + 2 share sentence j.

    Their picture is scene j, but for the object that the sentence is about: its colour, shape or texture is drawn anew,
    and is what the sentence says, or not. Four cells of each picture are covered in grey, two with an object under the
    cover and two without; where the sentence is neutral, its object is under one. Covered objects are in no list, no
    mask and no region of the sample's picture. So the text alone is at chance, and so is the picture alone.

    Source: Xie et al. 2019, "Visual Entailment: A Novel Task for Fine-Grained Image Understanding" (SNLI-VE).
    """

    name = "Entailment"
    kinds, labels = ("colour", "shape", "texture"), ("entailment", "neutral", "contradiction")
    target = "label"

    def _make(self, index: np.ndarray) -> list[TaskSample]:
        (sentence, label), (entailed, neutral, _) = np.divmod(index, len(self.labels)), range(3)
        layout, numbers = self._layout(sentence), self._numbers(sentence, 3 + len(COLOURS))
        k = 2 + (numbers[:, 0] * (layout.count - 2)).astype(int)  # the caption's two objects are not spoken of
        values, texts = {kind: getattr(layout, kind).copy() for kind in self.kinds}, []
        for i, (at, row) in enumerate(zip(k.tolist(), numbers)):
            kind, cell = self.kinds[int(row[1] * len(self.kinds))], int(layout.cell[i, at])
            said, other = _two_values(layout, i, at, kind, row[3:])
            word = VALUES[kind][said]
            article = ("an " if word[0] in "aeiou" else "a ") if kind == "shape" else ""
            texts.append((f"the object {position(cell)} is {article}{word}", kind))
            right = label[i] == entailed or (label[i] == neutral and row[2] < 0.5)
            values[kind][i, at] = said if right else other
        layout, covered = self._cover(replace(layout, **values), k, label == neutral, index)
        scenes = draw_samples(layout, self.size, covered)
        return [TaskSample((s,), *text, int(number), Entailment) for s, text, number in zip(scenes, texts, label)]

    def _cover(self, layout: Layout, k: np.ndarray, hide: np.ndarray, index: np.ndarray) -> tuple[Layout, np.ndarray]:
        """The layout without two objects that the caption does not name, and which four cells, (n, 16), are covered.

        Object ``k`` (n,) is among them where ``hide`` says so, and not where it does not.
        """
        (n, objects), cells = layout.cell.shape, layout.grid**2
        rows, number = np.arange(n)[:, None], np.arange(objects)
        order = self._numbers(index, objects + cells)
        there = number < layout.count[:, None]
        chance = np.where(number == k[:, None], np.where(hide, 2, -1)[:, None], order[:, :objects])
        hidden = np.where(there & (number >= 2), chance, -2).argsort(1)[:, -2:]
        occupied = np.zeros((n, cells), bool)
        np.put_along_axis(occupied, layout.cell, there, 1)
        empty = np.where(occupied, -1, order[:, objects:]).argsort(1)[:, -2:]
        covered = np.zeros((n, cells), bool)
        covered[rows, np.concatenate([layout.cell[rows, hidden], empty], 1)] = True
        gone = (number[:, None] == hidden[:, None]).any(2)
        kept = gone.argsort(1, kind="stable")
        return replace(layout.objects(kept), count=layout.count - 2), covered


def _two_values(layout: Layout, i: int, k: int, kind: str, chance: np.ndarray) -> np.ndarray:
    """Two that object k of scene i may have, by random numbers: neither held out, nor those of what is mentioned."""
    chance, other = chance[: len(VALUES[kind])].copy(), {"colour": "shape", "shape": "colour"}.get(kind)
    if other:
        own, those = getattr(layout, other)[i, k], getattr(layout, other)[i, :2]
        unseen = (layouts.UNSEEN_COLOUR if kind == "colour" else layouts.UNSEEN_SHAPE)[own]
        chance[[unseen, *getattr(layout, kind)[i, :2][those == own]]] = -1
    return chance.argsort()[:-3:-1]


def _counts(layout: Layout) -> np.ndarray:
    """How many objects of each colour and then of each shape there are, (n, 24)."""
    there = np.arange(layout.cell.shape[1]) < layout.count[:, None]
    values = (layout.colour, len(COLOURS)), (layout.shape, len(SHAPES))
    return np.concatenate([((v[..., None] == np.arange(n)) & there[..., None]).sum(1) for v, n in values], 1)


def _pick(values: np.ndarray, number: np.floating) -> Any:
    return values[int(number * len(values))]


# Questions that need one, two or three looks.

HOP_GRID = 3  # rows and columns
PALETTE, FIGURES = COLOURS[:10:2], SHAPES[: HOP_GRID**2]
PAIRED = np.array([0, 0, 1, 1, 2, 2, 3, 3, 4])  # which colour each thing has; 2j and 2j + 1 are twins
BESIDE = [(cell, cell - 1) for cell in range(HOP_GRID**2) if cell % HOP_GRID]  # a cell, and the one to its left
FORMS = {
    "1 hop": "what colour is the {}?",
    "2 hops, side": "what shape is left of the {}?",
    "2 hops, colour": "what shape has the colour of the {}?",
    "3 hops": "what shape has the colour of what is left of the {}?",
}


class HopQuestions(Task):
    """Questions of ``kinds`` that need one, two or three looks: each finds the thing from which the next one starts.

    Nine things, one of each shape, fill a 3 × 3 grid; of their five colours eight things share theirs with one other,
    their twin. The question alone says nothing about its answer, and neither does the picture alone. In ``skewed`` and
    ``skewed-test`` nine of ten questions of one look are answered by the colour that their shape favours, as bananas
    are yellow; in ``changed-prior`` by the next colour.

    Source: Yang et al. 2016, "Stacked Attention Networks for Image Question Answering", figure 1, for questions that
    need several looks; Johnson et al. 2017 (CLEVR), section 3, for chains of relations; Agrawal et al. 2018 (VQA-CP).
    """

    name = "HopQuestions"
    kinds, labels, target = tuple(FORMS), (*PALETTE, *FIGURES), "answer"
    splits = ("train", "val", "test", *WITH_PRIOR)

    def _make(self, index: np.ndarray) -> list[TaskSample]:
        things = HOP_GRID**2
        numbers = uniform(stream("hop questions", self.split, self.seed), index, 2 * things + len(PALETTE) + 5)
        where, what, colours, rest = np.split(numbers, [things, 2 * things, -5], axis=1)
        cell, shape, colour = where.argsort(1), what.argsort(1), colours.argsort(1)[:, PAIRED]
        asked = [self._ask(*row) for row in zip(cell, shape, colour, rest)]  # which may exchange two colours
        layout = layouts.on_another_grid(scene_layout(self.shown, index, self.seed, things), cell, HOP_GRID, rest[:, 4])
        layout = replace(layout, colour=2 * colour, shape=shape)
        return [
            TaskSample((scene,), text, kind, self.labels.index(answer), HopQuestions, chain)
            for scene, (text, kind, answer, chain) in zip(draw_samples(layout, self.size), asked)
        ]

    def _ask(
        self, cell: np.ndarray, shape: np.ndarray, colour: np.ndarray, numbers: np.ndarray
    ) -> tuple[str, str, str, tuple[int, ...]]:
        """Text, kind, answer and chain of a question about one scene; ``colour`` is changed where the split says so."""
        thing = cell.argsort().tolist()  # thing[c] is what stands in cell c
        name = self.kinds[int(numbers[0] * len(FORMS))]
        chains = [(at,) for at in range(HOP_GRID**2)] if name in ("1 hop", "2 hops, colour") else list(BESIDE)
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
