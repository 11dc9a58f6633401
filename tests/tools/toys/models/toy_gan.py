"""A toy with the shape of AttnGAN: two stages, and in the second two optimisers in turn."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmlearn.layers import Config
from mmlearn.objectives import gather, gathered_positives, info_nce, own_rows

NOISE = 16


@dataclass(frozen=True)
class ToyGANConfig(Config):
    image_size: int = 64
    vocab_size: int = 512
    max_length: int = 32
    width: int = 32

    PRESETS = {"tiny": dict(width=16), "wide": dict(width=48)}


class ToyGANOutput(NamedTuple):
    drawing: Float[Tensor, "b 3 height width"]
    text_embedding: Float[Tensor, "b d"]


class ToyGAN(nn.Module):
    def __init__(self, config: ToyGANConfig):
        super().__init__()
        self.config = config
        seen = (nn.AdaptiveAvgPool2d(8), nn.Flatten())
        self.text_encoder = nn.EmbeddingBag(config.vocab_size, config.width, mode="sum")
        self.image_encoder = nn.Sequential(*seen, nn.Linear(192, config.width))
        self.generator = nn.Sequential(nn.Linear(config.width + NOISE, 64), nn.ReLU(), nn.Linear(64, 192))
        self.discriminator = nn.Sequential(*seen, nn.Linear(192, 64), nn.LeakyReLU(), nn.Linear(64, 1))

    def encode_text(self, tokens: Int[Tensor, "b t"], mask: Bool[Tensor, "b t"]) -> Float[Tensor, "b d"]:
        return F.normalize(self.text_encoder(tokens, per_sample_weights=mask.to(self.text_encoder.weight)), dim=-1)

    def encode_image(self, image: Float[Tensor, "b 3 height width"]) -> Float[Tensor, "b d"]:
        return F.normalize(self.image_encoder(image), dim=-1)

    def draw(self, text: Float[Tensor, "b d"], noise: Float[Tensor, "b 16"]) -> Float[Tensor, "b 3 height width"]:
        return F.interpolate(self.generator(torch.cat([text, noise], -1)).view(-1, 3, 8, 8), self.config.image_size)

    def forward(
        self, tokens: Int[Tensor, "b t"], mask: Bool[Tensor, "b t"], noise: Float[Tensor, "b 16"] | None = None
    ) -> ToyGANOutput:
        text = self.encode_text(tokens, mask)
        return ToyGANOutput(self.draw(text, text.new_zeros(len(text), NOISE) if noise is None else noise), text)

    def encoder_loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        image, text = self.encode_image(batch["image"]), self.encode_text(batch["tokens"], batch["mask"])
        rows, positives = own_rows(image), gathered_positives(batch.get("caption_id"))
        return {"damsm": info_nce(gather(image), gather(text), torch.tensor(5.0).to(text), positives, rows)}

    def discriminator_loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        drawing = self(batch["tokens"], batch["mask"], batch["noise"]).drawing.detach()
        real, drawn = self.discriminator(batch["image"]), self.discriminator(drawing)
        return {"discriminator": F.softplus(-real).mean() + F.softplus(drawn).mean()}

    def generator_loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        drawing = self(batch["tokens"], batch["mask"], batch["noise"]).drawing
        return {"generator": F.softplus(-self.discriminator(drawing)).mean()}
