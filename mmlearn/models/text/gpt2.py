"""GPT-2: a causal transformer that predicts at every token the next one.

Paper: Radford et al. 2019, "Language Models are Unsupervised Multitask Learners"; its predecessor is Radford et al.
2018, "Improving Language Understanding by Generative Pre-Training". Official code: https://github.com/openai/gpt-2.

Deviations: weights start with a deviation that depends on width and depth, as in :class:`~mmlearn.layers.Transformer`;
the official code starts all at 0.02 and divides only those that end a branch. ``tiny`` is ours.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmlearn.generation.cache import DecodingStep, continue_prompts
from mmlearn.generation.decoding import greedy
from mmlearn.layers import TextEmbedding, Transformer, TransformerConfig
from mmlearn.objectives import causal_language_modelling


@dataclass(frozen=True)
class GPT2Config(TransformerConfig):
    vocab_size: int = 50_257
    max_length: int = 1024  # tokens
    start_token: int = 50_256  # begins a text
    end_token: int = 50_256  # ends a text
    pad_token: int = 50_256  # after the end
    width: int = 768
    depth: int = 12
    num_heads: int = 12
    activation: str = "gelu_tanh"
    dropout: float = 0.1

    PRESETS = {
        "tiny": dict(vocab_size=512, max_length=32, start_token=1, end_token=2, pad_token=0)
        | dict(width=64, depth=3, num_heads=4, dropout=0.0),
        "small": dict(),
        "medium": dict(width=1024, depth=24, num_heads=16),
        "large": dict(width=1280, depth=36, num_heads=20),
        "xl": dict(width=1600, depth=48, num_heads=25),
    }

    def build(self) -> "GPT2":
        """The language model of this configuration; a bridge need not know which it is."""
        return GPT2(self)


class GPT2Output(NamedTuple):
    tokens: Float[Tensor, "b t d"]
    token_logits: Float[Tensor, "b t v"]  # at position i: the token after token i


class GPT2(nn.Module):
    r"""Token + position embeddings, pre-norm blocks in which no token sees a later one, a norm, and the token table.

    .. math:: h_0 = E[x] + P, \quad h_l = \mathrm{block}(h_{l-1}), \quad
       p(x_{t+1} \mid x_{\le t}) = \mathrm{softmax}(E\, \mathrm{LN}(h_L)_t)

    ``mask`` is True where a token is real; a text is padded at its right. Source: Radford et al. 2018, equation 2;
    Radford et al. 2019, section 2.3, for the order of norms.
    """

    def __init__(self, config: GPT2Config):
        super().__init__()
        self.config = config
        self.embedding = TextEmbedding(config.vocab_size, config.width, config.max_length)
        self.dropout: nn.Module = nn.Dropout(config.dropout)
        self.transformer = Transformer(config)
        self.norm: nn.Module = nn.LayerNorm(config.width, eps=config.norm_epsilon)

    def forward(self, tokens: Int[Tensor, "b t"], mask: Bool[Tensor, "b t"] | None = None) -> GPT2Output:
        x = self.states(tokens, mask)  # (b, t, d)
        return GPT2Output(x, self.logits(x))

    def states(
        self, tokens: Int[Tensor, "b t"], mask: Bool[Tensor, "b n"] | None, position: Int[Tensor, "b t"] | None = None
    ) -> Float[Tensor, "b t d"]:
        """``mask`` counts earlier tokens as well, where their keys are kept in a cache."""
        return self.read(self.embedding(tokens, position), mask)

    def read(self, x: Float[Tensor, "b q d"], mask: Bool[Tensor, "b n"] | None = None) -> Float[Tensor, "b q d"]:
        """States of embeddings that already hold their positions: of words, or of what a bridge puts before them."""
        return self.norm(self.transformer(self.dropout(x), mask, causal=True))

    def logits(self, states: Float[Tensor, "*n d"]) -> Float[Tensor, "*n v"]:
        """Scores of the token that follows each state."""
        return F.linear(states, self.embedding.tokens.weight)

    @torch.no_grad()
    def generate(
        self,
        prompt: Int[Tensor, "b prompt"] | None = None,
        decode: Callable[..., Tensor] = greedy,  # of mmlearn.generation.decoding
        *,
        prompt_mask: Bool[Tensor, "b prompt"] | None = None,
        max_length: int = 20,
    ) -> Int[Tensor, "b t"]:
        """Continuations of the ``prompt``, of up to ``max_length`` tokens with it and with the end token.

        A prompt has no special tokens and may be empty, (b, 0); without one a single text is written. Shorter ones are
        padded at their left, where ``prompt_mask`` is False.
        """
        device = self.embedding.positions.device
        prompt = torch.zeros(1, 0, dtype=torch.long, device=device) if prompt is None else prompt

        def read(step: DecodingStep) -> Float[Tensor, "n v"]:
            return self.logits(self.states(step.tokens, step.key_mask, step.position)[:, -1])

        ids = dict(end_token=self.config.end_token, pad_token=self.config.pad_token)
        return continue_prompts(self, read, self.config.start_token, prompt, prompt_mask, decode, max_length, **ids)

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Float[Tensor, ""]]:
        """The next token: cross-entropy of every real token but the first, from those before it.

        ``ValueError`` without a text. Source: Radford et al. 2018, equation 1.
        """
        tokens, mask = batch["tokens"], batch.get("mask")
        if not len(tokens):
            raise ValueError("A batch holds at least one text.")
        return {"lm": causal_language_modelling(self(tokens, mask).token_logits, tokens, mask)}
