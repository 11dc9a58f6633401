"""The Makefile: what it sets up and when, in which order it tests, and where it stops. Python is a stub that tells."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mmlearn.recipes.discovery import system_files

ROOT = Path(__file__).parents[1]
STUB = """#!/bin/sh
case "$1 $2" in
  "-m venv") mkdir -p .venv/bin; cp "$0" .venv/bin/python; exit;;
  "-V ") echo "Python $VERSION"; exit;;
  -c*) exec {python} -c "import sys; sys.version_info = tuple(map(int, '$VERSION'.split('.'))); $2";;
esac
echo "RUN $*"
case "$*" in *"$BREAK"*) exit 3;; esac
"""
NOTEBOOKS, DEV = (
    f"-m pip install --disable-pip-version-check -c constraints.txt -e .[{x}]" for x in ("notebooks", "dev")
)
PARTS = [
    "ruff check",
    "ruff format --check",
    "-m mypy",
    "tests --ignore tests/browser",
    "--nbval-lax",
    "sphinx -W",
    "tests/browser",
]


@pytest.fixture
def make(tmp_path):
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    stub = tmp_path / "python-stub"
    stub.write_text(STUB.replace("{python}", sys.executable))
    stub.chmod(0o755)

    def run(target, *, python="./python-stub", version="3.11.2", break_at="nothing"):
        environment = os.environ | {"VERSION": version, "BREAK": break_at}
        command = ["make", target, f"PYTHON={python}"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment, timeout=60)
        ran = [line.removeprefix("RUN ") for line in done.stdout.splitlines() if line.startswith("RUN ")]
        return done, ran

    run.folder = tmp_path
    return run


def later(path):
    """Make a file newer than all that was made so far."""
    newest = max(item.stat().st_mtime for item in path.parent.rglob("*"))
    os.utime(path, (newest + 2, newest + 2))


def test_the_lesson_sets_up_once(make):
    assert make("lesson")[1] == [NOTEBOOKS, "-m mmlearn run 00"]
    assert make("lesson")[1] == ["-m mmlearn run 00"]
    assert make("lab")[1] == ["-m mmlearn lab"]


def test_what_developers_install_is_enough_for_the_lesson(make):
    assert make("bench")[1] == [DEV, "tests/benchmarks/bench.py"]
    assert make("lesson")[1] == ["-m mmlearn run 00"]


@pytest.mark.parametrize(
    ("target", "script"),
    [("gpu", "benchmarks/gpu_chapters.py"), ("bench-gpu", "benchmarks/gpu.py"), ("attack", "attacks/attack.py")],
)
def test_long_targets_pass_options_on(make, target, script):
    assert make(target)[1] == [DEV, f"tests/{script}"]
    done = subprocess.run(
        ["make", target, "OPTIONS=--resume x"], cwd=make.folder, capture_output=True, text=True, timeout=60
    )
    assert f"RUN tests/{script} --resume x" in done.stdout.splitlines()


@pytest.mark.parametrize("changed", ["constraints.txt", "pyproject.toml"])
def test_other_requirements_are_installed_again(make, changed):
    make("lesson")
    later(make.folder / changed)
    assert make("lesson")[1] == [NOTEBOOKS, "-m mmlearn run 00"]


def test_a_set_up_that_failed_is_tried_again(make):
    done, ran = make("lesson", break_at="pip install")
    assert done.returncode != 0
    assert ran == [NOTEBOOKS]
    assert make("lesson")[1] == [NOTEBOOKS, "-m mmlearn run 00"]


def test_all_parts_of_the_test_run_in_order(make):
    done, ran = make("test")
    assert done.returncode == 0
    assert ran[0] == DEV
    assert [part for command, part in zip(ran[1:], PARTS, strict=True) if part in command] == PARTS
    headings = [line.strip("= ") for line in done.stdout.splitlines() if line.startswith("==")]
    assert headings == ["style", "unit tests: parity, exercises, README", "chapters", "book", "browser"]


@pytest.mark.parametrize(("part", "name"), zip(PARTS, ["style"] * 3 + ["unit tests", "chapters", "book", "browser"]))
def test_it_stops_at_the_first_part_that_fails_and_names_it(make, part, name):
    done, ran = make("test", break_at=f"pytest -q {part}" if name == "browser" else part)
    assert done.returncode != 0
    assert f"make: stopped, {name} failed" in done.stderr
    assert part in ran[-1]
    assert len(ran) == 2 + PARTS.index(part)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"version": "3.10.14"}, "mmlearn needs Python 3.11 or later, and ./python-stub is Python 3.10.14"),
        ({"python": "/bin/false"}, "mmlearn needs Python 3.11 or later, and /bin/false did not run: make lesson"),
        ({"python": "./shim"}, "mmlearn needs Python 3.11 or later, and ./shim did not run: make lesson"),
        ({"python": "no-such-python"}, "mmlearn needs Python 3.11 or later, and there is no no-such-python"),
    ],
)
def test_an_old_or_missing_python_is_told_in_one_line(make, options, said):
    shim = make.folder / "shim"
    shim.write_text("#!/bin/sh\necho 'shim: no version is set' >&2; exit 127\n")
    shim.chmod(0o755)
    done, ran = make("lesson", **options)
    assert done.returncode != 0
    assert said in done.stderr.splitlines()[0]
    assert ran == []
    assert not (make.folder / ".venv").exists()


def test_constraints_pin_every_direct_dependency_within_its_bounds():
    import tomllib

    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name
    from packaging.version import Version

    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and line[0] != "#"]
    pins = {name: Version(version) for name, version in (line.split("==") for line in lines)}
    assert all(version.local is None for version in pins.values())  # +cpu is on no ordinary index
    assert not [name for name in pins if name.startswith(("nvidia", "cuda"))]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [line for lines in project["optional-dependencies"].values() for line in lines]
    for requirement in map(Requirement, [*project["dependencies"], *extras]):
        if requirement.name != project["name"]:
            version = pins[canonicalize_name(requirement.name)]
            assert requirement.specifier.contains(version), f"{requirement} is pinned to {version}"


def test_ci_leaves_nothing_out():
    script = (ROOT / ".ci" / "run").read_text()
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
    assert "set -euo pipefail" in script
    targets = ("test", "gpu-shrunk", "own-vlm")
    assert [line for line in script.splitlines() if line.startswith("make ")] == [f"make {each}" for each in targets]
    workflow = (ROOT / ".github" / "workflows" / "test.yml").read_text()
    assert all(f"run: make {target}" in workflow for target in targets)


def test_the_gpu_settings_of_every_chapter_are_run_small(make):
    (make.folder / "notebooks" / "labs").mkdir(parents=True)
    names = ("00_first", "01_second", "labs/00-lab_third")
    for name in names:
        (make.folder / "notebooks" / f"{name}.ipynb").touch()
    assert sorted(make("gpu-shrunk")[1][1:]) == sorted(
        [f"tests/benchmarks/gpu_chapters.py --seeds 1 {name.removeprefix('labs/')}" for name in names]
        + ["tests/benchmarks/vlm_commands.py"]
    )


def test_chapters_run_at_smoke_but_for_some_and_all_at_laptop_when_asked(make):
    named = next(line for line in (ROOT / "Makefile").read_text().splitlines() if line.startswith("AT_LAPTOP"))
    kept = named.split()[-1]
    assert {path.name.partition("_")[0] for path in (ROOT / "notebooks").glob("*.ipynb")} >= set(kept.split(","))
    assert f"--scale smoke --at-laptop {kept} notebooks" in make("chapters")[1][-1]
    assert make("chapters-full")[1][-1].endswith("--nbval-cell-timeout 900 notebooks")


def test_quick_tries_systems_and_files_that_there_are(make):
    units, lesson = (command.split() for command in make("quick")[1][1:])
    wanted = units[units.index("--systems") + 1].split(",")
    assert len(wanted) == 8
    assert set(wanted) <= system_files().keys()
    assert all((ROOT / word).exists() for word in units if word.startswith("tests/"))
    assert lesson[-3:-1] == ["--scale", "smoke"]
