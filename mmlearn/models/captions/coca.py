"""CoCa: half of a decoder reads words alone, for the contrast; the other half also attends to the image, and writes.

Paper: Yu et al. 2022, "CoCa: Contrastive Captioners are Image-Text Foundation Models".
Official code: none was published.

Deviations: the paper does not say where norms are; here blocks are pre-norm, and each pooler and each half of the
decoder ends with a norm. Images and texts are projected before they are compared. The contrast is over the batch of all
processes, and with ``caption_id`` in the batch all equal captions are positives. The largest model is not here.
``tiny`` is ours. Not compared with released code: no code was published.
"""

import math
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from einops import repeat
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmlearn.generation.cache import DecodingStep, ScoreNext
from mmlearn.layers import AttentionPooling, Config, ImageEncoder, ImageEncoderConfig, TextEmbedding, Transformer
from mmlearn.layers.encoders import TINY_IMAGE, TINY_TEXT, TextEncoderConfig
from mmlearn.layers.language import check_text_mask
from mmlearn.models.captions.captioner import Captioner, check_pairs
from mmlearn.objectives import causal_language_modelling, gather, gathered_positives, info_nce, own_rows

IMAGE: dict[str, Any] = dict(image_size=288, patch_size=18, class_token=False)
TEXT: dict[str, Any] = dict(vocab_size=64_000, max_length=64)


@dataclass(frozen=True)
class CoCaConfig(Config):
    image: ImageEncoderConfig = ImageEncoderConfig(**IMAGE)
    text: TextEncoderConfig = TextEncoderConfig(768, 12, 12, **TEXT)  # each half of the decoder
    num_queries: int = 256  # of the pooler for captions; that for the contrast has one
    embedding_width: int = 768
    temperature: float = 0.07  # at the start; the model learns its own
    contrast_weight: float = 1.0
    caption_weight: float = 2.0
    start_token: int = 1
    end_token: int = 2
    pad_token: int = 0

    PRESETS = {
        "tiny": dict(image=TINY_IMAGE, text=replace(TINY_TEXT, depth=2), num_queries=16, embedding_width=64),
        "base": dict(),
        "large": dict(image=ImageEncoderConfig(1024, 24, 16, **IMAGE), text=TextEncoderConfig(1024, 12, 16, **TEXT))
        | dict(embedding_width=1024),
    }


class CoCaOutput(NamedTuple):
    image_embedding: Float[Tensor, "b d"]  # unit length
    text_embedding: Float[Tensor, "b d"]  # unit length, of words alone
    token_logits: Float[Tensor, "b t v"]  # at position i: of the token after token i
    logit_scale: Float[Tensor, ""]  # 1/τ, already exponentiated


class CoCa(Captioner):
    r"""An image encoder, two poolers, and a causal decoder in two halves, of which the second attends to the image.

    .. math:: \ell = \lambda_\mathrm{con} \ell_\mathrm{con} + \lambda_\mathrm{cap} \ell_\mathrm{cap}, \quad
       \ell_\mathrm{cap} = -\sum_i \log p(y_i \mid y_{<i}, x)

    A pooler is one attention from learned queries to patches. The many queries of the first are for captions; the
    single one of the second attends to them, for the contrast. A [CLS] token follows each text, seen by no word, and
    its state after the first half is the text embedding. One pass serves both losses. Padding, where
    ``mask`` is False, comes last. A picture of another size gets its positions by interpolation. Raises ``ValueError``
    for pictures that are not float (b, 3, height, width) or are smaller than a patch, and for texts longer than
    ``max_length``. Source: sections 3.1 and 3.2, equations 2 to 4, figure 2 and table 1.
    """

    def __init__(self, config: CoCaConfig):
        super().__init__()
        self.config, image, text = config, config.image, config.text
        self.image_encoder = ImageEncoder(image)
        self.caption_pooler = AttentionPooling(image.width, image.num_heads, num_queries=config.num_queries)
        self.caption_norm = nn.LayerNorm(image.width, eps=image.norm_epsilon)
        self.contrast_pooler = AttentionPooling(image.width, image.num_heads)
        self.contrast_norm = nn.LayerNorm(image.width, eps=image.norm_epsilon)
        self.embedding = TextEmbedding(text.vocab_size, text.width, text.max_length)
        self.class_token = nn.Parameter(torch.randn(text.width) * 0.02)
        self.unimodal, self.multimodal = Transformer(text), Transformer(text, context_width=image.width)
        self.class_norm, self.norm = (nn.LayerNorm(text.width, eps=text.norm_epsilon) for _ in range(2))
        self.language_head = nn.Linear(text.width, text.vocab_size, bias=False)
        self.image_projection = nn.Linear(image.width, config.embedding_width, bias=False)
        self.text_projection = nn.Linear(text.width, config.embedding_width, bias=False)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / config.temperature)))  # ln(1/τ)
        for head in (self.language_head, self.image_projection, self.text_projection):
            nn.init.normal_(head.weight, std=0.5 * head.in_features**-0.5)

    def read_image(self, image: Float[Tensor, "b c height width"]) -> Float[Tensor, "b queries d"]:
        """The queries for captions, after the pooler."""
        return self.caption_norm(self.caption_pooler(self.image_encoder(image)))  # (b, p, d) → (b, queries, d)

    def embed_image(self, queries: Float[Tensor, "b queries d"]) -> Float[Tensor, "b embedding"]:
        pooled = self.contrast_norm(self.contrast_pooler(queries))[:, 0]  # (b, 1, d) → (b, d)
        return F.normalize(self.image_projection(pooled), dim=-1)

    def encode_image(self, image: Float[Tensor, "b c height width"]) -> Float[Tensor, "b d"]:
        return self.embed_image(self.read_image(image))

    def read_text(
        self, tokens: Int[Tensor, "b t"], mask: Bool[Tensor, "b t"] | None = None
    ) -> tuple[Float[Tensor, "b t d"], Float[Tensor, "b embedding"]]:
        """The first half: states of words, and the embedding of each text. Neither sees the image."""
        check_text_mask(mask)
        class_token = repeat(self.class_token, "d -> b 1 d", b=len(tokens))
        x = torch.cat([self.embedding(tokens), class_token], 1)  # (b, t + 1, d): [CLS] is last, seen by no word
        x = self.unimodal(x, None if mask is None else F.pad(mask, (0, 1), value=True), causal=True)
        return x[:, :-1], F.normalize(self.text_projection(self.class_norm(x[:, -1])), dim=-1)

    def encode_text(self, tokens: Int[Tensor, "b t"], mask: Bool[Tensor, "b t"] | None = None) -> Float[Tensor, "b d"]:
        return self.read_text(tokens, mask)[1]

    def decode(
        self,
        words: Float[Tensor, "b t d"],
        mask: Bool[Tensor, "b all"] | None,
        queries: Float[Tensor, "b queries_or_0 image_width"],
    ) -> Float[Tensor, "b t v"]:
        """The second half: logits of the next token after each word, from earlier words and the image."""
        return self.language_head(self.norm(self.multimodal(words, mask, True, queries)))

    def forward(
        self,
        image: Float[Tensor, "b c height width"],
        tokens: Int[Tensor, "b t"],
        mask: Bool[Tensor, "b t"] | None = None,
    ) -> CoCaOutput:
        queries = self.read_image(image)
        words, text_embedding = self.read_text(tokens, mask)
        logits = self.decode(words, mask, queries)
        return CoCaOutput(self.embed_image(queries), text_embedding, logits, self.logit_scale.exp())

    def step_function(self, image: Float[Tensor, "b c height width"]) -> ScoreNext:
        queries = self.read_image(image)

        def read(step: DecodingStep) -> Float[Tensor, "n v"]:
            words = self.unimodal(self.embedding(step.tokens, step.position), step.key_mask, causal=True)
            return self.decode(words, step.key_mask, step.context(queries))[:, -1]

        return read

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Float[Tensor, ""]]:
        """``itc``: images and texts are matched; ``lm``: each token but the first. Both with their weights.

        With ``caption_id`` in the batch, repeated captions all count. ``ValueError`` without a text.
        """
        check_pairs(batch)
        tokens, mask = batch["tokens"], batch.get("mask")
        output = self(batch["image"], tokens, mask)
        image, text = gather(output.image_embedding), gather(output.text_embedding)
        positives, rows = gathered_positives(batch.get("caption_id")), own_rows(output.image_embedding)
        contrast = info_nce(image, text, output.logit_scale, positives, rows)
        caption = causal_language_modelling(output.token_logits, tokens, mask)
        return {"itc": self.config.contrast_weight * contrast, "lm": self.config.caption_weight * caption}
