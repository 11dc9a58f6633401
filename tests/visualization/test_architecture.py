"""Diagrams: each name is drawn once, nothing overlaps, arrows lead to the right, what cannot be drawn is refused."""

import random
import re
import xml.etree.ElementTree as ElementTree
from itertools import combinations, pairwise

import pytest

from mmlearn.recipes.discovery import find_recipe, system_files
from mmlearn.visualization.architecture import draw_architecture

SVG = "{http://www.w3.org/2000/svg}"
TWO_TOWERS = """
image -> *ViT [frozen] -> u -> !loss
text -> BERT -> v -> !loss
BERT ~> momentum encoder
BERT == v
"""


def boxes(svg):
    """Name → (left, top, right, bottom, kind)."""
    found = {}
    for group in ElementTree.fromstring(svg).iter(f"{SVG}g"):
        rect = group.find(f"{SVG}rect")
        x, y, width, height = (float(rect.get(name)) for name in ("x", "y", "width", "height"))
        assert group.find(f"{SVG}text").text not in found
        found[group.find(f"{SVG}text").text] = (x, y, x + width, y + height, group.get("class"))
    return found


def assert_well_drawn(text):
    svg = draw_architecture(text)
    found, root = boxes(svg), ElementTree.fromstring(svg)
    width, height = float(root.get("width")), float(root.get("height"))
    for left, top, right, bottom, _ in found.values():
        assert min(left, top, width - right, height - bottom) >= 0
    for (a, one), (b, other) in combinations(found.items(), 2):
        apart = one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]
        assert apart, f"{a} overlaps {b}"
    return found


@pytest.mark.parametrize("name", list(system_files()))
def test_every_system_is_well_drawn(name):
    architecture = find_recipe(name).architecture
    found = assert_well_drawn(architecture)
    assert any(kind == "loss" for *_, kind in found.values())
    for line in filter(None, map(str.strip, architecture.splitlines())):
        names = [
            re.sub(r"\s*\[.*\]", "", part).lstrip("!*")
            for part in re.split(r"\s*(?:->|~>)\s*", line)
            if "==" not in line
        ]
        for one, other in pairwise(names):
            assert found[one][2] < found[other][0], f"{one} stands left of {other}"


def test_kinds_notes_and_lines():
    svg = draw_architecture(TWO_TOWERS, "two towers")
    kinds = {name: kind for name, (*_, kind) in boxes(svg).items()}
    assert kinds == {
        "image": "input", "ViT": "frozen", "u": "", "loss": "loss", "text": "input", "BERT": "", "v": "",
        "momentum encoder": "",
    }  # fmt: skip
    assert ">frozen</text>" in svg
    assert 'aria-label="two towers"' in svg
    assert svg.count('<path class=""') == 6
    assert svg.count('class="slow"') == svg.count('class="shared"') == 1


def test_names_are_text():
    assert "<script" not in draw_architecture("a<script> -> b & c", '"><script>')
    assert set(boxes(draw_architecture("a<b -> c&d"))) == {"a<b", "c&d"}


@pytest.mark.parametrize(
    ("text", "says"),
    [("image", "arrows between them"), ("image ->", "arrows"), ("a -> b -> a", "circle"), ("a -> a", "circle")],
)
def test_what_cannot_be_drawn_is_refused(text, says):
    with pytest.raises(ValueError, match=says):
        draw_architecture(text)


@pytest.mark.parametrize("seed", range(40))
def test_any_diagram_without_a_circle_is_well_drawn(seed):
    draw = random.Random(seed)
    pairs = [(draw.randrange(10), draw.randrange(1, 10)) for _ in range(draw.randrange(1, 25))]
    assert_well_drawn("\n".join(f"part {one} -> part {one + step}" for one, step in pairs))
