"""Frames that read each other: positions from neighbours, then a transformer, as speech models have it.

Source: Baevski et al. 2020 (wav2vec 2.0), section 2; Shi et al. 2022 (AV-HuBERT), section 3.2.
"""

from jaxtyping import Bool, Float
from torch import Tensor, nn

from mmlearn.layers.padded import Padding, Transformer
from mmlearn.models.speech.encoder import ConvolutionalPositions


class ContextNetwork(nn.Module):
    """Frames (b, s, d), and positions by a wide convolution added to them, through ``depth`` blocks.

    ``mask`` says which frames are real; the others come out as 0. With ``norm_first`` blocks are pre-norm and a norm
    follows them; else they are post-norm and a norm comes before.
    Source: Baevski et al. 2020 (wav2vec 2.0), section 2 and official code.
    """

    def __init__(
        self,
        width: int,
        depth: int,
        num_heads: int,
        *,
        position_kernel: int,
        position_groups: int,
        norm_first: bool,
        dropout: float,
    ):
        super().__init__()
        self.norm_first = norm_first
        self.positions = ConvolutionalPositions(width, position_kernel, position_groups)
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(width)
        self.transformer = Transformer(width, depth, num_heads, norm_first=norm_first, dropout=dropout)

    def forward(self, x: Float[Tensor, "b s d"], mask: Bool[Tensor, "b s"]) -> Float[Tensor, "b s d"]:
        x = x.masked_fill(~mask[..., None], 0)  # positions look at neighbours, of which padding is none
        padding = Padding(mask)
        x = padding.remove(x + self.positions(x))
        x = self.dropout(x if self.norm_first else self.norm(x))
        for block in self.transformer.blocks:
            x = block(x, padding=padding)
        return padding.restore(self.norm(x) if self.norm_first else x)
