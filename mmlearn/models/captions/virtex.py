"""VirTex: a convolutional network is pretrained by decoders that write captions in both directions.

Paper: Desai & Johnson 2021, "VirTex: Learning Visual Representations from Textual Annotations".
Official code: https://github.com/kdexd/virtex.

Deviations: the norm after the word embedding has the ε of all others, 1e-5, in the code 1e-8. The last norm of each
residual block starts at 1, in the official code at 0. One optimiser trains everything; the paper has other learning
rates for the network and for the decoders, and averages weights (Lookahead). ``tiny`` is ours: two small stages. Not
compared with released code: its decoder is PyTorch's, with which it is compared, and its network torchvision's.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmlearn.generation.cache import DecodingStep, ScoreNext
from mmlearn.layers import BERTEmbedding, BERTEncoderConfig, Config, Transformer
from mmlearn.layers.embeddings import check_image
from mmlearn.layers.language import TINY_BERT, initialise_as_bert
from mmlearn.models.captions.captioner import Captioner, check_pairs
from mmlearn.models.vision.resnet import RESNETS, ResNetConfig, resnet
from mmlearn.objectives import backwards, causal_language_modelling

TEXT: dict[str, Any] = dict(vocab_size=10_000, max_length=30, token_types=0, norm_epsilon=1e-5)


def textual_head(width: int, depth: int = 1) -> BERTEncoderConfig:
    """Heads of 64 features, as in all of the paper's decoders."""
    return BERTEncoderConfig(width=width, depth=depth, num_heads=width // 64, **TEXT)


@dataclass(frozen=True)
class VirTexConfig(Config):
    image: ResNetConfig = RESNETS["resnet-50"]
    text: BERTEncoderConfig = textual_head(1024)  # each decoder; both share the embedding of words
    image_size: int = 224  # pixels; others are read as well
    start_token: int = 1
    end_token: int = 2
    pad_token: int = 0

    PRESETS = {
        "tiny": dict(image=RESNETS["tiny"], image_size=64)
        | dict(text=BERTEncoderConfig(**TINY_BERT | dict(depth=1, token_types=0, norm_epsilon=1e-5))),
        "R50-L1-H512": dict(text=textual_head(512)),
        "R50-L1-H1024": dict(),
        "R50-L1-H2048": dict(text=textual_head(2048)),
        "R50-L4-H1024": dict(text=textual_head(1024, 4)),
    }


class VirTexOutput(NamedTuple):
    feature_map: Float[Tensor, "b p f"]  # row by row
    token_logits: Float[Tensor, "b t v"]  # at position i: of the token after token i
    backward_logits: Float[Tensor, "b t v"]  # the same of the text from its last token to its first


class VirTex(Captioner):
    r"""A residual network, and two decoders that attend to its feature map: one writes forwards and one backwards.

    .. math:: \ell = -\sum_{i=1}^{T+1} \log p(c_i \mid c_{0:i-1}, I; \phi_f)
       - \sum_{i=0}^{T} \log p(c_i \mid c_{i+1:T+1}, I; \phi_b)

    where :math:`c_0` starts a caption and :math:`c_{T+1}` ends it. Decoders are post-norm, and share the token table,
    which is also the output layer, its bias, the positions of words, and the projection of the feature map. What is
    kept is the network: :meth:`encode_image` is the mean of its last feature map. Padding, where ``mask`` is False,
    comes last. Raises ``ValueError`` for pictures that are not float (b, 3, height, width) or are smaller than a
    position of the feature map, and for texts longer than ``max_length``. Source: section 3 and figure 3.
    """

    def __init__(self, config: VirTexConfig):
        super().__init__()
        self.config, text = config, config.text
        self.image_encoder = resnet(config.image, nn.BatchNorm2d)
        self.image_projection = nn.Linear(config.image.widths[-1], text.width)
        self.embedding = BERTEmbedding(text)
        self.forward_decoder, self.backward_decoder = (Transformer(text, context_width=text.width) for _ in range(2))
        self.bias = nn.Parameter(torch.zeros(text.vocab_size))
        for part in (self.image_projection, self.embedding, self.forward_decoder, self.backward_decoder):
            part.apply(partial(initialise_as_bert, std=text.initial_std))

    def feature_map(self, image: Float[Tensor, "b 3 height width"]) -> Float[Tensor, "b p f"]:
        """The last feature map of each image, row by row."""
        check_image(image, self.config.image.stride)
        return rearrange(self.image_encoder(image), "b f row column -> b (row column) f")

    def encode_image(self, image: Float[Tensor, "b 3 height width"]) -> Float[Tensor, "b f"]:
        return self.feature_map(image).mean(1)

    def decode(
        self,
        decoder: Transformer,
        patches: Float[Tensor, "b p_or_0 d"],
        tokens: Int[Tensor, "b t"],
        mask: Bool[Tensor, "b all"] | None,
        position: Int[Tensor, "b t"] | None = None,
    ) -> Float[Tensor, "b t v"]:
        """Logits of a decoder after each token. ``patches`` is empty where its keys are in a cache."""
        x = decoder(self.embedding(tokens, position=position), mask, True, patches)
        return F.linear(x, self.embedding.tokens.weight, self.bias)

    def forward(
        self,
        image: Float[Tensor, "b 3 height width"],
        tokens: Int[Tensor, "b t"],
        mask: Bool[Tensor, "b t"] | None = None,
    ) -> VirTexOutput:
        feature_map = self.feature_map(image)  # (b, p, f)
        patches = self.image_projection(feature_map)  # (b, p, d)
        forward_logits = self.decode(self.forward_decoder, patches, tokens, mask)
        backward_logits = self.decode(self.backward_decoder, patches, backwards(tokens, mask), mask)
        return VirTexOutput(feature_map, forward_logits, backward_logits)

    def step_function(self, image: Float[Tensor, "b 3 height width"]) -> ScoreNext:
        patches = self.image_projection(self.feature_map(image))

        def read(step: DecodingStep) -> Float[Tensor, "n v"]:
            x = step.context(patches)
            return self.decode(self.forward_decoder, x, step.tokens, step.key_mask, step.position)[:, -1]

        return read

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Float[Tensor, ""]]:
        """``forward``: each token but the first, from earlier ones; ``backward``: each but the last, from later ones.
        ``ValueError`` without a text. Source: section 3, bicaptioning."""
        check_pairs(batch)
        tokens, mask = batch["tokens"], batch.get("mask")
        output = self(batch["image"], tokens, mask)
        return {
            "forward": causal_language_modelling(output.token_logits, tokens, mask),
            "backward": causal_language_modelling(output.backward_logits, backwards(tokens, mask), mask),
        }
