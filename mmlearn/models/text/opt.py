"""OPT: GPT-3 rebuilt in the open, and the language model that BLIP-2 speaks through. What differs from GPT-2 is here.

Paper: Zhang et al. 2022, "OPT: Open Pre-trained Transformer Language Models". Official code:
https://github.com/facebookresearch/metaseq.

Four things differ from GPT-2: the MLP has a ReLU; positions begin at row 2 of their table, as in RoBERTa; embeddings
are not dropped; a text begins with the token that also ends it, ``</s>``, and is padded with another. The model of 350M
parameters differs twice more: its norms follow each branch, and its token table is narrower than its blocks.

Deviations: weights start as in :class:`~mmlearn.models.text.gpt2.GPT2`, where the paper has normals of deviation 0.006.
``tiny`` is ours.
"""

from dataclasses import dataclass

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from mmlearn.layers import TextEmbedding
from mmlearn.models.text.gpt2 import GPT2, GPT2Config


@dataclass(frozen=True)
class OPTConfig(GPT2Config):
    vocab_size: int = 50_272
    max_length: int = 2048
    start_token: int = 2
    end_token: int = 2
    pad_token: int = 1
    activation: str = "relu"
    attention_dropout: float | None = 0.0
    embedding_width: int | None = None  # of the token table, where that is narrower than the blocks

    PRESETS = {
        "tiny": GPT2Config.PRESETS["tiny"],
        "125m": dict(),
        "350m": dict(width=1024, depth=24, num_heads=16, embedding_width=512, norm_first=False),
        "1.3b": dict(width=2048, depth=24, num_heads=32),
        "2.7b": dict(width=2560, depth=32, num_heads=32),
        "6.7b": dict(width=4096, depth=32, num_heads=32),
        "13b": dict(width=5120, depth=40, num_heads=40),
        "30b": dict(width=7168, depth=48, num_heads=56),
    }

    def build(self) -> "OPT":
        """An OPT."""
        return OPT(self)


class OPTEmbedding(TextEmbedding):
    """Token + position embeddings; a narrower token table is projected to the width of the blocks."""

    def __init__(self, config: OPTConfig):
        super().__init__(config.vocab_size, config.width, config.max_length, first_position=2)
        self.projection = None
        if config.embedding_width is not None:
            self.tokens = nn.Embedding(config.vocab_size, config.embedding_width)
            self.projection = nn.Linear(config.embedding_width, config.width, bias=False)
            nn.init.normal_(self.tokens.weight, std=0.02)
        self.tokens.padding_idx = config.pad_token  # whose vector does not learn by being looked up

    def words(self, tokens: Int[Tensor, "b t"]) -> Float[Tensor, "b t d"]:
        x = super().words(tokens)  # (b, t, embedding_width)
        return x if self.projection is None else self.projection(x)  # (b, t, d)


class OPT(GPT2):
    r"""A GPT-2 with ReLU.

    .. math:: h_0 = E[x] + P_{2 + i}, \quad h_l = \mathrm{block}(h_{l-1}), \quad
       p(x_{t+1} \mid x_{\le t}) = \mathrm{softmax}(E\, \mathrm{LN}(h_L)_t)

    Where the token table is narrower, a matrix follows E and another one precedes it. Source: the paper, section 2.1
    and table 1; official code, ``metaseq/models/transformer_decoder.py``.
    """

    def __init__(self, config: OPTConfig):
        super().__init__(config)
        self.embedding = OPTEmbedding(config)
        self.dropout = nn.Identity()  # embeddings are not dropped
        if not config.norm_first:  # the last branch has its norm already
            self.norm = nn.Identity()
        self.output_projection = None
        if config.embedding_width is not None:
            self.output_projection = nn.Linear(config.width, config.embedding_width, bias=False)

    def logits(self, states: Float[Tensor, "*n d"]) -> Float[Tensor, "*n v"]:
        if self.output_projection is not None:
            states = self.output_projection(states)  # (*n, embedding_width)
        return F.linear(states, self.embedding.tokens.weight)  # (*n, v)
