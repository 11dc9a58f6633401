"""Parts that others have trained: a language model, or the encoder of pictures, taken over into a new system.

``--start language_model=runs/gpt2`` takes a finished run, of a GPT-2 alone or of a system that has one, or a published
model: a folder, or a hub id. With its weights come its configuration and what it reads with: its vocabulary and its
turns of a chat, the size, mean and spread of pixels. ``--start image_encoder=mobilenetv2`` is the packaged tower.
"""

import inspect
import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import fields as settings_of
from dataclasses import is_dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, get_type_hints

from torch import Tensor, nn

from mmlearn.data.fields import Field, Image, Tokens
from mmlearn.data.tokenizer import PublishedTokenizer
from mmlearn.layers.config import Config
from mmlearn.layers.lora import merge_lora, named_with_lora
from mmlearn.pretrained import load_pretrained
from mmlearn.pretrained.backbone import load_positions
from mmlearn.pretrained.chat import CHAT_FILE, ChatTokenizer
from mmlearn.pretrained.image_chat import plain_chat, with_chat
from mmlearn.pretrained.loading import published_folder, read_json
from mmlearn.pretrained.tower import MOBILENET, fields_of, pixel_settings
from mmlearn.recipes.discovery import find_recipe
from mmlearn.suggestions import suggest
from mmlearn.training.checkpoint import difference

LONGEST = 64  # tokens of a text, where the vocabulary is a published one


class Part(NamedTuple):
    """What is taken over: its configuration, its weights, what it reads with, and where it lay."""

    config: Config
    weights: dict[str, Tensor]
    fields: dict[str, Field]  # by the first entry of a batch that each makes
    folder: str


def read_start(given: Sequence[str], system: str, preset: str) -> tuple[Any, dict[str, Part]]:
    """``["runs/a", "language_model=runs/b"]`` as the run to start from, or None, and the parts that are taken over.

    Raises ``ValueError`` for two runs, for a part that the ``system`` does not have, and for a folder that holds
    something else; and whatever :func:`~mmlearn.training.runs.load_run` and :func:`~mmlearn.load_pretrained` raise.
    """
    from mmlearn.training.runs import load_run

    runs = [text for text in given if "=" not in text or Path(text).exists()]
    folders = dict(text.split("=", 1) for text in given if text not in runs)
    if len(runs) > 1:
        raise ValueError(f"A run starts from one other, and parts are PART=FOLDER; got {' and '.join(runs)}.")
    own = system if system.endswith(".py") else None
    return load_run(runs[0], own) if runs else None, read_parts(folders, find_recipe(system).config.preset(preset))


def read_parts(folders: Mapping[str, str | Path], config: Config) -> dict[str, Part]:
    """Each part of a system with this configuration, from its folder. Errors as of :func:`read_start`."""
    there = {name: Path(folder).absolute() if Path(folder).exists() else folder for name, folder in folders.items()}
    return {name: _read_part(name, str(folder), config) for name, folder in there.items()}


def _read_part(name: str, folder: str, config: Config) -> Part:
    known = [each for each, value in vars(config).items() if isinstance(value, Config)]
    if name not in known:
        raise ValueError(f"There is no part {name!r} to start from; {suggest(name, known)}.")
    if name == "image_encoder" and folder == MOBILENET:
        tower = load_positions(seen := fields_of(MOBILENET))
        as_they_are = Image((0.0,) * 3, (1.0,) * 3, image_size=tower.input_size)  # it normalises them itself
        return Part(seen, tower.state_dict(), {"image": as_they_are}, folder)
    among_words = name == "language_model" and hasattr(config, "image_token")  # images stand there
    whole, fields = _read_whole(folder, among_words)
    wanted = get_type_hints(type(config))[name]
    own: Any = _find(whole.config, wanted)
    if own is None:
        raise ValueError(
            f"{folder} is a {type(whole).__name__}, in which there is no {name} of the kind that is needed here."
        )
    if among_words:
        own = replace(own, start_token=None)  # which the template of its chat writes
    module = next((part for key, part in whole.named_modules() if key.split(".")[-1] == name), whole)
    merge_lora(module)  # what thin matrices have learned is kept, whatever new ones stand beside it
    reads = inspect.signature(module.forward).parameters
    found = {entry: one for entry, one in fields.items() if entry in reads}
    if "image" in reads and "image" not in found:
        found["image"] = Image(**pixel_settings(published_folder(folder)))
    if isinstance(pixels := found.get("image"), Image) and not pixels.frozen_grid and isinstance(own.image_size, int):
        found["image"] = replace(pixels, image_size=own.image_size)
    return Part(own, module.state_dict(), found, folder)


def _read_whole(folder: str, among_words: bool) -> tuple[Any, dict[str, Field]]:
    """A run, or a published model, and what it reads with; its texts in turns where images stand ``among_words``."""
    from mmlearn.training.runs import load_run, named

    file = Path(folder) / "config.json"
    if file.is_file() and "fields" in read_json(file):
        run = load_run(folder)
        fields = named(run.fields.values())
        if among_words and isinstance(known := fields.get("tokens"), Tokens):
            words: Any = known.tokenizer
            fields["tokens"] = Tokens(words if isinstance(words, ChatTokenizer) else plain_chat(words))
        return run.system, fields
    if among_words:
        model, chat = with_chat(folder)
        return model, {"tokens": Tokens(chat)}
    return load_pretrained(folder), _words_of(published_folder(folder))


def _words_of(folder: Path) -> dict[str, Field]:
    """What reads texts as a published model does, where files beside its weights say it."""
    said = read_json(folder / "config.json")
    start, end, pad = (said.get(f"{name}_token_id") for name in ("bos", "eos", "pad"))
    if not (folder / "tokenizer.json").is_file() or "vision_config" in said:  # whose image tower alone is taken
        return {}
    if start is None or end is None:
        raise ValueError(
            f"{folder / 'config.json'} names no bos_token_id and eos_token_id, with which texts begin and end."
        )
    special = dict(start_token=start, end_token=end, pad_token=end if pad is None else pad)
    return {"tokens": Tokens(PublishedTokenizer.read(folder, max_length=LONGEST, **special))}


def image_side(parts: Mapping[str, Part]) -> int | None:
    """How many pixels a side the images of a part have, where one reads pixels; else None."""
    sides = (one for part in parts.values() if isinstance(one := part.fields.get("image"), Image))
    return next((one.image_size for one in sides if not one.frozen_grid), None)


def load_field(item: Field, folder: Path, values: dict[str, Any]) -> Any:
    """A field with what it learned when the run of this folder began; its texts in turns where they were."""
    known: Any = item.load(folder, values)
    chats = isinstance(known, Tokens) and (folder / CHAT_FILE).is_file()
    return replace(known, tokenizer=ChatTokenizer.load(folder)) if chats else known


def _find(config: Any, kind: type[Config]) -> Config | None:
    """The configuration of this kind that this one is, or has inside."""
    if isinstance(config, kind):
        return config
    inside = (_find(value, kind) for value in vars(config).values() if is_dataclass(value))
    return next((found for found in inside if found), None)


def with_parts(config: Config, parts: Mapping[str, Part]) -> Config:
    """The configuration with those of the parts."""
    return replace(config, **{name: part.config for name, part in parts.items()})


def read_as_parts_do(item: Field, parts: Iterable[Part]) -> Field:
    """The field with what the field of a part knows that makes the same entry of a batch."""
    for known in (part.fields.get(next(iter(item.holds))) for part in parts):
        if known is not None:
            names = [name for name in (*item.known, "tokenizer") if hasattr(item, name) and hasattr(known, name)]
            return replace(item, **{name: getattr(known, name) for name in names})
    return item


def fill_parts(system: nn.Module, parts: Mapping[str, Part]) -> None:
    """Give the parts of a new system their weights. ``ValueError`` where one is another than it was, or than needed."""
    for name, part in parts.items():
        now = getattr(system.config, name)
        for key in (each.name for each in settings_of(now)):
            if (theirs := getattr(part.config, key)) != (ours := getattr(now, key)):
                raise ValueError(
                    f"{name} of {part.folder} has {key} {theirs}, and this training needs {ours}: take one that was "
                    "trained with the same, or leave out what changes it."
                )
        module = getattr(system, name)
        weights = named_with_lora(module, part.weights)
        if found := difference(weights, module.state_dict()):
            raise ValueError(f"{name} of {part.folder} is not built as it is here: {found}.")
        module.load_state_dict(weights)


def tell_untaught(system: nn.Module, parts: Mapping[str, Part], moved: Collection[str]) -> None:
    """Warn of parts that start at random and are not trained either: what others should have trained is missing."""
    own = [name for name, value in vars(system.config).items() if isinstance(value, Config)]
    there = [name for name in own if isinstance(getattr(system, name, None), nn.Module)]
    still = [name for name in unmoved(there, moved) if name not in parts]
    if still:
        warnings.warn(
            f"{' and '.join(still)} {'start' if len(still) > 1 else 'starts'} at random and will not be trained: take "
            f"over what was trained before, as with --start {still[0]}=FOLDER.",
            stacklevel=3,
        )


def unmoved(names: Iterable[str], moved: Collection[str]) -> list[str]:
    """Those of these parts of which nothing is among the parameters that are trained."""
    return [name for name in names if not any(key.startswith(f"{name}.") for key in moved)]


def completed(tensors: dict[str, Tensor], system: nn.Module, parts: Mapping[str, str], file: Path) -> dict[str, Tensor]:
    """The weights in a run's file, with those of parts that it lacks: they are looked for where they came from.

    Raises ``ValueError`` for a part that is not there any more, and says where it was.
    """
    found = dict(tensors)
    for name, folder in parts.items():
        if any(key.startswith(f"{name}.") for key in tensors):
            continue
        try:
            weights = _read_part(name, folder, system.config).weights
        except FileNotFoundError as error:
            raise ValueError(
                f"{file} lacks {name}, which came from {folder}, and that is no longer there: put it back."
            ) from error
        weights = named_with_lora(getattr(system, name), weights)
        found |= {f"{name}.{key}": value for key, value in weights.items()}
    return found
