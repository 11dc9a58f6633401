"""A published checkpoint as a run, so that ``mmlearn generate`` writes with it: its words, its images, its chat."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mmlearn.data.fields import Field, Image, Tokens, size
from mmlearn.data.grid_features import STRIDE
from mmlearn.data.tokenizer import PublishedTokenizer
from mmlearn.pretrained import load_pretrained
from mmlearn.pretrained.chat import LONGEST, read_chat
from mmlearn.pretrained.extras import is_extra, opened
from mmlearn.pretrained.image_chat import image_tokenizer
from mmlearn.pretrained.loading import is_run, published_folder, read_config
from mmlearn.pretrained.tower import pixel_settings
from mmlearn.pretrained.zoo import open_kept, zoo_records
from mmlearn.recipes.discovery import find_recipe
from mmlearn.training.runs import Run, load_run


def open_run(folder: Path, system: Path | None = None, ema: bool = False) -> Run:
    """The run of this folder (:func:`~mmlearn.training.runs.load_run`), or a model of the zoo: ``zoo/NAME``."""
    if folder.parts[:1] != ("zoo",) or folder.is_dir():
        return load_run(folder, system, ema)
    if system is not None or ema:
        raise ValueError(f"{folder} comes with the package, and is no run: leave out --system and --ema.")
    return load_zoo_run(folder.name)


def load_zoo_run(name: str) -> Run:
    """A model of the zoo with what its pictures and texts are read with. Errors as of ``load_zoo``.

    ``ValueError`` for a model that its lesson defines, and for one that reads anything else.
    """
    kept = open_kept(name)
    record = kept.record
    if not record["system"]:
        others = ", ".join(f"zoo/{each}" for each, known in zoo_records().items() if known["system"])
        lesson = f"lesson {record['lesson']} defines it, and measures it: mmlearn run {record['lesson']}"
        raise ValueError(f"zoo/{name} is no system that commands know; {lesson}. They know {others}.")
    system = kept.load()
    recipe, config = find_recipe(record["system"]), system.config
    fields: dict[Field, Field] = {}
    for item in recipe.reads:
        fields[item] = item
        if isinstance(item, Image):
            side = size(config, "image_size")
            if kept.frozen_grid:
                fields[item] = replace(item, frozen_grid=True, image_size=side * STRIDE)
            else:
                mean, std = kept.pixels()
                fields[item] = replace(item, mean=mean, std=std, image_size=side)
        elif isinstance(item, Tokens):
            fields[item] = replace(item, tokenizer=kept.tokenizer or image_tokenizer(config, record.get("parts", {})))
        else:
            raise ValueError(f"zoo/{name} reads {type(item).__name__}, of which the zoo keeps nothing.")
    stage = recipe.stages[-1]
    return Run(record["system"], recipe, system, fields, stage, tuple(stage.objectives()))


def load_writer(folder: Path, system: Path | None = None, ema: bool = False) -> Run:
    """The run of this folder, or of the zoo (:func:`open_run`), the published checkpoint that it holds, or an extra."""
    if is_extra(folder) and system is None and not ema:
        return load_published(folder)
    try:
        said = read_config(folder)
    except (OSError, ValueError):  # of which load_run says more
        said = {}
    if "model_type" not in said or is_run(said):
        return open_run(folder, system, ema)
    if system is not None or ema:
        raise ValueError(f"{folder} holds a published checkpoint, and no run: leave out --system and --ema.")
    return load_published(folder)


def load_published(folder: str | Path) -> Run:
    """The checkpoint of this folder with all that lies beside its weights: tokenizer, size of images, chat template.

    It may be an extra, such as ``smollm2-135m``. Raises ``ValueError`` for a system that writes nothing, and where
    something is missing that its words or images need; and whatever :func:`~mmlearn.load_pretrained` raises.
    """
    if is_extra(folder):
        with opened(str(folder)) as (beside, load):
            return _as_run(load(torch.float32), beside)
    return _as_run(load_pretrained(folder := published_folder(folder)), folder)


def _as_run(system: nn.Module, folder: Path) -> Run:
    name = type(system).__module__.rpartition(".")[2].replace("_", "-")
    recipe = find_recipe(name)
    if not recipe.writes:
        raise ValueError(f"{folder} holds a {type(system).__name__}, which writes no text.")
    fields: dict[Field, Field] = {}
    for item in recipe.reads:
        fields[item] = item
        if isinstance(item, Image):
            fields[item] = replace(item, **image_settings(folder, system))
        elif isinstance(item, Tokens):
            fields[item] = replace(item, tokenizer=read_tokenizer(folder, system))
    stage = recipe.stages[-1]
    return Run(name, recipe, system, fields, stage, tuple(stage.objectives()))


def image_settings(folder: Path, system: nn.Module) -> dict[str, Any]:
    """How large images are, and the mean and spread of their pixels. ``ValueError`` where no file says it."""
    tower = next(part for name, part in vars(system.config).items() if name in ("image_encoder", "image"))
    side = tower.image_size if isinstance(tower.image_size, int) else min(tower.image_size)
    return pixel_settings(folder) | {"image_size": side}


def read_tokenizer(folder: Path, system: nn.Module) -> PublishedTokenizer:
    """What the texts of a published model are read with; of one that chats, with its template.

    Raises ``ValueError`` where there is no tokenizer, and where a model that reads images among words has no template.
    """
    language = getattr(system, "language_model", system)
    config, image_token = language.config, getattr(system, "image_token", None)
    image = (None, 0) if image_token is None else (image_token, system.config.num_image_tokens)
    chat = read_chat(folder, config, *image) if hasattr(config, "more_end_tokens") else None  # a Llama may end a turn
    if chat is not None:
        language.config = replace(config, start_token=None, more_end_tokens=chat.more_ends)  # as the template says
        return chat
    if image_token is not None:
        raise ValueError(
            f"{folder} has no chat template, which says where in a text the image and the prompt stand: put the "
            "model's chat_template.jinja or chat_template.json into it."
        )
    start = getattr(config, "start_token", config.pad_token)  # an encoder-decoder begins with padding
    known = dict(start_token=config.end_token if start is None else start, end_token=config.end_token)
    return PublishedTokenizer.read(folder, max_length=LONGEST, **known, pad_token=config.pad_token)
