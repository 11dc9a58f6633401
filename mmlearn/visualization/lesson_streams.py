"""What the lesson on two streams draws: the curves of several tasks, and co-attention in both directions."""

from collections.abc import Mapping, Sequence
from itertools import cycle

import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from mmlearn.visualization.captions import INKS
from mmlearn.visualization.figures import MUTED, PLAIN, RIGHT, WRONG, frame_image, new_figure, show_image
from mmlearn.visualization.lesson import dimmed


@plt.rc_context(PLAIN)
def curves_of_tasks(
    tasks: Mapping[str, Mapping[str, Sequence[float]]], *, every: int, floors: Mapping[str, float], title: str = ""
) -> Figure:
    """A panel for each task, in it the share right of each model, measured every so many steps from step 0."""
    figure, axes = new_figure(1, len(tasks), 4.2, 3.2)
    for axis, (task, models) in zip(axes[0], tasks.items()):
        for (name, values), style, marker in zip(models.items(), cycle(("-", "--", "-.", ":")), cycle("os^D")):
            axis.plot(every * np.arange(len(values)), values, style, marker=marker, markersize=4, label=name)
        for (name, floor), style in zip(floors.items(), cycle((":", "--"))):
            axis.axhline(floor, color=MUTED, linestyle=style, linewidth=1, label=name)
        axis.set(xlabel="step", ylim=(0, 1.04))
        axis.set_title(task, fontsize=10)
        axis.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        axis.spines[["top", "right"]].set_visible(False)
    handles, names = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, names, frameon=False, fontsize=9.5, loc="outside lower center", ncols=3)
    figure.suptitle(title, fontsize=10.5)
    return figure


@plt.rc_context(PLAIN)
def both_ways(
    image: Float[Tensor, "3 size size"],
    boxes: Float[Tensor, "p 4"],
    names: Sequence[str],
    words: Sequence[str],
    to_regions: Mapping[int, Float[Tensor, "p"]],
    to_words: Mapping[int, Float[Tensor, "t"]],
    answers: Mapping[int, tuple[str, bool]],
    *,
    title: str = "",
) -> Figure:
    """Co-attention in both directions over one picture and its caption.

    Above, for each thing whose word is hidden, its attention ``to_regions``: they keep as much of their colours as
    they get. Below, for each grey thing, its region's attention ``to_words``, as bars in the ink of its box.
    ``answers`` has for each thing the answer, and whether it is right.
    """
    columns, size = len(to_regions) + 1, image.shape[-1]
    figure = plt.figure(figsize=(2.9 * columns, 4.9), layout="constrained")
    grid = figure.add_gridspec(2, columns, height_ratios=(2.9, 1.2))
    edges = (boxes * size).tolist()
    for k, asked in enumerate((None, *to_regions)):
        axis = figure.add_subplot(grid[0, k])
        show_image(axis, image if asked is None else dimmed(image, boxes, to_regions[asked]))
        frame_image(axis, "#d0d7de", 1)
        for thing, ink in zip(to_words, INKS) if asked is None else [(asked, "#24292f")]:
            left, top, right, bottom = edges[thing]
            axis.add_patch(Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor=ink, linewidth=1.8))
        if asked is None:
            axis.set_title("the picture: two things in grey", fontsize=10)
            continue
        colour, is_right = answers[asked]
        axis.set_title(f"hidden word of {names[asked]}: {colour}", fontsize=10, color=RIGHT if is_right else WRONG)
        for (left, top, _, _), share in zip(edges, to_regions[asked].tolist()):
            axis.text(left, max(top, 14), f"{share:.0%}", fontsize=9, color="#24292f", va="bottom",
                      bbox=dict(facecolor="white", edgecolor="none", alpha=0.75, pad=0.8))  # fmt: skip
    axis = figure.add_subplot(grid[1, :])
    for k, ((thing, looks), ink) in enumerate(zip(to_words.items(), INKS)):
        label = f"grey {names[thing]}: {answers[thing][0]} ({'right' if answers[thing][1] else 'wrong'})"
        axis.bar(np.arange(len(words)) + 0.36 * (k - 0.5), looks.tolist(), 0.34, color=ink, label=label)
    axis.set_xticks(range(len(words)), words, fontsize=10, rotation=35, ha="right", rotation_mode="anchor")
    axis.set(ylim=(0, 1), ylabel="attention")
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, fontsize=10, loc="lower right", ncols=2, bbox_to_anchor=(1, 0.95))
    figure.suptitle(title, fontsize=10.5)
    return figure
