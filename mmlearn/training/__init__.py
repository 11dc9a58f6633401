"""The training loop, its checkpoints and its schedules."""

from mmlearn.training.loop import fit
from mmlearn.training.options import TrainingOptions

__all__ = ["TrainingOptions", "fit"]
