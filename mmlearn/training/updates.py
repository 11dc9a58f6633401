"""What one turn of a step trains: its loss, its parameters and its optimisers, ready for device and processes."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.compiler.config
from accelerate import Accelerator
from torch import Tensor, nn

from mmlearn.objectives.all_gather import gather
from mmlearn.recipes.recipe import OptimizerStep
from mmlearn.training import distributed
from mmlearn.training.optimizers import build_optimizers
from mmlearn.training.options import TrainingOptions


class Loss(nn.Module):
    """A loss of the system as a forward pass, which is what data parallelism wraps."""

    def __init__(self, system: nn.Module, name: str = "loss"):
        super().__init__()
        self.system, self.name = system, name

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Its named losses of a batch."""
        return getattr(self.system, self.name)(batch)


class Update:
    """A turn: ``with update:`` nothing but its ``parameters`` learns, from its ``loss``, by its ``optimizers``.

    ``optimizer`` has the arguments of :func:`~mmlearn.training.optimizers.build_optimizers`.
    """

    def __init__(
        self,
        turn: OptimizerStep,
        system: nn.Module,
        accelerator: Accelerator,
        options: TrainingOptions,
        **optimizer: Any,
    ):
        moved, learning = (
            set(turn.trained_names(system)),
            [item for item in system.named_parameters() if item[1].requires_grad],
        )
        self.predicted: Callable[[dict[str, Tensor]], Tensor] | None = getattr(system, "predicted", None)
        self.parameters = [value for name, value in learning if name in moved]
        self.others = [value for name, value in learning if name not in moved]
        with self:
            loss: Any = Loss(system, turn.loss)
            self.plain_optimizers = build_optimizers(system, betas=turn.betas, **optimizer)
            if options.compile:
                # The loss of all systems is one function, and PyTorch gives up a function after eight compilations.
                torch.compiler.config.recompile_limit = max(64, torch.compiler.config.recompile_limit)
                loss = torch.compile(loss, backend="inductor" if options.compile is True else options.compile)
            if options.shard:
                self.loss = distributed.of_parts(loss, self.plain_optimizers)
            else:
                self.loss = accelerator.prepare(loss)
            self.optimizers = [accelerator.prepare(item) for item in self.plain_optimizers]

    def __enter__(self) -> None:
        for parameter in self.others:
            parameter.requires_grad_(False)

    def __exit__(self, *error: Any) -> None:
        for parameter in self.others:
            parameter.requires_grad_(True)

    def step(self, learning_rate: float) -> None:
        """Move the parameters by their gradients, and drop these."""
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate
            optimizer.step()
            optimizer.zero_grad()


def shares(
    predicted: Callable[[dict[str, Tensor]], Tensor] | None, batches: Sequence[dict[str, Tensor]], device: torch.device
) -> list[Callable[[Tensor], Tensor]]:
    r"""What becomes of the mean loss of each of this process's batches, so that every word of a step counts the same.

    .. math:: \frac{1}{B} \sum_b \frac{B n_b}{\sum_c n_c}\, \bar\ell_b = \frac{\sum_b n_b \bar\ell_b}{\sum_c n_c}

    B are the batches of a step in all processes, and n the words that are ``predicted`` in each. Otherwise a word would
    count for less where there are more of them. Where nothing is counted, and of one batch, the mean is as it is.
    """
    if predicted is None:
        return [lambda mean: mean] * len(batches)
    own = torch.stack([predicted(batch).sum() for batch in batches]).to(device)
    counts = gather(own)  # (B,)
    if len(counts) == 1:
        return [lambda mean: mean]
    return [lambda mean, n=n: mean * (len(counts) * n) / counts.sum().clamp(min=1) for n in own]  # type: ignore[misc]
