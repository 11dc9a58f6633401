"""How much there is to read: ``python tests/tools/count_lines.py``.

Lines of code have no docstring, comment or blank in them. ``tests/test_budgets.py`` holds what is counted to budgets.
"""

import ast
import io
import re
import statistics
import tokenize
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[2]
NO_CODE = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
NOT_COUNTED = re.compile(r"tests/(attacks|exercises/\d\d)")  # attacks, and wrong answers


def files(folder):
    """Each Python file under a folder of the repository, by its path there, with its text."""
    found = [path for path in sorted((ROOT / folder).rglob("*.py")) if "_shipped" not in path.parts]
    return {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in found}


def lines(text):
    """All lines."""
    return len(text.splitlines())


def code_lines(text):
    """Lines with code on them."""
    tree, documented = ast.parse(text), set()
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        first = body[0] if isinstance(body, list) and body else None
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
            documented |= {*range(first.lineno, first.end_lineno + 1)}
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    used = (range(token.start[0], token.end[0] + 1) for token in tokens if token.type not in NO_CODE)
    return len({number for numbers in used for number in numbers} - documented)


def code_by_folder(found):
    """How many lines of code each folder of the library has; what lies beside them is under its own name."""
    total = Counter()
    for name, text in found.items():
        total["/".join(name.split("/")[:2])] += code_lines(text)
    return total


def function_lengths(found):
    """Each function and method with its number of lines, decorators not counted."""
    return {
        f"{name}: {node.name} in line {node.lineno}": node.end_lineno - node.lineno + 1
        for name, text in found.items()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def percentile(numbers, percent):
    """So many percent of the numbers are at most as large."""
    return statistics.quantiles(numbers, n=100)[percent - 1]


def lines_of_tests(library, tests):
    """Lines of tests for each line of the library, attacks and wrong answers not counted."""
    counted = sum(lines(text) for name, text in tests.items() if not NOT_COUNTED.match(name))
    return counted / sum(map(lines, library.values()))


def main():
    from mmlearn.recipes.discovery import system_files

    library, tests = files("mmlearn"), files("tests")
    code, systems = code_by_folder(library), len(system_files())
    print(f"{'folder':<28}{'code':>8}{'lines':>8}{'files':>8}")
    for folder, count in sorted(code.items(), key=lambda item: -item[1]):
        inside = [text for name, text in library.items() if "/".join(name.split("/")[:2]) == folder]
        print(f"{folder:<28}{count:>8}{sum(map(lines, inside)):>8}{len(inside):>8}")
    print(f"{'all':<28}{code.total():>8}{sum(map(lines, library.values())):>8}{len(library):>8}\n")
    print(f"{systems} systems, {code.total() / systems:.0f} lines of code for each")
    longest = max(library, key=lambda name: lines(library[name]))
    print(f"longest file: {longest}, {lines(library[longest])} lines")
    lengths = function_lengths(library)
    shares = ", ".join(f"{percent} % ≤ {percentile(lengths.values(), percent):.0f}" for percent in (50, 90, 99))
    longest = max(lengths, key=lengths.get)
    print(f"{len(lengths)} functions, lines: {shares}; longest: {longest}, {lengths[longest]}")
    print(f"{lines_of_tests(library, tests):.2f} lines of tests for each of the library")


if __name__ == "__main__":
    main()
