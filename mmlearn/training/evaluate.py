"""A trained run on data that it has not seen: all measures of what it learned."""

from collections.abc import Callable
from typing import Any

from mmlearn.data import fetch, load
from mmlearn.data.batches import spread
from mmlearn.data.catalogue import asked, held_out, is_endless
from mmlearn.recipes.recipe import Objective, Rows
from mmlearn.training.runs import Run


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

    At most ``limit`` samples are taken, and no more than the objectives say: those that read picture and text together
    take much memory. ``tell`` is called with the data once it is read.

    Raises ``ValueError`` and ``FileNotFoundError`` for data that is not there, or lacks what the system reads; and
    ``ValueError`` where nothing that it learned has a measure.
    """
    options = {}
    for item in run.fields.values():
        options |= item.data_options(run.system.config)
    samples = load(data, split or held_out(data), **asked(data, language=language, skip_bad=skip_bad, **options))
    objectives = list(dict.fromkeys(one for task in run.tasks for one in task))
    limit = min(limit, *(one.samples for one in objectives))
    endless = is_endless(data)
    count = min(limit, 256 if endless else len(samples))
    chosen = fetch(samples, range(count) if endless else sorted(set(spread(len(samples), count))))
    for item in run.recipe.reads:
        run.fields[item].check_sample(chosen[0], run.name)
    tell(samples)
    return measure(run, chosen, objectives)


def measure(run: Run, samples: list[Any], objectives: list[Objective]) -> Rows:
    """Every measure of these objectives on samples in hand."""
    rows: Rows = {}
    for one in dict.fromkeys(each for objective in objectives for each in objective.measures):
        rows |= one(run, samples)
    if not rows:
        learned = ", ".join(one.name for one in objectives)
        known = [one.name for one in run.stage.objectives().values() if one.measures]
        more = f": train it on {' or '.join(known)} as well" if known else ""
        raise ValueError(f"{run.name} learned {learned}, which has no measure on this data{more}.")
    return rows
