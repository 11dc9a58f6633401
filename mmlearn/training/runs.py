"""A run's folder: what was trained, on what, and everything needed to use it again. Whatever the system is."""

import inspect
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils.data import ConcatDataset, Dataset

import mmlearn
from mmlearn.data.batches import CollateFunction, fetch, spread
from mmlearn.data.collate import Collate, TaskSampler
from mmlearn.data.fields import Batch, Field, Label, MaskedTokens, resize, size
from mmlearn.data.packed import Packed, check_packs
from mmlearn.data.tokenizer import Tokenizer
from mmlearn.evaluation.eval_mode import evaluating
from mmlearn.files import written_whole
from mmlearn.layers.config import Config
from mmlearn.recipes.discovery import find_recipe
from mmlearn.recipes.recipe import Objective, Recipe, Stage, Task
from mmlearn.training.checkpoint import difference, misfit
from mmlearn.training.pretrained_parts import (
    Part,
    completed,
    fill_parts,
    load_field,
    read_as_parts_do,
    tell_untaught,
    unmoved,
    with_parts,
)
from mmlearn.training.settings import setting, with_settings

Data = Dataset | Mapping[str | None, Dataset]


@dataclass(frozen=True)
class Run:
    """A system, its fields with what they learned from the data, and the tasks that it is trained for."""

    name: str
    recipe: Recipe
    system: nn.Module
    fields: Mapping[Field, Field]  # as the recipe has it → as the data made it
    stage: Stage
    objectives: tuple[str, ...]
    together: bool = False  # one batch serves all objectives
    parts: Mapping[str, str] = field(default_factory=dict)  # taken over and not trained since → where it lay

    @cached_property
    def tasks(self) -> dict[Task, float]:
        """What a batch may serve, and how often."""
        return self.stage.tasks(self.objectives, self.together)

    @property
    def parameters(self) -> int:
        """How many numbers are trained."""
        moved = {name for turn in self.stage.optimizer_steps for name in turn.trained_names(self.system)}
        return sum(parameter.numel() for name, parameter in self.system.named_parameters() if name in moved)

    @property
    def device(self) -> torch.device:
        """Where the system is."""
        return next(self.system.parameters()).device

    @property
    def tokenizer(self) -> Tokenizer:
        """The one that the texts of this run are read with."""
        return self.field("tokens").tokenizer

    def field(self, entry: str) -> Any:
        """The :class:`~mmlearn.data.fields.Field` that makes this entry of a batch. ``ValueError`` where none does."""
        for item in self.fields.values():
            if entry in item.holds:
                return item
        raise ValueError(f"Batches of {self.name} have no {entry}.")

    def collate(self, *, seed: int = 0, augment: bool = False, pack: int | None = None) -> CollateFunction:
        """The collation that this system trains with. ``seed`` is of what is masked, exchanged and drawn.

        With ``pack`` several conversations share a row of so many tokens; ``ValueError`` for a system that reads none.
        """
        if pack is not None:
            check_packs(self.system, self.name)
        collates: list[CollateFunction] = [
            Collate(
                [self.fields[item] for item in self.recipe.fields([task])],
                [label for one in task for label in one.labels],
                ask=task[0].ask,
                augment=augment,
                seed=seed,
            )
            for task in self.tasks
        ]
        collates = collates if pack is None else [Packed(one, pack) for one in collates]
        sources = [task[0].data for task in self.tasks]
        if len(collates) == 1 and sources == [None]:
            return collates[0]
        return TaskSampler(collates, tuple(self.tasks.values()), sources=sources, seed=seed)

    def lengths(self, data: Data, count: int) -> list[int]:
        """How many tokens the texts of so many samples have, with those of their images, of which none is read."""
        item = next(item for item in self.fields if "tokens" in item.holds)
        seen: Any = _samples_of(item, self.recipe, self.tasks, getattr(data, "head", data))
        return self.field("tokens").lengths(seen, spread(len(seen), count))

    # What measures ask of a run.

    def plain(self, samples: Sequence[Any], objective: str | None = None) -> Batch:
        """These samples with nothing hidden; with an ``objective`` as that one reads them."""
        one = self.stage.objectives()[objective] if objective else Objective("")
        samples = [one.ask(sample) for sample in samples] if one.ask else samples
        batch: Batch = {}
        for item in (*self.recipe.reads, *one.reads):
            batch |= self.fields[item](samples)
        return batch

    def label(self, batch: Batch, label: Label) -> Batch:
        """The batch with this label, always drawn alike."""
        sizes = {name: value for item in self.fields.values() for name, value in item.sizes().items()}
        return label(batch, torch.Generator().manual_seed(0), sizes.__getitem__)

    def on_device(self, batch: Batch) -> Batch:
        """The batch where the system is."""
        return {name: value.to(self.device) for name, value in batch.items()}

    def batches(self, samples: Sequence[Any], size: int = 32) -> Iterator[Batch]:
        """Plain batches of so many samples where the system is, while it is in evaluation mode."""
        with evaluating(self.system):
            for start in range(0, len(samples), size):
                yield self.on_device(self.plain(samples[start : start + size]))

    def call(self, method: Callable[..., Any], batch: Batch) -> Any:
        """``method`` of those entries of a batch that it names."""
        names = inspect.signature(method).parameters
        return method(**{name: value for name, value in batch.items() if name in names})

    def read(self, batch: Batch, what: Callable[[Any, Batch], Tensor], size: int = 64) -> Tensor:
        """``what(output, rows)`` of all rows, so many at a time, in evaluation mode, on the CPU."""
        found, b = [], len(next(iter(batch.values())))
        with evaluating(self.system):
            for start in range(0, b, size):
                rows = self.on_device({name: value[start : start + size] for name, value in batch.items()})
                found.append(what(self.call(self.system.forward, rows), rows).cpu())
        return torch.cat(found)

    def to_dict(self, folder: Path) -> dict[str, Any]:
        """What ``config.json`` says. Fields write larger things, such as ``tokenizer.json``, into ``folder``."""
        parts = {"parts": dict(self.parts)} if self.parts else {}
        return parts | {
            "mmlearn": mmlearn.__version__,
            "system": self.name,
            "stage": self.stage.name,
            "objectives": list(self.objectives),
            "together": self.together,
            "config": self.system.config.to_dict(),
            "fields": {name: self.fields[item].save(folder) for name, item in named(self.fields).items()},
        }


def named(fields: Iterable[Field]) -> dict[str, Field]:
    """Fields by the first entry that each makes, which ``config.json`` calls them: ``label``, ``label 2`` and so on."""
    found: dict[str, Field] = {}
    for item in fields:
        entry = next(iter(item.holds))
        count = sum(next(iter(other.holds)) == entry for other in found.values()) + 1
        found[entry if count == 1 else f"{entry} {count}"] = item
    return found


def new_run(
    name: str,
    data: Data,
    *,
    preset: str | Config = "tiny",
    seed: int = 0,
    stage: str | None = None,
    objectives: Sequence[str] | None = None,
    together: bool = False,
    start: Run | None = None,
    options: Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
    parts: Mapping[str, Part] | None = None,
    going_on: tuple[Path, Mapping[str, Any]] | None = None,
) -> Run:
    """Build a system for this data: its preset, or a configuration, with the vocabulary, picture size and so on of it.

    ``name`` may be the path of a file of one's own. ``objectives`` are those of the paper unless given. ``options`` are
    for fields, such as ``vocab_size``; ``settings`` for the configuration, such as ``queue_size``. ``start`` is a run
    of the same system, as of an earlier stage: its configuration, its fields and its weights are taken over. So are
    those of ``parts`` (:func:`~mmlearn.training.pretrained_parts.read_parts`), as of a language model that others have
    trained.
    ``going_on`` is the folder and the ``config.json`` of a run, from which fields take what they learned.

    Raises ``ValueError`` for a system, preset, stage, objective, option or setting that there is not, for any of these
    that ``start`` decides, and for data without what the system reads.
    """
    data = getattr(data, "head", data)  # of a stream some samples that can be read at random
    recipe, options, settings, parts = find_recipe(name), options or {}, settings or {}, parts or {}
    chosen, name = recipe.stage(stage), Path(name).name
    config = recipe.config.preset(preset) if isinstance(preset, str) else preset
    tasks = chosen.tasks(objectives, together)
    items = with_options(recipe.fields(tasks), options, name)
    labels = [label for task in tasks for one in task for label in one.labels]
    if options.get("grounded") and not any(isinstance(label, MaskedTokens) for label in labels):
        raise ValueError(f"{name} hides no words here: leave grounded out.")
    if start is None:
        asked = with_settings(resize(config, dict(recipe.settings)), settings, name)
        config = with_parts(asked, parts)
    else:
        decided = [*options, *settings, *parts, *(["preset"] if preset != "tiny" else [])]
        _check_start(start, name, decided)
        asked = config = start.system.config
    seen = {item: _samples_of(item, recipe, tasks, data) for item in items}
    for item in items:
        item.check_sample(fetch(seen[item], [0])[0], name)
    fields: dict[Field, Field] = {}
    folder, kept = (going_on[0], going_on[1]["fields"]) if going_on else (Path(), {})
    for entry, item in named(items).items():
        known = start.fields.get(item) if start else None
        if entry in kept:
            fields[item] = _known(items[item], folder, kept[entry])
        else:
            fields[item] = known or read_as_parts_do(items[item], parts.values()).fitted(seen[item], config, seed)
        config = resize(config, fields[item].sizes())
    for key in settings:
        if (found := setting(config, key)) != setting(asked, key):
            raise ValueError(f"{key} is {found} with this data or part, and cannot be set: leave it out.")
    torch.manual_seed(seed)
    system = recipe.make(config)
    moved = {name for turn in chosen.optimizer_steps for name in turn.trained_names(system)}
    lay: Mapping[str, str]
    if start is None:
        lay = {key: part.folder for key, part in parts.items()}
        fill_parts(system, parts)
        tell_untaught(system, parts, moved)
    else:
        lay = start.parts
        _take_over(system, start.system.state_dict())
    names = tuple(dict.fromkeys(one.name for task in tasks for one in task))
    still = {key: lay[key] for key in unmoved(lay, moved)}
    return Run(name, recipe, system, fields, chosen, names, together, still)


def _known(item: Field, folder: Path, values: Any) -> Field:
    """A field with what it learned when the run of this folder began."""
    try:
        return load_field(item, folder, values)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        path = folder / "config.json"
        raise ValueError(f"{path} was not written by mmlearn train, or is damaged: {error}") from error


def with_options(fields: Iterable[Field], options: Mapping[str, Any], name: str) -> dict[Field, Field]:
    """Each field → the same with those options that it has. ``ValueError`` for an option that none has."""
    found = {item: replace(item, **{key: options[key] for key in options if hasattr(item, key)}) for item in fields}
    for key in options:
        if not any(hasattr(item, key) for item in found):
            raise ValueError(f"{name} has no option {key!r}: leave it out.")
    return found


def _check_start(start: Run, name: str, decided: list[str]) -> None:
    if start.name != name:
        raise ValueError(f"{name} cannot start from a run of {start.name}.")
    if decided:
        raise ValueError(f"The run that it starts from decides {decided[0]}: leave it out.")


def _take_over(system: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Load these into the system. What they lack, such as a head that the earlier stage did not have, stays new."""
    own = system.state_dict()
    system.load_state_dict(own | {key: value for key, value in tensors.items() if key in own})


def _samples_of(item: Field, recipe: Recipe, tasks: Collection[Task], data: Data) -> Dataset:
    """All samples that a field turns into tensors, as the objectives that read it want them."""
    readers = [one for task in tasks for one in task if item in recipe.reads or item in one.reads]
    views = []
    for source, ask in dict.fromkeys((one.data, one.ask) for one in readers):
        part = data[source] if isinstance(data, Mapping) else data
        views.append(_Asked(part, ask) if ask else part)
    return views[0] if len(views) == 1 else ConcatDataset(views)


class _Asked(Dataset):
    """Samples as an objective wants them."""

    def __init__(self, data: Any, ask: Callable[[Any], Any]):
        self.data, self.ask = data, ask
        if hasattr(data, "labels"):
            self.labels = data.labels

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> Any:
        return self.ask(self.data[index])


def save_run(run: Run, folder: str | Path, **more: Any) -> None:
    """Write ``config.json`` with ``more`` entries, and what fields know; ``fit`` adds ``model.safetensors``."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    values = run.to_dict(folder) | more
    with written_whole(folder / "config.json") as unfinished:  # last and at once: with it the folder is a run
        unfinished.write_text(json.dumps(values, indent=1) + "\n")


def load_run(folder: str | Path, system: str | Path | None = None, ema: bool = False) -> Run:
    """Read a trained run, in evaluation mode; with ``ema`` the average of its weights, where it was trained with one.

    ``system`` is the file that the run is of, where that is one of your own: a folder decides of no code that is run.

    Raises ``FileNotFoundError`` for a folder without a run, or with one of another ``system``; and ``ValueError`` for
    files that are damaged or do not belong together.
    """
    folder = Path(folder)
    path, weights = folder / "config.json", folder / f"model{'-ema' if ema else ''}.safetensors"
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder {folder}; give the output folder of a finished mmlearn train.")
    if ema and not weights.is_file():
        raise FileNotFoundError(f"{folder} holds no {weights.name}: it was trained without --ema, or is not finished.")
    for one in (path, weights):
        if not one.is_file():
            raise FileNotFoundError(
                f"{folder} holds no {one.name}; give the output folder of a finished mmlearn train."
            )
    try:
        tensors = load_file(weights)
    except SafetensorError as error:
        raise ValueError(f"{weights} is no whole safetensors file ({error}).") from error
    try:
        run, build = _read(json.loads(path.read_text()), folder, system)
        found = misfit(tensors, build, run.parts)
    except FileNotFoundError:
        raise
    except Exception as error:  # a file that was made up can make anything fail
        raise ValueError(f"{path} was not written by mmlearn train, or is damaged: {error}") from error
    if found:
        raise ValueError(f"{weights} does not fit its config.json: {found}.")
    run = replace(run, system=build().eval())
    tensors = completed(tensors, run.system, run.parts, weights)
    if found := difference(tensors, run.system.state_dict()):
        raise ValueError(f"{weights} does not fit its config.json: {found}.")
    run.system.load_state_dict(tensors)
    return run


def _read(values: Any, folder: Path, system: str | Path | None) -> tuple[Run, Callable[[], nn.Module]]:
    """The run that a ``config.json`` describes, without its system, and what builds that."""
    name, together = str(values["system"]), bool(values["together"])
    own = name.endswith(".py")
    if own != (system is not None) or Path(system or name).name != name:
        todo = "say where that file is with --system" if own else "leave --system out"
        raise FileNotFoundError(f"{folder} is a run of {name}: {todo}.")
    recipe = find_recipe(str(system or name))
    stage, objectives = recipe.stage(values["stage"]), tuple(map(str, values["objectives"]))
    config, fields = recipe.config.from_dict(values["config"]), {}
    for key, item in named(recipe.fields(stage.tasks(objectives, together))).items():
        known = fields[item] = load_field(item, folder, values["fields"][key])
        if wrong := {key: value for key, value in known.sizes().items() if size(config, key, value) != value}:
            key, value = next(iter(wrong.items()))
            raise ValueError(f"{type(item).__name__} has {key} {value}, and the model {size(config, key)}.")
    parts = dict(values.get("parts", {}))
    return Run(name, recipe, nn.Identity(), fields, stage, objectives, together, parts), lambda: recipe.make(config)
