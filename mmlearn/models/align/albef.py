"""ALBEF: align before fuse. A contrast aligns image and text embeddings; only then words attend to patches.

Paper: Li et al. 2021, "Align before Fuse: Vision and Language Representation Learning with Momentum Distillation".
Official code: https://github.com/salesforce/ALBEF.

Deviations: weights start at random, encoders and projections scaled by width, tables and heads at BERT's 0.02; the
paper starts from DeiT and BERT. The temperature is learned as ln(1/τ), in the official code as τ, within the same
bounds. The momentum encoder moves after the optimiser's step, in the official code before the next batch: the same
numbers, and once a step also where a step takes several batches. The contrast is over the batch of all processes, in
the official code over that of its own, with the same queue; both look for hard negatives in their own. Where the batch
says which captions are equal, all of them are positives, and none is a negative. Distillation is a cross-entropy, as in
the official code; equations 6 and 7 have a divergence, which differs by a constant. With ``hard_negatives=False`` wrong
pairs are drawn evenly, for comparison. ``tiny`` is ours: its momentum encoder is faster, and it has no class token but
embeds an image by each feature's maximum over the patches, because a class token needs several times as many steps to
learn where to attend.
"""

import copy
import math
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmlearn.layers import BERTEmbedding, BERTEncoderConfig, Config, ImageEncoder, ImageEncoderConfig, Transformer
from mmlearn.layers.language import MaskedLanguageHead, initialise_as_bert
from mmlearn.models.align.pair_losses import matching_loss, read_pairs
from mmlearn.models.align.pair_queue import PairQueue, queue_contrast
from mmlearn.objectives import gather, update_momentum_encoder
from mmlearn.objectives.align import distillation_ramp, hard_negative_pairs, masked_distillation
from mmlearn.objectives.draws import generator_of_step
from mmlearn.objectives.masked import IGNORED
from mmlearn.objectives.matching import positive_pairs


@dataclass(frozen=True)
class ALBEFConfig(Config):
    image: ImageEncoderConfig = ImageEncoderConfig(image_size=256, norm_epsilon=1e-6)
    text: BERTEncoderConfig = BERTEncoderConfig(768, 6, 12)  # blocks that see only the text
    fusion_depth: int = 6  # blocks that also attend to the image
    embedding_width: int = 256
    pooling: str = "class"  # an image's embedding is of its class token, or the "max" over its patches
    temperature: float = 0.07  # at the start; the model learns its own
    momentum: float = 0.995  # of the momentum encoder
    queue_size: int = 65_536  # embeddings of earlier batches, as more negatives; at most the size of the data
    alpha: float = 0.4  # the weight of the momentum encoder's targets; 0: no distillation
    alpha_ramp: int = 10_000  # steps in which alpha rises from 0: an epoch of 5.1 M pairs in batches of 512
    hard_negatives: bool = True  # wrong pairs that look right; False: any
    seed: int = 0  # of the wrong pairs

    PRESETS = {
        "tiny": dict(image=ImageEncoderConfig(64, 3, 2, image_size=64, patch_size=16, class_token=False))
        | dict(text=BERTEncoderConfig(64, 1, 2, vocab_size=512, max_length=32, dropout=0.0), fusion_depth=2)
        | dict(embedding_width=64, pooling="max", momentum=0.98, queue_size=1024, alpha_ramp=100),
        "base": dict(),
    }


class Encoded(NamedTuple):
    """The states and embeddings of the two unimodal encoders."""

    patches: Float[Tensor, "b n d"]
    words: Float[Tensor, "b t width"]
    image_embedding: Float[Tensor, "b embedding"]  # unit length
    text_embedding: Float[Tensor, "b embedding"]  # unit length


class ALBEFOutput(NamedTuple):
    image_embedding: Float[Tensor, "b d"]  # unit length
    text_embedding: Float[Tensor, "b d"]  # unit length
    logit_scale: Float[Tensor, ""]  # 1/τ, already exponentiated
    patches: Float[Tensor, "b n image_width"]  # after the image encoder
    words: Float[Tensor, "b t width"]  # after the text encoder
    tokens: Float[Tensor, "b t width"]  # after the multimodal encoder
    match_logits: Float[Tensor, "b 2"]  # index 1: image and text belong together
    token_logits: Float[Tensor, "b t v"]


class ALBEFEncoders(nn.Module):
    """The image, text and multimodal encoder with their projections and the language head: all with a momentum copy.

    Source: section 3.1 and figure 1.
    """

    def __init__(self, config: ALBEFConfig):
        super().__init__()
        text = config.text
        self.pooling = config.pooling
        self.embedding = BERTEmbedding(text)
        self.text_encoder = Transformer(text)
        self.multimodal_encoder = Transformer(replace(text, depth=config.fusion_depth), config.image.width)
        self.language_head = MaskedLanguageHead(text)
        self.image_projection = nn.Linear(config.image.width, config.embedding_width)
        self.text_projection = nn.Linear(text.width, config.embedding_width)
        self.image_encoder = ImageEncoder(config.image)
        for part in (self.embedding, self.language_head):
            part.apply(partial(initialise_as_bert, std=text.initial_std))
        for projection in (self.image_projection, self.text_projection):
            nn.init.normal_(projection.weight, std=projection.in_features**-0.5)

    def forward(
        self,
        image: Float[Tensor, "b c height width"],
        tokens: Int[Tensor, "b t"],
        mask: Bool[Tensor, "b t"] | None = None,
    ) -> Encoded:
        patches, words = self.image_encoder(image), self.read_text(tokens, mask)  # (b, n, d), (b, t, width)
        return Encoded(patches, words, self.embed_image(patches), self.embed_text(words))

    def read_text(
        self, tokens: Int[Tensor, "b t"], mask: Bool[Tensor, "b t"] | None = None
    ) -> Float[Tensor, "b t width"]:
        return self.text_encoder(self.embedding(tokens, mask=mask), mask)

    def embed_image(self, patches: Float[Tensor, "b n d"]) -> Float[Tensor, "b embedding"]:
        if self.pooling == "class":
            return F.normalize(self.image_projection(patches[:, 0]), dim=-1)
        return F.normalize(self.image_projection(patches).amax(1), dim=-1)

    def embed_text(self, words: Float[Tensor, "b t width"]) -> Float[Tensor, "b embedding"]:
        return F.normalize(self.text_projection(words[:, 0]), dim=-1)

    def predict_tokens(self, states: Float[Tensor, "b t width"]) -> Float[Tensor, "b t v"]:
        return self.language_head(states, self.embedding.tokens.weight)

    def predict_masked(
        self,
        patches: Float[Tensor, "b n d"],
        masked_tokens: Int[Tensor, "b t"],
        mask: Bool[Tensor, "b t"] | None = None,
    ) -> Float[Tensor, "b t v"]:
        words = self.read_text(masked_tokens, mask)
        return self.predict_tokens(self.multimodal_encoder(words, mask, context=patches))


class ALBEF(nn.Module):
    """Three encoders, a momentum encoder that distils into them, and a queue of its embeddings of earlier batches.

    ``mask`` is True where a token is real. ``forward`` is figure 1 for pairs that belong together; with
    ``masked_tokens`` (b, t), the masked texts, ``token_logits`` are of these. To match one image with many texts,
    give what ``online.image_encoder`` and ``online.read_text`` return to ``online.multimodal_encoder`` and
    ``match_head``. The momentum encoder, the queue, its pointer and the count of steps are in ``state_dict``, and so in
    a checkpoint. Raises ``ValueError`` for impossible settings. Source: section 3 and figure 1.
    """

    def __init__(self, config: ALBEFConfig):
        super().__init__()
        if not (0 <= config.alpha <= 1 and 0 <= config.momentum <= 1):
            raise ValueError(f"alpha and momentum are from 0 to 1; got {config.alpha} and {config.momentum}.")
        if config.queue_size < 1:
            raise ValueError(f"ALBEF needs a queue: queue_size is at least 1, got {config.queue_size}.")
        if config.pooling not in ("class", "max") or config.image.class_token != (config.pooling == "class"):
            raise ValueError(f"pooling is 'class' with a class token or 'max' without, not {config.pooling!r}.")
        self.config = config
        self.online = ALBEFEncoders(config)
        as_bert = partial(initialise_as_bert, std=config.text.initial_std)
        self.match_head = nn.Linear(config.text.width, 2).apply(as_bert)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / config.temperature)))  # ln(1/τ)
        self.momentum_encoder = copy.deepcopy(self.online).requires_grad_(False)
        self.queue = PairQueue(config.queue_size, config.embedding_width)
        self.register_buffer("steps", torch.tensor(0))

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches; in a map of cross-attention they come after the class token if there is one."""
        return self.online.image_encoder.embedding.grid

    @property
    def cross_attention(self) -> list[str]:
        """The names of the maps from words to patches in ``record_attention``, first block first."""
        return [f"online.multimodal_encoder.blocks.{i}.cross_attention" for i in range(self.config.fusion_depth)]

    @property
    def alpha(self) -> float:
        """The weight of the momentum encoder's targets now. Source: section 3.5."""
        return distillation_ramp(self.config.alpha, int(self.steps), self.config.alpha_ramp)

    def encode_image(self, image: Float[Tensor, "b c height width"]) -> Float[Tensor, "b d"]:
        return self.online.embed_image(self.online.image_encoder(image))

    def encode_text(self, tokens: Int[Tensor, "b t"], mask: Bool[Tensor, "b t"] | None = None) -> Float[Tensor, "b d"]:
        return self.online.embed_text(self.online.read_text(tokens, mask))

    def match(
        self,
        image: Float[Tensor, "b c height width"],
        tokens: Int[Tensor, "b t"],
        mask: Bool[Tensor, "b t"] | None = None,
    ) -> Float[Tensor, "b 2"]:
        """Logits of whether image and text belong together, at index 1; for reranking."""
        return self._match(self.online.image_encoder(image), self.online.read_text(tokens, mask), mask)

    def _match(self, patches: Tensor, words: Tensor, mask: Tensor | None) -> Float[Tensor, "b 2"]:
        first = self.online.multimodal_encoder.read(words, 0, mask, context=patches)  # (b, width)
        return self.match_head(first)

    def forward(
        self,
        image: Float[Tensor, "b c height width"],
        tokens: Int[Tensor, "b t"],
        mask: Bool[Tensor, "b t"] | None = None,
        masked_tokens: Int[Tensor, "b t"] | None = None,
    ) -> ALBEFOutput:
        online = self.online
        patches, words, image_embedding, text_embedding = online(image, tokens, mask)
        states = online.multimodal_encoder(words, mask, context=patches)  # (b, t, width)
        if masked_tokens is None:
            token_logits = online.predict_tokens(states)
        else:
            token_logits = online.predict_masked(patches, masked_tokens, mask)
        match_logits, scale = self.match_head(states[:, 0]), self.logit_scale.exp()
        return ALBEFOutput(image_embedding, text_embedding, scale, patches, words, states, match_logits, token_logits)

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Float[Tensor, ""]]:
        """Contrast and matching on whole texts and, with ``token_label`` in the batch, masked words.

        Wrong pairs are drawn here, so every image comes with its own text. In training the batch's embeddings go into
        the queue, once for each call, also where several calls make a step; in evaluation nothing changes.
        ``ValueError`` for no pair, and for a batch without two different captions, where no wrong pair exists.
        """
        image, tokens, mask, caption_id = read_pairs(batch, "ALBEF")
        label = batch.get("token_label")
        unmasked = tokens if label is None else torch.where(label == IGNORED, tokens, label)
        output = self(image, unmasked, mask, masked_tokens=None if label is None else tokens)
        embeddings, scale = (output.image_embedding, output.text_embedding), output.logit_scale
        with torch.no_grad():
            teacher = self.momentum_encoder(image, unmasked, mask)  # targets for the losses below
            teacher_logits = (
                None if label is None else self.momentum_encoder.predict_masked(teacher.patches, tokens, mask)
            )
        momentum_embeddings = teacher.image_embedding, teacher.text_embedding

        alpha = self.alpha  # once, because it waits for the device
        losses = {"itc": queue_contrast(embeddings, momentum_embeddings, caption_id, self.queue, scale, alpha)}
        scale = scale if self.config.hard_negatives else 0.0  # 0: all wrong pairs are equally likely
        positives = positive_pairs(caption_id)
        generator = generator_of_step(
            self.config.seed, self.steps, self.queue.pointer[0]
        )  # a step may have many batches
        image, text = hard_negative_pairs(embeddings, momentum_embeddings, positives, scale, generator)
        wrong = self._match(output.patches[image], output.words[text], mask[text])
        losses["itm"] = matching_loss(output.match_logits, wrong)
        if label is not None and teacher_logits is not None:
            losses["mlm"] = masked_distillation(output.token_logits, label, teacher_logits, alpha)
        if self.training:
            self.queue.push(*map(gather, (*momentum_embeddings, caption_id)))
        return losses

    @torch.no_grad()
    def after_step(self) -> None:
        """Move the momentum encoder, count the step, and keep τ within the official code's 0.001 to 0.5."""
        update_momentum_encoder(self.momentum_encoder, self.online, self.config.momentum)
        self.steps += 1
        self.logit_scale.clamp_(math.log(1 / 0.5), math.log(1 / 0.001))
