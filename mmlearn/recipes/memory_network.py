"""The recipe of An end-to-end memory network: what it reads, what it learns, and how that is measured."""

from mmlearn.data.fields import Image, Tokens
from mmlearn.models.question_answering.memory_network import MemoryNetwork, MemoryNetworkConfig
from mmlearn.recipes import Recipe
from mmlearn.recipes.shared.answering import ANSWERING

RECIPE = Recipe(
    MemoryNetwork,
    MemoryNetworkConfig,
    reads=(Image(), Tokens()),
    learns=ANSWERING,
    architecture="""
    image -> cells -> memory [two embeddings a hop] -> hops -> !answer
    question -> sum of words [by their positions] -> hops
    """,
)
