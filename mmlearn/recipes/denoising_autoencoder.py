"""The recipe of the denoising autoencoder: what it reads, what it learns, and how that is measured."""

from mmlearn.data.fields import Cues
from mmlearn.models.classic_fusion.denoising_autoencoder import DenoisingAutoencoder, DenoisingAutoencoderConfig
from mmlearn.recipes import Recipe
from mmlearn.recipes.shared.cues import RECONSTRUCTION

RECIPE = Recipe(
    DenoisingAutoencoder,
    DenoisingAutoencoderConfig,
    reads=(Cues(),),
    learns=RECONSTRUCTION,
    architecture="""
    cues -> corrupted -> hidden layer -> decoder -> !reconstruction
    """,
)
