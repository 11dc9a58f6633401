"""Lines in one panel or several: over a row of conditions, such as more and more noise, or over numbers."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from mmlearn.visualization.figures import MUTED, PLAIN, new_figure

Line = tuple[Sequence[float], Sequence[float]]  # numbers across, and heights


@plt.rc_context(PLAIN)
def curves(
    panels: Mapping[str, Mapping[str, Sequence[float]]],
    conditions: Sequence[str],
    *,
    label: str,
    across: str = "",
    chance: float | None = None,
    ceilings: Mapping[str, float] | None = None,
) -> Figure:
    """A panel a title, in it a line a name with its last number, over ``conditions`` that ``across`` says in a word.

    ``chance`` is a dashed line in every panel. ``ceilings``, the most that a name can reach, are dotted in the first.
    """
    figure, (axes,) = new_figure(1, len(panels), 3.6 if len(panels) > 1 else 6.4, 3.4)
    for axis, (title, values) in zip(axes, panels.items()):
        for name, numbers in values.items():
            (line,) = axis.plot(
                range(len(conditions)), numbers, "o-", markersize=3, label=f"{name} ({numbers[-1]:.2f})"
            )
            if axis is axes[0] and name in (ceilings or {}):
                axis.axhline(ceilings[name], color=line.get_color(), linestyle=":", linewidth=1)
        if chance is not None:
            axis.axhline(chance, color=MUTED, linestyle="--", linewidth=1, label=f"chance ({chance:.2f})")
        axis.set_xticks(range(len(conditions)), conditions, fontsize=8)
        axis.set_xlabel(across, fontsize=8)
        axis.set_ylim(bottom=0)
        axis.set_title(title, fontsize=9)
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(frameon=False, fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.22), ncols=2)
    axes[0].set_ylabel(label)
    return figure


@plt.rc_context(PLAIN)
def line_panels(
    panels: Mapping[str, Mapping[str, Line]],
    *,
    label: str,
    across: str,
    levels: Mapping[str, Mapping[str, float]] | None = None,
    marker: str = "",
) -> Figure:
    """A panel a title, in it a line a name with its last number, in the same colour in every panel.

    ``levels`` has for a title what the lines are to be compared with: a level a name, dashed, dotted and so on. A
    ``marker`` of matplotlib stands at each point. All heights begin at 0.
    """
    figure, (axes,) = new_figure(1, len(panels), 3.2 if len(panels) > 1 else 6.4, 3.3)
    names = dict.fromkeys(name for lines in panels.values() for name in lines)
    colours = {name: f"C{i}" for i, name in enumerate(names)}
    for axis, (title, lines) in zip(axes, panels.items()):
        for name, (numbers, heights) in lines.items():
            shown = f"{name} ({heights[-1]:.2f})"
            axis.plot(numbers, heights, marker=marker, markersize=4, color=colours[name], label=shown)
        for (name, height), style in zip((levels or {}).get(title, {}).items(), ("--", ":", "-.", (0, (1, 6)))):
            axis.axhline(height, color=MUTED, linestyle=style, linewidth=1, label=f"{name} ({height:.2f})")
        axis.set_ylim(bottom=0)
        axis.set_xlabel(across, fontsize=8)
        axis.set_title(title, fontsize=9)
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(frameon=False, fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2)
    axes[0].set_ylabel(label)
    return figure
