"""Plain answers, one function a task, whose comments are the hints: each comment is one step of the way.

They lie beside the checks, in ``solutions.py`` and ``solutions_TOPIC.py``, and a test holds that each passes its check.
"""

import ast

from mmlearn.exercises.folders import exercises_folder


def solution(exercise: str, task: str) -> str:
    """The plain answer to a task as it is written, with the functions of its file that it calls."""
    text, functions = _find(exercise, task)
    wanted = {task}
    while more := {
        name.id
        for one in wanted
        for name in ast.walk(functions[one])
        if isinstance(name, ast.Name) and name.id in functions and name.id not in wanted
    }:
        wanted |= more
    helpers = [one for name, one in functions.items() if name in wanted and name != task]
    return "\n\n\n".join(_lines(text, one) for one in [*helpers, functions[task]])


def steps(exercise: str, task: str) -> list[str]:
    """The steps of a plain answer in words, one for each comment of it."""
    text, functions = _find(exercise, task)
    found: list[str] = []
    follows = False  # whether the line before was a comment too, which this one goes on
    for line in _lines(text, functions[task]).splitlines():
        words = line.strip()
        if words.startswith("# "):
            found = [*found[:-1], f"{found[-1]} {words[2:]}"] if follows else [*found, words[2:]]
        follows = words.startswith("# ")
    return found


def _find(exercise: str, task: str) -> tuple[str, dict[str, ast.FunctionDef]]:
    """The file that answers a task, and its functions."""
    for path in sorted((exercises_folder() / exercise).glob("solutions*.py")):
        text = path.read_text(encoding="utf-8")
        functions = {node.name: node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef)}
        if task in functions:
            return text, functions
    raise ValueError(f"There is no written answer to {task} of {exercise}: experiments have none, and some tasks.")


def _lines(text: str, node: ast.FunctionDef) -> str:
    first = min([node.lineno, *(one.lineno for one in node.decorator_list)])
    return "\n".join(text.splitlines()[first - 1 : node.end_lineno])
