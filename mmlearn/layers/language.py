"""What BERT and every encoder that grew out of it share: the embedding of a text, the head that fills gaps, the start.

Source: Devlin et al. 2019 (BERT), section 3 and figure 2, and the official code.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmlearn.layers.activations import ACTIVATIONS
from mmlearn.layers.embeddings import TextEmbedding, look_up
from mmlearn.layers.transformer import TransformerConfig
from mmlearn.tensor_checks import values_are_readable


@dataclass(frozen=True)
class BERTEncoderConfig(TransformerConfig):
    """A text and the transformer that reads it, at BERT-base's sizes. Systems nest it, or inherit it and add to it."""

    vocab_size: int = 30_522
    max_length: int = 512  # tokens
    first_position: int = 0  # the row of the position table where they begin
    token_types: int = 2  # sentences or modalities that are told apart; 0: none
    pad_token: int | None = 0  # its vector does not learn by being looked up; None: all learn
    width: int = 768
    depth: int = 12
    num_heads: int = 12
    norm_first: bool = False
    norm_epsilon: float = 1e-12
    dropout: float = 0.1
    initial_std: float = 0.02  # of weights and tables


# For two CPU cores. Systems that grew out of BERT change some of it and add their own.
TINY_BERT: dict[str, Any] = dict(
    vocab_size=512, max_length=32, width=64, depth=3, num_heads=4, dropout=0.0, initial_std=0.125
)


class BERTEmbedding(TextEmbedding):
    """Token + position + token type, normalised. Returns (b, t, d).

    ``token_type`` says which sentence or modality a token is of, by default the first. The vector of ``pad_token`` gets
    no gradient from being looked up. A ``mask`` is only checked, as :func:`check_text_mask` does; other errors as in
    :class:`~mmlearn.layers.TextEmbedding`.

    Where positions begin at a ``first_position``, as RoBERTa's do, they count the tokens that are not padding, and
    padding, also between words, has the row before the first, which does not learn. Source: fairseq's
    ``make_positions``.
    """

    def __init__(self, config: BERTEncoderConfig):
        super().__init__(config.vocab_size, config.width, config.max_length, config.first_position)
        self.tokens.padding_idx = config.pad_token
        self.token_types = nn.Embedding(config.token_types, config.width) if config.token_types else None
        self.norm = nn.LayerNorm(config.width, eps=config.norm_epsilon)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self,
        tokens: Int[Tensor, "b t"],
        token_type: Int[Tensor, "b t"] | None = None,
        mask: Bool[Tensor, "b t"] | None = None,
        position: Int[Tensor, "b t"] | None = None,
    ) -> Float[Tensor, "b t d"]:
        check_text_mask(mask)
        if position is None and self.first_position:
            positions = F.embedding(self._rows(tokens), self.positions, self.first_position - 1)
            x = look_up(self.tokens, tokens) + positions
        else:
            x = super().forward(tokens, position)
        if self.token_types is not None:
            x = x + self.token_types(torch.zeros_like(tokens) if token_type is None else token_type)
        return self.dropout(self.norm(x))

    def _rows(self, tokens: Int[Tensor, "b t"]) -> Int[Tensor, "b t"]:
        """RoBERTa's row of the position table for each token."""
        real = tokens != (-1 if self.tokens.padding_idx is None else self.tokens.padding_idx)
        position = real.cumsum(1) * real  # from 1; 0 is padding
        if tokens.shape[1] > len(self.positions) - self.first_position:  # so that a GPU is asked for no value else
            self.check_length(int(position.max()) if len(tokens) else 0)
        return position + (self.first_position - 1)


def check_text_mask(mask: Bool[Tensor, "b t"] | None) -> None:
    """``ValueError``, on a CPU, for a text with padding before its first token, where these systems read what it says.

    A text may be all padding. Other faults of a mask are told by :func:`~mmlearn.layers.attention`.
    """
    if mask is None or mask.dtype != torch.bool or mask.ndim != 2 or not values_are_readable(mask):
        return
    late = mask.any(1, keepdim=True) & ~mask[:, :1]
    if late.any():
        raise ValueError(
            f"Text {int(late.nonzero()[0, 0])} of the batch is padded at its left, and a text is read at its first "
            "token: pad at the right (padding_side='right' in a tokenizer of Transformers)."
        )


class MaskedLanguageHead(nn.Module):
    r"""Which token was here? A layer and the transposed token table E, so that input and output share their vectors.

    .. math:: \mathrm{logits} = E\, \mathrm{LN}(\phi(W h + b)) + c

    Takes states of any leading shape, because only the masked ones need be read. ``table_width`` is that of the table,
    where it is not the states'.
    """

    def __init__(self, config: BERTEncoderConfig, table_width: int | None = None):
        super().__init__()
        self.dense = nn.Linear(config.width, table_width or config.width)
        self.activation = ACTIVATIONS[config.activation]
        self.norm = nn.LayerNorm(table_width or config.width, eps=config.norm_epsilon)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))

    def forward(self, x: Float[Tensor, "... d"], token_table: Float[Tensor, "v e"]) -> Float[Tensor, "... v"]:
        return F.linear(self.norm(self.activation(self.dense(x))), token_table, self.bias)


def pooler(width: int) -> nn.Sequential:
    """BERT's reading of the first token: tanh of a linear layer."""
    return nn.Sequential(nn.Linear(width, width), nn.Tanh())


def initialise_as_bert(module: nn.Module, std: float = 0.02) -> None:
    r"""For ``model.apply``: weights and tables from a normal of ``std``, cut at two deviations; biases 0.

    The official code's 0.02 suits 768 features. A sum over d of them grows with √d, so a narrow model that starts with
    0.02 hardly listens to its input and learns late; with :math:`1 / \sqrt d` what goes through a layer keeps its size.
    """
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.trunc_normal_(module.weight, std=std, a=-2 * std, b=2 * std)
    if isinstance(module, TextEmbedding):
        nn.init.trunc_normal_(module.positions, std=std, a=-2 * std, b=2 * std)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
