"""The pages of the book that are not written by hand: chapters, exercises, results, data cards, the library.

Each function returns the text of a page; :func:`write_all` puts them in ``generated/``, the notebooks in ``chapters/``.
"""

import io
import json
import math
import re
import shutil
import statistics
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules, walk_packages
from types import ModuleType
from typing import Any

import live
import plans
import systems
from gpu_speed import gpu_speed
from markup import table, text
from zoo import zoo_page

import mmlearn
from mmlearn.chapters import Result
from mmlearn.data import data_sets, fetch, load
from mmlearn.exercises import Task, exercise_folders, tasks
from mmlearn.notebooks import Notebook, chapters
from mmlearn.pretrained.zoo import zoo_records

REFERENCE = ("systems/index", "presets", "api/index", "commands")
RECORDED = ("laptop", "long", "gpu")  # at smoke scale numbers mean nothing
NOT_SHOWN = "mmlearn.data.build"  # for whoever builds the archives anew
ARCHIVES = Path(mmlearn.__file__).parent / "data" / "archives"


def write_all(book: Path) -> None:
    """Write every generated page of the book in this folder, in place of those of an earlier build."""
    for folder in ("generated", "chapters"):
        shutil.rmtree(book / folder, ignore_errors=True)
    known = known_chapters()
    exercises = {folder.name: tasks(folder) for folder in exercise_folders(book.parent / "exercises")}
    pages = {f"chapters/{chapter.path.name}": shown_notebook(chapter.path) for chapter in known}
    pages |= {
        "generated/contents.md": contents(known),
        "generated/chapters.md": chapters_page(known, exercises, described(book / "all_chapters.md")),
        "generated/exercises.md": exercises_page(exercises),
        "generated/data.md": data_page(),
        "generated/commands.md": commands_page(),
        "generated/presets.md": plans.plans_page(plans.recorded(), plans.all_published()),
    }
    heroes = book.parent / "notebooks" / "heroes"
    pages["generated/zoo.md"] = zoo_page(zoo_records(), known, book / "results", heroes)
    pages |= {f"generated/{name}": page for name, page in all_results(known, book).items()}
    pages |= {f"generated/api/{name}": page for name, page in api_pages().items()}
    pages |= {f"generated/{name}": page for name, page in systems.system_pages().items()}
    for name, page in pages.items():
        (book / name).parent.mkdir(parents=True, exist_ok=True)
        (book / name).write_text(page, encoding="utf-8")
    shown = book / "generated" / "static"
    live.write(shown)
    if heroes.is_dir():
        shutil.copytree(heroes, book / "chapters" / "heroes")
        shutil.copyfile(heroes / "00.png", shown / "words-point.png")
        (shown / "words-point-phone.png").write_bytes(live.phone_picture(heroes / "00.png"))
    for name in data_sets(apart=False):
        (book / "generated" / f"{name}.png").write_bytes(contact_sheet_png(name))


def known_chapters() -> list[Notebook]:
    """All chapters; none where there is no notebook yet."""
    try:
        return chapters()
    except FileNotFoundError:
        return []


# Chapters and exercises.


def shown_notebook(path: Path) -> str:
    """A notebook without its progress bars, which are for whoever runs it; its links lead to pages of the book."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    notebook["metadata"].pop("widgets", None)
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            cell["outputs"] = [output for output in cell["outputs"] if not _is_progress(output)]
        else:
            cell["source"] = _links("".join(cell["source"]))
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"


def _links(source: str) -> str:
    """Links of a lesson or a lab, on pages that lie beside one another."""
    source = re.sub(r"\]\((?:\.\./)?\.\./book/", "](../", source)
    return re.sub(r"\]\((?:labs/|\.\./)(?=\d\d)", "](", source)


def _is_progress(output: dict) -> bool:
    return output.get("name") == "stderr" or "application/vnd.jupyter.widget-view+json" in output.get("data", {})


def contents(known: Sequence[Notebook]) -> str:
    """The table of contents at the side."""
    parts = {
        "Chapters": ["generated/chapters", *(f"chapters/{chapter.name}" for chapter in known)],
        "Practice and proof": ["generated/exercises", "all_results", "generated/results/index", "generated/data"],
        "On your own": ["own_project", "your_data", "generated/zoo", "published_weights", "many_gpus"],
        "Reference": [
            *("how_it_fits", "lineage", "promises"),
            *(f"generated/{page}" for page in REFERENCE),
            *("glossary", "references"),
        ],
    }
    return "\n".join(
        f"```{{toctree}}\n:hidden:\n:caption: {caption}\n\n" + "\n".join(f"/{page}" for page in pages) + "\n```\n"
        for caption, pages in parts.items()
    )


def described(page: Path) -> dict[str, str]:
    """What each chapter builds and measures, from the table that is read beside the notebooks as well."""
    rows = re.findall(r"^\| (\S+) \| \[.*?\]\(\S+\) \| (.*) \|$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return dict(rows)


def chapters_page(
    known: Sequence[Notebook], exercises: dict[str, list[Task]], about: dict[str, str] | None = None
) -> str:
    """All chapters, with the minutes they take, the tasks that go with them, and what they are about."""
    rows = [
        (
            chapter.number,
            f"[{text(chapter.title)}](/chapters/{chapter.name}.ipynb)",
            f"{chapter.minutes:g}",
            str(sum(len(found) for name, found in exercises.items() if _goes_with(name, chapter)) or "–"),
            (about or {}).get(chapter.number, ""),
        )
        for chapter in known
    ]
    columns = ("", "chapter", "minutes", "exercises", "what is built and measured")
    return (
        "# All chapters\n\n"
        "A chapter is a notebook that runs from top to bottom on a laptop: it builds an idea from plain "
        "tensors, checks it against the library, trains it, draws it, and ends in a table of results that the test run "
        "holds it to. `mmlearn run NN` runs one; `make lab` opens them.\n\n"
        + (table(columns, rows) if rows else "There are none yet.\n")
    )


def _goes_with(exercise: str, chapter: Notebook) -> bool:
    """Whether an exercise is of this chapter.

    13a_hearing goes with chapter 13a, and with a chapter 13 as a whole; 06_text with lesson 06a and its labs.
    """
    number = exercise.partition("_")[0]
    return chapter.number in (number, number[:2]) or chapter.number[:2] == number


def exercises_page(exercises: dict[str, list[Task]]) -> str:
    """Every task, with its difficulty and minutes."""
    parts = [
        "# Exercises\n\nEach notebook under `exercises/` states its tasks and calls a check below each stub. A check "
        "compares your function with the library's on fresh random input and names the property that fails. The "
        "solution is the library's own function, or one in the check. `mmlearn exercises` keeps your progress, "
        "`mmlearn exercises hint TASK` gives one step at a time, `mmlearn exercises solution TASK` prints a plain "
        "answer with the reason for each step, and `mmlearn exercises reset TASK` begins anew. "
        "Each notebook ends with an experiment: predict, change one line, observe.\n"
    ]
    for folder, found in exercises.items():
        rows = [(f"`{task.name}`", "★" * task.difficulty, str(task.minutes), _solution(task)) for task in found]
        minutes = sum(task.minutes for task in found)
        parts.append(
            f"## {text(folder)}\n\n`exercises/{folder}/exercise.ipynb`, {len(found)} tasks, about {minutes} minutes\n\n"
            + table(("task", "difficulty", "minutes", "solution"), rows)
        )
    return "\n".join(parts) if exercises else parts[0] + "\nThere are none yet.\n"


def _solution(task: Task) -> str:
    module, name = task.reference.__module__, getattr(task.reference, "__qualname__", task.name)
    return f"{{py:obj}}`~{module}.{name}`" if module.startswith("mmlearn.") and "<" not in name else "in the check"


# Results.


def all_results(known: Sequence[Notebook], book: Path) -> dict[str, str]:
    """The results of chapters, and at the end of their index the speed on GPUs."""
    pages = results_pages(known, book / "results")
    return pages | {"results/index.md": pages["results/index.md"] + gpu_speed(book.parent)}


def results_pages(known: Sequence[Notebook], folder: Path) -> dict[str, str]:
    """``results/NUMBER.md``, expected and obtained of a chapter at every scale; ``results/index.md``, a line for each.

    A scale that was not recorded says that it was not run.
    """
    titles = {chapter.name: chapter.title for chapter in known}
    records = {path: json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*/*.json"))}
    titles |= {record["chapter"]: "" for record in records.values() if record["chapter"] not in titles}
    pages, rows = {}, []
    for name, title in titles.items():
        number = name.partition("_")[0]
        found = {scale: records.get(folder / number / f"{scale}.json") for scale in RECORDED}
        heading = f"{text(number)} · {text(title or name)}"
        lesson = f"The chapter is [{text(title)}](/chapters/{name}.ipynb). " if title else ""
        parts = [f"# {heading}\n\n{lesson}What the columns mean is [on the page of all chapters](index.md).\n"]
        for scale, record in found.items():
            if scale == "long" and record is None:  # few chapters need it
                continue
            parts.append(f"## {scale} scale\n\n" + (record_text(record) if record else "not run\n"))
        pages[f"results/{number}.md"] = "\n".join(parts)
        rows.append((f"[{heading}]({number}.md)", *_overview(found)))
    index = (
        "# Results, chapter by chapter\n\n"
        "Recorded by `mmlearn run NN --seeds 3 --record`, which runs a chapter once a seed and keeps all of "
        "them; at gpu scale by `make gpu`, for all chapters. *Expected* was written down before; *obtained* is the "
        "mean over the seeds ± their standard deviation; *chance* is what knowing nothing gives; *holds* counts the "
        "seeds that are within the bounds. A number that disappoints stands here as it is.\n\n"
        + (table(("chapter", "scales", "results", "within bounds"), rows) if rows else "There are none yet.\n")
        + "\n```{toctree}\n:hidden:\n\n"
        + "\n".join(name.removeprefix("results/").removesuffix(".md") for name in pages)
        + "\n```\n"
    )
    return pages | {"results/index.md": index}


def _overview(found: dict[str, dict | None]) -> tuple[str, ...]:
    """Of a chapter's records: the scales; at the first of them how many results, and how many of the bounds hold."""
    scales = [scale for scale, record in found.items() if record]
    if not scales:
        return "not run", "–", "–"
    verdicts = [row[4] for row in _rows(found[scales[0]]["runs"])]
    bound = [verdict for verdict in verdicts if verdict != "–"]
    return ", ".join(scales), str(len(verdicts)), f"{bound.count('yes')} of {len(bound)}" if bound else "–"


def record_text(record: dict) -> str:
    """One record: its table, and what it was obtained on."""
    runs = record["runs"]
    machines = sorted({run["device"] for run in runs})
    versions = sorted({", ".join(f"{k} {v}" for k, v in run["versions"].items()) for run in runs})
    seconds, memory = ([run[field] for run in runs] for field in ("seconds", "peak_memory_mb"))
    return table(("result", "expected", "obtained", "chance", "holds"), _rows(runs)) + (
        f"\n{len(runs)} {'seed' if len(runs) == 1 else 'seeds'} ({', '.join(text(run['seed']) for run in runs)}); "
        f"{_range(seconds)} s and at most {max(memory):,.0f} MB each; {text('; '.join(machines))}; "
        f"{text('; '.join(versions))}\n"
    )


def _rows(runs: Sequence[dict]) -> list[tuple[str, ...]]:
    """A row of the table for each result that some seed has."""
    names = dict.fromkeys(row["name"] for run in runs for row in run["results"])
    return [
        _result(name, [row for run in runs for row in run["results"] if row["name"] == name], len(runs))
        for name in names
    ]


def _result(name: str, rows: Sequence[dict], runs: int) -> tuple[str, ...]:
    result = Result(**{field: value for field, value in rows[0].items() if field != "holds"})
    bounds = Result(result.name, result.obtained, result.at_least, result.at_most).expected
    expected = result.expected if not result.goal or bounds == "reported" else f"{result.goal} (held to {bounds})"
    holds = sum(row["holds"] for row in rows)
    verdict = "–" if bounds == "reported" else "yes" if holds == runs else f"**{holds} of {runs}**"
    return (
        text(name),
        text(expected),
        spread([row["obtained"] for row in rows]),
        "–" if result.chance is None else f"{result.chance:.3g}",
        verdict,
    )


def spread(values: Sequence[float]) -> str:
    """Mean ± sample standard deviation; of one value, the value; NaN and infinity are shown, never averaged away."""
    if not all(map(math.isfinite, values)):
        return ", ".join(f"{value:.3f}" for value in values)
    mean = f"{statistics.fmean(values):.3f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.3f}"


def _range(values: Sequence[float]) -> str:
    low, high = f"{min(values):.0f}", f"{max(values):.0f}"
    return low if low == high else f"{low} to {high}"


# Data cards.


def data_page() -> str:
    """A card for each packaged data set."""
    parts = [
        "# Data\n\nWhat comes with the package. Nothing is downloaded. `mmlearn data show NAME` draws a contact sheet, "
        "`mmlearn.data.load(NAME, split)` reads a split.\n"
    ]
    for name, make in data_sets(apart=False).items():
        samples = {split: make(split) for split in make.splits}
        counts = [(f"`{split}`", f"{len(part):,}", text(part[0].caption)) for split, part in samples.items()]
        parts.append(
            f"## {name}\n\n{text(make.shows[0].upper() + make.shows[1:])}.\n\n"
            f"```{{image}} {name}.png\n:alt: images of {name} with their captions\n```\n\n"
            f"- licence: {text(make.licence)}\n- on disk: {text(make.disk)}\n\n"
            + table(("split", "pairs", "first caption"), counts)
            + credits(ARCHIVES / name / "CREDITS.md")
        )
    parts.append(
        "## Weights\n\nThe frozen picture tower of LiT reads with weights that also come with the package.\n"
        + credits(ARCHIVES / "backbone" / "CREDITS.md")
    )
    return "\n".join(parts)


def credits(path: Path) -> str:
    """Who made what is in an archive, folded up; nothing for data that has no archive."""
    if not path.is_file():
        return ""
    body = path.read_text(encoding="utf-8").split("\n", 1)[1].replace("\n## ", "\n**").strip()
    lines = [f"{line}**" if line.startswith("**") else line for line in body.splitlines()]
    if lines and lines[0].startswith("## "):
        lines[0] = f"**{lines[0][3:]}**"
    return "\n:::{dropdown} Credits and licences\n" + "\n".join(lines) + "\n:::\n"


def contact_sheet_png(name: str, count: int = 8) -> bytes:
    """A contact sheet of the first split."""
    import torch

    from mmlearn.visualization import contact_sheet
    from mmlearn.visualization.sheet import image_of

    samples = load(name, data_sets()[name].splits[0])
    chosen = fetch(samples, torch.linspace(0, len(samples) - 1, count).long().tolist())
    sheet = contact_sheet([image_of(sample) for sample in chosen], [sample.caption for sample in chosen], columns=4)
    png = io.BytesIO()
    sheet.savefig(png, metadata={"Software": None})
    return png.getvalue()


# The library.


def api_pages() -> dict[str, str]:
    """A page for each part of the library, with a section for each of its modules."""
    parts = [name for name in _modules(mmlearn) if name != "cli"]
    pages, rows = {}, []
    for part in parts:
        package = import_module(f"mmlearn.{part}")
        inner = [name for name in _inner(package) if not name.startswith(NOT_SHOWN)]
        pages[f"{part}.rst"] = api_page([package.__name__, *inner])
        rows.append((f"[mmlearn.{part}]({part}.rst)", first_sentence(package.__doc__ or "")))
    toctree = "```{toctree}\n:hidden:\n\n" + "\n".join(parts) + "\n```\n"
    intro = (
        "# Library\n\n"
        "Arrows point one way: layers ← models → objectives; data, generation, evaluation and visualization know "
        "tensors and batches, not models.\n\n`b` batch, `t` text tokens, `p` patches, `n` tokens of any kind, "
        "`q` queries, `h` heads, `d` model width, `k` head width, `v` vocabulary. Masks are True where a token is "
        "real.\n\n"
    )
    pages["index.md"] = intro + table(("part", ""), rows) + "\n" + toctree
    return pages


def _inner(package: ModuleType) -> list[str]:
    """The modules of a package and of the packages inside it, by their full names."""
    found = walk_packages(getattr(package, "__path__", []), f"{package.__name__}.")
    return sorted(module.name for module in found if "._" not in module.name)


def _modules(package: ModuleType) -> list[str]:
    names = (module.name for module in iter_modules(getattr(package, "__path__", [])))
    return sorted(name for name in names if not name.startswith("_"))


def api_page(modules: Sequence[str]) -> str:
    """The text of one part: its own docstring, then its modules."""
    lines = [modules[0], "=" * len(modules[0]), "", f".. automodule:: {modules[0]}"]
    if hasattr(import_module(modules[0]), "__all__"):  # what a package hands on is shown where it is written
        lines.append("   :no-members:")
    for name in modules[1:]:
        title = name.removeprefix("mmlearn.")
        lines += ["", title, "-" * len(title), "", f".. automodule:: {name}"]
    return "\n".join([*lines, ""])


def first_sentence(docstring: str) -> str:
    """The first line of a docstring, as Markdown."""
    return docstring.strip().split("\n")[0].replace("``", "`")


# The command line.


def commands_page() -> str:
    """Every command with its arguments and options, from what ``--help`` is made of."""
    from typer.main import get_command

    from mmlearn.cli import app

    parts = [
        "# Command line\n\nResults go to standard output, progress and errors to standard error; the exit code is 0, "
        "1 where something failed, or 2 where the command was not understood.\n"
    ]
    return "\n".join([*parts, *_commands("mmlearn", get_command(app))])


def _commands(name: str, command: Any) -> list[str]:
    help_text = "\n\n".join(text(part.replace("\n", " ")) for part in (command.help or "").split("\n\n"))
    parameters = [
        (
            ", ".join(f"`{option}`" for option in parameter.opts)
            if parameter.opts[0][0] == "-"
            else f"`{parameter.name.upper()}`",
            text(getattr(parameter, "help", None) or ""),
            "–" if parameter.default in (None, "") or parameter.default is False else f"`{parameter.default}`",
        )
        for parameter in command.params
        if parameter.name != "help"
    ]
    rows = table(("argument", "", "default"), parameters) if parameters else ""
    shown = [f"## {name}\n\n{help_text}\n\n{rows}"] if name != "mmlearn" else []
    for sub, inner in getattr(command, "commands", {}).items():
        shown += _commands(f"{name} {sub}", inner)
    return shown
