r"""SAN: a question looks at the cells of a picture, and with what it saw it looks again.

Paper: Yang et al. 2016, "Stacked Attention Networks for Image Question Answering".
Official code: https://github.com/zcyang/imageqa-san.

Deviations: ``tiny`` is ours. Cells are read by two layers that learn along and see no neighbours, with a learned place,
where the paper takes the last pooling layer of a frozen VGG-19. The question is read by an LSTM; the paper also tries a
convolutional network. The bias of a score is left out, because a softmax does not see it.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from einops import einsum
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmlearn.layers import small_linear
from mmlearn.models.question_answering.vqa_blocks import TINY, Answerer, AnsweringConfig, Cells, QuestionEncoder


@dataclass(frozen=True)
class SANConfig(AnsweringConfig):
    hops: int = 2  # looks, K
    attention_width: int = 512  # of the layer that compares question and cell

    PRESETS = {"tiny": TINY | dict(attention_width=64)}


class SANOutput(NamedTuple):
    answer_logits: Float[Tensor, "b answers"]
    maps: Float[Tensor, "b hops p"]  # where each look goes; a look sums to 1


class Look(nn.Module):
    r"""One look: the question u is compared with each cell v_i, and takes along what it finds.

    .. math:: h_i = \tanh(W_v v_i + W_u u + b), \quad p = \mathrm{softmax}_i(w^\top h_i), \quad u' = u + \sum_i p_i v_i

    Returns u' (b, d) and p (b, p). Source: equations 15 to 22.
    """

    def __init__(self, width: int, attention_width: int, dropout: float = 0.0):
        super().__init__()
        self.cells = nn.Linear(width, attention_width, bias=False)
        self.question = nn.Linear(width, attention_width)
        self.score = nn.Linear(attention_width, 1, bias=False)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, u: Float[Tensor, "b d"], v: Float[Tensor, "b p d"]
    ) -> tuple[Float[Tensor, "b d"], Float[Tensor, "b p"]]:
        h = torch.tanh(self.cells(v) + self.question(u)[:, None])
        weights = self.score(self.dropout(h))[..., 0].softmax(-1)
        return u + einsum(weights, v, "b p, b p d -> b d"), weights


class SAN(Answerer):
    r"""``hops`` looks, of which each begins with what the one before found, and a softmax over the answers.

    .. math:: v_i = \tanh(W_I f_i + b_I), \quad u^0 = \mathrm{LSTM}(Q), \quad u^k = u^{k-1} + \sum_i p_i^k v_i, \quad
       z = W_u u^K + b_u

    Raises ``ValueError`` for no look, for empty questions, and as :class:`~mmlearn.layers.ImageEmbedding` does.
    Source: section 3.
    """

    def __init__(self, config: SANConfig):
        super().__init__()
        if config.hops < 1:
            raise ValueError(f"hops is at least 1, got {config.hops}.")
        self.config = config
        self.cells = Cells(config)
        self.picture = nn.Linear(config.width, config.width)
        self.reader = QuestionEncoder(config)
        self.looks = nn.ModuleList(
            Look(config.width, config.attention_width, config.dropout) for _ in range(config.hops)
        )
        self.answer_head = small_linear(config.width, config.answers)

    def forward(
        self,
        tokens: Int[Tensor, "b t"],
        image: Float[Tensor, "b 3 height width"],
        mask: Bool[Tensor, "b t"] | None = None,
    ) -> SANOutput:
        v = torch.tanh(self.picture(self.cells(image)))
        u, maps = self.reader(tokens, mask)[2][:, -1], []
        for look in self.looks:
            u, weights = look(u, v)
            maps.append(weights)
        return SANOutput(self.answer_head(u), torch.stack(maps, dim=1))
