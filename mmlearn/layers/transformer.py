"""Transformer blocks, pre- and post-norm, with or without a context to attend to.

Source: Vaswani et al. 2017, section 3 (post-norm); Xiong et al. 2020, "On Layer Normalization in the Transformer
Architecture", figure 1 (pre-norm).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmlearn.layers.activations import activation_called
from mmlearn.layers.attention import Attention
from mmlearn.layers.config import Config
from mmlearn.layers.pooling import select_tokens


@dataclass(frozen=True)
class TransformerConfig(Config):
    """What every transformer is built from; encoders inherit these settings and add their own."""

    width: int
    depth: int  # blocks
    num_heads: int
    mlp_width: int | None = None  # 4 · width
    activation: str = "gelu"
    norm_first: bool = True  # pre-norm; False: post-norm, as in BERT
    norm_epsilon: float = 1e-5
    dropout: float = 0.0  # of what each branch adds, and of attention weights
    attention_dropout: float | None = None  # of attention weights, where it differs from dropout


class MLP(nn.Module):
    r"""The position-wise network of a block, :math:`W_2\, \phi(W_1 x + b_1) + b_2`.

    ``mlp_width`` is ``4 * width`` unless it is set. Raises ``ValueError`` for an unknown activation.
    Source: Vaswani et al. 2017, equation 2.
    """

    def __init__(self, width: int, mlp_width: int | None = None, activation: str = "gelu"):
        super().__init__()
        self.expand = nn.Linear(width, mlp_width or 4 * width)
        self.activation = activation_called(activation)
        self.contract = nn.Linear(mlp_width or 4 * width, width)

    def forward(self, x: Float[Tensor, "... d"]) -> Float[Tensor, "... d"]:
        return self.contract(self.activation(self.expand(x)))


class TransformerBlock(nn.Module):
    r"""Attention and an MLP, each on a residual path: an encoder block, or a decoder block if ``context_width`` is set.

    .. math:: x \leftarrow x + f(\mathrm{LN}(x)) \;\text{(pre-norm)}, \qquad
       x \leftarrow \mathrm{LN}(x + f(x)) \;\text{(post-norm)}

    for f in turn self-attention, attention to the context, and the MLP. A decoder block without a ``context`` leaves
    out the second. ``mask``, ``causal``, ``bias`` and ``rotary`` are those of self-attention (:class:`Attention`);
    ``context_mask`` says which context tokens are real. If x holds only the query tokens, ``attend_to`` is the whole
    sequence, for keys and values. Raises ``ValueError`` for a context in an encoder block.
    """

    def __init__(self, config: TransformerConfig, context_width: int | None = None):
        super().__init__()
        width, num_heads, epsilon, dropout = config.width, config.num_heads, config.norm_epsilon, config.dropout
        self.norm_first = config.norm_first
        attention_dropout = dropout if config.attention_dropout is None else config.attention_dropout
        self.attention = Attention(width, num_heads, dropout=attention_dropout)
        self.attention_norm: nn.Module = nn.LayerNorm(width, eps=epsilon)
        self.cross_attention = None
        if context_width is not None:
            self.cross_attention = Attention(width, num_heads, context_width=context_width, dropout=attention_dropout)
            self.cross_attention_norm: nn.Module = nn.LayerNorm(width, eps=epsilon)
        self.mlp: nn.Module = MLP(width, config.mlp_width, config.activation)
        self.mlp_norm: nn.Module = nn.LayerNorm(width, eps=epsilon)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        x: Float[Tensor, "b q d"],
        mask: Bool[Tensor, "..."] | None = None,
        causal: bool = False,
        context: Float[Tensor, "b n context_width"] | None = None,
        context_mask: Bool[Tensor, "..."] | None = None,
        bias: Float[Tensor, "#b #h #q #all"] | None = None,
        rotary: Float[Tensor, "*#b all half"] | None = None,
        attend_to: Float[Tensor, "b all d"] | None = None,
    ) -> Float[Tensor, "b q d"]:
        cross_attention = self.cross_attention
        if context is not None and cross_attention is None:
            raise ValueError("A block takes a context only if it was built with context_width.")
        if attend_to is not None and self.norm_first:
            attend_to = self.attention_norm(attend_to)
        x = self.residual(x, self.attention_norm, lambda x: self.attention(x, attend_to, mask, causal, bias, rotary))
        if context is not None and cross_attention is not None:
            x = self.residual(x, self.cross_attention_norm, lambda x: cross_attention(x, context, context_mask))
        return self.residual(x, self.mlp_norm, self.mlp)

    def residual(self, x: Tensor, norm: nn.Module, branch: Callable[[Tensor], Tensor]) -> Tensor:
        """A residual path around ``branch``, with the norm before it or after."""
        if self.norm_first:
            return x + self.dropout(branch(norm(x)))
        return norm(x + self.dropout(branch(x)))


class Transformer(nn.Module):
    """``depth`` blocks, one after the other; arguments and errors are those of :class:`TransformerBlock`.

    With ``context_width`` all blocks attend to a context, or those whose numbers are in ``context_blocks``. No norm
    follows the last block: pre-norm encoders add their own. A weight matrix starts at (number of its inputs)^-0.5;
    those that end a branch at width^-0.5 / √(2 · depth), so that the sum of all branches keeps its size. Source: the
    code of CLIP, and Radford et al. 2019 (GPT-2), section 2.3, for the division.
    """

    def __init__(
        self, config: TransformerConfig, context_width: int | None = None, context_blocks: Sequence[int] | None = None
    ):
        super().__init__()
        with_context = range(config.depth) if context_blocks is None else context_blocks
        self.blocks = nn.ModuleList(
            TransformerBlock(config, context_width if i in with_context else None) for i in range(config.depth)
        )
        self.reset_parameters(config.width, config.depth)

    def reset_parameters(self: nn.Module, width: int, depth: int) -> None:  # called for other stacks of blocks as well
        branch_std = width**-0.5 * (2 * depth) ** -0.5  # 2 · depth branches add up on the residual path
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear):
                ends_branch = name.endswith((".output", ".contract"))
                nn.init.normal_(module.weight, std=branch_std if ends_branch else module.in_features**-0.5)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(
        self,
        x: Float[Tensor, "b q d"],
        mask: Bool[Tensor, "..."] | None = None,
        causal: bool = False,
        context: Float[Tensor, "b n context_width"] | None = None,
        context_mask: Bool[Tensor, "..."] | None = None,
        bias: Float[Tensor, "#b #h #q #all"] | None = None,
        rotary: Float[Tensor, "*#b all half"] | None = None,
    ) -> Float[Tensor, "b q d"]:
        if context is not None and all(block.cross_attention is None for block in self.blocks):
            raise ValueError("A transformer takes a context only if it was built with context_width.")
        for block in self.blocks:
            x = block(x, mask, causal, context if block.cross_attention else None, context_mask, bias, rotary)
        return x

    def read(
        self,
        x: Float[Tensor, "b n d"],
        position: int | Int[Tensor, "b"] | Int[Tensor, "b r"],
        mask: Bool[Tensor, "b n"] | None = None,
        causal: bool = False,
        context: Float[Tensor, "b m context_width"] | None = None,
        context_mask: Bool[Tensor, "b m"] | None = None,
    ) -> Float[Tensor, "b *r d"]:
        """The outputs at ``position`` alone: the last block has keys and values of every token, but no other queries,
        unless its attention weights are recorded. ``bias`` and ``rotary`` are not taken."""
        *earlier, last = self.blocks
        recorded = any(layer.recorder for layer in (last.attention, last.cross_attention) if layer is not None)
        if recorded or (context is not None and last.cross_attention is None):  # the last block needs every token
            return select_tokens(self(x, mask, causal, context, context_mask), position)
        for block in earlier:
            x = block(x, mask, causal, context if block.cross_attention else None, context_mask)
        index = torch.arange(x.shape[1], device=x.device)
        single = isinstance(position, int) or position.ndim == 1  # one token of each row
        queries = index[position].expand(len(x))[:, None] if single else index[position]  # (b, r)
        if causal:  # written into the mask, because the queries are no longer the last positions
            visible = index <= queries[..., None]  # (b, r, n): each query sees itself and what comes before
            mask = visible if mask is None else visible & mask[:, None]
        x = last(select_tokens(x, queries), mask, False, context, context_mask, attend_to=x)  # (b, r, d)
        return x[:, 0] if single else x
