"""SigLIP: every pair of a batch is a binary classification of its own.

Paper: Zhai et al. 2023, "Sigmoid Loss for Language Image Pre-Training".
Official code: https://github.com/google-research/big_vision.

Deviations: ``tiny`` is ours. With a ``mask``, padding is set to ``pad_token`` first, so that nothing can leak from it;
without one the model reads padding like any token, as it was trained to.
"""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmlearn.layers import MLP, AttentionPooling, Config
from mmlearn.layers.encoders import ImageEncoder, ImageEncoderConfig, TextEncoder, TextEncoderConfig
from mmlearn.objectives import gather, gathered_positives, own_rows, pairwise_sigmoid

GELU: dict[str, Any] = dict(activation="gelu_tanh", norm_epsilon=1e-6)
IMAGE: dict[str, Any] = dict(class_token=False, **GELU)
TEXT: dict[str, Any] = dict(vocab_size=32_000, max_length=64, causal=False, **GELU)


@dataclass(frozen=True)
class SigLIPConfig(Config):
    image: ImageEncoderConfig = ImageEncoderConfig(**IMAGE)
    text: TextEncoderConfig = TextEncoderConfig(768, 12, 12, **TEXT)  # its head: as wide as the image's
    pad_token: int = 1
    temperature: float = 0.1  # at the start
    bias: float = -10.0  # at the start: nearly all pairs do not match
    chunk_size: int | None = None  # images that are compared with all texts at a time; None: all

    PRESETS = {
        "tiny": dict(
            image=ImageEncoderConfig(64, 3, 2, image_size=64, patch_size=16, **IMAGE),
            text=TextEncoderConfig(64, 1, 2, **TEXT | dict(vocab_size=512, max_length=32)),
        ),
        "base-patch16-224": dict(),
        "large-patch16-256": dict(
            image=ImageEncoderConfig(1024, 24, 16, image_size=256, **IMAGE),
            text=TextEncoderConfig(1024, 24, 16, **TEXT),
        ),
        "so400m-patch14-384": dict(
            image=ImageEncoderConfig(1152, 27, 16, mlp_width=4304, image_size=384, patch_size=14, **IMAGE),
            text=TextEncoderConfig(1152, 27, 16, mlp_width=4304, **TEXT),
        ),
    }


class SigLIPOutput(NamedTuple):
    image_embedding: Float[Tensor, "b d"]  # unit length
    text_embedding: Float[Tensor, "b d"]  # unit length
    logit_scale: Float[Tensor, ""]  # 1/τ, already exponentiated
    logit_bias: Float[Tensor, ""]


class PoolingHead(nn.Module):
    """One learned query attends to all patches, then an MLP on a residual path. Source: Zhai et al. 2022, section
    3.1."""

    def __init__(self, config: ImageEncoderConfig):
        super().__init__()
        self.pooling = AttentionPooling(config.width, config.num_heads)
        self.norm = nn.LayerNorm(config.width, eps=config.norm_epsilon)
        self.mlp = MLP(config.width, config.mlp_width, config.activation)

    def forward(self, x: Float[Tensor, "b p d"]) -> Float[Tensor, "b d"]:
        # (b, p, d) → (b, 1, d) → (b, d)
        x = rearrange(self.pooling(x), "b 1 d -> b d")
        return x + self.mlp(self.norm(x))


class SigLIP(nn.Module):
    """An image encoder pooled by attention, and a bidirectional text encoder read at its last position."""

    def __init__(self, config: SigLIPConfig):
        super().__init__()
        self.config = config
        self.image_encoder = ImageEncoder(config.image)
        self.image_head = PoolingHead(config.image)
        self.text_encoder = TextEncoder(config.text)
        self.text_head = nn.Linear(config.text.width, config.image.width)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / config.temperature)))  # ln(1/τ)
        self.logit_bias = nn.Parameter(torch.tensor(float(config.bias)))

    def encode_image(self, image: Float[Tensor, "b c height width"]) -> Float[Tensor, "b d"]:
        return F.normalize(self.image_head(self.image_encoder(image)), dim=-1)

    def encode_text(self, tokens: Int[Tensor, "b t"], mask: Bool[Tensor, "b t"] | None = None) -> Float[Tensor, "b d"]:
        if mask is not None:
            tokens = tokens.masked_fill(~mask, self.config.pad_token)  # the last position may be padding
        return F.normalize(self.text_head(self.text_encoder.read(tokens, -1, mask)), dim=-1)

    def forward(
        self,
        image: Float[Tensor, "b c height width"],
        tokens: Int[Tensor, "b t"],
        mask: Bool[Tensor, "b t"] | None = None,
    ) -> SigLIPOutput:
        image_embedding, text_embedding = self.encode_image(image), self.encode_text(tokens, mask)
        return SigLIPOutput(image_embedding, text_embedding, self.logit_scale.exp(), self.logit_bias)

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Float[Tensor, ""]]:
        """The pairwise sigmoid loss over the batch of all processes. With ``caption_id``, repeated captions match."""
        output = self(batch["image"], batch["tokens"], batch.get("mask"))
        image, text = gather(output.image_embedding), gather(output.text_embedding)  # (all, d) each
        rows = own_rows(output.image_embedding)
        positives, chunk_size = gathered_positives(batch.get("caption_id")), self.config.chunk_size
        scale, bias = output.logit_scale, output.logit_bias
        return {"sigmoid": pairwise_sigmoid(image, text, scale, bias, positives, chunk_size, rows)}
