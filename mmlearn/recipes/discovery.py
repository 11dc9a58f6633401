"""Which systems there are: every file of :mod:`mmlearn.recipes` that ends in a recipe. No list names them."""

import re
import sys
from functools import cache
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import mmlearn.recipes
from mmlearn.recipes.recipe import Recipe
from mmlearn.suggestions import suggest

FOOT = re.compile(r"^RECIPE = Recipe\(", re.MULTILINE)


def system_files() -> dict[str, Path]:
    """Each system's name and recipe: ``sound_of_pixels.py`` is ``sound-of-pixels``. Nothing is imported for it."""
    found = {path.stem.replace("_", "-"): path for path in _files() if _has_recipe(path, path.stat().st_mtime_ns)}
    return dict(sorted(found.items()))


@cache
def _has_recipe(path: Path, changed: int) -> bool:
    """A file is read once, and again where it has changed."""
    return FOOT.search(path.read_text("utf-8")) is not None


def _files() -> list[Path]:
    return [path for folder in mmlearn.recipes.__path__ for path in Path(folder).glob("*.py")]


def find_recipe(name: str) -> Recipe:
    """The recipe of a system, by its name or by the path of a file of one's own.

    Raises ``ValueError`` for a name that is none, or a file without a recipe; ``FileNotFoundError`` for no file.
    """
    path = Path(name)
    if path.suffix == ".py":
        if not path.is_file():
            raise FileNotFoundError(f"There is no file {name}.")
        return _recipe_in(path.resolve())
    known = system_files()
    if name not in known:
        raise ValueError(f"There is no system {name!r}; {suggest(name, known)}.")
    return import_module(f"mmlearn.recipes.{known[name].stem}").RECIPE


@cache
def _recipe_in(path: Path) -> Recipe:
    spec = spec_from_file_location(f"mmlearn_of_yours.{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ValueError(f"{path} is no Python file.")
    module = sys.modules[spec.name] = module_from_spec(spec)
    spec.loader.exec_module(module)
    if not isinstance(getattr(module, "RECIPE", None), Recipe):
        raise ValueError(f"{path} has no RECIPE at its foot.")
    return module.RECIPE
