"""The chapters' notebooks: found, run by papermill, and what they found out kept in the book and in themselves."""

import base64
import io
import json
import logging
import os
import re
import shutil
import sys
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmlearn.chapters import PACKAGE, SCALES
from mmlearn.files import refuse_links, written_whole
from mmlearn.lessons import KEEP
from mmlearn.progress import VARIABLE, shown_while_it_trains
from mmlearn.suggestions import suggest

# Left to itself, glibc hands large buffers back after each step and asks for them again; to keep them saves time.
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "1000000000", "MALLOC_TRIM_THRESHOLD_": "1000000000"}


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
    """All chapters, in order, and behind each its labs."""
    folder, found = notebooks_folder(), []
    paths = [*folder.glob("[0-9][0-9]*_*.ipynb"), *folder.glob("labs/[0-9][0-9]*-lab*_*.ipynb")]
    for path in sorted(paths, key=lambda path: path.stem.replace("-", "~")):  # 08_one_stream, 08-lab_five_relatives
        notebook = json.loads(path.read_text(encoding="utf-8"))
        heading = next(
            line.removeprefix("# ").strip()
            for cell in notebook["cells"]
            if cell["cell_type"] == "markdown"
            for line in "".join(cell["source"]).splitlines()
            if line.startswith("# ")
        )
        minutes = float(notebook["metadata"].get("mmlearn", {}).get("minutes", 1))
        title = re.sub(r"^(Chapter |Lab )?\d+[a-z]?\b[.:·—– ]*", "", heading)
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
    raise ValueError(f"There is no chapter {number!r}; {suggest(number, names)}.")


def run(
    chapter: Notebook,
    output: Path,
    *,
    scale: str = "laptop",
    seed: int = 0,
    data: str = "",
    weights: bool = False,
    progress: bool = True,
) -> dict[str, Any]:
    """Execute a chapter with papermill into ``output``: the notebook, a page of it, figures, ``metrics.json``.

    ``data`` are pictures of one's own, for chapters that take some; with ``weights`` a lesson keeps what it trained in
    the zoo. Returns what ``metrics.json`` holds. Raises
    ``ValueError`` for an unknown scale, missing notebook tools, data that the chapter does not take, or a cell that
    fails, with the cell's own error in one line.
    """
    if scale not in SCALES:
        raise ValueError(f"There is no scale {scale!r}; {suggest(scale, SCALES)}.")
    if data and "DATA" not in _parameters(chapter.path):
        raise ValueError(f"{chapter.name} takes no data of your own; its data are made for its question.")
    try:
        import papermill
        from papermill.exceptions import PapermillExecutionError

        from mmlearn.notebook_page import page_of
    except ModuleNotFoundError as error:
        raise ValueError(
            "Running chapters needs notebook tools; in the clone of mmlearn: pip install -e '.[notebooks]'."
        ) from error
    output = output.resolve()
    refuse_links(output, [output / name for name in (chapter.path.name, "metrics.json", "index.html", "progress.txt")])
    output.mkdir(parents=True, exist_ok=True)
    (output / "metrics.json").unlink(missing_ok=True)
    executed = output / chapter.path.name
    before = dict(os.environ)
    told = output / "progress.txt"
    os.environ.update(
        {"MMLEARN_RUN": str(output)}
        | ({KEEP: "1"} if weights else {})
        | {key: os.environ.get(key, value) for key, value in ALLOCATOR.items()}
    )
    watched = progress and sys.stderr.isatty()  # in a file every state would stay as a line of its own
    if watched:
        os.environ[VARIABLE] = str(told)
    try:
        with shown_while_it_trains(told) if watched else nullcontext():
            papermill.execute_notebook(
                str(chapter.path),
                str(executed),
                parameters={"SCALE": scale, "SEED": seed} | ({"DATA": data} if data else {}),
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
    found = json.loads((output / "metrics.json").read_text(encoding="utf-8"))
    with written_whole(output / "index.html") as unfinished:
        unfinished.write_text(page_of(executed, found["results"]), encoding="utf-8")
    return found


def _parameters(path: Path) -> str:
    """The cell that papermill puts its parameters behind."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return "".join(
        line for cell in cells if "parameters" in cell["metadata"].get("tags", []) for line in cell["source"]
    )


def record(chapter: Notebook, runs: list[dict[str, Any]], folder: Path) -> Path:
    """Keep the results of several seeds as ``NUMBER/SCALE.json`` under ``folder``, where book and README read them.

    ``ValueError`` for a shrunk run, whose numbers mean nothing.
    """
    if any(run.get("shrunk") for run in runs):
        raise ValueError("A shrunk run shows that the gpu scale runs; its numbers mean nothing and are not recorded.")
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

        image = Image.open(io.BytesIO(base64.b64decode(output["data"]["image/png"]))).convert("RGB")
        small = io.BytesIO()
        image.quantize(256, method=Image.Quantize.MAXCOVERAGE, kmeans=3, dither=Image.Dither.NONE).save(
            small, "PNG", optimize=True
        )
        output["data"]["image/png"] = base64.b64encode(small.getvalue()).decode()
    return output


def start(folder: Path) -> tuple[list[Path], list[Path]]:
    """Copy notebooks and exercises to ``folder``: those copied, and those left as they are because they exist.

    Raises ``ValueError`` where a link would lead one elsewhere.
    """
    source = notebooks_folder().parent
    patterns = (
        "notebooks/*.ipynb",
        "notebooks/labs/*.ipynb",
        "notebooks/scales.toml",
        "notebooks/heroes/*",
        "exercises/*/*",
    )
    found = sorted(path for pattern in patterns for path in source.glob(pattern))
    targets = {folder / path.relative_to(source): path for path in found if path.is_file()}
    refuse_links(folder, targets)
    copied = [target for target in targets if not target.exists()]
    for target in copied:
        target.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(target) as unfinished:  # half a notebook would be kept next time
            shutil.copyfile(targets[target], unfinished)
    return copied, [target for target in targets if target not in copied]
