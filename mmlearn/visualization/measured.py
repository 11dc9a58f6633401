"""What was measured: bars with a dot a round, rooflines, and measured points on planned lines."""

import statistics
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mmlearn.visualization.curves import Line
from mmlearn.visualization.figures import MUTED, PLAIN, new_figure

BESIDE = dict(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))  # where a legend stands


def _words(axis: Axes, across: str, up: str, title: str) -> None:
    axis.set_xlabel(across, fontsize=8)
    axis.set_ylabel(up, fontsize=8)
    axis.set_title(title, fontsize=9)
    axis.spines[["top", "right"]].set_visible(False)


@plt.rc_context(PLAIN)
def spread_bars(
    groups: Mapping[str, Mapping[str, Sequence[float]]],
    *,
    label: str,
    title: str = "",
    notes: Mapping[str, str] | None = None,
) -> Figure:
    """A group a name, in it a bar a name: the median of its numbers, with a dot for each of them.

    ``notes`` are what is written behind the median of a group that has one bar.
    """
    names = list(dict.fromkeys(name for bars in groups.values() for name in bars))
    figure, ((axis,),) = new_figure(1, 1, 7.2, 1.2 + 0.22 * len(groups) * (len(names) + 1))
    most = max(max(values) for bars in groups.values() for values in bars.values())
    for row, (group, bars) in enumerate(groups.items()):
        for name, values in bars.items():
            number = names.index(name)
            position, median = row + 0.8 * ((number + 0.5) / len(names) - 0.5), statistics.median(values)
            axis.barh(position, median, 0.7 / len(names), color=f"C{number}", label=name if row == 0 else None)
            if len(values) > 1:
                axis.plot(values, [position] * len(values), "o", color="black", markersize=3, alpha=0.6)
            note = f"{median:{'.3g' if median < 1000 else ',.0f'}}  {(notes or {}).get(group, '')}"
            axis.text(max(values) + most / 60, position, note, va="center", fontsize=8)
    axis.set_yticks(range(len(groups)), list(groups))
    axis.set_ylim(len(groups) - 0.5, -0.5)
    axis.set_xlim(0, 1.25 * most)
    rounds = max(len(values) for bars in groups.values() for values in bars.values())
    _words(axis, f"{label}; a dot a round" if rounds > 1 else label, "", title)
    if len(names) > 1:
        axis.legend(**BESIDE)
    return figure


@plt.rc_context(PLAIN)
def roofline(
    points: Mapping[str, tuple[float, Sequence[float]]], *, peak: float, bandwidth: float, title: str = ""
) -> Figure:
    """Operations by their intensity (FLOPs a byte) and the FLOP/s of each round, below what a machine can do at most.

    .. math:: \\min(\\text{peak}, \\text{bandwidth} \\cdot \\text{intensity})

    Source: Williams et al. 2009, section 3.
    """
    figure, ((axis,),) = new_figure(1, 1, 7.2, 3.6)
    ridge, intensities = peak / bandwidth, [x for x, _ in points.values()]
    low, high = min(*intensities, ridge / 8) / 2, max(*intensities, ridge * 4) * 2
    axis.loglog([low, ridge, high], [low * bandwidth / 1e9, peak / 1e9, peak / 1e9], color="black", linewidth=1.5)
    axis.text(high, peak / 1e9 * 1.08, f"products of matrices: {peak / 1e9:.0f} GFLOP/s", ha="right", fontsize=8)
    axis.annotate(
        f"copying: {bandwidth / 1e9:.0f} GB/s",
        (ridge / 4, peak / 4e9),
        xytext=(-8, 4),
        textcoords="offset points",
        ha="right",
        fontsize=8,
    )
    for name, (intensity, speeds) in points.items():
        median = statistics.median(speeds) / 1e9
        (line,) = axis.plot([intensity] * len(speeds), [x / 1e9 for x in speeds], ".", alpha=0.5)
        axis.plot(intensity, median, "o", color=line.get_color(), label=f"{name}, {median:.0f}")
    _words(axis, "FLOPs a byte", "GFLOP/s", title)
    axis.legend(**BESIDE, title="GFLOP/s, median")
    return figure


@plt.rc_context(PLAIN)
def iso_flop_curves(
    losses: Mapping[str, Mapping[float, Sequence[float]]],
    fitted: Mapping[str, Line],
    *,
    dashed: str = "",
    title: str = "",
) -> Figure:
    """Loss over size, a colour a budget: a large dot for a size's own loss, small ones for those of other runs.

    ``fitted`` are a law's curves, with a ▼ where each is lowest; that of the budget ``dashed`` is a forecast.
    Source: Hoffmann et al. 2022, figure 3.
    """
    figure, ((axis,),) = new_figure(1, 1, 7.2, 3.8)
    for number, (budget, sizes) in enumerate(losses.items()):
        colour, style = f"C{number}", "--" if budget == dashed else "-"
        x, y = fitted[budget]
        axis.plot(x, y, style, color=colour, linewidth=1, label=budget + (" (forecast)" if budget == dashed else ""))
        lowest = min(range(len(y)), key=y.__getitem__)
        if 0 < lowest < len(y) - 1:
            axis.plot(x[lowest], y[lowest], "v", color=colour, markersize=7)
        for size, (own, *others) in sizes.items():
            axis.plot(size, own, "o", color=colour, markersize=6)
            axis.plot([size] * len(others), others, "o", color=colour, markersize=3, markerfacecolor="white", zorder=3)
    found = [loss for sizes in losses.values() for values in sizes.values() for loss in values]
    margin = 0.15 * (max(found) - min(found))
    axis.set_xscale("log")
    axis.set_ylim(min(found) - margin, max(found) + margin)
    _words(axis, "parameters", "loss, nats", title)
    axis.legend(**BESIDE, title="FLOPs")
    return figure


@plt.rc_context(PLAIN)
def planned_and_measured(
    planned: Mapping[str, Line],
    measured: Mapping[str, Line],
    *,
    across: str,
    label: str,
    levels: Mapping[str, float] | None = None,
    title: str = "",
) -> Figure:
    """Planned lines and, in the colour of the same name, measured points, both axes logarithmic.

    ``levels`` are dotted, such as the memory of a card.
    """
    figure, ((axis,),) = new_figure(1, 1, 7.2, 3.6)
    for number, (name, (x, y)) in enumerate(planned.items()):
        axis.loglog(x, y, color=f"C{number}", label=f"{name}, planned")
        if name in measured:
            axis.plot(*measured[name], "o", color=f"C{number}", label=f"{name}, measured")
    start = min(min(x) for x, _ in planned.values())
    for name, height in (levels or {}).items():
        axis.axhline(height, color=MUTED, linewidth=0.8, linestyle=":")
        axis.text(start, height * 1.15, name, fontsize=7, color=MUTED)
    axis.set_xscale("log", base=2)
    _words(axis, across, label, title)
    axis.legend(**BESIDE)
    return figure
