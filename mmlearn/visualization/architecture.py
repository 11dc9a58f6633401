"""Architecture diagrams from a few lines of text, so that all systems are drawn alike.

A line is a chain of boxes: ``image -> ViT -> u``. A name that stands in several lines is one box. Words in brackets are
a note below a name: ``u [class token]``. What begins with ``!`` is a loss, with ``*`` a frozen part. ``~>`` leads to a
copy that follows slowly, as a momentum encoder does; ``a == b`` says that both share their weights.
"""

import re
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import mean

from mmlearn.escaping import in_html

LETTER, LINE, PADDING = 7.7, 17, 10  # pixels: of a letter, of a line of text, around it
COLUMN_GAP, ROW_GAP = 46, 16  # pixels between boxes
ROUNDS = 8  # of moving boxes towards their neighbours
ARROW = re.compile(r"\s*(->|~>|==)\s*")
STYLE = """
text { font: 13px system-ui, sans-serif; fill: #1f2430; } .note { font-size: 11px; fill: #5b6270; }
rect { fill: #eef2fb; stroke: #5b76b5; rx: 6px; } .input rect { fill: #fff; stroke: #8a8f9c; }
.loss rect { fill: #fdeee6; stroke: #d2691e; } .frozen rect { fill: #e9f4f6; stroke: #2f8c9c; stroke-dasharray: 2 3; }
path { fill: none; stroke: #5b6270; stroke-width: 1.4; marker-end: url(#head); }
.slow { stroke-dasharray: 6 4; } .shared { stroke: #5b76b5; stroke-dasharray: 1 4; stroke-width: 2; marker-end: none; }
"""
HEAD = (
    '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
    '<path d="M0 0 L8 4 L0 8 z" style="fill:#5b6270;stroke:none;marker-end:none"/></marker></defs>'
)


@dataclass(eq=False)
class Box:
    """A part of a system, or, without a name, a position through which a long arrow passes."""

    name: str
    note: str = ""
    kind: str = ""
    column: int = 0
    x: float = 0.0
    y: float = 0.0  # of its middle
    before: list["Box"] = field(default_factory=list)
    after: list["Box"] = field(default_factory=list)

    @property
    def width(self) -> float:
        return max(len(self.name) * LETTER, len(self.note) * LETTER * 0.86) + 2 * PADDING if self.name else 0.0

    @property
    def height(self) -> float:
        return (LINE * (2 if self.note else 1) + 2 * PADDING - 6) if self.name else 4.0


def draw_architecture(text: str, title: str = "") -> str:
    """The diagram that ``text`` describes, as SVG. Raises ``ValueError`` for a line without an arrow, or a circle."""
    boxes, arrows = _read(text)
    _position_in_columns(boxes, arrows)
    paths = [(kind, _through_columns(boxes, one, other)) for kind, one, other in arrows if kind != "=="]
    _position_in_rows(boxes)
    width = max(box.x + box.width for box in boxes.values()) + PADDING
    height = max(box.y + box.height / 2 for box in boxes.values()) + PADDING
    drawn = [_arrow(kind, path) for kind, path in paths]
    drawn += [_shared(one, other) for kind, one, other in arrows if kind == "=="]
    drawn += [_box(box) for box in boxes.values() if box.name]
    label = in_html(title or "diagram")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" '
        f'height="{height:.0f}" role="img" aria-label="{label}"><style>{STYLE}</style>{HEAD}'
        f'<rect width="100%" height="100%" style="fill:#fff;stroke:none"/>{"".join(drawn)}</svg>\n'
    )


def _read(text: str) -> tuple[dict[str, Box], list[tuple[str, Box, Box]]]:
    """The boxes by name, and (kind, from, to) of each arrow."""
    boxes: dict[str, Box] = {}
    arrows = []
    for line in filter(None, map(str.strip, text.splitlines())):
        parts = ARROW.split(line)
        if len(parts) < 3 or not all(parts):
            raise ValueError(f"A line is boxes with arrows between them, such as 'image -> ViT'; got {line!r}.")
        chain = [_box_named(boxes, part) for part in parts[::2]]
        arrows += zip(parts[1::2], chain, chain[1:])
    targets = {id(other) for kind, _, other in arrows if kind != "=="}
    for box in boxes.values():
        box.kind = box.kind or ("" if id(box) in targets else "input")
    return boxes, list(dict.fromkeys((kind, boxes[one.name], boxes[other.name]) for kind, one, other in arrows))


def _box_named(boxes: dict[str, Box], part: str) -> Box:
    name, note = re.fullmatch(r"(.*?)\s*(?:\[(.*)\])?", part).groups()
    kind = {"!": "loss", "*": "frozen"}.get(name[0], "")
    box = boxes.setdefault(name.lstrip("!*"), Box(name.lstrip("!*")))
    box.note, box.kind = note or box.note, kind or box.kind
    return box


def _position_in_columns(boxes: dict[str, Box], arrows: list[tuple[str, Box, Box]]) -> None:
    """Each box right of all that lead to it."""
    for _ in boxes:
        moved = False
        for kind, one, other in arrows:
            if kind != "==" and other.column <= one.column:
                other.column, moved = one.column + 1, True
        if not moved:
            return
    raise ValueError("The arrows lead in a circle.")


def _through_columns(boxes: dict[str, Box], one: Box, other: Box) -> list[Box]:
    """The boxes along an arrow, with a nameless one in each column that it crosses."""
    path = [one]
    for column in range(one.column + 1, other.column):
        between = Box("", column=column)
        boxes[f"{one.name} to {other.name} at {column}"] = between
        path.append(between)
    path.append(other)
    for left, right in pairwise(path):
        left.after.append(right)
        right.before.append(left)
    return path


def _position_in_rows(boxes: dict[str, Box]) -> None:
    """Boxes near those that they are joined to, in each column one below the other."""
    columns: dict[int, list[Box]] = {}
    for box in boxes.values():
        columns.setdefault(box.column, []).append(box)
    ordered = [columns[number] for number in sorted(columns)]
    left = PADDING
    for column in ordered:
        wide = max(box.width for box in column)
        for box in column:
            box.x = left + (wide - box.width) / 2
        left += wide + COLUMN_GAP
        _apart(column)
    for turn in range(ROUNDS):
        forward = turn % 2 == 0
        for column in ordered if forward else reversed(ordered):
            for box in column:
                if near := box.before if forward else box.after:
                    box.y = mean(each.y for each in near)
            if turn < ROUNDS - 2:
                column.sort(key=lambda box: box.y)
            _apart(column)
    top = min(box.y - box.height / 2 for box in boxes.values())
    for box in boxes.values():
        box.y += PADDING - top


def _apart(column: list[Box]) -> None:
    """Move boxes that overlap apart, around the position where they want to be."""
    wanted = mean(box.y for box in column)
    for above, below in pairwise(column):
        below.y = max(below.y, above.y + (above.height + below.height) / 2 + ROW_GAP)
    shift = wanted - mean(box.y for box in column)
    for box in column:
        box.y += shift


def _arrow(kind: str, path: list[Box]) -> str:
    points = [(path[0].x + path[0].width, path[0].y), *((box.x, box.y) for box in path[1:-1]), (path[-1].x, path[-1].y)]
    drawn = f"M{points[0][0]:.0f} {points[0][1]:.0f}"
    for (x, y), (to_x, to_y) in pairwise(points):
        bend = min((to_x - x) / 2, COLUMN_GAP)
        drawn += f" C{x + bend:.0f} {y:.0f} {to_x - bend:.0f} {to_y:.0f} {to_x:.0f} {to_y:.0f}"
    return f'<path class="{"slow" if kind == "~>" else ""}" d="{drawn}"/>'


def _shared(one: Box, other: Box) -> str:
    above, below = sorted((one, other), key=lambda box: box.y)
    x, to_x = above.x + above.width / 2, below.x + below.width / 2
    return (
        f'<path class="shared" d="M{x:.0f} {above.y + above.height / 2:.0f} '
        f'L{to_x:.0f} {below.y - below.height / 2:.0f}"/>'
    )


def _box(box: Box) -> str:
    middle, top = box.x + box.width / 2, box.y - box.height / 2
    lines = f'<text x="{middle:.0f}" y="{top + LINE + 3:.0f}" text-anchor="middle">{in_html(box.name)}</text>'
    if box.note:
        lines += (
            f'<text class="note" x="{middle:.0f}" y="{top + 2 * LINE + 1:.0f}" text-anchor="middle">'
            f"{in_html(box.note)}</text>"
        )
    return (
        f'<g class="{box.kind}"><rect x="{box.x:.0f}" y="{top:.0f}" width="{box.width:.0f}" '
        f'height="{box.height:.0f}"/>{lines}</g>'
    )
