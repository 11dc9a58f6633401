"""What a language model wrote about pictures, below or over them; and what each trained parameter of a bridge buys."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from mmlearn.visualization.figures import MUTED, PLAIN, RIGHT, WRONG, frame_image, new_figure, show_image
from mmlearn.visualization.lesson import mark_peak, spotlight


def name_precision(written: Sequence[Sequence[str]], true: Sequence[Sequence[str]]) -> float:
    """Precision: of all names that were written, each counted once in its list, the share among the true ones."""
    hits = [name in names for row, names in zip(written, true) for name in set(row)]
    return sum(hits) / max(len(hits), 1)


@plt.rc_context(PLAIN)
def answer_board(
    images: Sequence[Float[Tensor, "3 height width"]],
    question: str,
    written: Sequence[Sequence[str]],
    true: Sequence[Sequence[str]],
    *,
    title: str = "",
    columns: int = 4,
    wide: int = 32,
) -> Figure:
    """Pictures, and below each the names that a model wrote: green where they are among the true ones, else red.

    A line is broken between names, after about ``wide`` letters.
    """
    from matplotlib.offsetbox import HPacker, TextArea

    boards = []
    for row in written:
        lines: list[list[str]] = [[]]
        for name in dict.fromkeys(row):
            if lines[-1] and len(", ".join([*lines[-1], name])) > wide:
                lines.append([])
            lines[-1].append(name)
        boards.append(lines)
    rows, deepest = -(-len(images) // columns), 1 + max(map(len, boards))
    figure, axes = new_figure(rows, columns, 2.45, 2.45 + 0.2 * deepest + 0.4 / rows)
    for axis in axes.flat[len(images) :]:
        axis.axis("off")
    for axis, image, lines, names in zip(axes.flat, images, boards, true):
        show_image(axis, image)
        frame_image(axis, "#d0d7de", 1)
        packed = [TextArea(question, textprops=dict(size=9, color="#57606a"))]
        for line in lines:
            inks = [dict(size=9.5, weight="bold", color=RIGHT if name in names else WRONG) for name in line]
            ends = [*[","] * (len(line) - 1), "" if line is lines[-1] else ","]
            parts = [TextArea(name + end, textprops=ink) for name, end, ink in zip(line, ends, inks)]
            packed.append(HPacker(children=parts, pad=0, sep=3))
        _text_below(axis, packed)
    figure.suptitle(title, fontsize=10.5)
    return figure


def _text_below(axis: Any, lines: Sequence[Any]) -> None:
    """Lines of text under a picture, from its left edge."""
    from matplotlib.offsetbox import AnchoredOffsetbox, VPacker

    packed = VPacker(children=list(lines), pad=0, sep=2.5, align="left")
    below = dict(bbox_to_anchor=(0.0, 0.0), bbox_transform=axis.transAxes)
    axis.add_artist(AnchoredOffsetbox("upper left", child=packed, frameon=False, pad=0.1, **below))


def name_recall(written: Sequence[Sequence[str]], true: Sequence[Sequence[str]]) -> float:
    """Recall: of all true names, each counted once in its list, the share that was written."""
    return name_precision(true, written)


def lists_line(what: str, written: Sequence[Sequence[str]], true: Sequence[Sequence[str]]) -> str:
    """``what: 60% of the names it writes are there; it writes 45% of those that are there``, for titles."""
    right, found = name_precision(written, true), name_recall(written, true)
    return f"{what}: {right:.0%} of the names it writes are there; it writes {found:.0%} of those that are there"


def fitting_words(
    words: Sequence[Sequence[Sequence[str]]], true: Sequence[Sequence[str]], *, blank: str = "paper"
) -> float:
    """Of all words in grids (see :func:`words_over`) but ``blank``, the share that is part of a name of its picture."""
    pairs = [(word, names) for grid, names in zip(words, true) for row in grid for word in row]
    hits = [word in " ".join(names).split() for word, names in pairs if word not in ("", blank)]
    return sum(hits) / max(len(hits), 1)


@plt.rc_context(PLAIN)
def words_over(
    images: Sequence[Float[Tensor, "3 height width"]],
    words: Sequence[Sequence[Sequence[str]]],
    true: Sequence[Sequence[str]],
    *,
    title: str = "",
    blank: str = "paper",
    columns: int = 3,
) -> Figure:
    """Pictures, and over each a grid of words, where each belongs; an empty word is not drawn.

    A word is green where it is part of one of the picture's ``true`` names, else red; ``blank``, which names nothing,
    is grey. Raises ``ValueError`` where pictures, grids and names are not as many.
    """
    if not len(images) == len(words) == len(true):
        raise ValueError(f"{len(images)} pictures, {len(words)} grids, names of {len(true)}: give one of each.")
    rows = -(-len(images) // columns)
    figure, axes = new_figure(rows, columns, 3.3, 3.3 + 0.4 / rows)
    for axis in axes.flat[len(images) :]:
        axis.axis("off")
    for axis, image, grid, names in zip(axes.flat, images, words, true):
        show_image(axis, image)
        axis.images[0].set_alpha(0.55)
        frame_image(axis, "#d0d7de", 1)
        known = {part for name in names for part in name.split()}
        for row, line in enumerate(grid):
            for column, word in enumerate(line):
                if word:
                    ink = "#57606a" if word == blank else RIGHT if word in known else WRONG
                    at = (column + 0.5) / len(line), 1 - (row + 0.5) / len(grid)
                    axis.text(*at, word, transform=axis.transAxes, ha="center", va="center", fontsize=8.5,
                              weight="bold", color=ink,
                              bbox=dict(boxstyle="round,pad=0.12", facecolor="white", alpha=0.85,
                                        linewidth=0))  # fmt: skip
    figure.suptitle(title, fontsize=10.5)
    return figure


@plt.rc_context(PLAIN)
def bought(
    points: Mapping[str, tuple[float, float]], floors: Mapping[str, float], *, label: str, title: str = ""
) -> Figure:
    """What each trained parameter buys: name → (trained parameters, share right), over a logarithmic axis.

    ``floors`` are dashed lines, with their names.
    """
    figure, ((axis,),) = new_figure(1, 1, 6.8, 3.5)
    ordered = sorted(points.items(), key=lambda point: point[1])
    for rank, (name, (parameters, share)) in enumerate(ordered):
        axis.plot(parameters, share, "o", markersize=8, color="#146edc")
        crowded = any(abs(share - other) < 0.08 for _, (_, other) in ordered[:rank])
        right = crowded or rank == len(ordered) - 1  # where there is room; the others have it at the left
        axis.annotate(f"{name}: {share:.0%}", (parameters, share), xytext=(10 if right else -10, -12 * crowded),
                      textcoords="offset points", ha="left" if right else "right", va="center", fontsize=9)  # fmt: skip
    for name, floor in floors.items():
        axis.axhline(floor, color=MUTED, linestyle="--", linewidth=1)
        axis.annotate(f" {name}", (0, floor), xycoords=("axes fraction", "data"), ha="left", va="bottom", fontsize=9,
                      color=MUTED)  # fmt: skip
    axis.set(xscale="log", xlabel="trained parameters", ylabel=label, ylim=(0, 1.15))
    spread = [parameters for parameters, _ in points.values()]
    axis.set_xlim(min(spread) / 10, max(spread) * 6)
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axis.spines[["top", "right"]].set_visible(False)
    axis.set_title(title, fontsize=10.5)
    return figure


@plt.rc_context(PLAIN)
def dialogue_board(
    images: Sequence[Float[Tensor, "3 height width"]],
    turns: Sequence[Sequence[tuple[str, str, bool | None]]],
    *,
    title: str = "",
    columns: int = 4,
    wide: int = 30,
) -> Figure:
    """Pictures, and below each its questions and what a model answered: green if right, red if wrong, else dark.

    A turn is (question, answer, whether it is right or ``None``); a question that is empty is not drawn. Lines are
    broken after about ``wide`` letters. Raises ``ValueError`` where pictures and turns are not as many.
    """
    from matplotlib.offsetbox import TextArea

    if len(images) != len(turns):
        raise ValueError(f"There are {len(images)} pictures and turns of {len(turns)}; give one of each.")
    boards: list[list[tuple[str, str, str]]] = []
    for each in turns:
        lines = []
        for question, answer, right in each:
            ink = "#24292f" if right is None else RIGHT if right else WRONG
            lines += [(line, "#57606a", "normal") for line in textwrap.wrap(question, wide)]
            lines += [(line, ink, "bold") for line in textwrap.wrap(answer, wide) or ["(nothing)"]]
        boards.append(lines)
    rows, deepest = -(-len(images) // columns), max(map(len, boards))
    figure, axes = new_figure(rows, columns, 2.45, 2.45 + 0.19 * deepest + 0.4 / rows)
    for axis in axes.flat[len(images) :]:
        axis.axis("off")
    for axis, image, lines in zip(axes.flat, images, boards):
        show_image(axis, image)
        frame_image(axis, "#d0d7de", 1)
        _text_below(
            axis, [TextArea(line, textprops=dict(size=9, color=ink, weight=weight)) for line, ink, weight in lines]
        )
    figure.suptitle(title, fontsize=10.5)
    return figure


@plt.rc_context(PLAIN)
def word_strip(
    images: Sequence[Float[Tensor, "3 height width"]],
    words: Sequence[Sequence[str]],
    right: Sequence[Sequence[bool]] = (),
    maps: Sequence[Float[Tensor, "words rows columns"]] = (),
    *,
    title: str = "",
) -> Figure:
    """Pictures with what was written about them; with ``maps``, a row for each: where it looked before each word.

    Words that are ``right`` are green, others red; a picture fades where the weight of its map is low, and a ring is
    at the peak. Raises ``ValueError`` where pictures, words and maps are not as many.
    """
    shape = (len(images), 1 + len(words[0])) if len(maps) else (1, len(images))
    figure, axes = new_figure(*shape, 1.75, 2.1 if len(maps) else 2.6)
    for row, (image, told) in enumerate(zip(images, words, strict=True)):
        inks = [RIGHT if fits else WRONG for fits in right[row]] if right else ["#24292f"] * len(told)
        axis = axes[row, 0] if len(maps) else axes[0, row]
        show_image(axis, image)
        frame_image(axis, "#d0d7de", 1)
        if not len(maps):  # all words below the picture
            for line, (word, ink) in enumerate(zip(told, inks, strict=True)):
                below = dict(ha="center", va="top", fontsize=10.5, weight="bold", transform=axis.transAxes)
                axis.text(0.5, -0.04 - 0.13 * line, word, color=ink, **below)
            continue
        for axis, word, weights, ink in zip(axes[row, 1:], told, maps[row], inks, strict=True):
            show_image(axis, spotlight(image, weights))
            mark_peak(axis, weights, (image.shape[-2], image.shape[-1]), ink)
            frame_image(axis, "#d0d7de", 1)
            axis.set_xlabel(word, fontsize=11.5, color=ink, weight="bold")
    figure.suptitle(title, fontsize=10.5)
    return figure
