"""A notebook that was run, as one page that needs no network: results and contents on top, formulas as MathML."""

import re
from pathlib import Path
from typing import Any

import latex2mathml.converter
from jinja2 import pass_context
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

from mmlearn.escaping import in_html
from mmlearn.reported import by_row

# JupyterLab's page without the scripts that it would fetch: for formulas, for diagrams, for widgets.
TEMPLATE = """{%- extends 'lab/index.html.j2' -%}
{%- block html_head_js -%}{%- endblock -%}
{%- block jupyter_widgets -%}{%- endblock -%}
{%- block html_head_js_mathjax -%}{%- endblock -%}
{%- block html_head_js_mermaidjs -%}{%- endblock -%}
"""
COLUMNS = {"here": "obtained", "zoo": "trained for longer", "untrained": "untrained", "chance": "chance"}
STYLE = """<style>
math { font-size: 1.1em; }
math[display="block"] { margin: 0.8em 0; overflow-x: auto; }
.summary { font: 14px/1.5 sans-serif; max-width: 60em; overflow-x: auto; padding: 20px 20px 0 104px; }
.summary table { border-collapse: collapse; margin-bottom: 1.2em; }
.summary a { color: #0969da; }
@media (max-width: 600px) { .summary { padding: 12px 24px 0; } }
.summary :is(th, td) { border-bottom: 1px solid #8888; padding: 0.2em 1em 0.2em 0; text-align: left; }
</style>"""


class Renderer(IPythonRenderer):
    """Markdown as nbconvert renders it, with formulas as MathML, which browsers show by themselves."""

    def block_math(self, body: str) -> str:
        """``$$ … $$``."""
        return mathml(body, "block")

    def inline_math(self, body: str) -> str:
        """``$ … $``."""
        return mathml(body, "inline")

    def latex_environment(self, name: str, body: str) -> str:
        """``\\begin{…} … \\end{…}``."""
        return mathml(f"\\begin{{{name}}}{body}\\end{{{name}}}", "block")


class Exporter(HTMLExporter):
    """HTML of a notebook, with :class:`Renderer` for its text."""

    @pass_context
    def markdown2html(self, context: Any, source: str) -> str:
        """The filter of the template."""
        renderer = Renderer(
            escape=False,
            attachments=context.get("cell", {}).get("attachments", {}),
            embed_images=True,
            path=context.get("resources", {}).get("metadata", {}).get("path", ""),
            anchor_link_text=self.anchor_link_text,
            exclude_anchor_links=self.exclude_anchor_links,
        )
        return MarkdownWithMath(renderer=renderer).render(source)


def mathml(formula: str, display: str) -> str:
    """A formula of LaTeX as MathML, or as its text where it is none that is known."""
    formula = re.sub(r"\\[Bb]igg?[lrm]?(?![a-zA-Z])", "", formula)  # MathML makes brackets as large as they must be
    formula = re.sub(r"\\arg(?![a-zA-Z])", r"\\operatorname{arg}", formula)
    try:
        return latex2mathml.converter.convert(formula, display=display)
    except Exception:  # of many kinds; a formula that is not understood must not cost the page
        return f"<code>{in_html(formula)}</code>"


def page_of(notebook: Path, results: list[dict[str, Any]]) -> str:
    """The page of a notebook that was run, with what it reported on top of a list of its sections."""
    page, _ = Exporter(raw_template=TEMPLATE, embed_images=True).from_filename(str(notebook))
    sections = re.findall(r'<h2 id="([^"]*)">(.*?)<a class="anchor-link"', page, re.DOTALL)
    listed = "".join(f'<li><a href="#{anchor}">{title}</a></li>' for anchor, title in sections)
    contents = f"<nav><b>Contents</b><ul>{listed}</ul></nav>" if listed else ""
    page = page.replace("</head>", f"{STYLE}\n</head>", 1)
    top = f'<section class="summary">{results_table(results)}{contents}</section>\n<main>'
    return re.sub("<main>", lambda _: top, page, count=1)


def results_table(results: list[dict[str, Any]]) -> str:
    """What a notebook reported, a line for each result, beside what chance and other models get; nothing for none."""
    rows: dict[str, dict[str, float]] = {}
    for name, found in by_row(results).items():
        rows[name] = {column: result["obtained"] for column, result in found.items()}
        known = [result["chance"] for result in found.values() if result.get("chance") is not None]
        rows[name] |= {"chance": known[-1]} if known else {}
    columns = [each for each in COLUMNS if any(each in row for row in rows.values())]
    head = "".join(f"<th>{COLUMNS[each]}</th>" for each in columns)
    body = "".join(
        f"<tr><td>{in_html(name)}</td>"
        + "".join(f"<td>{format(row[each], '.3g') if each in row else '–'}</td>" for each in columns)
        + "</tr>"
        for name, row in rows.items()
    )
    return f"<table><tr><th>what this run found</th>{head}</tr>{body}</table>" if rows else ""
