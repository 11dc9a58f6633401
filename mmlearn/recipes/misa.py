"""The recipe of MISA: what it reads, what it learns, and how that is measured."""

from dataclasses import replace

from mmlearn.models.trimodal.misa import MISA, MISAConfig
from mmlearn.recipes import Recipe
from mmlearn.recipes.shared.sequences import READS, TASK

RECIPE = Recipe(
    MISA,
    MISAConfig,
    reads=READS,
    learns=replace(TASK, chance={**TASK.chance, "similarity": None, "difference": None, "reconstruction": None}),
    architecture="""
    words -> LSTM of words -> shared space -> fusion [transformer] -> !task
    sound -> LSTM of sound -> private spaces -> fusion
    video -> LSTM of video -> shared space
    LSTM of words -> private spaces
    LSTM of sound -> shared space
    LSTM of video -> private spaces
    shared space -> !similarity [CMD]
    private spaces -> !difference
    shared space -> decoders -> !reconstruction
    private spaces -> decoders
    """,
)
