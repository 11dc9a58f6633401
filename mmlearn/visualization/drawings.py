"""Grids of small drawings, enlarged so that a person can judge them: by caption, by training step, by pair of words."""

import textwrap
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import torch.nn.functional as F
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from mmlearn.visualization.figures import PLAIN, RIGHT, WRONG, frame_image, new_figure, show_image


def enlarged(image: Float[Tensor, "3 height width"], times: int = 4) -> Float[Tensor, "3 larger wider"]:
    """A small picture with smooth edges, for a person to look at."""
    return F.interpolate(image[None].float(), scale_factor=times, mode="bicubic", align_corners=False)[0].clamp(0, 1)


@plt.rc_context(PLAIN)
def drawn_rows(
    rows: Mapping[str, Sequence[Float[Tensor, "3 height width"]]],
    captions: Sequence[str],
    *,
    right: Mapping[str, Sequence[bool]] | None = None,
    title: str = "",
) -> Figure:
    """Rows of small pictures, each row with its name, and above each column its caption.

    Where it is known which are ``right``, these have a green frame, and the others a red one. Raises ``ValueError`` for
    a row of another length than the captions.
    """
    for name, images in rows.items():
        if len(images) != len(captions):
            raise ValueError(f"Row {name!r} has {len(images)} pictures, and there are {len(captions)} captions.")
    figure, axes = new_figure(len(rows), len(captions), 1.22, 1.2 + 0.3 / len(rows))
    for line, (name, images) in zip(axes, rows.items()):
        line[0].set_ylabel(textwrap.fill(name, 14), fontsize=9.5, rotation=0, ha="right", va="center")
        for column, (axis, image) in enumerate(zip(line, images)):
            show_image(axis, enlarged(image))
            hit = right[name][column] if right and name in right else None
            frame_image(axis, "#d0d7de" if hit is None else RIGHT if hit else WRONG, 1 if hit is None else 2.2)
    for axis, caption in zip(axes[0], captions):
        axis.set_title(textwrap.fill(caption, 15), fontsize=9.5)
    figure.suptitle(title, fontsize=10.5)
    return figure


@plt.rc_context(PLAIN)
def pair_grid(
    images: Mapping[tuple[str, str], Float[Tensor, "3 height width"]],
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    held_out: Sequence[tuple[str, str]] = (),
    wrong: Sequence[tuple[str, str]] = (),
    title: str = "",
) -> Figure:
    """A small picture for each (row, column), or an empty cell; pairs that are held out have a dashed frame.

    Pictures that are ``wrong`` have a red cross in their corner.
    """
    figure, axes = new_figure(len(rows), len(columns), 0.98, 0.98 + 0.5 / len(rows))
    for line, row in zip(axes, rows):
        line[0].set_ylabel(row, fontsize=10.5, rotation=0, ha="right", va="center")
        for axis, column in zip(line, columns):
            pair = row, column
            if pair in images:
                show_image(axis, enlarged(images[pair]))
            else:
                axis.set(xticks=[], yticks=[], xlim=(0, 1), ylim=(1, 0), aspect="equal")
            frame_image(axis, "#d0d7de", 1)
            if pair in held_out:
                frame_image(axis, "#24292f", 2)
                for spine in axis.spines.values():
                    spine.set_linestyle((0, (3, 2)))
            if pair in wrong:
                axis.text(0.93, 0.93, "✗", transform=axis.transAxes, ha="right", va="top", fontsize=13, color=WRONG,
                          weight="bold")  # fmt: skip
    for axis, column in zip(axes[0], columns):
        axis.set_title(column, fontsize=10.5)
    figure.suptitle(title, fontsize=10.5)
    return figure
