"""One pure function per objective: no module state, no data loading. ``from mmlearn.objectives import info_nce``."""

from typing import Any

from mmlearn.lazy import lazy_names


def __getattr__(name: str) -> Any:
    return lazy_names(__name__, __path__)(name)
