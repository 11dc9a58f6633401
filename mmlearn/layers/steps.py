"""Counting the steps of training, for systems in which chance is a function of the step."""

import torch
from torch import nn


class StepCounter(nn.Module):
    """A system that counts its ``steps`` of training. A checkpoint holds them, and so what later ones will draw."""

    def __init__(self):
        super().__init__()
        self.register_buffer("steps", torch.tensor(0))

    @torch.no_grad()
    def after_step(self) -> None:
        """Count a step; training calls this after each."""
        self.steps += 1
