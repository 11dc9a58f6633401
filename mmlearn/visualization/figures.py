"""Figures that carry their numbers. Each returns a matplotlib figure, and draws nothing by itself."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from mmlearn.evaluation.alignment import COVERED, modality_gap, pointing_accuracy, pointing_chance

HEAT = "inferno"
GLOW = (1.0, 0.45, 0.0)
SHADE = 0.8  # how dark a patch without any weight becomes
PLAIN = {"text.parse_math": False}  # captions and names are text, also where they have dollars
RIGHT, WRONG, MUTED = "#1a7f37", "#c4321c", "#57606a"


def new_figure(rows: int, columns: int, width: float, height: float) -> tuple[Figure, np.ndarray]:
    """A figure of so many panels, each so wide and high in inches, and its axes (rows, columns)."""
    figure, axes = plt.subplots(
        rows, columns, figsize=(width * columns, height * rows), dpi=110, squeeze=False, layout="constrained"
    )
    plt.close(figure)  # shown where it is returned, and not a second time at the end of the cell
    return figure, axes


def show_image(axis: Any, image: Float[Tensor, "3 height width"]) -> None:
    """The picture, without ticks."""
    axis.imshow(image.permute(1, 2, 0).clamp(0, 1).numpy(), interpolation="nearest")
    axis.set_xticks([])
    axis.set_yticks([])


def frame_image(axis: Any, colour: str, width: float = 2.5) -> None:
    """A frame around a picture."""
    for spine in axis.spines.values():
        spine.set(edgecolor=colour, linewidth=width, visible=True)


def shade(weights: Float[Tensor, "rows columns"]) -> Float[Tensor, "rows columns 4"]:
    """Black over a picture, the more opaque the less weight; where it is highest the picture keeps its own colours."""
    share = (weights - weights.min()) / (weights.max() - weights.min()).clamp(min=1e-9)
    return torch.cat([torch.zeros(*weights.shape, 3), SHADE * (1 - share)[..., None]], dim=-1)


@plt.rc_context(PLAIN)
def loss_curve(
    history: Sequence[dict[str, float]] | dict[str, Sequence[dict[str, float]]],
    *,
    chance: float | None = None,
    knows: str = "nothing",
    name: str = "loss",
) -> Figure:
    """A metric of every step, and its running mean; several runs by name.

    ``chance`` is a line to be below: what a model pays that ``knows`` no more than this.
    """
    runs = history if isinstance(history, dict) else {name.replace("_", " "): history}
    figure, ((axis,),) = new_figure(1, 1, 6.4, 3.0)
    for label, run in runs.items():
        steps, values = [item["step"] for item in run], np.array([item[name] for item in run])
        window = max(1, len(values) // 40)
        smooth = np.convolve(values, np.ones(window) / window, mode="valid")
        (line,) = axis.plot(steps[window - 1 :], smooth, label=f"{label}  (last {smooth[-1]:.3f})")
        axis.plot(steps, values, color=line.get_color(), alpha=0.2, linewidth=0.8)
    if chance is not None:
        axis.axhline(chance, color=MUTED, linestyle="--", linewidth=1, label=f"knows {knows}: {chance:.3f}")
    axis.set(xlabel="step", ylabel=name.replace("_", " "))
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False)
    return figure


@plt.rc_context(PLAIN)
def similarity_matrix(
    similarity: Float[Tensor, "images texts"],
    captions: Sequence[str] = (),
    images: Sequence[Float[Tensor, "3 height width"]] = (),
    *,
    title: str = "",
) -> Figure:
    """Every picture against every text; the diagonal are the pairs. The title says how often it is the largest."""
    n = len(similarity)
    width, height = max(4.5, 0.65 * n + (1.5 if images else 0.5)), max(3.4, 0.6 * n + 0.8 + 0.16 * len(captions))
    figure, ((axis,),) = new_figure(1, 1, width, height)
    shown = axis.imshow(similarity.numpy(), cmap=HEAT)
    right = similarity.argmax(1) == torch.arange(n)
    axis.set_title(f"{title}\nthe pair is the largest of its row in {int(right.sum())} of {n}".strip(), fontsize=10)
    axis.set_xlabel("texts")
    axis.set_ylabel("pictures")
    axis.set_xticks([])
    axis.set_yticks([])
    if captions:
        axis.set_xticks(range(n), range(1, n + 1), fontsize=8)
        told = [f"{k}  {textwrap.shorten(caption, 90, placeholder=' …')}" for k, caption in enumerate(captions, 1)]
        axis.set_xlabel("\n".join(["texts", *told]), loc="left", multialignment="left", fontsize=8)
    for row, image in enumerate(images):
        inset = axis.inset_axes([-1.6, row - 0.48, 0.96, 0.96], transform=axis.transData)
        show_image(inset, image)
    for i in range(n):
        axis.add_patch(plt.Rectangle((i - 0.5, i - 0.5), 1, 1, fill=False, edgecolor="white", linewidth=1))
    if images:
        axis.set_ylabel("pictures", labelpad=55)
    figure.colorbar(shown, ax=axis, label="similarity", shrink=0.8)
    return figure


@plt.rc_context(PLAIN)
def retrieval_gallery(
    queries: Sequence[str],
    images: Sequence[Float[Tensor, "3 height width"]],
    text_to_image: Float[Tensor, "texts images"],
    right: Sequence[int],
    *,
    top: int = 5,
    title: str = "",
) -> Figure:
    """The pictures nearest to each text, the right one framed in green. ``right[i]`` is the picture of query i."""
    order = text_to_image.argsort(dim=1, descending=True)
    figure, axes = new_figure(len(queries), top + 1, 1.15, 1.3)
    found = 0
    for row, (query, answer) in enumerate(zip(queries, right)):
        axes[row, 0].axis("off")
        text = "\n".join(textwrap.wrap(query, 19))
        axes[row, 0].text(1, 0.5, text, ha="right", va="center", fontsize=7.5, transform=axes[row, 0].transAxes)
        found += answer in order[row, :top].tolist()
        for column, index in enumerate(order[row, :top].tolist()):
            axis = axes[row, column + 1]
            show_image(axis, images[index])
            axis.set_title(f"{text_to_image[row, index]:.2f}", fontsize=7, pad=2)
            frame_image(axis, RIGHT if index == answer else "#d0d7de", 3 if index == answer else 1)
    figure.suptitle(f"{title}\nright picture among the first {top}: {found} of {len(queries)}".strip(), fontsize=10)
    return figure


@plt.rc_context(PLAIN)
def heat_maps(
    images: Float[Tensor, "n 3 height width"],
    words: Sequence[str],
    maps: Float[Tensor, "n p"],
    regions: Float[Tensor, "n p"],
    grid: tuple[int, int],
    *,
    source: str,
    accuracy: float | None = None,
    total: int | None = None,
    chance: float | None = None,
    predicted: Sequence[str] | None = None,
    columns: int = 4,
) -> Figure:
    """One picture a word: the less weight a patch has, the darker it is. A green frame: the highest is on the region.

    ``source`` says where the weights come from (layer and head, or which similarity). ``predicted`` is what the model
    says for each word. The title gives the pointing accuracy and its chance: of these words, unless ``accuracy``, the
    ``total`` it was measured on and ``chance`` are given. Give ``chance`` where only some patches can be pointed at.
    """
    if accuracy is None:
        accuracy, total = pointing_accuracy(maps, regions), len(maps)
    if chance is None:
        chance = pointing_chance(regions)
    rows = -(-len(words) // columns)
    columns = min(columns, len(words))
    figure, axes = new_figure(rows, columns, 2.1, (2.55 if predicted is None else 3.0) + 0.6 / rows)
    height, width = images.shape[-2:]
    for axis in axes.flat[len(words) :]:
        axis.axis("off")
    for i, (axis, image, word, weights, region) in enumerate(zip(axes.flat, images, words, maps, regions)):
        show_image(axis, image)
        whole = (-0.5, width - 0.5, height - 0.5, -0.5)
        axis.imshow(shade(weights.reshape(grid)).numpy(), extent=whole, interpolation="nearest")
        axis.contour(
            np.kron((region.reshape(grid) >= COVERED).numpy(), np.ones((height // grid[0], width // grid[1]))),
            levels=[0.5],
            colors="white",
            linewidths=1.2,
        )
        hit = bool(region[weights.argmax()] >= COVERED)
        axis.set_title("\n".join(textwrap.wrap(word, 24)), fontsize=9, color=RIGHT if hit else WRONG)
        if predicted is not None:
            axis.set_xlabel(f"says: {predicted[i]}", fontsize=9)
        frame_image(axis, RIGHT if hit else WRONG)
    figure.suptitle(
        f"{source}\npoints at the named object in {accuracy:.2f} of {total} maps (chance {chance:.3g})\n"
        "white outline: where the object is; green: the map is highest there, red: it is highest elsewhere",
        fontsize=10,
    )
    return figure


@plt.rc_context(PLAIN)
def head_table(table: Float[Tensor, "layers heads"], layers: Sequence[str], *, chance: float) -> Figure:
    """The pointing accuracy of every layer and head."""
    figure, ((axis,),) = new_figure(1, 1, 1.6 + 0.75 * table.shape[1] + 1.2, 1.1 + 0.5 * len(layers))
    shown = axis.imshow(table.numpy(), cmap=HEAT, vmin=0, vmax=1, aspect="auto")
    for (row, column), value in np.ndenumerate(table.numpy()):
        axis.text(
            column, row, f"{value:.2f}", ha="center", va="center", fontsize=9, color="black" if value > 0.6 else "white"
        )
    axis.set_yticks(range(len(layers)), layers, fontsize=8)
    axis.set_xticks(range(table.shape[1]), [f"head {head}" for head in range(table.shape[1])], fontsize=8)
    figure.colorbar(shown, ax=axis)
    axis.set_title(f"pointing accuracy (chance {chance:.2f})", fontsize=10)
    return figure


@plt.rc_context(PLAIN)
def bars(
    values: Mapping[str, float | Sequence[float]],
    *,
    label: str,
    chance: float | Mapping[str, float] | None = None,
    recorded: Mapping[str, Mapping[str, Sequence[float]]] | None = None,
    title: str = "",
) -> Figure:
    """One bar a name, with its number; for several seeds the mean, and each seed as a dot.

    ``recorded`` has the seeds of other runs, by scale and name: a dot each, one colour and height a scale. ``chance``
    is one line, or a tick at the bars that it names.
    """
    figure, ((axis,),) = new_figure(1, 1, 6.8, 1.1 + 0.4 * len(values))
    recorded, drawn = recorded or {}, set()
    dots = dict(zip(recorded, ((0, "black"), (0.22, "#e6550d"), (-0.22, "#756bb1"))))  # height and colour of each scale
    for row, (name, value) in enumerate(values.items()):
        seeds = np.atleast_1d(np.asarray(value, float))
        axis.barh(row, seeds.mean(), color="#9ecae1", label="this run" if recorded and row == 0 else None)
        if len(seeds) > 1:
            axis.plot(seeds, np.full(len(seeds), row), "o", color="black", markersize=4)
        runs = {scale: np.asarray(of[name]) for scale, of in recorded.items() if name in of}
        for scale, found in runs.items():
            height, colour = dots[scale]
            told = {} if scale in drawn else {"label": f"{scale}, recorded"}
            axis.plot(found, np.full(len(found), row + height), "o", color=colour, markersize=4, **told)
            drawn.add(scale)
        # In a column of its own, where it is not taken for the number of a dot.
        axis.text(1.01, row, f"{seeds.mean():.3f}", va="center", fontsize=9, transform=axis.get_yaxis_transform())
        if isinstance(chance, Mapping) and name in chance:
            told = {} if "chance" in drawn else {"label": "chance"}
            axis.plot([chance[name]] * 2, [row - 0.4, row + 0.4], color=WRONG, linestyle="--", linewidth=1.4, **told)
            drawn.add("chance")
    axis.set_yticks(range(len(values)), ["\n".join(textwrap.wrap(name, 40)) for name in values], fontsize=9)
    axis.invert_yaxis()
    axis.set_xlabel(label)
    if isinstance(chance, float | int):
        axis.axvline(chance, color=WRONG, linestyle="--", linewidth=1.2, label=f"chance {chance:.3g}")
        drawn.add("chance")
    if drawn:
        figure.legend(frameon=False, fontsize=8, loc="outside lower center", ncols=5)
    axis.set_title(title, fontsize=10)
    axis.spines[["top", "right"]].set_visible(False)
    return figure


@plt.rc_context(PLAIN)
def embedding_plane(clouds: dict[str, tuple[Float[Tensor, "n d"], Float[Tensor, "n d"]]]) -> Figure:
    """Pictures and texts on the two directions along which they differ most (PCA), one panel a model, lines for pairs.

    The title gives the modality gap, the distance of the two means in all dimensions, and the share of the variance
    that the plane shows.
    """
    figure, axes = new_figure(1, len(clouds), 3.6, 3.4)
    for axis, (label, (image, text)) in zip(axes[0], clouds.items()):
        both = torch.cat([image, text])
        centred = both - both.mean(0)
        _, spread, directions = torch.linalg.svd(centred, full_matrices=False)
        one, two = (centred @ directions[:2].T).chunk(2)
        axis.plot(*torch.stack([one, two]).permute(2, 0, 1).numpy(), color=MUTED, alpha=0.12, linewidth=0.6)
        axis.scatter(*one.T.numpy(), s=9, color="#4c78a8", label="pictures")
        axis.scatter(*two.T.numpy(), s=9, color=GLOW, label="texts")
        shown = float(spread[:2].square().sum() / spread.square().sum())
        axis.set_title(f"{label}\ngap {modality_gap(image, text):.2f}, plane shows {shown:.0%}", fontsize=9)
        axis.set(xticks=[], yticks=[], aspect="equal", adjustable="datalim")
    axes[0, 0].legend(frameon=False, fontsize=8)
    return figure


@plt.rc_context(PLAIN)
def contact_sheet(
    images: Sequence[Float[Tensor, "3 height width"]], captions: Sequence[str], *, columns: int = 6, title: str = ""
) -> Figure:
    """Pictures with their captions below."""
    rows = -(-len(images) // columns)
    figure, axes = new_figure(rows, columns, 1.6, 2.0)
    for axis in axes.flat[len(images) :]:
        axis.axis("off")
    for axis, image, caption in zip(axes.flat, images, captions):
        show_image(axis, image)
        lines = textwrap.wrap(caption, 24, max_lines=4, placeholder=" …")
        axis.set_xlabel("\n".join(lines), fontsize=6.5)
    figure.suptitle(title, fontsize=10)
    return figure
