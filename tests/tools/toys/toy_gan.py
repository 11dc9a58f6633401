"""A toy with the shape of AttnGAN: two stages, and in the second two optimisers in turn."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmlearn.data.fields import Image, Tokens
from mmlearn.evaluation.measures import retrieval, row
from mmlearn.layers import Config
from mmlearn.objectives import info_nce
from mmlearn.recipes import Objective, Recipe, Stage, Turn, ln, ln_batch


@dataclass(frozen=True)
class ToyGANConfig(Config):
    image_size: int = 64
    vocab_size: int = 512
    max_length: int = 32
    width: int = 32
    seed: int = 0

    PRESETS = {"tiny": dict(width=16), "wide": dict(width=48)}


class ToyGANOutput(NamedTuple):
    image: Float[Tensor, "b 3 height width"]
    image_embedding: Float[Tensor, "b d"]
    text_embedding: Float[Tensor, "b d"]


class ToyGAN(nn.Module):
    def __init__(self, config: ToyGANConfig):
        super().__init__()
        self.config = config
        seen = (nn.AdaptiveAvgPool2d(8), nn.Flatten())
        self.text_encoder = nn.EmbeddingBag(config.vocab_size, config.width, mode="sum")
        self.image_encoder = nn.Sequential(*seen, nn.Linear(192, config.width))
        self.generator = nn.Sequential(nn.Linear(2 * config.width, 64), nn.ReLU(), nn.Linear(64, 192))
        self.discriminator = nn.Sequential(*seen, nn.Linear(192, 64), nn.LeakyReLU(), nn.Linear(64, 1))
        nn.init.zeros_(self.discriminator[-1].weight)
        nn.init.zeros_(self.discriminator[-1].bias)
        self.register_buffer("steps", torch.tensor(0))

    def encode_text(self, tokens: Int[Tensor, "b t"], mask: Bool[Tensor, "b t"]) -> Float[Tensor, "b d"]:
        return F.normalize(self.text_encoder(tokens, per_sample_weights=mask.to(self.text_encoder.weight)), dim=-1)

    def encode_image(self, image: Float[Tensor, "b 3 height width"]) -> Float[Tensor, "b d"]:
        return F.normalize(self.image_encoder(image), dim=-1)

    def draw(self, text: Float[Tensor, "b d"]) -> Float[Tensor, "b 3 height width"]:
        """A picture for each text, from noise that the step decides."""
        generator = torch.Generator().manual_seed(1000 * self.config.seed + int(self.steps))
        noise = torch.randn(text.shape, generator=generator).to(text)
        return F.interpolate(self.generator(torch.cat([text, noise], -1)).view(-1, 3, 8, 8), self.config.image_size)

    def forward(self, image: Tensor, tokens: Tensor, mask: Tensor) -> ToyGANOutput:
        text = self.encode_text(tokens, mask)
        return ToyGANOutput(self.draw(text), self.encode_image(image), text)

    def damsm_loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        image, text = self.encode_image(batch["image"]), self.encode_text(batch["tokens"], batch["mask"])
        return {"damsm": info_nce(image, text, torch.tensor(10.0).to(text))}

    def discriminator_loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        fake = self.draw(self.encode_text(batch["tokens"], batch["mask"])).detach()
        real, drawn = self.discriminator(batch["image"]), self.discriminator(fake)
        return {"discriminator": F.softplus(-real).mean() + F.softplus(drawn).mean()}

    def generator_loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        text = self.encode_text(batch["tokens"], batch["mask"])
        fake = self.draw(text)
        close = info_nce(self.encode_image(fake), text, torch.tensor(10.0).to(text))
        return {"generator": F.softplus(-self.discriminator(fake)).mean(), "close": close}

    @torch.no_grad()
    def after_step(self) -> None:
        self.steps += 1


def r_precision(run, samples):
    """How often a drawn picture is nearest to its own text of 32."""
    near = []
    for batch in run.batches(samples):
        text = run.system.encode_text(batch["tokens"], batch["mask"])
        cosine = run.system.encode_image(run.system.draw(text)) @ text.T
        near.append((cosine.argmax(1) == torch.arange(len(text))).float())
    return {"R-precision": row(torch.cat(near).mean(), 1 / 32)}


RECIPE = Recipe(
    ToyGAN,
    ToyGANConfig,
    reads=(Image(), Tokens()),
    stages=(
        Stage(
            Objective("damsm", {"damsm": ln_batch}, measures=(retrieval("image", "text"),)),
            turns=(Turn("damsm_loss", moves=("text_encoder", "image_encoder")),),
            name="damsm",
        ),
        Stage(
            Objective("gan", {"discriminator": ln(2, 2), "generator": ln(2)}, measures=(r_precision,)),
            turns=(Turn("discriminator_loss", moves=("discriminator",)), Turn("generator_loss", moves=("generator",))),
            name="gan",
        ),
    ),
)
