"""What a fusion of two modalities answers: in the plane of two numbers, and for two pictures and two names."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
from jaxtyping import Bool, Float
from matplotlib.figure import Figure
from torch import Tensor

from mmlearn.visualization.figures import PLAIN, RIGHT, WRONG, new_figure, show_image


@plt.rc_context(PLAIN)
def decision_maps(
    maps: Mapping[str, Float[Tensor, "n n"]],
    points: Float[Tensor, "samples 2"],
    yes: Bool[Tensor, "samples"],
    *,
    reach: float,
    names: tuple[str, str],
    title: str = "",
    columns: int = 4,
) -> Figure:
    """The probability of *yes* by two numbers from −``reach`` to ``reach``: blue is no, red is yes, white is one half.

    Rows of a map are values of the second number, from the lowest; ``points`` are samples in the colour of the truth.
    """
    rows = -(-len(maps) // columns)
    figure, axes = new_figure(rows, columns, 2.3, 2.5)
    for axis in axes.flat[len(maps) :]:
        axis.axis("off")
    for axis, (name, chances) in zip(axes.flat, maps.items()):
        extent = (-reach, reach, -reach, reach)
        drawn = axis.imshow(chances.numpy(), origin="lower", extent=extent, cmap="RdBu_r", vmin=0, vmax=1)
        for answer, colour, marker in ((True, "#b2182b", "o"), (False, "#2166ac", "s")):
            axis.scatter(
                *points[yes == answer].T, s=13, color=colour, marker=marker, edgecolors="white", linewidths=0.6
            )
        axis.set_title(name, fontsize=10)
        axis.set(xticks=(), yticks=(), xlim=(-reach, reach), ylim=(-reach, reach))
    for axis in axes[-1]:
        axis.set_xlabel(names[0], fontsize=9)
    for axis in axes[:, 0]:
        axis.set_ylabel(names[1], fontsize=9)
    if len(maps) > 1:
        figure.colorbar(drawn, ax=axes, label="predicted probability of yes", shrink=0.7)
    figure.suptitle(title, fontsize=11)
    return figure


@plt.rc_context(PLAIN)
def square_board(
    images: Sequence[tuple[Tensor, Tensor]],
    names: Sequence[tuple[str, str]],
    scores: Mapping[str, Float[Tensor, "squares 2 2"]],
    *,
    title: str = "",
) -> Figure:
    """Two pictures by two names: a model's score of each cell, *yes* where it is positive; green is right, red wrong.

    A row for each model, a square for each pair of pictures, each (3, height, width); the pictures are the columns of
    a square, the names its rows, and the true pairs its diagonal. Below, both diagonals added up.
    """
    figure, axes = new_figure(len(scores), len(images), 2.75, 3.15)
    for line, (model, squares) in zip(axes, scores.items()):
        for axis, pair, named, square in zip(line, images, names, squares.tolist()):
            for row in range(2):
                for column in range(2):
                    score = square[column][row]  # of picture `column` and name `row`
                    colour = RIGHT if (score > 0) == (row == column) else WRONG
                    axis.add_patch(plt.Rectangle((column + 0.04, row + 0.06), 0.92, 0.88, color=colour, alpha=0.22))
                    told = f"{'yes' if score > 0 else 'no'}\n{score:+.2f}"
                    axis.text(column + 0.5, row + 0.5, told, ha="center", va="center", fontsize=10.5, color=colour)
                axis.text(-0.06, row + 0.5, named[row].replace(" ", "\n"), ha="right", va="center", fontsize=10)
                show_image(axis.inset_axes((row + 0.06, -0.98, 0.88, 0.94), transform=axis.transData), pair[row])
            axis.set(xlim=(-0.75, 2), ylim=(2, -1), aspect="equal", xticks=(), yticks=())
            axis.spines[:].set_visible(False)
            (a, b), (c, d) = square
            axis.set_xlabel(f"true pairs {a + d:+.2f}, false pairs {b + c:+.2f}", fontsize=9)
        line[0].set_title(model, fontsize=10.5, loc="left")
    figure.suptitle(title, fontsize=11)
    return figure
