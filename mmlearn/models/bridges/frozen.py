"""Frozen: an image encoder learns to prompt a frozen language model, by a few embeddings.

Paper: Tsimpoukelli et al. 2021, "Multimodal Few-Shot Learning with Frozen Language Models". No code was published.

Deviations: the image encoder is a vision transformer, pooled, where the paper has an NF-ResNet-50; the language model
is GPT-2, where the paper has a much larger one with relative positions. The prefix takes no positions, so that words
keep the positions that they have without an image, as relative ones do; in the preset ``gpt2`` it takes some. ``tiny``
is ours. Not compared with released code: no code was published, nor was its language model.
"""

from dataclasses import dataclass

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmlearn.layers import Config, ImageEncoder, ImageEncoderConfig
from mmlearn.layers.encoders import TINY_IMAGE
from mmlearn.models.bridges.bridge import TINY_LANGUAGE, GPT2Config, PrefixBridge, check_special_tokens, interleave


@dataclass(frozen=True)
class FrozenConfig(Config):
    image_encoder: ImageEncoderConfig = ImageEncoderConfig()
    language_model: GPT2Config = GPT2Config()
    num_prefix: int = 2  # embeddings of an image
    prefix_positions: bool = False  # they take positions of the language model, as words do

    PRESETS = {
        "tiny": dict(image_encoder=TINY_IMAGE, language_model=TINY_LANGUAGE, num_prefix=4),
        "gpt2": dict(prefix_positions=True),
    }


class Frozen(PrefixBridge):
    r"""An image becomes a prefix of n embeddings; the gradient of the frozen language model trains the encoder.

    .. math:: (v_1, \dots, v_n) = \mathrm{reshape}(W\, \mathrm{pool}(\mathrm{encoder}(I))), \quad
       \log p_\theta(y \mid I) = \sum_l \log p_\theta(y_l \mid v_1, \dots, v_n, y_{<l})

    Only the encoder and W learn. Several images with their texts may come before the last one, as few-shot examples.
    Raises ``ValueError`` for ``num_prefix`` below 1. Source: the paper's method.
    """

    def __init__(self, config: FrozenConfig):
        super().__init__()
        check_special_tokens(config)
        if config.num_prefix < 1:
            raise ValueError(f"num_prefix is at least 1, not {config.num_prefix}.")
        self.config = config
        self.image_encoder = ImageEncoder(config.image_encoder)
        self.prefix_projection = nn.Linear(config.image_encoder.width, config.num_prefix * config.language_model.width)
        self.language_model = config.language_model.build().requires_grad_(False)

    def prefix(self, image: Float[Tensor, "b c height width"]) -> Float[Tensor, "b n d"]:
        tokens = self.image_encoder(image)  # (b, p, image_width)
        pooled = tokens[:, 0] if self.config.image_encoder.class_token else tokens.mean(1)  # (b, image_width)
        return self.prefix_projection(pooled).unflatten(1, (self.config.num_prefix, -1))

    def read_shots(
        self, image: Float[Tensor, "b s c height width"], tokens: Int[Tensor, "b s t"], mask: Bool[Tensor, "b s t"]
    ) -> Float[Tensor, "b s t v"]:
        """Logits of the next token after each token of interleaved images and texts."""
        prefixes = self.prefix(image.flatten(0, 1)).unflatten(0, image.shape[:2])  # (b, s, n, d)
        model, (s, t) = self.language_model, tokens.shape[1:]
        sequence = interleave(model, prefixes, tokens, mask, self.config.prefix_positions)
        states = model.read(sequence.x, sequence.mask).unflatten(1, (s, -1))  # (b, s, n + t, d)
        return model.logits(states[:, :, -t:])  # of words alone
