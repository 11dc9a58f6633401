"""Texts that are not ours, such as names and captions out of files: how a terminal, a page and JSON may show them.

An escape character in a name could change what the terminal does, and a ``<script>`` in a caption what a page does. All
that commands print and all pages that are written take such texts from here.
"""

import html
import json
import re
from typing import Any

LINE = 1000  # letters of a line
WORD = 300  # letters of a word: long enough for a path


def plain(text: object) -> str:
    """A text in one line for a terminal: control characters are spelled out, and the middle of what is long left out.

    The end stays, because what to do about an error stands there.
    """
    shown = in_terminal(text, keep="")
    return _shortened(" ".join(_shortened(word, WORD) for word in shown.split(" ")), LINE)


def in_terminal(text: object, keep: str = "\n") -> str:
    """A text as it is, on several lines; control characters other than ``keep`` are spelled out."""
    return "".join(x if x.isprintable() or x in keep else ascii(x)[1:-1] for x in str(text))


def in_html(text: object) -> str:
    """A text for an HTML element or an attribute in quotes; of control characters only breaks of lines stay."""
    return "\n".join(html.escape(plain(line)) for line in str(text).split("\n"))


def in_markdown(text: object) -> str:
    r"""A text as Markdown that shows it unchanged. In a table, ``|`` is for the table to escape."""
    return re.sub(r"([\\`*_{}\[\]<>#$~&!])", r"\\\1", plain(text))


def in_json(values: Any, indent: int | None = 1) -> str:
    """Values as JSON for other programs, or to be looked at: whole, with all that is not to be printed escaped.

    Without an ``indent`` it is one line.
    """
    text = json.dumps(values, indent=indent, ensure_ascii=False)
    return "".join(x if x.isprintable() or x == "\n" else json.dumps(x)[1:-1] for x in text)


def escaped(error: UnicodeError) -> tuple[str, int]:
    """What :func:`codecs.register_error` takes: letters that a stream lacks are spelled out, as JSON does."""
    assert isinstance(error, UnicodeEncodeError)
    return json.dumps(error.object[error.start : error.end])[1:-1], error.end


def _shortened(text: str, most: int) -> str:
    if len(text) <= most:
        return text
    end = most // 3
    return f"{text[: most - end - 1]}…{text[-end:]}"
