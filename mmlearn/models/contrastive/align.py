"""ALIGN: two encoders trained from scratch on a billion images with their noisy alternative texts.

Paper: Jia et al. 2021, "Scaling Up Visual and Vision-Language Representation Learning With Noisy Text Supervision". No
official code; a model of the size ``base`` was released by Kakao Brain, and is in Transformers.

Deviations: no block is left out at random while EfficientNet learns. Batch norms have PyTorch's ε of 1e-5 and momentum
of 0.1, the released model 1e-3 and 0.01. Pictures are padded evenly where they are halved, as in torchvision, so that
the released weights, which were trained with another padding, are not read. ``large`` has the paper's EfficientNet-L2
and BERT-Large, ``base`` the B7 and BERT-Base of its ablations; ``tiny`` is ours, with five stages, because seven would
leave 2 × 2 positions of a small image, and starts warmer.
"""

import math
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmlearn.layers import BERTEmbedding, BERTEncoderConfig, Config, Transformer
from mmlearn.layers.embeddings import check_image
from mmlearn.layers.language import TINY_BERT, initialise_as_bert
from mmlearn.objectives import gather, gathered_positives, info_nce, own_rows

STAGES = ((1, 3, 1), (6, 3, 2), (6, 5, 2), (6, 3, 2), (6, 5, 1), (6, 5, 2), (6, 3, 1))  # expansion, kernel, stride


@dataclass(frozen=True)
class ALIGNConfig(Config):
    stem_width: int = 64  # channels of EfficientNet before its stages
    widths: tuple[int, ...] = (32, 48, 80, 160, 224, 384, 640)  # channels of each stage
    blocks: tuple[int, ...] = (4, 7, 7, 10, 10, 13, 4)  # of each stage
    image_size: int = 289  # pixels; others are read as well
    text: BERTEncoderConfig = BERTEncoderConfig()
    temperature: float = 1.0  # at the start; the model learns its own
    label_smoothing: float = 0.1

    PRESETS = {
        "tiny": dict(stem_width=16, widths=(16, 24, 32, 64, 64), blocks=(1, 1, 1, 1, 1), image_size=64, temperature=0.1)
        | dict(text=BERTEncoderConfig(**TINY_BERT | dict(depth=2))),
        "base": dict(),
        "large": dict(stem_width=136, widths=(72, 104, 176, 344, 480, 824, 1376), blocks=(6, 11, 11, 16, 16, 22, 6))
        | dict(text=BERTEncoderConfig(width=1024, depth=24, num_heads=16)),
    }


class ALIGNOutput(NamedTuple):
    image_embedding: Float[Tensor, "b d"]  # unit length
    text_embedding: Float[Tensor, "b d"]  # unit length
    logit_scale: Float[Tensor, ""]  # 1/τ, already exponentiated


class ALIGN(nn.Module):
    """An EfficientNet, averaged over all positions, and BERT's first token, projected to as many features.

    ``ValueError`` for a text that is padded at its left. Source: section 4.1 and figure 1; for the stages table 1 of
    EfficientNet (arXiv 1905.11946).
    """

    def __init__(self, config: ALIGNConfig):
        super().__init__()
        from torchvision.models.efficientnet import EfficientNet, MBConvConfig

        self.config = config
        widths = pairwise((config.stem_width, *config.widths))
        stages = [MBConvConfig(*shape, *pair, count) for shape, pair, count in zip(STAGES, widths, config.blocks)]
        self.image_encoder = EfficientNet(stages, dropout=0.0, stochastic_depth_prob=0.0).features[:-1]
        for layer in self.image_encoder.modules():
            if isinstance(layer, nn.Conv2d) and layer.groups > 1:  # as in the official code; torchvision starts near 0
                nn.init.kaiming_normal_(layer.weight)
        self.embedding = BERTEmbedding(config.text)
        self.transformer = Transformer(config.text)
        self.text_projection = nn.Linear(config.text.width, stages[-1].out_channels)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / config.temperature)))  # ln(1/τ)
        self.apply(partial(initialise_as_bert, std=config.text.initial_std))

    def encode_image(self, image: Float[Tensor, "b 3 height width"]) -> Float[Tensor, "b d"]:
        check_image(image, patch_size=1)
        features = self.image_encoder(image)  # (b, d, rows, columns)
        return F.normalize(features.mean((2, 3)), dim=-1)

    def encode_text(self, tokens: Int[Tensor, "b t"], mask: Bool[Tensor, "b t"] | None = None) -> Float[Tensor, "b d"]:
        first = self.transformer.read(self.embedding(tokens, mask=mask), 0, mask)  # (b, width)
        return F.normalize(self.text_projection(first), dim=-1)

    def forward(
        self,
        image: Float[Tensor, "b 3 height width"],
        tokens: Int[Tensor, "b t"],
        mask: Bool[Tensor, "b t"] | None = None,
    ) -> ALIGNOutput:
        return ALIGNOutput(self.encode_image(image), self.encode_text(tokens, mask), self.logit_scale.exp())

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Float[Tensor, ""]]:
        """InfoNCE over the batch of all processes, smoothed. With ``caption_id``, repeated captions all count."""
        output = self(batch["image"], batch["tokens"], batch.get("mask"))
        image, text = gather(output.image_embedding), gather(output.text_embedding)  # (all, d) each
        rows, positives = own_rows(output.image_embedding), gathered_positives(batch.get("caption_id"))
        smoothing = self.config.label_smoothing
        return {"itc": info_nce(image, text, output.logit_scale, positives, rows, smoothing)}
