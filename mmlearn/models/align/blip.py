"""BLIP: one text transformer that encodes text, matches it with an image, and writes captions, which it also filters.

Paper: Li et al. 2022, "BLIP: Bootstrapping Language-Image Pre-training for Unified Vision-Language Understanding and
Generation". Official code: https://github.com/salesforce/BLIP.

Deviations: weights start at random, in the official code as a ViT's and BERT's. Where the batch says which captions are
equal, all of them are positives; in the official code only for retrieval. The contrast is over the batch of all
processes. Hard negatives are drawn by their softmax, to which the official code adds 1e-4. α rises over steps, not over
two epochs. There is no stochastic depth. A checkpoint of Transformers is one half of this model, without temperature,
momentum encoder and queue, and trains on at a fixed temperature. ``tiny`` is ours. For the filter see
:mod:`mmlearn.models.align.caption_filter`.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmlearn.generation.cache import DecodingStep, ScoreNext, continue_prompts
from mmlearn.generation.decoding import greedy
from mmlearn.layers import BERTEncoderConfig, Config, ImageEncoder, ImageEncoderConfig
from mmlearn.layers.language import TINY_BERT, MaskedLanguageHead, check_text_mask, initialise_as_bert
from mmlearn.layers.steps import StepCounter
from mmlearn.models.align.med import MED
from mmlearn.models.align.pair_losses import matching_loss, read_pairs
from mmlearn.models.align.pair_queue import PairQueue, queue_contrast
from mmlearn.objectives import gather, update_momentum_encoder
from mmlearn.objectives.align import Pair, distillation_ramp, hard_negative_pairs
from mmlearn.objectives.draws import generator_of_step
from mmlearn.objectives.generative import caption_language_modelling
from mmlearn.objectives.matching import positive_pairs


@dataclass(frozen=True)
class BLIPConfig(Config):
    image: ImageEncoderConfig = ImageEncoderConfig(norm_epsilon=1e-6)
    # Its table also has [Decode] and [Encode], the two numbers after those of the vocabulary.
    text: BERTEncoderConfig = BERTEncoderConfig(token_types=0)
    end_token: int = 102  # where a written caption is complete
    embedding_width: int = 256
    encoder: bool = True  # contrast and matching
    decoder: bool = True  # captions
    label_smoothing: float = 0.1  # of captions
    temperature: float = 0.07  # at the start; learned where there is a momentum encoder
    momentum: float = 0.995  # of the momentum encoder
    queue_size: int = 57_600  # embeddings of earlier batches, as more negatives; 0: no momentum encoder either
    alpha: float = 0.4  # the weight of the momentum encoder's targets
    alpha_ramp: int = 10_000  # steps in which alpha rises from 0: two epochs of 14 M pairs in batches of 2,880
    seed: int = 0  # of the wrong pairs

    PRESETS = {
        "tiny": dict(image=ImageEncoderConfig(64, 3, 2, image_size=64, patch_size=16))
        | dict(text=BERTEncoderConfig(**TINY_BERT | dict(num_heads=2, token_types=0)))
        | dict(end_token=2, embedding_width=64, queue_size=1024, alpha_ramp=100),
        "base": dict(),
        "large": dict(image=ImageEncoderConfig(1024, 24, 16, norm_epsilon=1e-6)),
    }


class MatchingOutput(NamedTuple):
    """Of a model without the decoder."""

    patches: Float[Tensor, "b n image_width"]
    image_embedding: Float[Tensor, "b d"]  # unit length
    text_embedding: Float[Tensor, "b d"]  # unit length
    tokens: Float[Tensor, "b t width"]  # after the image-grounded encoder
    match_logits: Float[Tensor, "b 2"]  # index 1: image and text belong together


class CaptionOutput(NamedTuple):
    """Of a model without the encoder."""

    patches: Float[Tensor, "b n image_width"]
    token_logits: Float[Tensor, "b t v"]  # at position i: of the token after token i


class BLIPOutput(NamedTuple):
    """Of a whole model: as both above."""

    patches: Float[Tensor, "b n image_width"]
    image_embedding: Float[Tensor, "b d"]
    text_embedding: Float[Tensor, "b d"]
    tokens: Float[Tensor, "b t width"]
    match_logits: Float[Tensor, "b 2"]
    token_logits: Float[Tensor, "b t v"]


class BLIPEncoders(nn.Module):
    """The image encoder, the text transformer and the projections: all with a momentum copy."""

    def __init__(self, config: BLIPConfig, text: BERTEncoderConfig):
        super().__init__()
        self.image_encoder = ImageEncoder(config.image)
        self.text = MED(text, config.image.width)
        if config.encoder:
            self.image_projection = nn.Linear(config.image.width, config.embedding_width)
            self.text_projection = nn.Linear(text.width, config.embedding_width)

    def embed_image(self, patches: Float[Tensor, "b n d"]) -> Float[Tensor, "b embedding"]:
        return F.normalize(self.image_projection(patches[:, 0]), dim=-1)

    def embed_text(
        self, tokens: Int[Tensor, "b t"], mask: Bool[Tensor, "b t"] | None = None
    ) -> Float[Tensor, "b embedding"]:
        first = self.text.transformer.read(self.text.embedding(tokens, mask=mask), 0, mask)  # (b, width)
        return F.normalize(self.text_projection(first), dim=-1)

    @torch.no_grad()
    def embed_pair(self, image: Tensor, tokens: Tensor, mask: Tensor) -> Pair:
        """The embeddings of images and of texts, as targets."""
        return self.embed_image(self.image_encoder(image)), self.embed_text(tokens, mask)


class BLIP(StepCounter):
    """An image encoder, and a text transformer in three roles.

    A text alone is contrasted with images; with [Encode] as its first token it is matched with an image; with [Decode]
    it is written. These replace the first of ``tokens``. Padding, where ``mask`` is False, comes last. ``ValueError``
    without encoder and decoder, and for a method whose half was not built. Source: section 3.
    """

    def __init__(self, config: BLIPConfig):
        super().__init__()
        if not (config.encoder or config.decoder):
            raise ValueError("BLIP reads or writes: set encoder=True, decoder=True, or both.")
        self.config = config
        words = config.text.vocab_size
        self.decode_token, self.encode_token = words, words + 1
        text = replace(config.text, vocab_size=words + 2)
        self.online = BLIPEncoders(config, text)
        as_bert = partial(initialise_as_bert, std=text.initial_std)
        if config.encoder:
            self.match_head = nn.Linear(text.width, 2).apply(as_bert)
        if config.decoder:
            self.language_head = MaskedLanguageHead(text).apply(as_bert)
        self.decoder_attention = self.momentum_encoder = self.queue = None
        if config.encoder and config.decoder:  # without an encoder, the transformer's attention is the decoder's
            blocks = self.online.text.transformer.blocks
            copies = copy.deepcopy([(block.attention, block.attention_norm) for block in blocks])
            self.decoder_attention = nn.ModuleList(
                nn.ModuleDict({"attention": attention, "attention_norm": norm}) for attention, norm in copies
            )
        self.temperature: float | nn.Parameter = config.temperature
        if config.encoder and config.queue_size:
            self.temperature = nn.Parameter(torch.tensor(config.temperature))
            self.momentum_encoder = copy.deepcopy(self.online).requires_grad_(False)
            self.queue = PairQueue(config.queue_size, config.embedding_width)

    def _require(self, role: str) -> None:
        if not getattr(self.config, role):
            raise ValueError(f"This BLIP was built without {role}; set {role}=True in its configuration.")

    def encode_image(self, image: Float[Tensor, "b c height width"]) -> Float[Tensor, "b d"]:
        self._require("encoder")
        return self.online.embed_image(self.online.image_encoder(image))

    def encode_text(self, tokens: Int[Tensor, "b t"], mask: Bool[Tensor, "b t"] | None = None) -> Float[Tensor, "b d"]:
        self._require("encoder")
        return self.online.embed_text(tokens, mask)

    def match(
        self,
        image: Float[Tensor, "b c height width"],
        tokens: Int[Tensor, "b t"],
        mask: Bool[Tensor, "b t"] | None = None,
    ) -> Float[Tensor, "b 2"]:
        """Logits of whether image and text belong together, at index 1."""
        self._require("encoder")
        return self._match(self.online.image_encoder(image), tokens, mask)

    def _match(self, patches: Tensor, tokens: Tensor, mask: Tensor | None) -> Tensor:
        text = self.online.text
        x = text.embedding(_replace_first(self.encode_token, tokens), mask=mask)  # (b, t, d)
        return self.match_head(text.transformer.read(x, 0, mask, context=patches))  # of the state of [Encode]

    def _decode(self, patches: Tensor, tokens: Tensor, mask: Tensor | None = None) -> Float[Tensor, "b t d"]:
        check_text_mask(mask)
        return self.online.text.decode(_replace_first(self.decode_token, tokens), mask, patches, self.decoder_attention)

    def _token_logits(self, states: Float[Tensor, "*n d"]) -> Float[Tensor, "*n v"]:
        return self.language_head(states, self.online.text.embedding.tokens.weight)

    def step_function(self, image: Float[Tensor, "b c height width"]) -> ScoreNext:
        """The function that decoding calls: it scores the next word of captions of these images."""
        self._require("decoder")
        patches, decode = self.online.image_encoder(image), self.online.text.decode

        def read(step: DecodingStep) -> Float[Tensor, "n v"]:
            x = decode(step.tokens, step.key_mask, step.context(patches), self.decoder_attention, step.position)
            return self._token_logits(x[:, -1])

        return read

    @torch.no_grad()
    def generate(
        self,
        image: Float[Tensor, "b c height width"],
        decode: Callable[..., Tensor] = greedy,  # of mmlearn.generation.decoding; in section 4.3 partial(sample, ...)
        *,
        prompt: Int[Tensor, "b prompt"] | None = None,
        prompt_mask: Bool[Tensor, "b prompt"] | None = None,
        max_length: int = 20,
    ) -> Int[Tensor, "b t"]:
        """Captions that continue the ``prompt``, of up to ``max_length`` tokens with it and with the end token.

        Shorter prompts are padded at their left, where ``prompt_mask`` is False.
        """
        read = self.step_function(image)
        prompt = torch.zeros(len(image), 0, dtype=torch.long, device=image.device) if prompt is None else prompt
        ids = dict(end_token=self.config.end_token, pad_token=self.config.text.pad_token or 0)
        return continue_prompts(self, read, self.decode_token, prompt, prompt_mask, decode, max_length, **ids)

    def forward(
        self,
        image: Float[Tensor, "b c height width"],
        tokens: Int[Tensor, "b t"],
        mask: Bool[Tensor, "b t"] | None = None,
    ) -> BLIPOutput | MatchingOutput | CaptionOutput:
        patches = self.online.image_encoder(image)  # (b, n, image_width)
        if not self.config.encoder:
            return CaptionOutput(patches, self._token_logits(self._decode(patches, tokens, mask)))
        image_embedding = self.online.embed_image(patches)
        text_embedding = self.online.embed_text(tokens, mask)  # the unimodal encoder
        states = self.online.text(_replace_first(self.encode_token, tokens), mask, patches)  # image-grounded
        output = MatchingOutput(patches, image_embedding, text_embedding, states, self.match_head(states[:, 0]))
        if not self.config.decoder:
            return output
        return BLIPOutput(*output, self._token_logits(self._decode(patches, tokens, mask)))

    def loss(self, batch: dict[str, Tensor], generator: torch.Generator | None = None) -> dict[str, Float[Tensor, ""]]:
        """Contrast and matching if there is an encoder, captions if there is a decoder.

        Wrong pairs are drawn here, so images come with their texts: by ``generator``, or by one of the seed and the
        step. In training the batch is pushed to the queue. ``ValueError`` for no pair, and for one caption alone if
        there is an encoder.
        """
        image, tokens, mask, caption_id = read_pairs(batch, "BLIP")
        output, losses = self(image, tokens, mask), {}
        if self.config.encoder:
            embeddings = momentum_embeddings = output.image_embedding, output.text_embedding
            alpha, scale, positives = 0.0, 1 / self.temperature, positive_pairs(caption_id)
            if self.momentum_encoder is not None:
                alpha = distillation_ramp(self.config.alpha, int(self.steps), self.config.alpha_ramp)
                momentum_embeddings = self.momentum_encoder.embed_pair(image, tokens, mask)
            losses["itc"] = queue_contrast(embeddings, momentum_embeddings, caption_id, self.queue, scale, alpha)
            generator = generator_of_step(self.config.seed, self.steps) if generator is None else generator
            image, text = hard_negative_pairs(embeddings, momentum_embeddings, positives, scale, generator)
            wrong = self._match(output.patches[image], tokens[text], mask[text])
            losses["itm"] = matching_loss(output.match_logits, wrong)
            if self.queue is not None and self.training:
                self.queue.push(*map(gather, (*momentum_embeddings, caption_id)))
        if self.config.decoder:
            smoothing = self.config.label_smoothing
            losses["lm"] = caption_language_modelling(output.token_logits, tokens, mask, smoothing)
        return losses

    @torch.no_grad()
    def after_step(self) -> None:
        """Move the momentum encoder, count the step, and keep τ within the official code's 0.001 to 0.5."""
        super().after_step()
        if self.momentum_encoder is not None and isinstance(self.temperature, nn.Parameter):
            update_momentum_encoder(self.momentum_encoder, self.online, self.config.momentum)
            self.temperature.clamp_(0.001, 0.5)


def _replace_first(token: int, tokens: Int[Tensor, "b t"]) -> Int[Tensor, "b t"]:
    """The texts with this token in place of their first."""
    return F.pad(tokens[:, 1:], (1, 0), value=token)
