"""Vokenization: each token of a text gets a picture, its voken, which a language model learns to predict.

Paper: Tan & Bansal 2020, "Vokenization: Improving Language Understanding with Contextualized, Visual-Grounded
Supervision". Official code: https://github.com/airsplay/vokenization.

Deviations: the vokenizer's BERT is trained as well, because it starts at random; in the official code it is BERT-base
and stays as it is. The recipe's picture network is MobileNetV2, where the code has a ResNeXt-101. All wrong pictures of
a batch count, and none is drawn. Vokens are the last pictures that the first stage has seen, and before it random
numbers; the paper takes 50,000 of Visual Genome. Vokenizer and language model have one vocabulary, and start and end of
a text have vokens as well. One layer predicts vokens, as in the paper; the code has one more. ``tiny`` is ours. Not
compared with released code: both of its BERTs start at random, and BERT is compared; its picture network is another.
"""

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmlearn.layers import BERTEmbedding, BERTEncoderConfig, MaskedLanguageHead, Transformer
from mmlearn.layers.language import TINY_BERT, initialise_as_bert
from mmlearn.models.text.vokenizer import TINY_VOKENIZER, Vokenizer, VokenizerConfig
from mmlearn.objectives import gather, masked_cross_entropy
from mmlearn.objectives.masked import IGNORED
from mmlearn.objectives.vokens import token_image_hinge


@dataclass(frozen=True)
class VokenizationConfig(BERTEncoderConfig):
    """The sizes of a BERT are the language model's."""

    vokenizer: VokenizerConfig = VokenizerConfig()

    PRESETS = {"tiny": TINY_BERT | dict(vokenizer=TINY_VOKENIZER), "base": dict()}


class VokenizationOutput(NamedTuple):
    tokens: Float[Tensor, "b t d"]
    token_logits: Float[Tensor, "b t v"]
    voken_logits: Float[Tensor, "b t vokens"]


class Vokenization(nn.Module):
    """A vokenizer, which learns from pictures with captions, and a language model, which then learns from texts alone.

    ``mask`` is True where a token is real. ``forward`` is the language model. Source: sections 2.2 and 3, figure 2.
    """

    def __init__(self, config: VokenizationConfig, image_tower: nn.Module):
        super().__init__()
        self.config = config
        self.embedding = BERTEmbedding(config)
        self.transformer = Transformer(config)
        self.language_head = MaskedLanguageHead(config)
        self.voken_head = nn.Linear(config.width, config.vokenizer.num_vokens)
        self.apply(partial(initialise_as_bert, std=config.initial_std))
        self.vokenizer = Vokenizer(config.vokenizer, image_tower)

    def forward(self, tokens: Int[Tensor, "b t"], mask: Bool[Tensor, "b t"] | None = None) -> VokenizationOutput:
        x = self.transformer(self.embedding(tokens, mask=mask), mask)  # (b, t, d)
        return VokenizationOutput(x, self.language_head(x, self.embedding.tokens.weight), self.voken_head(x))

    def encode_image(self, image: Float[Tensor, "b ..."]) -> Float[Tensor, "b d"]:
        return self.vokenizer.embed_images(self.vokenizer.image_features(image))

    def encode_text(
        self, tokens: Int[Tensor, "b t"], mask: Bool[Tensor, "b t"] | None = None
    ) -> Float[Tensor, "b t d"]:
        return self.vokenizer.embed_tokens(tokens, mask)

    def match_loss(self, batch: dict[str, Tensor]) -> dict[str, Float[Tensor, ""]]:
        """The first stage matches tokens with the picture of their text. In training, these pictures become vokens."""
        vokenizer, mask = self.vokenizer.train(self.training), batch["mask"]
        features = vokenizer.image_features(batch["image"])  # (b, e)
        token_embedding = vokenizer.embed_tokens(batch["tokens"], mask)  # (b, t, d)
        image_embedding = vokenizer.embed_images(features)  # (b, d)
        # Pictures of other processes are negatives, too.
        everyone = gather(token_embedding), gather(image_embedding), gather(mask)
        caption_id = gather(batch["caption_id"]) if "caption_id" in batch else None
        if self.training:
            vokenizer.push(gather(features))
        margin = self.config.vokenizer.margin
        return {"match": token_image_hinge(*everyone, margin, caption_id)}

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Float[Tensor, ""]]:
        r"""The second stage predicts masked words, and the voken of every word, masked or not.

        .. math:: \ell = -\frac{1}{|m|} \sum_{i \in m} \log p(w_i \mid s \setminus m)
           - \frac{1}{|s|} \sum_{i \in s} \log \mathrm{softmax}(W h_i + c)_{v(w_i; s)}

        Vokens are those of the unmasked text. ``batch["token_label"]`` (b, t) is the true token where one was masked
        and -100 elsewhere; ``ValueError`` without it. Source: section 2.2.
        """
        if "token_label" not in batch:
            raise ValueError("The language model learns from masked words, and the batch has no token_label.")
        tokens, mask, label = batch["tokens"], batch["mask"], batch["token_label"]
        output = self(tokens, mask)
        unmasked = torch.where(label == IGNORED, tokens, label)  # (b, t)
        vokens = self.vokenizer.eval().retrieve(unmasked, mask)  # (b, t)
        mlm = masked_cross_entropy(output.token_logits, label)
        return {"mlm": mlm, "voken": masked_cross_entropy(output.voken_logits, vokens)}
