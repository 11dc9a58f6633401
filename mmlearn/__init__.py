"""mmlearn: multimodal representation learning, built from scratch and measured."""

from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from mmlearn.pretrained import load_pretrained, load_processor

__all__ = ["load_pretrained", "load_processor"]


def __getattr__(name: str):
    # Imported on first use, so that ``import mmlearn`` costs little more than ``import torch``.
    if name in __all__:
        from mmlearn import pretrained

        return getattr(pretrained, name)
    from importlib import import_module
    from importlib.util import find_spec

    if not name.startswith("_") and find_spec(f"mmlearn.{name}"):
        return import_module(f"mmlearn.{name}")
    raise AttributeError(f"module 'mmlearn' has no attribute {name!r}")


def __dir__() -> list[str]:
    """What there is, so that completion shows it before it is imported."""
    from pathlib import Path

    parts = {path.stem for path in Path(__file__).parent.iterdir() if path.suffix == ".py" or path.is_dir()}
    return sorted({*globals(), *__all__, *(part for part in parts if part.isidentifier() and not part.startswith("_"))})
