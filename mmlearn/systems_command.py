"""``mmlearn systems``: what there is to be trained, what it reads, and how large its presets are."""

import torch

from mmlearn.recipes.discovery import find_recipe


def row_of(name: str) -> dict[str, str]:
    """A system in a line."""
    recipe = find_recipe(name)
    stages = {stage.name or "": sorted(stage.objectives()) for stage in recipe.stages}
    learns = "; ".join(f"{stage}: {', '.join(names)}" if stage else ", ".join(names) for stage, names in stages.items())
    reads = ", ".join(type(item).__name__ for item in recipe.reads)
    return {"system": name, "reads": reads, "learns": learns, "presets": ", ".join(recipe.config.PRESETS)}


def presets_of(name: str) -> list[dict[str, str | int]]:
    """The presets of a system with their parameters. ``ValueError`` for an unknown one."""
    recipe, rows = find_recipe(name), []
    for preset in recipe.config.PRESETS:
        with torch.device("meta"):  # which takes no memory
            made = recipe.make(recipe.config.preset(preset))
        rows.append({"preset": preset, "parameters": sum(x.numel() for x in made.parameters())})
    return rows


def zoo_rows() -> list[dict[str, str | int | float]]:
    """The weights of the zoo in a line each: for ``load_pretrained("zoo/…")``, or ``load_zoo`` where a lesson's class
    is filled."""
    from mmlearn.pretrained.zoo import zoo_records

    return [
        {
            "name": f"zoo/{name}",
            "system": record["system"] or f"of lesson {record['lesson']}",
            "steps": record["steps"],
            "seconds": record["seconds"],
            "data": record["data"],
            "megabytes": record["megabytes"],
        }
        for name, record in zoo_records().items()
    ]
