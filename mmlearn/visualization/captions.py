"""Captions in figures: their words in colour, a choice between two of them."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from mmlearn.visualization.figures import MUTED, PLAIN, RIGHT, WRONG, frame_image, new_figure, show_image

INKS = ("#d62754", "#146edc", "#108c46", "#8a5a00")  # of words; far apart in brightness as well
NAMED = {"red": "#cf1f1f", "yellow": "#a97800", "green": "#15803d", "blue": "#1d4ed8", "purple": "#7e22ce",
         "pink": "#d6336c"}  # inks of words that are colours  # fmt: skip
WIDE = 30  # letters of a line below a picture


def in_lines(caption: str, words: Sequence[tuple[int, int]], wide: int) -> list[list[tuple[str, int | None]]]:
    """The caption in lines of so many letters: (word, which of the marked words it is in, or None)."""
    lines: list[list[tuple[str, int | None]]] = [[]]
    at = length = 0
    for word in caption.split(" "):
        marked = next((k for k, (start, end) in enumerate(words) if start <= at < end), None)
        if length and length + len(word) > wide:
            lines.append([])
            length = 0
        lines[-1].append((word, marked))
        length, at = length + len(word) + 1, at + len(word) + 1
    return lines


def coloured_caption(
    axis: Any, caption: str, words: Sequence[tuple[int, int]], *, size: float = 10.5, inks: Sequence[str] = INKS
) -> None:
    """The caption below a picture, its marked words (start, end) bold and in the inks of their maps."""
    from matplotlib.offsetbox import AnchoredOffsetbox

    packed = _packed(caption, words, size, inks)
    below = AnchoredOffsetbox("upper center", child=packed, frameon=False, pad=0.3, bbox_to_anchor=(0.5, 0.0),
                              bbox_transform=axis.transAxes)  # fmt: skip
    axis.add_artist(below)


def _packed(caption: str, words: Sequence[tuple[int, int]], size: float, inks: Sequence[str]) -> Any:
    """A caption in lines, its marked words bold and in their inks, as one box of text."""
    from matplotlib.offsetbox import HPacker, TextArea, VPacker

    rows = []
    for line in in_lines(caption, words, WIDE):
        parts = []
        for word, marked in line:
            bold = {} if marked is None else {"color": inks[marked % len(inks)], "weight": "bold"}
            parts.append(TextArea(word, textprops={"size": size, "color": "#24292f"} | bold))
        rows.append(HPacker(children=parts, pad=0, sep=size * 0.32))
    return VPacker(children=rows, pad=0, sep=3, align="center")


def _differing(one: str, other: str) -> list[tuple[int, int]]:
    """Where ``one`` has other words than ``other``, which has as many: (start, end) of each."""
    spans, at = [], 0
    for word, instead in zip(one.split(" "), other.split(" "), strict=True):
        if word != instead:
            spans.append((at, at + len(word)))
        at += len(word) + 1
    return spans


@plt.rc_context(PLAIN)
def caption_choices(
    images: Sequence[Float[Tensor, "3 height width"]],
    captions: Sequence[str],
    exchanged: Sequence[str],
    shares: Mapping[str, Sequence[float]],
    *,
    title: str = "",
    columns: int = 4,
) -> Figure:
    """Pictures with two captions each, a true one and one with words exchanged, and which one each model prefers.

    ``shares`` are for each model how much of its probability is on the true caption: green above one half, else red.
    Raises ``ValueError`` where the two captions of a picture have not as many words.
    """
    from matplotlib.offsetbox import AnchoredOffsetbox, TextArea, VPacker

    deepest = max(len(in_lines(caption, (), WIDE)) for caption in (*captions, *exchanged))
    below = 0.62 + 0.34 * deepest + 0.21 * len(shares)  # inches of text and bars
    rows = -(-len(images) // columns)
    figure, axes = new_figure(2 * rows, columns, 2.35, (2.2 + below) / 2)
    figure.set_size_inches(2.35 * columns, rows * (2.2 + below) + 0.4)
    axes[0, 0].get_gridspec().set_height_ratios([2.2, below] * rows)
    pictures, tables = axes[::2].flatten(), axes[1::2].flatten()
    for axis in (*pictures, *tables):
        axis.axis("off")
    for number, (axis, table, image) in enumerate(zip(pictures, tables, images)):
        axis.axis("on")
        show_image(axis, image)
        frame_image(axis, "#d0d7de", 1)
        true, other = captions[number], exchanged[number]
        children = []
        for mark, text, against in (("true", true, other), ("exchanged", other, true)):
            children.append(TextArea(mark, textprops={"size": 8, "color": MUTED}))
            words = _differing(text, against)
            inks = [NAMED.get(text[start:end], "#24292f") for start, end in words] or INKS
            children.append(_packed(text, words, 9, inks))
        box = AnchoredOffsetbox("upper center", child=VPacker(children=children, pad=0, sep=3, align="center"),
                                frameon=False, pad=0, bbox_to_anchor=(0.5, 1.0),
                                bbox_transform=table.transAxes)  # fmt: skip
        table.add_artist(box)
        table.set(xlim=(-0.62, 1.3), ylim=(below / 0.21 - 0.5, -0.5))
        first = below / 0.21 - len(shares) - 0.6
        for row, (name, values) in enumerate(shares.items()):
            share, at = values[number], first + row
            colour = RIGHT if share > 0.5 else WRONG
            table.barh(at, share, color=colour, height=0.62)
            table.text(-0.05, at, name, ha="right", va="center", fontsize=8.5)
            table.text(1.05, at, f"{share:.0%}", va="center", fontsize=8.5, color=colour, weight="bold")
        table.plot([0.5, 0.5], [first - 0.5, first + len(shares) - 0.5], color="#24292f", linestyle="--", linewidth=0.9)
        table.text(0.5, first + len(shares) - 0.45, "50%", ha="center", va="top", fontsize=7, color=MUTED)
    figure.suptitle(title, fontsize=10.5)
    return figure
