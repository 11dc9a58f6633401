r"""AoA: attention always returns something; a second attention, a gate, decides how much of it answers the query.

Paper: Rahman et al. 2021, "An Improved Attention for Visual Question Answering" (the encoder and decoder are those of
Yu et al. 2019, "Deep Modular Co-Attention Networks", MCAN; the gate is that of Huang et al. 2019, "Attention on
Attention for Image Captioning"). The authors of the paper released no code that we found.

Deviations: ``tiny`` is ours. Cells of the picture are read by layers that learn along, where the paper takes regions of
a frozen detector. Words have vectors that learn, the paper's begin as GloVe. One answer is right, learned by
cross-entropy; the paper learns soft scores by binary cross-entropy. How much each modality counts in the fusion is a
softmax over two scores of both vectors together: the paper says that it is learned and dynamic, and we had no code to
compare with.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from einops import einsum
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmlearn.layers import MLP, Attention, small_linear
from mmlearn.models.question_answering.vqa_blocks import TINY, Answerer, AnsweringConfig, Cells, QuestionEncoder


@dataclass(frozen=True)
class AoAConfig(AnsweringConfig):
    word_width: int = 300
    depth: int = 6  # layers of the encoder, and of the decoder
    num_heads: int = 8
    mlp_width: int = 2048
    fused_width: int = 1024
    dropout: float = 0.1

    PRESETS = {"tiny": TINY | dict(depth=1, num_heads=4, mlp_width=128, fused_width=64)}


class AoAOutput(NamedTuple):
    answer_logits: Float[Tensor, "b answers"]
    maps: Float[Tensor, "b p"]  # how much each cell counts in the picture's vector; sums to 1
    shares: Float[Tensor, "b 2"]  # how much the picture and the question count; sums to 1


class AttentionOnAttention(nn.Module):
    r"""Attention, and beside the query a gate on what it found.

    .. math:: \hat v = \mathrm{MultiHead}(q, X, X), \quad i = W^i [q; \hat v] + b^i, \quad
       g = \sigma(W^g [q; \hat v] + b^g), \quad \mathrm{AoA} = g \odot i

    A gate of 0 says that nothing in X belongs to the query. Source: section 3.1; Huang et al. 2019, equations 3 to 5.
    """

    def __init__(self, width: int, num_heads: int, dropout: float = 0.0):
        super().__init__()
        self.attention = Attention(width, num_heads, dropout=dropout)
        self.information = nn.Linear(2 * width, width)
        self.gate = nn.Linear(2 * width, width)

    def forward(
        self, q: Float[Tensor, "b q d"], x: Float[Tensor, "b n d"], mask: Bool[Tensor, "b n"] | None = None
    ) -> Float[Tensor, "b q d"]:
        both = torch.cat([q, self.attention(q, x, mask)], dim=-1)
        return torch.sigmoid(self.gate(both)) * self.information(both)


class AoALayer(nn.Module):
    """Attention on attention to itself, then to a ``guide`` where there is one, then an MLP; each added, and normed."""

    def __init__(self, config: AoAConfig, guided: bool):
        super().__init__()
        width, dropout = config.width, config.dropout
        self.own = AttentionOnAttention(width, config.num_heads, dropout)
        self.guided = AttentionOnAttention(width, config.num_heads, dropout) if guided else None
        self.mlp = MLP(width, config.mlp_width, "relu")
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2 + guided))
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        x: Float[Tensor, "b n d"],
        mask: Bool[Tensor, "b n"] | None = None,
        guide: Float[Tensor, "b m d"] | None = None,
        guide_mask: Bool[Tensor, "b m"] | None = None,
    ) -> Float[Tensor, "b n d"]:
        x = self.norms[0](x + self.dropout(self.own(x, x, mask)))
        if self.guided is not None:
            x = self.norms[1](x + self.dropout(self.guided(x, guide, guide_mask)))
        return self.norms[-1](x + self.dropout(self.mlp(x)))


class Reduction(nn.Module):
    r"""Many vectors as one: :math:`\sum_i \mathrm{softmax}_i(\mathrm{MLP}(x_i))\, x_i`, and its weights.

    Source: Yu et al. 2019 (MCAN), equation 5.
    """

    def __init__(self, width: int):
        super().__init__()
        self.score = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1, bias=False))

    def forward(
        self, x: Float[Tensor, "b n d"], mask: Bool[Tensor, "b n"] | None = None
    ) -> tuple[Float[Tensor, "b d"], Float[Tensor, "b n"]]:
        scores = self.score(x)[..., 0]
        if mask is not None:
            scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
        weights = scores.softmax(-1)
        return einsum(weights, x, "b n, b n d -> b d"), weights


class AoA(Answerer):
    r"""The question reads itself; the picture reads itself and, guided, the question; both become one vector and fuse.

    .. math:: z = W\, \mathrm{LN}(\alpha_x W_x \tilde x + \alpha_y W_y \tilde y), \quad
       (\alpha_x, \alpha_y) = \mathrm{softmax}(W_\alpha [\tilde x; \tilde y] + b_\alpha)

    Raises ``ValueError`` for empty questions, and as :class:`~mmlearn.layers.ImageEmbedding` does.
    Source: section 3 and figure 2.
    """

    def __init__(self, config: AoAConfig):
        super().__init__()
        self.config = config
        width, fused = config.width, config.fused_width
        self.cells = Cells(config)
        self.reader = QuestionEncoder(config)
        self.encoder = nn.ModuleList(AoALayer(config, guided=False) for _ in range(config.depth))
        self.decoder = nn.ModuleList(AoALayer(config, guided=True) for _ in range(config.depth))
        self.picture, self.question = Reduction(width), Reduction(width)
        self.shares = nn.Linear(2 * width, 2)
        self.picture_projection, self.question_projection = nn.Linear(width, fused), nn.Linear(width, fused)
        self.norm = nn.LayerNorm(fused)
        self.answer_head = small_linear(fused, config.answers)

    def forward(
        self,
        tokens: Int[Tensor, "b t"],
        image: Float[Tensor, "b 3 height width"],
        mask: Bool[Tensor, "b t"] | None = None,
    ) -> AoAOutput:
        y, mask, _ = self.reader(tokens, mask)
        x = self.cells(image)
        for layer in self.encoder:
            y = layer(y, mask)
        for layer in self.decoder:
            x = layer(x, guide=y, guide_mask=mask)
        (picture, maps), (question, _) = self.picture(x), self.question(y, mask)
        shares = self.shares(torch.cat([picture, question], dim=-1)).softmax(-1)
        fused = shares[:, :1] * self.picture_projection(picture) + shares[:, 1:] * self.question_projection(question)
        return AoAOutput(self.answer_head(self.norm(fused)), maps, shares)
