"""The training loop, on Accelerate for device, precision and distribution."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from mmlearn.data.batches import Batches, Collate
from mmlearn.training.checkpoint import clear_unfinished, load_checkpoint, save_checkpoint, save_model
from mmlearn.training.optimizers import build_optimizers, schedule


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

    Raises ``ValueError`` for settings that cannot be, and ``FloatingPointError`` where the loss is no longer finite.
    """
    if steps < 1 or accumulate < 1 or checkpoint_every < 1:
        raise ValueError(
            f"steps, accumulate and checkpoint_every are at least 1, got {steps, accumulate, checkpoint_every}."
        )
    accelerator = _accelerator(precision, accumulate)
    rank, world = accelerator.process_index, accelerator.num_processes
    torch.manual_seed(seed + rank)
    system.to(accelerator.device).train()
    optimizers = build_optimizers(system, optimizer, learning_rate=learning_rate, weight_decay=weight_decay)

    log = _Log(Path(output) if output else None, accelerator.is_main_process, tensorboard)
    start = 0
    if output:
        folder = Path(output) / "checkpoints"
        if accelerator.is_main_process:
            clear_unfinished(folder)
        start = load_checkpoint(folder, system, optimizers, rank=rank, world=world) if resume else 0
        log.start(start)

    model = accelerator.prepare(_Loss(torch.compile(system) if compile else system))
    optimizers = [accelerator.prepare(item) for item in optimizers]
    batches = Batches(data, collate, batch_size, seed=seed, rank=rank, world=world)
    order = range(start * accumulate, steps * accumulate)
    loader = iter(DataLoader(batches, batch_size=None, sampler=order, num_workers=workers))
    bar = tqdm(total=steps, initial=start, disable=not (progress and accelerator.is_main_process), unit="step")
    history = []
    for step in range(start, steps):
        rate = learning_rate * schedule(step, steps, warmup=warmup, decay=decay)
        for item in optimizers:
            for group in item.param_groups:
                group["lr"] = rate
        metrics = _step(accelerator, model, optimizers, loader, accumulate, max_norm)
        if hasattr(system, "after_step"):
            system.after_step()
        metrics = {"step": step + 1, **metrics, "learning_rate": rate}
        if not metrics["loss"] < float("inf"):
            raise FloatingPointError(
                f"The loss is {metrics['loss']} at step {step + 1}. Lower the learning rate, or look for pictures or "
                "captions that are empty or not finite."
            )
        history.append(metrics)
        log.write(metrics)
        bar.set_postfix(loss=f"{metrics['loss']:.3f}", lr=f"{rate:.1e}", refresh=False)
        bar.update()
        if on_step:
            on_step(step + 1, metrics)
        if output and ((step + 1) % checkpoint_every == 0 or step + 1 == steps):
            save_checkpoint(Path(output) / "checkpoints", step + 1, system, optimizers, rank=rank, world=world)
    bar.close()
    log.close()
    system.eval()
    if output and accelerator.is_main_process:
        save_model(system, Path(output) / "model.safetensors")
    return history


def _step(accelerator, model, optimizers, loader, accumulate: int, max_norm: float) -> dict[str, float]:
    """One update: forward and backward over ``accumulate`` batches, then every optimiser."""
    totals: dict[str, Tensor] = {}
    for _ in range(accumulate):
        batch = {name: value.to(accelerator.device, non_blocking=True) for name, value in next(loader).items()}
        with accelerator.accumulate(model), accelerator.autocast():
            losses = model(batch)
            accelerator.backward(sum(losses.values()))
        for name, value in losses.items():
            totals[name] = totals.get(name, 0) + value.detach() / accumulate
    norm = accelerator.clip_grad_norm_(model.parameters(), max_norm)
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
        self.path = folder / "metrics.jsonl" if folder and active else None
        self.file = self.board = None
        if tensorboard and not folder:
            raise ValueError("tensorboard needs an output folder.")
        if tensorboard and active:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError as error:
                raise ValueError("TensorBoard is not installed: pip install 'mmlearn[scale]'.") from error
            self.board = SummaryWriter(str(folder / "tensorboard"))

    def start(self, step: int) -> None:
        if self.path is None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        kept = []
        if step and self.path.exists():
            kept = [line for line in self.path.read_text().splitlines() if line.endswith("}")]  # the last may be torn
            kept = [line for line in kept if json.loads(line)["step"] <= step]
        temporary = self.path.with_name(".writing-metrics.jsonl")
        temporary.write_text("".join(line + "\n" for line in kept))
        os.replace(temporary, self.path)
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
