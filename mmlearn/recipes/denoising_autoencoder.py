"""The recipe of The denoising autoencoder: what it reads, what it learns, and how that is measured."""

from mmlearn.data.fields import Cues
from mmlearn.models.classic_fusion.denoising_autoencoder import DenoisingAutoencoder, DenoisingAutoencoderConfig
from mmlearn.recipes import Recipe
from mmlearn.recipes.shared.cues import RESTORES

RECIPE = Recipe(
    DenoisingAutoencoder,
    DenoisingAutoencoderConfig,
    reads=(Cues(),),
    learns=RESTORES,
    architecture="""
    cues -> destroyed in part -> hidden layer -> decoder -> !reconstruction
    """,
)
