"""Frozen: a picture encoder learns to speak to a language model that does not change, in a few embeddings.

Paper: Tsimpoukelli et al. 2021, "Multimodal Few-Shot Learning with Frozen Language Models". No code was published.

Deviations: the picture encoder is a vision transformer, pooled, where the paper has an NF-ResNet-50; the language model
is GPT-2, where the paper has a much larger one with relative positions. So that words keep the places that
they have without a picture, as relative ones do, the prefix takes none, and it is told apart by what it holds; in the
preset ``gpt2`` it takes some. ``tiny`` is ours.
"""

from dataclasses import dataclass

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmlearn.layers import Config, ImageEncoder, ImageEncoderConfig
from mmlearn.models.bridges.bridge import (
    GPT2,
    TINY_IMAGE,
    TINY_LANGUAGE,
    GPT2Config,
    PrefixBridge,
    check_specials,
    in_turn,
)


@dataclass(frozen=True)
class FrozenConfig(Config):
    image_encoder: ImageEncoderConfig = ImageEncoderConfig()
    language_model: GPT2Config = GPT2Config()
    num_prefix: int = 2  # embeddings that stand for a picture
    prefix_positions: bool = False  # they take places of the language model, as words do

    PRESETS = {
        "tiny": dict(image_encoder=TINY_IMAGE, language_model=TINY_LANGUAGE, num_prefix=4),
        "gpt2": dict(prefix_positions=True),
    }


class Frozen(PrefixBridge):
    r"""A picture becomes a prefix of n embeddings; the language model reads it, and its gradient teaches the encoder.

    .. math:: (v_1, \dots, v_n) = \mathrm{reshape}(W\, \mathrm{pool}(\mathrm{encoder}(I))), \quad
       \log p_\theta(y \mid I) = \sum_l \log p_\theta(y_l \mid v_1, \dots, v_n, y_{<l})

    Only the encoder and W learn. Several pictures with their texts may stand before the last, which tell what is asked.
    Raises ``ValueError`` for no prefix. Source: the paper's method.
    """

    def __init__(self, config: FrozenConfig):
        super().__init__()
        check_specials(config)
        if config.num_prefix < 1:
            raise ValueError(f"num_prefix is at least 1, not {config.num_prefix}.")
        self.config = config
        self.image_encoder = ImageEncoder(config.image_encoder)
        self.prefix_projection = nn.Linear(config.image_encoder.width, config.num_prefix * config.language_model.width)
        self.language_model = GPT2(config.language_model).requires_grad_(False)

    def prefix(self, image: Float[Tensor, "b 3 height width"]) -> Float[Tensor, "b n d"]:
        tokens = self.image_encoder(image)
        pooled = tokens[:, 0] if self.config.image_encoder.class_token else tokens.mean(1)
        return self.prefix_projection(pooled).unflatten(1, (self.config.num_prefix, -1))

    def read_shots(
        self, image: Float[Tensor, "b s 3 height width"], tokens: Int[Tensor, "b s t"], mask: Bool[Tensor, "b s t"]
    ) -> Float[Tensor, "b s t v"]:
        """What comes after each token where pictures and texts stand in turn, and each sees all before it."""
        prefixes = self.prefix(image.flatten(0, 1)).unflatten(0, image.shape[:2])
        model, (s, t) = self.language_model, tokens.shape[1:]
        turns = in_turn(model, prefixes, tokens, mask, self.config.prefix_positions)
        return model.logits(model.read(turns.x, turns.real).unflatten(1, (s, -1))[:, :, -t:])
