"""A page for each system, made of its recipe: what it reads and learns, a diagram, presets, paper and deviations."""

import re
import textwrap
import warnings
from collections.abc import Sequence
from html import escape
from importlib import import_module
from typing import Any

import torch
from torch import nn

from mmlearn.recipes.discovery import find_recipe, module_name, system_files
from mmlearn.recipes.recipe import Recipe

BOX, GAP, COLUMN, LINE = 270, 12, 340, 18  # pixels: a box's width, between boxes, from column to column, of a line
SMALL = 0.01  # parts with a smaller share of the parameters share a box


def system_pages() -> dict[str, str]:
    """``systems/NAME.md`` and ``systems/NAME.svg`` for each system, and ``systems/index.md`` for all."""
    pages, families = {}, {}
    for name, path in system_files().items():
        recipe, module = find_recipe(name), import_module(module_name(path))
        pages[f"systems/{name}.md"] = system_page(name, recipe, module.__doc__ or "")
        pages[f"systems/{name}.svg"] = diagram(recipe)
        families.setdefault(path.parent.name, []).append((name, recipe, module.__doc__ or ""))
    pages["systems/index.md"] = index_page(families)
    return pages


def index_page(families: dict[str, list[tuple[str, Recipe, str]]]) -> str:
    """All systems, by family, with what each reads and learns."""
    parts = [
        "# Systems\n\nEach system is one file, with its recipe at the foot. "
        "`mmlearn train NAME --data DATA --output DIR` trains any of them, and `mmlearn evaluate DIR --data DATA` says "
        "how well it does.\n"
    ]
    for family, systems in sorted(families.items()):
        package = import_module(f"mmlearn.models.{family}")
        parts.append(f"## {family}\n\n{package.__doc__.strip()}\n\n| system | reads | learns |\n| --- | --- | --- |")
        for name, recipe, text in systems:
            reads = ", ".join(type(item).__name__ for item in recipe.reads)
            learns = ", ".join(one for stage in recipe.stages for one in stage.objectives())
            parts.append(f"| [{title_of(text)}]({name}.md) | {reads} | {learns} |")
        parts.append("")
    names = "\n".join(name for systems in families.values() for name, _, _ in systems)
    return "\n".join([*parts, "```{toctree}\n:hidden:\n\n" + names + "\n```\n"])


def title_of(docstring: str) -> str:
    """The system's own name: what stands before the colon of its first line."""
    return docstring.strip().split(":")[0]


def system_page(name: str, recipe: Recipe, docstring: str) -> str:
    """The text of one system's page."""
    first, _, rest = docstring.strip().partition("\n")
    title, _, summary = first.partition(": ")
    module = recipe.system.__module__
    family = module.split(".")[2]
    stages = "\n".join(_stage_text(recipe, stage) for stage in recipe.stages)
    presets = "\n".join(f"| `{preset}` | {count} |" for preset, count in preset_sizes(recipe))
    return (
        f"# {title}\n\n{summary[:1].upper()}{summary[1:]}\n\n"
        f"```{{image}} {name}.svg\n:alt: what {title} reads, its parts with their parameters, and what it learns\n"
        f"```\n\n{_as_markdown(rest)}\n\n"
        f"## Reads and learns\n\n{_reads_text(recipe)}\n\n{stages}\n\n"
        f"## Presets\n\n| preset | parameters |\n| --- | ---: |\n{presets}\n\n"
        f"## Use\n\n```bash\nmmlearn train {name} --data DATA --output runs/{name}\n"
        f"mmlearn evaluate runs/{name} --data DATA\n```\n\n"
        f"```python\nfrom mmlearn.models import {recipe.system.__name__}, {recipe.config.__name__}\n\n"
        f"model = {recipe.system.__name__}({recipe.config.__name__}.tiny())\n```\n\n"
        f"Its file: [{module}](/generated/api/models.rst), family *{family}*.\n"
    )


def _as_markdown(docstring: str) -> str:
    """reStructuredText of a docstring as Markdown: code, roles, and a URL as a link."""
    text = re.sub(r":\w+:`~?([^`]+)`", lambda match: f"`{match[1].split('.')[-1]}`", docstring.strip())
    text = text.replace("``", "`")
    text = re.sub(r"(?<![(<\[])(https://[^\s,)]*[^\s,).])", r"<\1>", text)
    return re.sub(r"^(Paper|Papers|Official code|Deviations)", r"**\1**", text, flags=re.MULTILINE)


def _reads_text(recipe: Recipe) -> str:
    rows = ["| field | entry of a batch | axes |", "| --- | --- | --- |"]
    for item in recipe.reads:
        for entry, axes in item.holds.items():
            rows.append(f"| {type(item).__name__} | `{entry}` | `{axes}` |")
    return "\n".join(rows)


def _stage_text(recipe: Recipe, stage: Any) -> str:
    head = f"### Stage {stage.name}\n\n" if stage.name else ""
    rows = ["| objective | labels | measures | |", "| --- | --- | --- | --- |"]
    shares = {one.name: share for task, share in stage.tasks().items() for one in task}
    several = len(stage.tasks()) > 1
    for one in stage.objectives().values():
        labels = ", ".join(type(label).__name__ for label in one.labels) or "–"
        measures = ", ".join(_measure_name(measure) for measure in one.measures) or "–"
        when = "where it is asked for" if one.by_request else f"{shares[one.name]:.0%} of batches" if several else ""
        rows.append(f"| {one.name} | {labels} | {measures} | {when} |")
    turns = [turn for turn in stage.turns if turn.moves]
    moved = "".join(f"\n- `{turn.loss}` moves {', '.join(f'`{part}`' for part in turn.moves)}" for turn in turns)
    return head + "\n".join(rows) + ("\n" + moved if moved else "") + "\n"


def _measure_name(measure: Any) -> str:
    return measure.__qualname__.split(".")[0].replace("_", " ")


# Sizes and the diagram.


def preset_sizes(recipe: Recipe) -> list[tuple[str, str]]:
    """Each preset with its number of parameters; no memory is taken for them."""
    return [(name, f"{_count(_empty(recipe, recipe.config.preset(name))):,}") for name in recipe.config.PRESETS]


def _empty(recipe: Recipe, config: Any) -> nn.Module:
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a frozen backbone copies its weights, which has no effect here
        return recipe.make(config)


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def diagram(recipe: Recipe) -> str:
    """Three columns as SVG: what is read, the parts of the system with their parameters, what is learned."""
    system = _empty(recipe, recipe.tiny())
    reads = [(type(item).__name__, [f"{name}: {axes}" for name, axes in item.holds.items()]) for item in recipe.reads]
    sizes = {name: _count(part) for name, part in system.named_children()}
    large = [name for name, count in sizes.items() if count >= SMALL * sum(sizes.values())]
    parts = [(name, [_part_text(system.get_submodule(name), sizes[name])]) for name in large]
    if small := [name for name, count in sizes.items() if name not in large and count]:
        parts.append(("small parts", textwrap.wrap(", ".join(small), 36)))
    if own := [name for name, _ in system.named_parameters(recurse=False)]:
        parts.append(("numbers", textwrap.wrap(", ".join(own), 36)))
    learns = []
    for stage in recipe.stages:
        for one in stage.objectives().values():
            where = f" (stage {stage.name})" if stage.name else ""
            measures = [f"measured: {_measure_name(measure)}" for measure in one.measures]
            learns.append((one.name + where, measures or ["no measure of its own"]))
    return _draw([("reads", reads), (recipe.system.__name__, parts), ("learns", learns)])


def _part_text(part: nn.Module, count: int) -> str:
    frozen = not any(parameter.requires_grad for parameter in part.parameters())
    return f"{type(part).__name__}: {count:,} parameters" + (", frozen" if frozen else "")


def _draw(columns: Sequence[tuple[str, list[tuple[str, list[str]]]]]) -> str:
    heights = [sum(_height(lines) + GAP for _, lines in boxes) for _, boxes in columns]
    height, width = max(heights) + 50, COLUMN * (len(columns) - 1) + BOX + 20
    shapes = []
    for number, ((title, boxes), used) in enumerate(zip(columns, heights)):
        x, y = 10 + number * COLUMN, 40 + (max(heights) - used) / 2
        shapes.append(f'<text x="{x + BOX / 2}" y="22" class="title">{escape(title)}</text>')
        for name, lines in boxes:
            tall = _height(lines)
            shapes.append(f'<rect x="{x}" y="{y:.0f}" width="{BOX}" height="{tall}" rx="6" class="box{number}"/>')
            shapes.append(f'<text x="{x + 10}" y="{y + 20:.0f}" class="name">{escape(name)}</text>')
            for row, line in enumerate(lines, start=1):
                text = escape(line if len(line) < 41 else line[:39] + "…")
                shapes.append(f'<text x="{x + 10}" y="{y + 20 + row * LINE:.0f}" class="line">{text}</text>')
            y += tall + GAP
        if number:
            middle = 40 + max(heights) / 2
            x0, x1 = x - COLUMN + BOX + 8, x - 10
            shapes.append(f'<path d="M{x0} {middle:.0f} H{x1}" class="arrow" marker-end="url(#head)"/>')
    style = (
        "text{font-family:sans-serif;font-size:13px;fill:#222}.title{font-size:15px;font-weight:bold;text-anchor:middle}"
        ".name{font-weight:bold}.line{fill:#555;font-size:12px}rect{stroke:#888}.box0{fill:#e8f0fe}.box1{fill:#fef3e0}"
        ".box2{fill:#e6f4ea}.arrow{stroke:#666;stroke-width:2;fill:none}"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height:.0f}" width="{width}" '
        f'height="{height:.0f}"><style>{style}</style><defs><marker id="head" markerWidth="8" markerHeight="8" '
        'refX="6" refY="3" orient="auto"><path d="M0 0L6 3L0 6z" fill="#666"/></marker></defs>'
        '<rect width="100%" height="100%" style="fill:#fff;stroke:none"/>' + "".join(shapes) + "</svg>\n"
    )


def _height(lines: Sequence[str]) -> int:
    return 30 + LINE * len(lines)
