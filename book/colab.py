"""A link under the title of each chapter that opens it in Colab, once the project has a public address.

The address is the ``Source`` among the project's addresses in ``pyproject.toml``. Without one no chapter has a link.
"""

import json
import tomllib
from pathlib import Path

COLAB = "https://colab.research.google.com/github"


def source_address(project: Path) -> str:
    """Where the source can be read, such as ``https://github.com/OWNER/mmlearn``; empty if that is not said."""
    return tomllib.loads(project.read_text(encoding="utf-8"))["project"].get("urls", {}).get("Source", "").rstrip("/")


def with_link(source: str, name: str, address: str) -> str:
    """The notebook with a line below its first cell. ``ValueError`` for an address that is not on GitHub."""
    position = address.removeprefix("https://github.com/")
    if position == address or position.count("/") != 1:
        raise ValueError(
            f"Colab opens notebooks of https://github.com/OWNER/NAME; Source in pyproject.toml is {address}."
        )
    notebook = json.loads(source)
    folder = "notebooks/labs" if "-lab" in name else "notebooks"
    line = (
        f"[Open in Colab]({COLAB}/{position}/blob/main/{folder}/{name}.ipynb). There, first run "
        f'`%pip install "mmlearn-lessons[notebooks] @ git+{address}"` in a cell of its own, and restart the session.'
    )
    notebook["cells"].insert(1, {"cell_type": "markdown", "id": "open-in-colab", "metadata": {}, "source": line})
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"
