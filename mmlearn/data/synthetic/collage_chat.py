"""Questions in plain English about collages, and their answers, for a language model that others trained.

There are eight kinds: what is there, whether a thing is there, which colour, how many, of which kind, where, what is
beside it, and a caption. Each is worded in several ways, of which the last is held out from training.
"""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mmlearn.data.feature_cache import cached_features
from mmlearn.data.synthetic.collage_words import article, describe, relation
from mmlearn.data.synthetic.collages import CollageSample, draw, lay_out
from mmlearn.data.synthetic.cutouts import NOUNS, PAPERS, PLURALS

WORDINGS = {
    "name": ("What is this?", "What does the picture show?", "What can you see?", "Name what is there."),
    "exist": ("Is there {} in the picture?", "Can you see {}?", "Does the picture show {}?"),
    "colour": ("What colour is the {}?", "Which colour does the {} have?", "Tell me the colour of the {}."),
    "count": ("How many things are there?", "How many objects can you see?", "Count the things."),
    "kind": ("What kind of thing is it?", "What type of object is this?", "To which group does it belong?"),
    "where": ("Where is the {}?", "In which corner is the {}?", "Tell me where the {} is."),
    "relation": ("What is {} the {}?", "Which thing is {} the {}?", "Name the thing {} the {}."),
    "describe": ("Describe the picture.", "Write a caption.", "Give a short description."),
}
KINDS = dict.fromkeys(NOUNS[:20], "animal") | dict.fromkeys(NOUNS[20:34], "food")
KINDS |= dict.fromkeys(NOUNS[34:42], "vehicle") | dict.fromkeys(NOUNS[42:47], "musical instrument")
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight")


class Asked(NamedTuple):
    """A question of one of the ``WORDINGS``, and its answer."""

    kind: str
    question: str
    answer: str


def with_article(name: str) -> str:
    """``an apple``."""
    return f"{article(name)} {name}"


def listed(things: Sequence[Any]) -> str:
    """Each name once, row by row from the upper left: "a cat, two dogs and a red car"."""
    ordered = sorted(things, key=lambda thing: (thing.centre[1] > 0.5, thing.centre[0]))
    names = [thing.name for thing in ordered]
    phrases = []
    for name in dict.fromkeys(names):
        noun = name.split()[-1]
        count = names.count(name)
        several = f"{NUMBERS[count]} {name.removesuffix(noun)}{PLURALS[noun]}"
        phrases.append(with_article(name) if count == 1 else several)
    return phrases[0] if len(phrases) == 1 else f"{', '.join(phrases[:-1])} and {phrases[-1]}"


def corner(thing: Any) -> str:
    """In which quarter of the picture a thing has its centre: ``top left``."""
    x, y = thing.centre
    return f"{'top' if y < 0.5 else 'bottom'} {'left' if x < 0.5 else 'right'}"


def ask_about(things: Sequence[Any], rng: np.random.Generator, kind: str = "", *, held_out: bool = False) -> Asked:
    """A question that these things allow, of this ``kind`` or of any; with ``held_out`` in its last wording.

    ``ValueError`` for a kind that they do not allow: the colour where nothing is dyed, where something is and what is
    beside it where there is one thing, its kind where there are several.
    """
    possible = kinds_for(things)
    if kind and kind not in possible:
        raise ValueError(f"Nothing can be asked of kind {kind!r} here; there are {', '.join(dict.fromkeys(possible))}.")
    kind = kind or str(rng.choice(possible))
    known = WORDINGS[kind]
    wording = known[-1] if held_out else known[rng.integers(len(known) - 1)]
    question, answer = _filled(kind, wording, things, rng)
    return Asked(kind, question, f"{answer[0].upper()}{answer[1:]}.")


def ask_each(pictures: Sequence[tuple[Sequence[Any], int]], kind: str, seed: int = 0) -> list[Asked]:
    """A question of one ``kind`` about each of the pictures that :func:`compose` made: for a seed always the same."""
    rng = np.random.default_rng(seed)
    return [ask_about(things, rng, kind) for things, _ in pictures]


def nouns_in(text: str) -> list[str]:
    """Which of the ``NOUNS`` a text has, one or several of each."""
    return [noun for noun in NOUNS if re.search(rf"\b({noun}|{PLURALS[noun]})\b", text.lower())]


def fits(asked: Asked, text: str, things: Sequence[Any]) -> bool:
    """Whether an answer is right.

    To *what is this?* about a single thing it has its noun, no other of the ``NOUNS``, and no *and*; to any other
    question it is right word for word.
    """
    if asked.kind == "name" and len(things) == 1:
        return nouns_in(text) == [things[0].noun] and " and " not in text
    return text.lower() == asked.answer.lower()


def kinds_for(things: Sequence[Any]) -> list[str]:
    """The kinds of questions that have one answer about these things; what is named is asked for twice as often."""
    single, once = len(things) == 1, _once(things)
    kinds = ["name", "name", "exist", "describe"]
    kinds += ["kind"] * (single and things[0].noun in KINDS) + ["count"] * (not single)
    kinds += ["where"] * bool(once and not single) + ["relation"] * bool(_related(things))
    return kinds + ["colour"] * any(thing.colour for thing in once)


def _once(things: Sequence[Any]) -> list[Any]:
    """The things whose noun no other has."""
    nouns = [thing.noun for thing in things]
    return [thing for thing in things if nouns.count(thing.noun) == 1]


def _related(things: Sequence[Any]) -> list[tuple[Any, str, Any]]:
    """(thing, how it stands, other) where it is the only one that stands so to the other."""
    found = []
    for other in _once(things):
        others = [thing for thing in things if thing is not other]
        stand = [relation(thing, other) for thing in others]
        found += [(thing, how, other) for thing, how in zip(others, stand) if stand.count(how) == 1]
    return found


def _filled(kind: str, wording: str, things: Sequence[Any], rng: np.random.Generator) -> tuple[str, str]:
    """The question in this wording, and its answer."""
    nouns = [thing.noun for thing in things]
    if kind == "name":
        return wording, listed(things)
    if kind == "describe":
        return wording, describe(things, rng)[0]
    if kind == "count":
        return wording, NUMBERS[len(things)]
    if kind == "kind":
        return wording, with_article(KINDS[nouns[0]])
    if kind == "exist":
        there = rng.random() < 0.5
        noun = str(rng.choice(nouns if there else [noun for noun in NOUNS if noun not in nouns]))
        return wording.format(with_article(noun)), "yes" if there else "no"
    if kind == "relation":
        related = _related(things)
        thing, how, other = related[rng.integers(len(related))]
        return wording.format(how, other.noun), with_article(thing.name)
    fitting = [thing for thing in _once(things) if thing.colour or kind == "where"]
    thing = fitting[rng.integers(len(fitting))]
    return wording.format(thing.noun), f"at the {corner(thing)}" if kind == "where" else thing.colour


def compose(
    styles: Sequence[str], count: int, seed: int, fewest: int = 1, most: int = 4
) -> list[tuple[tuple[Any, ...], int]]:
    """Pictures of ``fewest`` to ``most`` things of these styles: of each its things and its paper, for ``draw``."""
    rng = np.random.default_rng(seed)
    return [(lay_out(rng, styles, fewest, most), int(rng.integers(PAPERS))) for _ in range(count)]


def seen_by(
    tower: nn.Module, pictures: Sequence[tuple[Sequence[Any], int]], size: int = 256
) -> Float[Tensor, "n p width"]:
    """What a frozen tower sees in these pictures; kept on disk, where the same were asked for before."""

    @torch.no_grad()
    def compute() -> dict[str, Tensor]:
        chunks = [tower(draw(pictures[k : k + 32], size)).half() for k in range(0, len(pictures), 32)]
        return {"fields": torch.cat(chunks)}

    content = repr([*pictures, size, tower]), *tower.parameters(), *tower.buffers()
    return cached_features(compute, "fields of collages", *content)["fields"].float()


def boxes_of(things: Sequence[Any], noun: str) -> list[tuple[float, float, float, float]]:
    """Left, top, right and bottom edge of every thing of a noun, as shares of the picture."""
    boxes = CollageSample(256, tuple(things), "", (), 0, 0).boxes / 256
    return [tuple(box.tolist()) for box, thing in zip(boxes, things) if thing.noun == noun]


def patches_touched(boxes: Sequence[tuple[float, float, float, float]], side: int = 4) -> Bool[Tensor, "p"]:
    """Which of side × side patches, row by row, any of these boxes overlaps by more than a fiftieth of the picture."""
    low, touched = torch.arange(side) / side, torch.zeros(side, side, dtype=torch.bool)
    for left, top, right, bottom in boxes:
        columns, rows = ((low + 1 / side > a + 0.02) & (low < b - 0.02) for a, b in ((left, right), (top, bottom)))
        touched |= rows[:, None] & columns
    return touched.flatten()
