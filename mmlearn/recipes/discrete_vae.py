"""The recipe of Discrete VAE: what it reads, what it learns, and how that is measured."""

from mmlearn.models.image_tokens.discrete_vae import DiscreteVAE, DiscreteVAEConfig
from mmlearn.recipes import Objective, Recipe
from mmlearn.recipes.shared.image_codes import Pixels, reconstruction

RECIPE = Recipe(
    DiscreteVAE,
    DiscreteVAEConfig,
    reads=(Pixels(),),
    learns=Objective("elbo", {"rebuilding": None, "kl": None}, measures=(reconstruction,)),
    architecture="""
    image -> encoder [convolutions] -> odds of codes -> draw [Gumbel softmax] -> decoder -> !log-likelihood
    odds of codes -> !KL [from even odds]
    """,
)
