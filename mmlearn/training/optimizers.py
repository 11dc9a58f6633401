"""Which parameters are decayed, which optimiser moves them, and how fast."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim import Optimizer

from mmlearn.layers import Attention
from mmlearn.layers.transformer import MLP
from mmlearn.recipes.recipe import OptimizerStep
from mmlearn.suggestions import suggest

OPTIMIZERS = ("adamw", "muon")


def build_optimizers(
    system: nn.Module,
    name: str,
    *,
    learning_rate: float,
    weight_decay: float,
    betas: tuple[float, float] = OptimizerStep.betas,
) -> list[Optimizer]:
    """AdamW for everything, or Muon for the matrices of attention layers and of MLPs, and AdamW for the rest.

    Only matrices are decayed: norms, biases and temperatures have one number a feature, and nothing to shrink.
    Source: Loshchilov & Hutter 2019 (AdamW); Jordan et al. 2024 (Muon) with the step size of Liu et al. 2025, which
    moves a matrix as far as AdamW would. Raises ``ValueError`` for another name, or where nothing is to be trained.
    """
    if name not in OPTIMIZERS:
        raise ValueError(f"There is no optimiser {name!r}; {suggest(name, OPTIMIZERS)}.")
    trained = {key: parameter for key, parameter in system.named_parameters() if parameter.requires_grad}
    if not trained:
        raise ValueError(f"No parameter of {type(system).__name__} is to be trained: all are frozen.")
    inside = {
        parameter
        for module in system.modules()
        if name == "muon" and isinstance(module, Attention | MLP)
        for parameter in module.parameters()
    }
    hidden = {key for key, value in trained.items() if value.ndim == 2 and value in inside}
    rest = [value for key, value in trained.items() if key not in hidden]
    groups = [
        {"params": [value for value in rest if value.ndim > 1], "weight_decay": weight_decay},
        {"params": [value for value in rest if value.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    optimizers: list[Optimizer] = []
    if groups:
        optimizers.append(torch.optim.AdamW(groups, lr=learning_rate, betas=betas, fused=True))
    if hidden:
        matrices = [trained[key] for key in trained if key in hidden]
        optimizers.append(Muon(matrices, lr=learning_rate, weight_decay=weight_decay))
    return optimizers


class Muon(torch.optim.Muon):
    """PyTorch's Muon, but all matrices of a shape at once, and in their own precision: small models train faster.

    Momentum always looks ahead as Nesterov's, a step is always as long as AdamW's would be, and a norm always counts as
    1e-7 at least: ``nesterov``, ``adjust_lr_fn`` and ``eps`` change nothing.
    """

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """Move each matrix by its orthogonalised momentum, as far as AdamW would."""
        for group in self.param_groups:
            alike: dict[tuple[torch.Size, torch.dtype, torch.device], list[Tensor]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    alike.setdefault((parameter.shape, parameter.dtype, parameter.device), []).append(parameter)
            for (shape, *_), parameters in alike.items():
                for parameter in parameters:
                    if not self.state[parameter]:
                        self.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
                gradient = [parameter.grad for parameter in parameters if parameter.grad is not None]
                momentum = [self.state[parameter]["momentum_buffer"] for parameter in parameters]
                torch._foreach_lerp_(momentum, gradient, 1 - group["momentum"])
                ahead = torch.stack(torch._foreach_lerp(gradient, momentum, group["momentum"]))  # Nesterov's
                move = orthogonalise(ahead, group["ns_coefficients"], group["ns_steps"])
                torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
                rate = group["lr"] * 0.2 * max(shape) ** 0.5
                torch._foreach_add_(parameters, list(move.unbind()), alpha=-rate)


def orthogonalise(
    x: Float[Tensor, "m rows columns"], coefficients: Sequence[float], steps: int
) -> Float[Tensor, "m rows columns"]:
    r"""Singular values brought to about 1, by the iteration of Newton and Schulz.

    .. math:: X \leftarrow a X + (b A + c A^2) X, \quad A = X X^\top

    Source: Jordan et al. 2024 (Muon).
    """
    a, b, c = coefficients
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


def schedule(step: int, steps: int, *, warmup: int, decay: str = "cosine") -> float:
    r"""The share of the learning rate at ``step``: up in ``warmup`` steps, then down to 0 at ``steps``.

    ``"cosine"``: :math:`\frac{1}{2}(1 + \cos(\pi\, step / steps))`. ``"linear"``: level, then down over the last 40 %.
    Raises ``ValueError`` for another name.
    """
    shapes = {"cosine": (1 + math.cos(math.pi * step / steps)) / 2, "linear": min(1.0, 2.5 * (steps - step) / steps)}
    if decay not in shapes:
        raise ValueError(f"There is no decay {decay!r}; {suggest(decay, shapes)}.")
    return min((step + 1) / (warmup + 1), shapes[decay])


def scaled_rate(step: int, rate: float, batch: int, base_batch: int, warmup: int, rule: str = "linear") -> float:
    r"""The learning rate at ``step`` of a batch that is larger than the one for which ``rate`` was found.

    .. math:: \eta \, \big(1 + (f - 1) \min(1, t / w)\big), \quad
       f = k \text{ (linear) or } \sqrt{k} \text{ (root)}, \quad k = b / b_0

    The first w = ``warmup`` steps lead up from ``rate`` along a straight line, because early gradients are large. The
    linear rule is that of SGD, the root that of Adam, whose steps are as long whatever the gradient's size. Raises
    ``ValueError`` for another rule.
    Source: arXiv 1706.02677 (Accurate, Large Minibatch SGD), section 2; Malladi et al. 2022, "On the SDEs and Scaling
    Rules for Adaptive Gradient Algorithms".
    """
    factors = {"linear": batch / base_batch, "root": math.sqrt(batch / base_batch)}
    if rule not in factors:
        raise ValueError(f"There is no rule {rule!r}; {suggest(rule, factors)}.")
    way = min(1.0, step / warmup) if warmup else 1.0
    return rate * (1 + (factors[rule] - 1) * way)
