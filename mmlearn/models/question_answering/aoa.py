r"""AoA: attention always returns something; a second attention, a gate, decides how much of it answers the query.

Paper: Rahman et al. 2021, "An Improved Attention for Visual Question Answering" (the encoder and decoder are those of
Yu et al. 2019, "Deep Modular Co-Attention Networks", MCAN; the gate is that of Huang et al. 2019, "Attention on
Attention for Image Captioning"). The authors of the paper released no code that we found.

Deviations: ``tiny`` is ours. GridEncoder of the picture are read by layers that learn along, where the paper takes
regions of a frozen detector. Attention keeps its output layer before the gate, which the code of Attention on Attention
leaves out. Words have vectors that learn, the paper's begin as GloVe. One answer is right, learned by cross-entropy;
the paper learns soft scores by binary cross-entropy. How much each modality counts in the fusion is a softmax over two
scores of both vectors together: the paper says that it is learned and dynamic, and we had no code to compare with. Not
compared with released code: no code was published that we found.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from einops import einsum
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmlearn.layers import MLP, Attention, small_linear
from mmlearn.models.question_answering.vqa_blocks import TINY, GridEncoder, QuestionEncoder, VQAConfig, VQASystem


@dataclass(frozen=True)
class AoAConfig(VQAConfig):
    word_width: int = 300
    depth: int = 6  # layers of the encoder, and of the decoder
    num_heads: int = 8
    mlp_width: int = 2048
    fused_width: int = 1024
    dropout: float = 0.1

    PRESETS = {"tiny": TINY | dict(depth=1, num_heads=4, mlp_width=128, fused_width=64)}


class AoAOutput(NamedTuple):
    answer_logits: Float[Tensor, "b answers"]
    maps: Float[Tensor, "b p"]  # weights of cells in the image's vector; sums to 1
    modality_weights: Float[Tensor, "b 2"]  # of image and question in the fusion; sums to 1


class AttentionOnAttention(nn.Module):
    r"""Attention, whose result is gated by the query and the result itself.

    .. math:: \hat v = \mathrm{MultiHead}(q, X, X), \quad i = W^i [q; \hat v] + b^i, \quad
       g = \sigma(W^g [q; \hat v] + b^g), \quad \mathrm{AoA} = g \odot i

    A gate of 0 means that nothing in X is relevant to the query. Source: section 3.1; Huang et al. 2019, equations 3 to
    5.
    """

    def __init__(self, width: int, num_heads: int, dropout: float = 0.0):
        super().__init__()
        self.attention = Attention(width, num_heads, dropout=dropout)
        self.information = nn.Linear(2 * width, width)
        self.gate = nn.Linear(2 * width, width)

    def forward(
        self, q: Float[Tensor, "b q d"], x: Float[Tensor, "b n d"], mask: Bool[Tensor, "b n"] | None = None
    ) -> Float[Tensor, "b q d"]:
        both = torch.cat([q, self.attention(q, x, mask)], dim=-1)  # (b, q, 2 d)
        return torch.sigmoid(self.gate(both)) * self.information(both)  # (b, q, d)


class AoALayer(nn.Module):
    """Self-attention, guided attention to a ``guide`` if there is one, and an MLP; each is added, and normed."""

    def __init__(self, config: AoAConfig, guided: bool):
        super().__init__()
        width, dropout = config.width, config.dropout
        self.self_attention = AttentionOnAttention(width, config.num_heads, dropout)
        self.guided_attention = AttentionOnAttention(width, config.num_heads, dropout) if guided else None
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
        x = self.norms[0](x + self.dropout(self.self_attention(x, x, mask)))
        if self.guided_attention is not None:
            x = self.norms[1](x + self.dropout(self.guided_attention(x, guide, guide_mask)))
        return self.norms[-1](x + self.dropout(self.mlp(x)))


class AttentionReduction(nn.Module):
    r"""Many vectors pooled into one: :math:`\sum_i \mathrm{softmax}_i(\mathrm{MLP}(x_i))\, x_i`, and its weights.

    Source: Yu et al. 2019 (MCAN), equation 5.
    """

    def __init__(self, width: int):
        super().__init__()
        self.score = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1, bias=False))

    def forward(
        self, x: Float[Tensor, "b n d"], mask: Bool[Tensor, "b n"] | None = None
    ) -> tuple[Float[Tensor, "b d"], Float[Tensor, "b n"]]:
        scores = self.score(x)[..., 0]  # (b, n)
        if mask is not None:
            scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
        weights = scores.softmax(-1)
        return einsum(weights, x, "b n, b n d -> b d"), weights


class AoA(VQASystem):
    r"""An encoder of the question, a decoder of the image that it guides, and a gated fusion of both, pooled.

    .. math:: z = W\, \mathrm{LN}(\alpha_x W_x \tilde x + \alpha_y W_y \tilde y), \quad
       (\alpha_x, \alpha_y) = \mathrm{softmax}(W_\alpha [\tilde x; \tilde y] + b_\alpha)

    Raises ``ValueError`` for empty questions, and as :class:`~mmlearn.layers.ImageEmbedding` does.
    Source: section 3 and figure 2.
    """

    def __init__(self, config: AoAConfig):
        super().__init__()
        self.config = config
        width, fused = config.width, config.fused_width
        self.image_encoder = GridEncoder(config)
        self.question_encoder = QuestionEncoder(config)
        self.encoder = nn.ModuleList(AoALayer(config, guided=False) for _ in range(config.depth))
        self.decoder = nn.ModuleList(AoALayer(config, guided=True) for _ in range(config.depth))
        self.image_pooling, self.question_pooling = AttentionReduction(width), AttentionReduction(width)
        self.modality_score = nn.Linear(2 * width, 2)
        self.image_projection, self.question_projection = nn.Linear(width, fused), nn.Linear(width, fused)
        self.norm = nn.LayerNorm(fused)
        self.answer_head = small_linear(fused, config.answers)

    def forward(
        self,
        image: Float[Tensor, "b 3 height width"],
        tokens: Int[Tensor, "b t"],
        mask: Bool[Tensor, "b t"] | None = None,
    ) -> AoAOutput:
        y, mask, _ = self.question_encoder(tokens, mask)  # (b, t, d)
        x = self.image_encoder(image)  # (b, p, d)
        for layer in self.encoder:
            y = layer(y, mask)
        for layer in self.decoder:
            x = layer(x, guide=y, guide_mask=mask)
        (image, maps), (question, _) = self.image_pooling(x), self.question_pooling(y, mask)  # (b, d) each
        weights = self.modality_score(torch.cat([image, question], dim=-1)).softmax(-1)  # (b, 2)
        fused = weights[:, :1] * self.image_projection(image) + weights[:, 1:] * self.question_projection(question)
        return AoAOutput(self.answer_head(self.norm(fused)), maps, weights)
