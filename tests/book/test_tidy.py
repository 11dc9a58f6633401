"""What is taken out of a built book, and what stays."""

import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "book"))  # as conf.py has it

from tidy import tidy  # noqa: E402


def test_pages_keep_what_they_ask_for_and_notebooks_their_cells(tmp_path):
    kept = ["_static/mathjax/tex-chtml.js", "_static/mathjax/input/tex/extensions/braket.js", "_static/book.css"]
    kept += ["_static/mathjax/output/chtml/fonts/woff-v2/a.woff", "_sources/chapters/a.ipynb"]
    gone = ["_static/mathjax/tex-svg.js", "_static/mathjax/output/svg/fonts/tex.js", "_static/scripts/a.js.map"]
    for name in kept + gone:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    cells = [{"cell_type": "code", "source": "1 + 1", "outputs": [{"name": "é"}], "execution_count": 1}]
    cells.append({"cell_type": "markdown", "source": "# é"})
    (tmp_path / "_sources/chapters/a.ipynb").write_text(json.dumps({"cells": cells}), encoding="utf-8")
    tidy(tmp_path)
    assert sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()) == sorted(
        kept
    )
    assert not (tmp_path / "_static/mathjax/output/svg").exists()
    assert json.loads((tmp_path / "_sources/chapters/a.ipynb").read_text(encoding="utf-8"))["cells"] == [
        {"cell_type": "code", "source": "1 + 1", "outputs": [], "execution_count": None}, cells[1]
    ]  # fmt: skip


def test_the_book_that_is_built_is_small():
    built = ROOT / "book" / "_build" / "html"
    if not built.is_dir():
        pytest.skip("no book is built")
    sizes = {path: path.stat().st_size for path in built.rglob("*") if path.is_file()}
    assert sum(sizes.values()) <= 60e6, sorted(sizes, key=sizes.get)[-5:]
