"""ALBEF: align before fuse. Picture and text first find each other as vectors; only then words look at patches.

Paper: Li et al. 2021, "Align before Fuse: Vision and Language Representation Learning with Momentum Distillation".
Official code: https://github.com/salesforce/ALBEF.

Deviations: weights start at random, encoders and projections scaled by width, tables and heads at BERT's 0.02; the
paper's as DeiT's and BERT's. The temperature is learned as ln(1/τ), the official code's as τ, within the same bounds.
The average moves after the optimiser's step, the official code's before the next batch: the same numbers, and once a
step also where a step takes several batches. The contrast is over the batch of all processes, the official code's over
that of its own, with the same queue; both look for hard negatives in their own. Where the batch says which captions are
equal, all of them fit, and none is a negative. Distillation is a cross-entropy, as in the official code; equations 6
and 7 have a divergence, which differs by a constant. With ``hard_negatives=False`` they are drawn evenly, for
comparison. ``tiny`` is ours: its average is faster, and it has no class token but embeds a picture by each feature's
maximum over the patches, because a class token needs several times as many steps to learn where to look.
"""

import copy
import math
import random
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmlearn.data.fields import Image, Tokens
from mmlearn.layers import Config, ImageEncoder, ImageEncoderConfig
from mmlearn.layers.language import initialise_as_bert
from mmlearn.layers.padded import BERTEmbedding, MaskedLanguageHead, bert_transformer
from mmlearn.models.align.pair_queue import PairQueue
from mmlearn.objectives import gather, image_text_matching, soft_cross_entropy, update_average
from mmlearn.objectives.align import fitting, hard_triples, momentum_contrast, ramp
from mmlearn.objectives.masked import IGNORED, masked_cross_entropy
from mmlearn.recipes import ITC, ITM_INSIDE, MLM, Recipe


@dataclass(frozen=True)
class ALBEFConfig(Config):
    image: ImageEncoderConfig = ImageEncoderConfig(image_size=256, norm_epsilon=1e-6)
    vocab_size: int = 30_522
    max_length: int = 512  # tokens
    pad_token: int = 0
    width: int = 768
    text_depth: int = 6  # blocks that see only the text
    fusion_depth: int = 6  # blocks that also look at the picture
    num_heads: int = 12
    norm_epsilon: float = 1e-12
    dropout: float = 0.1
    embedding_width: int = 256
    pooling: str = "class"  # a picture's embedding is of its class token, or the "max" over its patches
    temperature: float = 0.07  # at the start; the model learns its own
    momentum: float = 0.995  # of the averaged encoders
    queue_size: int = 65_536  # embeddings of earlier batches, as more negatives; at most the size of the data
    alpha: float = 0.4  # how much the averaged encoders are trusted; 0: no distillation
    alpha_ramp: int = 10_000  # steps in which alpha rises from 0: an epoch of 5.1 M pairs in batches of 512
    hard_negatives: bool = True  # wrong pairs that look right; False: any
    seed: int = 0  # of the wrong pairs

    PRESETS = {
        "tiny": dict(
            image=ImageEncoderConfig(image_size=64, patch_size=16, width=64, depth=3, num_heads=2, class_token=False),
            vocab_size=512,
            max_length=32,
            width=64,
            text_depth=1,
            fusion_depth=2,
            num_heads=2,
            dropout=0.0,
            embedding_width=64,
            pooling="max",
            momentum=0.98,
            queue_size=1024,
            alpha_ramp=100,
        ),
        "base": dict(),
    }


class ALBEFOutput(NamedTuple):
    image_embedding: Float[Tensor, "b d"]  # unit length
    text_embedding: Float[Tensor, "b d"]  # unit length
    logit_scale: Float[Tensor, ""]  # 1/τ, already exponentiated
    tokens: Float[Tensor, "b t width"]  # words that have seen the picture
    match_logits: Float[Tensor, "b 2"]  # index 1: picture and text belong together
    token_logits: Float[Tensor, "b t v"]


class ALBEFEncoders(nn.Module):
    """The image, text and multimodal encoder, and what reads vectors and words off them: all that is averaged.

    Source: section 3.1 and figure 1.
    """

    def __init__(self, config: ALBEFConfig):
        super().__init__()
        width, num_heads = config.width, config.num_heads
        shared = dict(norm_epsilon=config.norm_epsilon, dropout=config.dropout)
        self.embedding = BERTEmbedding(
            config.vocab_size, width, config.max_length, pad_token=config.pad_token, **shared
        )
        self.text_encoder = bert_transformer(width, config.text_depth, num_heads, **shared)
        self.multimodal_encoder = bert_transformer(
            width, config.fusion_depth, num_heads, context_width=config.image.width, **shared
        )
        self.language_head = MaskedLanguageHead(width, config.vocab_size, norm_epsilon=config.norm_epsilon)
        self.image_projection = nn.Linear(config.image.width, config.embedding_width)
        self.text_projection = nn.Linear(width, config.embedding_width)
        self.pooling = config.pooling
        self.image_encoder = ImageEncoder(config.image)
        for part in (self.embedding, self.language_head):
            part.apply(initialise_as_bert)
        for projection in (self.image_projection, self.text_projection):
            nn.init.normal_(projection.weight, std=projection.in_features**-0.5)

    def read_text(
        self, tokens: Int[Tensor, "b t"], mask: Bool[Tensor, "b t"] | None = None
    ) -> Float[Tensor, "b t width"]:
        return self.text_encoder(self.embedding(tokens), mask)

    def embed_image(self, image: Float[Tensor, "b n d"]) -> Float[Tensor, "b embedding"]:
        if self.pooling == "class":
            return F.normalize(self.image_projection(image[:, 0]), dim=-1)
        return F.normalize(self.image_projection(image).amax(1), dim=-1)

    def embed_text(self, text: Float[Tensor, "b t width"]) -> Float[Tensor, "b embedding"]:
        return F.normalize(self.text_projection(text[:, 0]), dim=-1)

    def fuse(
        self,
        image: Float[Tensor, "b n d"],
        text: Float[Tensor, "b t width"],
        mask: Bool[Tensor, "b t"] | None = None,
        read: Int[Tensor, "b"] | None = None,
    ) -> Float[Tensor, "b r width"]:
        return self.multimodal_encoder(text, mask, context=image, read=read)

    def predict_tokens(self, states: Float[Tensor, "*n width"]) -> Float[Tensor, "*n v"]:
        return self.language_head(states, self.embedding.tokens.weight)


class ALBEF(nn.Module):
    """Three encoders, a slow average of them that teaches them, and a queue of what that made of earlier batches.

    ``mask`` is True where a token is real. To judge one picture with many texts, give what ``online.image_encoder`` and
    ``online.read_text`` return to ``online.fuse`` and ``match_head``. The average, the queue, its pointer and the
    count of steps are in ``state_dict``, and so in a checkpoint. Raises ``ValueError`` for settings that cannot be.
    Source: section 3 and figure 1.
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
        self.match_head = nn.Linear(config.width, 2).apply(initialise_as_bert)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / config.temperature)))  # ln(1/τ)
        self.average = copy.deepcopy(self.online).requires_grad_(False)
        self.queue = PairQueue(config.queue_size, config.embedding_width)
        self.register_buffer("steps", torch.tensor(0))

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches; in a map of cross-attention they come after the class token if there is one."""
        return self.online.image_encoder.embedding.grid

    @property
    def cross_attention(self) -> list[str]:
        """Where words look at the picture, first block first: the names that ``record_attention`` stores maps under."""
        return [f"online.multimodal_encoder.blocks.{i}.cross_attention" for i in range(self.config.fusion_depth)]

    @property
    def alpha(self) -> float:
        """How much the average is trusted now. Source: section 3.5."""
        return ramp(self.config.alpha, int(self.steps), self.config.alpha_ramp)

    def encode_image(self, image: Float[Tensor, "b 3 height width"]) -> Float[Tensor, "b d"]:
        return self.online.embed_image(self.online.image_encoder(image))

    def encode_text(self, tokens: Int[Tensor, "b t"], mask: Bool[Tensor, "b t"] | None = None) -> Float[Tensor, "b d"]:
        return self.online.embed_text(self.online.read_text(tokens, mask))

    def match(
        self,
        image: Float[Tensor, "b 3 height width"],
        tokens: Int[Tensor, "b t"],
        mask: Bool[Tensor, "b t"] | None = None,
    ) -> Float[Tensor, "b 2"]:
        """Logits of whether picture and text belong together, which they do at index 1; for ranking candidates anew."""
        return self._judge(self.online.image_encoder(image), self.online.read_text(tokens, mask), mask)

    def _judge(self, image: Tensor, text: Tensor, mask: Tensor | None) -> Float[Tensor, "b 2"]:
        """Only the first token is read, and so it alone is computed to the end."""
        first = torch.zeros(len(text), dtype=torch.long, device=text.device)
        return self.match_head(self.online.fuse(image, text, mask, first)[:, 0])

    def forward(
        self,
        image: Float[Tensor, "b 3 height width"],
        tokens: Int[Tensor, "b t"],
        mask: Bool[Tensor, "b t"] | None = None,
    ) -> ALBEFOutput:
        online = self.online
        image, text = online.image_encoder(image), online.read_text(tokens, mask)
        states = online.fuse(image, text, mask)
        return ALBEFOutput(
            image_embedding=online.embed_image(image),
            text_embedding=online.embed_text(text),
            logit_scale=self.logit_scale.exp(),
            tokens=states,
            match_logits=self.match_head(states[:, 0]),
            token_logits=online.predict_tokens(states),
        )

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Float[Tensor, ""]]:
        """Contrast and matching on whole texts and, with ``token_label`` in the batch, masked words.

        Wrong pairs are made here, so every picture comes with its own text. In training the batch's embeddings go into
        the queue, once for each call, also where several calls make a step; in evaluation nothing changes.
        ``ValueError`` for no pair, and for a batch without two different captions, where no wrong pair exists.
        """
        images, tokens, label = batch["image"], batch["tokens"], batch.get("token_label")
        if not 1 <= len(images) == len(tokens):
            raise ValueError(
                f"Images and texts come in pairs, and at least one: got {len(images)} images and {len(tokens)} texts."
            )
        if not batch.get("match_label", torch.ones(1)).all():
            raise ValueError("ALBEF makes its own wrong pairs, and match_label marks some; collate without 'itm'.")
        mask = batch.get("mask", torch.ones_like(tokens, dtype=torch.bool))
        whole = tokens if label is None else torch.where(label == IGNORED, tokens, label)
        image, text = self.online.image_encoder(images), self.online.read_text(whole, mask)
        with torch.no_grad():
            slow_image, slow_text = self.average.image_encoder(images), self.average.read_text(whole, mask)
            slow = self.average.embed_image(slow_image), self.average.embed_text(slow_text)
        fast = self.online.embed_image(image), self.online.embed_text(text)
        number = batch.get("caption_id", tokens.new_full((len(tokens),), -1))
        all_slow, all_number = tuple(map(gather, slow)), gather(number)  # of all processes
        losses = {
            "itc": self._contrast(fast, all_slow, all_number),
            "itm": self._matching(image, text, mask, fast, slow, number),
        }
        if label is not None:
            losses["mlm"] = self._fill_gaps(image, slow_image, tokens, mask, label)
        if self.training:  # so that every process has the same queue
            self.queue.push(*all_slow, all_number)
        return losses

    def _contrast(self, fast: tuple[Tensor, Tensor], slow: tuple[Tensor, Tensor], number: Tensor) -> Tensor:
        """ITC: pick the partner among the average's embeddings of batch and queue. Source: equations 1, 2 and 6."""
        fast, queues = tuple(map(gather, fast)), (self.queue.image, self.queue.text)
        fits = torch.cat([fitting(number), self.queue.fits(number)], dim=1)
        return momentum_contrast(fast, slow, queues, fits, self.logit_scale.exp(), self.alpha)

    def _matching(self, image, text, mask, fast, slow, number) -> Tensor:
        """ITM: b right pairs, b with a wrong text, b with a wrong picture. Source: section 3.2."""
        # Chance is a function of what a checkpoint holds; the pointer tells the batches of one step apart.
        seed = random.Random(f"{self.config.seed} {int(self.steps)} {int(self.queue.pointer)}").getrandbits(32)
        generator = torch.Generator().manual_seed(seed)
        scale = self.logit_scale.exp() if self.config.hard_negatives else 0.0
        picture, words, label = hard_triples(fast, slow, fitting(number), scale, generator)
        return image_text_matching(self._judge(image[picture], text[words], mask[words]), label)

    def _fill_gaps(self, image, slow_image, tokens, mask, label) -> Tensor:
        """MLM: which words are hidden, given the rest and the picture? Source: equations 3 and 7."""
        masked = label != IGNORED
        states = self.online.fuse(image, self.online.read_text(tokens, mask), mask)[masked]
        logits, words = self.online.predict_tokens(states), label[masked]
        hard = masked_cross_entropy(logits, words)
        if not self.alpha or not len(words):
            return hard
        with torch.no_grad():
            states = self.average.fuse(slow_image, self.average.read_text(tokens, mask), mask)[masked]
            taught = self.average.predict_tokens(states)
        return (1 - self.alpha) * hard + self.alpha * soft_cross_entropy(logits, taught.softmax(-1))

    @torch.no_grad()
    def after_step(self) -> None:
        """Move the average, count the step, and keep τ within the official code's 0.001 to 0.5."""
        update_average(self.average, self.online, self.config.momentum)
        self.steps += 1
        self.logit_scale.clamp_(math.log(1 / 0.5), math.log(1 / 0.001))


RECIPE = Recipe(
    ALBEF,
    ALBEFConfig,
    reads=(Image(), Tokens()),
    learns=(replace(ITC, chance={}), ITM_INSIDE, MLM),  # ITC is among the batch and the queue
)
