"""What a language model wrote about pictures, below them; and what each trained parameter of a bridge buys."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from mmlearn.visualization.figures import MUTED, PLAIN, RIGHT, WRONG, frame_image, new_figure, show_image


def named_share(written: Sequence[Sequence[str]], true: Sequence[Sequence[str]]) -> float:
    """Of all names that were written, each counted once in its list, the share that are among the true ones."""
    hits = [name in names for row, names in zip(written, true) for name in set(row)]
    return sum(hits) / max(len(hits), 1)


@plt.rc_context(PLAIN)
def answer_board(
    images: Sequence[Float[Tensor, "3 height width"]],
    question: str,
    written: Sequence[Sequence[str]],
    true: Sequence[Sequence[str]],
    *,
    title: str = "",
    columns: int = 4,
    wide: int = 32,
) -> Figure:
    """Pictures, and below each the names that a model wrote: green where they are among the true ones, else red.

    A line is broken between names, after about ``wide`` letters.
    """
    from matplotlib.offsetbox import AnchoredOffsetbox, HPacker, TextArea, VPacker

    boards = []
    for row in written:
        lines: list[list[str]] = [[]]
        for name in dict.fromkeys(row):
            if lines[-1] and len(", ".join([*lines[-1], name])) > wide:
                lines.append([])
            lines[-1].append(name)
        boards.append(lines)
    rows, deepest = -(-len(images) // columns), 1 + max(map(len, boards))
    figure, axes = new_figure(rows, columns, 2.45, 2.45 + 0.2 * deepest + 0.4 / rows)
    for axis in axes.flat[len(images) :]:
        axis.axis("off")
    for axis, image, lines, names in zip(axes.flat, images, boards, true):
        show_image(axis, image)
        frame_image(axis, "#d0d7de", 1)
        packed = [TextArea(question, textprops=dict(size=9, color="#57606a"))]
        for line in lines:
            inks = [dict(size=9.5, weight="bold", color=RIGHT if name in names else WRONG) for name in line]
            ends = [*[","] * (len(line) - 1), "" if line is lines[-1] else ","]
            parts = [TextArea(name + end, textprops=ink) for name, end, ink in zip(line, ends, inks)]
            packed.append(HPacker(children=parts, pad=0, sep=3))
        below = AnchoredOffsetbox("upper center", child=VPacker(children=packed, pad=0, sep=2.5, align="left"),
                                  frameon=False, pad=0.3, bbox_to_anchor=(0.5, 0.0),
                                  bbox_transform=axis.transAxes)  # fmt: skip
        axis.add_artist(below)
    figure.suptitle(title, fontsize=10.5)
    return figure


@plt.rc_context(PLAIN)
def bought(
    points: Mapping[str, tuple[float, float]], floors: Mapping[str, float], *, label: str, title: str = ""
) -> Figure:
    """What each trained parameter buys: name → (trained parameters, share right), over a logarithmic axis.

    ``floors`` are dashed lines, with their names.
    """
    figure, ((axis,),) = new_figure(1, 1, 6.8, 3.5)
    for rank, (name, (parameters, share)) in enumerate(sorted(points.items(), key=lambda point: point[1])):
        axis.plot(parameters, share, "o", markersize=8, color="#146edc")
        below = rank % 2 == 1  # neighbours do not write over one another
        axis.annotate(f"{name}: {share:.0%}", (parameters, share), xytext=(0, -15 if below else 8),
                      textcoords="offset points", ha="center", fontsize=9)  # fmt: skip
    for name, floor in floors.items():
        axis.axhline(floor, color=MUTED, linestyle="--", linewidth=1)
        axis.annotate(name, (1, floor), xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize=9,
                      color=MUTED)  # fmt: skip
    axis.set(xscale="log", xlabel="trained parameters", ylabel=label, ylim=(0, 1.15))
    axis.margins(x=0.2)
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axis.spines[["top", "right"]].set_visible(False)
    axis.set_title(title, fontsize=10.5)
    return figure
