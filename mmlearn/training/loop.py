"""The training loop: batches, loss, backward pass, clipping, step, log, save.

What surrounds it is elsewhere: device, precision and processes (Accelerate, and :mod:`mmlearn.training.distributed`),
turns (:mod:`~mmlearn.training.updates`), loaders, checkpoints, the log, signals, and advice where memory runs out.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from mmlearn.data.batches import CollateFunction, Samples, batches_of
from mmlearn.recipes.recipe import OptimizerStep
from mmlearn.training import distributed
from mmlearn.training.checkpoint import resume_or_begin, save_checkpoint, save_trained
from mmlearn.training.ema import MovingAverage
from mmlearn.training.loader import check_data, gather_bad, load_batches, recall_bad
from mmlearn.training.log import TrainingLog
from mmlearn.training.memory import save_memory
from mmlearn.training.optimizers import schedule
from mmlearn.training.options import TrainingOptions, at_least
from mmlearn.training.out_of_memory import tells_what_fits
from mmlearn.training.stopping import Stopped, asked_to_stop, told_of_lost_workers
from mmlearn.training.updates import Update, shares


@distributed.noticed_loss()
@tells_what_fits
def fit(
    system: nn.Module,
    data: Samples | Mapping[str | None, Samples],
    collate: CollateFunction,
    *,
    steps: int,
    optimizer_steps: Sequence[OptimizerStep] = (OptimizerStep(),),
    batch_size: int = 128,
    learning_rate: float = 1e-3,
    optimizer: str = "adamw",
    weight_decay: float = 0.1,
    warmup: int = 50,
    seed: int = 0,
    output: str | Path | None = None,
    on_step: Callable[[int, dict[str, float]], Any] | None = None,
    progress: bool = True,
    options: TrainingOptions = TrainingOptions(),
) -> list[dict[str, float]]:
    """Minimise the sum of ``system.loss(batch)`` for ``steps`` steps, and return the metrics of each.

    One step takes all ``optimizer_steps`` on the same batch of ``batch_size`` samples (over all processes).
    ``on_step(step, metrics)`` is called for every step. Under ``output`` go ``metrics.jsonl``, ``checkpoints/`` and at
    the end ``model.safetensors``; Ctrl-C ends a run after a checkpoint (:mod:`mmlearn.training.stopping`). A system may
    have ``after_step()``, called after each update, and its parts ``check_data(length)``, called before the first; and
    ``predicted(batch)``, True for each word that its loss is a mean over (:func:`~mmlearn.training.updates.shares`).
    Raises ``ValueError`` for settings that cannot be, ``FloatingPointError`` for a loss that is not finite.
    """
    at_least(1, steps=steps)  # what cannot be is refused before anything is written
    at_least(0, warmup=warmup)
    accelerator = distributed.new_accelerator(options.precision, options.accumulate)
    distributed.check_alike(system, locals() | vars(options))
    process = dict(rank=accelerator.process_index, world=accelerator.num_processes)
    first, folder = accelerator.is_main_process, Path(output) if output else None
    rates = [learning_rate * schedule(step, steps, warmup=warmup, decay=options.decay) for step in range(steps)]
    batches = batches_of(data, collate, batch_size, seed=seed, lengths=options.lengths, **process)
    check_data(system, batches)
    torch.manual_seed(seed + process["rank"])
    system.to(accelerator.device).train()
    model = distributed.sharded(system, optimizer_steps, options.precision) if options.shard else system
    learning = dict(name=optimizer, learning_rate=learning_rate, weight_decay=weight_decay)
    updates = [Update(turn, model, accelerator, options, **learning) for turn in optimizer_steps]
    average = None if options.ema is None else MovingAverage(model, options.ema)
    state: dict[str, Any] = dict(system=model, ema=average, scaler=accelerator.scaler, **process)
    state["optimizers"] = [item for update in updates for item in update.plain_optimizers]

    log = TrainingLog(folder, options, optimizer_steps=optimizer_steps, on_step=on_step, progress=progress, first=first)
    start = resume_or_begin(folder, options.resume, **state) if folder else 0
    if folder and start:
        recall_bad(data, folder)
    order = range(start * options.accumulate, steps * options.accumulate)
    loader = load_batches(batches, order, options.workers, seed)
    less_memory = save_memory(model, options.recompute, options.chunk)
    known = told_of_lost_workers(options.workers)  # here, because PyTorch raises wherever this process stands
    with less_memory, log.start(start, steps), known, asked_to_stop() as asked:
        for step in range(start + 1, steps + 1):
            metrics = train_step(accelerator, updates, loader, options, rates[step - 1])
            log.add(step, rates[step - 1], metrics)
            if hasattr(model, "after_step"):
                model.after_step()  # momentum encoders, clamps
            if average:
                average.update(step)
            fetches = step % options.log_every == 0 or step == steps  # waits for the device, so not in every step
            stopped = distributed.largest(asked(), accelerator.device) if fetches and step < steps else 0
            saves = folder is not None and (step % options.checkpoint_every == 0 or step == steps or stopped)
            if fetches or saves:
                log.fetch()  # before a checkpoint, so that none is kept of numbers that are not finite
            if folder and saves:
                lost = bool(distributed.largest(int(log.lost()), accelerator.device))
                save_checkpoint(folder / "checkpoints", step, lost=lost, **state)
                gather_bad(data, folder if first else None)
            if stopped:
                raise Stopped(stopped, step)
    save_trained(system, folder, model, average, first)
    return log.rows


def train_step(
    accelerator: Accelerator,
    updates: Sequence[Update],
    loader: Iterator[dict[str, Tensor]],
    options: TrainingOptions,
    learning_rate: float,
) -> dict[str, Tensor]:
    """All turns on the same batches: each is a forward and a backward pass over these, then its optimisers."""
    batches = [next(loader) for _ in range(options.accumulate)]
    losses: dict[str, Tensor] = {}  # means over these batches
    norms = []
    for update in updates:
        with update:  # what this turn does not train has no gradient meanwhile
            for batch, share in zip(batches, shares(update.predicted, batches, accelerator.device)):
                batch = {name: value.to(accelerator.device, non_blocking=True) for name, value in batch.items()}
                with accelerator.accumulate(update.loss), accelerator.autocast():
                    parts = {name: share(mean) for name, mean in update.loss(batch).items()}  # each a scalar
                    accelerator.backward(sum(parts.values()))
                for name, value in parts.items():
                    losses[name] = losses.get(name, 0) + value.detach() / options.accumulate
            norms.append(distributed.clip_gradients(accelerator, update.parameters, options.max_norm))
            update.step(learning_rate)
    total: Any = sum(losses.values())
    return {"loss": total, **losses, "gradient_norm": torch.stack(norms).max()}
