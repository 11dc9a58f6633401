r"""InfoXLM: one encoder for all languages, in which a sentence and its translation are near.

Paper: Chi et al. 2021, "InfoXLM: An Information-Theoretic Framework for Cross-Lingual Language Model Pre-Training".
Official code: https://github.com/microsoft/unilm/tree/master/infoxlm.

Deviations: weights start at random; the paper starts from XLM-R. All three objectives learn from the same pairs of
texts; in the paper MMLM has texts without a translation. Embeddings have unit length, and each text of a pair retrieves
the other; in the official code their length is free, a text that is drawn retrieves the other, candidates are those of
the queue alone, and it begins once the queue is full. Sentences are not mixed: the paper's mixup joins two pairs.
``tiny`` is ours.
"""

import copy
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmlearn.layers import BERTEmbedding, BERTEncoderConfig, MaskedLanguageHead, Transformer
from mmlearn.layers.language import TINY_BERT, initialise_as_bert
from mmlearn.models.align.pair_queue import PairQueue, queue_contrast
from mmlearn.models.many_languages.texts import LARGE, XLM_R, for_two_texts
from mmlearn.objectives import gather, masked_cross_entropy, update_momentum_encoder
from mmlearn.objectives.masked import IGNORED
from mmlearn.objectives.translation import join_translations

BASE = XLM_R | dict(token_types=1, dropout=0.0)


@dataclass(frozen=True)
class InfoXLMConfig(BERTEncoderConfig):
    contrast_depth: int = 8  # blocks below the embedding of a text
    temperature: float = 0.25
    momentum: float = 0.9999  # of the momentum encoder
    queue_size: int = 131_072  # embeddings of earlier batches, as more negatives; at most the size of the data

    PRESETS = {
        "tiny": TINY_BERT | dict(token_types=1, contrast_depth=2, momentum=0.98, queue_size=1024),
        "base": BASE,
        "large": BASE | LARGE | dict(contrast_depth=12, momentum=0.999),
    }


class InfoXLMOutput(NamedTuple):
    tokens: Float[Tensor, "b n d"]  # of a text, or of a text and its translation in one row


class Encoder(nn.Module):
    """XLM-R's encoder, and a projection of the first token after a middle block. It is what has a momentum copy."""

    def __init__(self, config: InfoXLMConfig):
        super().__init__()
        self.contrast_depth = config.contrast_depth
        self.embedding = BERTEmbedding(for_two_texts(config))
        self.transformer = Transformer(config)
        self.projection = nn.Linear(config.width, config.width, bias=False)
        self.apply(partial(initialise_as_bert, std=config.initial_std))

    def forward(
        self, tokens: Int[Tensor, "b n"], mask: Bool[Tensor, "b n"] | None = None, depth: int | None = None
    ) -> Float[Tensor, "b n d"]:
        x = self.embedding(tokens, mask=mask)
        for block in list(self.transformer.blocks)[:depth]:
            x = block(x, mask)
        return x

    def embed(self, tokens: Int[Tensor, "b n"], mask: Bool[Tensor, "b n"] | None = None) -> Float[Tensor, "b d"]:
        first_token = self(tokens, mask, self.contrast_depth)[:, 0]  # (b, d)
        return F.normalize(self.projection(first_token), dim=-1)


class InfoXLM(nn.Module):
    """An encoder with a language head, a momentum encoder, and a queue of its embeddings of earlier pairs.

    ``mask`` is True where a token is real; tokens do not say their language. A text and its translation are read in one
    row (:func:`~mmlearn.objectives.translation.join_translations`). Raises ``ValueError`` for a momentum that cannot
    be, or a block that does not exist.
    """

    def __init__(self, config: InfoXLMConfig):
        super().__init__()
        if not (0 <= config.momentum <= 1 and 1 <= config.contrast_depth <= config.depth):
            given = f"momentum {config.momentum} and contrast_depth {config.contrast_depth} of {config.depth}"
            raise ValueError(f"momentum is from 0 to 1, and contrast_depth one of the blocks, from 1; got {given}.")
        self.config = config
        self.online = Encoder(config)
        self.language_head = MaskedLanguageHead(config).apply(partial(initialise_as_bert, std=config.initial_std))
        self.momentum_encoder = copy.deepcopy(self.online).requires_grad_(False)
        self.queue = PairQueue(config.queue_size, config.width)

    def forward(self, tokens: Int[Tensor, "b n"], mask: Bool[Tensor, "b n"] | None = None) -> InfoXLMOutput:
        return InfoXLMOutput(self.online(tokens, mask))

    def token_logits(self, x: Float[Tensor, "... d"]) -> Float[Tensor, "... v"]:
        return self.language_head(x, self.online.embedding.tokens.weight)

    def encode_text(self, tokens: Int[Tensor, "b t"], mask: Bool[Tensor, "b t"] | None = None) -> Float[Tensor, "b d"]:
        return self.online.embed(tokens, mask)

    def encode_translation(
        self, translation: Int[Tensor, "b u"], translation_mask: Bool[Tensor, "b u"] | None = None
    ) -> Float[Tensor, "b d"]:
        return self.online.embed(translation, translation_mask)

    def mlm_loss(
        self, tokens: Int[Tensor, "b n"], mask: Bool[Tensor, "b n"], label: Int[Tensor, "b n"]
    ) -> Float[Tensor, ""]:
        """The cross-entropy of the masked tokens. Only these are scored, because the vocabulary is large."""
        positions = (label != IGNORED).nonzero(as_tuple=True)
        return masked_cross_entropy(self.token_logits(self(tokens, mask).tokens[positions]), label[positions])

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Float[Tensor, ""]]:
        r"""MMLM of the text alone, TLM of both texts in one row, and the contrast of both whole texts.

        .. math:: \ell_\mathrm{XlCo} = -\log \frac{\exp(g(c_1)^\top \bar g(c_2) / \tau)}
           {\sum_{c'} \exp(g(c_1)^\top \bar g(c') / \tau)}

        for each of the two; candidates c' are those of the batch and of the queue. ``token_label`` and
        ``translation_label`` are the true tokens where some are masked and -100 elsewhere. In training the batch's
        momentum embeddings go into the queue. Source: the paper's MMLM, TLM and cross-lingual contrast.
        """
        tokens, mask, label = batch["tokens"], batch["mask"], batch["token_label"]
        translation, translation_mask = batch["translation"], batch["translation_mask"]
        translation_label = batch["translation_label"]
        pair, pair_mask = join_translations(tokens, translation, mask, translation_mask)  # (b, t + u)
        pair_label, _ = join_translations(label, translation_label, mask, translation_mask, IGNORED)
        losses = {"mmlm": self.mlm_loss(tokens, mask, label), "tlm": self.mlm_loss(pair, pair_mask, pair_label)}

        # The contrast reads the texts unmasked.
        text = torch.where(label == IGNORED, tokens, label), mask
        other = torch.where(translation_label == IGNORED, translation, translation_label), translation_mask
        embeddings = self.online.embed(*text), self.online.embed(*other)  # each (b, d)
        with torch.no_grad():
            momentum_embeddings = self.momentum_encoder.embed(*text), self.momentum_encoder.embed(*other)
        caption_id = batch.get("caption_id", tokens.new_full((len(tokens),), -1))
        scale = 1 / self.config.temperature
        losses["xlco"] = queue_contrast(embeddings, momentum_embeddings, caption_id, self.queue, scale, alpha=0.0)
        if self.training:
            self.queue.push(*map(gather, (*momentum_embeddings, caption_id)))
        return losses

    @torch.no_grad()
    def after_step(self) -> None:
        """Move the momentum encoder."""
        update_momentum_encoder(self.momentum_encoder, self.online, self.config.momentum)
