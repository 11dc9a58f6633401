"""``mmlearn exercises``: the list of tasks, one hint at a time, a written-out answer, and a fresh start."""

from typing import TYPE_CHECKING, Annotated

import typer

from mmlearn.console import Json, say, show

if TYPE_CHECKING:
    from mmlearn.exercises import Experiment, Task

app = typer.Typer(invoke_without_command=True)
Name = Annotated[str, typer.Argument(metavar="TASK", help="A task, such as info_nce or 07_contrastive/info_nce.")]


@app.callback()
def exercises(context: typer.Context, as_json: Json = False) -> None:
    """List the exercises: difficulty, minutes, and which you have solved.

    Example: mmlearn exercises --json
    """
    if context.invoked_subcommand:
        return
    from mmlearn.exercises import exercise_folders, exercises_folder, experiments, solved, tasks

    done = solved()
    rows = [
        {
            "solved": "✔" if f"{one.exercise}/{one.name}" in done else "·",
            "exercise": one.exercise,
            "task": one.name,
            "difficulty": "★" * one.difficulty if hasattr(one, "difficulty") else "experiment",
            "minutes": one.minutes,
        }
        for folder in exercise_folders()
        for one in (*tasks(folder), *experiments(folder))
    ]
    show(rows, as_json)
    say(f"{sum(row['solved'] == '✔' for row in rows)} of {len(rows)} solved; open one in {exercises_folder()}")


@app.command()
def hint(name: Name) -> None:
    """Give the next step of a task in words: one step with each call.

    Example: mmlearn exercises hint info_nce
    """
    from mmlearn.exercises import count_hints, hints_given, steps

    task, key = _named(name)
    words = steps(task.exercise, task.name)
    given = min(hints_given(key) + 1, len(words))
    count_hints(key, given)
    print(f"{given} of {len(words)}: {words[given - 1]}")
    solution = f"mmlearn exercises solution {name}"
    say(f"That was the last step; {solution} writes it out." if given == len(words) else "Ask again for the next one.")


@app.command()
def solution(name: Name) -> None:
    """Print a plain answer to a task, written out with the reason for each step.

    Example: mmlearn exercises solution info_nce
    """
    from mmlearn.exercises import solution

    task, _ = _named(name)
    print(solution(task.exercise, task.name))


@app.command()
def reset(name: Name) -> None:
    """Forget that a task was solved, and which hints were given.

    Example: mmlearn exercises reset info_nce
    """
    from mmlearn.exercises import count_hints, forget

    _, key = _named(name)
    forget(key)
    count_hints(key, 0)
    say(f"{key} is open again, and its hints begin with the first.")


def _named(name: str) -> "tuple[Task | Experiment, str]":
    from mmlearn.exercises import find_task

    task = find_task(name)
    return task, f"{task.exercise}/{task.name}"
