"""How Sphinx builds the book. Pages that come from notebooks, records and docstrings are written by pages.py."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import colab
import docstrings
import pages
import tidy

import mmlearn

HERE = Path(__file__).parent
pages.write_all(HERE)
SOURCE = colab.source_address(HERE.parent / "pyproject.toml")

project = "mmlearn"
author = "the mmlearn authors"
release = mmlearn.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx-mathjax-offline",
    "sphinxcontrib.bibtex",
]
exclude_patterns = ["_build", "**.ipynb_checkpoints", "generated/contents.md"]
exclude_patterns += ["all_chapters.md"]  # its table is in generated/chapters.md
smartquotes_action = "qe"  # quotes and ellipses; two hyphens before an option stay two

# Notebooks are shown as they were committed.
nb_execution_mode = "off"
nb_output_stderr = "remove"
nb_merge_streams = True
nb_render_markdown_format = "myst"
nb_ipywidgets_js = {}  # would be asked of the network
myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 110
add_module_names = False

bibtex_bibfiles = ["references.bib"]
bibtex_reference_style = "author_year"
bibtex_default_style = "plain"

html_theme = "sphinx_book_theme"
html_title = "mmlearn"
html_static_path = ["_static", "generated/static"]
html_favicon = "_static/favicon.svg"
html_context = {"default_mode": "auto"}
html_css_files = ["book.css"]
html_js_files = [("search_typo.js", {"defer": "defer"})]  # after Sphinx's own scripts of the search
html_copy_source = True  # for the button that downloads a notebook
html_show_sourcelink = False
html_last_updated_fmt = None
html_theme_options = {
    "navbar_persistent": [],  # the search is at the side
    "show_navbar_depth": 1,
    "show_toc_level": 2,
    "use_download_button": True,
    "use_fullscreen_button": False,
}


def add_to_page(app, page, source):
    """Chapters link to Colab; the notebook to download stays as it is."""
    folder, _, name = page.partition("/")
    if folder == "chapters" and SOURCE:
        source[0] = colab.with_link(source[0], name, SOURCE)


def setup(app):
    """Docstrings are turned into what reads well on a page."""
    docstrings.connect(app, HERE / "references.bib")
    app.connect("source-read", add_to_page)
    app.connect("build-finished", lambda app, error: error or tidy.tidy(Path(app.outdir)), 900)  # after MathJax came
    return {"parallel_read_safe": True}
