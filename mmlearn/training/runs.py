"""A run's folder: what was trained, on what, and everything needed to use it again. Whatever the system is."""

import inspect
import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils.data import ConcatDataset, Dataset

import mmlearn
from mmlearn.data.batches import CollateFunction, fetch
from mmlearn.data.catalogue import asked, load
from mmlearn.data.collate import Alternate, Collate
from mmlearn.data.fields import Batch, Field, Label, resize, size
from mmlearn.data.tokenizer import Tokenizer
from mmlearn.evaluation.mode import evaluating
from mmlearn.files import written_whole
from mmlearn.recipes.discovery import find_recipe
from mmlearn.recipes.recipe import Objective, Recipe, Stage, Task
from mmlearn.training.checkpoint import difference

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

    @cached_property
    def tasks(self) -> dict[Task, float]:
        """What a batch may serve, and how often."""
        return self.stage.tasks(self.objectives, self.together)

    @property
    def parameters(self) -> int:
        """How many numbers are trained."""
        return sum(parameter.numel() for parameter in self.system.parameters() if parameter.requires_grad)

    @property
    def device(self) -> torch.device:
        """Where the system is."""
        return next(self.system.parameters()).device

    @property
    def tokenizer(self) -> Tokenizer:
        """The one that the texts of this run are read with."""
        return self.field("tokens").tokenizer

    def field(self, entry: str) -> Field:
        """The field that makes this entry of a batch. ``ValueError`` where none does."""
        for item in self.fields.values():
            if entry in item.holds:
                return item
        raise ValueError(f"Batches of {self.name} have no {entry}.")

    def collate(self, *, seed: int = 0, augment: bool = False) -> CollateFunction:
        """The collation that this system trains with. ``seed`` is of what is masked, exchanged and drawn."""
        collates = [
            Collate(
                [self.fields[item] for item in self.recipe.fields([task])],
                [label for one in task for label in one.labels],
                ask=task[0].ask,
                augment=augment,
                seed=seed,
            )
            for task in self.tasks
        ]
        sources = [task[0].data for task in self.tasks]
        if len(collates) == 1 and sources == [None]:
            return collates[0]
        return Alternate(collates, tuple(self.tasks.values()), sources=sources, seed=seed)

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
        return {
            "mmlearn": mmlearn.__version__,
            "system": self.name,
            "stage": self.stage.name,
            "objectives": list(self.objectives),
            "together": self.together,
            "config": self.system.config.to_dict(),
            "fields": {next(iter(item.holds)): item.save(folder) for item in self.fields.values()},
        }


def new_run(
    name: str,
    data: Data,
    *,
    preset: str = "tiny",
    seed: int = 0,
    stage: str | None = None,
    objectives: Sequence[str] | None = None,
    together: bool = False,
    start: Run | None = None,
    options: Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Run:
    """Build a system for this data: its preset, with the vocabulary, picture size and so on that the data has.

    ``objectives`` are those of the paper unless given. ``start`` is the run of an earlier stage, whose fields and
    weights are taken over. ``options`` are for fields, such as ``vocab_size``; ``settings`` for the configuration, such
    as ``queue_size``. Raises ``ValueError`` for a system, preset, stage, objective, option or setting that there is
    not, and for data without what the system reads.
    """
    recipe = find_recipe(name)
    chosen, config = recipe.stage(stage), recipe.config.preset(preset)
    tasks = chosen.tasks(objectives, together)
    names = tuple(dict.fromkeys(one.name for task in tasks for one in task))
    if start is not None:
        return replace(start, stage=chosen, objectives=names, together=together)
    config = resize(config, dict(recipe.settings) | _checked(settings or {}, config, name))
    fields: dict[Field, Field] = {}
    for item in recipe.fields(tasks):
        seen = _samples_of(item, recipe, tasks, data)
        item.check_sample(fetch(seen, [0])[0], name)
        wanted = {key: value for key, value in (options or {}).items() if hasattr(item, key)}
        fields[item] = replace(item, **wanted).fitted(seen, config, seed)
        config = resize(config, fields[item].sizes())
    torch.manual_seed(seed)
    return Run(name, recipe, recipe.make(config), fields, chosen, names, together)


def _checked(settings: Mapping[str, Any], config: Any, name: str) -> dict[str, Any]:
    for key in settings:
        if size(config, key, ...) is ...:
            raise ValueError(f"{name} has no setting {key!r}: leave it out.")
    return dict(settings)


def read_settings(texts: Sequence[str]) -> dict[str, Any]:
    """``["queue_size=0"]`` as ``{"queue_size": 0}``; values as JSON has them. ``ValueError`` for anything else."""
    settings = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise ValueError(f"A setting is name=value, such as queue_size=4096; got {text!r}.")
        try:
            settings[name] = json.loads(value)
        except ValueError:
            settings[name] = value
    return settings


def load_training_data(
    name: str,
    data: str,
    *,
    preset: str = "tiny",
    stage: str | None = None,
    objectives: Sequence[str] | None = None,
    together: bool = False,
    options: Mapping[str, Any] | None = None,
    language: str | None = None,
    skip_bad: bool = False,
) -> Data:
    """The training split of a data set, as the system's fields want it: pictures of their size, sounds that fit.

    Objectives with a data set of their own add that. Arguments and errors as in :func:`new_run`.
    """
    recipe = find_recipe(name)
    config, tasks = recipe.config.preset(preset), recipe.stage(stage).tasks(objectives, together)
    wanted = {}
    for item in recipe.fields(tasks):
        item = replace(item, **{key: value for key, value in (options or {}).items() if hasattr(item, key)})
        wanted |= item.data_options(config)
    sources = dict.fromkeys(task[0].data for task in tasks)
    found = {
        source: load(source or data, "train", **asked(source or data, language=language, skip_bad=skip_bad, **wanted))
        for source in sources
    }
    return found[None] if list(found) == [None] else found


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

    def __init__(self, data: Dataset, ask: Callable[[Any], Any]):
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


def load_run(folder: str | Path) -> Run:
    """Read a trained run, in evaluation mode.

    Raises ``FileNotFoundError`` for a folder without one, and ``ValueError`` for files that are damaged or do not
    belong together.
    """
    folder = Path(folder)
    path, weights = folder / "config.json", folder / "model.safetensors"
    for one in (path, weights):
        if not one.is_file():
            raise FileNotFoundError(
                f"{folder} holds no {one.name}; give the output folder of a finished mmlearn train."
            )
    try:
        run = _read(json.loads(path.read_text()), folder)
    except FileNotFoundError:
        raise
    except (ValueError, LookupError, TypeError, AttributeError, RuntimeError, ArithmeticError) as error:
        raise ValueError(f"{path} was not written by mmlearn train, or is damaged: {error}") from error
    try:
        tensors = load_file(weights)
    except SafetensorError as error:
        raise ValueError(f"{weights} is no whole safetensors file ({error}).") from error
    if found := difference(tensors, run.system.state_dict()):
        raise ValueError(f"{weights} does not fit its config.json: {found}.")
    run.system.load_state_dict(tensors)
    return run


def _read(values: Any, folder: Path) -> Run:
    """The run that a ``config.json`` describes, with weights as they are at the start."""
    name, together = str(values["system"]), bool(values["together"])
    recipe = find_recipe(name)
    stage, objectives = recipe.stage(values["stage"]), tuple(map(str, values["objectives"]))
    config, fields = recipe.config.from_dict(values["config"]), {}
    for item in recipe.fields(stage.tasks(objectives, together)):
        known = fields[item] = item.load(folder, values["fields"][next(iter(item.holds))])
        if wrong := {key: value for key, value in known.sizes().items() if size(config, key, value) != value}:
            key, value = next(iter(wrong.items()))
            raise ValueError(f"{type(item).__name__} has {key} {value}, and the model {size(config, key)}.")
    return Run(name, recipe, recipe.make(config).eval(), fields, stage, objectives, together)
