"""Which words see which in each role of a transformer; and how true and wrong captions score."""

import re
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Bool, Float
from matplotlib.figure import Figure
from torch import Tensor

from mmlearn.visualization.answered import dialogue_board
from mmlearn.visualization.figures import MUTED, PLAIN, RIGHT, WRONG, new_figure


@plt.rc_context(PLAIN)
def who_sees_what(roles: Mapping[str, Bool[Tensor, "t seen"]], words: Sequence[str]) -> Figure:
    """For each role a grid: a dark cell where the state of the word at its row changes with what its column names.

    The columns are the words and, last, the picture.
    """
    seen = [*words, "picture"]
    figure, axes = new_figure(1, len(roles), 2.75, 2.9)
    for axis, (role, cells) in zip(axes[0], roles.items()):
        axis.imshow(cells.numpy(), cmap="Blues", vmin=0, vmax=1.4)
        axis.set_xticks(range(len(seen)), seen, rotation=60, ha="right", rotation_mode="anchor", fontsize=10)
        axis.set_yticks(range(len(words)), words if axis is axes[0, 0] else [], fontsize=10)
        axis.set_xticks(np.arange(0.5, len(seen) - 1), minor=True)
        axis.set_yticks(np.arange(0.5, len(words) - 1), minor=True)
        axis.grid(which="minor", color="white", linewidth=1.5)
        axis.tick_params(which="both", length=0)
        axis.set_title(role, fontsize=10.5)
    axes[0, 0].set_ylabel("the state of …", fontsize=10)
    figure.supxlabel("… changes where this is changed (dark)", fontsize=10)
    return figure


@plt.rc_context(PLAIN)
def score_histograms(
    scores: Mapping[str, Float[Tensor, "n"]], true: Bool[Tensor, "n"], *, threshold: float, title: str = ""
) -> Figure:
    """For each filter, how the logits of true captions are spread, and those of wrong ones; each sums to 1.

    The dashed line is the ``threshold``, a logit, where scores are on both sides of it.
    """
    figure, axes = new_figure(1, len(scores), 3.7, 2.7)
    for axis, (name, values) in zip(axes[0], scores.items()):
        low, high = values.min().item(), values.max().item()
        edges = np.linspace(low, high, 31)
        for label, which, colour in (("wrong captions", ~true, WRONG), ("true captions", true, RIGHT)):
            part = values[which].numpy()
            axis.hist(part, edges, weights=np.full(len(part), 1 / max(len(part), 1)), color=colour, alpha=0.6,
                      label=label if axis is axes[0, 0] else None)  # fmt: skip
        if low < threshold < high:
            axis.axvline(threshold, color=MUTED, linestyle="--", label="threshold")
        axis.set(xlabel="logit of the match", ylabel="share of captions" if axis is axes[0, 0] else "")
        axis.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        axis.set_title(name, fontsize=10.5)
        axis.spines[["top", "right"]].set_visible(False)
    figure.legend(frameon=False, fontsize=9, loc="outside lower center", ncols=3)
    figure.suptitle(title, fontsize=10.5)
    return figure


def judged_captions(
    images: Sequence[Float[Tensor, "3 height width"]],
    captions: Sequence[Mapping[str, tuple[str, bool, bool]]],
    *,
    title: str = "",
) -> Figure:
    """Pictures with captions below them: green where a filter kept them, else red and struck out.

    The captions of a picture are by their label: (text, whether it was kept, whether it is true). Where the filter was
    wrong the label says so.
    """
    turns = []
    for each in captions:
        rows = []
        for label, (text, kept, true) in each.items():
            wrong = "" if kept == true else " (true, but refused)" if true else " (wrong, but kept)"
            struck = text if kept else re.sub(r"(\S)", "\\1\u0336", text)  # a line through each letter
            rows.append((label + wrong, struck, bool(kept)))
        turns.append(rows)
    return dialogue_board(images, turns, title=title, wide=48)
