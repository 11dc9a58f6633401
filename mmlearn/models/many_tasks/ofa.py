"""OFA: one encoder and decoder for all tasks, instructed in words, over a vocabulary of words, locations and codes.

Paper: Wang et al. 2022, "OFA: Unifying Architectures, Tasks, and Modalities Through a Simple Sequence-to-Sequence
Learning Framework". Official code: https://github.com/OFA-Sys/OFA.

Deviations: blocks are pre-norm as theirs, without the further norms and head scales (NormFormer) and without relative
positions; positions of words and of images are learned and added, where theirs have attention scores of their own.
Features of the image are normed once more before that, and its positions start as sines, so that they are as large as
features, and those of a row or of a column have half of their features in common. Codes pass the norm of words, there
one of their own, and attention weights drop out as all else does, there not at all. Codes are those of any function of
images, by default of colours of patches, where theirs are of a VQGAN. There are five of the paper's eight tasks, with
the first instructions of its code and one more of ours. ``tiny`` is ours; ``base`` and ``large`` have the paper's
widths and depths, with these deviations. Not compared with released code: its norms, its positions and its codes are
others.
"""

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmlearn.layers import Transformer, TransformerConfig
from mmlearn.layers.embeddings import check_image, look_up
from mmlearn.layers.positions import harmonic_grid
from mmlearn.models.many_tasks.unified_vocabulary import ImageTextSeq2Seq, Vocabulary, check_tokens
from mmlearn.models.vision.resnet import RESNETS, ResNetConfig, resnet


@dataclass(frozen=True)
class OFAConfig(Vocabulary, TransformerConfig):
    backbone: ResNetConfig = RESNETS["resnet-101"].without_last()
    image_size: int = 384  # pixels
    patch_size: int = 8  # pixels that a code stands for, each way
    vocab_size: int = 50_265  # words
    bins: int = 1000  # locations
    codes: int = 8192
    max_length: int = 1024  # tokens of a text, and of a target
    text_start: int = 0
    start_token: int = 0  # of a target
    end_token: int = 2
    pad_token: int = 1
    width: int = 768
    depth: int = 6
    decoder_depth: int = 6
    num_heads: int = 12
    dropout: float = 0.1

    PRESETS = {
        "tiny": dict(backbone=RESNETS["tiny"], image_size=64, vocab_size=512, bins=64, codes=64, max_length=64)
        | dict(text_start=1, start_token=1, pad_token=0, width=64, depth=2, decoder_depth=2, num_heads=4, dropout=0.0),
        "base": dict(),
        "large": dict(backbone=RESNETS["resnet-152"].without_last(), width=1024, num_heads=16)
        | dict(depth=12, decoder_depth=12),
    }

    @property
    def side(self) -> int:
        """Positions of the feature map in a row of an image."""
        return -(-self.image_size // self.backbone.stride)


class OFA(ImageTextSeq2Seq):
    r"""A feature map and words, one sequence, through an encoder; a decoder that writes any token.

    .. math:: p(y \mid I, x) = \prod_i p(y_i \mid y_{<i},\, \mathrm{Enc}([\mathrm{ResNet}(I); x]))

    The token table is the last layer as well. ``mask`` is True where a token is real. Without an ``image`` a text is
    read alone. ``backbone`` replaces the residual network of the configuration: its feature map must have the same
    shape. Raises ``ValueError`` for tokens, boxes and pictures that do not fit.
    Source: sections 3.1 and 3.2.
    """

    def __init__(self, config: OFAConfig, backbone: nn.Module | None = None):
        super().__init__()
        self.config = config
        width = config.width
        self.backbone = backbone or resnet(config.backbone, nn.BatchNorm2d)
        norm = nn.LayerNorm(width, config.norm_epsilon)
        self.image_projection = nn.Sequential(nn.Linear(config.backbone.widths[-1], width), norm)
        self.tokens = nn.Embedding(config.all_tokens, width)
        self.type_embeddings = nn.Parameter(torch.randn(2, width) * width**-0.5)  # of an image, of a text
        self.image_positions = nn.Parameter(harmonic_grid(config.side, width))
        self.text_positions = nn.Parameter(torch.randn(config.max_length, width) * width**-0.5)
        self.target_positions = nn.Parameter(torch.randn(config.max_length, width) * width**-0.5)
        self.dropout = nn.Dropout(config.dropout)
        self.encoder = Transformer(config)
        self.decoder = Transformer(replace(config, depth=config.decoder_depth), context_width=width)
        norms = (nn.LayerNorm(width, config.norm_epsilon) for _ in range(5))
        self.image_norm, self.text_norm, self.target_norm, self.encoder_norm, self.decoder_norm = norms
        nn.init.normal_(self.tokens.weight, std=width**-0.5)

    def embed_image(self, image: Float[Tensor, "b 3 height width"]) -> Float[Tensor, "b p d"]:
        """An image as tokens, with positions. ``ValueError`` for an image of another size."""
        check_image(image, 1)
        features = self.backbone(image)  # (b, c, row, column)
        if features.shape[2:] != (self.config.side,) * 2:
            size = self.config.image_size
            raise ValueError(f"Pictures are {size} × {size} pixels here, got {tuple(image.shape[2:])}: resize them.")
        x = self.image_projection(rearrange(features, "b c row column -> b (row column) c"))  # (b, p, d)
        return x + self.image_positions

    def encode(
        self,
        image: Float[Tensor, "b 3 height width"] | None,
        tokens: Int[Tensor, "b t"],
        mask: Bool[Tensor, "b t"] | None = None,
    ) -> tuple[Float[Tensor, "b n d"], Bool[Tensor, "b n"]]:
        """The states of the image, if there is one, then of words; and their mask."""
        check_tokens(tokens, self.config, self.config.max_length)
        mask = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask
        x = self.text_norm(
            look_up(self.tokens, tokens) + self.text_positions[: tokens.shape[1]] + self.type_embeddings[1]
        )
        if image is not None:
            image_tokens = self.image_norm(self.embed_image(image) + self.type_embeddings[0])
            x = torch.cat([image_tokens, x], 1)  # (b, p + t, d)
            mask = F.pad(mask, (image_tokens.shape[1], 0), value=True)
        return self.encoder_norm(self.encoder(self.dropout(x), mask)), mask

    def decode(
        self,
        target: Int[Tensor, "b q"],
        context: Float[Tensor, "b n_or_0 d"],
        mask: Bool[Tensor, "b n"],
        position: Int[Tensor, "b q"] | None = None,
        target_mask: Bool[Tensor, "b o"] | None = None,
    ) -> Float[Tensor, "b q v"]:
        """Logits of the next token after each token of a target, which begins with the start token."""
        x = self.dropout(self.target_norm(self.embed_target(target, position, target_mask)))
        x = self.decoder_norm(self.decoder(x, target_mask, True, context, mask))
        return F.linear(x, self.tokens.weight)
