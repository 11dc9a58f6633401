"""A trained run on data that it has not seen: all measures of what it learned."""

import warnings
from collections.abc import Callable
from typing import Any

from mmlearn.data import fetch, load
from mmlearn.data.batches import spread
from mmlearn.data.catalogue import data_sets, given_options, held_out, is_endless
from mmlearn.data.readers.files import EmptySplit
from mmlearn.evaluation.measures import Rows
from mmlearn.pretrained.chat import ChatTokenizer
from mmlearn.recipes.recipe import Objective
from mmlearn.training.runs import Run

FEW = 10  # samples, of which each moves a measure by a tenth and more


def evaluate(
    run: Run,
    data: str,
    *,
    split: str | None = None,
    limit: int = 5000,
    language: str | None = None,
    skip_bad: bool = False,
    tell: Callable[[Any], None] = lambda samples: None,
) -> Rows:
    """``{measure: {"obtained": …, "chance": …}}`` on a split of ``data``, the held-out one if none is named.

    Of a folder where that has no two samples, val is taken, or else train; what is taken then is told.
    At most ``limit`` samples are taken, and no more than the objectives say: those that read picture and text together
    take much memory. ``tell`` is called with the data once it is read. An objective with a data set of its own is
    measured on that one alone, and one that reads what these samples lack is left out.

    Raises ``ValueError`` and ``FileNotFoundError`` for data that is not there, or lacks all that the system reads; and
    ``ValueError`` where nothing that it learned has a measure.
    """
    learned = dict.fromkeys(one for task in run.tasks for one in task)
    objectives = [one for one in learned if one.data in (None, str(data))]
    if not objectives:
        own = " or ".join(sorted({str(one.data) for one in learned}))
        raise ValueError(f"{run.name} learned from {own}, and not from {data}: evaluate it on what it learned.")
    options: dict[str, Any] = {"boxes": True}
    for item in run.fields.values():
        options |= item.data_options(run.system.config)
    options = given_options(data, language=language, skip_bad=skip_bad, **options)
    samples: Any = load(data, split, **options) if split else _held_out(data, options)
    limit = min(limit, *(one.samples for one in objectives))
    endless = is_endless(data)
    count = min(limit, 256 if endless else len(samples))
    chosen = fetch(samples, range(count) if endless else sorted(set(spread(len(samples), count))))
    objectives = _served(run, objectives, chosen[0])
    tell(samples)
    return measure(run, chosen, objectives)


def _held_out(data: str, options: dict[str, Any]) -> Any:
    """The held-out split; of a folder with too few samples for it another one. Errors as of ``load``."""
    first, found = held_out(data), 0
    if str(data) in data_sets():
        return load(data, first, **options)
    wrong: EmptySplit | None = None
    for part in dict.fromkeys((first, "val", "train")):
        try:
            samples: Any = load(data, part, **options)
        except EmptySplit as error:
            wrong = wrong or error
            continue
        found += len(samples)
        if len(samples) > 1:
            break
    else:
        raise ValueError(f"{data} has fewer than two samples in each of its splits.") if found or not wrong else wrong
    if part != first:
        learned = ", which it may have learned from" if part == "train" else ""
        warnings.warn(f"{first} of {data} has no two samples: this is of --split {part}{learned}", stacklevel=2)
    elif len(samples) < FEW:
        few = f"{first} of {data} has only {len(samples)} samples, so each weighs much"
        warnings.warn(f"{few}; --split names another", stacklevel=2)
    return samples


def _served(run: Run, objectives: list[Objective], sample: Any) -> list[Objective]:
    """The objectives that find in such a sample what they read. ``ValueError`` where none does."""
    found: list[Objective] = []
    problems: list[ValueError] = []
    for one in objectives:
        try:
            asked_for = one.ask(sample) if one.ask else sample
            for item in (*run.recipe.reads, *one.reads):
                run.fields[item].check_sample(asked_for, run.name)
            found.append(one)
        except ValueError as error:
            problems.append(error)
    if not found:
        raise problems[-1]
    return found


def measure(run: Run, samples: list[Any], objectives: list[Objective]) -> Rows:
    """Every measure of these objectives on samples in hand. ``ValueError`` for what none of them measures."""
    among_words = any(one.name == "reply" for one in objectives) or hasattr(run.system, "image_token")
    if among_words and isinstance(run.tokenizer, ChatTokenizer):
        raise ValueError(f"{run.name} answers in turns of a chat, which is not measured here; ask it: mmlearn chat.")
    rows: Rows = {}
    for one in dict.fromkeys(each for objective in objectives for each in objective.measures):
        rows |= one(run, samples)
    if not rows:
        learned = ", ".join(one.name for one in objectives)
        others = [one.name for one in run.stage.objectives().values() if one.measures and one not in objectives]
        more = f": train it on {' or '.join(others)} as well" if others else ""
        raise ValueError(f"{run.name} learned {learned}, which has no measure{more}.")
    return rows
