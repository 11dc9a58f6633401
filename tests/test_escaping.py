"""Whatever a file holds as a name or a caption, a terminal, a page, a table and JSON show it as text."""

import html
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from markdown_it import MarkdownIt

import mmlearn
from mmlearn.chapters import Result, Table
from mmlearn.escaping import LINE, WORD, in_html, in_json, in_markdown, plain
from mmlearn.visualization import alignment_explorer, listening_page
from mmlearn.visualization.architecture import draw_architecture

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "</style></title></textarea><svg onload=alert(1)>",
    "<!-- --> ]]> <?xml?> &lt;b&gt; &#60;b&#62;",
    "[a](javascript:alert(1)) ![b](http://evil/x.png) <http://evil> `c` *d* _e_ ~~f~~ $g$ # h",
    "a|b\\|c",
    "\x00NUL \x1b[2J\x1b]0;title\x07 \x7f \x9b31m",
    "\u202eright to left \u2028 \u2029 \ufeff \ud800 half",
    "a\r\nb\tc\x0bd",
    "x" * 5_000,
    "many words " * 500 + "end",
    "",
]
REAL = ["Ärger, 日本語 und 🙂", "5 < 6 & 7 > 2", "it's “so”", "a_b"]


class Page(HTMLParser):
    """What tags, attributes and text a browser would find."""

    def __init__(self, page):
        super().__init__(convert_charrefs=True)
        self.tags, self.handlers, self.text = [], [], ""
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.handlers += [name for name, _ in attributes if name.startswith("on")]

    def handle_data(self, data):
        self.text += data


@pytest.mark.parametrize("text", HOSTILE + REAL)
def test_a_terminal_gets_one_short_line_that_moves_nothing(text):
    shown = plain(text)
    assert shown.isprintable() or not shown
    assert len(shown) <= LINE
    assert max(map(len, shown.split(" "))) <= WORD
    assert shown == text or text not in REAL


def test_what_is_long_keeps_its_end():
    """There stands what to do."""
    assert plain(f"{'x' * 5_000} is no picture; take another.").endswith("x is no picture; take another.")
    assert plain("word " * 5_000 + "the end").endswith("word the end")
    assert plain(path := f"/{'a' * 100}/{'b' * 190}") == path


@pytest.mark.parametrize("text", HOSTILE + REAL)
def test_a_page_gets_text(text):
    page = Page(f'<p title="{in_html(text)}">{in_html(text)}</p>')
    assert (page.tags, page.handlers) == (["p"], [])
    assert page.text == "\n".join(plain(line) for line in text.split("\n"))
    assert page.text == text or text not in REAL


@pytest.mark.parametrize("text", [text for text in HOSTILE + REAL if text])
def test_markdown_shows_it_unchanged(text):
    shown = MarkdownIt("commonmark").enable("table").render(f"text {in_markdown(text)}")
    assert (
        re.sub(r"<[^>]*>", "", shown.replace("\n", "")) == f"text {html.escape(plain(text)).replace('&#x27;', chr(39))}"
    )
    assert re.findall(r"<\w+", shown) == ["<p"]


@pytest.mark.parametrize("text", HOSTILE + REAL)
def test_json_is_whole_and_may_be_looked_at(text):
    said = in_json([{text: [text, 1, None]}])
    assert json.loads(said) == [{text: [text, 1, None]}]
    assert all(line.isprintable() for line in said.split("\n"))


@pytest.mark.parametrize("text", [text for text in HOSTILE if text])
def test_whatever_makes_pages_escapes(text):
    """The explorer, the page of sounds, diagrams, and the table at the end of a chapter."""
    image, weights = torch.zeros(1, 3, 4, 4), torch.full((1, 1, 1, 4), 0.25)
    explorer = alignment_explorer(image, [[text]], [weights], (2, 2), total=text, layers=[text])
    sounds = listening_page(list(image), [text], [{text: torch.zeros(9)}], title=text)
    for page, known in (
        (explorer.html, alignment_explorer(image, [["a"]], [weights], (2, 2), total="a", layers=["a"]).html),
        (sounds, listening_page(list(image), ["a"], [{"a": torch.zeros(9)}], title="a")),
    ):
        assert (Page(page).tags, Page(page).handlers) == (Page(known).tags, [])
        assert all(line.isprintable() for line in page.split("\n"))
        assert len(page) < len(known) + 6 * 5 * LINE
    table = Table([Result(text, 1.0), Result("b", 2.0)], "laptop")
    assert str(table).count("\n") == 2
    shown = MarkdownIt("commonmark").enable("table").render(table._repr_markdown_())
    assert shown.count("<td") == 8
    assert set(Page(shown).tags) <= {"table", "thead", "tbody", "tr", "th", "td"}
    tags = Page(draw_architecture("a -> b", text)).tags
    assert tags == Page(draw_architecture("a -> b", "a")).tags


def test_nothing_else_escapes():
    """One position decides what a text of others may do."""
    package = Path(mmlearn.__file__).parent
    files = [
        path
        for path in [*package.rglob("*.py"), *(package.parent / "book").glob("*.py")]
        if "_shipped" not in path.parts
    ]
    found = {
        path.name
        for path in files
        if re.search(r"html\.escape|import html|from html|isprintable", path.read_text("utf-8"))
    }
    assert found == {"escaping.py"}
