"""The recipe of the bimodal deep autoencoder: what it reads, what it learns, and how that is measured."""

from mmlearn.data.fields import Cues
from mmlearn.models.classic_fusion.bimodal_autoencoder import BimodalAutoencoder, BimodalAutoencoderConfig
from mmlearn.recipes import Recipe
from mmlearn.recipes.shared.cues import RECONSTRUCTION

RECIPE = Recipe(
    BimodalAutoencoder,
    BimodalAutoencoderConfig,
    reads=(Cues(),),
    learns=RECONSTRUCTION,
    architecture="""
    first cue -> first encoder -> shared -> first decoder -> !reconstruction
    second cue -> second encoder -> shared -> second decoder -> !reconstruction
    """,
)
