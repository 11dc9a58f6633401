"""LiT: the image encoder is locked, and the text encoder learns to match its features.

Paper: Zhai et al. 2022, "LiT: Zero-Shot Transfer with Locked-image text Tuning".
Official code: https://github.com/google-research/big_vision (``proj/image_text``).

Deviations: the text tower is CLIP's, with its vocabulary and causal mask, where the paper also tries BERT's. ``tiny``
and ``base`` are ours, and the recipe locks MobileNetV2: the released LiT-B16B has a ViT for images, BERT-base for
texts, read at its first token, and a linear layer for images as well. Not compared with released code: the text tower
is CLIP's here; both towers are compared in CLIP and ViT.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple, Self

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmlearn.layers import Config, TextEncoder, TextEncoderConfig
from mmlearn.models.vision.backbone import Backbone
from mmlearn.objectives import gather, gathered_positives, info_nce, own_rows


@dataclass(frozen=True)
class LiTConfig(Config):
    image_width: int = Backbone.width  # features of the locked tower; the text is projected to as many
    text: TextEncoderConfig = TextEncoderConfig(768, 12, 12, max_length=16)
    temperature: float = 0.1  # at the start; the model learns its own
    end_token: int | None = None  # whose state is the text; None: of the highest token id

    PRESETS = {"tiny": dict(text=TextEncoderConfig(128, 2, 4, vocab_size=512, max_length=32)), "base": dict()}


class LiTOutput(NamedTuple):
    image_embedding: Float[Tensor, "b d"]  # unit length
    text_embedding: Float[Tensor, "b d"]  # unit length
    logit_scale: Float[Tensor, ""]  # 1/τ, already exponentiated


class LiT(nn.Module):
    """``image_tower`` maps images to features (b, image_width); it is frozen and stays in evaluation mode.

    With ``image_tower=nn.Identity()`` the system takes features that were computed before in place of images.
    """

    def __init__(self, config: LiTConfig, image_tower: nn.Module):
        super().__init__()
        self.config = config
        self.image_tower = image_tower.requires_grad_(False).eval()
        self.text_encoder = TextEncoder(config.text)
        self.text_projection = nn.Linear(config.text.width, config.image_width)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / config.temperature)))  # ln(1/τ)

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        self.image_tower.eval()  # batch norms keep the statistics that they were trained with
        return self

    @torch.no_grad()
    def encode_image(self, image: Float[Tensor, "b ..."]) -> Float[Tensor, "b d"]:
        return F.normalize(self.image_tower(image), dim=-1)

    def encode_text(self, tokens: Int[Tensor, "b t"], mask: Bool[Tensor, "b t"] | None = None) -> Float[Tensor, "b d"]:
        end = self.config.end_token
        position = tokens.argmax(-1) if end is None else (tokens == end).int().argmax(-1)  # (b,)
        return F.normalize(self.text_projection(self.text_encoder.read(tokens, position, mask)), dim=-1)

    def forward(
        self, image: Float[Tensor, "b ..."], tokens: Int[Tensor, "b t"], mask: Bool[Tensor, "b t"] | None = None
    ) -> LiTOutput:
        return LiTOutput(self.encode_image(image), self.encode_text(tokens, mask), self.logit_scale.exp())

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Float[Tensor, ""]]:
        """InfoNCE over the batch of all processes. With ``caption_id`` in the batch, repeated captions all count."""
        output = self(batch["image"], batch["tokens"], batch.get("mask"))
        image, text = gather(output.image_embedding), gather(output.text_embedding)  # (all, d) each
        rows = own_rows(output.image_embedding)
        positives = gathered_positives(batch.get("caption_id"))
        return {"itc": info_nce(image, text, output.logit_scale, positives, rows)}
