"""MiniGPT-4: one linear layer between a pretrained Q-Former and a pretrained language model.

Paper: Zhu et al. 2023, "MiniGPT-4: Enhancing Vision-Language Understanding with Advanced Large Language Models".
Official code: https://github.com/Vision-CAIR/MiniGPT-4.

Deviations: the language model is GPT-2, where the paper takes Vicuna. The second stage learns instructions of several
kinds, where the paper has 3,500 long descriptions; the image comes before the text, not within it, and the words Human
and Assistant are left out. ``tiny`` is ours: words keep the positions that they have without an image. It needs a
pretrained Q-Former and a pretrained language model, because one layer alone learns nothing about either. Not compared
with released code: one linear layer between BLIP-2's Q-Former and GPT-2, which are compared.
"""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn

from mmlearn.layers import Config, ImageEncoder, ImageEncoderConfig
from mmlearn.layers.encoders import TINY_IMAGE
from mmlearn.models.bridges.bridge import TINY_LANGUAGE, GPT2Config, PrefixBridge, check_special_tokens
from mmlearn.models.bridges.q_former import TINY_QFORMER, QFormer, QFormerConfig


@dataclass(frozen=True)
class MiniGPT4Config(Config):
    image_encoder: ImageEncoderConfig = ImageEncoderConfig(
        1408, 39, 16, mlp_width=6144, patch_size=14, norm_epsilon=1e-6
    )
    query_former: QFormerConfig = QFormerConfig()
    language_model: GPT2Config = GPT2Config()
    prefix_positions: bool = True  # queries take positions of the language model, as words do

    PRESETS = {
        "tiny": dict(image_encoder=TINY_IMAGE, query_former=TINY_QFORMER, language_model=TINY_LANGUAGE)
        | dict(prefix_positions=False),
        "gpt2": dict(),
    }


class MiniGPT4(PrefixBridge):
    r"""The queries of a frozen Q-Former are projected to a frozen language model; only the projection learns.

    .. math:: p(x_i \mid I, x_{<i}) = \mathrm{LM}(W\, \mathrm{QFormer}(\mathrm{ViT}(I)) + b,\; x_{<i})

    Source: the paper's method; official code, ``minigpt4/models/mini_gpt4.py``.
    """

    def __init__(self, config: MiniGPT4Config):
        super().__init__()
        check_special_tokens(config)
        self.config = config
        self.image_encoder = ImageEncoder(config.image_encoder).requires_grad_(False)
        self.query_former = QFormer(config.query_former, config.image_encoder.width).requires_grad_(False)
        self.language_projection = nn.Linear(config.query_former.width, config.language_model.width)
        self.language_model = config.language_model.build().requires_grad_(False)

    def prefix(self, image: Float[Tensor, "b c height width"]) -> Float[Tensor, "b q d"]:
        return self.language_projection(self.query_former(self.image_encoder(image))[0])  # (b, q, image) → (b, q, d)
