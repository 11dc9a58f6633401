"""Attention: the function, written out, and the module of every transformer here, which calls PyTorch's kernel.

Masks are boolean, and ``True`` means *real, may be attended*. Source: Vaswani et al. 2017, "Attention Is All You Need",
sections 3.2.1 and 3.2.2.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mmlearn.layers.positions import rotate

# What a mask may look like, and how it broadcasts to (b, h, q, n).
MASK_PATTERNS = {
    2: "b n -> b 1 1 n",  # which keys are real
    3: "b q n -> b 1 q n",  # which keys each query may see
    4: "b h q n -> b h q n",  # the same, one mask for each head
}


def attention(
    query: Float[Tensor, "b h q k"],
    key: Float[Tensor, "b h n k"],
    value: Float[Tensor, "b h n value_width"],
    mask: Bool[Tensor, "..."] | None = None,
    causal: bool = False,
    bias: Float[Tensor, "#b #h #q #n"] | None = None,
) -> Float[Tensor, "b h q value_width"]:
    r"""Each query takes a mean of the values, weighted by how well their keys fit it.

    .. math:: \mathrm{Attention}(Q, K, V) = \mathrm{softmax}\!\left(\frac{Q K^\top}{\sqrt{k}} + B\right) V

    ``mask`` is (b, n), (b, q, n) or (b, h, q, n); an axis of 1 holds for all. With ``causal`` the queries are the last
    q positions, as with a cache, and none sees a later key. ``bias`` B is added to the scores, as relative positions
    are. A query that may attend nothing gets zeros. Raises ``ValueError`` for a mask of another type or shape.
    Source: Vaswani et al. 2017, equation 1; Raffel et al. 2020 (T5), section 2.1, for the bias.
    """
    return attention_weights(query, key, mask, causal, bias) @ value


def attention_weights(
    query: Float[Tensor, "b h q k"],
    key: Float[Tensor, "b h n k"],
    mask: Bool[Tensor, "..."] | None = None,
    causal: bool = False,
    bias: Float[Tensor, "#b #h #q #n"] | None = None,
) -> Float[Tensor, "b h q n"]:
    r"""The weights of :func:`attention`, :math:`\mathrm{softmax}(Q K^\top / \sqrt{k} + B)`.

    Rows sum to 1, or to 0 where a query may attend nothing. Arguments and errors as in :func:`attention`.
    """
    scores = query * query.shape[-1] ** -0.5 @ key.transpose(-2, -1)
    if bias is not None:
        scores = scores + bias
    allowed = allowed_keys(query, key, mask, causal)
    if allowed is None:
        return scores.softmax(-1)
    # Very low, not -inf: the softmax of a row of -inf is NaN, and a row without any key must give zeros.
    return scores.masked_fill(~allowed, torch.finfo(scores.dtype).min).softmax(-1) * allowed


def allowed_keys(query: Tensor, key: Tensor, mask: Tensor | None, causal: bool) -> Bool[Tensor, "..."] | None:
    """One mask that broadcasts to (b, h, q, n), or None where every key may be attended."""
    (b, h, q, _), n = query.shape, key.shape[-2]
    allowed = None
    if mask is not None:
        expected = {2: (b, n), 3: (b, q, n), 4: (b, h, q, n)}
        if mask.dtype != torch.bool:
            raise ValueError(f"A mask is boolean, True where a token is real; this is {mask.dtype}. Use mask.bool().")
        if mask.ndim not in expected or any(got not in (1, want) for got, want in zip(mask.shape, expected[mask.ndim])):
            raise ValueError(
                f"A mask has shape (b, n), (b, q, n) or (b, h, q, n); with b={b}, h={h}, q={q}, n={n} "
                f"this one has {tuple(mask.shape)}."
            )
        allowed = rearrange(mask, MASK_PATTERNS[mask.ndim])
    if causal and q > 1:  # one query alone is the last, and sees all keys
        # Query i is position n - q + i and sees that many keys and itself: a triangle, moved right by n - q.
        visible = torch.ones(q, n, dtype=torch.bool, device=query.device).tril(n - q)
        allowed = visible if allowed is None else allowed & visible
    return allowed


class Attention(nn.Module):
    r"""Multi-head attention: every head projects, attends and returns its own ``head_width`` features.

    .. math:: \mathrm{MultiHead}(Q, K, V) = \mathrm{Concat}(\mathrm{head}_1, \dots, \mathrm{head}_h)\, W^O, \quad
       \mathrm{head}_i = \mathrm{Attention}(Q W_i^Q, K W_i^K, V W_i^V)

    Self-attention unless a ``context`` of width ``context_width`` is given, which then supplies keys and values: the
    other stream in cross-attention, or the whole sequence where x holds only some of its tokens.
    ``head_width`` is ``width / num_heads`` unless it is set; ``ValueError`` where that is no whole number. ``rotary``
    are angles of the keys' positions, (n, k / 2), by which :func:`rotate` turns queries and keys;
    queries are the last positions.
    Source: Vaswani et al. 2017, section 3.2.2.
    """

    def __init__(
        self,
        width: int,
        num_heads: int,
        *,
        head_width: int | None = None,
        context_width: int | None = None,
        bias: bool = True,
        dropout: float = 0.0,
    ):
        super().__init__()
        if head_width is None and width % num_heads:
            raise ValueError(f"width {width} is no multiple of num_heads {num_heads}; change one or give head_width.")
        inner = num_heads * (head_width or width // num_heads)  # of all heads together
        self.num_heads = num_heads
        self.dropout = dropout
        self.query = nn.Linear(width, inner, bias=bias)
        self.key = nn.Linear(context_width or width, inner, bias=bias)
        self.value = nn.Linear(context_width or width, inner, bias=bias)
        self.output = nn.Linear(inner, width, bias=bias)
        self.recorder: Callable[[Tensor], None] | None = None  # set by record_attention
        self.cache: Callable[..., list[Tensor]] | None = None  # set by generation.cache while a text is written

    def forward(
        self,
        x: Float[Tensor, "b q d"],
        context: Float[Tensor, "b n context_width"] | None = None,
        mask: Bool[Tensor, "..."] | None = None,
        causal: bool = False,
        bias: Float[Tensor, "#b #h #q #n"] | None = None,
        rotary: Float[Tensor, "*#b n half"] | None = None,
    ) -> Float[Tensor, "b q d"]:
        context = x if context is None else context
        query = self.split_heads(self.query(x))
        key, value = self.keys_and_values(context) if self.cache is None else self.cache(self, context)
        if rotary is not None:
            query, key = rotate(query, rotary[..., -x.shape[1] :, :]), rotate(key, rotary)
        return self.output(self.heads(query, key, value, mask, causal, bias).transpose(1, 2).flatten(2))

    def split_heads(self, x: Float[Tensor, "b n inner"]) -> Float[Tensor, "b h n k"]:
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)

    def keys_and_values(self, context: Float[Tensor, "b n context_width"]) -> list[Float[Tensor, "b h more k"]]:
        """Keys and values of the context, split into heads; a subclass may add learned ones."""
        return [self.split_heads(part(context)) for part in (self.key, self.value)]

    def heads(
        self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, causal: bool, bias: Tensor | None
    ) -> Float[Tensor, "b h q k"]:
        """What each head returns: :func:`attention`, in training with some weights dropped."""
        dropout = self.dropout if self.training else 0.0
        if self.recorder is None:  # one kernel does it all, and need not store (b, h, q, n) weights
            attn_mask = allowed_keys(query, key, mask, causal)
            if bias is not None:  # one tensor, added to the scores; -inf is safe, the kernel gives empty rows zeros
                attn_mask = bias if attn_mask is None else bias.masked_fill(~attn_mask, -torch.inf)
            return F.scaled_dot_product_attention(query, key, value, attn_mask=attn_mask, dropout_p=dropout)
        weights = attention_weights(query, key, mask, causal, bias)
        self.recorder(weights)
        return F.dropout(weights, dropout) @ value
