"""What lessons draw of sounds: letters above the moments in which they were heard, and CTC's lattice."""

from collections.abc import Sequence
from difflib import SequenceMatcher

import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import PercentFormatter
from torch import Tensor

from mmlearn.visualization.figures import MUTED, PLAIN, RIGHT, WRONG, new_figure

HEARD, MISHEARD, ASSUMED = RIGHT, WRONG, MUTED
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
        bands, frames = mel.shape
        axis.imshow(mel, origin="lower", aspect="auto", cmap="magma", extent=(0, frames / 100, 0, bands))
        axis.set(xlim=(0, wide), ylim=(0, bands), yticks=[])
        axis.spines[["top", "right", "left"]].set_visible(False)
        for begin, end, text in said:
            corner, extent = (begin / 100, 0.6), ((end - begin) / 100, bands - 1.2)
            axis.add_patch(Rectangle(corner, *extent, fill=False, edgecolor=SPAN, linewidth=1.6))
            axis.text((begin + 2) / 100, 2, text, color="white", fontsize=9.5, weight="bold", va="bottom")
        right = _belongs("".join(letter for _, letter in letters), " ".join(text for *_, text in said))
        free = [-1.0, -1.0]  # until where each of two lines is written
        for (frame, letter), belongs in zip(letters, right):
            colour = (HEARD if belongs else MISHEARD) if check else ASSUMED
            line = 0 if frame / 100 >= free[0] or free[0] <= free[1] else 1
            free[line] = frame / 100 + 0.018 * wide
            axis.plot([frame / 100] * 2, [bands, bands * (1.05 + 0.22 * line)], color=colour, linewidth=0.8, alpha=0.6,
                      clip_on=False)  # fmt: skip
            axis.text(frame / 100, bands * (1.05 + 0.22 * line), letter.replace(" ", "␣"), color=colour, fontsize=11.5,
                      ha="center", va="bottom", weight="bold")  # fmt: skip
        axis.set_title(titles[row] if titles else "", fontsize=9.5, loc="left", pad=34)
    axes[-1, 0].set_xlabel("seconds (up: from low to high frequencies)", fontsize=9)
    figure.suptitle(title, fontsize=10.5)
    return figure


def _belongs(written: str, said: str) -> list[bool]:
    """For each written letter, whether it is one of what is said, in an alignment of the two."""
    belongs = [False] * len(written)
    for start, _, length in SequenceMatcher(None, written, said, autojunk=False).get_matching_blocks():
        belongs[start : start + length] = [True] * length
    return belongs


@plt.rc_context(PLAIN)
def ctc_lattice(
    values: Float[Tensor, "s places"],
    symbols: Sequence[str],
    path: Sequence[int],
    *,
    label: str,
    title: str = "",
    hop: float = 0.0,
) -> Figure:
    """CTC's lattice: a row for each place of a text between blanks (–), a column for each frame, and one path.

    A small lattice has its moves drawn and its values written into the cells. ``hop`` is in seconds from frame to
    frame; without it frames are numbered from 1.
    """
    frames, places = values.shape
    small = frames <= 10
    figure, ((axis,),) = new_figure(1, 1, 6.4 if small else 7.6, 0.9 + (0.44 if small else 0.19) * places)
    shown = axis.imshow(values.T, aspect="auto", cmap="Blues", vmin=0)
    figure.colorbar(shown, ax=axis, label=label, pad=0.02, format=PercentFormatter(1, decimals=0))
    if small:
        for frame in range(frames - 1):
            for place in range(places):
                skips = symbols[place : place + 3 : 2]
                most = 2 if len(skips) == 2 and "–" not in skips and skips[0] != skips[1] else 1
                for step in range(min(most, places - 1 - place) + 1):
                    axis.plot([frame, frame + 1], [place, place + step], color=MUTED, linewidth=0.6, alpha=0.5)
        for frame, place in np.ndindex(frames, places):
            edge = PATH if path[frame] == place else "none"
            box = dict(boxstyle="round,pad=0.3", facecolor="white", edgecolor=edge, linewidth=2, alpha=0.92)
            axis.text(frame, place, f"{values[frame, place]:.1%}", ha="center", va="center", fontsize=9, bbox=box)
    axis.plot(range(frames), path, "-" if small else "o-", color=PATH, markersize=3, linewidth=2 if small else 1.4,
              label="likeliest path")  # fmt: skip
    axis.set_yticks(range(places), [symbol.replace(" ", "␣") for symbol in symbols], fontsize=10 if small else 8)
    axis.set_xlim(-0.5, frames - 0.5)
    if small:
        axis.set_xticks(range(frames), [str(frame + 1) for frame in range(frames)])
    elif hop:
        axis.xaxis.set_major_formatter(lambda value, _: f"{value * hop:.2f}")
    axis.set_xlabel("seconds" if hop else "frame")
    axis.set_ylabel("the text between blanks (–)")
    axis.set_title(title, fontsize=10.5)
    figure.legend(frameon=False, fontsize=9, loc="outside lower center")
    return figure
