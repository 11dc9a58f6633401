"""BERT: a bidirectional text encoder, trained to predict masked words and whether one sentence follows another.

Paper: Devlin et al. 2019, "BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding".
Official code: https://github.com/google-research/bert. Two presets are the same model trained otherwise: RoBERTa (Liu
et al. 2019), without next sentences, on more text and with other masks in each epoch, as here; and DistilBERT (Sanh et
al. 2019), half as deep, distilled from BERT.

Deviations: ``tiny`` is ours. The teacher of DistilBERT is not here. The vector of the pad token gets no gradient from
its look-up, as in Transformers.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmlearn.layers import BERTEmbedding, BERTEncoderConfig, MaskedLanguageHead, Transformer
from mmlearn.layers.language import initialise_as_bert, pooler
from mmlearn.objectives import masked_cross_entropy, segment_order

ROBERTA: dict[str, Any] = dict(vocab_size=50_265, first_position=2, token_types=1, pad_token=1, norm_epsilon=1e-5)


@dataclass(frozen=True)
class BERTConfig(BERTEncoderConfig):
    pooler: bool = True
    language_head: bool = False  # for masked words
    next_sentence_head: bool = False

    PRESETS = {
        "tiny": dict(vocab_size=512, max_length=32, width=64, depth=3, num_heads=4, dropout=0.0),
        "base": dict(),
        "large": dict(width=1024, depth=24, num_heads=16),
        "roberta-base": ROBERTA,
        "roberta-large": ROBERTA | dict(width=1024, depth=24, num_heads=16),
        "distilbert-base": dict(depth=6, token_types=0, pooler=False),
    }


class BERTOutput(NamedTuple):
    tokens: Float[Tensor, "b t d"]
    pooled: Float[Tensor, "b d"] | None  # of the first token
    token_logits: Float[Tensor, "b t v"] | None
    next_logits: Float[Tensor, "b 2"] | None  # 1: the second sentence does not follow the first


class BERT(nn.Module):
    """Token + position + sentence embeddings through a post-norm transformer.

    ``mask`` is True where a token is real; ``token_type`` says to which of two sentences it belongs, by default to the
    first. Heads are built where the configuration asks for them. Raises ``ValueError`` for a next-sentence head without
    the pooler that it reads. Source: section 3 and figure 2.
    """

    def __init__(self, config: BERTConfig):
        super().__init__()
        if config.next_sentence_head and not config.pooler:
            raise ValueError("next_sentence_head reads the pooler; set pooler=True as well.")
        self.config = config
        self.embedding = BERTEmbedding(config)
        self.transformer = Transformer(config)
        self.pooler = pooler(config.width) if config.pooler else None
        self.language_head = MaskedLanguageHead(config) if config.language_head else None
        self.next_sentence_head = nn.Linear(config.width, 2) if config.next_sentence_head else None
        self.apply(partial(initialise_as_bert, std=config.initial_std))

    def forward(
        self,
        tokens: Int[Tensor, "b t"],
        mask: Bool[Tensor, "b t"] | None = None,
        token_type: Int[Tensor, "b t"] | None = None,
    ) -> BERTOutput:
        x = self.transformer(self.embedding(tokens, token_type, mask), mask)  # (b, t, d)
        pooled = self.pooler(x[:, 0]) if self.pooler is not None else None
        head, table = self.language_head, self.embedding.tokens.weight
        return BERTOutput(
            tokens=x,
            pooled=pooled,
            token_logits=head(x, table) if head is not None else None,
            next_logits=self.next_sentence_head(pooled) if self.next_sentence_head is not None else None,
        )

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Float[Tensor, ""]]:
        """Cross-entropy of what the heads predict.

        ``batch["token_label"]`` (b, t) is the true token where one was masked and -100 elsewhere;
        ``batch["next_label"]`` (b,) is 1 where the second sentence does not follow. ``ValueError`` without a head
        or a text.
        """
        if not len(batch["tokens"]):
            raise ValueError("A batch holds at least one text.")
        output = self(batch["tokens"], batch.get("mask"), batch.get("token_type"))
        losses = {}
        if output.token_logits is not None:
            losses["mlm"] = masked_cross_entropy(output.token_logits, batch["token_label"])
        if output.next_logits is not None:
            losses["nsp"] = segment_order(output.next_logits, batch["next_label"])
        if not losses:
            raise ValueError("This BERT has no head to train: set language_head in its configuration.")
        return losses
