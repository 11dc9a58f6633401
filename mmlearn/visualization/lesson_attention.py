"""What the lesson on attention draws: a share over a number, and the weights of queries on the words of a sentence."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

import matplotlib.pyplot as plt
from jaxtyping import Bool, Float
from matplotlib.figure import Figure
from torch import Tensor

from mmlearn.visualization.figures import MUTED, PLAIN, new_figure

INK = "#1f77b4"
IN_A_ROW = 12  # words


@plt.rc_context(PLAIN)
def share_lines(
    lines: Mapping[str, Sequence[float]],
    at: Sequence[float],
    *,
    across: str,
    label: str,
    floors: Mapping[str, float | Sequence[float]] | None = None,
    title: str = "",
) -> Figure:
    """Shares, measured ``at`` these numbers of what goes ``across``; ``floors`` are dashed, one share or one for each
    number. The axis of numbers is logarithmic.

    Raises ``ValueError`` where a line is not as long as ``at``.
    """
    figure, ((axis,),) = new_figure(1, 1, 6.6, 3.2)
    for (name, values), marker in zip(lines.items(), cycle("os^Dv")):
        if len(values) != len(at):
            raise ValueError(f"The line {name!r} has {len(values)} values for {len(at)} places; give one for each.")
        axis.plot(at, values, marker=marker, markersize=4.5, label=name)
    for style, (name, floor) in zip(cycle(("--", ":")), (floors or {}).items()):
        if isinstance(floor, Sequence):
            axis.plot(at, floor, color=MUTED, linestyle=style, linewidth=1.6, label=name)
        else:
            axis.axhline(floor, color=MUTED, linestyle=style, linewidth=1, label=name)
    axis.set_xscale("log", base=2)
    axis.set_xticks(list(at), [f"{x:,}" for x in at])
    axis.minorticks_off()
    axis.set(xlabel=across, ylabel=label, ylim=(0, 1.04))
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axis.spines[["top", "right"]].set_visible(False)
    axis.set_title(title, fontsize=10.5)
    figure.legend(frameon=False, fontsize=9, loc="outside lower center", ncols=2)
    return figure


def _row_of_words(axis: Any, words: Sequence[str], weights: Float[Tensor, "n"], looks: str, marked: int) -> None:
    lines = -(-len(words) // IN_A_ROW)
    axis.set(xlim=(0, IN_A_ROW), ylim=(lines, 0))
    axis.axis("off")
    axis.set_title(looks, fontsize=10.5, loc="left")
    for k, (word, weight) in enumerate(zip(words, weights.tolist())):
        row, column = divmod(k, IN_A_ROW)
        glow = plt.Rectangle((column + 0.03, row + 0.06), 0.94, 0.88, color=INK, alpha=0.75 * weight, linewidth=0)
        axis.add_patch(glow)
        if k == marked:
            axis.add_patch(plt.Rectangle((column + 0.03, row + 0.06), 0.94, 0.88, fill=False, linestyle=(0, (3, 2))))
        told = f"\n{weight:.0%}" if weight >= 0.05 else "\n"
        axis.text(column + 0.5, row + 0.55, word.replace("-", "-\n") + told, ha="center", va="center",
                  fontsize=8.5 if len(word) < 10 else 7, linespacing=1.15)  # fmt: skip


@plt.rc_context(PLAIN)
def words_attended(
    words: Sequence[str],
    weights: Float[Tensor, "queries n"],
    queries: Sequence[str],
    *,
    marked: Sequence[int],
    title: str = "",
) -> Figure:
    """One sentence for each query: a word is as blue as its weight, which is below it from 5 % on.

    ``marked`` is for each query a word with a dashed frame. Raises ``ValueError`` where the numbers do not fit.
    """
    if weights.shape != (len(queries), len(words)):
        raise ValueError(f"{len(queries)} queries and {len(words)} words need so many weights, not {weights.shape}.")
    lines = -(-len(words) // IN_A_ROW)
    figure, axes = new_figure(len(queries), 1, 8.4, 0.35 + 0.62 * lines)
    for k, (axis, row, name) in enumerate(zip(axes[:, 0], weights, queries)):
        _row_of_words(axis, words, row, name, marked[k])
    figure.suptitle(title, fontsize=10.5)
    return figure


@plt.rc_context(PLAIN)
def mask_squares(masks: Mapping[str, Bool[Tensor, "n n"]], names: Sequence[str]) -> Figure:
    """Who sees whom under each mask: a row is who looks, and what it may see is dark."""
    figure, (axes,) = new_figure(1, len(masks), 3.5, 3.7)
    for axis, (title, mask) in zip(axes, masks.items()):
        axis.imshow(mask, cmap="Greys", vmin=0, vmax=1.6)
        axis.set_title(title, fontsize=11)
        axis.set_xticks(range(len(names)), names, rotation=60)
        axis.set_yticks(range(len(names)), [f"{name} sees" for name in names])
        axis.set_xticks([k - 0.5 for k in range(1, len(names))], minor=True)
        axis.set_yticks([k - 0.5 for k in range(1, len(names))], minor=True)
        axis.grid(which="minor", color="white", linewidth=1)
        axis.tick_params(which="both", length=0)
    return figure
