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
    words -> convolution of words -> words ask sound and video -> memory of words -> joined -> !task
    sound -> convolution of sound -> sound asks words and video -> memory of sound -> joined
    video -> convolution of video -> video asks words and sound -> memory of video -> joined
    convolution of sound -> words ask sound and video
    convolution of video -> words ask sound and video
    convolution of words -> sound asks words and video
    convolution of video -> sound asks words and video
    convolution of words -> video asks words and sound
    convolution of sound -> video asks words and sound
    """,
)
