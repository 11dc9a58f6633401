"""Questions about a scene, and their answers."""

from collections.abc import Sequence
from itertools import product
from typing import Any, NamedTuple

from mmlearn.data.synthetic.drawing import COLOURS, GRID, SHAPES, SIZES, TEXTURES

NUMBERS = ("one", "two", "three", "four", "five", "six", "seven")
TOO_MANY = 10
OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}


class Question(NamedTuple):
    """A question, its kind (one of ``KINDS``) and its answer, one word or a number."""

    kind: str
    text: str
    answer: str


def ask(objects: Sequence[Any], graph: Sequence[Sequence], bits: int, kinds: Sequence[str] = ()) -> Question:
    """The question about a scene's ``objects`` and ``graph`` that ``bits`` picks, of these ``kinds`` or of all.

    Every kind is as likely as any other, and so are yes and no.
    """
    kinds = kinds or tuple(KINDS)
    bits, number = divmod(bits, len(kinds))
    return Question(kinds[number], *KINDS[kinds[number]](objects, graph, bits))


def plural(name: str) -> str:
    """Several things of this shape, or of this colour, size or texture."""
    return f"{name} objects" if name not in SHAPES else f"{name}es" if name.endswith("s") else f"{name}s"


def position(cell: int, grid: int = GRID) -> str:
    """The words for a cell of the grid: row and column."""
    row, column = divmod(cell, grid)
    return f"in row {NUMBERS[row]}, column {NUMBERS[column]}"


def _unmistakable(objects):
    """The objects whose colour and shape no other has."""
    pairs = [(item.colour, item.shape) for item in objects]
    return [i for i, pair in enumerate(pairs) if pairs.count(pair) == 1]


def _exist(objects, graph, bits):
    """Half the questions are about what is not there, though its colour and its shape are."""
    bits, yes = divmod(bits, 2)
    there = [(item.colour, item.shape) for item in objects]
    colours, shapes = zip(*there)
    absent = sorted(set(product(colours, shapes)) - set(there))
    choices = there if yes else absent
    colour, shape = choices[bits % len(choices)]
    article = "an" if colour == "orange" else "a"
    return f"is there {article} {colour} {shape}?", "yes" if yes else "no"


def _count(objects, graph, bits):
    """Of nothing that there are more of than ANSWERS has numbers; of no colour there are."""
    bits, number = divmod(bits, 4)
    attribute = ("colour", "shape", "size", "texture")[number]
    values = [getattr(item, attribute) for item in objects]
    few = [value for value in values if values.count(value) < TOO_MANY] or [item.colour for item in objects]
    value = few[bits % len(few)]
    number = sum(value in (item.colour, item.shape, item.size, item.texture) for item in objects)
    return f"how many {plural(value)} are there?", str(number)


def _attribute(attribute, by_cell=False):
    """Of an object by its colour and its shape, or by where it is."""

    def question(objects, graph, bits):
        choices = range(len(objects)) if by_cell else _unmistakable(objects)
        one = objects[choices[bits % len(choices)]]
        name = f"object {position(one.cell, one.grid)}" if by_cell else f"{one.colour} {one.shape}"
        return f"what {attribute} is the {name}?", getattr(one, attribute)

    return question


def _relation(objects, graph, bits):
    bits, yes = divmod(bits, 2)
    known = _unmistakable(objects)
    edges = [(i, predicate, j) for i, predicate, j in graph if i in known and j in known]
    subject, predicate, other = edges[bits % len(edges)]
    one, two = (f"the {objects[i].colour} {objects[i].shape}" for i in (subject, other))
    return f"is {one} {predicate if yes else OPPOSITE[predicate]} {two}?", "yes" if yes else "no"


KINDS = {
    "exist": _exist,
    "count": _count,
    "size": _attribute("size"),
    "texture": _attribute("texture"),
    "colour": _attribute("colour", by_cell=True),
    "shape": _attribute("shape", by_cell=True),
    "relation": _relation,
}
ANSWERS = ("yes", "no", *map(str, range(TOO_MANY)), *SIZES, *TEXTURES, *COLOURS, *SHAPES)
