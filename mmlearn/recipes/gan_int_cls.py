"""The recipe of GAN-INT-CLS: what it reads, what it learns, and how that is measured."""

from mmlearn.data.fields import Tokens
from mmlearn.models.drawing.gan_int_cls import GANINTCLS, GANINTCLSConfig
from mmlearn.recipes import Objective, Recipe
from mmlearn.recipes.shared.drawing import GANPixels, drawing_stages

RECIPE = Recipe(
    GANINTCLS,
    GANINTCLSConfig,
    reads=(GANPixels(), Tokens()),
    stages=drawing_stages(
        Objective("finding", {"hinge": None}),
        "discriminator",
        ("discriminator", "generator"),
        betas=(0.5, 0.999),  # old gradients were aimed at another opponent
    ),
    architecture="""
    words -> *text reader [LSTM both ways] -> sentence -> generator [transposed convolutions] -> drawing
    noise -> generator
    drawing -> discriminator [convolutions] -> !real and right
    sentence -> discriminator
    another sentence -> discriminator
    image -> discriminator
    """,
)
