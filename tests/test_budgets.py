"""How large things may grow, so that a student reads each in one sitting, and so that drift is a decision."""

import json
import statistics

import pytest
from count_lines import NOT_COUNTED, ROOT, code_lines, files, function_lengths, lines, lines_of_tests, percentile

from mmlearn.recipes.discovery import system_files

LINES_OF_A_MODEL = 350  # 300 is the aim
LINES_OF_THE_MEDIAN_MODEL = 200  # 180
LINES_OF_A_FILE = 400
LINES_OF_ATTENTION_AND_TRANSFORMER = 340
LINES_OF_A_FUNCTION = 80
LINES_OF_NINE_FUNCTIONS_IN_TEN = 40
# Lines of code of the whole library for each system; 330 is the aim. Readers of GGUF and CTranslate2, chats, the
# zoo, parts by name and packing, and the data, weights and drawings of lessons belong to no system: about 4,300 lines.
CODE_OF_A_SYSTEM = 418
TESTS_PER_LINE = 1.2
LINES_OF_A_NOTEBOOK = 600
LINES_OF_A_CELL = 40

LIBRARY, TESTS = files("mmlearn"), files("tests")
CHECKS = files("exercises")
WRONG = {name: text for name, text in TESTS.items() if NOT_COUNTED.match(name) and name.startswith("tests/exercises")}
EXERCISES = CHECKS | WRONG
MODELS = {name: text for name, text in LIBRARY.items() if name.startswith("mmlearn/models/")}
NOTEBOOKS = sorted((ROOT / "notebooks").rglob("[0-9]*.ipynb"))


def code_cells(notebook):
    """How many lines each cell of code has."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return [lines("".join(cell["source"])) for cell in cells if cell["cell_type"] == "code"]


def limit(name):
    return LINES_OF_A_MODEL if name in MODELS else LINES_OF_A_FILE


def test_files_are_short_enough_to_read():
    found = LIBRARY | EXERCISES
    assert {name: lines(text) for name, text in found.items() if lines(text) > limit(name)} == {}


def test_a_model_is_as_a_rule_much_shorter():
    lengths = [lines(text) for name, text in MODELS.items() if not name.endswith("__init__.py")]
    assert len(lengths) > 40
    assert statistics.median(lengths) <= LINES_OF_THE_MEDIAN_MODEL


def test_attention_and_transformer_are_two_pages():
    pages = [LIBRARY[f"mmlearn/layers/{name}.py"] for name in ("attention", "transformer")]
    assert sum(map(lines, pages)) <= LINES_OF_ATTENTION_AND_TRANSFORMER


@pytest.mark.parametrize("found", [LIBRARY, EXERCISES], ids=["library", "exercises"])
def test_functions_are_short_enough_to_read(found):
    lengths = function_lengths(found)
    assert len(lengths) > 100
    assert percentile(lengths.values(), 90) <= LINES_OF_NINE_FUNCTIONS_IN_TEN
    assert {name: length for name, length in lengths.items() if length > LINES_OF_A_FUNCTION} == {}


def test_a_system_costs_few_lines_of_code():
    assert sum(map(code_lines, LIBRARY.values())) <= CODE_OF_A_SYSTEM * len(system_files())


def test_tests_are_not_longer_than_what_they_test():
    assert lines_of_tests(LIBRARY, TESTS) <= TESTS_PER_LINE


def test_lines_of_code_have_no_docstring_comment_or_blank_in_them():
    text = '"""A file."""\n\nimport a  # why\n\n\ndef f():\n    """One.\n\n    Two.\n    """\n    # so\n'
    assert code_lines(text + '    return """x\n\n    y"""\n') == 5


def test_notebooks_have_few_lines_of_code():
    long = {path.name: sum(code_cells(path)) for path in NOTEBOOKS if sum(code_cells(path)) > LINES_OF_A_NOTEBOOK}
    assert long == {}


def test_cells_of_notebooks_fit_on_a_page():
    assert {path.name: max(code_cells(path)) for path in NOTEBOOKS if max(code_cells(path)) > LINES_OF_A_CELL} == {}
