"""The wheel holds data, notebooks and exercises, none of a checkout's rubbish, and works without the checkout."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "book" / "results"


def run(*command, cwd, **environment):
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, env=os.environ | environment, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy of the checkout in which somebody has worked."""
    pytest.importorskip(
        "hatchling", reason="hatchling is not installed (building asks no network): pip install '.[dev]'"
    )
    checkout, folder = tmp_path_factory.mktemp("checkout"), tmp_path_factory.mktemp("wheel")
    for name in ("mmlearn", "notebooks", "exercises", "book/results"):
        shutil.copytree(ROOT / name, checkout / name)
    for name in ("pyproject.toml", "README.md", "LICENSE", ".gitignore"):
        shutil.copy(ROOT / name, checkout)
    for rubbish in ("notebooks/runs/00/a.png", "exercises/.ipynb_checkpoints/b.ipynb", "mmlearn/__pycache__/c.pyc"):
        (checkout / rubbish).parent.mkdir(parents=True, exist_ok=True)
        (checkout / rubbish).touch()
    options = ("--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(folder))
    run(sys.executable, "-m", "pip", "wheel", str(checkout), *options, cwd=folder)
    (built,) = folder.glob("mmlearn_lessons-*-py3-none-any.whl")
    return built


def files_of(folder, *patterns):
    return {
        str(path.relative_to(ROOT)) for pattern in patterns for path in (ROOT / folder).glob(pattern) if path.is_file()
    }


def test_it_holds_the_library_and_its_archives(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    wanted = files_of("mmlearn", "**/*.py", "data/archives/*/*")
    assert len(wanted) > 60
    assert wanted <= names


def test_it_holds_notebooks_exercises_and_records(wheel):
    names = {
        name.removeprefix("mmlearn/_shipped/") for name in zipfile.ZipFile(wheel).namelist() if "/_shipped/" in name
    }
    notebooks = files_of("notebooks", "*.ipynb", "labs/*.ipynb", "heroes/*", "scales.toml")
    assert notebooks | files_of("exercises", "*/*.py", "*/*.ipynb") <= names
    assert not {name for name in names if "mistakes" in name}  # wrong answers are for the tests alone
    assert {f"results/{path.relative_to(RESULTS).as_posix()}" for path in RESULTS.rglob("*.json")} <= names


def test_it_holds_every_licence(wheel):
    names = [name.split("/licenses/")[1] for name in zipfile.ZipFile(wheel).namelist() if "/licenses/" in name]
    assert {"LICENSE"} | files_of("mmlearn/data/archives", "*/LICENSE*", "*/CREDITS*") == set(names)


def test_it_holds_nothing_else(wheel):
    parts = {part for name in zipfile.ZipFile(wheel).namelist() for part in Path(name).parts}
    assert not parts & {"__pycache__", "runs", ".ipynb_checkpoints", "tests", "book", ".venv", ".gitkeep"}
    assert wheel.stat().st_size < 64 * 2**20


def test_installed_it_runs_far_from_the_checkout(wheel, tmp_path):
    position = tmp_path / "installed"
    options = ("--no-deps", "--no-index", "--target", str(position))
    run(sys.executable, "-m", "pip", "install", "--quiet", *options, str(wheel), cwd=tmp_path)

    def mmlearn(*arguments):
        return run(sys.executable, "-m", "mmlearn", *arguments, cwd=tmp_path, PYTHONPATH=str(position))

    asked = "import mmlearn.chapters as c; print(c.__file__, c.counted_presets()['clip']['ViT-B/32']['parameters'])"
    where, parameters = run(sys.executable, "-c", asked, cwd=tmp_path, PYTHONPATH=str(position)).split()
    assert where.startswith(str(position))
    assert parameters == "151277313"
    assert "emoji" in mmlearn("data")  # the archives are read from the installed package
    mmlearn("start", "desk")
    copied = {str(path.relative_to(tmp_path / "desk")) for path in (tmp_path / "desk").rglob("*.*") if path.is_file()}
    notebooks = files_of("notebooks", "*.ipynb", "labs/*.ipynb", "heroes/*", "scales.toml")
    assert copied == notebooks | files_of("exercises", "*/*.py", "*/*.ipynb")
