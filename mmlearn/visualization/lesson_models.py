"""Two models or more beside each other: what each finds, and how often."""

import textwrap
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from matplotlib.figure import Figure
from torch import Tensor

from mmlearn.visualization.figures import HEAT, MUTED, PLAIN, WRONG, new_figure, show_image
from mmlearn.visualization.lesson import answers

BARS = ("#9ecae1", "#2f6f9f", "#fdae6b", "#a1d99b")  # of models, in their order


@plt.rc_context(PLAIN)
def similarity_matrices(
    similarities: Mapping[str, Float[Tensor, "n n"]],
    captions: Sequence[str],
    images: Sequence[Float[Tensor, "3 height width"]],
) -> Figure:
    """For each model the cosine of every picture with every caption; a frame marks the largest of each row.

    The true pairs are on the diagonal. A title says for how many pictures the true caption has the largest cosine.
    """
    n = len(images)
    everything = torch.stack(list(similarities.values()))
    low, high = everything.min().item(), everything.max().item()  # one scale of colours for all
    figure, axes = new_figure(1, len(similarities), 0.62 * n + 1.1, 0.62 * n + 0.9 + 0.17 * n)
    for axis, (name, similarity) in zip(axes[0], similarities.items()):
        axis.imshow(similarity.numpy(), cmap=HEAT, vmin=low, vmax=high)
        for (row, column), value in np.ndenumerate(similarity.numpy()):
            bright = value > (low + high) / 2
            axis.text(column, row, f"{round(float(value), 1) + 0:.1f}", ha="center", va="center", fontsize=9,
                      color="black" if bright else "white")  # fmt: skip
        largest = similarity.argmax(1)
        for row, column in enumerate(largest.tolist()):
            axis.add_patch(plt.Rectangle((column - 0.47, row - 0.47), 0.94, 0.94, fill=False, edgecolor="#38c172",
                                         linewidth=2.6))  # fmt: skip
        right = int((largest == torch.arange(n)).sum())
        axis.set_title(f"{name}\n{right} of {n} pictures find their caption", fontsize=10.5)
        axis.set_xticks(range(n), range(1, n + 1), fontsize=10)
        axis.set_yticks([])
        axis.tick_params(length=0)
        for row, image in enumerate(images):
            show_image(axis.inset_axes([-1.55, row - 0.48, 0.96, 0.96], transform=axis.transData), image)
    told = [f"{k}  {textwrap.shorten(caption, 90, placeholder=' …')}" for k, caption in enumerate(captions, 1)]
    axes[0, 0].set_xlabel("\n".join(told), loc="left", multialignment="left", fontsize=9.5).set_in_layout(len(axes) > 1)
    return figure


@plt.rc_context(PLAIN)
def bars_of_models(
    results: Mapping[str, Mapping[str, float | Sequence[float]]],
    *,
    label: str,
    chance: float | Mapping[str, float],
    untrained: Mapping[str, float] | None = None,
    floors: Mapping[str, Mapping[str, float]] | None = None,
    colours: Mapping[str, str] | None = None,
    title: str = "",
) -> Figure:
    """For each test a bar of each model; chance, what an untrained model gets, and other floors, as marks across them.

    A bar of several seeds is their mean, with a dot for each. ``floors`` has for each name what it gets in every test,
    such as a guess that knows more than chance.
    """
    tests, high = list(next(iter(results.values()))), 0.8 / len(results)
    figure, ((axis,),) = new_figure(1, 1, 6.8, 1.1 + (0.2 + 0.24 * len(results)) * len(tests))
    for k, (model, found) in enumerate(results.items()):
        at = np.arange(len(tests)) - 0.4 + (k + 0.5) * high
        seeds = [np.atleast_1d(np.asarray(found[test], float)) for test in tests]
        means = [each.mean() for each in seeds]
        axis.barh(at, means, height=0.9 * high, color=(colours or {}).get(model, BARS[k % len(BARS)]), label=model)
        for y, each, mean in zip(at, seeds, means):
            if len(each) > 1:
                axis.plot(each, np.full(len(each), y), "o", color="#24292f", markersize=4, clip_on=False, zorder=3)
            axis.text(max(mean, *each) + 0.012, y, f"{mean:.0%}", va="center", fontsize=9.5)
    told: set[str] = set()
    for row, test in enumerate(tests):
        floor = chance[test] if isinstance(chance, Mapping) else chance
        marks = {"untrained": ((untrained or {}).get(test), MUTED, "-"), "chance": (floor, WRONG, (0, (3, 2)))}
        marks |= {name: (values.get(test), "#f2b01e", ":") for name, values in (floors or {}).items()}
        for name, (value, colour, style) in marks.items():
            if value is not None:
                axis.plot([value] * 2, [row - 0.44, row + 0.44], color=colour, linewidth=1.8, linestyle=style,
                          label=None if name in told else name)  # fmt: skip
                told.add(name)
    axis.set_yticks(range(len(tests)), [textwrap.fill(test, 34) for test in tests], fontsize=10)
    axis.invert_yaxis()
    axis.set(xlabel=label, xlim=(0, 1.05))
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axis.spines[["top", "right"]].set_visible(False)
    figure.legend(frameon=False, fontsize=9, loc="outside lower center", ncols=5)
    axis.set_title(title, fontsize=10.5)
    return figure


def own_pictures(
    similarities: Mapping[str, Float[Tensor, "n n"]],
    captions: Sequence[str],
    images: Sequence[Float[Tensor, "3 height width"]],
    asked: Sequence[int],
) -> Figure:
    """For each caption that is asked, the five pictures (rows) that each model finds most similar, best first.

    A green frame marks the caption's own picture. The title says how often it comes first, for all captions.
    """
    rows = [(name, k) for k in asked for name in similarities]
    best = [similarities[name][:, k].topk(min(5, len(images))).indices.tolist() for name, k in rows]
    own = torch.arange(len(images))
    first = {name: (each.argmax(0) == own).float().mean().item() for name, each in similarities.items()}
    told = ", ".join(f"{name} {share:.0%}" for name, share in first.items())
    return answers(
        [[images[i] for i in each] for each in best],
        [captions[k] for _, k in rows],
        [[i == k for i in each] for each, (_, k) in zip(best, rows)],
        [1 / len(images)] * len(rows),
        models=[name for name, _ in rows],
        hit="are its own",
        title=f"its own picture first, of {len(images)}: {told} (chance {1 / len(images):.1%})",
    )


@plt.rc_context(PLAIN)
def changed_pictures(
    rows: Sequence[Sequence[Float[Tensor, "3 height width"]]],
    sentences: Sequence[str],
    notes: Sequence[Sequence[str]],
    *,
    columns: Sequence[str],
    title: str = "",
) -> Figure:
    """For each sentence a row of pictures, such as one picture that was changed in some ways; a note below each.

    ``columns`` name the changes. Raises ``ValueError`` where rows, sentences and notes are not as many.
    """
    figure, axes = new_figure(len(rows), len(columns), 2.3, 2.5)
    for row, sentence, images, told in zip(axes, sentences, rows, notes, strict=True):
        for axis, image, note in zip(row, images, told, strict=True):
            show_image(axis, image)
            axis.set_xlabel(note, fontsize=11)
        row[0].set_ylabel(textwrap.fill(sentence, 22), fontsize=10.5)
    for axis, name in zip(axes[0], columns, strict=True):
        axis.set_title(textwrap.fill(name, 24), fontsize=10.5)
    figure.suptitle(title, fontsize=10.5)
    return figure


def first_pictures(
    rankings: Mapping[str, Int[Tensor, "t n"]],
    captions: Sequence[str],
    images: Sequence[Float[Tensor, "3 height width"]],
    fits: Bool[Tensor, "t n"],
    *,
    among: Bool[Tensor, "t n"],
    count: int = 2,
) -> Figure:
    """The five pictures that each ranking has first, for the first captions whose first picture is ``among`` some.

    Rows are captions, columns pictures; that first picture is that of the first ranking. A caption ``fits`` the
    pictures in green frames; the title says for how many captions the first picture fits.
    """
    wanted = among.gather(1, next(iter(rankings.values()))[:, :1])[:, 0].int()
    asked = wanted.argsort(descending=True, stable=True)[:count].tolist()
    rows = [(name, k) for k in asked for name in rankings]
    best = [rankings[name][k, :5].tolist() for name, k in rows]
    right = {name: fits.gather(1, each[:, :1]).float().mean() for name, each in rankings.items()}
    told = ", ".join(f"{name} {share:.0%}" for name, share in right.items())
    return answers(
        [[images[i] for i in each] for each in best],
        [captions[k] for _, k in rows],
        [fits[k, each].tolist() for each, (_, k) in zip(best, rows)],
        [fits[k].float().mean().item() for _, k in rows],
        models=[name for name, _ in rows],
        title=f"first picture fits, all {len(captions)} captions: {told} (chance {fits.float().mean():.1%})",
    )
