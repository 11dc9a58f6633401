"""Texts with a number at each token, what its tokens look at, and hues that words are said to have."""

import math
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from mmlearn.visualization.figures import HEAT, PLAIN, new_figure

LIGHT = "OrRd"  # from white: numbers stay readable on it
FRAME = "#4dd0e1"


@plt.rc_context(PLAIN)
def token_heat(
    rows: Mapping[str, Sequence[tuple[str, float]]],
    *,
    label: str,
    highest: float | None = None,
    framed: Sequence[tuple[int, int]] = (),
    title: str = "",
) -> Figure:
    """Each text as a row of cells: in a cell the token and its number, the redder the higher, NaN without a colour.

    ``highest`` is the number of the deepest red, otherwise the largest one. A row's name stands before it, and a frame
    around each pair of row and place in ``framed``. Raises ``ValueError`` where there is no token.
    """
    longest = max((len(row) for row in rows.values()), default=0)
    if not longest:
        raise ValueError("There is no token to draw: give at least one row with a token.")
    values = np.full((len(rows), longest), np.nan)
    for i, row in enumerate(rows.values()):
        values[i, : len(row)] = [value for _, value in row]
    highest = highest or np.nanmax(values, initial=1e-9)
    figure, ((axis,),) = new_figure(1, 1, 1.8 + 0.72 * longest, 0.7 + 0.5 * len(rows))
    image = axis.imshow(values, cmap=LIGHT, vmin=0, vmax=highest, aspect="auto")
    for i, row in enumerate(rows.values()):
        for j, (token, value) in enumerate(row):
            number = "" if np.isnan(value) else f"\n{value:.1f}"
            colour = "white" if value > 0.7 * highest else "black"
            axis.text(j, i, token + number, ha="center", va="center", fontsize=8, color=colour)
    for row, position in framed:
        corner = position - 0.47, row - 0.44  # so that frames of neighbours do not touch
        axis.add_patch(plt.Rectangle(corner, 0.94, 0.88, fill=False, edgecolor=FRAME, linewidth=1.8))
    axis.set_yticks(range(len(rows)), list(rows), fontsize=9)
    axis.set_xticks([])
    axis.spines[:].set_visible(False)
    axis.tick_params(length=0)
    axis.set_title(title, fontsize=10)
    figure.colorbar(image, ax=axis, label=label, pad=0.01)
    return figure


@plt.rc_context(PLAIN)
def token_attention(
    weights: Float[Tensor, "q n"], tokens: Sequence[str], *, framed: Sequence[tuple[int, int]] = (), title: str = ""
) -> Figure:
    """What each token of a text looks at, a row a query, with a frame around some pairs of query and position."""
    figure, ((axis,),) = new_figure(1, 1, 1.6 + 0.26 * len(tokens), 1.2 + 0.26 * len(tokens))
    image = axis.imshow(weights.numpy(), cmap=HEAT, vmin=0, vmax=1)
    for query, position in framed:
        axis.add_patch(plt.Rectangle((position - 0.5, query - 0.5), 1, 1, fill=False, edgecolor=FRAME, linewidth=1.8))
    axis.set_xticks(range(len(tokens)), tokens)
    axis.set_yticks(range(len(tokens)), tokens)
    axis.set(xlabel="looks at", ylabel="token")
    axis.set_title(title, fontsize=9)
    figure.colorbar(image, ax=axis, shrink=0.8)
    return figure


@plt.rc_context(PLAIN)
def hue_wheels(
    panels: Mapping[str, Sequence[float]], hue: Sequence[float], colours: Mapping[str, tuple[float, float, float]]
) -> Figure:
    """On a wheel a title: round the hue of each colour, square the hue that is said of it, both as angles in radians.

    A word whose hue is another's as well stands a little outside.
    """
    options = dict(figsize=(3.2 * len(panels), 3.5), dpi=110, squeeze=False, layout="constrained")
    figure, (axes,) = plt.subplots(1, len(panels), subplot_kw={"projection": "polar"}, **options)
    plt.close(figure)
    for axis, (title, said) in zip(axes, panels.items()):
        drawn: list[float] = []
        for true, guess, (word, rgb) in zip(hue, said, colours.items()):
            outside = 0.34 * any(abs(true - other) < math.radians(8) for other in drawn)
            drawn.append(true)
            axis.plot([true, guess], [1, 0.62], color=rgb, linewidth=1.5)
            axis.scatter([true], [1], color=[rgb], s=60, zorder=3)
            axis.scatter([guess], [0.62], color=[rgb], s=30, marker="s", zorder=3)
            axis.text(true, 1.24 + outside, word, ha="center", va="center", fontsize=7)
        axis.set_axis_off()
        axis.set(ylim=(0, 1.6))
        axis.set_title(title, fontsize=9)
    figure.suptitle("round: the hue that a word names; square: the hue that the other words give it", fontsize=9)
    return figure
