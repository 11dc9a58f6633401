"""Hover a word, see where it looks: one HTML element without a script and without anything from outside.

A map is a picture of p pixels over the shown one: black, and the more opaque the less weight a patch has. Below it
stands whether it points at what its word names, whether an untrained model's map does, and what chance would give.
"""

import base64
import io
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from mmlearn.escaping import in_html
from mmlearn.evaluation.alignment import COVERED, pointing_accuracy, pointing_chance
from mmlearn.files import written_whole
from mmlearn.visualization.figures import shade
from mmlearn.visualization.lesson import score_line

Maps = Sequence[Float[Tensor, "words p"]] | Sequence[Float[Tensor, "layers heads words p"]]  # one tensor a picture
Regions = Sequence[Sequence[Float[Tensor, "p"] | None]]  # of each word of each picture, or None

STYLE = """
#{id} {{ font: 15px/1.5 system-ui, sans-serif; display: flex; flex-wrap: wrap; gap: 1.2em; color: inherit; }}
#{id} figure {{ margin: 0; width: {width}px; }}
#{id} .picture {{ position: relative; width: {width}px; height: {height}px; }}
#{id} .picture img {{ width: 100%; height: 100%; margin: 0; padding: 0; display: block; image-rendering: pixelated; }}
#{id} .picture .map, #{id} .position {{ position: absolute; inset: 0; opacity: 0; transition: opacity .12s; }}
#{id} .position {{ display: grid; }}
#{id} .position i.region {{ box-sizing: border-box; outline: 2px dashed #fff; outline-offset: -2px; }}
#{id} .words {{ margin: .5em 0 .2em; }}
#{id} .words label {{ cursor: pointer; padding: 1px 3px; border-radius: 4px; border-bottom: 2px solid transparent; }}
#{id} .words label.named {{ border-bottom-color: #888; }}
#{id} .words input {{ position: absolute; opacity: 0; width: 1px; height: 1px; }}
#{id} .words label:hover, #{id} .words label:has(:checked), #{id} .words label:has(:focus-visible) {{
  background: #ffd33d; color: #1f2328; }}
#{id} .note {{ display: none; font-size: 12.5px; min-height: 1.5em; opacity: .85; }}
#{id} .hint {{ font-size: 12.5px; min-height: 1.5em; opacity: .6; }}
#{id} figure:has(label:hover) .hint, #{id} figure:has(:checked) .hint {{ display: none; }}
#{id} .total, #{id} .shown, #{id} .heads {{ width: 100%; font-size: 13px; opacity: .8; }}
#{id} .heads table {{ border-collapse: collapse; width: auto; margin: .2em 0; }}
#{id} .heads th, #{id} .heads td {{ padding: 0 .6em; border: 0; text-align: center; font-weight: normal; }}
"""
# A hovered word wins over the one that was clicked.
RULES = """
#{id} figure:has(.w{k}:checked):not(:has(label:hover)) .m{k},
#{id} figure:has(label.l{k}:hover) .m{k} {{ opacity: 1; }}
#{id} figure:has(.w{k}:checked):not(:has(label:hover)) .n{k},
#{id} figure:has(label.l{k}:hover) .n{k} {{ display: block; }}
"""
# What belongs to another layer and head than the chosen one is away.
CHOSEN = "#{id}:not(:has(.c{v}:checked)) .v{v} {{ display: none !important; }}\n"


@dataclass(frozen=True)
class Explorer:
    """An HTML element; a notebook shows it, and :meth:`save` writes it as a page."""

    html: str

    def _repr_html_(self) -> str:
        return self.html

    def save(self, path: str | Path) -> None:
        """Write a page that holds this element and nothing else."""
        page = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>alignment</title>{self.html}</html>'
        with written_whole(Path(path)) as unfinished:
            unfinished.write_text(page, encoding="utf-8")


def alignment_explorer(
    images: Float[Tensor, "n 3 height width"],
    words: Sequence[Sequence[str]],
    maps: Maps,
    grid: tuple[int, int],
    *,
    regions: Regions | None = None,
    untrained: Maps | None = None,
    total: str = "",
    width: int = 240,
    layers: Sequence[str] | None = None,
    scores: Float[Tensor, "layers heads"] | None = None,
    start: tuple[int, int] = (0, 0),
) -> Explorer:
    """Pictures with their captions, word by word; a hovered, clicked or focused word shows its weights.

    ``maps[i][k]`` are the weights of word k over the patches of picture i; ``regions[i][k]`` is the share of each patch
    that the named object covers, or None for a word that names nothing. ``untrained`` are the maps of an untrained
    model (:func:`~mmlearn.evaluation.eval_mode.untrained_twin`), made by the same function. Where regions are known,
    each map is told with its pointing, chance's and the untrained one's, and so are all shown words together.

    ``total`` is a line below, such as the pointing accuracy over the whole split. With ``layers``, their names,
    ``maps[i]`` has all layers and heads; a table chooses the one to look at, first that of ``start``, and shows the
    ``scores`` of each, such as the pointing accuracy. All text is escaped. Raises ``ValueError`` where they do not
    match.
    """
    patches = grid[0] * grid[1]
    if regions is None:
        regions = [[None] * len(row) for row in words]
    heads = () if layers is None or not len(maps) else (len(layers), maps[0].shape[1] if maps[0].ndim == 4 else 0)
    _check_maps(len(images), words, maps, regions, grid, heads)
    if untrained is not None and [one.shape for one in untrained] != [one.shape for one in maps]:
        raise ValueError(
            f"An untrained model has the same maps, but they have shapes {[tuple(one.shape) for one in untrained]} and "
            f"those of the trained one {[tuple(one.shape) for one in maps]}."
        )
    known_start = all(0 <= one < count for one, count in zip(start, heads))
    if not known_start or (scores is not None and tuple(scores.shape) != heads):
        raise ValueError(
            f"There are {len(layers or [])} layers with {heads[1] if heads else 0} heads, but scores of shape "
            f"{None if scores is None else tuple(scores.shape)}, and the first to show is {tuple(start)}."
        )
    name = f"align-{uuid.uuid4().hex[:12]}"
    height = round(width * images.shape[-2] / images.shape[-1])
    style = STYLE.format(id=name, width=width, height=height)
    style += "".join(RULES.format(id=name, k=k) for k in range(max(map(len, words), default=0)))
    table = ""
    if heads:
        style += "".join(CHOSEN.format(id=name, v=v) for v in range(heads[0] * heads[1]))
        table = _head_table(name, layers, heads[1], scores, start)
    views = [one.reshape(-1, len(row), patches) for one, row in zip(maps, words)]
    others = None if untrained is None else [one.reshape(-1, len(row), patches) for one, row in zip(untrained, words)]
    figures = [
        _figure(f"{name}-{i}", image, row, views[i], grid, known, None if others is None else others[i])
        for i, (image, row, known) in enumerate(zip(images, words, regions))
    ]
    note = _shown_scores(views, others, regions) + (f'<div class="total">{in_html(total)}</div>' if total else "")
    return Explorer(
        f'<div id="{name}" class="alignment-explorer"><style>{style}</style>{table}{"".join(figures)}{note}</div>'
    )


def _check_maps(images: int, words, maps: Maps, regions: Regions, grid: tuple[int, int], heads: tuple[int, ...]):
    """``ValueError`` where pictures, words, maps and regions are not as many, or of another grid."""
    patches = grid[0] * grid[1]
    if not images == len(words) == len(maps) == len(regions):
        raise ValueError(
            f"Each picture has its words, maps and regions, but there are {images} pictures and words, maps and "
            f"regions of {len(words)}, {len(maps)} and {len(regions)}."
        )
    for i, (row, weights, known) in enumerate(zip(words, maps, regions)):
        shapes = [(len(known), *region.shape) for region in known if region is not None] or [(len(known), patches)]
        if {tuple(weights.shape), *((*heads, *shape) for shape in shapes)} != {(*heads, len(row), patches)}:
            of = f" of {heads[0]} layers" if heads else ""
            raise ValueError(
                f"Picture {i} has {len(row)} words on a grid of {grid[0]} × {grid[1]}; its maps{of} have shape "
                f"{tuple(weights.shape)} and its regions {', '.join(map(str, sorted(set(shapes))))}."
            )


def _shown_scores(views: list[Tensor], others: list[Tensor] | None, regions: Regions) -> str:
    """How often the shown words that name a thing point at it, by chance and untrained: a line for each view."""
    named = [(i, k) for i, known in enumerate(regions) for k, region in enumerate(known) if region is not None]
    if not named:
        return ""
    truth = torch.stack([region for known in regions for region in known if region is not None])  # (n, p)

    def score(maps: list[Tensor], view: int) -> float:
        return pointing_accuracy(torch.stack([maps[i][view, k] for i, k in named]), truth)

    what, chance, lines = f"{len(named)} shown words that name an object point at it", pointing_chance(truth), []
    for view in range(len(views[0])):
        untrained = None if others is None else score(others, view)
        told = score_line(what, score(views, view), chance=chance, untrained=untrained)
        lines.append(f'<div class="shown{f" v{view}" if len(views[0]) > 1 else ""}">{in_html(told)}</div>')
    return "".join(lines)


def _head_table(name: str, layers: Sequence[str], heads: int, scores: Tensor | None, start: tuple[int, int]) -> str:
    rows = "<tr><th></th>" + "".join(f"<th>head {head}</th>" for head in range(heads)) + "</tr>"
    for i, layer in enumerate(layers):
        cells = ""
        for head in range(heads):
            checked = " checked" if (i, head) == tuple(start) else ""
            score = "" if scores is None else f" {scores[i, head]:.2f}"
            radio = f'<input type="radio" class="c{i * heads + head}" name="{name}-head"{checked}>'
            cells += f"<td><label>{radio}{score}</label></td>"
        rows += f"<tr><th>{in_html(layer)}</th>{cells}</tr>"
    told = "which map is shown" + ("" if scores is None else ", and how often each points at the named object")
    return f'<div class="heads">{told}<table>{rows}</table></div>'


def _figure(
    name: str,
    image: Tensor,
    words: Sequence[str],
    maps: Float[Tensor, "views words p"],
    grid: tuple[int, int],
    known: Sequence[Tensor | None],
    untrained: Float[Tensor, "views words p"] | None,
) -> str:
    covers, labels, notes = [], [], []
    for k, (word, region) in enumerate(zip(words, known)):
        inside = [] if region is None else (region >= COVERED).tolist()
        for view, weights in enumerate(maps[:, k]):
            chosen = f" v{view}" if len(maps) > 1 else ""
            source = data_uri(shade(weights.reshape(grid)).permute(2, 0, 1))
            covers.append(f'<img class="map m{k}{chosen}" alt="" src="{source}">')
            note = _note(word, weights, region, None if untrained is None else untrained[view, k])
            notes.append(f'<div class="note n{k}{chosen}">{in_html(note)}</div>')
        if inside:
            cells = "".join("<i class=region></i>" if covered else "<i></i>" for covered in inside)
            size = f"grid-template:repeat({grid[0]},1fr)/repeat({grid[1]},1fr)"
            covers.append(f'<div class="position m{k}" style="{size}">{cells}</div>')
        named = " named" if inside else ""
        labels.append(
            f'<label class="l{k}{named}"><input type="radio" class="w{k}" name="{name}">{in_html(word)}</label>'
        )
    return (
        f'<figure><div class="picture"><img alt="" src="{data_uri(image)}">{"".join(covers)}</div>'
        f'<div class="words">{" ".join(labels)}</div><div class="hint">hover or click a word</div>'
        f"{''.join(notes)}</figure>"
    )


def _note(word: str, weights: Tensor, region: Tensor | None, untrained: Tensor | None) -> str:
    """Whether a map points at its region, whether the untrained one does, and the share of patches that would."""
    if region is None:
        return f"“{word}” names no object; strongest patch {int(weights.argmax())}"
    on, by_chance = pointing_accuracy(weights[None], region[None]), pointing_chance(region[None])
    other = "" if untrained is None else f"untrained {_on(pointing_accuracy(untrained[None], region[None]))}, "
    return f"“{word}”: the strongest patch is {_on(on)} its object ({other}chance {by_chance:.0%})"


def _on(share: float) -> str:
    return "on" if share > 0.5 else "not on"  # of patches that are equally strong, the share that is


def data_uri(image: Float[Tensor, "channels height width"]) -> str:
    """A picture, or one with an opacity as its fourth channel, as the address of an HTML ``img``."""
    from PIL import Image

    buffer = io.BytesIO()
    pixels = (image.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    Image.fromarray(pixels).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
