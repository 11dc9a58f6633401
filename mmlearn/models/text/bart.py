"""BART: an encoder reads a corrupted text, a decoder writes the original.

Paper: Lewis et al. 2020, "BART: Denoising Sequence-to-Sequence Pre-training for Natural Language Generation,
Translation, and Comprehension". Official code: https://github.com/facebookresearch/fairseq/tree/main/examples/bart.

Deviations: the recipe corrupts texts by infilling alone, because most captions are one sentence; the paper also
permutes sentences (:mod:`mmlearn.objectives.denoising` has all five of its corruptions). Inside an MLP nothing is
dropped, and no block is left out at random (``encoder_layerdrop`` and ``decoder_layerdrop``, which are 0 in released
files). ``tiny`` is ours.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmlearn.generation.cache import DecodingStep
from mmlearn.generation.decoding import greedy
from mmlearn.layers import Transformer, TransformerConfig
from mmlearn.layers.embeddings import look_up
from mmlearn.layers.language import initialise_as_bert
from mmlearn.models.text.writing import generate_from, source_texts
from mmlearn.objectives import shifted_right, text_denoising

FIRST_POSITION = 2  # of the position table; nothing reads the rows before


@dataclass(frozen=True)
class BARTConfig(TransformerConfig):
    vocab_size: int = 50_265
    max_length: int = 1024  # tokens
    pad_token: int = 1  # its vector does not learn by being looked up
    start_token: int = 0
    end_token: int = 2
    decoder_start_token: int = 2  # with which a written text begins, before its own start token
    forced_end_token: int | None = 2  # the last of a text that is as long as it may be; None: any
    width: int = 768
    depth: int = 6
    decoder_depth: int | None = None  # as many
    num_heads: int = 12
    norm_first: bool = False
    dropout: float = 0.1
    initial_std: float = 0.02  # of weights and tables

    PRESETS = {
        "tiny": dict(
            vocab_size=512, max_length=32, pad_token=0, start_token=1, width=64, depth=2, num_heads=4, dropout=0.0
        )
        | dict(initial_std=0.125),
        "base": dict(),
        "large": dict(width=1024, depth=12, num_heads=16),
    }


class BARTOutput(NamedTuple):
    tokens: Float[Tensor, "b t d"]  # of the text that was read
    token_logits: Float[Tensor, "b o v"]  # at position i: token i of the target


class BARTStack(nn.Module):
    """Token vectors get a position and a norm and go through post-norm blocks: the encoder, or the decoder."""

    def __init__(self, config: BARTConfig, depth: int, context_width: int | None = None):
        super().__init__()
        self.causal = context_width is not None
        self.positions = nn.Parameter(torch.randn(FIRST_POSITION + config.max_length, config.width))
        self.embedding_norm = nn.LayerNorm(config.width, eps=config.norm_epsilon)
        self.dropout = nn.Dropout(config.dropout)
        self.transformer = Transformer(replace(config, depth=depth), context_width)

    def forward(
        self,
        x: Float[Tensor, "b q d"],
        position: Int[Tensor, "b q"] | None = None,
        mask: Bool[Tensor, "b n"] | None = None,
        context: Float[Tensor, "b p_or_0 d"] | None = None,
        context_mask: Bool[Tensor, "b p"] | None = None,
    ) -> Float[Tensor, "b q d"]:
        """Positions count from 0 unless given. ``ValueError`` for a text that is longer than ``max_length``."""
        positions = self.positions[FIRST_POSITION:]  # (max_length, d)
        length = x.shape[1] if mask is None else mask.shape[1]  # a cache holds the tokens before x
        if length > len(positions):
            raise ValueError(f"{length} tokens are more than the {len(positions)} positions of this model; shorten it.")
        positions = positions[: x.shape[1]] if position is None else positions[position]
        x = self.dropout(self.embedding_norm(x + positions))
        return self.transformer(x, mask, self.causal, context, context_mask)


class BART(nn.Module):
    """A bidirectional encoder of a text, and a causal decoder that attends to it.

    ``mask`` and ``target_mask`` are True where a token is real; a text is padded at its right. Both share one
    token table, which is the language head as well. The decoder reads the target shifted one position to the right.
    Source: section 2.1.
    """

    def __init__(self, config: BARTConfig):
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.width, padding_idx=config.pad_token)
        self.encoder = BARTStack(config, config.depth)
        self.decoder = BARTStack(config, config.decoder_depth or config.depth, context_width=config.width)
        self.apply(partial(initialise_as_bert, std=config.initial_std))
        for stack in (self.encoder, self.decoder):
            nn.init.normal_(stack.positions, std=config.initial_std)
        self.register_buffer("output_bias", torch.zeros(config.vocab_size))  # in released files; it does not learn

    def encode(self, tokens: Int[Tensor, "b t"], mask: Bool[Tensor, "b t"] | None = None) -> Float[Tensor, "b t d"]:
        return self.encoder(look_up(self.embedding, tokens), None, mask)

    def decode(
        self,
        target: Int[Tensor, "b q"],
        context: Float[Tensor, "b t_or_0 d"],
        mask: Bool[Tensor, "b t"] | None = None,
        position: Int[Tensor, "b q"] | None = None,
        target_mask: Bool[Tensor, "b o"] | None = None,
    ) -> Float[Tensor, "b q v"]:
        """Logits of what follows each token of a target, which begins with the decoder's start token."""
        x = self.decoder(look_up(self.embedding, target), position, target_mask, context, mask)
        return F.linear(x, self.embedding.weight, self.output_bias)

    def forward(
        self, tokens: Int[Tensor, "b t"], target: Int[Tensor, "b o"], mask: Bool[Tensor, "b t"] | None = None
    ) -> BARTOutput:
        context = self.encode(tokens, mask)  # (b, t, d)
        previous = shifted_right(
            target, self.config.decoder_start_token
        )  # (b, o): token i is predicted from those before
        return BARTOutput(context, self.decode(previous, context, mask))

    @torch.no_grad()
    def generate(
        self,
        prompt: Int[Tensor, "b t"],
        decode: Callable[..., Tensor] = greedy,  # of mmlearn.generation.decoding
        *,
        prompt_mask: Bool[Tensor, "b t"] | None = None,
        max_length: int = 20,
    ) -> Int[Tensor, "b o"]:
        """The texts written for these, which have no special tokens: up to ``max_length`` tokens with the end token.

        The last token that there may be is ``forced_end_token``, as in fairseq and Transformers.
        """
        config = self.config
        source = source_texts(prompt, prompt_mask, [config.start_token], [config.end_token], config.pad_token)

        def last_logits(step: DecodingStep, context: Tensor, mask: Tensor | None) -> Tensor:
            logits = self.decode(step.tokens, context, mask, step.position, step.key_mask)[:, -1]  # (n, v)
            if config.forced_end_token is None or step.mask.shape[1] < max_length:
                return logits
            other = torch.arange(config.vocab_size, device=logits.device) != config.forced_end_token
            return logits.masked_fill(other, -torch.inf)

        return generate_from(self, source, last_logits, decode, config.decoder_start_token, max_length)

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Float[Tensor, ""]]:
        """Cross-entropy of every real token of the target, from the corrupted text and the tokens before it.

        ``batch["target"]`` (b, o) is the original text, ``batch["target_mask"]`` is True where it is real.
        ``ValueError`` without a text. Source: section 2.2.
        """
        if not len(batch["tokens"]):
            raise ValueError("A batch holds at least one text.")
        logits = self(batch["tokens"], batch["target"], batch.get("mask")).token_logits
        return {"infilling": text_denoising(logits, batch["target"], batch.get("target_mask"))}
