"""From samples to a batch: what the fields make of them, and then what is hidden or exchanged.

Nothing here has a state. What is left to chance is a function of a seed and of the samples or the step, so a run that
was stopped goes on with the same masks, and neither workers nor processes have anything to agree on.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from mmlearn.data.batches import CollateFunction
from mmlearn.data.fields.field import Batch, Field
from mmlearn.data.fields.labels import Label
from mmlearn.data.hashing import stream


class Collate:
    """A batch of samples: the entries of all ``fields``, and then, one after the other, what each of ``labels`` adds.

    ``Collate((Image(), Tokens(tokenizer)), (MaskedTokens(),))`` gives pictures and texts with some words hidden.
    ``ask`` changes each sample first, as its caption into a question. ``augment`` varies pictures and spectrograms.
    Draws depend on ``seed`` and on the samples' captions and sources. Raises ``ValueError`` for an empty batch, for
    fields that cannot be augmented, and whatever fields and labels say of samples that lack what they need.
    """

    def __init__(
        self,
        fields: Sequence[Field],
        labels: Sequence[Label] = (),
        *,
        ask: Callable[[Any], Any] | None = None,
        augment: bool = False,
        seed: int = 0,
    ):
        if augment and (reason := next((field.fixed for field in fields if field.fixed), "")):
            raise ValueError(f"Nothing can be augmented here, because {reason}: leave augment out.")
        self.fields, self.labels, self.ask, self.augment, self.seed = tuple(fields), tuple(labels), ask, augment, seed
        self.sizes = {name: value for field in fields for name, value in field.sizes().items()}

    def __call__(self, samples: Sequence[Any]) -> Batch:
        if not len(samples):
            raise ValueError("A batch holds at least one sample; got none.")
        if self.ask is not None:
            samples = [self.ask(sample) for sample in samples]
        batch: Batch = {}
        for field in self.fields:
            batch |= field(samples)
        if not (self.labels or self.augment):
            return batch
        generator = torch.Generator().manual_seed(int(stream("collate", self.seed, *map(_name, samples))) >> 1)
        for label in self.labels:
            batch = label(batch, generator, self.sizes.__getitem__)
        if self.augment:
            for field in self.fields:
                batch = field.augmented(batch, generator)
        return batch


def _name(sample: Any) -> str:
    return f"{getattr(sample, 'caption', '')}\n{getattr(sample, 'source', '')}"


class TaskSampler:
    """One of several collations a batch, drawn with the odds ``shares``: a system with several tasks serves one a step.

    Which one depends on ``seed`` and the step alone, so all processes serve the same task. :meth:`at` is the collation
    of a step; called by itself, this is the collation of step 0. ``sources`` names, for each, a data set of its own.
    Raises ``ValueError`` unless there is one share, not below 0, and one source for each collation.
    Source: Chen et al. 2020 (UNITER), section 3.2, where each batch serves one objective.
    """

    def __init__(
        self,
        collates: Sequence[CollateFunction],
        shares: Sequence[float] | None = None,
        *,
        sources: Sequence[str | None] | None = None,
        seed: int = 0,
    ):
        self.collates, self.seed = tuple(collates), seed
        self.shares = tuple(shares or (1.0,) * len(self.collates))
        self.sources = tuple(sources or (None,) * len(self.collates))
        if not len(self.collates) == len(self.shares) == len(self.sources):
            counts = f"{len(self.collates)} collations, {len(self.shares)} shares and {len(self.sources)} sources"
            raise ValueError(f"Each collation has one share and one source; got {counts}.")
        if not sum(self.shares) > 0 or min(self.shares) < 0:
            raise ValueError(f"Shares are 0 or more, and some above 0; got {self.shares}.")

    def drawn(self, step: int) -> int:
        """The number of the collation that batch ``step`` has."""
        position = int(stream("task", self.seed, step)) / 2**64 * sum(self.shares)
        for number, share in enumerate(self.shares):
            position -= share
            if position < 0:
                return number
        return len(self.shares) - 1

    def at(self, step: int) -> CollateFunction:
        """The collation of batch ``step``."""
        return self.collates[self.drawn(step)]

    def source(self, step: int) -> str | None:
        """The data set of batch ``step``, where it has one of its own."""
        return self.sources[self.drawn(step)]

    def __call__(self, samples: Sequence[Any]) -> Batch:
        return self.at(0)(samples)


class RoundRobin:
    """Batches of several tasks, one after the other, from samples that were turned into tensors before.

    A task's table has tensors (n, …) with a row for each sample. The data set is ``range(n)``, its samples are numbers
    of rows; batch ``step`` has these rows of table ``step % len(tables)``. :meth:`at` is the collation of a step;
    called by itself, this is the collation of step 0. Raises ``ValueError`` for no table, and for tensors of which one
    has more rows than another.
    """

    def __init__(self, tables: Sequence[Batch]):
        if not tables:
            raise ValueError("There is nothing to take in turn: no table was given.")
        rows = {len(value) for table in tables for value in table.values()}
        if len(rows) > 1:
            raise ValueError(f"All tables are of the same samples, one row each; got {sorted(rows)} rows.")
        self.tables = tuple(tables)

    def at(self, step: int) -> CollateFunction:
        """The collation of batch ``step``."""
        table = self.tables[step % len(self.tables)]
        return lambda rows: {name: value[rows] for name, value in table.items()}

    def __call__(self, samples: Sequence[int]) -> Batch:
        return self.at(0)(samples)
