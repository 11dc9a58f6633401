"""Docstrings, as the book shows them: configurations with a line a field, citations as links."""

import dataclasses
import inspect
import re
from pathlib import Path

# "Radford et al. 2021", "Wang & Isola 2020", "Steele, Lea & Flood 2014", "van den Oord et al. 2018"
CITATION = re.compile(
    r"\b(?P<first>(?:van (?:den |der )?|Le |De )?[A-Z][\w’'-]+)"
    r"(?:(?:, [A-Z][\w-]+)* & [A-Z][\w-]+| et al\.),? (?P<year>(?:19|20)\d\d)\b"
)
FIELD = re.compile(r"^    (?P<name>[a-z]\w*): (?P<rest>[^#]+?)(?:\s+# (?P<comment>.*))?$")


def connect(app, bibliography: Path) -> None:
    """Have Sphinx pass docstrings and signatures through here."""
    known = citation_keys(bibliography.read_text(encoding="utf-8"))

    def process_docstring(app, what, name, thing, options, lines):
        if what == "class" and (fields := field_lines(thing)):
            if (thing.__doc__ or "").startswith(f"{thing.__name__}("):  # what dataclass and NamedTuple write themselves
                lines.clear()
            lines += ["", *fields, ""]
        lines[:] = [link_citations(line, known) for line in lines]

    def process_signature(app, what, name, thing, options, signature, returns):
        if what == "class" and (dataclasses.is_dataclass(thing) or hasattr(thing, "_fields")):
            return "", None  # its fields are listed below
        return None

    app.connect("autodoc-process-docstring", process_docstring)
    app.connect("autodoc-process-signature", process_signature)


def citation_keys(bibliography: str) -> dict[tuple[str, str], list[str]]:
    """(Family name of the first author, year) → keys, of a BibTeX file whose authors are written "Family, Given"."""
    keys: dict[tuple[str, str], list[str]] = {}
    for entry in re.split(r"^@", bibliography, flags=re.MULTILINE)[1:]:
        key = re.match(r"\w+\{([^,]+),", entry)[1]
        author = re.search(r"^\s*author = \{\{?([^,}]+)", entry, re.MULTILINE)[1]
        year = re.search(r"^\s*year = \{(\d+)\}", entry, re.MULTILINE)[1]
        keys.setdefault((author, year), []).append(key)
    return keys


def link_citations(line: str, known: dict[tuple[str, str], list[str]]) -> str:
    """A line with links where it cites exactly one paper of the bibliography."""

    def link(match: re.Match) -> str:
        found = known.get((match["first"], match["year"]), [])
        return f":cite:t:`{found[0]}`" if len(found) == 1 else match[0]

    return CITATION.sub(link, line)


def field_lines(thing: type) -> list[str]:
    """The fields of a dataclass or named tuple as a list in reStructuredText: name, type, default, and its comment."""
    if not (dataclasses.is_dataclass(thing) or hasattr(thing, "_fields")):
        return []
    fields = []
    for line in inspect.getsource(thing).splitlines():
        if re.match(r"    (def|@|PRESETS)", line):
            break
        if match := FIELD.match(line):
            comment = f" – {match['comment']}" if match["comment"] else ""
            fields.append(f"- ``{match['name']}: {match['rest'].strip()}``{comment}")
    return fields
