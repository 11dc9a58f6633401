"""What a lesson's notebook is run with: its sizes, its weights of the zoo, and the few numbers that it reports.

``notebooks/scales.toml`` has the sizes of every lesson at every scale; the bounds of what it reports are with the
tests, in ``tests/chapters``. So that a lesson's cells hold neither.
"""

import json
import os
import time
import tomllib
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from mmlearn.chapters import PACKAGE, SCALES, SHRUNK, machine, peak_memory
from mmlearn.files import written_whole
from mmlearn.reported import HERE, OTHERS, result_name
from mmlearn.suggestions import suggest

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import nn

    from mmlearn.data.tokenizer import Tokenizer
    from mmlearn.visualization.lesson import SmallTable

KEEP = "MMLEARN_KEEP"  # set, a lesson at the scale "long" writes its weights to the zoo
COLUMNS = (HERE, *OTHERS, "chance")


class Lesson:
    """``Lesson("08_one_stream", scale=SCALE, seed=SEED)``: sizes as attributes of ``size``, results by :meth:`report`.

    Raises ``ValueError`` for a scale that there is not, ``FileNotFoundError`` where the notebook has been moved away
    from its ``scales.toml``, and ``OSError`` where nothing can be written, as in an installation that is read-only.
    """

    def __init__(self, name: str, *, scale: str = "laptop", seed: int = 0):
        if scale not in SCALES:
            raise ValueError(f"There is no scale {scale!r}; {suggest(scale, SCALES)}.")
        self.name, self.scale, self.seed = name, scale, seed
        self.number = name.partition("_")[0]
        self.shrunk = scale == "gpu" and bool(os.environ.get(SHRUNK))
        self.folder = Path(os.environ.get("MMLEARN_RUN") or Path("runs") / name)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            todo = "copy the notebooks to a folder of yours with mmlearn start FOLDER, and run them there"
            raise OSError(f"{self.folder.resolve()} cannot be made ({error.strerror}): {todo}.") from error
        self.size = self._sizes()
        self.started = time.perf_counter()

    def _sizes(self) -> SimpleNamespace:
        """Of the scale what differs from ``laptop``; a shrunk ``gpu`` is ``gpu`` with what ``smoke`` changes."""
        by_scale = tomllib.loads(_scales_file().read_text(encoding="utf-8")).get(self.number)
        if by_scale is None:
            raise ValueError(f"{_scales_file()} has no sizes of {self.number}.")
        sizes = by_scale["laptop"] | by_scale.get(self.scale, {})
        return SimpleNamespace(**sizes | (by_scale["smoke"] if self.shrunk else {}))

    def figure(self, name: str, figure: "Figure") -> "Figure":
        """Save a figure as ``NAME.png``, and hand it back for display."""
        with written_whole(self.folder / f"{name}.png") as unfinished:
            figure.savefig(unfinished, dpi=110, bbox_inches="tight")
        return figure

    def keep(self, name: str, model: "nn.Module", *, tokenizer: "Tokenizer | None" = None, **record: Any) -> None:
        """At the scale ``long`` of ``mmlearn run --keep``, write this model to the zoo; else nothing."""
        if self.scale != "long" or not os.environ.get(KEEP):
            return
        from mmlearn.pretrained.zoo import keep

        options = {key: record.pop(key) for key in ("system", "without") if key in record}
        record |= {"lesson": self.number, "seed": self.seed, "seconds": round(time.perf_counter() - self.started)}
        keep(name, model, record | machine(), tokenizer=tokenizer, **options)

    def report(self, rows: Mapping[str, Mapping[str, float]], *, form: str = ".1%") -> "SmallTable":
        """The table of results, at most 6 rows: what was found ``here``, in the ``zoo``, ``untrained``, by ``chance``.

        ``form`` is how numbers are written. Writes ``metrics.json``. Raises ``ValueError`` for more rows, another
        column, or a row without a floor.
        """
        from mmlearn.visualization.lesson import SmallTable

        if len(rows) > 6:
            raise ValueError(f"A lesson reports at most 6 rows, not {len(rows)}; the others belong to a lab.")
        for name, row in rows.items():
            if other := set(row) - set(COLUMNS):
                raise ValueError(f"{name!r} has a column {sorted(other)[0]!r}; there are {', '.join(COLUMNS)}.")
            if not {"untrained", "chance"} & set(row):
                raise ValueError(f"{name!r} needs what chance or an untrained model gets.")
        results = [
            {"name": result_name(name, column), "obtained": float(row[column]), "holds": True}
            | {"chance": row.get("chance"), "at_least": None, "at_most": None, "goal": ""}
            for name, row in rows.items()
            for column in (HERE, *OTHERS)
            if column in row
        ]
        record = {"chapter": self.name, "scale": self.scale, "shrunk": self.shrunk, "seed": self.seed}
        record |= {
            "seconds": round(time.perf_counter() - self.started, 1),
            "peak_memory_mb": peak_memory(),
            **machine(),
        }
        record |= {"results": results, "details": {}}
        with written_whole(self.folder / "metrics.json") as unfinished:
            unfinished.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        used = [column for column in COLUMNS if any(column in row for row in rows.values())]
        called = {"here": "trained here", "zoo": "trained for longer", "untrained": "untrained", "chance": "chance"}
        cells = [
            [name, *(format(row[column], form) if column in row else "–" for column in used)]
            for name, row in rows.items()
        ]
        return SmallTable(["", *(called[column] for column in used)], cells)


def _scales_file() -> Path:
    """Of this checkout, or of the installed package; beside the notebook that runs first."""
    for folder in (Path.cwd(), PACKAGE.parent / "notebooks", PACKAGE / "_shipped" / "notebooks"):
        if (path := folder / "scales.toml").is_file():
            return path
    raise FileNotFoundError("There is no scales.toml: it belongs beside the notebooks, in the folder notebooks.")
