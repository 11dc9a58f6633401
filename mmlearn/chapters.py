"""Chapters: notebooks that state what they expect, are run by papermill, and whose results are kept."""

import base64
import io
import json
import logging
import os
import platform
import re
import resource
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmlearn.files import written_whole
from mmlearn.names import choices
from mmlearn.progress import VARIABLE, shown_while_it_trains

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SCALES = ("smoke", "laptop", "long", "gpu")
# Left to itself, glibc hands large buffers back after each step and asks for them again; to keep them saves time.
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "1000000000", "MALLOC_TRIM_THRESHOLD_": "1000000000"}
PACKAGE = Path(__file__).parent


@dataclass(frozen=True)
class Result:
    """One line of a chapter's table; ``at_least`` and ``at_most`` are what a run is held to."""

    name: str
    obtained: float
    at_least: float | None = None
    at_most: float | None = None
    chance: float | None = None
    goal: str = ""  # what was hoped for, where that is more than what a run is held to

    @property
    def holds(self) -> bool:
        """Whether the obtained number is within its bounds; NaN never is."""
        low = -float("inf") if self.at_least is None else self.at_least
        high = float("inf") if self.at_most is None else self.at_most
        return low <= self.obtained <= high

    @property
    def expected(self) -> str:
        """The bounds in words."""
        bounds = [f"≥ {self.at_least:g}"] if self.at_least is not None else []
        bounds += [f"≤ {self.at_most:g}"] if self.at_most is not None else []
        return self.goal or " and ".join(bounds) or "reported"


class Chapter:
    """What a chapter notebook writes its figures and results through.

    ``Chapter("07_contrastive", scale=SCALE, seed=SEED)`` at the top; :meth:`figure` for every picture worth keeping,
    :meth:`result` for every number, :meth:`finish` in the last code cell, which shows the table *expected / obtained /
    chance*, writes ``metrics.json`` and fails where a number is out of its bounds. At ``smoke`` scale numbers mean
    nothing and nothing is held to them. Files go to ``runs/NAME/``, or to where ``MMLEARN_RUN`` points.
    """

    def __init__(self, name: str, *, scale: str = "laptop", seed: int = 0):
        if scale not in SCALES:
            raise ValueError(f"There is no scale {scale!r}; {choices(scale, SCALES)}.")
        self.name, self.scale, self.seed = name, scale, seed
        self.folder = Path(os.environ.get("MMLEARN_RUN") or Path("runs") / name)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.results: list[Result] = []
        self.details: dict[str, Any] = {}
        self.started = time.perf_counter()

    def pick(self, *, smoke: Any, laptop: Any, gpu: Any, long: Any = None) -> Any:
        """The value for this run's scale. ``long``, minutes on the same machine, is as ``laptop`` unless given."""
        long = laptop if long is None else long
        return {"smoke": smoke, "laptop": laptop, "long": long, "gpu": gpu}[self.scale]

    def figure(self, name: str, figure: "Figure") -> "Figure":
        """Save a figure as ``NAME.png`` and hand it back for display."""
        with written_whole(self.folder / f"{name}.png") as unfinished:
            figure.savefig(unfinished, dpi=110)
        return figure

    def result(
        self,
        name: str,
        obtained: float,
        *,
        at_least: float | Mapping[str, float] | None = None,
        at_most: float | Mapping[str, float] | None = None,
        chance: float | None = None,
        goal: str = "",
    ) -> None:
        """Add a line to the table.

        A bound comes from recorded runs, about their mean less three standard deviations. A number is of ``laptop`` and
        holds for ``long`` too; ``{"laptop": 0.8, "gpu": 0.9}`` gives each scale its own. At other scales none holds.
        """
        low, high = self._bound(at_least), self._bound(at_most)
        self.results.append(Result(name, float(obtained), low, high, chance, goal))

    def _bound(self, bound: float | Mapping[str, float] | None) -> float | None:
        by_scale = bound if isinstance(bound, Mapping) else {"laptop": bound, "long": bound}
        return by_scale.get(self.scale)

    def compare(self, names: Mapping[str, str] | Sequence[str], *, label: str, title: str = "") -> "Figure":
        """Bars of results of this run, with a dot a recorded seed of every scale, and each result's chance.

        ``names`` are names of results, or what to call them and their names. ``ValueError`` for one that
        :meth:`result` was not told.
        """
        from mmlearn.visualization import bars

        names = names if isinstance(names, Mapping) else {name: name for name in names}
        told = {result.name: result for result in self.results}
        if missing := [name for name in names.values() if name not in told]:
            raise ValueError(f"This run has no result {missing[0]!r} yet; {choices(missing[0], list(told))}.")
        kept = recorded(self.name)
        return bars(
            {shown: told[name].obtained for shown, name in names.items()},
            label=label,
            chance={shown: told[name].chance for shown, name in names.items() if told[name].chance is not None},
            recorded={
                scale: {shown: rows[name] for shown, name in names.items() if name in rows}
                for scale, rows in kept.items()
            },
            title=title,
        )

    def finish(self) -> "Table":
        """The table of results; raises ``AssertionError`` naming those that do not hold, except at ``smoke`` scale."""
        record = {
            "chapter": self.name,
            "scale": self.scale,
            "seed": self.seed,
            "seconds": round(time.perf_counter() - self.started, 1),
            "peak_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / _rss_unit()),
            **_machine(),
            "results": [asdict(result) | {"holds": result.holds} for result in self.results],
            "details": self.details,
        }
        with written_whole(self.folder / "metrics.json") as unfinished:
            unfinished.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        failed = [
            f"{item.name}: {item.obtained:.3f}, expected {item.expected}" for item in self.results if not item.holds
        ]
        if failed and self.scale != "smoke":
            raise AssertionError("; ".join(failed))
        return Table(self.results, self.scale)


@dataclass(frozen=True)
class Table:
    """Results as a notebook and a terminal show them."""

    results: list[Result]
    scale: str

    def rows(self) -> list[tuple[str, str, str, str]]:
        """Name, expected, obtained, chance."""
        return [
            (item.name, item.expected, f"{item.obtained:.3f}", "–" if item.chance is None else f"{item.chance:.3g}")
            for item in self.results
        ]

    def __str__(self) -> str:
        rows = [("result", "expected", "obtained", "chance"), *self.rows()]
        widths = [max(map(len, column)) for column in zip(*rows)]
        return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows)

    def _repr_markdown_(self) -> str:
        head = f"| result ({self.scale}) | expected | obtained | chance |\n|---|---|---|---|\n"
        return head + "\n".join(f"| {' | '.join(row)} |" for row in self.rows())

    def __repr__(self) -> str:
        return str(self)


def _rss_unit() -> int:
    return 2**20 if sys.platform == "darwin" else 2**10


def _machine() -> dict[str, Any]:
    import torch

    import mmlearn

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} threads"
    return {
        "device": device,
        "versions": {"mmlearn": mmlearn.__version__, "torch": torch.__version__, "python": platform.python_version()},
    }


# Finding and running them.


@dataclass(frozen=True)
class Notebook:
    """A chapter on disk; its title is the first heading, its minutes stand in the notebook's metadata."""

    number: str
    name: str
    title: str
    minutes: float
    path: Path


def notebooks_folder() -> Path:
    """The notebooks of this checkout, or those that came with the installed package."""
    for folder in (PACKAGE.parent / "notebooks", PACKAGE / "_shipped" / "notebooks"):
        if any(folder.glob("*.ipynb")):
            return folder
    raise FileNotFoundError(
        "No notebooks came with this installation of mmlearn; install it from a checkout or a wheel."
    )


def chapters() -> list[Notebook]:
    """All chapters, in order."""
    found = []
    for path in sorted(notebooks_folder().glob("[0-9][0-9]*_*.ipynb")):  # 07_contrastive, 13a_hearing
        notebook = json.loads(path.read_text(encoding="utf-8"))
        heading = next(
            line.removeprefix("# ").strip()
            for cell in notebook["cells"]
            if cell["cell_type"] == "markdown"
            for line in "".join(cell["source"]).splitlines()
            if line.startswith("# ")
        )
        minutes = float(notebook["metadata"].get("mmlearn", {}).get("minutes", 1))
        title = re.sub(r"^(Chapter )?\d+[a-z]?\b[.:·—– ]*", "", heading)
        found.append(Notebook(path.stem.partition("_")[0], path.stem, title, minutes, path))
    return found


def find(number: str) -> Notebook:
    """The chapter with this number or name. ``ValueError`` lists what there is, or its parts where it has some."""
    known = chapters()
    for chapter in known:
        if number in (chapter.number, chapter.name, chapter.number.lstrip("0") or "0"):
            return chapter
    if parts := [chapter for chapter in known if chapter.number in {number + letter for letter in "abcdefgh"}]:
        listed = ", ".join(f"{part.number} ({part.title})" for part in parts)
        raise ValueError(f"Chapter {number} is in {len(parts)} parts; choose from {listed}.")
    names = [name for chapter in known for name in (chapter.number, chapter.name)]
    raise ValueError(f"There is no chapter {number!r}; {choices(number, names)}.")


def recorded(chapter: str) -> dict[str, dict[str, list[float]]]:
    """What was recorded of a chapter, by scale (not smoke) and by the name of the result: a number a seed."""
    number, found = chapter.partition("_")[0], {}
    for folder in (PACKAGE / "_shipped" / "results", PACKAGE.parent / "book" / "results"):
        for scale in SCALES[1:]:
            if (path := folder / number / f"{scale}.json").is_file():
                rows = [row for run in json.loads(path.read_text(encoding="utf-8"))["runs"] for row in run["results"]]
                found[scale] = {row["name"]: [] for row in rows}
                for row in rows:
                    found[scale][row["name"]].append(row["obtained"])
    return found


def run(
    chapter: Notebook, output: Path, *, scale: str = "laptop", seed: int = 0, progress: bool = True
) -> dict[str, Any]:
    """Execute a chapter with papermill into ``output``: the notebook, a page of it, figures, ``metrics.json``.

    Returns what ``metrics.json`` holds. Raises ``ValueError`` for an unknown scale, missing notebook tools, or a cell
    that fails, with the cell's own error in one line.
    """
    if scale not in SCALES:
        raise ValueError(f"There is no scale {scale!r}; {choices(scale, SCALES)}.")
    try:
        import papermill
        from nbconvert import HTMLExporter
        from papermill.exceptions import PapermillExecutionError
    except ModuleNotFoundError as error:
        raise ValueError("Running chapters needs notebook tools: pip install 'mmlearn[notebooks]'.") from error
    output = output.resolve()
    output.mkdir(parents=True, exist_ok=True)
    (output / "metrics.json").unlink(missing_ok=True)
    executed = output / chapter.path.name
    before = dict(os.environ)
    told = output / "progress.txt"
    os.environ.update(
        {"MMLEARN_RUN": str(output)} | {key: os.environ.get(key, value) for key, value in ALLOCATOR.items()}
    )
    watched = progress and sys.stderr.isatty()  # in a file every state would stay as a line of its own
    if watched:
        os.environ[VARIABLE] = str(told)
    try:
        with shown_while_it_trains(told) if watched else nullcontext():
            papermill.execute_notebook(
                str(chapter.path),
                str(executed),
                parameters={"SCALE": scale, "SEED": seed},
                kernel_name="python3",
                progress_bar={"desc": chapter.name, "unit": "cell"} if progress else False,
                cwd=str(output),
                # The kernel else warns of how it was started, and tells of its own end where Ctrl-C stops the run.
                # What goes wrong in a cell comes back as the cell's error.
                extra_arguments=["--log-level=CRITICAL"],
            )
    except KeyboardInterrupt:
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # which else tells of the cell that was cut off
        raise
    except PapermillExecutionError as error:
        raise ValueError(f"{chapter.name} failed in cell {error.exec_count}: {error.ename}: {error.evalue}") from error
    finally:
        os.environ.clear()
        os.environ.update(before)
    page, _ = HTMLExporter(embed_images=True).from_filename(str(executed))
    with written_whole(output / "index.html") as unfinished:
        unfinished.write_text(page, encoding="utf-8")
    return json.loads((output / "metrics.json").read_text(encoding="utf-8"))


def record(chapter: Notebook, runs: list[dict[str, Any]], folder: Path) -> Path:
    """Keep the results of several seeds as ``NUMBER/SCALE.json`` under ``folder``, where book and README read them."""
    path = folder / chapter.number / f"{runs[0]['scale']}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(path) as unfinished:
        text = json.dumps({"chapter": chapter.name, "runs": runs}, indent=1, ensure_ascii=False)
        unfinished.write_text(text + "\n", encoding="utf-8")
    return path


def keep_outputs(chapter: Notebook, executed: Path) -> None:
    """Put the outputs of a run into the chapter itself, which readers see before they run anything.

    Progress bars and warnings are left out; pictures are stored with 256 colours, so that notebooks stay small. Raises
    ``ValueError`` where the run is of another text than the chapter now has.
    """
    notebook, run = (json.loads(path.read_text(encoding="utf-8")) for path in (chapter.path, executed))
    cells = [cell for cell in run["cells"] if "injected-parameters" not in cell["metadata"].get("tags", [])]
    if ["".join(cell["source"]) for cell in cells] != ["".join(cell["source"]) for cell in notebook["cells"]]:
        raise ValueError(f"{executed} was not made from {chapter.path} as it is now; run the chapter again.")
    count = 0
    for cell, ran in zip(notebook["cells"], cells):
        if cell["cell_type"] == "code":
            count += 1
            cell["execution_count"] = count
            cell["outputs"] = [_kept(output, count) for output in ran["outputs"] if _lasts(output)]
    with written_whole(chapter.path) as unfinished:
        unfinished.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _lasts(output: dict[str, Any]) -> bool:
    """Neither what goes to stderr nor a widget, which is dead in a notebook that is only read."""
    return output.get("name") != "stderr" and "application/vnd.jupyter.widget-view+json" not in output.get("data", {})


def _kept(output: dict[str, Any], count: int) -> dict[str, Any]:
    if "execution_count" in output:
        output["execution_count"] = count
    if "image/png" in output.get("data", {}):
        from PIL import Image

        picture = Image.open(io.BytesIO(base64.b64decode(output["data"]["image/png"]))).convert("RGB")
        small = io.BytesIO()
        picture.quantize(256, method=Image.Quantize.FASTOCTREE).save(small, "PNG", optimize=True)
        output["data"]["image/png"] = base64.b64encode(small.getvalue()).decode()
    return output


def start(folder: Path) -> tuple[list[Path], list[Path]]:
    """Copy notebooks and exercises to ``folder``: those copied, and those left as they are because they exist."""
    source = notebooks_folder().parent
    copied, kept = [], []
    for path in sorted([*source.glob("notebooks/*.ipynb"), *source.glob("exercises/*/*")]):
        if path.is_file():
            target = folder / path.relative_to(source)
            (kept if target.exists() else copied).append(target)
            if not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                with written_whole(target) as unfinished:  # half a notebook would be kept next time
                    shutil.copyfile(path, unfinished)
    return copied, kept
