"""A recipe: what a system reads, what it learns, in which stages, and how that is measured.

Each system has one in a file of its name beside this one. Collation, training and evaluation from the command line, the
contract test and the system's page in the book are derived from it.
"""

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import nn

from mmlearn.data.fields import Batch, Field, Label, check_batch, resize, size
from mmlearn.evaluation.measures import Measure
from mmlearn.layers.config import Config
from mmlearn.recipes.chance import Chance
from mmlearn.suggestions import suggest


@dataclass(frozen=True)
class Objective:
    """Something to learn.

    ``chance`` names its losses, and says what each is before anything is learned, or None where that is not known.
    ``labels`` add to a batch what is to be predicted; ``reads`` are fields for this objective alone. ``ask`` changes a
    sample first, as its caption into a question; ``data`` names a data set of its own. ``measures`` say how well it is
    done, on so many ``samples`` at most. ``by_request``: it is learned only where it is asked for.
    """

    name: str
    chance: Mapping[str, Chance | None] = field(default_factory=dict, hash=False)
    labels: tuple[Label, ...] = ()
    reads: tuple[Field, ...] = ()
    ask: Callable[[Any], Any] | None = None
    data: str | None = None
    measures: tuple[Measure, ...] = ()
    samples: int = 256
    by_request: bool = False


Task = tuple[Objective, ...]  # what one batch serves


class OneOf:
    """Each batch serves one of these tasks, with equal odds or those of ``shares``."""

    def __init__(self, *tasks: Objective | Task, shares: Sequence[float] | None = None):
        self.tasks = tuple(task if isinstance(task, tuple) else (task,) for task in tasks)
        self.shares = tuple(shares or (1.0,) * len(tasks))


@dataclass(frozen=True)
class Alarm:
    """A ``line`` that training tells, once, when named losses have been beyond these bounds for ``steps`` on end.

    It stops nothing: it is for what goes wrong while every loss stays finite.
    """

    line: str
    below: Mapping[str, float] = field(default_factory=dict, hash=False)
    above: Mapping[str, float] = field(default_factory=dict, hash=False)
    steps: int = 100

    def holds(self, losses: Mapping[str, float]) -> bool:
        """Whether all these losses of one step are beyond their bounds; a loss that the step did not have is not."""
        low = all(losses.get(name, math.inf) < bound for name, bound in self.below.items())
        return low and all(losses.get(name, -math.inf) > bound for name, bound in self.above.items())


@dataclass(frozen=True)
class OptimizerStep:
    """One update of a step: the method of the system that gives the ``loss``, and which parts it ``trains``.

    Parts are named by the beginning of their parameters' names; without any, all that the system has not frozen move.
    ``betas`` are those of AdamW: how much of the last mean of gradients, and of their squares, is kept. ``alarm`` tells
    when losses, of this turn or of others, say that the training goes wrong.
    """

    loss: str = "loss"
    trains: tuple[str, ...] = ()
    betas: tuple[float, float] = (0.9, 0.98)
    alarm: Alarm | None = None

    def trained_names(self, system: nn.Module) -> list[str]:
        """The names of the parameters that this turn trains. ``ValueError`` for a part that there is not."""
        names = [name for name, parameter in system.named_parameters() if parameter.requires_grad]
        for part in self.trains:
            if not any(name.startswith(part) for name in names):
                raise ValueError(f"{type(system).__name__} has no part {part!r} that can be trained.")
        return [name for name in names if name.startswith(self.trains or "")]


@dataclass(frozen=True)
class Stage:
    """One training. A step takes all ``optimizer_steps`` one after the other, each with its own optimiser."""

    learns: Objective | Task | OneOf
    optimizer_steps: tuple[OptimizerStep, ...] = (OptimizerStep(),)
    name: str = ""

    def objectives(self) -> dict[str, Objective]:
        """All that may be learned, by name."""
        learns = self.learns if isinstance(self.learns, OneOf) else OneOf(self.learns)
        return {one.name: one for task in learns.tasks for one in task}

    def tasks(self, wanted: Sequence[str] | None = None, together: bool = False) -> dict[Task, float]:
        """What a batch may serve → how often, as a share of 1.

        Without ``wanted`` these are all objectives but those learned by request. ``together``: one batch serves all
        that read the same samples. Raises ``ValueError`` for an objective that there is not.
        """
        known = self.objectives()
        for name in [] if wanted is None else wanted or [""]:
            if name not in known:
                raise ValueError(f"There is no objective {name!r} here; {suggest(name, known)}.")
        kept = {name for name, one in known.items() if (not one.by_request if wanted is None else name in wanted)}
        learns = self.learns if isinstance(self.learns, OneOf) else OneOf(self.learns)
        shares: dict[Task, float] = {}
        for task, share in zip(learns.tasks, learns.shares):
            for part in _same_samples([one for one in task if one.name in kept]):
                shares[part] = shares.get(part, 0.0) + share
        if together:
            shares = dict.fromkeys(_same_samples([one for task in shares for one in task]), 1.0)
        return {task: share / sum(shares.values()) for task, share in shares.items()}


def _same_samples(objectives: Collection[Objective]) -> list[Task]:
    """These objectives, grouped by the samples that they read: captions and questions share no batch."""
    groups: dict[Any, list[Objective]] = {}
    for one in objectives:
        groups.setdefault((one.ask, one.data), []).append(one)
    return [tuple(dict.fromkeys(group)) for group in groups.values()]


@dataclass(frozen=True)
class Recipe:
    """See the module. A system with one stage says what it ``learns``, one with several its ``stages``.

    ``build`` makes the system where a configuration alone cannot; ``settings`` are those that learning needs;
    ``architecture`` describes the diagram of the system, as
    :func:`~mmlearn.visualization.architecture.draw_architecture` reads it.

    A system that ``writes`` has a method ``generate(decode=…, max_length=…)``, which returns tokens. It may also take
    an ``image``, and a ``prompt`` (b, t) without start and end. ``max_length`` does not count a start token.
    """

    system: type[nn.Module]
    config: type[Config]
    reads: tuple[Field, ...]
    learns: Objective | Task | OneOf | None = None
    stages: tuple[Stage, ...] = ()
    build: Callable[[Any], nn.Module] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    writes: bool = False
    architecture: str = ""

    def __post_init__(self) -> None:
        if (self.learns is None) == (not self.stages):
            raise ValueError(f"The recipe of {self.system.__name__} says learns or stages, and one of them.")
        if self.learns is not None:
            object.__setattr__(self, "stages", (Stage(self.learns),))
            object.__setattr__(self, "learns", None)  # so that a recipe can be replaced

    def stage(self, name: str | None = None) -> Stage:
        """The stage of this name, or the first. ``ValueError`` for another."""
        named = {stage.name: stage for stage in self.stages}
        if name is not None and name not in named:
            hint = suggest(name, named) if all(named) else "it has only one: leave stage out"
            raise ValueError(f"{self.system.__name__} has no stage {name!r}; {hint}.")
        return self.stages[0] if name is None else named[name]

    def make(self, config: Config) -> nn.Module:
        """The system, with weights as they are at the start."""
        return (self.build or self.system)(config)

    def fields(self, tasks: Collection[Task]) -> tuple[Field, ...]:
        """All fields that batches of these tasks have."""
        return tuple(dict.fromkeys((*self.reads, *(item for task in tasks for one in task for item in one.reads))))

    def holds(self) -> tuple[dict[str, str], set[str]]:
        """The entries of a batch with their axes; and those that a batch may lack, because it serves another task."""
        always = {name: axes for item in self.reads for name, axes in item.holds.items()}
        sometimes: dict[str, str] = {}
        for one in (one for stage in self.stages for one in stage.objectives().values()):
            parts: list[Field | Label] = [*one.reads, *one.labels]
            for part in parts:
                sometimes |= part.holds
        optional = {name for item in self.reads for name in item.optional}
        return always | sometimes, optional | sometimes.keys()

    def check(self, batch: Batch, config: Config) -> None:
        """``ValueError``, in one line, where a batch is not what this system reads and learns from."""
        holds, optional = self.holds()
        check_batch(batch, holds, config, optional)

    def tiny(self) -> Config:
        """The preset for two CPU cores, ready for examples."""
        return self.for_examples(self.config.tiny())

    def for_examples(self, config: Config) -> Config:
        """A configuration with what this system's learning and random examples of it need."""
        config = resize(config, dict(self.settings))
        for item in self.fields([task for stage in self.stages for task in stage.tasks()]):
            config = resize(config, item.example_sizes(config))
        return config

    def examples(self, config: Config, b: int = 8, seed: int = 0, stage: str | None = None) -> Iterator[Batch]:
        """A random batch for each task of a stage."""
        for task in self.stage(stage).tasks():
            generator = torch.Generator().manual_seed(seed)
            batch: Batch = {}
            for item in self.fields([task]):
                batch |= item.example(b, config, generator)
            for label in (label for one in task for label in one.labels):
                batch = label(batch, generator, partial(size, config))
            yield batch
