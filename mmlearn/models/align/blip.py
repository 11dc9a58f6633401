"""BLIP: one text transformer that reads alone, reads beside a picture, and writes captions that it then filters.

Paper: Li et al. 2022, "BLIP: Bootstrapping Language-Image Pre-training for Unified Vision-Language Understanding and
Generation". Official code: https://github.com/salesforce/BLIP.

Deviations: weights start at random, the official code's as a ViT's and BERT's. Where the batch says which captions are
equal, all of them fit; in the official code only for retrieval. The contrast is over the batch of all processes. Hard
negatives are drawn by their softmax, to which the official code adds 1e-4. α rises over steps, not over two epochs.
There is no stochastic depth. A checkpoint of Transformers is one half of this model, without temperature, average and
queue, and trains on at a fixed temperature. ``tiny`` is ours. For the filter see
:mod:`mmlearn.models.align.caption_filter`.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmlearn.data.fields import Image, Tokens
from mmlearn.generation.decoding import greedy
from mmlearn.layers import Config, ImageEncoder, ImageEncoderConfig, TextEmbedding
from mmlearn.layers.language import initialise_as_bert
from mmlearn.layers.padded import NO_PADDING, MaskedLanguageHead, Padding, bert_transformer
from mmlearn.models.align.pair_queue import PairQueue
from mmlearn.objectives import gather, image_text_matching, info_nce, update_average
from mmlearn.objectives.align import fitting, hard_triples, momentum_contrast, ramp
from mmlearn.recipes import ITC, ITM_INSIDE, LM, Recipe


@dataclass(frozen=True)
class BLIPConfig(Config):
    image: ImageEncoderConfig = ImageEncoderConfig(norm_epsilon=1e-6)
    vocab_size: int = 30_522  # of texts; the table also has [Decode] and [Encode], the two numbers after them
    max_length: int = 512  # tokens
    pad_token: int = 0
    end_token: int = 102  # where a written caption is complete
    width: int = 768
    depth: int = 12
    num_heads: int = 12
    mlp_width: int | None = None  # 4 · width
    activation: str = "gelu"
    norm_epsilon: float = 1e-12
    dropout: float = 0.1
    initial_std: float = 0.02  # of weights
    embedding_width: int = 256
    encoder: bool = True  # contrast and matching
    decoder: bool = True  # captions
    label_smoothing: float = 0.1  # of captions
    temperature: float = 0.07  # at the start; learned where there is an average
    momentum: float = 0.995  # of the averaged encoders
    queue_size: int = 57_600  # embeddings of earlier batches, as more negatives; 0: no average either
    alpha: float = 0.4  # how much the averaged encoders are trusted
    alpha_ramp: int = 10_000  # steps in which alpha rises from 0: two epochs of 14 M pairs in batches of 2,880

    PRESETS = {
        "tiny": dict(
            image=ImageEncoderConfig(image_size=64, patch_size=16, width=64, depth=3, num_heads=2),
            vocab_size=512,
            max_length=32,
            end_token=2,
            width=64,
            depth=3,
            num_heads=2,
            dropout=0.0,
            initial_std=0.125,
            embedding_width=64,
            queue_size=1024,
            alpha_ramp=100,
        ),
        "base": dict(),
        "large": dict(image=ImageEncoderConfig(width=1024, depth=24, num_heads=16, norm_epsilon=1e-6)),
    }


class BLIPOutput(NamedTuple):
    image_embedding: Float[Tensor, "b d"] | None  # unit length
    text_embedding: Float[Tensor, "b d"] | None  # unit length
    tokens: Float[Tensor, "b t width"] | None  # words that have seen the picture, to be matched with it
    match_logits: Float[Tensor, "b 2"] | None  # index 1: picture and text belong together
    token_logits: Float[Tensor, "b t v"] | None  # at place i: what comes after token i


class Mixture(nn.Module):
    """The text transformer of all roles: BERT's, without token types, whose blocks may also attend to ``patches``.

    The decoder is the same, but causal and with ``self_attention`` of its own: for each block an attention and its
    norm. With ``first`` the last block computes the first token alone. Source: section 3.1, figure 2 and table 3.
    """

    def __init__(self, config: BLIPConfig):
        super().__init__()
        self.embedding = TextEmbedding(config.vocab_size + 2, config.width, config.max_length)
        self.embedding.tokens.padding_idx = config.pad_token
        self.embedding_norm = nn.LayerNorm(config.width, eps=config.norm_epsilon)
        self.dropout = nn.Dropout(config.dropout)
        names = ("mlp_width", "activation", "norm_epsilon", "dropout")
        block = {name: getattr(config, name) for name in names} | dict(context_width=config.image.width)
        self.transformer = bert_transformer(config.width, config.depth, config.num_heads, **block)
        self.apply(partial(initialise_as_bert, std=config.initial_std))

    def forward(
        self,
        tokens: Int[Tensor, "b t"],
        mask: Bool[Tensor, "b t"] | None = None,
        patches: Float[Tensor, "b p image_width"] | None = None,
        causal: bool = False,
        self_attention: nn.ModuleList | None = None,
        first: bool = False,
    ) -> Float[Tensor, "b r d"]:
        padding = asking = Padding(mask)
        x, blocks = self.dropout(self.embedding_norm(padding.remove(self.embedding(tokens)))), self.transformer.blocks
        for block, own in zip(blocks, blocks if self_attention is None else self_attention):
            seen = x
            if first and block is blocks[-1]:
                asking, x = NO_PADDING, padding.restore(x)[:, :1]
            x = own.attention_norm(x + block.dropout(own.attention(x, seen, None, causal, asking, padding)))
            if patches is not None:
                x = block.cross_attention_norm(x + block.dropout(block.cross_attention(x, patches, padding=asking)))
            x = block.mlp_norm(x + block.dropout(block.mlp(x)))
        return asking.restore(x)


class Towers(nn.Module):
    """The picture encoder and the text transformer, and what reads embeddings off them: all that is averaged."""

    def __init__(self, config: BLIPConfig):
        super().__init__()
        self.image_encoder = ImageEncoder(config.image)
        self.text = Mixture(config)
        if config.encoder:
            self.image_projection = nn.Linear(config.image.width, config.embedding_width)
            self.text_projection = nn.Linear(config.width, config.embedding_width)

    def embed_image(self, patches: Float[Tensor, "b n d"]) -> Float[Tensor, "b embedding"]:
        return F.normalize(self.image_projection(patches[:, 0]), dim=-1)

    def embed_text(self, words: Float[Tensor, "b t width"]) -> Float[Tensor, "b embedding"]:
        return F.normalize(self.text_projection(words[:, 0]), dim=-1)


class BLIP(nn.Module):
    """A picture encoder, and a text transformer in three roles.

    A text alone is compared with a picture; beginning with [Encode] beside the picture, it is matched with it;
    beginning with [Decode] it is written. What stands first in ``tokens`` gives way to these. Padding, where ``mask``
    is False, comes last. ``ValueError`` where nothing is to be built, or what is asked for was not. Source: section 3.
    """

    def __init__(self, config: BLIPConfig):
        super().__init__()
        if not (config.encoder or config.decoder):
            raise ValueError("BLIP reads or writes: set encoder=True, decoder=True, or both.")
        self.config = config
        self.decode_token, self.encode_token = config.vocab_size, config.vocab_size + 1
        self.online = Towers(config)
        start = partial(initialise_as_bert, std=config.initial_std)
        self.match_head = nn.Linear(config.width, 2).apply(start) if config.encoder else None
        self.language_head = self.decoder_attention = self.average = self.queue = None
        if config.decoder:
            shape = dict(activation=config.activation, norm_epsilon=config.norm_epsilon)
            self.language_head = MaskedLanguageHead(config.width, config.vocab_size + 2, **shape).apply(start)
        if config.encoder and config.decoder:  # without an encoder, the transformer's attention is the decoder's
            own = copy.deepcopy([(one.attention, one.attention_norm) for one in self.online.text.transformer.blocks])
            self.decoder_attention = nn.ModuleList(nn.ModuleDict(zip(("attention", "attention_norm"), x)) for x in own)
        self.temperature = config.temperature
        if config.encoder and config.queue_size:
            self.temperature = nn.Parameter(torch.tensor(config.temperature))
            self.average = copy.deepcopy(self.online).requires_grad_(False)
            self.queue = PairQueue(config.queue_size, config.embedding_width)
            self.register_buffer("steps", torch.tensor(0))

    def _require(self, role: str) -> None:
        if not getattr(self.config, role):
            raise ValueError(f"This BLIP was built without {role}; set {role}=True in its configuration.")

    def encode_image(self, image: Float[Tensor, "b 3 height width"]) -> Float[Tensor, "b d"]:
        self._require("encoder")
        return self.online.embed_image(self.online.image_encoder(image))

    def encode_text(self, tokens: Int[Tensor, "b t"], mask: Bool[Tensor, "b t"] | None = None) -> Float[Tensor, "b d"]:
        self._require("encoder")
        return self.online.embed_text(self.online.text(tokens, mask, first=True))

    def match(
        self,
        image: Float[Tensor, "b 3 height width"],
        tokens: Int[Tensor, "b t"],
        mask: Bool[Tensor, "b t"] | None = None,
    ) -> Float[Tensor, "b 2"]:
        """Logits of whether picture and text belong together, which they do at index 1."""
        self._require("encoder")
        return self._match(self.online.image_encoder(image), tokens, mask)

    def _begin(self, token: int, patches: Tensor, tokens: Tensor, mask: Tensor | None, **role: Any) -> Tensor:
        return self.online.text(F.pad(tokens[:, 1:], (1, 0), value=token), mask, patches, **role)

    def _match(self, patches: Tensor, tokens: Tensor, mask: Tensor | None) -> Tensor:
        return self.match_head(self._begin(self.encode_token, patches, tokens, mask, first=True)[:, 0])

    def _write(self, patches: Tensor, tokens: Tensor, mask: Tensor | None = None) -> Float[Tensor, "b t d"]:
        return self._begin(self.decode_token, patches, tokens, mask, causal=True, self_attention=self.decoder_attention)

    def _token_logits(self, states: Float[Tensor, "*n d"]) -> Float[Tensor, "*n v"]:
        return self.language_head(states, self.online.text.embedding.tokens.weight)

    @torch.no_grad()
    def generate(
        self,
        image: Float[Tensor, "b 3 height width"],
        decode: Callable[..., Tensor] = greedy,  # of mmlearn.generation.decoding; in section 4.3 partial(nucleus, ...)
        *,
        prompt: Int[Tensor, "b prompt"] | None = None,
        max_length: int = 20,
    ) -> Int[Tensor, "b t"]:
        """Captions that go on from the ``prompt``, of up to ``max_length`` tokens with it and with the end token."""
        self._require("decoder")
        patches = self.online.image_encoder(image)

        def next_logits(tokens: Tensor) -> Tensor:  # a picture is seen by each of its beams
            seen = patches.repeat_interleave(len(tokens) // len(patches), dim=0)
            return self._token_logits(self._write(seen, tokens)[:, -1])

        start = torch.full((len(image), 1), self.decode_token, device=image.device)
        start = start if prompt is None else torch.cat([start, prompt], dim=1)
        ids = dict(end_token=self.config.end_token, pad_token=self.config.pad_token)
        return decode(next_logits, start, max_length=max_length + 1, **ids)[:, 1:]

    def forward(
        self,
        image: Float[Tensor, "b 3 height width"],
        tokens: Int[Tensor, "b t"],
        mask: Bool[Tensor, "b t"] | None = None,
    ) -> BLIPOutput:
        patches, encoder = self.online.image_encoder(image), self.config.encoder
        states = self._begin(self.encode_token, patches, tokens, mask) if encoder else None
        return BLIPOutput(
            image_embedding=self.online.embed_image(patches) if encoder else None,
            text_embedding=self.encode_text(tokens, mask) if encoder else None,
            tokens=states,
            match_logits=self.match_head(states[:, 0]) if encoder else None,
            token_logits=self._token_logits(self._write(patches, tokens, mask)) if self.config.decoder else None,
        )

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Float[Tensor, ""]]:
        """Contrast and matching if there is an encoder, captions if there is a decoder.

        Wrong pairs are made here, as a function of the batch, so pictures come with their texts. In training the queue
        takes the batch in. ``ValueError`` for no pair, and for one caption alone if there is an encoder.
        """
        images, tokens = batch["image"], batch["tokens"]
        if not 1 <= len(images) == len(tokens):
            raise ValueError(f"Pictures and texts are as many, and at least one; got {len(images)} and {len(tokens)}.")
        if not batch.get("match_label", torch.ones(1)).all():
            raise ValueError("BLIP makes its own wrong pairs, and match_label marks some; collate without 'itm'.")
        mask = batch.get("mask", torch.ones_like(tokens, dtype=torch.bool))
        patches, losses = self.online.image_encoder(images), {}
        if self.config.encoder:
            fast = slow = self.online.embed_image(patches), self.encode_text(tokens, mask)
            if self.average is not None:
                with torch.no_grad():
                    one, two = self.average.image_encoder(images), self.average.text(tokens, mask, first=True)
                    slow = self.average.embed_image(one), self.average.embed_text(two)
            number = batch.get("caption_id", tokens.new_full((len(tokens),), -1))
            losses["itc"] = self._contrast(fast, slow, number)
            generator = torch.Generator().manual_seed(int(tokens[mask].sum()))
            picture, text, label = hard_triples(fast, slow, fitting(number), 1 / self.temperature, generator)
            losses["itm"] = image_text_matching(self._match(patches[picture], tokens[text], mask[text]), label)
        if self.config.decoder:
            losses["lm"] = self._captioning(patches, tokens, mask)
        return losses

    def _contrast(self, fast: tuple[Tensor, Tensor], slow: tuple[Tensor, Tensor], number: Tensor) -> Tensor:
        """ITC: find the partner, among embeddings of the average where there is one. Source: section 3.2."""
        fast, number = tuple(map(gather, fast)), gather(number)
        if self.queue is None:
            return info_nce(*fast, fast[0].new_tensor(1 / self.temperature), fitting(number))
        slow = tuple(map(gather, slow))
        fits = torch.cat([fitting(number), self.queue.fits(number)], dim=1)
        alpha = ramp(self.config.alpha, int(self.steps), self.config.alpha_ramp)
        loss = momentum_contrast(fast, slow, (self.queue.image, self.queue.text), fits, 1 / self.temperature, alpha)
        if self.training:
            self.queue.push(*slow, number)
        return loss

    def _captioning(self, patches: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        """LM: every real token but the first, from those before it and the picture. Source: section 3.2."""
        words, before = tokens[:, 1:][mask[:, 1:]], F.pad(mask[:, 1:], (0, 1))  # what ends a text predicts nothing
        logits = self._token_logits(self._write(patches, tokens, before)[before])
        loss = F.cross_entropy(logits, words, reduction="sum", label_smoothing=self.config.label_smoothing)
        return loss / max(1, len(words))  # of texts without a word it is 0

    @torch.no_grad()
    def after_step(self) -> None:
        """Move the average, count the step, and keep τ within the official code's 0.001 to 0.5."""
        if self.average is not None:
            update_average(self.average, self.online, self.config.momentum)
            self.steps += 1
            self.temperature.clamp_(0.001, 0.5)


RECIPE = Recipe(
    BLIP,
    BLIPConfig,
    reads=(Image(), Tokens()),
    learns=(replace(ITC, chance={}), ITM_INSIDE, LM),  # ITC is among the batch and the queue
)
