"""What of a built book no page asks for, taken away: two thirds of it."""

import json
from pathlib import Path

# Of MathJax: what pages begin with, what that fetches where a formula or a reader asks for it, and its fonts.
MATHJAX = ("tex-chtml.js", "a11y", "input/tex/extensions", "output/chtml/fonts", "sre/mathmaps/base.json")
MATHJAX += ("sre/mathmaps/en.json", "ui")


def tidy(built: Path) -> None:
    """Drop what nobody fetches of MathJax and all source maps; notebooks to download keep their cells alone."""
    mathjax = built / "_static" / "mathjax"
    kept = [mathjax / name for name in MATHJAX]
    for path in sorted(mathjax.rglob("*"), reverse=True):  # what is in a folder before the folder
        if path.is_dir():
            if not any(path.iterdir()):
                path.rmdir()
        elif not any(path.is_relative_to(each) for each in kept):
            path.unlink()
    for path in (built / "_static").rglob("*.map"):
        path.unlink()
    for path in (built / "_sources").rglob("*.ipynb"):
        notebook = json.loads(path.read_text(encoding="utf-8"))
        for cell in notebook["cells"]:
            if cell["cell_type"] == "code":
                cell |= {"outputs": [], "execution_count": None}
        path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
