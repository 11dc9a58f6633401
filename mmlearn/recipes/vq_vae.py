"""The recipe of VQ-VAE: what it reads, what it learns, and how that is measured."""

from mmlearn.models.image_tokens.vq_vae import VQVAE, VQVAEConfig
from mmlearn.recipes import Objective, Recipe
from mmlearn.recipes.shared.image_codes import Pixels, reconstruction

RECIPE = Recipe(
    VQVAE,
    VQVAEConfig,
    reads=(Pixels(),),
    learns=Objective("rebuilding", {"pixels": None, "commitment": None}, measures=(reconstruction,)),
    architecture="""
    image -> encoder [convolutions] -> z -> codes [nearest entry] -> decoder [convolutions] -> !squared error
    z ~> codebook [moving average] -> codes
    z -> !commitment
    codebook -> !commitment
    """,
)
