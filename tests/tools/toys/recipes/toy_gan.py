"""The recipe of toy_gan."""

import torch
from mmlearn.models.toys.toy_gan import NOISE, ToyGAN, ToyGANConfig

from mmlearn.data.fields import Image, Label, Tokens
from mmlearn.evaluation.measures import retrieval, row
from mmlearn.recipes import Objective, OptimizerStep, Recipe, Stage, ln_batch


class Noise(Label):
    """``noise`` (b, 16), standard normal."""

    holds = {"noise": "Float b 16"}

    def __call__(self, batch, generator, sizes):
        return batch | {"noise": torch.randn(len(batch["tokens"]), NOISE, generator=generator)}


def r_precision(run, samples):
    """How often a drawn picture is nearest to its own text of 32."""
    near = []
    for batch in run.batches(samples):
        drawing, text = run.system(batch["tokens"], batch["mask"])
        cosine = run.system.encode_image(drawing) @ text.T
        near.append((cosine.argmax(1) == torch.arange(len(text), device=text.device)).float())
    return {"R-precision": row(torch.cat(near).mean(), 1 / 32)}


RECIPE = Recipe(
    ToyGAN,
    ToyGANConfig,
    reads=(Image(), Tokens()),
    stages=(
        Stage(
            Objective("damsm", {"damsm": ln_batch}, measures=(retrieval("image", "text"),)),
            optimizer_steps=(OptimizerStep("encoder_loss", trains=("text_encoder", "image_encoder")),),
            name="damsm",
        ),
        Stage(
            Objective("gan", {"discriminator": None, "generator": None}, labels=(Noise(),), measures=(r_precision,)),
            optimizer_steps=(
                OptimizerStep("discriminator_loss", trains=("discriminator",)),
                OptimizerStep("generator_loss", trains=("generator",)),
            ),
            name="gan",
        ),
    ),
)
