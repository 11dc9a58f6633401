"""A run's folder: what was trained, on what, and everything needed to use it again."""

import dataclasses
import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from torch.utils.data import Dataset

import mmlearn
from mmlearn.data.batches import PairCollate, fetch, image_statistics
from mmlearn.data.tokenizer import Tokenizer
from mmlearn.models import system as find_system
from mmlearn.names import choices

PAIRED = ("clip", "filip", "lit", "siglip")  # systems that learn from pictures with captions


@dataclass(frozen=True)
class Run:
    """A system with the tokenizer and the picture statistics that it was trained with."""

    name: str
    system: nn.Module
    tokenizer: Tokenizer
    mean: list[float]
    std: list[float]

    def collate(self, *, mark_repeats: bool = False, augmented: bool = False) -> PairCollate:
        """The collation that this system expects."""
        return PairCollate(self.tokenizer, mean=self.mean, std=self.std, mark_repeats=mark_repeats, augmented=augmented)

    def to_dict(self) -> dict[str, Any]:
        """What ``config.json`` says."""
        return {
            "mmlearn": mmlearn.__version__,
            "system": self.name,
            "config": self.system.config.to_dict(),
            "mean": self.mean,
            "std": self.std,
        }


def new_run(
    name: str, data: Dataset, *, preset: str = "tiny", vocab_size: int = 1024, max_length: int = 32, seed: int = 0
) -> Run:
    """Build a system for this data: its preset, with the vocabulary, text length and picture size that the data has.

    The tokenizer is trained on up to 5,000 captions spread through the data. Raises ``ValueError`` for a system that
    does not learn from pairs, an unknown preset, or a picture size that does not fit the patches.
    """
    if name not in PAIRED:
        raise ValueError(f"{name!r} is no system that trains on pictures with captions; {choices(name, PAIRED)}.")
    captions = _captions(data, torch.linspace(0, len(data) - 1, min(len(data), 5000)).long().tolist())
    tokenizer = Tokenizer.train(captions, vocab_size=vocab_size, max_length=max_length)
    longest = int(tokenizer(captions)[1].sum(1).max())
    tokenizer = Tokenizer(tokenizer.engine, longest)
    mean, std = ([0.0] * 3, [1.0] * 3) if name == "lit" else (part.tolist() for part in image_statistics(data))
    model, configuration = find_system(name)
    config = configuration.preset(preset)
    changes = {"text": dataclasses.replace(config.text, vocab_size=tokenizer.vocab_size, max_length=longest)}
    if hasattr(config, "image"):
        size = int(fetch(data, [0])[0].image.shape[-1])
        if size < config.image.patch_size:
            raise ValueError(f"Pictures of {size} pixels are smaller than a patch of {config.image.patch_size}.")
        changes["image"] = dataclasses.replace(config.image, image_size=size)
    if hasattr(config, "end_token"):
        changes["end_token"] = tokenizer.end_token
    if hasattr(config, "pad_token"):
        changes["pad_token"] = tokenizer.pad_token
    torch.manual_seed(seed)
    system = _build(name, model, dataclasses.replace(config, **changes))
    return Run(name, system, tokenizer, mean, std)


def _captions(data: Dataset, indices: list[int]) -> list[str]:
    """The captions of these samples, without their pictures where the data set has ``caption(index)``."""
    if hasattr(data, "caption"):
        return [data.caption(index) for index in indices]
    parts = (fetch(data, indices[start : start + 256]) for start in range(0, len(indices), 256))
    return [sample.caption for part in parts for sample in part]


def _build(name: str, model: type[nn.Module], config: Any) -> nn.Module:
    if name != "lit":
        return model(config)
    from mmlearn.data.backbone import load_backbone

    return model(config, load_backbone())


def save_run(run: Run, folder: str | Path, **more: Any) -> None:
    """Write ``tokenizer.json`` and ``config.json``, with ``more`` entries; ``fit`` adds ``model.safetensors``."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    run.tokenizer.save(folder)
    temporary = folder / ".writing-config.json"
    temporary.write_text(json.dumps(run.to_dict() | more, indent=1) + "\n")
    os.replace(temporary, folder / "config.json")  # last and at once: with it the folder is a run


def load_run(folder: str | Path) -> Run:
    """Read a trained run, in evaluation mode.

    Raises ``FileNotFoundError`` for a folder without one, and ``ValueError`` for files that are damaged or do not
    belong together.
    """
    folder = Path(folder)
    config, weights = folder / "config.json", folder / "model.safetensors"
    for path in (config, weights):
        if not path.is_file():
            raise FileNotFoundError(
                f"{folder} holds no {path.name}; give the output folder of a finished mmlearn train."
            )
    tokenizer = Tokenizer.load(folder)
    try:
        run = _read(json.loads(config.read_text()), tokenizer)
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError, RecursionError) as error:
        raise ValueError(f"{config} was not written by mmlearn train, or is damaged: {error}") from error
    text = run.system.config.text
    if (tokenizer.vocab_size, tokenizer.max_length) != (text.vocab_size, text.max_length):
        raise ValueError(
            f"{folder / 'tokenizer.json'} does not belong to its config.json: it has {tokenizer.vocab_size} tokens and "
            f"texts of {tokenizer.max_length}, the model {text.vocab_size} and {text.max_length}."
        )
    try:
        run.system.load_state_dict(load_file(weights))
    except SafetensorError as error:
        raise ValueError(f"{weights} is no whole safetensors file ({error}).") from error
    except RuntimeError as error:
        raise ValueError(f"{weights} does not fit its config.json: {str(error).splitlines()[-1].strip()}") from error
    return run


def _read(values: Any, tokenizer: Tokenizer) -> Run:
    """The run that a ``config.json`` describes, with weights as they are at the start."""
    name = values["system"]
    if name not in PAIRED:
        raise ValueError(f"{name!r} is no system that trains on pictures with captions; {choices(str(name), PAIRED)}.")
    model, configuration = find_system(name)
    mean, std = [float(x) for x in values["mean"]], [float(x) for x in values["std"]]
    if len(mean) != 3 or len(std) != 3 or not all(map(math.isfinite, mean)) or not all(0 < x < math.inf for x in std):
        raise ValueError(f"mean and std are three numbers each, and std above 0, not {mean} and {std}.")
    config = configuration.from_dict(values["config"])
    return Run(name, _build(name, model, config).eval(), tokenizer, mean, std)
