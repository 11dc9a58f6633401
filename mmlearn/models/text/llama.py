"""Llama, and what is built like it: SmolLM2, Mistral and Qwen2. What changed in language models since GPT-2.

Four things did. The norm only scales (:class:`RMSNorm`). Positions are not added to tokens: queries and keys are turned
by them (:func:`~mmlearn.layers.rotary.rotary_frequencies`, :func:`~mmlearn.layers.rotate`). Several query heads share a
key and a value, so that the cache of a text is smaller (:class:`GroupedQueryAttention`). The MLP has a gate
(:class:`SwiGLU`).

Papers: Touvron et al. 2023, "LLaMA: Open and Efficient Foundation Language Models"; Grattafiori et al. 2024, "The Llama
3 Herd of Models"; Jiang et al. 2023, "Mistral 7B"; Yang et al. 2024, "Qwen2 Technical Report"; Allal et al. 2025,
"SmolLM2". Official code: https://github.com/meta-llama/llama-models.

Deviations: weights start with a deviation that depends on width and depth, as in :class:`~mmlearn.layers.Transformer`.
The cache keeps keys that a sliding window no longer shows; Mistral's code overwrites them. ``tiny`` is ours.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmlearn.generation.cache import DecodingStep, continue_prompts
from mmlearn.generation.decoding import greedy
from mmlearn.layers import Attention, Transformer, TransformerBlock, TransformerConfig
from mmlearn.layers.activations import activation_called
from mmlearn.layers.embeddings import look_up
from mmlearn.layers.rotary import RotaryConfig, rotary_frequencies
from mmlearn.objectives import causal_language_modelling

SMOLLM2: dict[str, Any] = dict(vocab_size=49_152, max_length=8192, start_token=0, end_token=0, pad_token=0, tied=True)
SMOLLM2 |= dict(rotary=RotaryConfig(100_000.0))


@dataclass(frozen=True)
class LlamaConfig(TransformerConfig):
    vocab_size: int = 32_000
    max_length: int = 4096  # tokens
    start_token: int | None = 1  # begins a text; None: nothing does
    end_token: int = 2  # ends a text
    more_end_tokens: tuple[int, ...] = ()  # which do so as well, such as that of a turn in a chat
    pad_token: int = 2  # after the end
    pad_learns: bool = True  # its vector, by being looked up
    width: int = 4096
    depth: int = 32
    num_heads: int = 32
    num_kv_heads: int | None = None  # heads of keys and values; None: as many as of queries
    head_width: int | None = None  # width / num_heads
    mlp_width: int = 11_008
    activation: str = "silu"
    norm_epsilon: float = 1e-5
    qkv_bias: bool = False  # of queries, keys and values, as in Qwen2
    tied: bool = False  # the token table is the language head
    window: int | None = None  # tokens that a query sees, its own included, as in Mistral; None: all before it
    rotary: RotaryConfig = RotaryConfig()

    PRESETS = {
        "tiny": dict(vocab_size=512, max_length=32, start_token=1, end_token=2, pad_token=0, tied=True)
        | dict(width=64, depth=3, num_heads=4, num_kv_heads=2, mlp_width=176),
        "Llama-2-7B": dict(),
        "Llama-3.2-1B": dict(vocab_size=128_256, max_length=131_072, tied=True)
        | dict(start_token=128_000, end_token=128_001, pad_token=128_001)
        | dict(width=2048, depth=16, num_kv_heads=8, mlp_width=8192)
        | dict(rotary=RotaryConfig(500_000.0, "llama3", 32.0)),
        "Mistral-7B-v0.1": dict(max_length=32_768, num_kv_heads=8, mlp_width=14_336, window=4096),
        "Qwen2-0.5B": dict(vocab_size=151_936, max_length=131_072, tied=True, qkv_bias=True, norm_epsilon=1e-6)
        | dict(start_token=None, end_token=151_643, pad_token=151_643)
        | dict(width=896, depth=24, num_heads=14, num_kv_heads=2, mlp_width=4864, rotary=RotaryConfig(1e6)),
        "SmolLM2-135M": SMOLLM2 | dict(width=576, depth=30, num_heads=9, num_kv_heads=3, mlp_width=1536),
        "SmolLM2-360M": SMOLLM2 | dict(width=960, depth=32, num_heads=15, num_kv_heads=5, mlp_width=2560),
        "SmolLM2-1.7B": SMOLLM2 | dict(width=2048, depth=24, mlp_width=8192, rotary=RotaryConfig(130_000.0)),
    }

    def cache_bytes(self, tokens: int, bytes_per_number: int = 2) -> int:
        r"""What the keys and values of a text take while it is written, :math:`2\, L\, h_{kv}\, k` numbers a token.

        Llama-3.2-1B has 8 key heads for 32 query heads, and takes 32 KiB a token in bf16, where 32 would take 128.
        """
        head_width = self.head_width or self.width // self.num_heads
        return tokens * 2 * self.depth * (self.num_kv_heads or self.num_heads) * head_width * bytes_per_number


class LlamaOutput(NamedTuple):
    tokens: Float[Tensor, "b t d"]
    token_logits: Float[Tensor, "b t v"]  # at position i: the token after token i


class RMSNorm(nn.Module):
    r"""A norm that only scales. It subtracts no mean and adds no bias, as layer norm does: scaling alone is enough.

    .. math:: \bar a_i = \frac{a_i}{\mathrm{RMS}(a)}\, g_i, \qquad
       \mathrm{RMS}(a) = \sqrt{\tfrac{1}{d} \textstyle\sum_i a_i^2 + \epsilon}

    Source: Zhang & Sennrich 2019, "Root Mean Square Layer Normalization", equation 4; ε as in Llama's code.
    """

    def __init__(self, width: int, epsilon: float):
        super().__init__()
        self.epsilon = epsilon
        self.weight = nn.Parameter(torch.ones(width))  # g

    def forward(self, x: Float[Tensor, "... d"]) -> Float[Tensor, "... d"]:
        # Squares of many features are summed, for which bf16 is too coarse.
        a = x.to(torch.promote_types(x.dtype, torch.float32))
        return self.weight * (a * (a.square().mean(-1, keepdim=True) + self.epsilon).rsqrt()).to(x)


class GroupedQueryAttention(Attention):
    r"""Attention in which each key head serves a group of g = h / h_kv query heads.

    .. math:: \mathrm{head}_i = \mathrm{Attention}(Q_i,\, K_{\lfloor i / g \rfloor},\, V_{\lfloor i / g \rfloor})

    Keys and values are kept while a text is written (:mod:`mmlearn.generation.cache`), so that the cache is g times
    smaller. g = 1 is ordinary attention. ``ValueError`` where g is no whole number.
    Source: Ainslie et al. 2023, "GQA: Training Generalized Multi-Query Transformer Models", section 2.2.
    """

    def __init__(self, config: LlamaConfig):
        width, h = config.width, config.num_heads
        dropout = config.dropout if config.attention_dropout is None else config.attention_dropout
        super().__init__(width, h, head_width=config.head_width, bias=False, dropout=dropout)
        self.num_kv_heads = config.num_kv_heads or h
        if h % self.num_kv_heads:
            raise ValueError(f"num_heads {h} is no multiple of num_kv_heads {self.num_kv_heads}; change one.")
        self.group = h // self.num_kv_heads
        inner = self.query.out_features
        self.query = nn.Linear(width, inner, bias=config.qkv_bias)
        self.key = nn.Linear(width, inner // self.group, bias=config.qkv_bias)
        self.value = nn.Linear(width, inner // self.group, bias=config.qkv_bias)

    def keys_and_values(self, context: Float[Tensor, "b n d"]) -> list[Float[Tensor, "b kv n k"]]:
        """Fewer heads than of queries: this is what the cache keeps."""
        parts = (part(context).unflatten(-1, (self.num_kv_heads, -1)) for part in (self.key, self.value))
        return [part.transpose(1, 2) for part in parts]  # (b, n, kv, k) → (b, kv, n, k)

    def heads(
        self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, causal: bool, bias: Tensor | None
    ) -> Float[Tensor, "b h q k"]:
        key, value = (x.repeat_interleave(self.group, dim=1) for x in (key, value))  # (b, kv, n, k) → (b, h, n, k)
        return super().heads(query, key, value, mask, causal, bias)


class SwiGLU(nn.Module):
    r"""An MLP in which a gate decides, feature by feature, how much goes through.

    .. math:: \mathrm{SwiGLU}(x) = W_2\, (\mathrm{Swish}(W x) \odot V x), \qquad \mathrm{Swish}(x) = x\, \sigma(x)

    It has three matrices, where GPT-2's MLP has two; with 8/3 d features, where that has 4 d, both are equally large.
    Source: Shazeer 2020, "GLU Variants Improve Transformer", equation 6; Touvron et al. 2023, section 2.2.
    """

    def __init__(self, width: int, mlp_width: int, activation: str):
        super().__init__()
        self.activation = activation_called(activation)
        self.gate = nn.Linear(width, mlp_width, bias=False)  # W
        self.expand = nn.Linear(width, mlp_width, bias=False)  # V
        self.contract = nn.Linear(mlp_width, width, bias=False)  # W₂

    def forward(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        return self.contract(self.activation(self.gate(x)) * self.expand(x))  # (b, n, mlp_width) → (b, n, d)


class LlamaBlock(TransformerBlock):
    r"""Attention and an MLP, each after a norm and on a residual path, as in GPT-2.

    .. math:: x \leftarrow x + \mathrm{Attention}(\mathrm{RMSNorm}(x)), \qquad
       x \leftarrow x + \mathrm{SwiGLU}(\mathrm{RMSNorm}(x))
    """

    def __init__(self, config: LlamaConfig):
        nn.Module.__init__(self)
        self.attention_norm = RMSNorm(config.width, config.norm_epsilon)
        self.attention = GroupedQueryAttention(config)
        self.mlp_norm = RMSNorm(config.width, config.norm_epsilon)
        self.mlp = SwiGLU(config.width, config.mlp_width, config.activation)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self,
        x: Float[Tensor, "b q d"],
        mask: Bool[Tensor, "b n"] | Bool[Tensor, "#b q n"] | None,
        rotary: Float[Tensor, "*#b n half"],
    ) -> Float[Tensor, "b q d"]:
        x = x + self.dropout(self.attention(self.attention_norm(x), mask=mask, causal=True, rotary=rotary))
        return x + self.dropout(self.mlp(self.mlp_norm(x)))


class Llama(nn.Module):
    r"""Token embeddings, blocks in which no token sees a later one, a norm, and the language head.

    .. math:: h_0 = E[x], \quad h_l = \mathrm{block}(h_{l-1}), \quad
       p(x_{t+1} \mid x_{\le t}) = \mathrm{softmax}(W\, \mathrm{RMSNorm}(h_L)_t)

    ``mask`` is True where a token is real. W is E where ``tied``. Raises ``ValueError`` for a window that is longer
    than a text. Source: Touvron et al. 2023, section 2.2.
    """

    def __init__(self, config: LlamaConfig):
        super().__init__()
        window, most = config.window, config.max_length
        if window is not None and not 0 < window <= most:
            raise ValueError(f"window {window} is none of 1 to max_length, {most} tokens; None shows them all.")
        self.config = config
        self.head_width = config.head_width or config.width // config.num_heads
        rotary_frequencies(self.head_width, config.rotary)  # refuses what is not built, before a text comes
        self.embedding = nn.Embedding(config.vocab_size, config.width)
        self.embedding.padding_idx = None if config.pad_learns else config.pad_token
        self.blocks = nn.ModuleList(LlamaBlock(config) for _ in range(config.depth))
        self.norm = RMSNorm(config.width, config.norm_epsilon)
        self.language_head = None if config.tied else nn.Linear(config.width, config.vocab_size, bias=False)
        Transformer.reset_parameters(self, config.width, config.depth)
        for table in (self.embedding, self.language_head):
            if table is not None:
                nn.init.normal_(table.weight, std=0.02)

    def forward(self, tokens: Int[Tensor, "b t"], mask: Bool[Tensor, "b t"] | None = None) -> LlamaOutput:
        x = self.read(self.embed(tokens), mask)  # (b, t, d)
        return LlamaOutput(x, self.logits(x))

    def embed(self, tokens: Int[Tensor, "b t"]) -> Float[Tensor, "b t d"]:
        return look_up(self.embedding, tokens)

    def read(
        self,
        x: Float[Tensor, "b q d"],
        mask: Bool[Tensor, "b n"] | Bool[Tensor, "#b q n"] | None = None,
        position: Int[Tensor, "b n"] | None = None,
    ) -> Float[Tensor, "b q d"]:
        """States of embeddings: of words, or of what a bridge puts before them.

        A ``mask`` (b, q, n) says whom each query sees, as where several texts share a row. ``mask`` and ``position``
        count earlier tokens as well, where their keys are kept in a cache. Without a ``position`` real tokens count
        from 0. Raises ``ValueError`` for more positions than there are.
        """
        if position is None:
            n = x.shape[1]
            position = torch.arange(n, device=x.device) if mask is None else real_positions(mask)  # (n,) or (b, n)
        else:
            n = 0 if torch.compiler.is_compiling() or not position.numel() else int(position.max()) + 1
        if n > (most := self.config.max_length):
            raise ValueError(f"{n} tokens are more than the {most} positions of this model; shorten the text.")
        # Position m turns pair i by the angle m θᵢ; embeddings know of no position, queries and keys of each block do.
        rotary = position[..., None] * rotary_frequencies(self.head_width, self.config.rotary, x.device)  # (b, n, k/2)
        if self.config.window is not None:
            mask = in_window(x.shape[1], position.shape[-1], self.config.window, mask, x.device)  # (b, q, n)
        for block in self.blocks:
            x = block(x, mask, rotary)
        return self.norm(x)

    def logits(self, states: Float[Tensor, "*n d"]) -> Float[Tensor, "*n v"]:
        """Scores of the token that follows each state."""
        return F.linear(states, self.embedding.weight) if self.language_head is None else self.language_head(states)

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

        A prompt has no start token and may be empty, (b, 0), if there is one; without it a single text is written.
        Shorter ones are padded at their left, where ``prompt_mask`` is False. Earlier turns of a chat may have ended.
        """
        prompt = self.embedding.weight.new_zeros(1, 0, dtype=torch.long) if prompt is None else prompt
        return self.write(lambda step: self.embed(step.tokens), prompt, decode, prompt_mask, max_length)

    def write(
        self,
        embed: Callable[[DecodingStep], Float[Tensor, "n t d"]],
        prompt: Int[Tensor, "b prompt"],
        decode: Callable[..., Tensor],
        prompt_mask: Bool[Tensor, "b prompt"] | None,
        max_length: int,
    ) -> Int[Tensor, "b t"]:
        """As :meth:`generate`, where ``embed`` gives the embeddings of a step: a bridge puts images among words."""

        def read(step: DecodingStep) -> Float[Tensor, "n v"]:
            states = self.read(embed(step), step.key_mask, real_positions(step.mask))
            return self.logits(states[:, -1])

        config = self.config
        how: dict[str, Any] = dict(
            end_token=(config.end_token, *config.more_end_tokens), pad_token=config.pad_token, turns=True
        )
        return continue_prompts(self, read, config.start_token, prompt, prompt_mask, decode, max_length, **how)

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Float[Tensor, ""]]:
        """The next token: cross-entropy of every real token but the first, from those before it.

        ``ValueError`` without a text. Source: Radford et al. 2018 (GPT), equation 1.
        """
        tokens, mask = batch["tokens"], batch.get("mask")
        if not len(tokens):
            raise ValueError("A batch holds at least one text.")
        return {"lm": causal_language_modelling(self(tokens, mask).token_logits, tokens, mask)}


def real_positions(mask: Bool[Tensor, "b n"]) -> Int[Tensor, "b n"]:
    """The position of each token where padding takes none."""
    return (mask.cumsum(1) - 1).clamp(min=0)


def in_window(
    queries: int,
    keys: int,
    window: int,
    mask: Bool[Tensor, "b n"] | Bool[Tensor, "#b q n"] | None,
    device: torch.device,
) -> Bool[Tensor, "#b q n"]:
    """Which keys each of the last queries may see: real ones, no further back than a window, its own included.

    A token is still told of earlier ones: each block passes on what its window showed. Source: Jiang et al. 2023,
    section 2.
    """
    index = torch.arange(keys, device=device)
    near = index > index[keys - queries :, None] - window  # (q, n); what comes later is left out by causal attention
    return near[None] if mask is None else near & (mask[:, None] if mask.ndim == 2 else mask)
