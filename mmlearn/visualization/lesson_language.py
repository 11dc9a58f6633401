"""What lessons draw of language models: objectives on tokens, words at a gap, rotary positions, what a change buys."""

import math
from collections.abc import Collection, Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Circle, Rectangle, Wedge
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from mmlearn.visualization.figures import HEAT, MUTED, PLAIN, WRONG, new_figure

QUERY, KEY = "#2f6f9f", "#e8743b"
BETWEEN = "#f6e3a1"
COLOURS = ("#7fb2d6", "#2f6f9f", "#f28e3c", "#6bb36b", "#24292f")  # of models, in their order
KINDS = (QUERY, KEY, MUTED)  # of words
STATES = {"": "#eef1f4", "hidden": BETWEEN, "wrong": "#f3b6a9", "asked": "#bfe3c6"}
STATE_NAMES = {"hidden": "hidden", "wrong": "replaced by another word", "asked": "what it learns to predict"}
Scores = Mapping[str, Mapping[str, float]]


@plt.rc_context(PLAIN)
def rotating_hands(
    rows: Mapping[str, tuple[Float[Tensor, "k"], Float[Tensor, "k"]]], columns: Sequence[str], *, title: str = ""
) -> Figure:
    """A query and a key in each row, and in it a dial for each pair of features i and i + k/2, which are its hands.

    A dial shades the angle from key to query and says what its pair adds to the score; a row's name is followed by the
    sum. ``columns`` are the names of pairs. ``ValueError`` for another number of them.
    """
    half = len(next(iter(rows.values()))[0]) // 2
    if len(columns) != half:
        raise ValueError(f"{half} pairs of features need {half} names, got {len(columns)}.")
    figure, axes = new_figure(len(rows), half, 7.6 / half, 1.15)
    for cells, (name, (query, key)) in zip(axes, rows.items()):
        for pair, axis in enumerate(cells):
            hands = [(x[pair].item(), x[pair + half].item()) for x in (query, key)]
            angles = [math.degrees(math.atan2(up, across)) for across, up in hands]
            axis.add_patch(Circle((0, 0), 1, fill=False, edgecolor=MUTED, linewidth=0.8))
            between = (angles[0] - angles[1] + 180) % 360 - 180  # the short way from key to query
            first, last = sorted((angles[1], angles[1] + between))
            axis.add_patch(Wedge((0, 0), 0.55, first, last, facecolor=BETWEEN))
            for (across, up), colour in zip(hands, (QUERY, KEY)):
                length = math.hypot(across, up) or 1.0
                axis.plot([0, across / length], [0, up / length], color=colour, linewidth=2.2, solid_capstyle="round")
            adds = sum(a * b for a, b in zip(*hands))
            axis.text(0, -1.15, f"{adds:+.2f}", ha="center", va="top", fontsize=9)
            axis.set(xlim=(-1.1, 1.1), ylim=(-1.6, 1.8), aspect="equal")
            axis.axis("off")
        told = f"{name}: score {(query @ key).item():+.2f}"
        cells[0].text(-1.1, 1.3, told, fontsize=9.5, weight="bold").set_in_layout(False)  # as wide as the row
    for axis, column in zip(axes[-1], columns):
        axis.text(0, -1.95, column, ha="center", va="top", fontsize=8.5, color=MUTED)
    axes[0, 0].plot([], [], color=QUERY, linewidth=2.2, label="query")
    axes[0, 0].plot([], [], color=KEY, linewidth=2.2, label="key")
    figure.legend(frameon=False, fontsize=9, loc="outside lower center", ncols=2)
    figure.suptitle(title, fontsize=10.5)
    return figure


@plt.rc_context(PLAIN)
def loss_by_position(
    panels: Mapping[str, Mapping[str, Float[Tensor, "n"]]],
    *,
    trained: int,
    every: int = 16,
    floors: Mapping[str, float] | None = None,
    title: str = "",
) -> Figure:
    """The loss over the position in a text, as the mean of ``every`` so many positions; behind it what was trained.

    A panel for each title, all with one scale. The first ``trained`` positions are white, and later ones are shaded.
    Lines of one model, which are called by the words before a comma, have one colour; they are dashed, solid and dotted
    in their order. ``floors`` are losses of what knows only so much.
    """
    figure, (axes,) = new_figure(1, len(panels), 6.8 / len(panels), 3.6)
    for axis, (panel, lines) in zip(axes, panels.items()):
        models = list(dict.fromkeys(name.partition(",")[0] for name in lines))
        for name, values in lines.items():
            means, colour = values.unfold(0, every, every).mean(1), f"C{models.index(name.partition(',')[0])}"
            at = np.arange(len(means)) * every + every / 2
            own = [each for each in lines if each.partition(",")[0] == name.partition(",")[0]].index(name)
            axis.plot(at, means.numpy(), ("--", "-", ":")[own % 3], color=colour, marker="os^"[own % 3], markersize=3.5,
                      label=name)  # fmt: skip
        last = max(len(values) for values in lines.values())
        axis.axvspan(trained, last, color="#f3f0e6", zorder=0)
        axis.annotate("longer than in training", (trained + 3, 0.98), xycoords=("data", "axes fraction"), va="top",
                      fontsize=9, color=MUTED)  # fmt: skip
        for name, floor in (floors or {}).items():
            axis.axhline(floor, color=MUTED, linestyle=":", linewidth=1)
            axis.annotate(name, (0.02, floor), (0, 2), xycoords=("axes fraction", "data"), textcoords="offset points",
                          va="bottom", fontsize=8.5, color=MUTED,
                          bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8})  # fmt: skip
        axis.set(xlabel="position in the text", xlim=(0, last))
        axis.set_title(panel, fontsize=10)
        axis.spines[["top", "right"]].set_visible(False)
    low, high = min(axis.get_ylim()[0] for axis in axes), max(axis.get_ylim()[1] for axis in axes)
    for axis in axes:
        axis.set_ylim(low, high + 0.06 * (high - low))  # room for the words at the top
    axes[0].set_ylabel("loss per character, nats")
    names, lines = axes[0].get_legend_handles_labels()[::-1]
    figure.legend(lines, names, frameon=False, fontsize=9, loc="outside lower center", ncols=min(3, len(names)))
    figure.suptitle(title, fontsize=10.5)
    return figure


@plt.rc_context(PLAIN)
def dots_with_columns(
    results: Mapping[str, float],
    columns: Mapping[str, Sequence[str]],
    *,
    label: str,
    longer: Mapping[str, float] | None = None,
    floors: Mapping[str, float] | None = None,
    title: str = "",
) -> Figure:
    """A row for each name: a diamond where this run is, a disc where a longer one is, and a text of each column.

    A name that only one of the runs has is drawn for it alone. Two columns more say both numbers. Dashed lines are at
    the first row's, dotted ones at ``floors``: what a model gets that knows only so much. The axis need not begin at 0,
    because nothing is as long as its number.
    """
    names = list(dict.fromkeys([*results, *(longer or {})]))
    figure, ((axis, table),) = new_figure(1, 2, 3.5, 1.9 + 0.38 * len(names))
    runs = [("your run", "D", MUTED, results), ("trained for longer", "o", "#6a3d9a", longer or {})]
    told = {called: [f"{run[name]:.2f}" if name in run else "–" for name in names] for called, _, _, run in runs if run}
    for row, name in enumerate(names):
        for called, marker, colour, run in runs:
            if name in run:
                axis.plot(run[name], row, marker, color=colour, markersize=7, label=None if row else called)
        for k, texts in enumerate((*told.values(), *columns.values())):
            table.text(k + 0.9, row, texts[row], va="center", ha="right", fontsize=9.5)
    for k, column in enumerate((*(name.replace(" ", "\n") for name in told), *columns)):
        table.text(k + 0.9, -0.7, column, va="bottom", ha="right", fontsize=8, color=MUTED)
    for _, _, colour, run in runs:
        if run:
            axis.axvline(run[names[0]], color=colour, linestyle="--", linewidth=1, alpha=0.6, zorder=0)
    for called, floor in (floors or {}).items():
        axis.axvline(floor, color=MUTED, linestyle=":", linewidth=1, zorder=0)
        axis.annotate(called, (floor, len(names) - 0.6), (-3, 0), textcoords="offset points", ha="right", va="bottom",
                      fontsize=8.5, color=MUTED)  # fmt: skip
    axis.plot([], [], "--", color=MUTED, linewidth=1, label=f"at {names[0]}")
    axis.set_yticks(range(len(names)), names, fontsize=10)
    axis.set_ylim(len(names) - 0.5, -0.5)
    table.set(xlim=(0, len(told) + len(columns)), ylim=axis.get_ylim())
    table.axis("off")
    axis.set_xlabel(label, fontsize=9.5)
    axis.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axis.spines[["top", "right"]].set_visible(False)
    figure.legend(frameon=False, fontsize=9, loc="outside lower center", ncols=3)
    figure.suptitle(title, fontsize=10.5)
    return figure


@plt.rc_context(PLAIN)
def objectives_on_tokens(
    blocks: Mapping[str, Sequence[tuple[str, Sequence[str], Mapping[str, Collection[int]]]]], *, title: str = ""
) -> Figure:
    """Below each name rows of tokens: what a row is called, its tokens, and which positions have a state.

    States are "hidden", "wrong" and "asked". Where a row has tokens that are asked, these alone are drawn.
    """
    longest = max(len(tokens) for rows in blocks.values() for _, tokens, _ in rows)
    lines = sum(len(rows) + 0.75 for rows in blocks.values())
    figure, ((axis,),) = new_figure(1, 1, 7.4, 0.31 * lines + 0.7)
    y = 0.0
    for name, rows in blocks.items():
        axis.text(-1.55, y, name, fontsize=10.5, weight="bold", va="center")
        y += 0.85
        for row, tokens, states in rows:
            axis.text(-0.1, y, row, fontsize=9, color=MUTED, va="center", ha="right")
            for x, text in enumerate(tokens):
                state = next((state for state, positions in states.items() if x in positions), "")
                if state or "asked" not in states:
                    axis.add_patch(Rectangle((x + 0.02, y - 0.42), 0.96, 0.84, facecolor=STATES[state]))
                    axis.text(x + 0.5, y, text, fontsize=9, ha="center", va="center")
            y += 0.95
        y += 0.2
    axis.set(xlim=(-1.6, longest), ylim=(y, -0.6))
    axis.axis("off")
    used = {state for rows in blocks.values() for *_, states in rows for state in states}
    handles = [Rectangle((0, 0), 1, 1, color=STATES[state], label=text) for state, text in STATE_NAMES.items()
               if state in used]  # fmt: skip
    figure.legend(handles=handles, frameon=False, fontsize=9, loc="outside lower center", ncols=3)
    figure.suptitle(title, fontsize=10.5)
    return figure


@plt.rc_context(PLAIN)
def bars_at_a_gap(
    rows: Mapping[str, Sequence[Float[Tensor, "words"]]],
    kinds: Mapping[str, Sequence[str]],
    columns: Sequence[str],
    *,
    untrained: Mapping[str, Sequence[Float[Tensor, "words"]]] | None = None,
    means: Collection[str] = (),
    title: str = "",
) -> Figure:
    """What each row gives each word in each column's sentence, words coloured by kind; each kind's sum is written.

    ``untrained`` are grey marks across the bars. Rows in ``means`` have the mean of a kind written, not its sum. The
    columns of a row have one scale, whose end stands at its left.
    """
    words = [(word, colour) for (_, some), colour in zip(kinds.items(), KINDS) for word in some]
    figure, axes = new_figure(len(rows), len(columns), 7.4 / len(columns), 0.82)
    figure.set_size_inches(7.4, 0.82 * len(rows) + 1.5)
    for line, (name, values) in zip(axes, rows.items()):
        drawn = [*values, *(untrained or {}).get(name, ())]
        end = math.ceil(20 * max(each.max().item() for each in drawn)) / 20  # up to the next 5%
        top = end * 1.45
        for axis, each, column in zip(line, values, range(len(columns))):
            axis.bar(range(len(words)), each.numpy(), color=[colour for _, colour in words], width=0.8)
            if untrained and name in untrained:
                axis.plot(range(len(words)), untrained[name][column].numpy(), "_", color=MUTED, markersize=7,
                          markeredgewidth=1.4)  # fmt: skip
            begin = 0
            for (_, some), colour in zip(kinds.items(), KINDS):
                share = each[begin : begin + len(some)]
                told = f"{(share.mean() if name in means else share.sum()).item():.0%}"
                axis.text(begin + len(some) / 2 - 0.5, top * 0.98, told, ha="center", va="top", color=colour)
                begin += len(some)
            axis.set(xticks=[], yticks=[], ylim=(0, top), xlim=(-0.7, len(words) - 0.3))
            axis.spines[["top", "right"]].set_visible(False)
            axis.spines["left"].set_bounds(0, end)
        line[0].set_yticks([0, end], ["0", f"{end:.0%}"], fontsize=8)
        line[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9.5)
    for axis, sentence in zip(axes[0], columns):
        axis.set_title(sentence, fontsize=10)
    for axis in axes[-1]:
        axis.set_xticks(range(len(words)), [word for word, _ in words], rotation=90, fontsize=8.5)
    handles: list[Artist] = [Rectangle((0, 0), 1, 1, color=colour, label=name) for name, colour in zip(kinds, KINDS)]
    if untrained:
        handles.append(Line2D([], [], color=MUTED, marker="_", linestyle="", label="untrained"))
    figure.legend(handles=handles, frameon=False, fontsize=9, loc="outside lower center", ncols=4)
    figure.suptitle(title, fontsize=10.5)
    return figure


def power_of_ten(value: float) -> str:
    """A number as it is written below an axis: 0, 10, 1,000, and from 100,000 on a power such as 10⁵."""
    exponent = str(round(math.log10(value))) if value > 0 else "0"
    return f"{value:,.0f}" if value < 1e5 else "10" + exponent.translate(str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹"))


@plt.rc_context(PLAIN)
def scores_over_work(
    panels: Mapping[str, Mapping[str, tuple[Sequence[float], Sequence[float]]]],
    *,
    names: Sequence[str],
    across: Sequence[str],
    up: Sequence[str],
    floors: Mapping[str, float] | None = None,
) -> Figure:
    """Shares over the length of a training, which is drawn in powers of ten: a panel of each title.

    A line has many points, which may begin with 0; a single point is labelled. Each begins with one of ``names``,
    which has its colour. ``across`` and ``up`` are the labels of the axes; ``floors`` has for a panel's title what
    chance gives.
    """
    figure, (axes,) = new_figure(1, len(panels), 7.4 / len(panels), 3.3)
    for axis, (title, lines), label, upward in zip(axes, panels.items(), across, up):
        for line, (work, scores) in lines.items():
            fits = [(len(name), colour) for name, colour in zip(names, COLOURS) if line.startswith(name)]
            colour = max(fits, default=(0, MUTED))[1]  # of the longest name that it begins with
            axis.plot(work, scores, marker="o", markersize=4.5, linewidth=2, color=colour)
            if len(work) == 1 or line not in names:
                axis.annotate(line, (work[-1], scores[-1]), (6, 0), textcoords="offset points", fontsize=9, va="center")
        if floors and title in floors:
            axis.axhline(floors[title], color=WRONG, linestyle="--", linewidth=1)
        steps = [step for work, _ in lines.values() for step in work]
        first = min(step for step in steps if step > 0)
        axis.set_xscale("log")
        if min(steps) == 0:  # up to the first step it is linear, and says 0 alone
            axis.set_xscale("symlog", linthresh=first, linscale=0.3)
            axis.set_xticks([0, *(10.0**k for k in range(1, 30) if first <= 10**k <= max(steps))])
            axis.set_xlim(left=0)
        axis.xaxis.set_major_formatter(lambda value, _: power_of_ten(value))
        axis.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        axis.set(xlabel=label, ylabel=upward, title=title)
        axis.spines[["top", "right"]].set_visible(False)
    handles = [Line2D([], [], color=colour, marker="o", label=name) for name, colour in zip(names, COLOURS)]
    if floors:
        handles.append(Line2D([], [], color=WRONG, linestyle="--", label="chance"))
    figure.legend(handles=handles, frameon=False, fontsize=9, loc="outside lower center", ncols=5)
    return figure


@plt.rc_context(PLAIN)
def word_similarities(
    panels: Mapping[str, Float[Tensor, "words width"]], kinds: Mapping[str, Sequence[str]], *, title: str = ""
) -> Figure:
    """The cosine of every two words in each panel, whose vectors are in the order of ``kinds``, with lines between.

    A title says the mean cosine of two words of one kind, without a word with itself, and of words of different kinds.
    """
    words, ends = [word for some in kinds.values() for word in some], np.cumsum([len(some) for some in kinds.values()])
    kind = torch.tensor([k for k, some in enumerate(kinds.values()) for _ in some])
    same, itself = kind[:, None] == kind, torch.eye(len(words), dtype=torch.bool)
    figure, axes = new_figure(-(-len(panels) // 2), 2, 3.6, 3.9)
    for axis, (name, vectors) in zip(axes.flat, panels.items()):
        cosine = F.normalize(vectors, dim=-1) @ F.normalize(vectors, dim=-1).T
        shown = axis.imshow(cosine.numpy(), cmap=HEAT, vmin=-0.5, vmax=1)
        near, far = cosine[same & ~itself].mean().item(), cosine[~same].mean().item()
        axis.set_title(f"{name}\nsame kind {near:+.2f}, other kind {far:+.2f}", fontsize=10)
        axis.hlines(ends[:-1] - 0.5, -0.5, len(words) - 0.5, color="white", linewidth=1.5)
        axis.vlines(ends[:-1] - 0.5, -0.5, len(words) - 0.5, color="white", linewidth=1.5)
        axis.set_xticks(range(len(words)), words, rotation=90, fontsize=8.5)
        axis.set_yticks(range(len(words)), words, fontsize=8.5)
        axis.tick_params(length=0)
        for label, which in zip([*axis.get_xticklabels(), *axis.get_yticklabels()], [*kind, *kind]):
            label.set_color(KINDS[int(which)])
    figure.colorbar(shown, ax=axes.ravel().tolist(), label="cosine", location="bottom", shrink=0.4, aspect=30)
    figure.suptitle(title, fontsize=10.5)
    return figure


@plt.rc_context(PLAIN)
def scores_in_cells(scores: Scores, before: Scores, *, chance: float, title: str = "") -> Figure:
    """A row for each model and a column for each test: a share, green from chance to 1, and below it the untrained one.

    A model that ``before`` has not was not trained: its cells have one number.
    """
    tests = list(next(iter(scores.values())))
    figure, ((axis,),) = new_figure(1, 1, 7.4, 0.55 * len(scores) + 1.1)
    values = np.array([[found[test] for test in tests] for found in scores.values()])
    axis.imshow(values, cmap="Greens", vmin=chance, vmax=1.6 - 0.6 * chance, aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        axis.text(column, row - 0.1, f"{value:.0%}", ha="center", va="center", fontsize=11)
        if old := before.get(list(scores)[row]):
            axis.text(column, row + 0.28, f"untrained {old[tests[column]]:.0%}", ha="center", va="center", fontsize=8)
    axis.set_xticks(range(len(tests)), [test.replace(", ", ",\n") for test in tests], fontsize=9.5)
    axis.set_yticks(range(len(scores)), list(scores), fontsize=10)
    axis.xaxis.tick_top()
    axis.tick_params(length=0)
    axis.set_xlabel(f"chance {chance:.0%}; the greener, the further above it", fontsize=9, color=MUTED)
    axis.spines[:].set_visible(False)
    figure.suptitle(title, fontsize=10.5)
    return figure
