"""The recipe of MulT: what it reads, what it learns, and how that is measured."""

from mmlearn.models.trimodal.mult import MulT, MulTConfig
from mmlearn.recipes import Recipe
from mmlearn.recipes.shared.sequences import READS, TASK

RECIPE = Recipe(
    MulT,
    MulTConfig,
    reads=READS,
    learns=TASK,
    architecture="""
    words -> convolution of words -> words attend to sound and video -> memory of words -> joined -> !task
    sound -> convolution of sound -> sound attends to words and video -> memory of sound -> joined
    video -> convolution of video -> video attends to words and sound -> memory of video -> joined
    convolution of sound -> words attend to sound and video
    convolution of video -> words attend to sound and video
    convolution of words -> sound attends to words and video
    convolution of video -> sound attends to words and video
    convolution of words -> video attends to words and sound
    convolution of sound -> video attends to words and sound
    """,
)
