"""A causal transformer over sequences of words and image codes, with one vocabulary of both.

A system of this kind learns in two stages: first its codec, on images alone, and then the next token of sequences.
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmlearn.generation.cache import DecodingStep, cached
from mmlearn.layers import Transformer, TransformerConfig
from mmlearn.layers.embeddings import look_up
from mmlearn.tensor_checks import values_are_readable


class TokenTransformer(nn.Module):
    """Token + position, causal pre-norm blocks, a norm, and logits of the next token."""

    def __init__(self, config: TransformerConfig, vocab_size: int):
        super().__init__()
        self.vocab_size = vocab_size
        self.tokens = nn.Embedding(vocab_size, config.width)
        self.dropout = nn.Dropout(config.dropout)
        self.transformer = Transformer(config)
        self.norm = nn.LayerNorm(config.width, eps=config.norm_epsilon)
        self.head = nn.Linear(config.width, vocab_size)
        nn.init.normal_(self.tokens.weight, std=0.02)
        nn.init.normal_(self.head.weight, std=0.5 * config.width**-0.5)
        nn.init.zeros_(self.head.bias)

    def states(
        self, tokens: Int[Tensor, "b n"], positions: Float[Tensor, "*b n d"], mask: Bool[Tensor, "b all"] | None = None
    ) -> Float[Tensor, "b n d"]:
        """``mask`` counts earlier tokens as well, where their keys are kept in a cache."""
        x = self.dropout(look_up(self.tokens, tokens) + positions)  # (b, n, d)
        return self.norm(self.transformer(x, mask, causal=True))

    def forward(
        self, tokens: Int[Tensor, "b n"], positions: Float[Tensor, "*b n d"], mask: Bool[Tensor, "b n"] | None = None
    ) -> Float[Tensor, "b n v"]:
        return self.head(self.states(tokens, positions, mask))

    @torch.no_grad()
    def continue_sequence(
        self,
        start: Int[Tensor, "b n"],
        mask: Bool[Tensor, "b n"],
        positions: Float[Tensor, "all d"],
        allowed: range,
        count: int,
        decode: Callable[..., Tensor],
        end_token: int | None = None,
    ) -> Int[Tensor, "b written"]:
        """Up to ``count`` tokens after the start, each ``allowed``. Starts are padded at their left.

        ``positions`` are the embeddings of all positions. Without an ``end_token``, which is one of those allowed,
        exactly ``count`` tokens are written.
        """
        forbidden = torch.ones(self.vocab_size, dtype=torch.bool, device=start.device)
        forbidden[allowed.start : allowed.stop] = False

        def read(step: DecodingStep) -> Float[Tensor, "n v"]:
            x = self.states(step.tokens, positions[step.position], step.key_mask)[:, -1]
            return self.head(x).masked_fill(forbidden, -torch.inf)

        end = self.vocab_size if end_token is None else end_token  # a number that no token has
        with cached(self, read, mask) as next_logits:
            length = start.shape[1]
            return decode(next_logits, start, end_token=end, max_length=length + count)[:, length:]


def check_words(tokens: Int[Tensor, "b t"], vocab_size: int, max_length: int) -> None:
    """``ValueError`` for texts that are too long, or, on a CPU, for words outside the vocabulary."""
    if tokens.shape[1] > max_length:
        raise ValueError(f"{tokens.shape[1]} tokens are more than the {max_length} of a text here; shorten it.")
    if values_are_readable(tokens) and (wrong := (tokens < 0) | (tokens >= vocab_size)).any():
        raise ValueError(f"There is no word {int(tokens[wrong][0])}: the vocabulary of texts has {vocab_size}, from 0.")


class CodecLanguageModel(nn.Module):
    """A ``codec`` that encodes images as codes and decodes them, and a ``decoder`` of words and codes.

    Any codec fits that has ``encode``, ``decode`` and a grid of as many codes as the configuration's. Raises
    ``ValueError`` for another. It is trained in the first stage, and is frozen in the second.
    """

    def __init__(self, config: Any, codec: nn.Module):
        super().__init__()
        got, wanted = ((one.num_codes, one.side) for one in (codec.config, config.codec))  # codes, and codes in a row
        if got != wanted:
            raise ValueError(
                f"The codec has {got[0]} codes, {got[1]} in a row; the configuration {wanted[0]}, {wanted[1]} in a "
                "row: take the codec's configuration."
            )
        self.config, self.codec = config, codec
        self.decoder = TokenTransformer(config, config.all_tokens)

    def codec_loss(self, batch: dict[str, Tensor]) -> dict[str, Float[Tensor, ""]]:
        """The first stage: images alone."""
        return self.codec.loss(batch)

    def after_step(self) -> None:
        """Update the codec's codebook, temperature or count of steps."""
        self.codec.after_step()
