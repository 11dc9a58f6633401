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
from torch import Tensor

from mmlearn.layers import Config, ImageEncoder, ImageEncoderConfig
from mmlearn.layers.encoders import TINY_IMAGE
from mmlearn.models.bridges.bridge import TINY_LANGUAGE, GPT2Config, PrefixBridge, check_special_tokens
from mmlearn.models.bridges.projector import Projector


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
        if config.skipped_blocks > config.image_encoder.depth:
            raise ValueError(f"Of {config.image_encoder.depth} blocks {config.skipped_blocks} cannot be skipped.")
        check_special_tokens(config)
        self.config = config
        self.image_encoder = ImageEncoder(config.image_encoder).requires_grad_(False)
        self.language_model = config.language_model.build()
        width = config.language_model.width
        self.projector = Projector(config, config.image_encoder.width, width, width)

    def patches(self, image: Float[Tensor, "b c height width"]) -> Float[Tensor, "b p image_width"]:
        """States of the patches before the last ``skipped_blocks``."""
        x = self.image_encoder.skip(image, self.config.skipped_blocks)  # (b, n, image_width)
        return x[:, int(self.config.image_encoder.class_token) :]  # without the class token

    def prefix(self, image: Float[Tensor, "b c height width"]) -> Float[Tensor, "b p d"]:
        return self.projector(self.patches(image))
