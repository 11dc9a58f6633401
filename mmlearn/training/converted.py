"""A converted model is a run as well, where a tokenizer came with it: it writes and is evaluated as if trained here."""

import json
from pathlib import Path

import torch
from torch.utils.data import Dataset

from mmlearn.data.fields import size
from mmlearn.data.tokenizer import PublishedTokenizer
from mmlearn.files import written_whole
from mmlearn.pretrained.convert import convert as write_weights
from mmlearn.recipes.discovery import find_recipe
from mmlearn.training.runs import Run, with_options


def convert(file: Path, folder: Path, force: bool = False) -> str:
    """As :func:`mmlearn.pretrained.convert.convert`; a folder with a ``tokenizer.json`` becomes a run, too.

    Raises as that does, and ``ValueError`` for a tokenizer that is damaged, or of another vocabulary.
    """
    said = write_weights(file, folder, force)
    path, tokenizer = folder / "config.json", folder / "tokenizer.json"
    written = json.loads(path.read_text(encoding="utf-8"))
    name, recipe = written["system"], find_recipe(written["system"])
    if not (recipe.writes and tokenizer.is_file()):
        return said
    config, stage = recipe.config.from_dict(written["config"]), recipe.stage()
    special = {f"{token}_token": size(config, f"{token}_token") for token in ("start", "end", "pad")}
    # Half of the positions: as long a text as the official code of Whisper writes.
    read = PublishedTokenizer.read(folder, max_length=size(config, "max_length") // 2, **special)
    vocab_size = size(config, "vocab_size")
    if read.vocab_size > vocab_size or read.engine.id_to_token(read.end_token) is None:
        raise ValueError(f"{tokenizer} is not that of the {vocab_size:,} tokens of {file}.")
    items = with_options(recipe.fields(stage.tasks()), {"tokenizer": read}, name)
    nothing: Dataset = Dataset()  # to learn from: the configuration and the tokenizer say all
    fields = {item: changed.fitted(nothing, config, 0) for item, changed in items.items()}
    with torch.device("meta"):  # a run is asked for its configuration alone
        run = Run(name, recipe, recipe.make(config), fields, stage, tuple(stage.objectives()))
    values = written | run.to_dict(folder)
    with written_whole(path) as unfinished:
        unfinished.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    return said
