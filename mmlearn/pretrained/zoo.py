"""The zoo: small weights that were trained here, for as long as their idea needs, and come with the package.

One safetensors file each, in ``data/archives/zoo``, or in ``zoo-copyleft`` where share-alike or copyleft data taught
it: weights as fp16, and as metadata the system, its configuration, its tokenizer, and the record of its training
(steps, seed, data and their licences, seconds, measures). ``index.json`` beside them has each file's SHA-256.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from tokenizers import Tokenizer as Engine
from torch import Tensor, nn

from mmlearn.data.tokenizer import Tokenizer
from mmlearn.files import written_whole
from mmlearn.layers.lora import add_lora, lora_weights, merge_lora
from mmlearn.suggestions import suggest

ARCHIVES = Path(__file__).parent.parent / "data" / "archives"
ZOO, COPYLEFT = "zoo", "zoo-copyleft"
PIXELS = ("image_mean", "image_std")  # what a record says where a system sees pixels
COPYLEFT_DATA = re.compile(r"\bstamps\b|openmoji|GPL|GFDL|-SA\b")  # in the name of a licence or a data set


class Trained(NamedTuple):
    """A model of the zoo as it was kept."""

    model: nn.Module
    tokenizer: Tokenizer | None
    record: dict[str, Any]


def zoo_names() -> list[str]:
    """What there is, without the prefix ``zoo/``."""
    return sorted(_index())


def zoo_records() -> dict[str, dict[str, Any]]:
    """The record of each, with its ``system`` and ``megabytes``."""
    return {name: zoo_record(name) for name in zoo_names()}


def zoo_record(name: str) -> dict[str, Any]:
    """The record of one. Errors as of :func:`load_zoo`."""
    return open_kept(name).record


class Kept(NamedTuple):
    """A file of the zoo whose bytes are those that were kept, and what it says of itself; its weights are not read."""

    name: str
    path: Path
    system: str  # by which a recipe is found; empty where the model's class is a lesson's own
    config: dict[str, Any] | None  # of a system
    record: dict[str, Any]
    tokenizer: Tokenizer | None

    @property
    def frozen_grid(self) -> bool:
        """Whether it reads features of a frozen network in place of pixels."""
        return _channels(self.config) not in (None, 3)

    def pixels(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and spread of the pixels that it reads, by its record. ``ValueError`` where that has none."""
        said = [self.record.get(key) for key in PIXELS]
        if not all(isinstance(one, list) and len(one) == 3 for one in said):
            raise ValueError(f"The record of zoo/{self.name} does not say {' and '.join(PIXELS)} of its pixels.")
        mean, std = (tuple(map(float, one)) for one in said)
        return mean, std

    def load(self, into: nn.Module | None = None) -> nn.Module:
        """The model; see :func:`load_zoo`."""
        tensors = {
            key: value.float() if value.is_floating_point() else value for key, value in _tensors(self.path).items()
        }
        if into is None and (parts := self.record.get("parts")):
            from mmlearn.pretrained.loading import load_pretrained
            from mmlearn.recipes.discovery import find_recipe

            recipe = find_recipe(self.system)
            given = {part: load_pretrained(name) for part, name in parts.items()}
            into = recipe.build(recipe.config.from_dict(self.config or {}), **given)
        if into is None:
            from mmlearn.pretrained.loading import build_own

            if not self.system:
                raise ValueError(
                    f"zoo/{self.name} is a model that its lesson defines: load_zoo({self.name!r}, into=model)."
                )
            return build_own({"system": self.system, "config": self.config}, tensors, self.path)
        changed = self.record.get("lora")  # a frozen part is not kept, but what was learned beside it
        if changed:
            add_lora(into.get_submodule(changed["part"]), changed["rank"], changed["alpha"], changed["layers"])
        own, frozen = into.state_dict(), tuple(self.record.get("without", ()))
        missing = [key for key in own if key not in tensors and not key.startswith(frozen or ("\0",))]
        other = [key for key in tensors if key not in own or own[key].shape != tensors[key].shape]
        if missing or other:
            raise ValueError(f"zoo/{self.name} does not fit this {type(into).__name__}: see {(missing + other)[0]}.")
        into.load_state_dict(own | tensors)
        if changed:
            merge_lora(into.get_submodule(changed["part"]))
        return into.eval()


def load_zoo(name: str, into: nn.Module | None = None) -> Trained:
    """The model with this name, built from its configuration, or its weights loaded ``into`` a model of one's own.

    In evaluation mode, in float32. A model that it is loaded into has the same parameters by the same names; those of
    frozen parts that come with the package are not kept, and stay as they are. But LoRA that was kept (``lora`` of the
    record) is added to the weights of its part, which no other model should share. Raises ``FileNotFoundError`` for a
    name that is not there, ``ValueError`` for a changed or damaged file, and for a model that does not fit.
    """
    kept = open_kept(name)
    return Trained(kept.load(into), kept.tokenizer, kept.record)


class Processor(NamedTuple):
    """What a model of the zoo reads pictures and texts with: words and pictures in, tensors out."""

    tokenizer: Tokenizer
    frozen_grid: bool  # it reads features of a frozen network in place of pixels
    mean: tuple[float, ...] = ()  # of the pixels that it reads, one number a channel; of a frozen network none
    std: tuple[float, ...] = ()

    def __call__(
        self, images: Float[Tensor, "b 3 height width"], texts: Sequence[str]
    ) -> dict[str, Float[Tensor, "..."] | Tensor]:
        """``image``, ``tokens`` and ``mask``, as ``forward`` takes them. Pictures are from 0 to 1, 96 pixels a side."""
        from mmlearn.data.grid_features import as_channels, grid_features

        tokens, mask = self.tokenizer(texts)  # (b, t) each
        if self.frozen_grid:
            images = as_channels(grid_features(images, keep=False))  # (b, 96, rows, columns)
        elif self.mean:
            mean, std = (torch.tensor(values).view(3, 1, 1) for values in (self.mean, self.std))
            images = (images - mean) / std
        return {"image": images, "tokens": tokens, "mask": mask}


def load_processor(name: str) -> Processor | Tokenizer:
    """How ``zoo/NAME`` reads pictures and texts, or a language model, such as ``smollm2-135m``, turns of a chat.

    The latter is a :class:`~mmlearn.pretrained.chat.ChatTokenizer`. Errors as of :func:`load_zoo`; ``ValueError`` for
    what reads no texts.
    """
    from mmlearn.pretrained.extras import is_extra
    from mmlearn.pretrained.loading import is_run, read_json

    if is_extra(name):
        from mmlearn.pretrained.chat import extra_tokenizer

        return extra_tokenizer(name)
    if (file := Path(name) / "config.json").is_file() and is_run(read_json(file)):
        raise ValueError(f"{name} is no name of the zoo; of a run: mmlearn.training.runs.load_run({name!r}).plain(…).")
    kept = open_kept(name)
    if kept.tokenizer is None and (parts := kept.record.get("parts")):
        from mmlearn.pretrained.image_chat import image_tokenizer
        from mmlearn.recipes.discovery import find_recipe

        return image_tokenizer(find_recipe(kept.system).config.from_dict(kept.config or {}), parts)
    if kept.tokenizer is None:
        raise ValueError(f"{name} reads no text, and has no tokenizer.")
    return Processor(kept.tokenizer, kept.frozen_grid, *(kept.pixels() if _channels(kept.config) == 3 else ()))


def keep(
    name: str,
    model: nn.Module,
    record: dict[str, Any],
    *,
    system: str = "",
    tokenizer: Tokenizer | None = None,
    without: tuple[str, ...] = (),
    archives: Path = ARCHIVES,
) -> Path:
    """Write a model to the zoo. ``system`` is its name where a recipe builds it, else its lesson's class does.

    Raises ``OSError`` where the package cannot be written, see :func:`check_writable`.

    ``record`` needs ``steps``, ``seed``, ``data`` and ``licence`` (of the data), and where a system sees pixels also
    ``image_mean`` and ``image_std``, three numbers each. ``without`` are beginnings of names of frozen parts that come
    with the package, and ``parts`` of the record those that other packages bring: ``{"language_model":
    "smollm2-135m"}``. Of a frozen part with LoRA the thin matrices are kept; its ``lora`` in the record says which:
    ``{"part": "language_model", "rank": 8, "alpha": 16.0, "layers": ["query", "value"]}``. Raises ``ValueError`` for a
    record that lacks one of these.
    """
    config: Any = getattr(model, "config", None)
    published = {"system": system, "config": config.to_dict() if system else None}
    needed = ("steps", "seed", "data", "licence", *(PIXELS if _channels(published["config"]) == 3 else ()))
    if lacking := [key for key in needed if key not in record]:
        raise ValueError(f"The record of {name} needs {lacking[0]!r}.")
    thin = {key for key in lora_weights(model) if without and key.startswith(without)}
    if bool(thin) != ("lora" in record):
        raise ValueError(f"The record of {name} says lora where a part that is not kept has LoRA, and only there.")
    copyleft = COPYLEFT_DATA.search(f"{record['licence']} {record['data']}")
    folder = archives / (COPYLEFT if copyleft else ZOO)
    tensors = {
        key: (value.half() if value.is_floating_point() else value).contiguous().clone()
        for key, value in model.state_dict().items()
        if not without or not key.startswith(without) or key in thin
    }
    metadata = {
        "format": "pt",
        "published": json.dumps(published),
        "record": json.dumps(record | {"without": list(without)}),
        "tokenizer": tokenizer.engine.to_str() if tokenizer else "",
        "max_length": str(tokenizer.max_length if tokenizer else 0),
    }
    content = save(tensors, metadata=metadata)
    check_writable(folder)
    with written_whole(folder / f"{name}.safetensors") as unfinished:
        unfinished.write_bytes(content)
    known = json.loads((folder / "index.json").read_text()) if (folder / "index.json").is_file() else {}
    known[name] = hashlib.sha256(content).hexdigest()
    with written_whole(folder / "index.json") as unfinished:
        unfinished.write_text(json.dumps(dict(sorted(known.items())), indent=1) + "\n")
    return folder / f"{name}.safetensors"


def check_writable(folder: Path = ARCHIVES / ZOO) -> None:
    """``OSError`` where the zoo's folder cannot be written, as in an installation that is read-only."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        todo = "weights are kept in a clone that you may write to, installed with pip install -e"
        raise OSError(f"{folder} cannot be written ({error.strerror}): {todo}.") from error


def _index() -> dict[str, tuple[Path, str]]:
    """Each name → its file and that file's SHA-256."""
    found: dict[str, tuple[Path, str]] = {}
    for folder in (ARCHIVES / ZOO, ARCHIVES / COPYLEFT):
        if (path := folder / "index.json").is_file():
            found |= {
                name: (folder / f"{name}.safetensors", digest) for name, digest in json.loads(path.read_text()).items()
            }
    return found


def open_kept(name: str) -> Kept:
    """The file of this name, whose bytes are compared with those that were kept. Errors as of :func:`load_zoo`."""
    name, known = name.removeprefix("zoo/"), _index()
    if name not in known:
        raise FileNotFoundError(f"There is no zoo/{name}; {suggest(name, known)}.")
    path, digest = known[name]
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing. Reinstall mmlearn.")
    if hashlib.sha256(path.read_bytes()).hexdigest() != digest:
        raise ValueError(f"{path} is not the file that came with mmlearn: its bytes have changed. Reinstall mmlearn.")
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata()
        published, record = json.loads(metadata["published"]), json.loads(metadata["record"])
        record |= {"system": published["system"], "megabytes": round(path.stat().st_size / 1e6, 2)}
        engine = Engine.from_str(metadata["tokenizer"]) if metadata["tokenizer"] else None
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is of another version of mmlearn ({type(error).__name__}: {error}).") from error
    tokenizer = Tokenizer(engine, int(metadata["max_length"])) if engine else None
    return Kept(name, path, published["system"], published["config"], record, tokenizer)


def _channels(config: Any) -> int | None:
    """Of the pictures that a system reads: 3 are pixels, more a frozen network's features, and None no pictures."""
    parts = [config or {}]
    for part in parts:
        if isinstance(part.get("channels"), int):
            return part["channels"]
        parts += [value for value in part.values() if isinstance(value, dict)]
    return None


def _tensors(path: Path) -> dict[str, Tensor]:
    with safe_open(path, "pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
