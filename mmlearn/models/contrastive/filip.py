"""FILIP: each word is compared with its most similar patch, and each patch with its word: late interaction.

Paper: Yao et al. 2022, "FILIP: Fine-grained Interactive Language-Image Pre-Training". No official code.

Deviations: all tokens take part (the paper exchanges the 25 % with the highest similarity between GPUs, in half
precision, to save communication); captions are not augmented with back-translation; there is no class token, only
patches; ``tiny`` is ours, and starts colder, because a mean over words differs less from pair to pair. Not compared
with released code: no code was published.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmlearn.layers import Config, ImageEncoder, ImageEncoderConfig, TextEncoder, TextEncoderConfig
from mmlearn.layers.encoders import TINY_IMAGE, TINY_TEXT
from mmlearn.objectives import gather, gathered_positives, late_interaction_info_nce, own_rows


@dataclass(frozen=True)
class FILIPConfig(Config):
    image: ImageEncoderConfig = ImageEncoderConfig(patch_size=32, class_token=False, embedding_norm=True)
    text: TextEncoderConfig = TextEncoderConfig()
    embedding_width: int = 256
    temperature: float = 0.07  # at the start; the model learns its own

    PRESETS = {
        "tiny": dict(image=TINY_IMAGE, text=TINY_TEXT, embedding_width=64, temperature=0.03),
        "base": dict(),  # table 7 of the paper
        "large": dict(
            image=ImageEncoderConfig(1024, 24, 16, patch_size=14, class_token=False, embedding_norm=True),
            text=TextEncoderConfig(768, 12, 12),
        ),
    }


class FILIPOutput(NamedTuple):
    image_tokens: Float[Tensor, "b p d"]  # unit length, a patch each
    text_tokens: Float[Tensor, "b t d"]  # unit length where real
    logit_scale: Float[Tensor, ""]  # 1/τ, already exponentiated


class FILIP(nn.Module):
    """CLIP's two encoders, of which every token is projected and normalised.

    Images and texts are compared by :func:`mmlearn.objectives.late_interaction`.
    """

    def __init__(self, config: FILIPConfig):
        super().__init__()
        self.config = config
        self.image_encoder = ImageEncoder(config.image)
        self.text_encoder = TextEncoder(config.text)
        self.image_projection = nn.Linear(config.image.width, config.embedding_width, bias=False)
        self.text_projection = nn.Linear(config.text.width, config.embedding_width, bias=False)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / config.temperature)))  # ln(1/τ)
        nn.init.normal_(self.image_projection.weight, std=config.image.width**-0.5)
        nn.init.normal_(self.text_projection.weight, std=config.text.width**-0.5)

    def encode_image(self, image: Float[Tensor, "b c height width"]) -> Float[Tensor, "b p d"]:
        return F.normalize(self.image_projection(self.image_encoder(image)), dim=-1)  # each patch

    def encode_text(
        self, tokens: Int[Tensor, "b t"], mask: Bool[Tensor, "b t"] | None = None
    ) -> Float[Tensor, "b t d"]:
        return F.normalize(self.text_projection(self.text_encoder(tokens, mask)), dim=-1)  # each word

    def forward(
        self,
        image: Float[Tensor, "b c height width"],
        tokens: Int[Tensor, "b t"],
        mask: Bool[Tensor, "b t"] | None = None,
    ) -> FILIPOutput:
        return FILIPOutput(self.encode_image(image), self.encode_text(tokens, mask), self.logit_scale.exp())

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Float[Tensor, ""]]:
        """Late-interaction InfoNCE over the batch of all processes. With ``caption_id``, repeated captions match."""
        output = self(batch["image"], batch["tokens"], batch["mask"])
        # All patches (all, p, d) and words (all, t, d): similarities are between all processes.
        patches, words, mask = gather(output.image_tokens), gather(output.text_tokens), gather(batch["mask"])
        rows = own_rows(output.image_tokens)
        positives, scale = gathered_positives(batch.get("caption_id")), output.logit_scale
        return {"late_interaction": late_interaction_info_nce(patches, words, scale, mask, positives, rows)}

    @torch.no_grad()
    def after_step(self) -> None:
        """Keep logits at most a hundredfold cosine, as CLIP does."""
        self.logit_scale.clamp_(max=math.log(100))
