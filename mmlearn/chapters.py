"""What a chapter's notebook is written with: its sizes at each scale, its figures, and what it expects and obtains."""

import json
import os
import platform
import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from mmlearn.escaping import in_markdown, plain
from mmlearn.files import written_whole
from mmlearn.suggestions import suggest

if TYPE_CHECKING:
    import torch
    from matplotlib.figure import Figure
    from torch import Tensor, nn

    from mmlearn.training import TrainingOptions
    from mmlearn.training.throughput import Pace

SCALES = ("smoke", "laptop", "long", "gpu")
SHRUNK = "MMLEARN_SHRINK"  # set, the gpu scale is run with sizes of smoke, on any machine, to see that it runs
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

    ``Chapter("07a_dual_encoders", scale=SCALE, seed=SEED)`` at the top; :meth:`settings` for what depends on the scale,
    :meth:`figure` for every picture worth keeping, :meth:`result` for every number, :meth:`finish` in the last code
    cell, which shows the table *expected / obtained / chance*, writes ``metrics.json`` and fails where a number is out
    of its bounds. At ``smoke`` scale, and where the environment variable ``MMLEARN_SHRINK`` makes the ``gpu`` scale
    small, numbers mean nothing and are held to nothing; nor are numbers of a reader's own ``data``. Files go to
    ``runs/NAME/``, or to where ``MMLEARN_RUN`` points.
    """

    def __init__(self, name: str, *, scale: str = "laptop", seed: int = 0, data: str = ""):
        if scale not in SCALES:
            raise ValueError(f"There is no scale {scale!r}; {suggest(scale, SCALES)}.")
        self.name, self.scale, self.seed, self.data = name, scale, seed, data
        self.shrunk = scale == "gpu" and bool(os.environ.get(SHRUNK))
        self.folder = Path(os.environ.get("MMLEARN_RUN") or Path("runs") / name)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.results: list[Result] = []
        self.details: dict[str, Any] = {}
        self.started = time.perf_counter()

    def settings(
        self, *, smoke: dict[str, Any], laptop: dict[str, Any], gpu: dict[str, Any], long: dict[str, Any] | None = None
    ) -> SimpleNamespace:
        """Models, data, batches and steps of this run's scale, by name: the one position where a chapter decides them.

        ``long`` has what differs from ``laptop``. A shrunk ``gpu`` takes numbers from ``smoke``, divides the widths of
        a :class:`~mmlearn.layers.config.Config` by 8, and keeps everything else. ``ValueError`` where the scales do
        not name the same things.
        """
        by_scale = {"smoke": smoke, "laptop": laptop, "long": laptop | (long or {}), "gpu": gpu}
        if others := sorted(set().union(*by_scale.values()) - set.intersection(*map(set, by_scale.values()))):
            raise ValueError(f"Each scale needs a value for {', '.join(others)}.")
        chosen = by_scale[self.scale]
        if self.shrunk:
            chosen = {name: _shrunk(value, smoke[name]) for name, value in gpu.items()}
        return SimpleNamespace(**chosen)

    @property
    def hardware(self) -> "dict[str, TrainingOptions]":
        """How :func:`~mmlearn.training.fit` uses the machine, as its ``options``: see :meth:`options`."""
        return {"options": self.options()}

    def options(self, **others: Any) -> "TrainingOptions":
        """These options of :func:`~mmlearn.training.fit`; on a GPU with bf16, eight loader workers and ``compile``."""
        from mmlearn.training import TrainingOptions

        own: dict[str, Any] = {}
        if self.shrunk:
            import torch

            bf16 = torch.ops.mkldnn._is_mkldnn_bf16_supported()  # without it some processors know no LSTM in bf16
            own = {"precision": "bf16" if bf16 else "no", "workers": 1, "compile": "aot_eager", "log_every": 10}
        elif self.scale == "gpu":
            own = {"precision": "bf16", "workers": 8, "compile": True, "log_every": 10}
        return TrainingOptions(**own | others)

    @property
    def device(self) -> "torch.device":
        """Where loops that a chapter writes itself compute."""
        import torch

        return torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def autocast(self) -> "torch.autocast":
        """Within this block such loops compute in bf16 where :meth:`options` say so."""
        import torch

        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.options().precision == "bf16")

    def compiled(self, function: Callable) -> Callable:
        """What such loops compute in each step, compiled where :meth:`options` say so; a model as well.

        What is compiled of one model serves others of the same sizes.
        """
        import torch

        compile = self.options().compile
        return torch.compile(function, backend="inductor" if compile is True else compile) if compile else function

    def speed(self, pace: "Pace", system: "nn.Module", batches: "Sequence[dict[str, Tensor]]", size: int) -> None:
        """At ``gpu``, results for a training's samples a second and its share of the card's FLOP/s.

        ``pace`` was its ``on_step``, and ``batches`` are some of it, each of ``size`` samples. Nothing at other scales.
        """
        if self.scale != "gpu":
            return
        from mmlearn.training.throughput import peak_flops, step_flops

        rate, peak = pace.steps_a_second, peak_flops(self.options().precision)
        flops = rate * step_flops(system, batches)
        self.result("training: samples a second", rate * size)
        self.result("training: TFLOP/s", flops / 1e12)
        if peak:
            self.result("training: share of the card's FLOP/s", flops / peak)

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

    def hold(self, scale: str, *, at_least: Mapping[str, float], at_most: Mapping[str, float]) -> None:
        """Bounds at one scale for lines that are in the table without one, by name: controls, and parts of a claim.

        They keep a comparison fair: a control that no longer learns, or learns what it should not, fails the run.
        ``ValueError`` for a name that :meth:`result` was not told.
        """
        if scale != self.scale or self.shrunk or self.data:
            return
        lines = {item.name: position for position, item in enumerate(self.results)}
        for side, bounds in (("at_least", at_least), ("at_most", at_most)):
            for name, bound in bounds.items():
                if name not in lines:
                    raise ValueError(f"This run has no result {name!r}; {suggest(name, list(lines))}.")
                self.results[lines[name]] = replace(self.results[lines[name]], **{side: bound})

    def _bound(self, bound: float | Mapping[str, float] | None) -> float | None:
        by_scale = bound if isinstance(bound, Mapping) else {"laptop": bound, "long": bound}
        return None if self.shrunk or self.data else by_scale.get(self.scale)

    def compare(self, names: Mapping[str, str] | Sequence[str], *, label: str, title: str = "") -> "Figure":
        """Bars of results of this run, with a dot a recorded seed of every scale, and each result's chance.

        ``names`` are names of results, or what to call them and their names. ``ValueError`` for one that
        :meth:`result` was not told.
        """
        from mmlearn.visualization import bars

        names = names if isinstance(names, Mapping) else {name: name for name in names}
        told = {result.name: result for result in self.results}
        if missing := [name for name in names.values() if name not in told]:
            raise ValueError(f"This run has no result {missing[0]!r} yet; {suggest(missing[0], list(told))}.")
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
        """The table of results; raises ``AssertionError`` naming those that do not hold."""
        record = {
            "chapter": self.name,
            "scale": self.scale,
            "shrunk": self.shrunk,
            "seed": self.seed,
            "seconds": round(time.perf_counter() - self.started, 1),
            "peak_memory_mb": peak_memory(),
            **machine(),
            "results": [asdict(result) | {"holds": result.holds} for result in self.results],
            "details": self.details,
        }
        with written_whole(self.folder / "metrics.json") as unfinished:
            unfinished.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        failed = [
            f"{item.name}: {item.obtained:.3f}, expected {item.expected}" for item in self.results if not item.holds
        ]
        if failed and self.scale != "smoke" and not self.shrunk and not self.data:
            raise AssertionError("; ".join(failed))
        return Table(self.results, self.scale)


def _shrunk(value: Any, small: Any) -> Any:
    """A setting of the gpu scale, made small."""
    from mmlearn.layers.config import Config

    if isinstance(value, Config):
        return value.narrowed()
    numbers = value if isinstance(value, tuple) else (value,)
    return small if all(isinstance(x, int | float) and not isinstance(x, bool) for x in numbers) else value


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
        rows = [("result", "expected", "obtained", "chance"), *(tuple(map(plain, row)) for row in self.rows())]
        widths = [max(map(len, column)) for column in zip(*rows)]
        return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows)

    def _repr_markdown_(self) -> str:
        head = f"| result ({self.scale}) | expected | obtained | chance |\n|---|---|---|---|\n"
        cells = ([in_markdown(cell).replace("|", "\\|") for cell in row] for row in self.rows())
        return head + "\n".join(f"| {' | '.join(row)} |" for row in cells)

    def __repr__(self) -> str:
        return str(self)


def peak_memory() -> int:
    """The most memory that this process has had, in MB."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10))


def machine() -> dict[str, Any]:
    """What a record says of where it was made: the device, and versions."""
    import torch

    import mmlearn

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} threads"
    return {
        "device": device,
        "versions": {"mmlearn": mmlearn.__version__, "torch": torch.__version__, "python": platform.python_version()},
    }


def _results() -> tuple[Path, Path]:
    """Where records lie: in a wheel, and in a checkout."""
    return PACKAGE / "_shipped" / "results", PACKAGE.parent / "book" / "results"


def recorded(chapter: str) -> dict[str, dict[str, list[float]]]:
    """What was recorded of a chapter, by scale (not smoke) and by the name of the result: a number a seed."""
    number, found = chapter.partition("_")[0], {}
    for folder in _results():
        for scale in SCALES[1:]:
            if (path := folder / number / f"{scale}.json").is_file():
                rows = [row for run in json.loads(path.read_text(encoding="utf-8"))["runs"] for row in run["results"]]
                found[scale] = {row["name"]: [] for row in rows}
                for row in rows:
                    found[scale][row["name"]].append(row["obtained"])
    return found


def counted_presets() -> dict[str, dict[str, dict[str, Any]]]:
    """What the planner counted of the published presets, by system and preset, as the book's page of them shows it.

    ``parameters``; ``flops``, of a step of 64 samples, for each of them; ``bytes`` of such a step by the way of
    training. Texts have 77 tokens, or as many as the system takes at most.
    """
    path = next(path for folder in _results() if (path := folder / "presets.json").is_file())
    return json.loads(path.read_text(encoding="utf-8"))
