"""GPT-2: a transformer that reads from left to right and says at every token which one comes next.

Paper: Radford et al. 2019, "Language Models are Unsupervised Multitask Learners"; its predecessor is Radford et al.
2018, "Improving Language Understanding by Generative Pre-Training". Official code: https://github.com/openai/gpt-2.

Deviations: weights start with a spread that goes by width and depth, as in :class:`~mmlearn.layers.Transformer`; the
official code starts all at 0.02 and divides only those that end a branch. ``tiny`` is ours.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmlearn.data.fields import Tokens
from mmlearn.layers import TextEmbedding, Transformer, TransformerConfig
from mmlearn.objectives import masked_cross_entropy
from mmlearn.objectives.masked import IGNORED
from mmlearn.recipes import LM, Recipe


@dataclass(frozen=True)
class GPT2Config(TransformerConfig):
    vocab_size: int = 50_257
    max_length: int = 1024  # tokens
    end_token: int = 50_256  # where a written text is complete
    width: int = 768
    depth: int = 12
    num_heads: int = 12
    activation: str = "gelu_tanh"
    dropout: float = 0.1

    PRESETS = {
        "tiny": dict(vocab_size=512, max_length=32, end_token=2, width=64, depth=3, num_heads=4, dropout=0.0),
        "small": dict(),
        "medium": dict(width=1024, depth=24, num_heads=16),
        "large": dict(width=1280, depth=36, num_heads=20),
        "xl": dict(width=1600, depth=48, num_heads=25),
    }


class GPT2Output(NamedTuple):
    tokens: Float[Tensor, "b t d"]
    token_logits: Float[Tensor, "b t v"]  # at place i: what comes after token i


class GPT2(nn.Module):
    r"""Token + position embeddings, pre-norm blocks in which no token sees a later one, a norm, and the token table.

    .. math:: h_0 = E[x] + P, \quad h_l = \mathrm{block}(h_{l-1}), \quad
       p(x_{t+1} \mid x_{\le t}) = \mathrm{softmax}(E\, \mathrm{LN}(h_L)_t)

    ``mask`` is True where a token is real; what pads a text stands behind it. Source: Radford et al. 2018, equation 2;
    Radford et al. 2019, section 2.3, for where the norms stand.
    """

    def __init__(self, config: GPT2Config):
        super().__init__()
        self.config = config
        self.embedding = TextEmbedding(config.vocab_size, config.width, config.max_length)
        self.dropout = nn.Dropout(config.dropout)
        self.transformer = Transformer(config)
        self.norm = nn.LayerNorm(config.width, eps=config.norm_epsilon)

    def forward(self, tokens: Int[Tensor, "b t"], mask: Bool[Tensor, "b t"] | None = None) -> GPT2Output:
        x = self.norm(self.transformer(self.dropout(self.embedding(tokens)), mask, causal=True))
        return GPT2Output(x, F.linear(x, self.embedding.tokens.weight))

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Float[Tensor, ""]]:
        """The next token: cross-entropy of every real token but the first, from those before it.

        ``ValueError`` without a text. Source: Radford et al. 2018, equation 1.
        """
        tokens, mask = batch["tokens"], batch.get("mask")
        if not len(tokens):
            raise ValueError("A batch holds at least one text.")
        label = tokens if mask is None else tokens.masked_fill(~mask, IGNORED)
        return {"lm": masked_cross_entropy(self(tokens, mask).token_logits[:, :-1], label[:, 1:])}


RECIPE = Recipe(
    GPT2,
    GPT2Config,
    reads=(Tokens(),),
    learns=LM,
    architecture="""
    words -> sum [token, place] -> transformer [causal] -> norm -> token table -> !LM
    sum == token table
    """,
)
