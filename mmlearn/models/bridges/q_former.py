"""The Q-Former: a BERT in which a few learned queries attend to an image, and share self-attention with a text.

Source: Li et al. 2023 (BLIP-2), section 3.1, and the official code (``lavis/models/blip2_models/Qformer.py``).
"""

from dataclasses import dataclass
from functools import partial

import torch
from einops import repeat
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmlearn.layers import MLP, BERTEncoderConfig, TextEmbedding, Transformer
from mmlearn.layers.language import TINY_BERT, initialise_as_bert


@dataclass(frozen=True)
class QFormerConfig(BERTEncoderConfig):
    """Its table also has [Decode], the number after those of the vocabulary."""

    token_types: int = 0
    num_queries: int = 32
    cross_attention_every: int = 2  # blocks: the first, the third and so on attend to the image


TINY_QFORMER = QFormerConfig(**TINY_BERT | dict(token_types=0, num_queries=8))


class TextSide(nn.Module):
    """What the text does not share with the queries: its embedding, and an MLP in each block."""

    def __init__(self, config: QFormerConfig):
        super().__init__()
        self.embedding = TextEmbedding(config.vocab_size + 1, config.width, config.max_length)
        self.embedding.tokens.padding_idx = config.pad_token
        self.mlps = nn.ModuleList(MLP(config.width, config.mlp_width, config.activation) for _ in range(config.depth))
        self.mlp_norms = nn.ModuleList(nn.LayerNorm(config.width, config.norm_epsilon) for _ in range(config.depth))
        self.apply(partial(initialise_as_bert, std=config.initial_std))


class QFormer(nn.Module):
    """Queries and text share self-attention, under a mask; only queries attend to the image, and each has its own MLPs.

    Returns the states of the queries (b, q, d), and of the text (b, t, d) where there is one. ``mask`` (b, q + t,
    q + t) is True where a row attends to a column (:func:`~mmlearn.objectives.bridging.query_text_mask`).
    """

    def __init__(self, config: QFormerConfig, image_width: int):
        super().__init__()
        self.queries = nn.Parameter(torch.randn(config.num_queries, config.width) * config.initial_std)
        self.norm = nn.LayerNorm(config.width, eps=config.norm_epsilon)
        self.dropout = nn.Dropout(config.dropout)
        crossing = range(0, config.depth, config.cross_attention_every)
        self.transformer = Transformer(config, context_width=image_width, context_blocks=crossing)
        self.transformer.apply(partial(initialise_as_bert, std=config.initial_std))

    def forward(
        self,
        patches: Float[Tensor, "b p image_width"],
        text: TextSide | None = None,
        tokens: Int[Tensor, "b t"] | None = None,
        mask: Bool[Tensor, "b n n"] | None = None,
    ) -> tuple[Float[Tensor, "b q d"], Float[Tensor, "b t d"]]:
        queries = repeat(self.queries, "q d -> b q d", b=len(patches))
        words = queries[:, :0] if text is None else text.embedding(tokens)  # (b, t, d)
        queries, words = (self.dropout(self.norm(x)) for x in (queries, words))
        q = queries.shape[1]
        for i, block in enumerate(self.transformer.blocks):
            x = torch.cat([queries, words], dim=1)  # (b, q + t, d)
            x = block.residual(x, block.attention_norm, partial(block.attention, mask=mask))
            queries, words = x[:, :q], x[:, q:]
            if block.cross_attention is not None:
                attend = partial(block.cross_attention, context=patches)
                queries = block.residual(queries, block.cross_attention_norm, attend)
            queries = block.residual(queries, block.mlp_norm, block.mlp)
            if text is not None:  # words have an MLP of their own, which the second stage does not need
                words = block.residual(words, text.mlp_norms[i], text.mlps[i])
        return queries, words
