"""What BERT and every encoder that grew out of it share: the embedding of a text, the head that fills gaps, the start.

Source: Devlin et al. 2019 (BERT), section 3 and figure 2, and the official code.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from mmlearn.layers.activations import ACTIVATIONS
from mmlearn.layers.embeddings import TextEmbedding
from mmlearn.layers.padded.transformer import Transformer


class BERTEmbedding(TextEmbedding):
    """Token + position + token type, normalised. Returns (b, t, d).

    ``token_type`` says which sentence or modality a token is of, by default the first. The vector of ``pad_token`` gets
    no gradient from being looked up. Errors as in :class:`~mmlearn.layers.TextEmbedding`.
    """

    def __init__(
        self,
        vocab_size: int,
        width: int,
        max_length: int,
        *,
        token_types: int = 2,
        pad_token: int = 0,
        norm_epsilon: float = 1e-12,
        dropout: float = 0.0,
    ):
        super().__init__(vocab_size, width, max_length)
        self.tokens.padding_idx = pad_token
        self.token_types = nn.Embedding(token_types, width)
        self.norm = nn.LayerNorm(width, eps=norm_epsilon)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, tokens: Int[Tensor, "b t"], token_type: Int[Tensor, "b t"] | None = None
    ) -> Float[Tensor, "b t d"]:
        token_type = torch.zeros_like(tokens) if token_type is None else token_type
        return self.dropout(self.norm(super().forward(tokens) + self.token_types(token_type)))


class MaskedLanguageHead(nn.Module):
    r"""Which token was here? A layer and the transposed token table E, so that input and output share their vectors.

    .. math:: \mathrm{logits} = E\, \mathrm{LN}(\phi(W h + b)) + c

    Takes states of any leading shape, for only the masked ones need be read.
    """

    def __init__(self, width: int, vocab_size: int, *, activation: str = "gelu", norm_epsilon: float = 1e-12):
        super().__init__()
        self.dense = nn.Linear(width, width)
        self.activation = ACTIVATIONS[activation]
        self.norm = nn.LayerNorm(width, eps=norm_epsilon)
        self.bias = nn.Parameter(torch.zeros(vocab_size))

    def forward(self, x: Float[Tensor, "... d"], token_table: Float[Tensor, "v d"]) -> Float[Tensor, "... v"]:
        return F.linear(self.norm(self.activation(self.dense(x))), token_table, self.bias)


def bert_transformer(
    width: int,
    depth: int,
    num_heads: int,
    *,
    mlp_width: int | None = None,
    context_width: int | None = None,
    activation: str = "gelu",
    norm_epsilon: float = 1e-12,
    dropout: float = 0.0,
) -> Transformer:
    """A transformer whose blocks are BERT's: normalised after each branch."""
    return Transformer(
        width,
        depth,
        num_heads,
        mlp_width=mlp_width,
        context_width=context_width,
        activation=activation,
        norm_first=False,
        norm_epsilon=norm_epsilon,
        dropout=dropout,
    )
