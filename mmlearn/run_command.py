"""``mmlearn run``: a chapter, a lesson or a lab, executed; its results kept where that is asked for."""

from pathlib import Path
from typing import Annotated

import typer

from mmlearn.console import say


def run(
    chapter: Annotated[str, typer.Argument(help="Number or name of a chapter, such as 00.")],
    scale: Annotated[str, typer.Option(help="smoke (wiring only), laptop, long (minutes), or gpu.")] = "laptop",
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Where the random numbers start.")] = 0,
    seeds: Annotated[int, typer.Option(min=1, help="Run with this many seeds, from --seed on.")] = 1,
    data: Annotated[str, typer.Option(help="Pictures of your own, for chapters with a DATA parameter.")] = "",
    keep: Annotated[bool, typer.Option("--record", help="Keep results in book/results, and the outputs.")] = False,
    weights: Annotated[bool, typer.Option("--keep", help="At scale long: keep its weights in the zoo.")] = False,
    output: Annotated[Path | None, typer.Option(help="Where to write; runs/NAME if not given.")] = None,
) -> None:
    """Run a chapter: execute its notebook, keep its figures and numbers, print its results.

    Example: mmlearn run 07a --seed 1
    """
    from mmlearn.chapters import Result, Table
    from mmlearn.notebooks import find, keep_outputs, record
    from mmlearn.notebooks import run as execute

    if keep and data:
        raise ValueError("Results of your own data are not recorded as the chapter's; leave out --record or --data.")
    if weights and scale != "long":
        raise ValueError("Weights of the zoo are trained at --scale long; add it, or leave out --keep.")
    if weights:
        from mmlearn.pretrained.zoo import check_writable

        check_writable()  # before minutes of training
    notebook = find(chapter)
    folder = output or Path("runs") / notebook.name
    runs = []
    for number in reversed(range(seed, seed + seeds)):
        say(f"{notebook.name}, {scale} scale, seed {number}")
        if keep and runs and number == seed:  # its outputs are kept, and it draws what is recorded
            record(notebook, runs[::-1], Path("book") / "results")
        where = folder if seeds == 1 else folder / f"seed-{number}"
        runs.append(
            execute(notebook, where, scale=scale, seed=number, data=data and str(Path(data).resolve()), weights=weights)
        )
    runs.reverse()
    for results in runs:
        fields = [{k: v for k, v in row.items() if k != "holds"} for row in results["results"]]
        print(Table([Result(**row) for row in fields], scale))
        print(f"{results['seconds']:.0f} s, {results['peak_memory_mb']} MB, {results['device']}\n")
    first = folder if seeds == 1 else folder / f"seed-{seed}"
    if keep:
        say(f"recorded in {record(notebook, runs, Path('book') / 'results')}")
        if scale == "laptop":
            keep_outputs(notebook, first / notebook.path.name)
    say(f"Look at {first / 'index.html'} in a browser; pictures and numbers lie beside it.")
    say("Next: mmlearn lab opens the notebook to change it; mmlearn chapters lists all; mmlearn exercises has tasks.")
