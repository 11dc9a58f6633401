"""What lessons draw: where words point, laid over the picture; curves with their floors; small tables.

What a map does not attend to fades to pale grey. Its peak is a ring; the true region is a thin outline.
"""

import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from torch import Tensor

from mmlearn.escaping import in_markdown, plain
from mmlearn.visualization.captions import INKS, WIDE, coloured_caption, in_lines
from mmlearn.visualization.figures import MUTED, PLAIN, RIGHT, WRONG, frame_image, new_figure, show_image

Box = Sequence[float]  # left, top, right, bottom, as shares of the picture's sides


def spotlight(image: Float[Tensor, "3 height width"], weights: Float[Tensor, "rows columns"]) -> Tensor:
    """The picture, faded to pale grey where the weights are low: (3, height, width).

    Weights are scaled between their lowest and their highest, and interpolated between the middles of the patches.
    """
    share = (weights - weights.min()) / (weights.max() - weights.min()).clamp(min=1e-9)
    heat = F.interpolate(share[None, None].float(), image.shape[-2:], mode="bicubic", align_corners=False)[0]
    strength = heat.clamp(0, 1) ** 1.5
    pale = 0.72 + 0.28 * image.mean(0, keepdim=True).expand_as(image)  # grey, near white
    return strength * image + (1 - strength) * pale


def peak(weights: Float[Tensor, "rows columns"]) -> tuple[float, float]:
    """Where the largest weight is: x and y of the middle of its patch, as shares of the picture's sides."""
    row, column = divmod(int(weights.argmax()), weights.shape[1])
    return (column + 0.5) / weights.shape[1], (row + 0.5) / weights.shape[0]


def points_inside(weights: Float[Tensor, "rows columns"], boxes: Sequence[Box]) -> bool:
    """Whether the peak is in one of these boxes."""
    x, y = peak(weights)
    return any(left <= x < right and top <= y < bottom for left, top, right, bottom in boxes)


def pointing_score(maps: Sequence[Tensor], boxes: Sequence[Sequence[Box]]) -> float:
    """The share of maps, each (rows, columns), whose peak is in one of its boxes."""
    return sum(map(points_inside, maps, boxes)) / max(len(maps), 1)


def box_share(boxes: Sequence[Sequence[Box]]) -> float:
    """The chance of :func:`pointing_score`: the mean share of the picture that the boxes of a map cover."""
    areas = [sum((right - left) * (bottom - top) for left, top, right, bottom in each) for each in boxes]
    return sum(areas) / max(len(areas), 1)


def mentioned(samples: Sequence[Any], number: int = 0) -> tuple[list[str], list[list[Box]]]:
    """Of each collage what its caption mentions first, or as ``number`` says: the words, and the boxes of the thing."""
    boxes = [(sample.boxes[sample.boxes_of(sample.links[number])] / sample.size).tolist() for sample in samples]
    return [sample.caption[sample.links[number].start : sample.links[number].end] for sample in samples], boxes


def mark_peak(axis: Any, weights: Float[Tensor, "rows columns"], size: tuple[int, int], colour: str) -> None:
    """A ring where the largest weight is, in a picture of this height and width."""
    x, y = peak(weights)
    at = x * size[1] - 0.5, y * size[0] - 0.5
    axis.plot(*at, "o", markersize=13, markerfacecolor="none", markeredgecolor="white", markeredgewidth=4.5)
    axis.plot(*at, "o", markersize=13, markerfacecolor="none", markeredgecolor=colour, markeredgewidth=2.2)


def _outline(axis: Any, boxes: Sequence[Box], size: tuple[int, int], colour: str) -> None:
    height, width = size
    for left, top, right, bottom in boxes:
        corner = left * width - 0.5, top * height - 0.5
        extent = (right - left) * width, (bottom - top) * height
        axis.add_patch(Rectangle(corner, *extent, fill=False, edgecolor=colour, linewidth=1.1, linestyle=(0, (4, 2))))


@plt.rc_context(PLAIN)
def overlay(
    image: Float[Tensor, "3 height width"],
    caption: str,
    words: Sequence[tuple[int, int]],
    maps: Float[Tensor, "words rows columns"],
    *,
    boxes: Sequence[Sequence[Box]] = (),
    title: str = "",
) -> Figure:
    """One picture with its caption, and beside it, for each marked word, where the word points.

    ``words`` are (start, end) in the caption; ``boxes`` are for each word where its thing is. Raises ``ValueError``
    where words, maps and boxes are not as many, or the maps' grid is not of the picture's proportions.
    """
    height, width = image.shape[-2:]
    rows, columns = maps.shape[-2:]
    if len(words) != len(maps) or (boxes and len(boxes) != len(words)):
        raise ValueError(f"There are {len(words)} words, {len(maps)} maps and boxes of {len(boxes)}; give one of each.")
    if rows * width != columns * height:
        raise ValueError(f"A map of {rows} × {columns} patches does not fit a picture of {height} × {width} pixels.")
    figure, axes = new_figure(1, len(words) + 1, 2.6, 3.15)
    show_image(axes[0, 0], image)
    frame_image(axes[0, 0], "#d0d7de", 1)
    coloured_caption(axes[0, 0], caption, words)
    for k, (axis, (start, end), weights) in enumerate(zip(axes[0, 1:], words, maps)):
        ink = INKS[k % len(INKS)]
        show_image(axis, spotlight(image, weights))
        mark_peak(axis, weights, (height, width), ink)
        if boxes:
            _outline(axis, boxes[k], (height, width), ink)
        frame_image(axis, ink, 2.2)
        axis.set_xlabel(caption[start:end], fontsize=12, color=ink, weight="bold")
    if title:
        figure.suptitle(title, fontsize=10.5)
    return figure


@plt.rc_context(PLAIN)
def answers(
    images: Sequence[Sequence[Float[Tensor, "3 height width"]]],
    sentences: Sequence[str],
    hits: Sequence[Sequence[bool]],
    chance: Sequence[float],
    *,
    models: Sequence[str] = (),
    hit: str = "fit",
    title: str = "",
) -> Figure:
    """For each sentence a row of pictures, the nearest first; those that ``hit`` have a green frame.

    ``chance`` is for each sentence the share of all pictures that do; ``models`` are the names of who found them.
    """
    figure, axes = new_figure(len(sentences), len(images[0]), 1.75, 2.05)
    for row, (sentence, shown, right, share) in enumerate(zip(sentences, images, hits, chance)):
        found_by = f", {models[row]}" if models else ""
        for axis, image, fits in zip(axes[row], shown, right):
            show_image(axis, image)
            frame_image(axis, RIGHT if fits else "#d0d7de", 3 if fits else 1)
        told = f"“{sentence}”{found_by}: {sum(right)} of {len(right)} {hit} (of all pictures {share:.1%})"
        above = axes[row, 0].text(0, 1.03, told, fontsize=10.5, va="bottom", transform=axes[row, 0].transAxes)
        above.set_in_layout(False)  # it is wider than its picture
    figure.get_layout_engine().set(hspace=0.14)
    figure.suptitle(f"{title}\n", fontsize=10.5)
    return figure


@plt.rc_context(PLAIN)
def pointing_board(
    images: Sequence[Float[Tensor, "3 height width"]],
    words: Sequence[str],
    maps: Sequence[Float[Tensor, "rows columns"]],
    boxes: Sequence[Sequence[Box]],
    *,
    title: str,
    score: str = "",
    columns: int = 4,
) -> Figure:
    """Where one word of each caption points: green frames hit the thing (dashed), red frames miss it.

    ``score`` is a line that says how the whole test set did, with chance and untrained: see :func:`score_line`.
    """
    rows = -(-len(words) // columns)
    figure, axes = new_figure(rows, columns, 2.1, 2.45 + 0.5 / rows)
    for axis in axes.flat[len(words) :]:
        axis.axis("off")
    for axis, image, word, weights, each in zip(axes.flat, images, words, maps, boxes):
        colour = RIGHT if points_inside(weights, each) else WRONG
        show_image(axis, spotlight(image, weights))
        _outline(axis, each, (image.shape[-2], image.shape[-1]), "#24292f")
        mark_peak(axis, weights, (image.shape[-2], image.shape[-1]), colour)
        frame_image(axis, colour, 2.2)
        axis.set_title(textwrap.fill(word, 24), fontsize=10.5, color=colour, weight="bold")
    figure.suptitle(f"{title}\n{score}".strip(), fontsize=10.5)
    return figure


def score_line(what: str, score: float, *, chance: float | None = None, untrained: float | None = None) -> str:
    """``what: 87 % (untrained 9 %, chance 6 %)``, for titles."""
    floors = {"untrained": untrained, "chance": chance}
    told = ", ".join(f"{name} {value:.0%}" for name, value in floors.items() if value is not None)
    return f"{what}: {score:.0%}" + (f" ({told})" if told else "")


def report_lines(title: str, rows: Mapping[str, Mapping[str, float]]) -> str:
    """A title, and a line for each row of a lesson's report: ``what: yours 87 %, trained for longer 95 % (…)``."""
    row_line = "{}: yours {here:.0%}, trained for longer {zoo:.0%} (untrained {untrained:.0%}, chance {chance:.0%})"
    return "\n".join((title, *(row_line.format(what, **row) for what, row in rows.items())))


@plt.rc_context(PLAIN)
def training_curve(
    runs: Mapping[str, Sequence[float]],
    floors: Mapping[str, float] | None = None,
    *,
    label: str = "loss",
    title: str = "",
    top: float | None = None,
    bottom: float = 0,
) -> Figure:
    """The loss of every step by run, smoothed (pale: as it was), and what a model gets that knows only so much.

    ``top`` cuts off the first steps, where they are far above the rest; the axis begins at ``bottom``.
    """
    figure, ((axis,),) = new_figure(1, 1, 6.4, 3.1)
    for name, run in runs.items():
        window = max(1, len(run) // 50)
        smooth = np.convolve(run, np.ones(window) / window, mode="valid")
        (line,) = axis.plot(np.arange(len(smooth)) + (window + 1) / 2, smooth, label=name)  # in the middle of its steps
        axis.plot(np.arange(1, len(run) + 1), run, color=line.get_color(), alpha=0.15, linewidth=0.7)
    for name, floor in (floors or {}).items():
        axis.axhline(floor, color=MUTED, linestyle="--", linewidth=1)
        axis.annotate(name, (1, floor), xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize=9,
                      color=MUTED)  # fmt: skip
    axis.set(xlabel="step", ylabel=label, ylim=(bottom, top))
    axis.set_title(title, fontsize=10.5)
    axis.spines[["top", "right"]].set_visible(False)
    if len(runs) > 1:
        figure.legend(frameon=False, loc="outside lower center", ncols=min(4, len(runs)))
    return figure


@plt.rc_context(PLAIN)
def progress(
    lines: Mapping[str, Sequence[float]],
    *,
    every: int,
    beside: Mapping[str, Sequence[float]] | None = None,
    floors: Mapping[str, float] | None = None,
    label: str = "test pictures",
    title: str = "",
) -> Figure:
    """Shares that were measured ``every`` so many steps of a training, and what chance would give.

    ``beside`` is another training, with the same names: pale lines of the same colours.
    """
    figure, ((axis,),) = new_figure(1, 1, 6.4, 3.0)
    for name, values in lines.items():
        steps = every * np.arange(1, len(values) + 1)
        (line,) = axis.plot(steps, values, marker="o", markersize=3.5, label=name, zorder=3)
        if beside:
            axis.plot(every * np.arange(1, len(beside[name]) + 1), beside[name], color=line.get_color(), alpha=0.4,
                      linewidth=2.5)  # fmt: skip
    for style, (name, floor) in zip(cycle(("--", ":", "-.")), (floors or {}).items()):
        axis.axhline(floor, color=MUTED, linestyle=style, linewidth=1, label=name)
    axis.set(xlabel="step", ylabel=label, ylim=(0, 1.03))
    axis.set_title(title, fontsize=10.5)
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axis.spines[["top", "right"]].set_visible(False)
    figure.legend(frameon=False, fontsize=9, loc="outside lower center", ncols=2)
    return figure


@plt.rc_context(PLAIN)
def seeds_as_dots(
    results: Mapping[str, float | Sequence[float]],
    *,
    label: str,
    chance: float | Mapping[str, float] | None = None,
    untrained: Mapping[str, float] | None = None,
    recorded: Mapping[str, Sequence[float]] | None = None,
    colours: Mapping[str, str] | None = None,
    title: str = "",
) -> Figure:
    """A bar for each name, with a dot for each seed where there are several; chance and untrained as marks.

    ``recorded`` are runs with other seeds that were made before: bars are then this run, and they are dots.
    """
    figure, ((axis,),) = new_figure(1, 1, 6.8, 1.0 + 0.42 * len(results))
    for row, (name, value) in enumerate(results.items()):
        seeds = np.atleast_1d(np.asarray(value, float))
        axis.barh(row, seeds.mean(), color=(colours or {}).get(name, "#9ecae1"), height=0.62)
        if len(seeds) > 1:
            axis.plot(seeds, np.full(len(seeds), row), "o", color="#24292f", markersize=4)
        if others := (recorded or {}).get(name, ()):
            axis.plot(others, np.full(len(others), row), "o", color="#24292f", markersize=4,
                      label=None if row else f"{len(others)} recorded seeds")  # fmt: skip
        axis.text(1.01, row, f"{seeds.mean():.0%}", va="center", fontsize=10, transform=axis.get_yaxis_transform())
        if untrained and name in untrained:
            axis.plot([untrained[name]] * 2, [row - 0.36, row + 0.36], color=MUTED, linewidth=2.2,
                      label=None if row else "untrained")  # fmt: skip
        floor = chance.get(name) if isinstance(chance, Mapping) else chance
        if floor is not None:
            axis.plot([floor] * 2, [row - 0.36, row + 0.36], color=WRONG, linestyle=(0, (3, 2)), linewidth=1.6,
                      label=None if row else "chance")  # fmt: skip
    axis.set_yticks(range(len(results)), [textwrap.fill(name, 34) for name in results], fontsize=10)
    axis.invert_yaxis()
    axis.set(xlabel=label, xlim=(0, max(1.0, *(float(np.mean(value)) for value in results.values()), 0)))
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axis.spines[["top", "right"]].set_visible(False)
    if axis.get_legend_handles_labels()[1]:
        figure.legend(frameon=False, fontsize=9, loc="outside lower center", ncols=3)
    axis.set_title(title, fontsize=10.5)
    return figure


@dataclass(frozen=True)
class SmallTable:
    """Rows of text with a header, as a notebook and a terminal show them."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]

    def __str__(self) -> str:
        rows = [[plain(cell) for cell in row] for row in (self.header, *self.rows)]
        widths = [max(map(len, column)) for column in zip(*rows)]
        return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows)

    def _repr_markdown_(self) -> str:
        cells = ([in_markdown(cell).replace("|", "\\|") for cell in row] for row in (self.header, *self.rows))
        head, *rows = (f"| {' | '.join(row)} |" for row in cells)
        return "\n".join([head, "|" + "---|" * len(self.header), *rows])

    __repr__ = __str__


def paper_table(rows: Sequence[tuple[str, str, str, str]]) -> SmallTable:
    """What the paper reports beside what was found here: (what, paper, here, why they differ)."""
    return SmallTable(("", "paper", "here", "why they differ"), rows)


def dimmed(image: Float[Tensor, "3 height width"], boxes: Float[Tensor, "p 4"], looks: Float[Tensor, "p"]) -> Tensor:
    """The picture in pale grey, except that each box keeps as much of its colours as it gets of the attention."""
    height, width = image.shape[-2:]
    heat = torch.zeros(1, height, width)
    share = looks / looks.max().clamp(min=1e-9)
    for (left, top, right, bottom), weight in zip(
        (boxes * torch.tensor([width, height] * 2)).round().int().tolist(), share
    ):
        heat[:, top:bottom, left:right] = torch.maximum(heat[:, top:bottom, left:right], weight)
    pale = 0.72 + 0.28 * image.mean(0, keepdim=True).expand_as(image)
    return heat * image + (1 - heat) * pale


@plt.rc_context(PLAIN)
def crops(image: Float[Tensor, "3 height width"], regions: Float[Tensor, "p 3 side side"]) -> Figure:
    """A picture, and beside it its regions as a model reads them."""
    figure, axes = new_figure(1, len(regions) + 1, 1.6, 1.75)
    for axis, shown in zip(axes[0], (image, *regions)):
        show_image(axis, shown)
        frame_image(axis, "#d0d7de", 1)
    axes[0, 0].set_title("the picture", fontsize=9.5)
    axes[0, 1].set_title("its regions, as the model reads them", fontsize=9.5, loc="left").set_in_layout(False)
    return figure


@plt.rc_context(PLAIN)
def looking_board(
    images: Sequence[Float[Tensor, "3 height width"]],
    boxes: Sequence[Float[Tensor, "p 4"]],
    looks: Sequence[Float[Tensor, "p"]],
    captions: Sequence[str],
    filled: Sequence[str],
    answers: Sequence[str],
    things: Sequence[int],
    *,
    title: str = "",
    columns: int = 4,
    rows: Sequence[str] = (),
    least: float = 0.0,
) -> Figure:
    """How much a hidden word attends to each region, and the word that the model fills in.

    ``captions`` have ``<mask>`` once, where the word is hidden; ``things`` number the region that it means. ``rows``
    are written at the left of each row, as the model that reads it; a share below ``least`` is not written.
    """
    count = -(-len(images) // columns)
    deepest = max(len(in_lines(caption, (), WIDE)) for caption in captions)
    figure, axes = new_figure(count, columns, 2.3, 2.5 + 0.2 * deepest + 0.5 / count)
    for axis, name in zip(axes[:, 0], rows):
        axis.set_ylabel(name, fontsize=10.5)
    for axis in axes.flat[len(images) :]:
        axis.axis("off")
    for axis, image, box, weights, caption, word, answer, thing in zip(
        axes.flat, images, boxes, looks, captions, filled, answers, things
    ):
        size, right = (image.shape[-2], image.shape[-1]), word.strip() == answer.strip()
        show_image(axis, dimmed(image, box, weights))
        axis.set_anchor("N")  # below it is its caption
        _outline(axis, [box[thing].tolist()], size, "#24292f")
        for (left, top, _, _), weight in zip(box.tolist(), weights.tolist()):
            if weight < least:
                continue
            axis.annotate(f"{weight:.0%}", (left * size[1], top * size[0]), fontsize=9, color="#24292f", va="bottom",
                          path_effects=[withStroke(linewidth=2.5, foreground="white")])  # fmt: skip
        frame_image(axis, "#d0d7de", 1)
        before, after = (re.sub("<start>|<end>|<pad>", "", part).strip() for part in caption.split("<mask>"))
        text, start = f"{before} {word.strip()} {after}", len(before) + 1
        ink = RIGHT if right else WRONG
        coloured_caption(axis, text, [(start, start + len(word.strip()))], size=9, inks=(ink,))
        if not right:
            axis.set_title(f"answer: {answer.strip()}", fontsize=9, color=WRONG)
    figure.suptitle(title, fontsize=10.5)
    return figure
