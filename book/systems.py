"""A page for each system, made of its recipe: diagram, what it reads and learns, parts, presets, paper, deviations."""

import inspect
import re
import warnings
from importlib import import_module
from typing import Any

import torch
from torch import nn

from mmlearn.recipes.discovery import find_recipe, system_files
from mmlearn.recipes.recipe import Recipe
from mmlearn.visualization.architecture import draw_architecture

SMALL = 0.01  # parts with a smaller share of the parameters share a row
KEY = (
    "White: what is read. Blue: what learns. Green, dashed: what does not learn. Orange: losses. A dashed arrow leads "
    "to a copy that follows slowly. A dotted line: shared weights."
)


def system_pages() -> dict[str, str]:
    """``systems/NAME.md`` and ``systems/NAME.svg`` for each system, and ``systems/index.md`` for all."""
    pages, families = {}, {}
    for name in system_files():
        recipe = find_recipe(name)
        module = import_module(recipe.system.__module__)
        pages[f"systems/{name}.md"] = system_page(name, recipe, module.__doc__ or "")
        if recipe.architecture:
            pages[f"systems/{name}.svg"] = draw_architecture(recipe.architecture, title_of(module.__doc__ or name))
        families.setdefault(recipe.system.__module__.split(".")[-2], []).append((name, recipe, module.__doc__ or ""))
    pages["systems/index.md"] = index_page(families)
    return pages


def index_page(families: dict[str, list[tuple[str, Recipe, str]]]) -> str:
    """All systems, by family, with what each reads and learns."""
    parts = [
        "# Systems\n\nEach system is one file of `mmlearn/models`; its recipe, in `mmlearn/recipes`, says what "
        "it reads and learns. "
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
        f"{_diagram_text(name, recipe.architecture)}{_as_markdown(rest)}\n\n"
        f"## Reads and learns\n\n{_reads_text(recipe)}\n\n{stages}\n\n"
        f"## Parts\n\n{parts_text(recipe)}\n\n"
        f"## Presets\n\n| preset | parameters |\n| --- | ---: |\n{presets}\n\n"
        "[What published presets need](/generated/presets.md) in memory and computation.\n\n"
        f"## Use\n\n```bash\nmmlearn train {name} --data DATA --output runs/{name}\n"
        f"mmlearn evaluate runs/{name} --data DATA\n{_generate_text(name, recipe)}```\n\n"
        f"```python\nfrom mmlearn.models import {recipe.system.__name__}, {recipe.config.__name__}\n\n"
        f"model = {recipe.system.__name__}({recipe.config.__name__}.tiny())\n```\n\n"
        f"Its file: [{module}](/generated/api/models.rst), family *{family}*.\n"
    )


def _generate_text(name: str, recipe: Recipe) -> str:
    """How a system is asked to write, where it does."""
    if not recipe.writes:
        return ""
    takes = inspect.signature(recipe.system.generate).parameters
    inputs = [option for key, option in (("image", "--image FILE"), ("prompt", "--prompt TEXT")) if key in takes]
    return f"mmlearn generate runs/{name} {' '.join(inputs)}\n"


def _diagram_text(name: str, architecture: str) -> str:
    """The picture, what stands for it where it is not seen, and the key to its colours."""
    if not architecture:
        return ""
    words = re.sub(r"[!*]", "", "; ".join(map(str.strip, architecture.strip().splitlines())))
    words = words.replace("->", "to").replace("~>", "followed slowly by").replace("==", "shares its weights with")
    return f'```{{image}} {name}.svg\n:alt: "{words}"\n```\n\n{KEY}\n\n'


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
    turns = [turn for turn in stage.optimizer_steps if turn.trains]
    moved = "".join(f"\n- `{turn.loss}` moves {', '.join(f'`{part}`' for part in turn.trains)}" for turn in turns)
    return head + "\n".join(rows) + ("\n" + moved if moved else "") + "\n"


def _measure_name(measure: Any) -> str:
    return measure.__qualname__.split(".")[0].replace("_", " ")


# Sizes.


def preset_sizes(recipe: Recipe) -> list[tuple[str, str]]:
    """Each preset with its number of parameters; no memory is taken for them."""
    return [(name, f"{_count(_empty(recipe, recipe.config.preset(name))):,}") for name in recipe.config.PRESETS]


def _empty(recipe: Recipe, config: Any) -> nn.Module:
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a frozen backbone copies its weights, which has no effect here
        return recipe.make(config)


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def parts_text(recipe: Recipe) -> str:
    """A table of the parts of ``tiny``, with their parameters; very small ones share a row."""
    system = _empty(recipe, recipe.tiny())
    sizes = {name: _count(part) for name, part in system.named_children()}
    large = [name for name, count in sizes.items() if count >= SMALL * sum(sizes.values())]
    rows = ["| part | class | parameters of `tiny` |", "| --- | --- | ---: |"]
    for name in large:
        part = system.get_submodule(name)
        frozen = "" if any(parameter.requires_grad for parameter in part.parameters()) else ", frozen"
        rows.append(f"| `{name}` | {type(part).__name__} | {sizes[name]:,}{frozen} |")
    if small := [name for name, count in sizes.items() if name not in large and count]:
        names = ", ".join(f"`{name}`" for name in small)
        rows.append(f"| {names} | | {sum(sizes[name] for name in small):,} |")
    if own := dict(system.named_parameters(recurse=False)):
        names = ", ".join(f"`{name}`" for name in own)
        rows.append(f"| {names} | Parameter | {sum(value.numel() for value in own.values()):,} |")
    return "\n".join(rows)
