"""One file per system, by family; the paper's own idea is in its file. ``from mmlearn.models import CLIP`` finds it."""

from typing import Any

from mmlearn.lazy import lazy_names


def __getattr__(name: str) -> Any:
    return lazy_names(__name__, __path__)(name)
