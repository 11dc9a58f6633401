"""Perceiver IO: a few latents attend to a long input, process it among themselves, and are queried for each output.

Paper: Jaegle et al. 2022, "Perceiver IO: A General Architecture for Structured Inputs & Outputs".
Official code: https://github.com/google-deepmind/deepmind-research/tree/master/perceiver.

Deviations: ``tiny`` is ours: it reads a text and a picture in patches at once, and predicts masked words, which the
paper does with bytes and without pictures. Where a text and a picture are read together, each is padded to one width by
a learned vector, as in the paper's multimodal autoencoder, whose other modalities are not here. Queries for words are
made only for as many positions as the text has; in Transformers for all of ``max_length``. The inputs of released image
models with learned positions or convolutions are not built, only those with Fourier features. Weights start as BERT's
and GELU is exact, as in Transformers; the official code scales weights by their inputs and approximates GELU.
"""

import math
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

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
    latents: int = 256  # number of latents
    width: int = 1280  # of a latent
    depth: int = 26  # blocks among latents
    repeats: int = 1  # of these blocks, with the same weights
    num_heads: int = 8
    cross_heads: int = 8  # of the encoder's cross-attention
    key_width: int | None = None  # of all heads together; None: that of the context
    value_width: int | None = None  # of all heads together; None: key_width
    mlp_factor: int = 1  # an MLP is so many times as wide as its block
    cross_mlp_factor: int = 1
    query_residual: bool = True  # a residual path around the encoder's cross-attention
    activation: str = "gelu"
    dropout: float = 0.1  # of attention weights
    initial_std: float = 0.02
    vocab_size: int = 0  # 0: reads no text
    max_length: int = 2048  # tokens
    text_width: int = 768
    language_head: bool = False  # for masked words
    language_head_heads: int = 8
    language_key_width: int = 256  # of the queries for words
    images: bool = False  # read pictures
    image_size: int | tuple[int, int] = 224  # pixels; only of examples
    patch_size: int = 1  # pixels; 1: each pixel is an input
    bands: int = 64  # frequencies for each axis of a picture
    resolution: int = 224  # pixels; sets the highest frequency
    num_classes: int = 0  # 0: no classifier

    PRESETS = {
        "tiny": dict(latents=16, width=64, depth=2, num_heads=4, cross_heads=2, dropout=0.0, initial_std=0.125)
        | dict(vocab_size=512, max_length=32, text_width=64, language_head=True, language_head_heads=2)
        | dict(language_key_width=64, images=True, image_size=64, patch_size=8, bands=8, resolution=8),
        "language": dict(key_width=256, value_width=1280, vocab_size=262, language_head=True),
        "fourier": dict(latents=512, width=1024, depth=6, repeats=8, cross_heads=1, images=True, num_classes=1000),
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
        head_width = key_width // num_heads
        super().__init__(width, num_heads, head_width=head_width, context_width=context_width, dropout=dropout)
        self.value = nn.Linear(context_width, value_width)
        self.output = nn.Linear(value_width, width)


class PerceiverBlock(nn.Module):
    r"""A pre-norm block of self-attention, or of cross-attention to a ``context`` that has a norm of its own.

    .. math:: x \leftarrow x + \mathrm{Attention}(\mathrm{LN}(x), \mathrm{LN}(c)), \quad
       x \leftarrow x + \mathrm{MLP}(\mathrm{LN}(x))

    Without ``residual`` the queries are not added to the result, because they hold positions, not content.
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
        key_width = key_width or context_width or width
        self.attention_norm = nn.LayerNorm(width)
        if context_width:
            self.context_norm = nn.LayerNorm(context_width)
        self.attention = WideAttention(
            width, num_heads, context_width or width, key_width, value_width or key_width, config.dropout
        )
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp = MLP(width, mlp_factor * width, config.activation)

    def forward(
        self,
        x: Float[Tensor, "b q d"],
        context: Float[Tensor, "b n c"] | None = None,
        mask: Bool[Tensor, "b n"] | None = None,
    ) -> Float[Tensor, "b q d"]:
        queries = self.attention_norm(x)
        y = self.attention(queries, None if context is None else self.context_norm(context), mask)  # (b, q, d)
        x = x + y if self.residual else y
        return x + self.mlp(self.mlp_norm(x))


def fourier_features(
    rows: int, columns: int, bands: int, resolution: int, device: torch.device | None = None
) -> Float[Tensor, "p features"]:
    r"""The position of each cell of a grid, from -1 to 1 on both axes, and its sines and cosines at rising frequencies.

    .. math:: [x_d,\; \sin(\pi f_k x_d),\; \cos(\pi f_k x_d)], \quad f_k \;\text{evenly from 1 to}\; \mu / 2

    All d · (1 + 2 · bands) features, first both x, then all sines. Source: Jaegle et al. 2022 (Perceiver IO),
    official code, ``generate_fourier_features``.
    """
    axes = [torch.linspace(-1, 1, count, device=device) for count in (rows, columns)]
    position = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).flatten(0, 1)  # (p, 2)
    frequency = torch.linspace(1, resolution / 2, bands, device=device)
    angle = (math.pi * position[..., None] * frequency).flatten(1)  # (p, 2 · bands)
    return torch.cat([position, angle.sin(), angle.cos()], 1)


class PerceiverIO(nn.Module):
    """Encode, process, decode: latents attend to the inputs, then to each other; output queries attend to the latents.

    Inputs are an ``image``, ``tokens`` (b, t) with their ``mask``, or both in one sequence. Raises
    ``ValueError`` where neither is given, for one that the model was not built for, and for settings that cannot be.
    Source: official code, ``perceiver.py``.
    """

    def __init__(self, config: PerceiverIOConfig):
        super().__init__()
        if not (config.vocab_size or config.images):
            raise ValueError("A Perceiver IO reads something: set vocab_size, images, or both.")
        if config.language_head and not config.vocab_size:
            raise ValueError("language_head predicts words of a vocabulary; set vocab_size as well.")
        self.config = config
        width, std = config.width, config.initial_std
        widths = {"text": config.text_width if config.vocab_size else 0, "image": 0}
        if config.images:
            widths["image"] = 3 * config.patch_size**2 + 2 * (1 + 2 * config.bands)
        both = all(widths.values())
        # Learned features pad each modality to one width, and at least two of them identify it.
        input_width = max(widths.values()) + (2 if both else 0)
        self.modality_padding = nn.ParameterDict(
            {name: nn.Parameter(std * torch.randn(input_width - own)) for name, own in widths.items()} if both else {}
        )
        self.embedding = None
        if config.vocab_size:
            self.embedding = TextEmbedding(config.vocab_size, config.text_width, config.max_length)
        self.latents = nn.Parameter(std * torch.randn(config.latents, width))
        key_widths: dict[str, Any] = dict(key_width=config.key_width, value_width=config.value_width)
        cross = key_widths | dict(mlp_factor=config.cross_mlp_factor, residual=config.query_residual)
        self.encoder = PerceiverBlock(config, width, config.cross_heads, context_width=input_width, **cross)
        self.processor = nn.ModuleList(
            PerceiverBlock(config, width, config.num_heads, mlp_factor=config.mlp_factor, **key_widths)
            for _ in range(config.depth)
        )
        self.class_query = None
        if config.language_head:
            text_width, heads = config.text_width, config.language_head_heads
            self.word_queries = nn.Parameter(std * torch.randn(config.max_length, text_width))
            cross = dict(context_width=width, key_width=config.language_key_width, value_width=text_width)
            self.word_decoder = PerceiverBlock(config, text_width, heads, residual=False, **cross)
            self.word_bias = nn.Parameter(torch.zeros(config.vocab_size))
        if config.num_classes:
            self.class_query = nn.Parameter(std * torch.randn(1, width))
            self.class_decoder = PerceiverBlock(config, width, 1, context_width=width)
            self.classifier = nn.Linear(width, config.num_classes)
        self.apply(partial(initialise_as_bert, std=std))

    def embed(
        self,
        image: Float[Tensor, "b 3 height width"] | None,
        tokens: Int[Tensor, "b t"] | None,
        mask: Bool[Tensor, "b t"] | None,
    ) -> tuple[Float[Tensor, "b n c"], Bool[Tensor, "b n"] | None]:
        """Words and then patches in one sequence, and which of them are real."""
        config, parts, real = self.config, {}, {}
        if tokens is not None:
            if self.embedding is None:
                raise ValueError("This Perceiver IO reads no texts: set vocab_size, or leave tokens out.")
            parts["text"] = self.embedding(tokens)
            real["text"] = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask
        if image is not None:
            if not config.images:
                raise ValueError("This Perceiver IO reads no pictures: set images, or leave image out.")
            grid = check_image(image, config.patch_size)
            positions = fourier_features(*grid, config.bands, config.resolution, image.device)  # (p, features)
            patches = patchify(image, config.patch_size)  # (b, p, pixels)
            parts["image"] = torch.cat([patches, positions.to(patches).expand(len(patches), -1, -1)], -1)
            real["image"] = torch.ones_like(patches[..., 0], dtype=torch.bool)
        if not parts:
            raise ValueError("Nothing to read: give tokens, an image, or both.")
        for name, vector in self.modality_padding.items():
            if name in parts:
                padding = vector.to(parts[name]).expand(*parts[name].shape[:2], -1)
                parts[name] = torch.cat([parts[name], padding], -1)  # (b, …, c)
        return torch.cat(list(parts.values()), 1), None if mask is None else torch.cat(list(real.values()), 1)

    def forward(
        self,
        image: Float[Tensor, "b 3 height width"] | None = None,
        tokens: Int[Tensor, "b t"] | None = None,
        mask: Bool[Tensor, "b t"] | None = None,
    ) -> PerceiverIOOutput:
        inputs, real = self.embed(image, tokens, mask)  # (b, n, c)
        b = len(inputs)
        # The cost of n inputs is paid once: blocks among the latents do not depend on n.
        latents = self.encoder(repeat(self.latents, "latents d -> b latents d", b=b), inputs, real)
        for _ in range(self.config.repeats):
            for block in self.processor:
                latents = block(latents)
        token_logits = logits = None
        if self.config.language_head and self.embedding is not None and tokens is not None:
            queries = repeat(self.word_queries[: tokens.shape[1]], "t d -> b t d", b=b)
            words = self.word_decoder(queries, latents)  # (b, t, text_width)
            token_logits = F.linear(words, self.embedding.tokens.weight, self.word_bias)
        if self.class_query is not None:
            query = repeat(self.class_query, "1 d -> b 1 d", b=b)
            logits = self.classifier(self.class_decoder(query, latents)[:, 0])
        return PerceiverIOOutput(latents, token_logits, logits)

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Float[Tensor, ""]]:
        """``mlm`` where the batch has ``token_label`` (b, t), ``classification`` where it has ``label`` (b,).

        ``ValueError`` for an empty batch, and where no head can learn from it.
        """
        inputs = {name: batch[name] for name in ("image", "tokens", "mask") if name in batch}
        if not inputs or not len(next(iter(inputs.values()))):
            raise ValueError("A batch holds at least one row, of tokens, of an image, or of both.")
        output, losses = self(**inputs), {}
        if output.token_logits is not None and "token_label" in batch:
            losses["mlm"] = masked_cross_entropy(output.token_logits, batch["token_label"])
        if output.logits is not None and "label" in batch:
            losses["classification"] = class_cross_entropy(output.logits, batch["label"])
        if not losses:
            raise ValueError("Nothing to learn: token_label needs language_head and tokens, label needs num_classes.")
        return losses
