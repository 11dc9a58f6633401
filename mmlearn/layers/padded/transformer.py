"""Transformer blocks, pre- and post-norm, with or without a context to attend to.

Source: Vaswani et al. 2017, section 3 (post-norm); Xiong et al. 2020, "On Layer Normalization in the Transformer
Architecture", figure 1 (pre-norm).
"""

from collections.abc import Callable

import torch
from einops import repeat
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmlearn.layers.padded.attention import Attention
from mmlearn.layers.padded.padding import NO_PADDING, Padding
from mmlearn.layers.transformer import MLP


class TransformerBlock(nn.Module):
    r"""Attention and an MLP, each on a residual path: an encoder block, or a decoder block if ``context_width`` is set.

    .. math:: x \leftarrow x + f(\mathrm{LN}(x)) \;\text{(pre-norm)}, \qquad
       x \leftarrow \mathrm{LN}(x + f(x)) \;\text{(post-norm)}

    for f in turn self-attention, attention to the context (decoder blocks only), and the MLP.
    ``mask`` says which tokens are real, ``context_mask`` which context tokens are; ``dropout`` acts on attention
    weights and on each residual branch. Where only some tokens of each row are read afterwards, ``read`` says which,
    (b,) for one or (b, r) for more, and the block computes those, (b, r, d): they ask all others, who need not ask.
    Where ``padding`` was removed from x, it is from what the block returns; what is read is whole again, with zeros
    where that is padding.
    """

    def __init__(
        self,
        width: int,
        num_heads: int,
        *,
        mlp_width: int | None = None,
        context_width: int | None = None,
        activation: str = "gelu",
        norm_first: bool = True,
        norm_epsilon: float = 1e-5,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.norm_first = norm_first
        self.attention = Attention(width, num_heads, dropout=dropout)
        self.attention_norm = nn.LayerNorm(width, eps=norm_epsilon)
        self.cross_attention = None
        if context_width is not None:
            self.cross_attention = Attention(width, num_heads, context_width=context_width, dropout=dropout)
            self.cross_attention_norm = nn.LayerNorm(width, eps=norm_epsilon)
        self.mlp = MLP(width, mlp_width, activation)
        self.mlp_norm = nn.LayerNorm(width, eps=norm_epsilon)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        x: Float[Tensor, "*bq d"],
        mask: Bool[Tensor, "..."] | None = None,
        causal: bool = False,
        context: Float[Tensor, "b n context_width"] | None = None,
        context_mask: Bool[Tensor, "..."] | None = None,
        read: Int[Tensor, "b *r"] | None = None,
        padding: Padding = NO_PADDING,
    ) -> Float[Tensor, "*br d"]:
        if (context is None) != (self.cross_attention is None):
            raise ValueError("A block takes a context exactly if it was built with context_width.")
        if read is None:
            x = self._residual(
                x, self.attention_norm, lambda x: self.attention(x, mask=mask, causal=causal, padding=padding)
            )
        else:
            x, padding = self._read(x, mask, causal, read, padding)
        if context is not None:
            x = self._residual(
                x,
                self.cross_attention_norm,
                lambda x: self.cross_attention(x, context, mask=context_mask, padding=padding),
            )
        x = self._residual(x, self.mlp_norm, self.mlp)
        return x if read is None else padding.restore(x)

    def _read(
        self, x: Tensor, mask: Tensor | None, causal: bool, read: Tensor, padding: Padding
    ) -> tuple[Float[Tensor, "*br d"], Padding]:
        """Self-attention of some tokens of each row, ``mask`` (b, n); those that are padding are left out."""
        read = read[:, None] if read.ndim == 1 else read
        seen, rows = self.attention_norm(x) if self.norm_first else x, padding.restore(x)
        mask, real = padding.mask if mask is None else mask, padding.mask
        if causal:
            past = torch.arange(rows.shape[1], device=x.device) <= read[..., None]
            mask = past if mask is None else mask[:, None] & past
        chosen = Padding(None if real is None else real.gather(1, read))
        some = chosen.remove(rows.gather(1, repeat(read, "b r -> b r d", d=x.shape[-1])))
        attend = lambda some: self.attention(some, seen, mask, padding=chosen, context_padding=padding)  # noqa: E731
        return self._residual(some, self.attention_norm, attend), chosen

    def _residual(self, x: Tensor, norm: nn.Module, branch: Callable[[Tensor], Tensor]) -> Tensor:
        if self.norm_first:
            return x + self.dropout(branch(norm(x)))
        return norm(x + self.dropout(branch(x)))


class Transformer(nn.Module):
    """``depth`` blocks, one after the other; the arguments are those of :class:`TransformerBlock`.

    ``read`` is for the last one. Padding is not computed: where ``mask`` (b, q) is False, the result is 0, unless that
    is the one token (b,) that is read. No norm follows: pre-norm systems add their own. Weights start as in GPT-2 and
    CLIP, scaled by width and depth so that activations keep their size (Radford et al. 2021, section 2.5 and official
    code).
    """

    def __init__(self, width: int, depth: int, num_heads: int, **block):
        super().__init__()
        self.blocks = nn.ModuleList(TransformerBlock(width, num_heads, **block) for _ in range(depth))
        self.reset_parameters(width, depth)

    def reset_parameters(self, width: int, depth: int) -> None:
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
        read: Int[Tensor, "b *r"] | None = None,
    ) -> Float[Tensor, "b r d"]:
        real = mask if mask is not None and mask.shape == x.shape[:2] else None
        if real is not None and read is not None and read.ndim == 1:  # SigLIP's last place of a text, padding or not
            real = real.scatter(1, read[:, None], True)
        padding = Padding(real)
        x = padding.remove(x)
        for block in self.blocks[:-1]:
            x = block(x, mask, causal, context, context_mask, padding=padding)
        x = self.blocks[-1](x, mask, causal, context, context_mask, read, padding)
        return x if read is not None else padding.restore(x)
