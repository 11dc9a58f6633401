"""The training loop, on Accelerate for device, precision and distribution."""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, get_worker_info

from mmlearn.data.batches import Batches, CollateFunction, batches_of
from mmlearn.files import written_whole
from mmlearn.progress import training_bar
from mmlearn.recipes.recipe import Turn
from mmlearn.training.checkpoint import checkpoints, clear_unfinished, load_checkpoint, save_checkpoint, save_model
from mmlearn.training.optimizers import build_optimizers, schedule
from mmlearn.training.out_of_memory import tells_what_fits
from mmlearn.training.speed import save_memory, speed_up


class _Loss(nn.Module):
    """A loss of the system as a forward pass, which is what data parallelism wraps."""

    def __init__(self, system: nn.Module, name: str):
        super().__init__()
        self.system, self.name = system, name

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return getattr(self.system, self.name)(batch)


class _Update:
    """One turn of a step: the wrapped loss, the parameters that it moves, and their optimisers."""

    def __init__(self, turn: Turn, system: nn.Module, accelerator: Accelerator, compile: bool, **optimizer: Any):
        moved, learning = set(turn.moved(system)), [item for item in system.named_parameters() if item[1].requires_grad]
        self.parameters = [value for name, value in learning if name in moved]
        self.others = [value for name, value in learning if name not in moved]
        with self:
            loss = _Loss(system, turn.loss)
            self.plain_optimizers = build_optimizers(system, **optimizer)
            self.loss = accelerator.prepare(torch.compile(loss) if compile else loss)
            self.optimizers = [accelerator.prepare(item) for item in self.plain_optimizers]

    def __enter__(self) -> None:
        """Until the end of the turn nothing else learns."""
        for parameter in self.others:
            parameter.requires_grad_(False)

    def __exit__(self, *error: Any) -> None:
        for parameter in self.others:
            parameter.requires_grad_(True)


@tells_what_fits
def fit(
    system: nn.Module,
    data: Dataset | Mapping[str | None, Dataset],
    collate: CollateFunction,
    *,
    steps: int,
    turns: Sequence[Turn] = (Turn(),),
    batch_size: int = 128,
    learning_rate: float = 1e-3,
    optimizer: str = "adamw",
    weight_decay: float = 0.1,
    warmup: int = 50,
    decay: str = "linear",
    max_norm: float = 1.0,
    accumulate: int = 1,
    precision: str = "no",
    seed: int = 0,
    workers: int = 0,
    compile: bool = False,
    recompute: bool = False,
    chunk: int | None = None,
    lengths: Sequence[int] | None = None,
    output: str | Path | None = None,
    checkpoint_every: int = 200,
    log_every: int = 1,
    resume: bool = False,
    tensorboard: bool = False,
    on_step: Callable[[int, dict[str, float]], Any] | None = None,
    progress: bool = True,
) -> list[dict[str, float]]:
    """Minimise the sum of ``system.loss(batch)`` for ``steps`` steps, and return the metrics of each.

    One step takes ``accumulate`` batches of ``batch_size`` (over all processes); the gradient is cut to ``max_norm``.
    With several ``turns``, as of a discriminator and a generator, each step takes all of them on the same batches.
    With ``lengths``, one number a sample, batches hold samples of similar length.

    Under ``output`` go ``metrics.jsonl``, ``checkpoints/`` every so many steps, and at the end ``model.safetensors``;
    with ``resume`` a run goes on from the newest checkpoint and ends with the same weights, bit for bit, as one that
    was never stopped. ``on_step(step, metrics)`` is called for every step, and its numbers are fetched from a GPU every
    ``log_every`` steps. A system may have ``after_step()``, called after each update, for momentum encoders and clamps;
    a part of it ``check_data(length)``, called once before. ``precision`` is "no", "bf16" or "fp16". In less memory and
    more time, and equally well, :func:`~mmlearn.training.speed.save_memory` trains with ``recompute`` or ``chunk``.

    Raises ``ValueError`` for settings that cannot be or do not fit, ``FloatingPointError`` for a loss not finite.
    """
    counts = steps, accumulate, checkpoint_every, log_every
    if min(counts) < 1 or warmup < 0:
        wanted = "steps, accumulate, checkpoint_every and log_every are at least 1 and warmup at least 0"
        raise ValueError(f"{wanted}, got {counts} and {warmup}.")
    rates = [learning_rate * schedule(step, steps, warmup=warmup, decay=decay) for step in range(steps)]
    accelerator = _accelerator(precision, accumulate)
    rank, world = accelerator.process_index, accelerator.num_processes
    batches = batches_of(data, collate, batch_size, seed=seed, rank=rank, world=world, lengths=lengths)
    for part in (part for part in system.modules() if hasattr(part, "check_data")):
        part.check_data(len(batches.source(0)))
    torch.manual_seed(seed + rank)
    system.to(accelerator.device).train()
    learning = dict(name=optimizer, learning_rate=learning_rate, weight_decay=weight_decay)
    updates = [_Update(turn, system, accelerator, compile, **learning) for turn in turns]
    optimizers = [item for update in updates for item in update.plain_optimizers]
    start, log = _open(output, resume, tensorboard, accelerator, system, optimizers)
    loader = _in_turn(batches, range(start * accumulate, steps * accumulate), workers, seed)
    shown = progress and accelerator.is_main_process
    bars = training_bar(total=steps, initial=start, disable=not shown, unit="step")
    with speed_up(system), save_memory(system, recompute, chunk), closing(log), bars as bar:
        history = _History(rates, precision, log, bar, on_step)
        for step in range(start, steps):
            history.waiting.append(_step(accelerator, updates, loader, accumulate, max_norm, rates[step]))
            if hasattr(system, "after_step"):
                system.after_step()
            saves = output and ((step + 1) % checkpoint_every == 0 or step + 1 == steps)
            if saves or (step + 1) % log_every == 0 or step + 1 == steps:
                history.fetch(step + 1)
            if saves:
                save_checkpoint(Path(output) / "checkpoints", step + 1, system, optimizers, **_state(accelerator))
    system.eval()
    if output and accelerator.is_main_process:
        save_model(system, Path(output) / "model.safetensors")
    return history.rows


class _Noted(Dataset):
    """Batches, and what their data has noted since the one before: each process that prepares them has its own data."""

    def __init__(self, batches: Batches):
        self.batches = batches

    def __getitem__(self, step: int) -> tuple[dict[str, Tensor], list[str]]:
        batch, data = self.batches[step], self.batches.source(step)
        return batch, data.new_notes() if get_worker_info() and hasattr(data, "new_notes") else []


def _in_turn(batches: Batches, order: range, workers: int, seed: int) -> Iterator[dict[str, Tensor]]:
    """The batches of these steps, prepared by ``workers`` other processes, whose notes of the data are gathered."""
    own = torch.Generator().manual_seed(seed)  # otherwise the loader takes numbers from the global one at each start
    loader = DataLoader(_Noted(batches), batch_size=None, sampler=order, num_workers=workers, generator=own)
    for step, (batch, notes) in zip(order, loader):
        if notes:
            batches.source(step).note(notes)
        yield batch


def _open(output, resume: bool, tensorboard: bool, accelerator, system, optimizers) -> tuple[int, "_Log"]:
    """Where to start, with everything restored, and the log of the steps from there."""
    log = _Log(Path(output) if output else None, accelerator.is_main_process, tensorboard)
    if not output:
        return 0, log
    folder = Path(output) / "checkpoints"
    if checkpoints(folder) and not resume:
        raise ValueError(f"{folder} holds a run already; resume it, or give another folder.")
    start = load_checkpoint(folder, system, optimizers, **_state(accelerator)) if resume else 0
    if accelerator.is_main_process:
        clear_unfinished(Path(output), start)
    log.start(start)
    accelerator.wait_for_everyone()
    return start, log


def _state(accelerator: Accelerator) -> dict[str, Any]:
    """What belongs to a checkpoint besides system and optimisers."""
    return dict(scaler=accelerator.scaler, rank=accelerator.process_index, world=accelerator.num_processes)


class _History:
    """The numbers of each step, which wait on their device until they are fetched, and are told then."""

    def __init__(self, rates: Sequence[float], precision: str, log: "_Log", bar: Any, on_step: Callable | None):
        self.rates, self.log, self.bar, self.on_step = rates, log, bar, on_step
        self.waiting: list[dict[str, Tensor]] = []
        self.rows: list[dict[str, float]] = []
        # In fp16 gradients overflow now and then, and Accelerate skips those steps and scales the next ones down.
        self.watched = ("loss",) if precision == "fp16" else ("loss", "gradient_norm")

    def fetch(self, last: int) -> None:
        """Of all steps up to this one. ``FloatingPointError`` where one is no longer finite."""
        for step, values in enumerate(self.waiting, last + 1 - len(self.waiting)):
            rate = self.rates[step - 1]
            metrics = {"step": step, **{name: float(value) for name, value in values.items()}, "learning_rate": rate}
            for name in self.watched:
                if not math.isfinite(metrics[name]):
                    raise FloatingPointError(
                        f"The {name.replace('_', ' ')} is {metrics[name]} at step {step}. Lower the learning rate, "
                        "or look for pictures or captions that are empty or not finite."
                    )
            self.rows.append(metrics)
            self.log.write(metrics)
            self.bar.set_postfix(loss=f"{metrics['loss']:.3f}", lr=f"{rate:.1e}", refresh=False)
            self.bar.update()
            if self.on_step:
                self.on_step(step, metrics)
        self.waiting.clear()


def _step(
    accelerator: Accelerator,
    updates: Sequence[_Update],
    loader: Iterator[dict[str, Tensor]],
    accumulate: int,
    max_norm: float,
    rate: float,
) -> dict[str, Tensor]:
    """All turns on the same batches: each is a forward and a backward pass over these, then its optimisers."""
    batches = [next(loader) for _ in range(accumulate)]
    totals: dict[str, Tensor] = {}
    norms = []
    for update in updates:
        with update:
            for batch in batches:
                batch = {name: value.to(accelerator.device, non_blocking=True) for name, value in batch.items()}
                with accelerator.accumulate(update.loss), accelerator.autocast():
                    losses = update.loss(batch)
                    accelerator.backward(sum(losses.values()))
                for name, value in losses.items():
                    totals[name] = totals.get(name, 0) + value.detach() / accumulate
            norms.append(accelerator.clip_grad_norm_(update.parameters, max_norm))
            for item in update.optimizers:
                for group in item.param_groups:
                    group["lr"] = rate
                item.step()
                item.zero_grad()
    return {"loss": sum(totals.values()), **totals, "gradient_norm": torch.stack(norms).max()}


def _accelerator(precision: str, accumulate: int) -> Accelerator:
    if precision not in ("no", "bf16", "fp16"):
        raise ValueError(f"precision is 'no', 'bf16' or 'fp16', got {precision!r}.")
    # A notebook trains many times in one process, and Accelerate would keep the first precision for all of them.
    AcceleratorState._reset_state()
    return Accelerator(
        mixed_precision=precision,
        gradient_accumulation_steps=accumulate,
        cpu=not torch.cuda.is_available(),
        # Of several processes: a batch that serves one task of several leaves the heads of the others alone.
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
    )


class _Log:
    """``metrics.jsonl`` and, if asked, TensorBoard; of a resumed run only the lines before its start are kept."""

    def __init__(self, folder: Path | None, active: bool, tensorboard: bool):
        if tensorboard and not folder:
            raise ValueError("tensorboard needs an output folder.")
        self.path = folder / "metrics.jsonl" if folder and active else None
        self.file = self.board = None
        self.writer = _summary_writer() if tensorboard and active else None

    def start(self, step: int) -> None:
        if self.path is None:
            return
        if self.writer:
            self.board = self.writer(str(self.path.parent / "tensorboard"), purge_step=step + 1)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        kept = []
        if step and self.path.exists():
            kept = [line for line in self.path.read_text().splitlines() if line.endswith("}")]  # the last may be torn
            kept = [line for line in kept if json.loads(line)["step"] <= step]
        with written_whole(self.path) as unfinished:
            unfinished.write_text("".join(line + "\n" for line in kept))
        self.file = self.path.open("a")

    def write(self, metrics: dict[str, float]) -> None:
        if self.file:
            self.file.write(json.dumps(metrics) + "\n")
            self.file.flush()
        if self.board:
            for name, value in metrics.items():
                self.board.add_scalar(name, value, metrics["step"])

    def close(self) -> None:
        for item in (self.file, self.board):
            if item:
                item.close()


def _summary_writer() -> type:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ValueError("TensorBoard is not installed: pip install 'mmlearn[scale]'.") from error
    return SummaryWriter
