"""GIT: one transformer reads the patches of an image and then, from left to right, the words about it.

Paper: Wang et al. 2022, "GIT: A Generative Image-to-text Transformer for Vision and Language".
Official code: https://github.com/microsoft/GenerativeImage2Text.

Deviations: weights start at random, where the paper takes a picture encoder that was trained by contrast. Frames of
videos, which add an embedding of time, are not read. The encoder of the largest model is another, and not here.
``tiny`` is ours: it has no class token. A checkpoint of Transformers trains on without label smoothing, as there.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmlearn.generation.cache import DecodingStep, ScoreNext
from mmlearn.layers import BERTEmbedding, BERTEncoderConfig, Config, ImageEncoder, ImageEncoderConfig, Transformer
from mmlearn.layers.encoders import TINY_IMAGE
from mmlearn.layers.language import TINY_BERT, check_text_mask, initialise_as_bert
from mmlearn.models.captions.captioner import Captioner, check_pairs
from mmlearn.objectives import caption_language_modelling, prefix_mask

CLIP_IMAGE: dict[str, Any] = dict(embedding_norm=True, activation="quick_gelu")


@dataclass(frozen=True)
class GITConfig(Config):
    image: ImageEncoderConfig = ImageEncoderConfig(**CLIP_IMAGE)
    text: BERTEncoderConfig = BERTEncoderConfig(depth=6, max_length=1024, token_types=0)
    start_token: int = 101
    end_token: int = 102
    label_smoothing: float = 0.1

    PRESETS = {
        "tiny": dict(image=TINY_IMAGE, text=BERTEncoderConfig(**TINY_BERT | dict(token_types=0)))
        | dict(start_token=1, end_token=2, label_smoothing=0.0),
        "base": dict(),
        "large": dict(image=ImageEncoderConfig(1024, 24, 16, patch_size=14, **CLIP_IMAGE)),
    }

    @property
    def pad_token(self) -> int:
        """What follows the end of a written caption."""
        return self.text.pad_token or 0


class GITOutput(NamedTuple):
    patches: Float[Tensor, "b p d"]  # as they go into the transformer
    tokens: Float[Tensor, "b t d"]
    token_logits: Float[Tensor, "b t v"]  # at position i: of the token after token i


class GIT(Captioner):
    r"""Patches, projected and normalised, come before the words in one post-norm transformer.

    .. math:: \ell = \frac{1}{N+1} \sum_{i=1}^{N+1} \mathrm{CE}(y_i, p(y_i \mid I, y_{0:i-1}))

    Patches see each other, and no word; each word sees all patches, those before it and itself. Padding, where ``mask``
    is False, comes last. A picture of another size gets its positions by interpolation. Raises ``ValueError`` for
    pictures that are not float (b, 3, height, width) or are smaller than a patch, and for texts longer than
    ``max_length``. Source: section 3.2, equation 1, and figure 2.
    """

    def __init__(self, config: GITConfig):
        super().__init__()
        self.config, text = config, config.text
        self.embedding = BERTEmbedding(text)
        self.image_projection = nn.Sequential(
            nn.Linear(config.image.width, text.width), nn.LayerNorm(text.width, eps=config.image.norm_epsilon)
        )
        self.transformer = Transformer(text)
        self.language_head = nn.Linear(text.width, text.vocab_size)
        self.apply(partial(initialise_as_bert, std=text.initial_std))
        self.image_encoder = ImageEncoder(config.image)  # initialised in its own way

    def embed_image(self, image: Float[Tensor, "b c height width"]) -> Float[Tensor, "b p d"]:
        """The patches of each image as the transformer reads them."""
        return self.image_projection(self.image_encoder(image))  # (b, p, image_width) → (b, p, d)

    def encode_image(self, image: Float[Tensor, "b c height width"]) -> Float[Tensor, "b d"]:
        """The mean of the patches after the image encoder, for a probe."""
        return self.image_encoder(image).mean(1)

    def states(
        self,
        patches: Float[Tensor, "b p_or_0 d"],
        p: int,
        tokens: Int[Tensor, "b t"],
        mask: Bool[Tensor, "b all"],
        position: Int[Tensor, "b t"] | None = None,
    ) -> Float[Tensor, "b t d"]:
        """States of words after p patches; ``patches`` is empty where their keys are in a cache."""
        x = torch.cat([patches, self.embedding(tokens, position=position)], 1)  # (b, p + t, d)
        is_patch = F.pad(torch.zeros_like(mask), (p, 0), value=True)
        attention_mask = prefix_mask(is_patch, F.pad(mask, (p, 0), value=True))  # (b, p + all, p + all)
        return self.transformer(x, attention_mask[:, -x.shape[1] :])[:, patches.shape[1] :]

    def forward(
        self,
        image: Float[Tensor, "b c height width"],
        tokens: Int[Tensor, "b t"],
        mask: Bool[Tensor, "b t"] | None = None,
    ) -> GITOutput:
        check_text_mask(mask)
        patches = self.embed_image(image)
        real = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask
        x = self.states(patches, patches.shape[1], tokens, real)
        return GITOutput(patches, x, self.language_head(x))

    def step_function(self, image: Float[Tensor, "b c height width"]) -> ScoreNext:
        patches = self.embed_image(image)

        def read(step: DecodingStep) -> Float[Tensor, "n v"]:
            x = self.states(step.context(patches), patches.shape[1], step.tokens, step.mask, step.position)
            return self.language_head(x[:, -1])

        return read

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Float[Tensor, ""]]:
        """Each token but the first, from the image and earlier tokens. ``ValueError`` without a text."""
        check_pairs(batch)
        tokens, mask = batch["tokens"], batch.get("mask")
        logits = self(batch["image"], tokens, mask).token_logits
        return {"lm": caption_language_modelling(logits, tokens, mask, self.config.label_smoothing)}
