"""Questions of one small scene, all of them, with answers written by hand; test_scenes.py checks those of real scenes.

red square (small, solid)   .                          .    .
.                           blue circle (large, dotted) .    blue circle (small, solid)
orange circle (large, solid) .                         .    .
"""

from collections import Counter
from types import SimpleNamespace

import pytest

from mmlearn.data.synthetic.questions import ANSWERS, KINDS, ask, plural

ROWS = [
    ("small", "solid", "red", "square", 0),
    ("large", "dotted", "blue", "circle", 5),
    ("small", "solid", "blue", "circle", 7),
    ("large", "solid", "orange", "circle", 8),
]
OBJECTS = [SimpleNamespace(**dict(zip(("size", "texture", "colour", "shape", "cell"), row)), grid=4) for row in ROWS]
GRAPH = [
    (0, "left of", 1), (0, "above", 1), (0, "left of", 2), (0, "above", 2), (0, "above", 3),
    (1, "right of", 0), (1, "below", 0), (1, "left of", 2), (1, "right of", 3), (1, "above", 3),
    (2, "right of", 0), (2, "below", 0), (2, "right of", 1), (2, "right of", 3), (2, "above", 3),
    (3, "below", 0), (3, "left of", 1), (3, "below", 1), (3, "left of", 2), (3, "below", 2),
]  # fmt: skip
# Of what there are two of, nothing is asked by colour and shape.
ANSWER = {
    "exist": {
        "is there a red square?": "yes",
        "is there a blue circle?": "yes",
        "is there an orange circle?": "yes",
        "is there a red circle?": "no",
        "is there a blue square?": "no",
        "is there an orange square?": "no",
    },
    "count": {
        "how many red objects are there?": "1",
        "how many blue objects are there?": "2",
        "how many orange objects are there?": "1",
        "how many squares are there?": "1",
        "how many circles are there?": "3",
        "how many small objects are there?": "2",
        "how many large objects are there?": "2",
        "how many solid objects are there?": "3",
        "how many dotted objects are there?": "1",
    },
    "size": {"what size is the red square?": "small", "what size is the orange circle?": "large"},
    "texture": {"what texture is the red square?": "solid", "what texture is the orange circle?": "solid"},
    "colour": {
        "what colour is the object in row one, column one?": "red",
        "what colour is the object in row two, column two?": "blue",
        "what colour is the object in row two, column four?": "blue",
        "what colour is the object in row three, column one?": "orange",
    },
    "shape": {
        "what shape is the object in row one, column one?": "square",
        "what shape is the object in row two, column two?": "circle",
        "what shape is the object in row two, column four?": "circle",
        "what shape is the object in row three, column one?": "circle",
    },
    "relation": {
        "is the red square above the orange circle?": "yes",
        "is the red square below the orange circle?": "no",
        "is the orange circle below the red square?": "yes",
        "is the orange circle above the red square?": "no",
    },
}


@pytest.fixture(scope="module")
def asked():
    return [ask(OBJECTS, GRAPH, bits) for bits in range(7 * 2**10)]


def test_every_question_is_asked_and_answered(asked):
    answers = {kind: {} for kind in KINDS}
    for question in asked:
        assert answers[question.kind].setdefault(question.text, question.answer) == question.answer
    assert answers == ANSWER
    assert {answer for kind in ANSWER.values() for answer in kind.values()} <= set(ANSWERS)


def test_kinds_are_as_likely_as_each_other_and_so_are_yes_and_no(asked):
    assert set(Counter(question.kind for question in asked).values()) == {2**10}
    for kind in ("exist", "relation"):
        yes = sum(question.answer == "yes" for question in asked if question.kind == kind)
        assert yes == 2**9


def test_every_object_is_asked_about_as_often(asked):
    counts = Counter(question.text for question in asked if question.kind == "colour")
    assert set(counts.values()) == {2**8}


def test_plurals():
    names = ("star", "cross", "hourglass", "red", "small", "dotted")
    said = ["stars", "crosses", "hourglasses", "red objects", "small objects", "dotted objects"]
    assert [plural(name) for name in names] == said


def test_shapes_that_end_in_s_have_their_plural():
    rows = [("small", "solid", "red", "cross", 0), ("large", "solid", "blue", "cross", 1)]
    objects = [
        SimpleNamespace(**dict(zip(("size", "texture", "colour", "shape", "cell"), row)), grid=4) for row in rows
    ]
    asked = {ask(objects, [(0, "left of", 1)], bits) for bits in range(7 * 8) if bits % 7 == list(KINDS).index("count")}
    assert ("count", "how many crosses are there?", "2") in asked
