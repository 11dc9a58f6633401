"""Several processes: what each of them holds, what they tell one another, and what happens when one is lost.

Data parallelism is Accelerate's. Sharding is PyTorch's fully sharded data parallelism (FSDP2) itself, because
Accelerate's cuts one model whose forward pass is called, on GPUs alone; here a loss is called, and temperatures have no
axis to be cut along.
"""

import copy
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, TypeGuard

import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim import Optimizer

from mmlearn.layers import TransformerBlock
from mmlearn.objectives.all_gather import is_distributed
from mmlearn.recipes.recipe import OptimizerStep
from mmlearn.training.optimizers import Muon

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor

PATIENCE = timedelta(minutes=10)  # with a process that is there and does not answer


def first_process() -> bool:
    """Whether this is the only process, or the first of several. What an earlier launch left behind does not count."""
    return int(os.environ.get("WORLD_SIZE") or 1) == 1 or int(os.environ.get("RANK") or 0) == 0


def new_accelerator(precision: str, accumulate: int) -> Accelerator:
    """Accelerate's, on a GPU if there is one. ``ValueError`` for a precision that there is not, or not here."""
    check_precision(precision)
    # A notebook trains many times in one process, and Accelerate would keep the first precision for all of them; it has
    # no public way to forget it.
    AcceleratorState._reset_state()
    with _told_nothing_else():
        return Accelerator(
            mixed_precision=precision,
            gradient_accumulation_steps=accumulate,
            cpu=not torch.cuda.is_available(),
            kwargs_handlers=[
                # Of several processes: a batch that serves one task of several leaves the heads of the others alone.
                DistributedDataParallelKwargs(find_unused_parameters=True),
                InitProcessGroupKwargs(timeout=PATIENCE),
            ],
        )


@contextmanager
def _told_nothing_else() -> Iterator[None]:
    """Accelerate sees no settings in the environment that a run does not record, and no rank where it is alone."""
    hidden = {name for name in os.environ if name.startswith("ACCELERATE_")}
    if int(os.environ.get("WORLD_SIZE") or 1) == 1:
        hidden |= {"RANK", "LOCAL_RANK"} & set(os.environ)
    kept = {name: os.environ.pop(name) for name in hidden}
    try:
        yield
    finally:
        os.environ.update(kept)


def check_precision(precision: str) -> None:
    """``ValueError`` for a precision that there is not, or that this device cannot multiply in."""
    if precision not in ("no", "bf16", "fp16"):
        raise ValueError(f"precision is 'no', 'bf16' or 'fp16', got {precision!r}.")
    if precision == "fp16" and not torch.cuda.is_available():
        raise ValueError("precision 'fp16' needs a GPU, and there is none; take 'bf16' or 'no'.")
    if precision == "bf16" and torch.cuda.is_available() and not torch.cuda.is_bf16_supported(False):
        raise ValueError(f"{torch.cuda.get_device_name()} has no 'bf16'; take 'fp16' or 'no'.")


def check_alike(system: nn.Module, given: Mapping[str, Any]) -> None:
    """``ValueError``, in every process, where one of them was given other settings, another model or other data.

    Of the settings numbers and words are compared, and not what a process has for itself.
    """
    if not is_distributed():
        return
    shapes = ", ".join(f"{name} {tuple(value.shape)}" for name, value in system.state_dict().items())
    own: dict[str, Any] = {"model": type(system).__name__}
    own |= {name: value for name, value in given.items() if isinstance(value, int | float | str | None)}
    own |= dict(_settings(getattr(system, "config", None), "config."))
    own |= {"shapes of weights with the checksum": hashlib.sha256(shapes.encode()).hexdigest()[:8], "progress": None}
    data = given["data"]
    own["samples"] = [len(part) for part in (data.values() if isinstance(data, Mapping) else [data])]
    everyone = gathered(own)
    for rank, others in enumerate(everyone):
        for name, value in everyone[0].items():
            if repr(others.get(name)) != repr(value):
                found = f"Process {rank} has {name} {others.get(name)}, and process 0 has {value}"
                raise ValueError(f"{found}; start all of them with the same settings, data and version.")


def _settings(config: Any, within: str) -> Iterator[tuple[str, Any]]:
    """Each setting of a configuration and of those inside it, such as ``text.num_heads``; none of what is no such."""
    for item in fields(config) if is_dataclass(config) else ():
        name, value = within + item.name, getattr(config, item.name)
        yield from _settings(value, f"{name}.") if is_dataclass(value) else [(name, value)]


def mean_over_processes(rows: Sequence[Mapping[str, Tensor]]) -> list[dict[str, Tensor]]:
    """The numbers of some steps, each the mean over all processes: of its own rows each has a loss of its own."""
    if not rows or not is_distributed():
        return [dict(row) for row in rows]
    values = torch.stack([value.double() for row in rows for value in row.values()])
    dist.all_reduce(values)
    means = iter(values / dist.get_world_size())
    return [{name: next(means) for name in row} for row in rows]


def largest(number: int, device: torch.device) -> int:
    """The largest of the numbers that processes have; each of them calls this."""
    if not is_distributed():
        return number
    found = torch.tensor(number, device=device)
    dist.all_reduce(found, dist.ReduceOp.MAX)
    return int(found)


def gathered(value: Any) -> list[Any]:
    """What all processes have, in order of rank; each of them calls this."""
    found: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(found, value)
    return found


@contextmanager
def noticed_loss() -> Iterator[None]:
    """Within this block, or this function, a ``ConnectionError`` says in one line that another process has gone."""
    try:
        yield
    except RuntimeError as error:
        lost = isinstance(error, dist.DistError) or "gloo" in str(error) or "Connection" in str(error)
        if not is_distributed() or not lost:
            raise
        who = f"Process {dist.get_rank()} of {dist.get_world_size()}"
        raise ConnectionError(
            f"{who} lost another one, which was killed or failed; see what that one said, and go on with resume."
        ) from error


# Sharding.


def sharded(system: nn.Module, optimizer_steps: Sequence[OptimizerStep], precision: str) -> nn.Module:
    """A copy of which each process holds its part of every parameter, and of one transformer block everything.

    Parameters without an axis stay whole in each process. Weights and buffers are those of process 0. Raises
    ``ValueError`` for one process, for several turns, and for fp16, whose scale all parts would have to agree on.
    Source: Rajbhandari et al. 2020 (ZeRO), stage 3; PyTorch's FSDP2.
    """
    if not is_distributed():
        raise ValueError("Sharding needs several processes: start with torchrun --nproc-per-node N, or leave it out.")
    if len(optimizer_steps) > 1:
        raise ValueError(
            f"Sharding trains one loss, and this stage takes {len(optimizer_steps)} turns a step; leave it out."
        )
    if precision == "fp16":
        raise ValueError("Sharding does not scale gradients of 'fp16'; take 'bf16' or 'no', or leave it out.")
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    device = next(system.parameters()).device
    system = copy.deepcopy(system.cpu()).to(device)  # there it is whole once, until it is cut
    share_buffers(system)
    for parameter in system.parameters():
        dist.broadcast(parameter.detach(), 0)
    mesh = init_device_mesh(next(system.parameters()).device.type, (dist.get_world_size(),))
    scalars = {parameter for parameter in system.parameters() if parameter.ndim == 0}
    for module in [module for module in system.modules() if isinstance(module, TransformerBlock)]:
        fully_shard(module, mesh=mesh, ignored_params=scalars)
    fully_shard(system, mesh=mesh, ignored_params=scalars)
    register_fsdp_forward_method(system, optimizer_steps[0].loss)
    for parameter in scalars:
        if parameter.requires_grad:
            parameter.register_post_accumulate_grad_hook(_mean_gradient)
    return system


def share_buffers(system: nn.Module) -> None:
    """All processes take the buffers of process 0, as in data parallelism before each forward pass."""
    for buffer in system.buffers():
        dist.broadcast(buffer, 0)


def _mean_gradient(parameter: Tensor) -> None:
    if (gradient := parameter.grad) is not None:
        dist.all_reduce(gradient)
        gradient /= dist.get_world_size()


def of_parts(loss: nn.Module, optimizers: Sequence[Optimizer]) -> nn.Module:
    """The loss of a sharded system, whose optimisers from now on move the parts that this process holds.

    Raises ``ValueError`` for Muon, which turns whole matrices.
    """
    for optimizer in optimizers:
        if isinstance(optimizer, Muon):
            raise ValueError("Muon moves whole matrices, and sharding cuts them: take the optimiser 'adamw'.")
        parts = []
        for group in optimizer.param_groups:
            for position, parameter in enumerate(group["params"]):
                if is_cut(parameter):
                    part: Any = nn.Parameter(local(parameter))  # Any, for ``part_of``
                    group["params"][position] = part
                    part.part_of = parameter
                    parts.append(part)
        optimizer.register_step_pre_hook(partial(_hand_over, parts))
    loss.register_forward_pre_hook(lambda *_: share_buffers(loss))
    return loss


def _hand_over(parts: Sequence[Any], *_: Any) -> None:
    for part in parts:
        gradient, part.part_of.grad = part.part_of.grad, None
        part.grad = None if gradient is None else local(gradient)


def clip_gradients(accelerator: Accelerator, parameters: Sequence[nn.Parameter], max_norm: float) -> Float[Tensor, ""]:
    """The norm of all gradients, which are scaled down where it is larger than ``max_norm``; parts count as a whole."""
    if not any(is_cut(parameter) for parameter in parameters):
        return accelerator.clip_grad_norm_(parameters, max_norm)
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    parts, whole_ones = (
        [local(gradient) for gradient in gradients if is_cut(gradient) == cut] for cut in (True, False)
    )
    first, *others = [part.square().sum() for part in parts]
    squares = sum(others, first)
    dist.all_reduce(squares)
    norm = (squares + sum(one.square().sum() for one in whole_ones)).sqrt()
    torch._foreach_mul_([*parts, *whole_ones], (max_norm / (norm + 1e-6)).clamp(max=1.0))
    return norm


def is_cut(x: Tensor) -> TypeGuard["DTensor"]:
    """Whether this is one of PyTorch's distributed tensors, of which each process holds a part."""
    return hasattr(x, "placements")


def local(x: Tensor) -> Tensor:
    """What this process holds of a tensor, without a graph, in the same memory."""
    return (x.to_local() if is_cut(x) else x).detach()


def wholes(parts: Mapping[str, tuple[Tensor, Tensor]], keep: bool = True) -> dict[str, Tensor]:
    """Each tensor, put together of what processes hold of it, one after the other, so that one at a time is whole.

    Beside a part stands the parameter that is cut as it is. What was put together is in the machine's own memory, and
    nothing is returned where this process need not ``keep`` it. Every process calls this.
    """
    found = {}
    for name, (x, parameter) in parts.items():
        if is_cut(parameter) and x.ndim:
            shape, stride = parameter.shape, parameter.stride()
            mesh, placements = parameter.device_mesh, parameter.placements
            from torch.distributed.tensor import DTensor

            part = DTensor.from_local(local(x), mesh, placements, run_check=False, shape=shape, stride=stride)
            x = part.full_tensor()
            x = x.cpu() if keep else x
        if keep:
            found[name] = x
    return found


def part_like(x: Tensor, parameter: Tensor) -> Tensor:
    """This process's part of ``x``, cut as the ``parameter`` is: a tensor as that one, or ``x`` where it is whole."""
    if not is_cut(parameter) or not x.ndim:
        return x
    from torch.distributed.tensor import distribute_tensor

    mesh = parameter.device_mesh
    return distribute_tensor(x.to(mesh.device_type), mesh, parameter.placements, src_data_rank=None)
