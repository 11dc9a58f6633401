"""How large things may grow, so that a student reads each in one sitting, and so that drift is a decision."""

import ast
import json
import statistics
from pathlib import Path

import mmlearn

ROOT = Path(mmlearn.__file__).parents[1]
LIBRARY = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in sorted((ROOT / "mmlearn").rglob("*.py"))
    if "_shipped" not in path.parts
}
EXERCISES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for folder in ("exercises", "tests/exercises")
    for path in sorted((ROOT / folder).glob("*/*.py"))
}
MODELS = {name: text for name, text in LIBRARY.items() if name.startswith("mmlearn/models/")}
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def lines(text):
    return len(text.splitlines())


def code_cells(notebook):
    """How many lines each cell of code has."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return [lines("".join(cell["source"])) for cell in cells if cell["cell_type"] == "code"]


def function_lengths(files):
    """Each function and method with its number of lines, decorators not counted."""
    return {
        f"{name}: {node.name} in line {node.lineno}": node.end_lineno - node.lineno + 1
        for name, text in files.items()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def limit(name):
    return 350 if name in MODELS else 400


def test_files_are_short_enough_to_read():
    files = LIBRARY | EXERCISES
    assert {name: lines(text) for name, text in files.items() if lines(text) > limit(name)} == {}


def test_a_model_is_as_a_rule_much_shorter():
    lengths = [lines(text) for name, text in MODELS.items() if not name.endswith("__init__.py")]
    assert len(lengths) > 40
    assert statistics.median(lengths) <= 200


def test_attention_and_transformer_are_two_pages():
    assert sum(lines(LIBRARY[f"mmlearn/layers/{name}.py"]) for name in ("attention", "transformer")) <= 330


def test_functions_are_short_enough_to_read():
    for files in (LIBRARY, EXERCISES):
        lengths = function_lengths(files)
        assert len(lengths) > 200
        assert statistics.quantiles(lengths.values(), n=10)[-1] <= 40
        assert {name: length for name, length in lengths.items() if length > 80} == {}


def test_notebooks_have_few_lines_of_code():
    assert {path.name: sum(code_cells(path)) for path in NOTEBOOKS if sum(code_cells(path)) > 600} == {}


def test_cells_of_notebooks_fit_on_a_page():
    assert {path.name: max(code_cells(path)) for path in NOTEBOOKS if max(code_cells(path)) > 40} == {}
