"""What lessons draw of sounds: letters above the moments in which they were heard, and CTC's lattice."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import PercentFormatter
from torch import Tensor

from mmlearn.visualization.figures import MUTED, PLAIN, RIGHT, WRONG, new_figure

HEARD, MISHEARD, ASSUMED = RIGHT, WRONG, MUTED
INK = "#24292f"
PATH = "#d62754"
SPAN = "#5ce1e6"  # when something sounds, on a dark spectrogram


@plt.rc_context(PLAIN)
def written_over_sound(
    mels: Sequence[Float[Tensor, "mels s"]],
    written: Sequence[Sequence[tuple[float, str]]],
    spans: Sequence[Sequence[tuple[float, float, str]]] = (),
    *,
    titles: Sequence[str] = (),
    title: str = "",
    check: bool = True,
) -> Figure:
    """Log-mels of 100 frames a second, and above each the letters that were written, at the frame of each.

    ``written`` are (frame, letter); ``spans`` are (first frame, last frame, what is said there), which are outlined.
    With ``check``, letters that belong to what is said are green and others red; without, all are grey.
    """
    wide = max(mel.shape[-1] for mel in mels) / 100
    figure, axes = new_figure(len(mels), 1, 7.6, 1.75 + 0.3 / len(mels))
    for row, (axis, mel, letters, said) in enumerate(zip(axes[:, 0], mels, written, spans or [()] * len(mels))):
        bands = _spectrogram(axis, mel, wide)
        for begin, end, text in said:
            corner, extent = (begin / 100, 0.6), ((end - begin) / 100, bands - 1.2)
            axis.add_patch(Rectangle(corner, *extent, fill=False, edgecolor=SPAN, linewidth=1.6))
            axis.text((begin + 2) / 100, 2, text, color="white", fontsize=9.5, weight="bold", va="bottom")
        right = _belongs("".join(letter for _, letter in letters), " ".join(text for *_, text in said if text))
        colours = [(HEARD if belongs else MISHEARD) if check else ASSUMED for belongs in right]
        _letters_above(axis, letters, colours, bands, wide)
        axis.set_title(titles[row] if titles else "", fontsize=9.5, loc="left", pad=34)
    axes[-1, 0].set_xlabel("seconds (up: from low to high frequencies)", fontsize=9)
    figure.suptitle(title, fontsize=10.5)
    return figure


@plt.rc_context(PLAIN)
def aligned_over_sound(
    mel: Float[Tensor, "mels s"],
    text: str,
    shares: Mapping[str, Float[Tensor, "patches letters"]],
    *,
    first: int = 6,
    stride: int = 3,
    title: str = "",
) -> Figure:
    """For each aligner a row: the log-mel of 100 frames a second, and over it where each letter of the text is.

    ``shares`` has for each name how probable each letter is at each patch, drawn as a hill from 0 to the full height.
    The letter is written above its peak. Patches have their middles at frame ``first`` and every ``stride`` frames.
    """
    wide = mel.shape[-1] / 100
    figure, axes = new_figure(len(shares), 1, 7.6, 1.9 + 0.3 / len(shares))
    for axis, (name, share) in zip(axes[:, 0], shares.items()):
        bands = _spectrogram(axis, mel, wide, shade=1.5)
        seconds = (first + stride * np.arange(len(share))) / 100
        for k, letter in enumerate(share.T.numpy()):
            colour = (SPAN, "white")[k % 2]
            axis.fill_between(seconds, bands * letter, color=colour, alpha=0.35, linewidth=0)
            axis.plot(seconds, bands * letter, color=colour, linewidth=1.3)
        peaks = [(first + stride * int(patch), letter) for patch, letter in zip(share.argmax(0), text)]
        _letters_above(axis, sorted(peaks, key=lambda peak: peak[0]), [INK] * len(text), bands, wide)
        axis.set_ylim(0, bands * 1.005)
        axis.set_title(name, fontsize=9.5, loc="left", pad=34)
    axes[-1, 0].set_xlabel("seconds (height of a hill: how probable the letter is there, from 0 to 1)", fontsize=9)
    figure.suptitle(title, fontsize=10.5)
    return figure


def _spectrogram(axis: Any, mel: Tensor, wide: float, shade: float = 1.0) -> int:
    """Draw a log-mel, the darker the higher ``shade``, and return how many bands it has."""
    bands, frames = mel.shape
    low, high = mel.min().item(), mel.max().item()
    axis.imshow(mel, origin="lower", aspect="auto", cmap="magma", extent=(0, frames / 100, 0, bands), vmin=low,
                vmax=low + shade * (high - low))  # fmt: skip
    axis.set(xlim=(0, wide), ylim=(0, bands), yticks=[])
    axis.spines[["top", "right", "left"]].set_visible(False)
    return bands


def _letters_above(
    axis: Any, letters: Sequence[tuple[float, str]], colours: Sequence[str], bands: int, wide: float
) -> None:
    """Write each letter above its frame, on a second line where the first has no room."""
    free = [-1.0, -1.0]  # until where each of two lines is written
    for (frame, letter), colour in zip(letters, colours):
        line = 0 if frame / 100 >= free[0] or free[0] <= free[1] else 1
        free[line] = frame / 100 + 0.018 * wide
        axis.plot([frame / 100] * 2, [bands, bands * (1.05 + 0.22 * line)], color=colour, linewidth=0.8, alpha=0.6,
                  clip_on=False)  # fmt: skip
        axis.text(frame / 100, bands * (1.05 + 0.22 * line), letter.replace(" ", "␣"), color=colour, fontsize=11.5,
                  ha="center", va="bottom", weight="bold")  # fmt: skip


def _belongs(written: str, said: str) -> list[bool]:
    """For each written letter, whether it is kept by the fewest edits that make what is said of it.

    Of alignments with equally few edits, one that keeps the most letters. A space behind the last letter is never kept.
    """
    edit = len(written) + len(said) + 1  # weighs more than all letters that are kept
    cost = [[edit * j for j in range(len(said) + 1)]]
    for i, one in enumerate(written):
        cost.append([edit * (i + 1)])
        for j, other in enumerate(said):
            replaced = cost[i][j] + (-1 if one == other else edit)
            cost[-1].append(min(replaced, cost[i][j + 1] + edit, cost[-1][j] + edit))
    belongs, i, j = [False] * len(written), len(written), len(said)
    while i and j:  # back from the ends
        same = written[i - 1] == said[j - 1]
        if cost[i][j] == cost[i - 1][j - 1] + (-1 if same else edit):
            i, j = i - 1, j - 1
            belongs[i] = same and i < len(written.rstrip())
        elif cost[i][j] == cost[i - 1][j] + edit:
            i -= 1
        else:
            j -= 1
    return belongs


@plt.rc_context(PLAIN)
def ctc_lattice(
    values: Float[Tensor, "s states"], symbols: Sequence[str], path: Sequence[int], *, label: str, title: str = ""
) -> Figure:
    """CTC's lattice: a row for each state of a text between blanks (–), a column for each patch, and one path.

    The moves that a path may make are thin lines; the values are written into the cells.
    """
    frames, states = values.shape
    figure, ((axis,),) = new_figure(1, 1, 6.4, 0.9 + 0.44 * states)
    shown = axis.imshow(values.T, aspect="auto", cmap="Blues", vmin=0)
    figure.colorbar(shown, ax=axis, label=label, pad=0.02, format=PercentFormatter(1, decimals=0))
    for frame in range(frames - 1):
        for state in range(states):
            skips = symbols[state : state + 3 : 2]
            most = 2 if len(skips) == 2 and "–" not in skips and skips[0] != skips[1] else 1
            for step in range(min(most, states - 1 - state) + 1):
                axis.plot([frame, frame + 1], [state, state + step], color=MUTED, linewidth=0.6, alpha=0.5)
    for frame, state in np.ndindex(frames, states):
        edge = PATH if path[frame] == state else "none"
        box = dict(boxstyle="round,pad=0.3", facecolor="white", edgecolor=edge, linewidth=2, alpha=0.92)
        axis.text(frame, state, f"{values[frame, state]:.1%}", ha="center", va="center", fontsize=9, bbox=box)
    axis.plot(range(frames), path, color=PATH, linewidth=2, label="likeliest path")
    axis.set_yticks(range(states), [symbol.replace(" ", "␣") for symbol in symbols], fontsize=10)
    axis.set_xticks(range(frames), [str(frame + 1) for frame in range(frames)])
    axis.set(xlim=(-0.5, frames - 0.5), xlabel="patch", ylabel="the text between blanks (–)")
    axis.set_title(title, fontsize=10.5)
    figure.legend(frameon=False, fontsize=9, loc="outside lower center")
    return figure
