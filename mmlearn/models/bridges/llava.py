"""LLaVA: patches of an image, projected to the space of words, read by a language model that follows instructions.

Papers: Liu et al. 2023, "Visual Instruction Tuning"; Liu et al. 2024, "Improved Baselines with Visual Instruction
Tuning" (LLaVA-1.5), for the projector of two layers. Official code: https://github.com/haotian-liu/LLaVA.

Deviations: the language model is GPT-2, where the papers take Vicuna, and the image encoder is a vision transformer of
any size, not CLIP's ViT-L/14 alone. An image comes before its text, where theirs is part of the first turn, and there
is no system message. Instructions and responses follow each other without the words USER and ASSISTANT. ``tiny`` is
ours: words keep the positions that they have without an image, and its projector reads the last block. The presets with
published names of GPT-2 are ours as well.
"""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn

from mmlearn.layers import Config, ImageEncoder, ImageEncoderConfig
from mmlearn.layers.activations import activation_called
from mmlearn.layers.encoders import TINY_IMAGE
from mmlearn.models.bridges.bridge import GPT2, TINY_LANGUAGE, GPT2Config, PrefixBridge, check_special_tokens


@dataclass(frozen=True)
class LLaVAConfig(Config):
    image_encoder: ImageEncoderConfig = ImageEncoderConfig(
        1024, 24, 16, image_size=336, patch_size=14, embedding_norm=True, activation="quick_gelu"
    )
    language_model: GPT2Config = GPT2Config()
    projector_layers: int = 2  # 1: a matrix, as in the first paper
    projector_activation: str = "gelu"
    projector_bias: bool = True
    skipped_blocks: int = 1  # last blocks of the image encoder that are left out: earlier ones keep more detail
    prefix_positions: bool = True  # patches take positions of the language model, as words do

    PRESETS = {
        "tiny": dict(image_encoder=TINY_IMAGE, language_model=TINY_LANGUAGE, skipped_blocks=0, prefix_positions=False),
        "gpt2": dict(),
        "gpt2-xl": dict(language_model=GPT2Config(**GPT2Config.PRESETS["xl"])),
    }


class Projector(nn.Module):
    """One linear layer, or two with an activation between them, as wide as the language model."""

    def __init__(self, config: LLaVAConfig):
        super().__init__()
        width, bias = config.language_model.width, config.projector_bias
        self.first = nn.Linear(config.image_encoder.width, width, bias=bias)
        self.second = nn.Linear(width, width, bias=bias) if config.projector_layers == 2 else None
        self.activation = activation_called(config.projector_activation)

    def forward(self, x: Float[Tensor, "b p image_width"]) -> Float[Tensor, "b p d"]:
        # (b, p, image_width) → (b, p, d)
        return self.first(x) if self.second is None else self.second(self.activation(self.first(x)))


class LLaVA(PrefixBridge):
    r"""Each patch of the image becomes an embedding that the language model reads as it reads a word.

    .. math:: H_v = W_2\, \phi(W_1 Z_v), \quad
       p(X_a \mid X_v, X_{instruct}) = \prod_i p(x_i \mid H_v, X_{instruct, <i}, X_{a, <i})

    ``Z_v`` are the states of patches before the last ``skipped_blocks``, without a class token. The picture encoder
    never learns. Raises ``ValueError`` for a projector of other than one or two layers, and for more blocks skipped
    than there are. Source: Liu et al. 2023, section 4.1, equation 1 (there with one matrix; Liu et al. 2024 took two
    layers), and section 4.2, equation 3.
    """

    def __init__(self, config: LLaVAConfig):
        super().__init__()
        if config.projector_layers not in (1, 2):
            raise ValueError(f"projector_layers is 1 or 2, not {config.projector_layers}.")
        if config.skipped_blocks > config.image_encoder.depth:
            raise ValueError(f"Of {config.image_encoder.depth} blocks {config.skipped_blocks} cannot be skipped.")
        check_special_tokens(config)
        self.config = config
        self.image_encoder = ImageEncoder(config.image_encoder).requires_grad_(False)
        self.language_model = GPT2(config.language_model)
        self.projector = Projector(config)

    def patches(self, image: Float[Tensor, "b 3 height width"]) -> Float[Tensor, "b p image_width"]:
        """States of the patches before the last ``skipped_blocks``."""
        encoder = self.image_encoder
        x = encoder.embedding_norm(encoder.embedding(image))  # (b, n, image_width)
        for block in encoder.transformer.blocks[: len(encoder.transformer.blocks) - self.config.skipped_blocks]:
            x = block(x)
        return x[:, int(self.config.image_encoder.class_token) :]  # without the class token

    def prefix(self, image: Float[Tensor, "b 3 height width"]) -> Float[Tensor, "b p d"]:
        return self.projector(self.patches(image))
