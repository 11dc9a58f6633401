"""The recipe of ImageBind: what it reads, what it learns, and how that is measured."""

from mmlearn.data.fields import Image, LogMel, Tokens
from mmlearn.evaluation.measures import retrieval
from mmlearn.models.trimodal.image_bind import ImageBind, ImageBindConfig
from mmlearn.recipes import Objective, Recipe, ln_batch

RECIPE = Recipe(
    ImageBind,
    ImageBindConfig,
    reads=(Image(), Tokens(), LogMel()),
    learns=Objective(
        "binding",
        {"image_text": ln_batch, "image_audio": ln_batch},
        measures=(retrieval("image", "text"), retrieval("image", "audio"), retrieval("audio", "text")),
    ),
    architecture="""
    image -> ViT -> u -> !InfoNCE, image and text
    text -> transformer [causal] -> v -> !InfoNCE, image and text
    log-mel -> sound transformer -> a -> !InfoNCE, image and sound
    u -> !InfoNCE, image and sound
    """,
)
