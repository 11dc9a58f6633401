"""The page of a notebook that was run: no network, formulas as MathML, results and contents on top."""

import json
import re
from pathlib import Path

import nbformat
import pytest

from mmlearn.notebook_page import mathml, page_of, results_table

ROOT = Path(__file__).parents[1]
NOTEBOOKS = [*(ROOT / "notebooks").glob("*.ipynb"), *(ROOT / "notebooks" / "labs").glob("*.ipynb")]
TEXT = """# Title

The loss $\\ell = -\\ln p_{ij}$ costs \\$5 or 5 $ a *day*.

## First & more

$$\\sum_k \\Big\\lfloor \\frac{n_k}{2} \\Big\\rfloor$$

## Second

\\begin{align} a &= b \\\\ c &= d \\end{align}
"""


@pytest.fixture
def page(tmp_path):
    cells = [nbformat.v4.new_markdown_cell(TEXT), nbformat.v4.new_code_cell("1 + 1")]
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"widgets": {}}), tmp_path / "a.ipynb")
    return page_of(tmp_path / "a.ipynb", [{"name": "R@1 <b>", "obtained": 0.25, "chance": 0.125}])


def test_it_asks_nobody_for_anything(page):
    assert "<script" not in page
    assert not re.search(r"""(?:src|href)=["']https?:|@import|url\(["']?https?:""", page)


def test_formulas_are_mathml_and_money_is_not(page):
    assert len(re.findall("<math", page)) == 3
    assert len(re.findall('<math[^>]*display="block"', page)) == 2
    assert "<mi>&#x02113;</mi>" in page or "<mi>ℓ</mi>" in page
    assert "$5 or 5 $ a <em>day</em>" in page
    assert "\\lfloor" not in page


def test_results_and_contents_come_first(page):
    top = page[: page.index("<main>")]
    assert "<td>R@1 &lt;b&gt;</td><td>0.25</td><td>0.125</td>" in top
    links = re.findall(r'<li><a href="#([^"]*)">(.*?)</a></li>', top)
    assert [title for _, title in links] == ["First &amp; more", "Second"]
    assert all(f'id="{anchor}"' in page for anchor, _ in links)


def test_a_lesson_reports_a_line_for_each_result():
    rows = [
        ("right", 0.5, 0.25),
        ("right, zoo", 0.75, 0.25),
        ("right, untrained", 0.2, 0.25),
        ("other, zoo", 1.0, None),
    ]
    table = results_table([{"name": name, "obtained": value, "chance": chance} for name, value, chance in rows])
    assert re.findall("<th>(.*?)</th>", table)[1:] == ["obtained", "trained for longer", "untrained", "chance"]
    assert "<tr><td>right</td><td>0.5</td><td>0.75</td><td>0.2</td><td>0.25</td></tr>" in table
    assert "<tr><td>other</td><td>–</td><td>1</td><td>–</td><td>–</td></tr>" in table
    assert results_table([]) == ""


def test_every_formula_of_the_notebooks_is_understood():
    found = 0
    for path in NOTEBOOKS:
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            text = "".join(cell["source"]) if cell["cell_type"] == "markdown" else ""
            inline = re.sub(r"\$\$.+?\$\$", "", text, flags=re.DOTALL)
            formulas = re.findall(r"\$\$(.+?)\$\$", text, re.DOTALL) + re.findall(r"(?<!\$)\$([^$\n]+)\$(?!\$)", inline)
            for formula in formulas:
                made = mathml(formula, "inline")
                assert made.startswith("<math"), (path.name, formula)
                assert "\\" not in made, (path.name, formula)
            found += len(formulas)
    assert found > 100


def test_a_formula_that_is_none_stays_as_its_text():
    assert mathml("a^", "inline") == "<code>a^</code>"
