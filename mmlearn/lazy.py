"""A package whose names are imported when they are asked for, so that importing the package costs nothing."""

import re
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

DEFINITION = re.compile(r"^(?:def|class) (\w+)[(:]", re.MULTILINE)


def lazy_names(package: str, folders: Sequence[str]) -> Callable[[str], Any]:
    """The ``__getattr__`` of a package: a public name is found in the file, at any depth, that defines it."""

    def find(name: str) -> Any:
        if not name.startswith("_"):
            for folder in folders:
                for path in sorted(Path(folder).rglob("*.py")):
                    if name in DEFINITION.findall(path.read_text("utf-8")):
                        parts = path.relative_to(folder).with_suffix("").parts
                        return getattr(import_module(".".join((package, *parts))), name)
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return find
