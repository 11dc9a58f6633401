"""Perceiver IO: a few latents ask a long input of any modality, think among themselves, and are asked for each output.

Paper: Jaegle et al. 2022, "Perceiver IO: A General Architecture for Structured Inputs & Outputs".
Official code: https://github.com/google-deepmind/deepmind-research/tree/master/perceiver.

Deviations: ``tiny`` is ours: it reads a text and a picture in patches at once, and fills gaps of the text, which the
paper does with bytes and without pictures. Where a text and a picture are read together, each is padded to one width by
a learned vector, as in the paper's multimodal autoencoder, whose other modalities are not here. Queries for words are
made only for as many places as the text has; in Transformers for all of ``max_length``. The inputs of released image
models with learned positions or convolutions are not built, only those with Fourier features. Weights start as BERT's
and GELU is exact, as in Transformers; the official code scales weights by their inputs and approximates GELU.
"""

import math
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import repeat
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmlearn.layers import MLP, Attention, Config, TextEmbedding, patchify
from mmlearn.layers.embeddings import check_image
from mmlearn.layers.language import initialise_as_bert
from mmlearn.objectives import class_cross_entropy, masked_cross_entropy


@dataclass(frozen=True)
class PerceiverIOConfig(Config):
    latents: int = 256  # how many
    width: int = 1280  # of each
    depth: int = 26  # blocks among latents
    repeats: int = 1  # how often these blocks are passed, with the same weights
    num_heads: int = 8
    cross_heads: int = 8  # of latents that ask the input
    key_width: int | None = None  # of all heads together; the width of what asks, and of what is asked in the encoder
    value_width: int | None = None  # the same; key_width
    mlp_factor: int = 1  # an MLP is so many times as wide as its block
    cross_mlp_factor: int = 1
    query_residual: bool = True  # latents keep what they were when they ask the input
    activation: str = "gelu"
    dropout: float = 0.1  # of attention weights
    initial_std: float = 0.02
    vocab_size: int = 0  # 0: no text is read
    max_length: int = 2048  # tokens
    text_width: int = 768
    language_head: bool = False  # for gaps in the text
    language_head_heads: int = 8
    language_key_width: int = 256  # of the queries for words
    pictures: bool = False  # read pictures
    image_size: int | tuple[int, int] = 224  # pixels; nothing is built by it, only examples
    patch_size: int = 1  # pixels; 1: each pixel is an input
    bands: int = 64  # frequencies for each axis of a picture
    resolution: int = 224  # pixels that the highest frequency can tell apart
    num_classes: int = 0  # 0: no classifier

    PRESETS = {
        "tiny": dict(latents=16, width=64, depth=2, num_heads=4, cross_heads=2, dropout=0.0, initial_std=0.125)
        | dict(vocab_size=512, max_length=32, text_width=64, language_head=True, language_head_heads=2)
        | dict(language_key_width=64, pictures=True, image_size=64, patch_size=8, bands=8, resolution=8),
        "language": dict(key_width=256, value_width=1280, vocab_size=262, language_head=True),
        "fourier": dict(latents=512, width=1024, depth=6, repeats=8, cross_heads=1, pictures=True, num_classes=1000),
    }


class PerceiverIOOutput(NamedTuple):
    latents: Float[Tensor, "b latents d"]
    token_logits: Float[Tensor, "b t v"] | None
    logits: Float[Tensor, "b classes"] | None


class WideAttention(Attention):
    """Attention whose keys and values have widths of their own."""

    def __init__(
        self, width: int, num_heads: int, context_width: int, key_width: int, value_width: int, dropout: float
    ):
        if key_width % num_heads or value_width % num_heads:
            raise ValueError(f"Keys of {key_width} and values of {value_width} do not divide into {num_heads} heads.")
        heads = dict(head_width=key_width // num_heads, context_width=context_width, dropout=dropout)
        super().__init__(width, num_heads, **heads)
        self.value = nn.Linear(context_width, value_width)
        self.output = nn.Linear(value_width, width)


class PerceiverBlock(nn.Module):
    r"""A pre-norm block whose queries ask themselves, or a ``context`` of ``context_width`` that has a norm, too.

    .. math:: x \leftarrow x + \mathrm{Attention}(\mathrm{LN}(x), \mathrm{LN}(c)), \quad
       x \leftarrow x + \mathrm{MLP}(\mathrm{LN}(x))

    Without ``residual`` what asks is not added to what it hears, because it is of another kind: a place, not a word.
    Source: official code, ``SelfAttention`` and ``CrossAttention``.
    """

    def __init__(
        self,
        config: PerceiverIOConfig,
        width: int,
        num_heads: int,
        *,
        context_width: int | None = None,
        key_width: int | None = None,
        value_width: int | None = None,
        mlp_factor: int = 1,
        residual: bool = True,
    ):
        super().__init__()
        self.residual = residual
        asked = context_width or width
        key_width = key_width or asked
        widths = asked, key_width, value_width or key_width
        self.attention_norm = nn.LayerNorm(width)
        self.context_norm = nn.LayerNorm(asked) if context_width else None
        self.attention = WideAttention(width, num_heads, *widths, config.dropout)
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp = MLP(width, mlp_factor * width, config.activation)

    def forward(
        self,
        x: Float[Tensor, "b q d"],
        context: Float[Tensor, "b n c"] | None = None,
        mask: Bool[Tensor, "b n"] | None = None,
    ) -> Float[Tensor, "b q d"]:
        queries = self.attention_norm(x)
        heard = self.attention(queries, None if context is None else self.context_norm(context), mask)
        x = x + heard if self.residual else heard
        return x + self.mlp(self.mlp_norm(x))


def fourier_features(
    rows: int, columns: int, bands: int, resolution: int, device: torch.device | None = None
) -> Float[Tensor, "p features"]:
    r"""Where each place of a grid is, from -1 to 1 on both axes, and sines and cosines of that at rising frequencies.

    .. math:: [x_d,\; \sin(\pi f_k x_d),\; \cos(\pi f_k x_d)], \quad f_k \;\text{evenly from 1 to}\; \mu / 2

    All d · (1 + 2 · bands) features, first both x, then all sines. Source: Jaegle et al. 2022 (Perceiver IO),
    official code, ``generate_fourier_features``.
    """
    axes = [torch.linspace(-1, 1, count, device=device) for count in (rows, columns)]
    place = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).flatten(0, 1)
    angle = (math.pi * place[..., None] * torch.linspace(1, resolution / 2, bands, device=device)).flatten(1)
    return torch.cat([place, angle.sin(), angle.cos()], 1)


class PerceiverIO(nn.Module):
    """Inputs of all modalities in one row, which latents ask once; queries then ask the latents for each output.

    ``tokens`` (b, t) with their ``mask``, an ``image``, or both: a modality that is missing is not asked. Raises
    ``ValueError`` where neither is given, for one that the model was not built for, and for settings that cannot be.
    Source: official code, ``perceiver.py``.
    """

    def __init__(self, config: PerceiverIOConfig):
        super().__init__()
        if not (config.vocab_size or config.pictures):
            raise ValueError("A Perceiver IO reads something: set vocab_size, pictures, or both.")
        if config.language_head and not config.vocab_size:
            raise ValueError("language_head says words of a vocabulary; set vocab_size as well.")
        self.config = config
        width, std = config.width, config.initial_std
        own = {"text": config.text_width if config.vocab_size else 0, "image": 0}
        if config.pictures:
            own["image"] = 3 * config.patch_size**2 + 2 * (1 + 2 * config.bands)
        both = all(own.values())
        common = max(own.values()) + (2 if both else 0)  # at least two features tell modalities apart
        self.padding = nn.ParameterDict(
            {name: nn.Parameter(std * torch.randn(common - one)) for name, one in own.items()} if both else {}
        )
        self.embedding = None
        if config.vocab_size:
            self.embedding = TextEmbedding(config.vocab_size, config.text_width, config.max_length)
        self.start = nn.Parameter(std * torch.randn(config.latents, width))
        widths = dict(key_width=config.key_width, value_width=config.value_width)
        cross = dict(context_width=common, mlp_factor=config.cross_mlp_factor, residual=config.query_residual)
        self.ask = PerceiverBlock(config, width, config.cross_heads, **cross, **widths)
        self.think = nn.ModuleList(
            PerceiverBlock(config, width, config.num_heads, mlp_factor=config.mlp_factor, **widths)
            for _ in range(config.depth)
        )
        self.word_queries = self.class_query = None
        if config.language_head:
            words, heads = config.text_width, config.language_head_heads
            self.word_queries = nn.Parameter(std * torch.randn(config.max_length, words))
            keys = dict(context_width=width, key_width=config.language_key_width, value_width=words)
            self.say = PerceiverBlock(config, words, heads, residual=False, **keys)
            self.word_bias = nn.Parameter(torch.zeros(config.vocab_size))
        if config.num_classes:
            self.class_query = nn.Parameter(std * torch.randn(1, width))
            self.classify = PerceiverBlock(config, width, 1, context_width=width)
            self.classifier = nn.Linear(width, config.num_classes)
        self.apply(partial(initialise_as_bert, std=std))

    def inputs(
        self, tokens: Tensor | None, mask: Tensor | None, image: Tensor | None
    ) -> tuple[Float[Tensor, "b n c"], Bool[Tensor, "b n"] | None]:
        """What the latents ask: words and patches in one row, and which of them are real."""
        config, parts, real = self.config, {}, {}
        if tokens is not None:
            if self.embedding is None:
                raise ValueError("This Perceiver IO reads no texts: set vocab_size, or leave tokens out.")
            parts["text"] = self.embedding(tokens)
            real["text"] = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask
        if image is not None:
            if not config.pictures:
                raise ValueError("This Perceiver IO reads no pictures: set pictures, or leave image out.")
            places = fourier_features(
                *check_image(image, config.patch_size), config.bands, config.resolution, image.device
            )
            patches = patchify(image, config.patch_size)
            parts["image"] = torch.cat([patches, places.to(patches).expand(len(patches), -1, -1)], -1)
            real["image"] = torch.ones_like(patches[..., 0], dtype=torch.bool)
        if not parts:
            raise ValueError("Nothing to read: give tokens, an image, or both.")
        for name, vector in self.padding.items():
            if name in parts:
                more = vector.to(parts[name]).expand(*parts[name].shape[:2], -1)
                parts[name] = torch.cat([parts[name], more], -1)
        row = torch.cat(list(parts.values()), 1)
        return row, None if mask is None else torch.cat(list(real.values()), 1)

    def forward(
        self,
        tokens: Int[Tensor, "b t"] | None = None,
        mask: Bool[Tensor, "b t"] | None = None,
        image: Float[Tensor, "b 3 height width"] | None = None,
    ) -> PerceiverIOOutput:
        row, real = self.inputs(tokens, mask, image)
        latents = self.ask(repeat(self.start, "n d -> b n d", b=len(row)), row, real)
        for _ in range(self.config.repeats):
            for block in self.think:
                latents = block(latents)
        token_logits = logits = None
        if self.word_queries is not None and tokens is not None:
            queries = repeat(self.word_queries[: tokens.shape[1]], "t d -> b t d", b=len(row))
            token_logits = F.linear(self.say(queries, latents), self.embedding.tokens.weight, self.word_bias)
        if self.class_query is not None:
            query = repeat(self.class_query, "1 d -> b 1 d", b=len(row))
            logits = self.classifier(self.classify(query, latents)[:, 0])
        return PerceiverIOOutput(latents, token_logits, logits)

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Float[Tensor, ""]]:
        """``mlm`` where the batch has ``token_label`` (b, t), ``classification`` where it has ``label`` (b,).

        ``ValueError`` for an empty batch, and where no head can learn from it.
        """
        given = {name: batch[name] for name in ("tokens", "mask", "image") if name in batch}
        if not given or not len(next(iter(given.values()))):
            raise ValueError("A batch holds at least one row, of tokens, of an image, or of both.")
        output, losses = self(**given), {}
        if output.token_logits is not None and "token_label" in batch:
            losses["mlm"] = masked_cross_entropy(output.token_logits, batch["token_label"])
        if output.logits is not None and "label" in batch:
            losses["classification"] = class_cross_entropy(output.logits, batch["label"])
        if not losses:
            raise ValueError("Nothing to learn: token_label needs language_head and tokens, label needs num_classes.")
        return losses
