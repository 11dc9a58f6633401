"""Which parameters are decayed, which optimiser moves them, and how fast."""

import math

import torch
from torch import nn
from torch.optim import Optimizer

from mmlearn.layers import Attention
from mmlearn.layers.transformer import MLP
from mmlearn.names import choices

OPTIMIZERS = ("adamw", "muon")


def build_optimizers(system: nn.Module, name: str, *, learning_rate: float, weight_decay: float) -> list[Optimizer]:
    """AdamW for everything, or Muon for the matrices of attention layers and of MLPs, and AdamW for the rest.

    Only matrices are decayed: norms, biases and temperatures have one number a feature, and nothing to shrink.
    Source: Loshchilov & Hutter 2019 (AdamW); Jordan et al. 2024 (Muon) with the step size of Liu et al. 2025, which
    moves a matrix as far as AdamW would. Raises ``ValueError`` for another name, or where nothing is to be trained.
    """
    if name not in OPTIMIZERS:
        raise ValueError(f"There is no optimiser {name!r}; {choices(name, OPTIMIZERS)}.")
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
        optimizers.append(torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, 0.98), fused=True))
    if hidden:
        matrices = [trained[key] for key in trained if key in hidden]
        optimizers.append(
            torch.optim.Muon(matrices, lr=learning_rate, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw")
        )
    return optimizers


def schedule(step: int, steps: int, *, warmup: int, decay: str = "cosine") -> float:
    r"""The share of the learning rate at ``step``: up in ``warmup`` steps, then down to 0 at ``steps``.

    ``"cosine"``: :math:`\frac{1}{2}(1 + \cos(\pi\, step / steps))`. ``"linear"``: level, then down over the last 40 %.
    Raises ``ValueError`` for another name.
    """
    shapes = {"cosine": (1 + math.cos(math.pi * step / steps)) / 2, "linear": min(1.0, 2.5 * (steps - step) / steps)}
    if decay not in shapes:
        raise ValueError(f"There is no decay {decay!r}; {choices(decay, shapes)}.")
    return min((step + 1) / (warmup + 1), shapes[decay])
