"""The generated pages of the book, from made-up records, notebooks and docstrings."""

import importlib.util
import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pytest

from mmlearn.exercises import Task
from mmlearn.notebooks import Notebook

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "book"))  # as conf.py has it


def book_module(name):
    spec = importlib.util.spec_from_file_location(f"mmlearn_book_{name}", ROOT / "book" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


pages, docstrings = book_module("pages"), book_module("docstrings")


def run(seed, *results, **changes):
    return {
        "chapter": "07_contrastive",
        "scale": "laptop",
        "seed": seed,
        "seconds": 40.0 + seed,
        "peak_memory_mb": 900 + seed,
        "device": "CPU, 2 threads",
        "versions": {"mmlearn": "0.1.0", "torch": "2.12.1"},
        "results": list(results),
        "details": {},
    } | changes


def row(obtained, holds=True, name="R@1", at_least=0.9, at_most=None, chance=1 / 256, goal=""):
    bounds = {"at_least": at_least, "at_most": at_most, "chance": chance, "goal": goal}
    return {"name": name, "obtained": obtained, **bounds, "holds": holds}


def cells(markdown, first):
    """The cells of the table row that starts with this text."""
    line = next(line for line in markdown.splitlines() if line.startswith(f"| {first} |"))
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def test_a_record_gives_mean_and_sample_deviation_over_seeds():
    text = pages.record_text({"runs": [run(0, row(0.90)), run(1, row(0.92)), run(2, row(0.97))]})
    # mean 0.93; sample variance (0.03² + 0.01² + 0.04²) / 2 = 0.0013
    assert cells(text, "R@1") == ["R@1", "≥ 0.9", "0.930 ± 0.036", "0.00391", "yes"]
    assert "3 seeds (0, 1, 2); 40 to 42 s and at most 902 MB each; CPU, 2 threads; mmlearn 0.1.0, torch 2.12.1" in text


def test_one_seed_has_no_spread():
    text = pages.record_text({"runs": [run(4, row(0.95))]})
    assert cells(text, "R@1")[2] == "0.950"
    assert "1 seed (4); 44 s" in text


def test_a_result_that_fails_in_one_seed_is_shown_as_failing():
    text = pages.record_text({"runs": [run(0, row(0.95)), run(1, row(0.85, holds=False))]})
    assert cells(text, "R@1")[4] == "**1 of 2**"


def test_a_result_that_a_seed_lacks_does_not_hold_in_all():
    text = pages.record_text({"runs": [run(0, row(0.95)), run(1)]})
    assert cells(text, "R@1")[4] == "**1 of 2**"


def test_nan_is_shown_and_not_averaged_away():
    # JSON as Python writes it holds NaN
    record = json.loads(json.dumps({"runs": [run(0, row(0.95)), run(1, row(float("nan"), holds=False))]}))
    assert cells(pages.record_text(record), "R@1")[2] == "0.950, nan"


def test_a_goal_is_shown_beside_the_bound_it_is_held_to():
    text = pages.record_text({"runs": [run(0, row(0.85, at_least=0.8, goal="≥ 0.9"))]})
    assert cells(text, "R@1")[1] == "≥ 0.9 (held to ≥ 0.8)"


def test_a_number_without_bounds_is_reported_and_holds_nothing():
    text = pages.record_text({"runs": [run(0, row(0.3, at_least=None, chance=None))]})
    assert cells(text, "R@1") == ["R@1", "reported", "0.300", "–", "–"]


def test_markup_in_names_stays_text():
    text = pages.record_text({"runs": [run(0, row(0.95, name="a|b <script> *c* `d`"))]})
    line = next(line for line in text.splitlines() if "script" in line)
    assert line.startswith(r"| a\|b \<script\> \*c\* \`d\` |")


def test_two_machines_are_both_named():
    text = pages.record_text({"runs": [run(0, row(1.0)), run(1, row(1.0), device="NVIDIA H100")]})
    assert "CPU, 2 threads; NVIDIA H100" in text


def chapter(name, title="Contrastive"):
    return Notebook(name.partition("_")[0], name, title, 1.0, Path(f"{name}.ipynb"))


def test_scales_without_a_record_say_not_run(tmp_path):
    path = tmp_path / "07" / "laptop.json"
    path.parent.mkdir()
    path.write_text(json.dumps({"chapter": "07_contrastive", "runs": [run(0, row(0.95))]}))
    found = pages.results_pages([chapter("05_attention", "Attention"), chapter("07_contrastive")], tmp_path)
    assert set(found) == {"results/index.md", "results/05.md", "results/07.md"}
    sections = {
        (name, scale): first
        for name, page in found.items()
        for scale, first in re.findall(r"^## (.*?) scale\n\n(.*?)\n", page, re.MULTILINE)
    }
    assert set(sections) == {(f"results/{number}.md", scale) for number in ("05", "07") for scale in ("laptop", "gpu")}
    assert [key for key, first in sections.items() if first != "not run"] == [("results/07.md", "laptop")]
    assert "0.950" in found["results/07.md"]
    path.with_name("long.json").write_text(path.read_text())
    assert "## long scale\n\n|" in pages.results_pages([chapter("07_contrastive")], tmp_path)["results/07.md"]


def test_the_overview_has_a_line_for_each_chapter(tmp_path):
    path = tmp_path / "07" / "laptop.json"
    path.parent.mkdir()
    runs = [run(0, row(0.95), row(0.5, holds=False, name="other"), row(0.5, at_least=None, name="reported"))]
    path.write_text(json.dumps({"chapter": "07_contrastive", "runs": runs}))
    page = pages.results_pages([chapter("05_attention", "Attention"), chapter("07_contrastive")], tmp_path)
    index = page["results/index.md"]
    assert cells(index, "[05 · Attention](05.md)")[1:] == ["not run", "–", "–"]
    assert cells(index, "[07 · Contrastive](07.md)")[1:] == ["laptop", "3", "1 of 2"]
    assert index.rstrip().endswith("05\n07\n```")


def test_a_record_of_a_chapter_that_is_gone_is_still_shown(tmp_path):
    path = tmp_path / "12" / "gpu.json"
    path.parent.mkdir()
    path.write_text(json.dumps({"chapter": "12_captions", "runs": [run(0, row(0.95))]}))
    assert r"# 12 · 12\_captions" in pages.results_pages([], tmp_path)["results/12.md"]


def test_what_record_writes_is_what_the_page_reads(tmp_path, monkeypatch):
    from mmlearn.chapters import Chapter
    from mmlearn.notebooks import record

    monkeypatch.setenv("MMLEARN_RUN", str(tmp_path / "run"))
    made = Chapter("07_contrastive", seed=3)
    made.result("R@1", 0.91, at_least=0.9, chance=0.004)
    made.finish()
    written = json.loads((tmp_path / "run" / "metrics.json").read_text())
    record(chapter("07_contrastive"), [written], tmp_path / "results")
    page = pages.results_pages([chapter("07_contrastive")], tmp_path / "results")["results/07.md"]
    assert cells(page, "R@1") == ["R@1", "≥ 0.9", "0.910", "0.004", "yes"]
    assert "1 seed (3)" in page


def test_notebooks_are_shown_without_progress_bars(tmp_path):
    def output(**fields):
        return {"output_type": "display_data", "metadata": {}, **fields}

    kept = output(data={"text/html": "<b>map</b>"})
    outputs = [
        output(data={"application/vnd.jupyter.widget-view+json": {}, "text/plain": " 0%|"}),
        {"output_type": "stream", "name": "stderr", "text": "100%"},
        {"output_type": "stream", "name": "stdout", "text": "loss 0.1"},
        kept,
    ]
    notebook = {
        "metadata": {"widgets": {}, "mmlearn": {"minutes": 1}},
        "cells": [{"cell_type": "markdown", "source": "# α"}, {"cell_type": "code", "source": "", "outputs": outputs}],
    }
    (tmp_path / "a.ipynb").write_text(json.dumps(notebook))
    shown = json.loads(pages.shown_notebook(tmp_path / "a.ipynb"))
    assert shown["cells"][1]["outputs"] == [outputs[2], kept]
    assert shown["metadata"] == {"mmlearn": {"minutes": 1}}
    assert shown["cells"][0]["source"] == "# α"


def test_a_notebook_links_to_pages_of_the_book_from_github_and_from_the_book(tmp_path):
    lines = ["The [loss](../book/glossary.md)\n", "of [chapter 07](07_contrastive.ipynb)."]
    (tmp_path / "a.ipynb").write_text(
        json.dumps({"metadata": {}, "cells": [{"cell_type": "markdown", "source": lines}]})
    )
    shown = json.loads(pages.shown_notebook(tmp_path / "a.ipynb"))["cells"][0]["source"]
    assert shown == "The [loss](../glossary.md)\nof [chapter 07](07_contrastive.ipynb)."
    linked = {
        link
        for path in (ROOT / "notebooks").glob("*.ipynb")
        for link in re.findall(r"\]\((\.\./book/[^)#]+)", path.read_text(encoding="utf-8"))
    }
    assert [link for link in sorted(linked) if not (ROOT / "notebooks" / link).is_file()] == []


def test_a_chapter_counts_its_exercises_whether_or_not_they_are_in_parts():
    exercises = {"07_contrastive": [None] * 3, "13a_hearing": [None] * 2, "13b_speech": [None] * 4}
    exercises["06_text"] = [None] * 5  # of several chapters
    for name, counted in (
        ("07_contrastive", "3"),
        ("13_listening", "6"),
        ("13b_speech", "4"),
        ("14_sound", "–"),
        ("06b_ways", "5"),
    ):
        page = pages.chapters_page([chapter(name)], exercises)
        assert cells(page, name.partition("_")[0])[3] == counted


def test_each_chapter_is_described_as_in_the_table_beside_the_notebooks():
    about, known = pages.described(ROOT / "book" / "all_chapters.md"), pages.known_chapters()
    assert set(about) == {chapter.number for chapter in known}
    page = pages.chapters_page(known, {}, about)
    assert cells(page, "08")[4] == about["08"] != ""


def test_exercises_are_listed_with_difficulty_minutes_and_solution():
    from mmlearn.objectives import info_nce

    found = [
        Task("07_contrastive", "info_nce", lambda f: None, info_nce, 2, 10),
        Task("07_contrastive", "own", lambda f: None, lambda: None, 1, 5),
    ]
    page = pages.exercises_page({"07_contrastive": found})
    assert cells(page, "`info_nce`")[1:] == ["★★", "10", "{py:obj}`~mmlearn.objectives.contrastive.info_nce`"]
    assert cells(page, "`own`")[3] == "in the check"
    assert "2 tasks, about 15 minutes" in page
    assert "none yet" in pages.exercises_page({})


def test_data_cards_hold_licence_counts_and_every_credit():
    page = pages.data_page()
    assert cells(page, "`unseen-concept`")[1] == "542"
    for archive in pages.ARCHIVES.iterdir():
        for name in re.findall(r"^## (.*)", (archive / "CREDITS.md").read_text(), re.MULTILINE):
            assert f"**{name}**" in page
    # the credits must not open sections of their own
    assert re.findall(r"^## (.*)", page, re.MULTILINE) == [*pages.data_sets(apart=False), "Weights"]


def test_every_command_is_on_its_page():
    page = pages.commands_page()
    names = ["chapters", "run", "start", "lab", "train", "evaluate", "plan", "data", "data show", "doctor", "convert"]
    names += ["generate", "chat", "systems", "exercises", "exercises hint", "exercises solution", "exercises reset"]
    assert set(re.findall(r"^## mmlearn (.*)", page, re.MULTILINE)) == set(names)
    seed = next(line for line in page.splitlines() if "`--seed`" in line)
    assert seed.endswith("| `0` |")


def test_every_module_of_the_library_is_on_a_page_or_left_out_by_name():
    shown = set(re.findall(r"automodule:: (\S+)", "\n".join(pages.api_pages().values())))
    files = (path for path in (ROOT / "mmlearn").rglob("*.py") if not path.stem.startswith("__"))
    modules = {".".join(path.relative_to(ROOT).with_suffix("").parts) for path in files}
    left_out = modules - shown
    assert {name for name in left_out if not name.startswith(pages.NOT_SHOWN)} == {"mmlearn.cli"}


# Citations.


def library_docstrings():
    import ast

    for path in sorted((ROOT / "mmlearn").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and (text := ast.get_docstring(node)):
                yield path, " ".join(text.split())


def known():
    return docstrings.citation_keys((ROOT / "book" / "references.bib").read_text(encoding="utf-8"))


def test_every_paper_that_the_library_cites_is_in_the_bibliography():
    cited = [
        (match["first"], match["year"], path.name)
        for path, text in library_docstrings()
        for match in docstrings.CITATION.finditer(text)
    ]
    assert len(cited) > 30
    assert [citation for citation in cited if citation[:2] not in known()] == []


@pytest.mark.parametrize(
    ("text", "first", "year"),
    [
        ("Source: Radford et al. 2021 (CLIP), figure 3", "Radford", "2021"),
        ("van den Oord et al. 2018 (CPC)", "van den Oord", "2018"),
        ("Source: Wang & Isola 2020, equation 1", "Wang", "2020"),
        ("Steele, Lea & Flood 2014", "Steele", "2014"),
        ("Source: Le Roux et al. 2019, equation 5", "Le Roux", "2019"),
        ("Source: De Cao et al. 2021, section 3.2", "De Cao", "2021"),
        ("Treisman & Gelade (1980) and Yuksekgonul et al., 2023", "Yuksekgonul", "2023"),
    ],
)
def test_citations_are_found_in_prose(text, first, year):
    (match,) = docstrings.CITATION.finditer(text)
    assert (match["first"], match["year"]) == (first, year)
    assert (first, year) in known()


def test_a_citation_is_linked_where_it_can_only_mean_one_paper():
    keys = {("Zhai", "2022"): ["scaling", "lit"], ("Zhai", "2023"): ["siglip"]}
    line = "Source: Zhai et al. 2023, section 3; Zhai et al. 2022; Nobody et al. 2001."
    linked = docstrings.link_citations(line, keys)
    assert linked == "Source: :cite:t:`siglip`, section 3; Zhai et al. 2022; Nobody et al. 2001."


def test_fields_are_listed_with_type_default_and_comment():
    @dataclass(frozen=True)
    class Settings:
        width: int = 64
        pooling: str = "max"  # over its patches

        def width2(self):
            not_a_field: int = 3  # inside a method
            return not_a_field

    class Output(NamedTuple):
        embedding: int  # unit length

    # these classes stand eight spaces in; those of the library four
    source = {Settings: "", Output: ""}
    for thing in source:
        import inspect
        import textwrap

        source[thing] = textwrap.dedent(inspect.getsource(thing))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(docstrings.inspect, "getsource", source.get)
        assert docstrings.field_lines(Settings) == [
            "- ``width: int = 64``",
            '- ``pooling: str = "max"`` – over its patches',
        ]
        assert docstrings.field_lines(Output) == ["- ``embedding: int`` – unit length"]
    assert docstrings.field_lines(int) == []


def test_the_bibliography_parses_without_duplicates():
    from pybtex.database import parse_file

    parsed = parse_file(str(ROOT / "book" / "references.bib"), "bibtex")
    keys = [key for found in known().values() for key in found]
    assert sorted(keys) == sorted(parsed.entries)
    assert all("title" in entry.fields and "year" in entry.fields for entry in parsed.entries.values())
