"""The recipe of AttnGAN: what it reads, what it learns, and how that is measured."""

from mmlearn.data.fields import Tokens
from mmlearn.models.drawing.attn_gan import AttnGAN, AttnGANConfig
from mmlearn.recipes import Objective, Recipe, ln_batch
from mmlearn.recipes.shared.drawing import GANPixels, drawing_stages

RECIPE = Recipe(
    AttnGAN,
    AttnGANConfig,
    reads=(GANPixels(), Tokens()),
    stages=drawing_stages(
        Objective("damsm", {"words": ln_batch, "sentence": ln_batch}),
        "discriminators",
        ("discriminator", "generator", "kl", "drawn_words", "drawn_sentence"),
        betas=(0.5, 0.999),  # old gradients were aimed at another opponent
    ),
    architecture="""
    words -> *text reader [LSTM both ways] -> sentence -> condition [drawn around a mean] -> first stage
    first stage -> small drawing
    noise -> first stage
    first stage -> word attention -> later stage -> drawing -> discriminators [one a stage] -> !real and right
    text reader -> word attention
    small drawing -> discriminators
    sentence -> discriminators
    image -> discriminators
    drawing -> *DAMSM [regions and words] -> !found by its text
    condition -> !KL
    """,
)
