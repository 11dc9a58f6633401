"""The recipe of Graph-MFN: what it reads, what it learns, and how that is measured."""

from mmlearn.models.trimodal.graph_mfn import GraphMFN, GraphMFNConfig
from mmlearn.recipes import Recipe
from mmlearn.recipes.shared.sequences import READS, TASK

RECIPE = Recipe(
    GraphMFN,
    GraphMFNConfig,
    reads=READS,
    learns=TASK,
    architecture="""
    words -> LSTM of words -> dynamic fusion graph [7 vertices, 19 edges] -> gated memory -> !task
    sound -> LSTM of sound -> dynamic fusion graph
    video -> LSTM of video -> dynamic fusion graph
    """,
)
