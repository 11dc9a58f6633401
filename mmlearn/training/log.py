"""What a training tells of its steps: ``metrics.jsonl``, TensorBoard, the bar, ``on_step``, and the recipe's alarms."""

import json
import math
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from torch import Tensor

from mmlearn.files import is_still, open_unlinked, written_whole
from mmlearn.progress import training_bar
from mmlearn.recipes.recipe import OptimizerStep
from mmlearn.training import distributed
from mmlearn.training.options import TrainingOptions


class TrainingLog:
    """The numbers of each step, which wait on their device until they are fetched, and are told then.

    ``first`` is whether this is the first of all processes: the others only check that numbers are finite and call
    ``on_step``. Raises ``ValueError`` for TensorBoard without a folder, or where it is not installed.
    """

    def __init__(
        self,
        output: Path | None,
        options: TrainingOptions,
        *,
        optimizer_steps: Sequence[OptimizerStep] = (),
        on_step: Callable[[int, dict[str, float]], Any] | None = None,
        progress: bool = True,
        first: bool = True,
    ):
        if options.tensorboard and not output:
            raise ValueError("tensorboard needs an output folder.")
        self.folder, self.on_step = output if first else None, on_step
        self.progress, self.alarms = progress and first, Alarms(optimizer_steps if first else ())
        self.writer = _summary_writer() if options.tensorboard and first else None
        # In fp16 gradients overflow now and then, and Accelerate skips those steps and scales the next ones down.
        self.watched = ("loss",) if options.precision == "fp16" else ("loss", "gradient_norm")
        self.file: Any = None
        self.board: Any = None
        self.waiting: list[tuple[int, float, dict[str, Tensor]]] = []
        self.rows: list[dict[str, float]] = []

    def start(self, step: int, steps: int) -> Self:
        """Open everything, to be closed at the end of a ``with`` block; of a resumed run lines up to ``step`` stay."""
        if self.folder:
            self.file = open_unlinked(_kept_lines(self.folder / "metrics.jsonl", step), "a")
            self.began = os.stat(self.folder)
        if self.folder and self.writer:
            self.board = self.writer(str(self.folder / "tensorboard"), purge_step=step + 1)
        self.bars = training_bar(total=steps, initial=step, disable=not self.progress, unit="step")
        return self

    def __enter__(self) -> Self:
        self.bar = self.bars.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self.bars.__exit__(*error)
        for item in (self.file, self.board):
            if item:
                item.close()

    def lost(self) -> bool:
        """Whether the folder was removed, moved or replaced since the start; only the first process looks."""
        return self.folder is not None and not is_still(self.folder, self.began)

    def add(self, step: int, learning_rate: float, values: dict[str, Tensor]) -> None:
        """Keep the numbers of a step until :meth:`fetch`, which waits for the device."""
        self.waiting.append((step, learning_rate, values))

    def fetch(self) -> None:
        """Tell all steps that wait. ``FloatingPointError`` where one is no longer finite."""
        means = distributed.mean_over_processes([values for *_, values in self.waiting])
        for (step, rate, _), values in zip(self.waiting, means):
            metrics = {"step": step, **{name: float(value) for name, value in values.items()}, "learning_rate": rate}
            for name in self.watched:
                if not math.isfinite(metrics[name]):
                    raise FloatingPointError(
                        f"The {name.replace('_', ' ')} is {metrics[name]} at step {step}. Lower the learning rate, "
                        "or look for pictures or captions that are empty or not finite."
                    )
            self.rows.append(metrics)
            self._tell(step, metrics)
        self.waiting.clear()

    def _tell(self, step: int, metrics: dict[str, float]) -> None:
        if self.file:
            self.file.write(json.dumps(metrics) + "\n")
            self.file.flush()
        if self.board:
            for name, value in metrics.items():
                self.board.add_scalar(name, value, step)
        self.alarms(step, metrics)
        self.bar.set_postfix(loss=f"{metrics['loss']:.3f}", lr=f"{metrics['learning_rate']:.1e}", refresh=False)
        self.bar.update()
        if self.on_step:
            self.on_step(step, metrics)


class Alarms:
    """What recipes want told where a training goes wrong and every loss stays finite: each alarm at most once."""

    def __init__(self, optimizer_steps: Sequence[OptimizerStep]):
        self.held = {turn.alarm: 0 for turn in optimizer_steps if turn.alarm}  # for how many steps on end

    def __call__(self, step: int, losses: Mapping[str, float]) -> None:
        for alarm in list(self.held):
            self.held[alarm] = self.held[alarm] + 1 if alarm.holds(losses) else 0
            if self.held[alarm] == alarm.steps:
                now = ", ".join(f"{name} {losses[name]:.3g}" for name in (*alarm.below, *alarm.above))
                warnings.warn(f"step {step}: {alarm.line} ({now}, and so for {alarm.steps} steps)", stacklevel=2)
                del self.held[alarm]


def _kept_lines(path: Path, step: int) -> Path:
    """The file with only those lines of an earlier start that are of steps up to this one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = []
    if step and path.exists():
        try:
            kept = [line for line in path.read_text().splitlines() if line.endswith("}")]  # the last may be torn
            kept = [line for line in kept if json.loads(line)["step"] <= step]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            reason = str(error) or type(error).__name__
            raise ValueError(
                f"{path} is damaged ({reason:.80}): mend it, or move it away to begin a new one."
            ) from error
    with written_whole(path) as unfinished:
        unfinished.write_text("".join(line + "\n" for line in kept))
    return path


def _summary_writer() -> type:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ValueError("TensorBoard is not installed; in the clone of mmlearn: pip install -e '.[scale]'.") from error
    return SummaryWriter
