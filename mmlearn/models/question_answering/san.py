r"""SAN: a question attends to the cells of an image, and with what it found it attends again.

Paper: Yang et al. 2016, "Stacked Attention Networks for Image Question Answering".
Official code: https://github.com/zcyang/imageqa-san.

Deviations: widths, dropout and the number of hops are those of the code (``san_att_lstm_twolayer.py``), and equations
those of the paper, from which the code differs: there question and cell pass a tanh each alone, and so does the score,
the output gate multiplies the cell of the LSTM without a tanh, and questions are read from their last word. Weights
start as PyTorch's. Cells are encoded by two trained layers that do not see neighbours, plus a learned position, where
the paper takes the last pooling layer of a frozen VGG-19, 512 features of 14 × 14 cells. The question is read by an
LSTM; the paper also tries a convolutional network. The bias of a score is left out, because the softmax cancels it.
``tiny`` is ours. Not compared with released code: the published code is for another library; its picture network is
another.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from einops import einsum
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmlearn.layers import small_linear
from mmlearn.models.question_answering.vqa_blocks import TINY, GridEncoder, QuestionEncoder, VQAConfig, VQASystem


@dataclass(frozen=True)
class SANConfig(VQAConfig):
    width: int = 1024  # of the LSTM and of cells
    word_width: int = 500
    image_size: int = 448  # pixels
    dropout: float = 0.5  # before the answer
    hops: int = 2  # K
    attention_width: int = 512  # of the layer that compares question and cell

    PRESETS = {"tiny": TINY | dict(attention_width=64)}


class SANOutput(NamedTuple):
    answer_logits: Float[Tensor, "b answers"]
    maps: Float[Tensor, "b hops p"]  # the attention of each hop, which sums to 1


class AttentionHop(nn.Module):
    r"""One hop of attention: the question u is compared with each cell v_i, and adds what it attends to.

    .. math:: h_i = \tanh(W_v v_i + W_u u + b), \quad p = \mathrm{softmax}_i(w^\top h_i), \quad u' = u + \sum_i p_i v_i

    Returns u' (b, d) and p (b, p). Source: equations 15 to 22.
    """

    def __init__(self, width: int, attention_width: int):
        super().__init__()
        self.image_projection = nn.Linear(width, attention_width, bias=False)
        self.question_projection = nn.Linear(width, attention_width)
        self.score = nn.Linear(attention_width, 1, bias=False)

    def forward(
        self, u: Float[Tensor, "b d"], v: Float[Tensor, "b p d"]
    ) -> tuple[Float[Tensor, "b d"], Float[Tensor, "b p"]]:
        h = torch.tanh(self.image_projection(v) + self.question_projection(u)[:, None])  # (b, p, a)
        weights = self.score(h)[..., 0].softmax(-1)  # (b, p)
        return u + einsum(weights, v, "b p, b p d -> b d"), weights


class SAN(VQASystem):
    r"""``hops`` hops of attention, each from the query of the one before, and a softmax over the answers.

    .. math:: v_i = \tanh(W_I f_i + b_I), \quad u^0 = \mathrm{LSTM}(Q), \quad u^k = u^{k-1} + \sum_i p_i^k v_i, \quad
       z = W_u\, \mathrm{dropout}(u^K) + b_u

    Raises ``ValueError`` for ``hops`` below 1, for empty questions, and as :class:`~mmlearn.layers.ImageEmbedding`
    does. Source: section 3.
    """

    def __init__(self, config: SANConfig):
        super().__init__()
        if config.hops < 1:
            raise ValueError(f"hops is at least 1, got {config.hops}.")
        self.config = config
        self.image_encoder = GridEncoder(config)
        self.image_projection = nn.Linear(config.width, config.width)
        self.question_encoder = QuestionEncoder(config)
        self.hops = nn.ModuleList(AttentionHop(config.width, config.attention_width) for _ in range(config.hops))
        self.dropout = nn.Dropout(config.dropout)
        self.answer_head = small_linear(config.width, config.answers)

    def forward(
        self,
        image: Float[Tensor, "b 3 height width"],
        tokens: Int[Tensor, "b t"],
        mask: Bool[Tensor, "b t"] | None = None,
    ) -> SANOutput:
        v = torch.tanh(self.image_projection(self.image_encoder(image)))  # (b, p, d)
        u, maps = self.question_encoder(tokens, mask)[2], []  # u (b, d): the state after the last word
        for hop in self.hops:
            u, weights = hop(u, v)
            maps.append(weights)
        return SANOutput(self.answer_head(self.dropout(u)), torch.stack(maps, dim=1))
