"""Texts with a number at each token."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from mmlearn.visualization.figures import PLAIN, _figure

LIGHT = "OrRd"  # from white: numbers stay readable on it


@plt.rc_context(PLAIN)
def token_heat(
    rows: Mapping[str, Sequence[tuple[str, float]]], *, label: str, highest: float | None = None, title: str = ""
) -> Figure:
    """Each text as a row of cells: in a cell the token and its number, the redder the higher, NaN without a colour.

    ``highest`` is the number of the deepest red, otherwise the largest one. A row's name stands before it. Raises
    ``ValueError`` where there is no token.
    """
    longest = max((len(row) for row in rows.values()), default=0)
    if not longest:
        raise ValueError("There is no token to draw: give at least one row with a token.")
    values = np.full((len(rows), longest), np.nan)
    for i, row in enumerate(rows.values()):
        values[i, : len(row)] = [value for _, value in row]
    highest = highest or np.nanmax(values, initial=1e-9)
    figure, ((axis,),) = _figure(1, 1, 1.8 + 0.72 * longest, 0.7 + 0.5 * len(rows))
    image = axis.imshow(values, cmap=LIGHT, vmin=0, vmax=highest, aspect="auto")
    for i, row in enumerate(rows.values()):
        for j, (token, value) in enumerate(row):
            number = "" if np.isnan(value) else f"\n{value:.1f}"
            colour = "white" if value > 0.7 * highest else "black"
            axis.text(j, i, token + number, ha="center", va="center", fontsize=8, color=colour)
    axis.set_yticks(range(len(rows)), list(rows), fontsize=9)
    axis.set_xticks([])
    axis.spines[:].set_visible(False)
    axis.tick_params(length=0)
    axis.set_title(title, fontsize=10)
    figure.colorbar(image, ax=axis, label=label, pad=0.01)
    return figure
