"""OFA: one encoder and decoder for all tasks, told in words what to do, over one vocabulary of words, places and codes.

Paper: Wang et al. 2022, "OFA: Unifying Architectures, Tasks, and Modalities Through a Simple Sequence-to-Sequence
Learning Framework". Official code: https://github.com/OFA-Sys/OFA.

Deviations: blocks are pre-norm as theirs, without the further norms and scales of heads (NormFormer) and without
relative places; places of words and of pictures are learned and added, where theirs go into scores of their own. What
is seen is normed once more before that, and places of pictures begin as sines, so that they are as large as what is
seen and those of a row or of a column have half in common. Codes are of any function of pictures, by default of colours
of patches, where theirs are of a VQGAN. Tasks are five of the paper's eight, with the first wordings of its code and
one more of ours.
``tiny`` is ours; ``base`` and ``large`` have the paper's widths and depths, and lack what is said here.
"""

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmlearn.layers import Transformer, TransformerConfig
from mmlearn.layers.embeddings import check_image, look_up
from mmlearn.models.many_tasks.unified_vocabulary import ImageTextSeq2Seq, Vocabulary, check_tokens
from mmlearn.models.vision.resnet import RESNETS, ResNetConfig, resnet


@dataclass(frozen=True)
class OFAConfig(Vocabulary, TransformerConfig):
    backbone: ResNetConfig = RESNETS["resnet-101"].without_last()
    image_size: int = 384  # pixels
    patch_size: int = 8  # pixels that a code stands for, each way
    vocab_size: int = 50_265  # words
    bins: int = 1000  # places
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
        """Places of the feature map in a row of a picture."""
        return -(-self.image_size // self.backbone.stride)


def waves(side: int, width: int) -> Float[Tensor, "places width"]:
    r"""Places of a square grid, row by row: one half of the features says the row, the other half the column.

    .. math:: [\sin \omega_k y,\; \cos \omega_k y,\; \sin \omega_k x,\; \cos \omega_k x], \quad
       \omega_k = \frac{\pi k}{2}, \; k = 1, \dots, d/4

    x and y are shares of the picture, of a place's middle. The rates of
    :func:`~mmlearn.layers.positions.sinusoidal_grid`, made for long grids, would leave most features nearly equal on a
    small one. Raises ``ValueError`` where ``width`` is no multiple of four. Source: ours.
    """
    if width % 4:
        raise ValueError(f"Sines and cosines of two axes need a width that is a multiple of 4, got {width}.")
    angle = torch.pi / 2 * (torch.arange(side)[:, None] + 0.5) / side * torch.arange(1, width // 4 + 1)
    axis = torch.cat([angle.sin(), angle.cos()], 1)
    return torch.cat([axis.repeat_interleave(side, 0), axis.repeat(side, 1)], 1)


class OFA(ImageTextSeq2Seq):
    r"""Places of a feature map and words, side by side, through an encoder; a decoder that writes any token.

    .. math:: p(y \mid I, x) = \prod_i p(y_i \mid y_{<i},\, \mathrm{Enc}([\mathrm{ResNet}(I); x]))

    The token table is the last layer as well. ``mask`` is True where a token is real. Without an ``image`` a text is
    read alone. ``backbone`` stands in for the residual network of the configuration: it makes the last of its widths at
    each place of a map of the same size. Raises ``ValueError`` for tokens, boxes and pictures that do not fit.
    Source: sections 3.1 and 3.2.
    """

    def __init__(self, config: OFAConfig, backbone: nn.Module | None = None):
        super().__init__()
        self.config = config
        width = config.width
        self.backbone = backbone or resnet(config.backbone, nn.BatchNorm2d)
        normed = nn.LayerNorm(width, config.norm_epsilon)
        self.image_projection = nn.Sequential(nn.Linear(config.backbone.widths[-1], width), normed)
        self.tokens = nn.Embedding(config.all_tokens, width)
        self.kinds = nn.Parameter(torch.randn(2, width) * width**-0.5)  # of a picture, of a text
        self.image_positions = nn.Parameter(waves(config.side, width))
        self.text_positions = nn.Parameter(torch.randn(config.max_length, width) * width**-0.5)
        self.target_positions = nn.Parameter(torch.randn(config.max_length, width) * width**-0.5)
        self.dropout = nn.Dropout(config.dropout)
        self.encoder = Transformer(config)
        self.decoder = Transformer(replace(config, depth=config.decoder_depth), context_width=width)
        norms = (nn.LayerNorm(width, config.norm_epsilon) for _ in range(5))
        self.image_norm, self.text_norm, self.target_norm, self.encoder_norm, self.decoder_norm = norms
        nn.init.normal_(self.tokens.weight, std=width**-0.5)

    def see(self, image: Float[Tensor, "b 3 height width"]) -> Float[Tensor, "b p d"]:
        """A picture's places as tokens. ``ValueError`` for a picture of another size."""
        check_image(image, 1)
        features = self.backbone(image)
        if features.shape[2:] != (self.config.side,) * 2:
            size = self.config.image_size
            raise ValueError(f"Pictures are {size} × {size} pixels here, got {tuple(image.shape[2:])}: resize them.")
        return self.image_projection(rearrange(features, "b c row column -> b (row column) c")) + self.image_positions

    def encode(
        self,
        image: Float[Tensor, "b 3 height width"] | None,
        tokens: Int[Tensor, "b t"],
        mask: Bool[Tensor, "b t"] | None = None,
    ) -> tuple[Float[Tensor, "b n d"], Bool[Tensor, "b n"]]:
        """What is read, and which of it is real: places of the picture, if there is one, then words."""
        check_tokens(tokens, self.config, self.config.max_length)
        mask = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask
        x = self.text_norm(look_up(self.tokens, tokens) + self.text_positions[: tokens.shape[1]] + self.kinds[1])
        if image is not None:
            seen = self.image_norm(self.see(image) + self.kinds[0])
            x, mask = torch.cat([seen, x], 1), F.pad(mask, (seen.shape[1], 0), value=True)
        return self.encoder_norm(self.encoder(self.dropout(x), mask)), mask

    def decode(
        self,
        target: Int[Tensor, "b q"],
        context: Float[Tensor, "b n_or_0 d"],
        mask: Bool[Tensor, "b n"],
        position: Int[Tensor, "b q"] | None = None,
        target_mask: Bool[Tensor, "b o"] | None = None,
    ) -> Float[Tensor, "b q v"]:
        """Logits of what follows each token of a target, which begins with the start token."""
        x = self.dropout(self.target_norm(self.placed(target, position, target_mask)))
        x = self.decoder_norm(self.decoder(x, target_mask, True, context, mask))
        return F.linear(x, self.tokens.weight)
