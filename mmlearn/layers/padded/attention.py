"""Attention that takes padding out. On its way out: see the package."""

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mmlearn.layers.attention import Attention as _Plain
from mmlearn.layers.attention import _allowed
from mmlearn.layers.padded.padding import NO_PADDING, Padding

SMALL = (128, 64)  # keys, and features of a head: up to here two cores of a CPU are faster without the fused kernel
VECTOR = 16  # numbers that a CPU handles at once: a softmax over fewer takes several times as long as over so many


def attention(
    query: Float[Tensor, "b h q k"],
    key: Float[Tensor, "b h n k"],
    value: Float[Tensor, "b h n value_width"],
    mask: Bool[Tensor, "..."] | None = None,
    causal: bool = False,
    dropout: float = 0.0,
) -> Float[Tensor, "b h q value_width"]:
    r"""Each query takes a weighted mean of the values, by PyTorch's fused kernel, or written out where that is faster.

    .. math:: \mathrm{Attention}(Q, K, V) = \mathrm{softmax}\!\left(\frac{Q K^\top}{\sqrt{k}}\right) V

    ``mask`` is (b, n), (b, q, n) or (b, h, q, n). With ``causal`` the last query stands at the last key, and no query
    sees a later key. A query that may attend nothing gets zeros. ``dropout`` is the probability of dropping a weight.

    Raises ``ValueError`` for a mask of another type or shape.
    Source: Vaswani et al. 2017, equation 1.
    """
    if query.device.type == "cpu" and key.shape[-2] <= SMALL[0] and key.shape[-1] <= SMALL[1]:
        return F.dropout(attention_weights(query, key, mask, causal), dropout) @ value
    aligned = query.shape[-2] == key.shape[-2]
    if mask is None and (aligned or not causal):
        return F.scaled_dot_product_attention(query, key, value, dropout_p=dropout, is_causal=causal)
    allowed = _allowed(query, key, mask, causal)
    return F.scaled_dot_product_attention(query, key, value, attn_mask=allowed, dropout_p=dropout)


def attention_weights(
    query: Float[Tensor, "b h q k"],
    key: Float[Tensor, "b h n k"],
    mask: Bool[Tensor, "..."] | None = None,
    causal: bool = False,
) -> Float[Tensor, "b h q n"]:
    r"""The weights that :func:`attention` uses and never shows, :math:`\mathrm{softmax}(Q K^\top / \sqrt{k})`.

    Rows sum to 1, or to 0 where a query may attend nothing. Masks and errors as in :func:`attention`.
    """
    scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-2, -1)
    allowed, quick = _allowed(query, key, mask, causal), scores.device.type == "cpu"  # to look at a mask
    if allowed is None or (quick and allowed.all()):
        return _softmax(scores)
    # Very low, not -inf: a row without any key must give zeros, not NaN, forward and backward.
    low = torch.zeros_like(allowed, dtype=scores.dtype).masked_fill(~allowed, torch.finfo(scores.dtype).min / 2)
    weights, some = _softmax(scores + low), allowed.any(-1, keepdim=True)
    return weights if quick and some.all() else weights * some


def _softmax(scores: Float[Tensor, "b h q n"]) -> Float[Tensor, "b h q n"]:
    n = scores.shape[-1]
    if scores.device.type != "cpu" or n >= VECTOR:
        return scores.softmax(-1)
    return F.pad(scores, (0, VECTOR - n), value=-torch.inf).softmax(-1)[..., :n]


def attention_of_few(
    query: Float[Tensor, "b q inner"],
    context: Float[Tensor, "b n c"],
    to_key: nn.Linear,
    to_value: nn.Linear,
    num_heads: int,
    mask: Bool[Tensor, "b n"] | None = None,
    dropout: float = 0.0,
) -> Float[Tensor, "b q inner"]:
    r"""All heads of an attention that makes no keys and values: what its few queries ask and read goes through W.

    .. math:: q^\top (W^K y_j + b^K) = (W^{K\top} q)^\top y_j + \mathrm{const}, \qquad
       \sum_j a_j (W^V y_j + b^V) = W^V \sum_j a_j y_j + b^V \sum_j a_j

    for a query q, the context y and weights a. A constant in all scores of a query does not change its softmax. Both
    products are of as many rows as there are queries, where keys and values are of as many as the context has.
    Source: DeepSeek-AI 2024 (DeepSeek-V2), section 2.1.2, where W is absorbed so when it generates.
    """
    key, value = (rearrange(layer.weight, "(h k) c -> h k c", h=num_heads) for layer in (to_key, to_value))
    (_, k, c), b = key.shape, len(query)
    query = query * (c / k) ** 0.5  # scores are over √k, and attention_weights divides by the √c of what meets there
    asked = rearrange(query, "b q (h k) -> h (b q) k", h=num_heads) @ key
    asked = rearrange(asked, "h (b q) c -> b 1 (h q) c", b=b)  # all heads ask the same context
    weights = F.dropout(attention_weights(asked, context[:, None], mask), dropout)
    read = rearrange(weights @ context[:, None], "b 1 (h q) c -> h (b q) c", h=num_heads)
    heads = rearrange(read @ value.transpose(1, 2), "h (b q) k -> b q h k", b=b)
    if to_value.bias is not None:
        total = rearrange(weights.sum(-1), "b 1 (h q) -> b q h 1", h=num_heads)
        heads = heads + total * rearrange(to_value.bias, "(h k) -> h k", h=num_heads)
    if to_key.bias is not None:
        heads = heads + 0 * to_key.bias.sum()  # a gradient of 0, not none: processes wait for each other's
    return heads.flatten(2)


class Attention(_Plain):
    r"""Multi-head attention: every head projects, attends and hands back its own ``head_width`` features.

    .. math:: \mathrm{MultiHead}(Q, K, V) = \mathrm{Concat}(\mathrm{head}_1, \dots, \mathrm{head}_h)\, W^O, \quad
       \mathrm{head}_i = \mathrm{Attention}(Q W_i^Q, K W_i^K, V W_i^V)

    Self-attention unless a ``context`` of width ``context_width`` is given, which then supplies keys and values.
    ``head_width`` is ``width / num_heads`` unless it is set. Tokens whose ``padding`` was removed, (r, d), and context
    whose ``context_padding`` was, are projected so, and so returned; only the heads see texts side by side. Without a
    ``mask`` that of ``context_padding`` is taken; one that is given hides padding itself.

    Raises ``ValueError`` where ``width`` is no multiple of ``num_heads`` and no ``head_width`` is given.
    Source: Vaswani et al. 2017, section 3.2.2.
    """

    def forward(
        self,
        x: Float[Tensor, "*bq d"],
        context: Float[Tensor, "*bn context_width"] | None = None,
        mask: Bool[Tensor, "..."] | None = None,
        causal: bool = False,
        padding: Padding = NO_PADDING,
        context_padding: Padding = NO_PADDING,
    ) -> Float[Tensor, "*bq d"]:
        if context is None:
            context, context_padding = x, padding
        mask = context_padding.mask if mask is None else mask
        query, dropout = padding.restore(self.query(x)), self.dropout if self.training else 0.0
        if self._few_ask(query, context, mask, causal):
            context = context_padding.restore(context)
            heads = attention_of_few(query, context, self.key, self.value, self.num_heads, mask, dropout)
            return self.output(padding.remove(heads))
        key, value = context_padding.restore(self.key(context)), context_padding.restore(self.value(context))
        query, key, value = (rearrange(x, "b n (h k) -> b h n k", h=self.num_heads) for x in (query, key, value))
        if self.recorder is None:
            heads = attention(query, key, value, mask, causal, dropout)
        else:
            weights = attention_weights(query, key, mask, causal)
            self.recorder(weights)
            heads = F.dropout(weights, dropout) @ value  # by the recorded weights, so that it has a gradient to them
        return self.output(padding.remove(rearrange(heads, "b h q k -> b q (h k)")))

    def _few_ask(self, query: Tensor, context: Tensor, mask: Tensor | None, causal: bool) -> bool:
        """Whether :func:`attention_of_few` computes the same with less than half of the products."""
        if causal or self.recorder or (mask is not None and mask.ndim > 2):
            return False
        for layer in (self.key, self.value):  # an adapter or a hook that was put there would be passed over
            if type(layer) is not nn.Linear or layer._forward_hooks or layer._forward_pre_hooks:
                return False
        b, q, inner = query.shape
        c, n = context.shape[-1], context.shape[:-1].numel() / max(b, 1)
        return q * c * (inner + self.num_heads * n) < n * inner * (c + q) / 2
