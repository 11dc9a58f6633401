"""Figures of sounds: what a network writes into gaps, when a word sounds, where a head looks, and what was found."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
from jaxtyping import Bool, Float, UInt8
from matplotlib.figure import Figure
from torch import Tensor

from mmlearn.visualization.figures import HEAT, PLAIN, RIGHT, frame_image, new_figure

WHEN = "cyan"  # when something sounds
SOUND = "magma"  # of spectrograms


@plt.rc_context(PLAIN)
def spectrogram_rows(
    spectrograms: Mapping[str, Float[Tensor, "mels s"]], *, title: str = "", limits: tuple[float, float] = (-2, 3)
) -> Figure:
    """Spectrograms of the same time, one below the other under their names; NaN is left white."""
    figure, axes = new_figure(len(spectrograms), 1, 6.8, 1.5)
    for axis, (name, mel) in zip(axes[:, 0], spectrograms.items()):
        axis.imshow(mel, origin="lower", aspect="auto", cmap=SOUND, vmin=limits[0], vmax=limits[1])
        axis.set(ylabel="band")
        axis.set_title(name, fontsize=9)
        axis.label_outer()
    axes[-1, 0].set_xlabel("frame (10 ms)")
    figure.suptitle(title, fontsize=9)
    return figure


@plt.rc_context(PLAIN)
def word_times(
    maps: Mapping[str, Float[Tensor, "n words s"]],
    words: Sequence[Sequence[str]],
    begin: Float[Tensor, "n words"],
    end: Float[Tensor, "n words"],
    *,
    title: str = "",
) -> Figure:
    """A row for each clip, a column for each map: a line a word, framed from where it begins to sound to its end."""
    figure, axes = new_figure(len(words), len(maps), 3.4, 2.1)
    for i, row in enumerate(axes):
        for axis, (name, of_words) in zip(row, maps.items()):
            axis.imshow(of_words[i], aspect="auto", cmap=HEAT, interpolation="nearest")
            axis.set_yticks(range(len(words[i])), words[i], fontsize=8)
            for line in range(len(words[i])):
                corner = float(begin[i, line]) - 0.5, line - 0.45
                wide = float(end[i, line] - begin[i, line]) + 1
                axis.add_patch(plt.Rectangle(corner, wide, 0.9, fill=False, edgecolor=WHEN, linewidth=1.5))
            if i == 0:
                axis.set_title(name, fontsize=8)
            if i == len(words) - 1:
                axis.set_xlabel(f"frame (20 ms); {WHEN}: when it sounds", fontsize=8)
    figure.suptitle(title, fontsize=9)
    return figure


@plt.rc_context(PLAIN)
def attention_over_sounds(
    mel: Float[Tensor, "n mels s"],
    looks: Float[Tensor, "n columns"],
    middle: Float[Tensor, "columns"],
    spans: Sequence[tuple[float, float]],
    captions: Sequence[str],
    *,
    title: str = "",
) -> Figure:
    """Spectrograms, when the sound in question lasts, and how much a head looks at each moment; times in seconds."""
    figure, axes = new_figure(len(mel), 1, 6.4, 1.9)
    for axis, image, look, span, caption in zip(axes[:, 0], mel, looks, spans, captions):
        axis.imshow(image, origin="lower", aspect="auto", cmap=SOUND, extent=(0, 0.01 * mel.shape[2], 0, mel.shape[1]))
        for side in span:
            axis.axvline(side, color=WHEN, linewidth=1.5)
        over = axis.twinx()
        over.plot(middle, look, "o-", color="white", markersize=3)
        over.set(ylim=(0, None), yticks=[])
        axis.set_title(caption, fontsize=9)
        axis.set_ylabel("band", fontsize=8)
    axes[-1, 0].set_xlabel(f"seconds; {WHEN}: the sound that is meant; white: the attention of the head", fontsize=8)
    figure.suptitle(title, fontsize=9)
    return figure


@plt.rc_context(PLAIN)
def caption_matrix(
    cosine: Float[Tensor, "captions sounds"], captions: Sequence[str], *, parts: int = 1, title: str = ""
) -> Figure:
    """Captions against sounds; a line after every ``captions / parts`` of them."""
    figure, ((axis,),) = new_figure(1, 1, 6.4, 1.2 + 0.26 * len(captions))
    shades = axis.imshow(cosine, cmap="viridis", aspect="auto")
    figure.colorbar(shades, label="cosine", shrink=0.7)
    for part in range(1, parts):
        axis.axhline(part * len(captions) / parts - 0.5, color="white", linewidth=3)
    axis.set_yticks(range(len(captions)), captions, fontsize=8)
    sounds, many = range(cosine.shape[1]), cosine.shape[1] > 6  # more words than six would overlap
    axis.set_xticks(sounds, [str(i) if many else f"sound {i}" for i in sounds], fontsize=8)
    axis.set_xlabel("sound" if many else "")
    axis.set_title(title, fontsize=9)
    return figure


@plt.rc_context(PLAIN)
def grouped_bars(
    values: Mapping[str, Sequence[float]],
    groups: Sequence[str],
    *,
    chance: Sequence[float] | None = None,
    label: str = "",
    title: str = "",
) -> Figure:
    """Groups side by side, in each one bar a name; the legend has the mean of each name, and of ``chance``."""
    figure, ((axis,),) = new_figure(1, 1, 6.8, 3.2)
    width, handles = 0.8 / len(values), []
    for i, (name, numbers) in enumerate(values.items()):
        positions = [position + width * i for position in range(len(groups))]
        handles.append(axis.bar(positions, numbers, width, label=f"{name} ({_mean(numbers):.2f})"))
    if chance is not None:
        left = [position - width / 2 for position in range(len(groups))]
        line = axis.hlines(chance, left, [x + 0.8 for x in left], "black", label=f"by chance ({_mean(chance):.2f})")
        handles.append(line)
    axis.set_xticks([position + 0.4 - width / 2 for position in range(len(groups))], groups, fontsize=8)
    axis.set(ylabel=label, ylim=(0, 1.3), title=title)
    axis.set_yticks([0, 0.2, 0.4, 0.6, 0.8, 1])
    axis.legend(handles=handles, frameon=False, fontsize=7, ncols=3, loc="upper left")
    axis.spines[["top", "right"]].set_visible(False)
    return figure


def _mean(numbers: Sequence[float]) -> float:
    return sum(numbers) / len(numbers)


@plt.rc_context(PLAIN)
def images_found(
    similarity: Float[Tensor, "queries pictures"],
    right: Bool[Tensor, "queries pictures"],
    images: UInt8[Tensor, "pictures 3 height width"],
    said: Sequence[str],
    *,
    shown: int = 6,
    title: str = "",
) -> Figure:
    """The pictures nearest to each query, the right ones framed in green; above them, where the first right one is."""
    figure, axes = new_figure(len(said), shown, 1.15, 1.4)
    for row, query, scores, answers in zip(axes, said, similarity, right):
        best = scores.argsort(descending=True).tolist()
        rank = 1 + min(k for k, position in enumerate(best) if answers[position])
        for axis, position in zip(row, best):
            axis.imshow(images[position].permute(1, 2, 0))
            axis.set(xticks=[], yticks=[])
            frame_image(axis, RIGHT if answers[position] else "#d0d7de", 4 if answers[position] else 1)
        heading = f"{query}: rank {rank} of {len(best)}"
        row[0].text(0, 1.08, heading, fontsize=8, transform=row[0].transAxes).set_in_layout(False)
    figure.get_layout_engine().set(hspace=0.18)
    figure.suptitle(f"{title}\n", fontsize=9)
    return figure
