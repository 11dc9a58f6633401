"""The training loop, on Accelerate for device, precision and distribution."""

import json
import math
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, get_worker_info
from tqdm.auto import tqdm

from mmlearn.data.batches import Batches, Collate
from mmlearn.files import written_whole
from mmlearn.models.align.pair_queue import PairQueue
from mmlearn.training.checkpoint import checkpoints, clear_unfinished, load_checkpoint, save_checkpoint, save_model
from mmlearn.training.optimizers import build_optimizers, schedule
from mmlearn.training.speed import speed_up


class _Loss(nn.Module):
    """``system.loss`` as a forward pass, which is what data parallelism wraps."""

    def __init__(self, system: nn.Module):
        super().__init__()
        self.system = system

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return self.system.loss(batch)


def fit(
    system: nn.Module,
    data: Dataset,
    collate: Collate,
    *,
    steps: int,
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
    output: str | Path | None = None,
    checkpoint_every: int = 200,
    resume: bool = False,
    tensorboard: bool = False,
    on_step: Callable[[int, dict[str, float]], Any] | None = None,
    progress: bool = True,
) -> list[dict[str, float]]:
    """Minimise the sum of ``system.loss(batch)`` for ``steps`` steps, and return the metrics of each.

    One step takes ``accumulate`` batches of ``batch_size`` (over all processes); the gradient is cut to ``max_norm``.
    Under ``output`` go ``metrics.jsonl``, ``checkpoints/`` every so many steps, and at the end ``model.safetensors``;
    with ``resume`` a run goes on from the newest checkpoint and ends with the same weights, bit for bit, as one that
    was never stopped. ``on_step(step, metrics)`` is called after every step. A system may have ``after_step()``, called
    after each update: momentum encoders and clamps live there. ``precision`` is "no", "bf16" or "fp16".

    Raises ``ValueError`` for settings that cannot be and for a queue larger than the data, and ``FloatingPointError``
    where the loss is no longer finite.
    """
    if min(steps, accumulate, checkpoint_every) < 1 or warmup < 0:
        got = f"{steps}, {accumulate}, {checkpoint_every} and {warmup}"
        raise ValueError(f"steps, accumulate and checkpoint_every are at least 1 and warmup at least 0, got {got}.")
    rates = [learning_rate * schedule(step, steps, warmup=warmup, decay=decay) for step in range(steps)]
    accelerator = _accelerator(precision, accumulate)
    rank, world = accelerator.process_index, accelerator.num_processes
    batches = Batches(data, collate, batch_size, seed=seed, rank=rank, world=world)
    for queue in (part for part in system.children() if isinstance(part, PairQueue)):
        queue.check_data(len(data))
    torch.manual_seed(seed + rank)
    system.to(accelerator.device).train()
    optimizers = build_optimizers(system, optimizer, learning_rate=learning_rate, weight_decay=weight_decay)
    start, log = _open(output, resume, tensorboard, accelerator, system, optimizers)

    model = accelerator.prepare(torch.compile(_Loss(system)) if compile else _Loss(system))
    optimizers = [accelerator.prepare(item) for item in optimizers]
    parameters = list(model.parameters())
    order = range(start * accumulate, steps * accumulate)
    loader = _in_turn(batches, order, workers, seed)
    history = []
    hidden = not (progress and accelerator.is_main_process)
    with speed_up(system), closing(log), tqdm(total=steps, initial=start, disable=hidden, unit="step") as bar:
        for step in range(start, steps):
            for group in (group for item in optimizers for group in item.param_groups):
                group["lr"] = rates[step]
            metrics = _step(accelerator, model, parameters, optimizers, loader, accumulate, max_norm)
            if hasattr(system, "after_step"):
                system.after_step()
            metrics = {"step": step + 1, **metrics, "learning_rate": rates[step]}
            _check_finite(metrics, precision)
            history.append(metrics)
            log.write(metrics)
            bar.set_postfix(loss=f"{metrics['loss']:.3f}", lr=f"{rates[step]:.1e}", refresh=False)
            bar.update()
            if on_step:
                on_step(step + 1, metrics)
            if output and ((step + 1) % checkpoint_every == 0 or step + 1 == steps):
                save_checkpoint(Path(output) / "checkpoints", step + 1, system, optimizers, **_state(accelerator))
    system.eval()
    if output and accelerator.is_main_process:
        save_model(system, Path(output) / "model.safetensors")
    return history


class _Noted(Dataset):
    """Batches, and what their data has noted since the one before: each process that prepares them has its own data."""

    def __init__(self, batches: Batches):
        self.batches = batches

    def __getitem__(self, step: int) -> tuple[dict[str, Tensor], list[str]]:
        batch, data = self.batches[step], self.batches.data
        return batch, data.new_notes() if get_worker_info() and hasattr(data, "new_notes") else []


def _in_turn(batches: Batches, order: range, workers: int, seed: int) -> Iterator[dict[str, Tensor]]:
    """The batches of these steps, prepared by ``workers`` other processes, whose notes of the data are gathered."""
    own = torch.Generator().manual_seed(seed)  # otherwise the loader takes numbers from the global one at each start
    for batch, notes in DataLoader(_Noted(batches), batch_size=None, sampler=order, num_workers=workers, generator=own):
        if notes:
            batches.data.note(notes)
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


def _check_finite(metrics: dict[str, float], precision: str) -> None:
    # In fp16 gradients overflow now and then, and Accelerate skips those steps and scales the next ones down.
    watched = ("loss",) if precision == "fp16" else ("loss", "gradient_norm")
    for name in watched:
        if not math.isfinite(metrics[name]):
            raise FloatingPointError(
                f"The {name.replace('_', ' ')} is {metrics[name]} at step {metrics['step']}. Lower the learning rate, "
                "or look for pictures or captions that are empty or not finite."
            )


def _step(accelerator, model, parameters, optimizers, loader, accumulate: int, max_norm: float) -> dict[str, float]:
    """One update: forward and backward over ``accumulate`` batches, then every optimiser."""
    totals: dict[str, Tensor] = {}
    for _ in range(accumulate):
        batch = {name: value.to(accelerator.device, non_blocking=True) for name, value in next(loader).items()}
        with accelerator.accumulate(model), accelerator.autocast():
            losses = model(batch)
            accelerator.backward(sum(losses.values()))
        for name, value in losses.items():
            totals[name] = totals.get(name, 0) + value.detach() / accumulate
    norm = accelerator.clip_grad_norm_(parameters, max_norm)
    for item in optimizers:
        item.step()
        item.zero_grad()
    totals = {"loss": sum(totals.values()), **totals}
    return {name: float(value) for name, value in totals.items()} | {"gradient_norm": float(norm)}


def _accelerator(precision: str, accumulate: int) -> Accelerator:
    if precision not in ("no", "bf16", "fp16"):
        raise ValueError(f"precision is 'no', 'bf16' or 'fp16', got {precision!r}.")
    # A notebook trains many times in one process, and Accelerate would keep the first precision for all of them.
    AcceleratorState._reset_state()
    return Accelerator(
        mixed_precision=precision, gradient_accumulation_steps=accumulate, cpu=not torch.cuda.is_available()
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
