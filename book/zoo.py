"""The page of the zoo: every trained model that comes with the package, from the record in its own file."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markup import table, text

from mmlearn.notebooks import Notebook
from mmlearn.pretrained.zoo import COPYLEFT_DATA
from mmlearn.reported import by_row

INTRO = """# The zoo

Small models that the lessons trained for as long as their idea needs. They come with the package: nothing is
downloaded, and a file whose bytes have changed is refused. `load_zoo` gives the model, its tokenizer and the record of
its training; `mmlearn.load_pretrained("zoo/NAME")` gives the model alone, and `mmlearn systems --zoo` lists all.
"""


def zoo_page(records: Mapping[str, Mapping[str, Any]], known: Sequence[Notebook], results: Path, heroes: Path) -> str:
    """All models in a table, then a section each: picture, training, measures, and the lines that load it."""
    lessons = {chapter.number: chapter for chapter in known}
    rows = [
        (f"[{text(name)}](#{name})", _lesson(record, lessons), f"{record['steps']:,}", f"{record['megabytes']} MB")
        for name, record in records.items()
    ]
    sections = [_section(name, record, lessons, results, heroes) for name, record in records.items()]
    return "\n".join(
        [INTRO, table(("weights", "lesson", "steps", "size"), rows) if rows else "It is empty.\n", *sections]
    )


def _lesson(record: Mapping[str, Any], lessons: Mapping[str, Notebook]) -> str:
    number = record.get("lesson", "")
    if number not in lessons:
        return text(number or "–")
    return f"[{text(number)} · {text(lessons[number].title)}](/chapters/{lessons[number].name}.ipynb)"


def _section(name: str, record: Mapping[str, Any], lessons: Mapping[str, Notebook], results: Path, heroes: Path) -> str:
    number = record.get("lesson", "")
    picture = (
        f"```{{image}} /chapters/heroes/{number}.png\n:alt: what the lesson of {name} draws with it\n```\n\n"
        if (heroes / f"{number}.png").is_file()
        else ""
    )
    copyleft = COPYLEFT_DATA.search(f"{record['licence']} {record['data']}")
    facts = [
        ("system", f"[{record['system']}](systems/{record['system']}.md)" if record["system"] else "of its lesson"),
        ("lesson", _lesson(record, lessons)),
        ("trained on", text(record["data"])),
        ("steps", f"{record['steps']:,}"),
        ("seed", str(record["seed"])),
        ("seconds", f"{record['seconds']:,} ({text(record.get('device', ''))})" if "seconds" in record else "–"),
        *([("made", text(record["made"]))] if "made" in record else []),
        ("size", f"{record['megabytes']} MB, half precision"),
        ("licences of the data", text(record["licence"])),
        ("licence of the weights", "that of the data" if copyleft else "Apache-2.0"),
    ]
    table_of_facts = table(("", "as it was recorded"), facts)
    return (
        f"({name})=\n## {text(name)}\n\n{picture}{table_of_facts}\n{_measures(number, record, results)}"
        f"```python\n{load_lines(name, record)}\n```\n"
    )


def load_lines(name: str, record: Mapping[str, Any]) -> str:
    """How it is loaded, in three lines."""
    if record["system"]:
        call, told = f'load_zoo("{name}")', f"{record['steps']:,} steps"
    else:
        call, told = f'load_zoo("{name}", into=model)', "model: a new one, as its lesson writes it"
    return (
        f"from mmlearn.pretrained.zoo import load_zoo\n\nmodel, tokenizer, record = {call}  # {told}\n"
        'print(record["data"], record["licence"])'
    )


def _measures(number: str, record: Mapping[str, Any], results: Path) -> str:
    """What was measured: what the record itself holds, or what its lesson reported of trained weights."""
    own = {name: value for name, value in record.get("measures", {}).items() if isinstance(value, int | float)}
    rows = [(text(name), f"{value:.3g}", "–", "–") for name, value in own.items()]
    path = next((path for scale in ("long", "laptop") if (path := results / number / f"{scale}.json").is_file()), None)
    if not rows and path:
        results = json.loads(path.read_text(encoding="utf-8"))["runs"][0]["results"]
        for name, found in by_row(results).items():
            if (row := found.get("zoo")) is None:
                continue
            untrained, chance = found.get("untrained"), row["chance"]
            rows.append(
                (
                    text(name),
                    f"{row['obtained']:.3f}",
                    f"{untrained['obtained']:.3f}" if untrained else "–",
                    "–" if chance is None else f"{chance:.3g}",
                )
            )
    columns = ("on held-out data", "obtained", "untrained", "chance")
    return table(columns, rows) + "\n" if rows else ""
