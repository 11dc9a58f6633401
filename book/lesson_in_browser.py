"""Write the model of lab 00 for the reader's browser: ``python book/lesson_in_browser.py``, about two minutes.

It runs the cells of the notebook up to the one that trains, so that the model is the chapter's own, and writes
``_static/clip_weights.js``. Run it anew where the chapter trains otherwise.
"""

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mmlearn.data import fetch, load
from mmlearn.data.fields import Image
from mmlearn.data.synthetic import drawing
from mmlearn.data.synthetic.layouts import COLOURS, SHAPES, SIZES, TEXTURES
from mmlearn.data.synthetic.scenes import SceneSample
from mmlearn.data.tokenizer import Tokenizer
from mmlearn.visualization.in_browser import as_bytes, write_for_browser

HERE = Path(__file__).parent
NOTEBOOK = HERE.parent / "notebooks" / "labs" / "00-lab_from_pixels.ipynb"
TRAINED = "history"  # the name that the notebook gives to what training returns
IMAGES = 24
GROUND = 30  # of those of the test split


def trained() -> dict[str, Any]:
    """What the notebook knows after it has trained."""
    known: dict[str, Any] = {}
    for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), known)
        if TRAINED in known:
            return known
    raise ValueError(f"No cell of {NOTEBOOK.name} makes {TRAINED}.")


def placed(sample: SceneSample) -> list[dict[str, int] | None]:
    """What stands in each cell of a scene, in numbers."""
    cells: list[dict[str, int] | None] = [None] * drawing.GRID**2
    for item in sample.objects:
        cells[item.cell] = {
            "size": SIZES.index(item.size),
            "texture": TEXTURES.index(item.texture),
            "colour": COLOURS.index(item.colour),
            "shape": SHAPES.index(item.shape),
        }
    return cells


def kit(size: int) -> dict[str, Any]:
    """What scenes are drawn from: every object in the middle of a cell, and a ground."""
    middle = drawing.JITTER
    return {
        "ground": as_bytes(torch.from_numpy(drawing.grounds(size)[GROUND])),
        "painted": as_bytes(torch.from_numpy(drawing.cell_sprites(size // drawing.GRID)[1][:, :, :, middle, middle])),
        "colours": drawing.COLOURS,
        "shapes": SHAPES,
        "textures": TEXTURES,
        "sizes": SIZES,
    }


def to_try(sample: SceneSample) -> list[str]:
    """Sentences that say more and less about a scene."""
    subject, _, other = sample.relation
    one, two = sample.objects[subject], sample.objects[other]
    return [sample.caption, f"a {one.colour} {one.shape}", one.colour, f"the {two.shape}"]


def to_tell_apart(sample: SceneSample) -> list[str]:
    """The caption of a scene, and wrong ones: the opposite relation, colours exchanged, a wrong object."""
    subject, relation, other = sample.relation
    one, two = sample.objects[subject], sample.objects[other]
    opposite = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}[relation]
    exchanged = sample.caption.replace(one.colour, "?").replace(two.colour, one.colour).replace("?", two.colour)
    return [sample.caption, sample.caption.replace(relation, opposite), exchanged, f"a {one.colour} {two.shape}"]


def write(path: Path, system: nn.Module, tokenizer: Tokenizer, images: Image) -> None:
    """Write the model with what the page shows: the first scene to build on, the second to look for."""
    samples = fetch(load("scenes", "test", seed=0), range(IMAGES))
    write_for_browser(
        path,
        system,
        tokenizer,
        torch.stack([sample.image for sample in samples]),
        [sample.caption for sample in samples],
        mean=images.mean,
        std=images.std,
        objects=[placed(sample) for sample in samples],
        scenes=kit(samples[0].image.shape[-1]),
        examples=to_try(samples[1]),
        sentences=to_tell_apart(samples[0]),
    )


if __name__ == "__main__":
    run = trained()["run"]
    write(HERE / "_static" / "clip_weights.js", run.system.eval(), run.tokenizer, run.field("image"))
