"""data2vec for text: from a masked text BERT predicts the features of its momentum copy, not the masked words.

Paper: Baevski et al. 2022, "data2vec: A General Framework for Self-supervised Learning in Speech, Vision and Language".
Official code: https://github.com/facebookresearch/fairseq (examples/data2vec).

Deviations: ``tiny`` is ours: its teacher follows faster. Masks are BERT's, single tokens and 15 % of them; the official
configuration masks 35 %, four in a row, always by the mask token. There is one sentence or caption a row, not 512
tokens. The head is one linear layer, there two with GELU between them, the teacher's decay rises in 100,000 steps,
there in 300,000, and losses are means over features. Released models have no head and no teacher; one with a language
head learns masked words instead.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmlearn.layers import BERTEmbedding, BERTEncoderConfig, MaskedLanguageHead, Transformer
from mmlearn.layers.language import initialise_as_bert, pooler
from mmlearn.models.unified.data2vec import Data2Vec, Data2VecConfig
from mmlearn.objectives.masked import IGNORED, masked_cross_entropy

ROBERTA: dict[str, Any] = dict(vocab_size=50_265, first_position=2, token_types=1, pad_token=1, norm_epsilon=1e-5)


@dataclass(frozen=True)
class Data2VecTextConfig(Data2VecConfig):
    text: BERTEncoderConfig = BERTEncoderConfig(**ROBERTA)
    top_layers: int = 10
    beta: float = 4.0
    decay_steps: int = 100_000
    pooler: bool = False  # of the first token, which released files have
    language_head: bool = False  # for masked words

    PRESETS = {
        "tiny": dict(
            text=BERTEncoderConfig(
                64, 3, 4, dropout=0.0, vocab_size=512, max_length=32, initial_std=0.125, token_types=0
            )
        )
        | dict(top_layers=2, beta=1.0, decay_start=0.98, decay_end=0.998, decay_steps=300),
        "base": dict(),
        "large": dict(text=BERTEncoderConfig(width=1024, depth=24, num_heads=16, **ROBERTA)),
    }


class Data2VecTextOutput(NamedTuple):
    tokens: Float[Tensor, "b t d"]
    prediction: Float[Tensor, "b t d"] | None  # of the teacher's target at each token
    pooled: Float[Tensor, "b d"] | None


class WordEncoder(nn.Module):
    """An embedding and a transformer, in RoBERTa's layout."""

    def __init__(self, config: BERTEncoderConfig):
        super().__init__()
        self.embedding = BERTEmbedding(config)
        self.transformer = Transformer(config)
        self.apply(partial(initialise_as_bert, std=config.initial_std))

    def forward(
        self, tokens: Int[Tensor, "b t"], mask: Bool[Tensor, "b t"] | None, token_type: Int[Tensor, "b t"] | None = None
    ) -> Float[Tensor, "b t d"]:
        return self.transformer(self.embedding(tokens, token_type, mask), mask)


class Data2VecText(Data2Vec):
    """A text encoder in RoBERTa's layout that learns from itself.

    ``mask`` is True where a token is real.
    """

    def __init__(self, config: Data2VecTextConfig):
        super().__init__()
        self.config = config
        self.encoder = WordEncoder(config.text)
        self.pooler = pooler(config.text.width) if config.pooler else None
        self.language_head = MaskedLanguageHead(config.text) if config.language_head else None
        self.add_teacher(config.text.width, config.text.depth)

    def blocks_of(self, encoder: WordEncoder) -> nn.ModuleList:
        return encoder.transformer.blocks

    def forward(
        self,
        tokens: Int[Tensor, "b t"],
        mask: Bool[Tensor, "b t"] | None = None,
        token_type: Int[Tensor, "b t"] | None = None,
    ) -> Data2VecTextOutput:
        x = self.encoder(tokens, mask, token_type)
        return Data2VecTextOutput(
            x,
            self.head(x) if self.head is not None else None,
            self.pooler(x[:, 0]) if self.pooler is not None else None,
        )

    def token_logits(self, x: Float[Tensor, "*n d"]) -> Float[Tensor, "*n v"]:
        """Logits of the language head, which need read only masked tokens."""
        if self.language_head is None:
            raise ValueError("This Data2VecText has no language head: set language_head in its configuration.")
        return self.language_head(x, self.encoder.embedding.tokens.weight)

    def predictions_and_targets(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """The student's predictions from a masked text, the teacher's features of the unmasked one, and the mask."""
        label, mask = batch["token_label"], batch.get("mask")
        unmasked = torch.where(label == IGNORED, batch["tokens"], label)  # (b, t)
        target = self.targets(unmasked, mask)  # (b, t, d)
        return self(batch["tokens"], mask).prediction, target, label != IGNORED

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Float[Tensor, ""]]:
        """``regression`` to the teacher; without one ``mlm``, where there is a language head.

        ``batch["token_label"]`` (b, t) is the true token where one was masked and -100 elsewhere. ``ValueError``
        without a text, or with nothing to learn by.
        """
        if not len(batch["tokens"]):
            raise ValueError("A batch holds at least one text.")
        if self.teacher is not None:
            return self.regression(*self.predictions_and_targets(batch))
        if self.language_head is None:
            raise ValueError("Nothing to learn: this Data2VecText needs pretrain=True, or language_head.")
        output, label = self(batch["tokens"], batch.get("mask"), batch.get("token_type")), batch["token_label"]
        masked = label != IGNORED
        return {"mlm": masked_cross_entropy(self.token_logits(output.tokens[masked]), label[masked])}
