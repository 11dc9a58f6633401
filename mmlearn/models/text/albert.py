"""ALBERT: a BERT with one shared block and a narrow token table, which also predicts the order of two segments.

Paper: Lan et al. 2020, "ALBERT: A Lite BERT for Self-supervised Learning of Language Representations". Official code:
https://github.com/google-research/albert. Presets are those of version 2, which drops nothing.

Deviations: single tokens are masked; the paper masks up to three in a row. The head for the order of segments drops
nothing, in Transformers ``classifier_dropout_prob``. ``tiny`` is ours.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmlearn.layers import BERTEmbedding, BERTEncoderConfig, MaskedLanguageHead, TransformerBlock
from mmlearn.layers.language import TINY_BERT, initialise_as_bert, pooler
from mmlearn.objectives import masked_cross_entropy, segment_order


@dataclass(frozen=True)
class ALBERTConfig(BERTEncoderConfig):
    vocab_size: int = 30_000
    embedding_width: int = 128  # of the tables; a layer widens it
    activation: str = "gelu_tanh"
    dropout: float = 0.0
    pooler: bool = True
    language_head: bool = False  # for masked words
    order_head: bool = False

    PRESETS = {
        "tiny": TINY_BERT | dict(embedding_width=32),
        "base-v2": dict(),
        "large-v2": dict(width=1024, depth=24, num_heads=16),
        "xlarge-v2": dict(width=2048, depth=24, num_heads=16),
        "xxlarge-v2": dict(width=4096, depth=12, num_heads=64),
    }


class ALBERTOutput(NamedTuple):
    tokens: Float[Tensor, "b t d"]
    pooled: Float[Tensor, "b d"] | None  # of the first token
    token_logits: Float[Tensor, "b t v"] | None
    order_logits: Float[Tensor, "b 2"] | None  # 1: the segments were exchanged


class ALBERT(nn.Module):
    r"""Narrow embeddings are widened and go ``depth`` times through one and the same post-norm block.

    .. math:: h_0 = W E[x], \quad h_l = \mathrm{block}(h_{l-1})

    A table of v · e + e · d numbers takes the place of one of v · d. ``mask`` is True where a token is real;
    ``token_type`` says to which segment it belongs. Heads are built where the configuration asks for them. Raises
    ``ValueError`` for a head of order without the pooler that it reads. Source: section 3.1.
    """

    def __init__(self, config: ALBERTConfig):
        super().__init__()
        if config.order_head and not config.pooler:
            raise ValueError("order_head reads the pooler; set pooler=True as well.")
        self.config = config
        self.embedding = BERTEmbedding(replace(config, width=config.embedding_width))
        self.widen = nn.Linear(config.embedding_width, config.width)
        self.block = TransformerBlock(config)
        self.pooler = pooler(config.width) if config.pooler else None
        self.language_head = MaskedLanguageHead(config, config.embedding_width) if config.language_head else None
        self.order_head = nn.Linear(config.width, 2) if config.order_head else None
        self.apply(partial(initialise_as_bert, std=config.initial_std))

    def forward(
        self,
        tokens: Int[Tensor, "b t"],
        mask: Bool[Tensor, "b t"] | None = None,
        token_type: Int[Tensor, "b t"] | None = None,
    ) -> ALBERTOutput:
        if token_type is not None and mask is not None:
            token_type = token_type.masked_fill(~mask, 0)  # padding may hold any number, and the table has two rows
        x = self.widen(self.embedding(tokens, token_type, mask))  # (b, t, e) → (b, t, d)
        for _ in range(self.config.depth):
            x = self.block(x, mask)
        pooled = self.pooler(x[:, 0]) if self.pooler is not None else None
        head, table = self.language_head, self.embedding.tokens.weight
        return ALBERTOutput(
            tokens=x,
            pooled=pooled,
            token_logits=head(x, table) if head is not None else None,
            order_logits=self.order_head(pooled) if self.order_head is not None else None,
        )

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Float[Tensor, ""]]:
        """Cross-entropy of what the heads predict.

        ``batch["token_label"]`` (b, t) is the true token where one was masked and -100 elsewhere;
        ``batch["order_label"]`` (b,) is 1 where the segments were exchanged. ``ValueError`` without a head or a text.
        """
        if not len(batch["tokens"]):
            raise ValueError("A batch holds at least one text.")
        output = self(batch["tokens"], batch.get("mask"), batch.get("token_type"))
        losses = {}
        if output.token_logits is not None:
            losses["mlm"] = masked_cross_entropy(output.token_logits, batch["token_label"])
        if output.order_logits is not None:
            losses["sop"] = segment_order(output.order_logits, batch["order_label"])
        if not losses:
            raise ValueError("This ALBERT has no head to train: set language_head in its configuration.")
        return losses
