"""The training loop, its checkpoints and its schedules."""

from mmlearn.training.loop import fit

__all__ = ["fit"]
