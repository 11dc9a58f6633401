"""The training loop, on Accelerate for device, precision and distribution."""

import json
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, get_worker_info

from mmlearn.data.batches import Batches, CollateFunction, Samples, batches_of
from mmlearn.files import written_whole
from mmlearn.progress import training_bar
from mmlearn.recipes.recipe import Turn
from mmlearn.training import distributed
from mmlearn.training.alarms import Alarms
from mmlearn.training.checkpoint import (
    checkpoints,
    clear_unfinished,
    load_checkpoint,
    save_checkpoint,
    save_model,
    whole_state,
)
from mmlearn.training.ema import MovingAverage
from mmlearn.training.memory import save_memory
from mmlearn.training.optimizers import build_optimizers, schedule
from mmlearn.training.out_of_memory import tells_what_fits
from mmlearn.training.stopping import Stopped, asked_to_stop, leave_stopping_to_others, told_of_lost_workers

NAMED = 10  # files that cannot be read are named while they are met; more are only counted


class Loss(nn.Module):
    """A loss of the system as a forward pass, which is what data parallelism wraps."""

    def __init__(self, system: nn.Module, name: str = "loss"):
        super().__init__()
        self.system, self.name = system, name

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Its named losses of a batch."""
        return getattr(self.system, self.name)(batch)


class _Update:
    """One turn of a step: the wrapped loss, the parameters that it moves, and their optimisers."""

    def __init__(
        self,
        turn: Turn,
        system: nn.Module,
        accelerator: Accelerator,
        compile: bool | str,
        shard: bool,
        **optimizer: Any,
    ):
        moved, learning = set(turn.moved(system)), [item for item in system.named_parameters() if item[1].requires_grad]
        self.parameters = [value for name, value in learning if name in moved]
        self.others = [value for name, value in learning if name not in moved]
        with self:
            loss = Loss(system, turn.loss)
            self.plain_optimizers = build_optimizers(system, betas=turn.betas, **optimizer)
            if compile:
                # The loss of all systems is one function, and PyTorch gives up a function after eight compilations.
                torch._dynamo.config.recompile_limit = max(64, torch._dynamo.config.recompile_limit)
                loss = torch.compile(loss, backend="inductor" if compile is True else compile)
            self.loss = distributed.of_parts(loss, self.plain_optimizers) if shard else accelerator.prepare(loss)
            self.optimizers = [accelerator.prepare(item) for item in self.plain_optimizers]

    def __enter__(self) -> None:
        """Until the end of the turn nothing else learns."""
        for parameter in self.others:
            parameter.requires_grad_(False)

    def __exit__(self, *error: Any) -> None:
        for parameter in self.others:
            parameter.requires_grad_(True)


@distributed.noticed_loss()
@tells_what_fits
def fit(
    system: nn.Module,
    data: Samples | Mapping[str | None, Samples],
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
    precision: str = "no",  # or bf16, or fp16
    seed: int = 0,
    workers: int = 0,
    compile: bool | str = False,  # or a backend of torch.compile
    recompute: bool = False,
    chunk: int | None = None,
    ema: float | None = None,
    shard: bool = False,
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

    One step takes ``accumulate`` batches of ``batch_size`` (over all processes), and all ``turns`` on the same batches;
    the gradient is cut to ``max_norm``. With ``lengths``, one number a sample, batches hold samples of similar length.

    Under ``output`` go ``metrics.jsonl``, ``checkpoints/`` and at the end ``model.safetensors``; with ``resume`` a run
    goes on from the newest checkpoint and ends bit for bit as one never stopped; Ctrl-C ends it after a checkpoint
    (:mod:`mmlearn.training.stopping`). ``on_step(step, metrics)`` is called for every step, on a GPU in groups of
    ``log_every``. A system may have ``after_step()``, called after each update, and its parts ``check_data(length)``,
    called before. In less memory and more time ``recompute`` or ``chunk`` train equally well
    (:mod:`mmlearn.training.memory`), and processes that ``shard``. ``ema`` adds ``model-ema.safetensors``. Raises
    ``ValueError`` for settings that cannot be, ``FloatingPointError`` for a loss that is not finite.
    """
    given, accelerator = locals(), distributed.new_accelerator(precision, accumulate)
    _check_counts(warmup, steps=steps, accumulate=accumulate, checkpoint_every=checkpoint_every, log_every=log_every)
    distributed.check_alike(system, given)
    rates = [learning_rate * schedule(step, steps, warmup=warmup, decay=decay) for step in range(steps)]
    process = dict(rank=accelerator.process_index, world=accelerator.num_processes)
    batches = _checked(system, batches_of(data, collate, batch_size, seed=seed, lengths=lengths, **process))
    torch.manual_seed(seed + process["rank"])
    system.to(accelerator.device).train()
    trained = distributed.sharded(system, turns, precision) if shard else system
    learning = dict(name=optimizer, learning_rate=learning_rate, weight_decay=weight_decay)
    updates = [_Update(turn, trained, accelerator, compile, shard, **learning) for turn in turns]
    state = dict(system=trained, optimizers=[item for update in updates for item in update.plain_optimizers])
    state |= dict(ema=None if ema is None else MovingAverage(trained, ema), scaler=accelerator.scaler, **process)
    start, log = _open(output, resume, tensorboard, accelerator, state)
    loader = _in_turn(batches, range(start * accumulate, steps * accumulate), workers, seed)
    bars = training_bar(total=steps, initial=start, disable=not progress or process["rank"] > 0, unit="step")
    with save_memory(trained, recompute, chunk), closing(log), bars as bar, asked_to_stop() as asked:
        history = _History(rates, precision, log, bar, on_step, Alarms(turns if process["rank"] == 0 else ()))
        for done in range(start + 1, steps + 1):
            history.waiting.append(_step(accelerator, updates, loader, accumulate, max_norm, rates[done - 1]))
            _after_step(state, done)
            tells = done % log_every == 0 or done == steps
            stopped = distributed.largest(asked(), accelerator.device) if tells and done < steps else 0
            saves = output and (done % checkpoint_every == 0 or done == steps or stopped)
            if saves or tells:
                history.fetch(done)
            if saves:
                _gather_bad(data)
                save_checkpoint(Path(output) / "checkpoints", done, **state)
            if stopped:
                raise Stopped(stopped, done)
    _finish(system, state, Path(output) if output else None)
    return history.rows


def _checked(system: nn.Module, batches: Batches) -> Batches:
    """The batches, once those parts of the system that can have looked at their data."""
    for part in system.modules():
        if hasattr(part, "check_data"):
            part.check_data(len(batches.source(0)))
    return batches


def _check_counts(warmup: int, **counts: int) -> None:
    if min(counts.values()) < 1 or warmup < 0:
        *some, last = counts
        wanted = f"{', '.join(some)} and {last} are at least 1 and warmup at least 0"
        raise ValueError(f"{wanted}, got {tuple(counts.values())} and {warmup}.")


def _after_step(state: dict[str, Any], step: int) -> None:
    """What follows the optimisers: momentum encoders, clamps, the average of weights."""
    if hasattr(state["system"], "after_step"):
        state["system"].after_step()
    if state["ema"]:
        state["ema"].update(step)


def _finish(system: nn.Module, state: dict[str, Any], output: Path | None) -> None:
    """Hand the weights back, and write them; in ``model-ema.safetensors`` with averages of those that were trained."""
    if state["system"] is not system:
        system.load_state_dict(whole_state(state["system"]))
    system.eval()
    averages = state["ema"].whole(state["rank"] == 0) if state["ema"] else {}
    if output and state["rank"] == 0:
        save_model(system, output / "model.safetensors")
        if averages:
            save_model(system, output / "model-ema.safetensors", averages)


class _Noted(Dataset):
    """Batches, and what their data has noted since the one before: each process that prepares them has its own data."""

    def __init__(self, batches: Batches):
        self.batches = batches

    def __getitem__(self, step: int) -> tuple[dict[str, Tensor], list[str], list[str]]:
        batch, data = self.batches[step], self.batches.source(step)
        told = [getattr(data, name, list)() if get_worker_info() else [] for name in ("new_notes", "new_bad")]
        return batch, *told


def _in_turn(batches: Batches, order: range, workers: int, seed: int) -> Iterator[dict[str, Tensor]]:
    """The batches of these steps, prepared by ``workers`` other processes, whose notes of the data are gathered."""
    own = torch.Generator().manual_seed(seed)  # otherwise the loader takes numbers from the global one at each start
    ahead = dict(num_workers=workers, prefetch_factor=4 if workers else None, pin_memory=torch.cuda.is_available())
    ahead |= dict(worker_init_fn=leave_stopping_to_others)
    loader = DataLoader(_Noted(batches), batch_size=None, sampler=order, generator=own, **ahead)
    with told_of_lost_workers(workers):
        for step, (batch, notes, bad) in zip(order, loader):
            data = batches.source(step)
            if notes:
                data.note(notes)
            if bad:
                data.note_bad(bad)
            if batches.rank == 0:
                _tell_bad(data)
            yield batch


def _tell_bad(data: Samples) -> None:
    """Name what was left out since this was called last; of very much only the first, for there is a total."""
    new = data.new_bad() if hasattr(data, "new_bad") else []
    told = len(data.bad) - len(new) if new else 0
    for line in new[: max(0, NAMED - told)]:
        warnings.warn(f"left out: {line}", stacklevel=2)


def _gather_bad(data: Samples | Mapping[str | None, Samples]) -> None:
    """Every process knows what any of them has left out."""
    for part in data.values() if isinstance(data, Mapping) else [data]:
        if distributed.several() and hasattr(part, "bad"):
            part.note_bad(line for lines in distributed.gathered(part.bad) for line in lines)


def _open(output, resume: bool, tensorboard: bool, accelerator, state: dict[str, Any]) -> tuple[int, "_Log"]:
    """Where to start, with everything restored, and the log of the steps from there."""
    log = _Log(Path(output) if output else None, accelerator.is_main_process, tensorboard)
    if not output:
        return 0, log
    folder = Path(output) / "checkpoints"
    if checkpoints(folder) and not resume:
        raise ValueError(f"{folder} holds a run already; resume it, or give another folder.")
    start = load_checkpoint(folder, **state) if resume else 0
    if accelerator.is_main_process:
        clear_unfinished(Path(output), start)
    log.start(start)
    accelerator.wait_for_everyone()
    return start, log


class _History:
    """The numbers of each step, which wait on their device until they are fetched, and are told then."""

    def __init__(
        self, rates: Sequence[float], precision: str, log: "_Log", bar: Any, on_step: Callable | None, alarms: Alarms
    ):
        self.rates, self.log, self.bar, self.on_step, self.alarms = rates, log, bar, on_step, alarms
        self.waiting: list[dict[str, Tensor]] = []
        self.rows: list[dict[str, float]] = []
        # In fp16 gradients overflow now and then, and Accelerate skips those steps and scales the next ones down.
        self.watched = ("loss",) if precision == "fp16" else ("loss", "gradient_norm")

    def fetch(self, last: int) -> None:
        """Of all steps up to this one. ``FloatingPointError`` where one is no longer finite."""
        rows = distributed.mean_over_processes(self.waiting)
        for step, values in enumerate(rows, last + 1 - len(rows)):
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
            self.alarms(step, metrics)
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
            norms.append(distributed.clip_gradients(accelerator, update.parameters, max_norm))
            for item in update.optimizers:
                for group in item.param_groups:
                    group["lr"] = rate
                item.step()
                item.zero_grad()
    return {"loss": sum(totals.values()), **totals, "gradient_norm": torch.stack(norms).max()}


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
