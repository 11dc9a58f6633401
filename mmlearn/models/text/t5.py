"""T5: every task maps a text to a text; pretraining writes the spans that were masked out of a text.

Papers: Raffel et al. 2020, "Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer"; the
presets "v1.1", with gated layers and a language head of their own, are of Shazeer 2020, "GLU Variants Improve
Transformer". Official code: https://github.com/google-research/text-to-text-transfer-transformer.

Deviations: a language head of its own starts at 1/√d. A target always ends with a sentinel, as in the paper's figure 2;
in the official code only where the text goes on. Hidden spans may lie anywhere; in the official code one always ends
the text, and in a short text there is no other. ``tiny`` is ours.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmlearn.generation.cache import DecodingStep
from mmlearn.generation.decoding import greedy
from mmlearn.layers import Attention, TransformerBlock, TransformerConfig
from mmlearn.layers.activations import ACTIVATIONS
from mmlearn.layers.embeddings import look_up
from mmlearn.layers.positions import logarithmic_bucket
from mmlearn.models.text.writing import generate_from, source_texts
from mmlearn.objectives import shifted_right, span_denoising

V1_1 = dict(activation="gelu_tanh", gated=True, tied=False)


@dataclass(frozen=True)
class T5Config(TransformerConfig):
    vocab_size: int = 32_128  # with sentinels
    pad_token: int = 0  # also the start token of the decoder
    end_token: int = 1
    width: int = 512
    depth: int = 6
    decoder_depth: int | None = None  # as many
    num_heads: int = 8
    head_width: int = 64
    mlp_width: int = 2048
    activation: str = "relu"
    gated: bool = False  # the MLP has a gate
    tied: bool = True  # the token table is the language head, and its input is divided by √d
    position_buckets: int = 32  # of relative distances
    max_distance: int = 128  # from which on all share a bucket
    norm_epsilon: float = 1e-6
    dropout: float = 0.1

    PRESETS = {
        "tiny": dict(vocab_size=512, end_token=2, width=64, depth=2, num_heads=4, head_width=16, mlp_width=256)
        | dict(max_distance=32, dropout=0.0),
        "small": dict(),
        "base": dict(width=768, depth=12, num_heads=12, mlp_width=3072),
        "large": dict(width=1024, depth=24, num_heads=16, mlp_width=4096),
        "3b": dict(width=1024, depth=24, num_heads=32, head_width=128, mlp_width=16_384),
        "v1.1-small": V1_1 | dict(depth=8, num_heads=6, mlp_width=1024),
        "v1.1-base": V1_1 | dict(width=768, depth=12, num_heads=12),
        "v1.1-large": V1_1 | dict(width=1024, depth=24, num_heads=16, mlp_width=2816),
        "flan-t5-xl": V1_1 | dict(width=2048, depth=24, num_heads=32, mlp_width=5120),  # v1.1, tuned on instructions
        "flan-t5-xxl": V1_1 | dict(width=4096, depth=24, num_heads=64, mlp_width=10_240),
    }


class T5Output(NamedTuple):
    tokens: Float[Tensor, "b t d"]  # of the text that was read
    token_logits: Float[Tensor, "b o v"]  # at position i: token i of the target


class UnscaledAttention(Attention):
    r"""Attention without the division by √k, :math:`\mathrm{softmax}(Q K^\top + B) V`: queries start smaller."""

    def heads(self, query: Tensor, *inputs: Any) -> Float[Tensor, "b h q k"]:
        return super().heads(query * query.shape[-1] ** 0.5, *inputs)


class T5MLP(nn.Module):
    r"""The MLP without biases, :math:`W_2\, \phi(W_1 x)`, or gated, :math:`W_2\, (\phi(W_1 x) \odot V x)`.

    Source: Shazeer 2020, equations 1 and 6.
    """

    def __init__(self, config: T5Config):
        super().__init__()
        self.activation = ACTIVATIONS[config.activation]
        self.expand = nn.Linear(config.width, config.mlp_width, bias=False)
        self.gate = nn.Linear(config.width, config.mlp_width, bias=False) if config.gated else None
        self.dropout = nn.Dropout(config.dropout)
        self.contract = nn.Linear(config.mlp_width, config.width, bias=False)

    def forward(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        hidden = self.activation(self.expand(x))  # (b, n, mlp_width)
        return self.contract(self.dropout(hidden if self.gate is None else hidden * self.gate(x)))


class T5Block(TransformerBlock):
    """A block without biases, whose norms only scale. Source: Raffel et al. 2020, section 2.1."""

    def __init__(self, config: T5Config, decoder: bool):
        nn.Module.__init__(self)
        self.norm_first = True
        of_weights = config.dropout if config.attention_dropout is None else config.attention_dropout
        options: dict[str, Any] = dict(head_width=config.head_width, bias=False, dropout=of_weights)
        self.attention = UnscaledAttention(config.width, config.num_heads, **options)
        self.attention_norm = nn.RMSNorm(config.width, config.norm_epsilon)
        self.cross_attention = None
        if decoder:
            self.cross_attention = UnscaledAttention(config.width, config.num_heads, **options)
            self.cross_attention_norm = nn.RMSNorm(config.width, config.norm_epsilon)
        self.mlp = T5MLP(config)
        self.mlp_norm = nn.RMSNorm(config.width, config.norm_epsilon)
        self.dropout = nn.Dropout(config.dropout)


def distance_buckets(
    queries: int, keys: int, buckets: int, max_distance: int, causal: bool, device: torch.device | None = None
) -> Int[Tensor, "queries keys"]:
    """The :func:`logarithmic_bucket` of the distance from each query to each key.

    The last query stands at the last key. Where queries also see later keys, those have half of all buckets. Source:
    official code, ``_relative_position_bucket``.
    """
    position = torch.arange(keys, device=device)
    distance = position[keys - queries :, None] - position  # (queries, keys); above 0: the key is before the query
    if causal:
        return logarithmic_bucket(distance.clamp(min=0), buckets, max_distance)
    later = buckets // 2 * (distance < 0)  # where the buckets of later keys begin
    return later + logarithmic_bucket(distance.abs(), buckets // 2, max_distance)


class T5Stack(nn.Module):
    """Blocks that share a bias for each distance and head, and a norm: the encoder, or the decoder."""

    def __init__(self, config: T5Config, depth: int, decoder: bool):
        super().__init__()
        self.decoder, self.buckets = decoder, (config.position_buckets, config.max_distance, decoder)
        self.relative_bias = nn.Embedding(config.position_buckets, config.num_heads)
        self.blocks = nn.ModuleList(T5Block(config, decoder) for _ in range(depth))
        self.norm = nn.RMSNorm(config.width, config.norm_epsilon)
        self.dropout = nn.Dropout(config.dropout)

    def position_bias(self, queries: int, keys: int) -> Float[Tensor, "1 h q n"]:
        """The bias of each distance in each head; the last query stands at the last key."""
        buckets = distance_buckets(queries, keys, *self.buckets, self.relative_bias.weight.device)
        return rearrange(self.relative_bias(buckets), "q n h -> 1 h q n")

    def forward(
        self,
        x: Float[Tensor, "b q d"],
        mask: Bool[Tensor, "b n"] | None = None,
        context: Float[Tensor, "b p_or_0 d"] | None = None,
        context_mask: Bool[Tensor, "b p"] | None = None,
        bias: Float[Tensor, "#b h q n"] | None = None,
    ) -> Float[Tensor, "b q d"]:
        """``mask`` counts earlier tokens as well, where their keys are kept in a cache.

        ``bias`` is :meth:`position_bias` unless it is given, as where not all tokens are words.
        """
        x = self.dropout(x)
        if bias is None:
            bias = self.position_bias(x.shape[1], x.shape[1] if mask is None else mask.shape[1])
        for block in self.blocks:
            x = block(x, mask, self.decoder, context, context_mask, bias)
        return self.dropout(self.norm(x))


class T5(nn.Module):
    """A bidirectional encoder of a text, and a causal decoder that attends to it.

    ``mask`` and ``target_mask`` are True where a token is real. The decoder reads the target shifted one position to
    the right, after the pad token. Source: Raffel et al. 2020, section 2.1.
    """

    def __init__(self, config: T5Config):
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.width)
        self.encoder = T5Stack(config, config.depth, decoder=False)
        self.decoder = T5Stack(config, config.decoder_depth or config.depth, decoder=True)
        self.language_head = None if config.tied else nn.Linear(config.width, config.vocab_size, bias=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Normals of deviation 1/√(inputs), for queries 1/√(inputs · k), for tokens 1. Source: official code."""
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear):
                scale = self.config.head_width if name.endswith(".query") else 1
                nn.init.normal_(module.weight, std=(module.in_features * scale) ** -0.5)
            elif isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=1 if module is self.embedding else self.config.width**-0.5)

    def encode(self, tokens: Int[Tensor, "b t"], mask: Bool[Tensor, "b t"] | None = None) -> Float[Tensor, "b t d"]:
        return self.encoder(look_up(self.embedding, tokens), mask)

    def decode(
        self,
        target: Int[Tensor, "b q"],
        context: Float[Tensor, "b t_or_0 d"],
        mask: Bool[Tensor, "b t"] | None = None,
        target_mask: Bool[Tensor, "b o"] | None = None,
    ) -> Float[Tensor, "b q v"]:
        """Logits of what follows each token of a target, which begins with the pad token."""
        x = self.decoder(look_up(self.embedding, target), target_mask, context, mask)
        if self.language_head is not None:
            return self.language_head(x)
        return F.linear(x * self.config.width**-0.5, self.embedding.weight)

    def forward(
        self, tokens: Int[Tensor, "b t"], target: Int[Tensor, "b o"], mask: Bool[Tensor, "b t"] | None = None
    ) -> T5Output:
        context = self.encode(tokens, mask)  # (b, t, d)
        previous = shifted_right(target, self.config.pad_token)  # (b, o): token i is predicted from those before it
        return T5Output(context, self.decode(previous, context, mask))

    @torch.no_grad()
    def generate(
        self,
        prompt: Int[Tensor, "b t"],
        decode: Callable[..., Tensor] = greedy,  # of mmlearn.generation.decoding
        *,
        prompt_mask: Bool[Tensor, "b t"] | None = None,
        max_length: int = 20,
    ) -> Int[Tensor, "b o"]:
        """The texts written for these, which have no special tokens: up to ``max_length`` tokens with the end token."""
        end, pad = self.config.end_token, self.config.pad_token
        source = source_texts(prompt, prompt_mask, [], [end], pad)

        def last_logits(step: DecodingStep, context: Tensor, mask: Tensor | None) -> Tensor:
            return self.decode(step.tokens, context, mask, step.mask)[:, -1]

        return generate_from(self, source, last_logits, decode, pad, max_length)

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Float[Tensor, ""]]:
        """Cross-entropy of every real token of the target, from the text and the tokens before it.

        ``batch["target"]`` (b, o) holds the masked spans, ``batch["target_mask"]`` is True where it is real.
        ``ValueError`` without a text.
        """
        if not len(batch["tokens"]):
            raise ValueError("A batch holds at least one text.")
        logits = self(batch["tokens"], batch["target"], batch.get("mask")).token_logits
        return {"spans": span_denoising(logits, batch["target"], batch.get("target_mask"))}
