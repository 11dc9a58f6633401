"""The same numbers sooner, or in less memory. Nothing else knows of this file but training, evaluation and plans.

:func:`speed_up` computes no more of the last block than is read, leaves rows without a gradient out of the backward
pass, and attends by PyTorch's fused kernel where that is faster; training and evaluation run within it.
:func:`save_memory` computes some things twice to keep less.

In the last block the tokens that are read attend to all tokens; the others need not attend to any. Of three blocks this
leaves out a quarter of the work. Where the whole block is computed, tokens that no head reads have no gradient; nor has
padding, to which nothing attends and which no loss asks for. PyTorch's kernel need not store the weights of attention,
which grow with the square of the length; on a CPU it does where some are dropped. On a GPU it is always the faster one,
on a CPU for long sequences, and for one query alone, as while a text is written.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mmlearn.layers import Attention, Transformer, TransformerBlock, select_tokens
from mmlearn.layers.attention import allowed_keys
from mmlearn.layers.language import MaskedLanguageHead
from mmlearn.values import may_look

# Weights of a head, on one thread and on several: from here on the fused kernel is faster on a CPU; for one query it is
# so at once. Below, several threads share plain products better.
LONG = 32 * 32, 128 * 128
# Rows without a gradient are left out where they are at least this share of all, of products with matrices at least so
# large: there it saves more than it takes to find such rows and to copy the others.
LARGE, SHARE = 192, 1 / 12


class FastAttention(Attention):
    """An :class:`~mmlearn.layers.Attention` by the fused kernel, unless its weights are recorded."""

    def heads(
        self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, causal: bool, bias: Tensor | None
    ) -> Float[Tensor, "b h q k"]:
        """As the plain attention's."""
        writes = query.shape[2] == 1 and not torch.is_grad_enabled()  # one token after the other
        short = query.shape[2] * key.shape[2] < LONG[torch.get_num_threads() > 1] and not writes
        learns = bias is not None and bias.requires_grad  # the CPU's kernel knows no gradient of a bias
        if self.recorder is not None or (learns and not query.is_cuda):
            return super().heads(query, key, value, mask, causal, bias)
        allowed = allowed_keys(query, key, mask, causal)
        if short and not query.is_cuda:
            if allowed is None or not allowed.any(-1).all():  # a query without any key has to get zeros
                return super().heads(query, key, value, mask, causal, bias)
            # A low number added: bit for bit the same weights in two passes less forward, and two less backward.
            low = torch.zeros_like(allowed, dtype=query.dtype).masked_fill(~allowed, torch.finfo(query.dtype).min)
            low = low[(None,) * (4 - low.ndim)]
            return super().heads(query, key, value, None, False, low if bias is None else bias + low)
        if bias is not None:
            allowed = bias if allowed is None else bias.masked_fill(~allowed, -torch.inf)
        dropout = self.dropout if self.training else 0.0
        return F.scaled_dot_product_attention(query, key, value, attn_mask=allowed, dropout_p=dropout)


class FastTransformer(Transformer):
    """A :class:`~mmlearn.layers.Transformer` whose ``read`` computes no more of the last block than is read.

    Where that is not possible (masks by query, biases, rotary positions), or something watches the last block (recorded
    attention, hooks), it computes everything.
    """

    def read(
        self,
        x: Float[Tensor, "b q d"],
        position: int | Int[Tensor, "b *r"],
        mask: Bool[Tensor, "..."] | None = None,
        causal: bool = False,
        context: Float[Tensor, "b n context_width"] | None = None,
        context_mask: Bool[Tensor, "..."] | None = None,
        bias: Float[Tensor, "#b #h #q #q"] | None = None,
        rotary: Float[Tensor, "*#b q half"] | None = None,
    ) -> Float[Tensor, "b *r d"]:
        """As the plain transformer's."""
        last = self.blocks[-1]
        by_query = (
            bias is not None or rotary is not None or any(m is not None and m.ndim > 2 for m in (mask, context_mask))
        )
        if by_query or _is_watched(last) or (context is not None and last.cross_attention is None):
            return super().read(x, position, mask, causal, context, context_mask, bias, rotary)
        for block in self.blocks[:-1]:
            x = block(x, mask, causal, context if block.cross_attention is not None else None, context_mask)
        b, q, _ = x.shape
        if isinstance(position, int):
            position = torch.full((b,), position % q, device=x.device)
        places = position.view(b, -1)  # (b, r)
        seen = mask
        if causal:
            past = torch.arange(q, device=x.device) <= places[..., None]  # (b, r, q)
            seen = past if mask is None else past & mask[:, None]
        others = last.attention_norm(x) if last.norm_first else x
        x = select_tokens(x, places)
        x = last.residual(x, last.attention_norm, lambda x: last.attention(x, others, seen))
        if context is not None:
            look = lambda x: last.cross_attention(x, context, context_mask)  # noqa: E731
            x = last.residual(x, last.cross_attention_norm, look)
        return last.residual(x, last.mlp_norm, last.mlp).view(*position.shape, -1)


def _is_watched(block: TransformerBlock) -> bool:
    """Whether someone wants to see all that this block computes."""
    return any(
        module._forward_hooks or module._forward_pre_hooks or (isinstance(module, Attention) and module.recorder)
        for module in block.modules()
    )


class FastLinear(nn.Linear):
    """A linear layer that leaves rows without a gradient out of the backward pass, as :func:`fast_linear` does."""

    def forward(self, x: Float[Tensor, "*n d"]) -> Float[Tensor, "*n out"]:
        """As the plain layer's."""
        return fast_linear(x, self.weight, self.bias)


class FastLanguageHead(MaskedLanguageHead):
    """A head that leaves them out for the table of tokens too, often the largest matrix of a system."""

    def forward(self, x: Float[Tensor, "*n d"], token_table: Float[Tensor, "v e"]) -> Float[Tensor, "*n v"]:
        """As the plain head's."""
        return fast_linear(self.norm(self.activation(self.dense(x))), token_table, self.bias)


def fast_linear(
    x: Float[Tensor, "*n d"], weight: Float[Tensor, "out d"], bias: Float[Tensor, "out"] | None
) -> Float[Tensor, "*n out"]:
    """``F.linear``; in the backward pass rows without a gradient are left out, where that saves time.

    On a GPU, in half precision by autocast and in a compiled graph none is: to look for such rows would cost more.
    """
    learns = torch.is_grad_enabled() and not torch.is_autocast_enabled(x.device.type)
    if not learns or min(weight.shape) < LARGE or not may_look(x):
        return F.linear(x, weight, bias)
    rows = x.reshape(-1, x.shape[-1])
    return _LinearByRows.apply(rows, weight, bias).view(*x.shape[:-1], len(weight))


class _LinearByRows(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Float[Tensor, "n d"], weight: Float[Tensor, "out d"], bias: Float[Tensor, "out"] | None
    ) -> Float[Tensor, "n out"]:
        of_x, of_weight, _ = ctx.needs_input_grad
        ctx.save_for_backward(x if of_weight else None, weight if of_x else None)
        return F.linear(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, gradient: Float[Tensor, "n out"]) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        of_x, of_weight, of_bias = ctx.needs_input_grad
        n, rows = len(gradient), _rows_with_gradient(gradient)
        if rows is not None:
            gradient = gradient.index_select(0, rows)
            x = None if x is None else x.index_select(0, rows)
        to_x = gradient @ weight if of_x else None
        if of_x and rows is not None:
            to_x = to_x.new_zeros(n, to_x.shape[1]).index_copy_(0, rows, to_x)
        return to_x, gradient.T @ x if of_weight else None, gradient.sum(0) if of_bias else None


def _rows_with_gradient(gradient: Float[Tensor, "n out"]) -> Int[Tensor, "some"] | None:
    """Which rows are not all 0. None stands for all: few are empty, or a gradient of the gradient is wanted."""
    if torch.is_grad_enabled():
        return None
    n = len(gradient)
    maybe = (gradient[:, :4] == 0).all(1).nonzero()[:, 0]  # most rows that begin with four zeros are empty
    if len(maybe) < SHARE * n:
        return None
    empty = maybe[gradient.index_select(0, maybe).abs_().amax(1) == 0]
    if len(empty) < SHARE * n:
        return None
    return torch.ones(n, dtype=torch.bool).index_fill_(0, empty, False).nonzero()[:, 0]


FAST = {
    Transformer: FastTransformer,
    Attention: FastAttention,
    nn.Linear: FastLinear,
    MaskedLanguageHead: FastLanguageHead,
}


@contextmanager
def speed_up(model: nn.Module) -> Iterator[nn.Module]:
    """Within this block the modules of ``model`` that are in FAST are fast ones, by the same weights.

    Outputs and gradients are equal to 1e-5; with dropout other numbers are drawn. Subclasses and small linear layers
    stay as they are. Yields the model.
    """
    plain = [(module, type(module)) for module in model.modules() if type(module) in FAST and not _is_small(module)]
    for module, kind in plain:
        module.__class__ = FAST[kind]
    try:
        yield model
    finally:
        for module, kind in plain:
            module.__class__ = kind


def _is_small(module: nn.Module) -> bool:
    return type(module) is nn.Linear and min(module.weight.shape) < LARGE


@contextmanager
def around_blocks(model: nn.Module, call: Callable) -> Iterator[nn.Module]:
    """Within this block each transformer block is called as ``call(forward, x, …)``. Yields the model.

    What :func:`speed_up` computes of a last block is no call of it.
    """
    blocks = [module for module in model.modules() if isinstance(module, TransformerBlock)]
    for block in blocks:
        block.forward = partial(call, block.forward)
    try:
        yield model
    finally:
        for block in blocks:
            del block.forward


def recompute_blocks(model: nn.Module) -> AbstractContextManager[nn.Module]:
    """Within this block only the inputs of transformer blocks are kept for the backward pass, which computes the rest.

    Outputs and gradients are the same, with dropout too. A step computes a third more: the forward pass of each block
    a second time. Yields the model.
    Source: Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost".
    """
    return around_blocks(model, partial(checkpoint, use_reentrant=False))


@contextmanager
def encode_in_chunks(system: nn.Module, size: int) -> Iterator[nn.Module]:
    """Within this block towers read ``size`` rows at a time, and only their embeddings are kept for the backward pass.

    Gradients are those of the whole batch, which a contrastive loss needs, in the memory of a chunk: each chunk is
    encoded once more when its gradient is known. Towers are the ``encode_…`` methods of a system. Yields the system.
    ``ValueError`` for a size below 1, for a system that normalises over the batch, and for a loss that asks no tower or
    hands one a generator, from which chunks would draw something else.
    Source: Gao et al. 2021, "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup" (GradCache).
    """
    if size < 1:
        raise ValueError(f"A chunk has at least one row, got {size}.")
    if any(module.training and hasattr(module, "running_mean") for module in system.modules()):
        raise ValueError(f"{type(system).__name__} normalises over the batch, and a chunk is another batch.")
    asked: list[Callable] = []

    def checked(loss: Callable, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        asked.clear()
        losses = loss(batch)
        if not asked:
            raise ValueError(f"The loss of {type(system).__name__} asks no tower for embeddings: leave chunks out.")
        return losses

    def chunked(encode: Callable, *inputs: Any) -> Any:
        if any(isinstance(x, torch.Generator) for x in inputs):
            raise ValueError(f"{type(system).__name__} draws within its towers, and chunks would draw something else.")
        asked.append(encode)
        rows = len(inputs[0])
        parts = [x.split(size) if isinstance(x, Tensor) else [x] * -(-rows // size) for x in inputs]
        outputs = [checkpoint(encode, *chunk, use_reentrant=False) for chunk in zip(*parts)]
        if isinstance(outputs[0], Tensor):
            return torch.cat(outputs)
        return tuple(torch.cat(each) if isinstance(each[0], Tensor) else each[0] for each in zip(*outputs))

    instead = {name: chunked for name in dir(type(system)) if name.startswith("encode_")} | {"loss": checked}
    for name, method in instead.items():
        setattr(system, name, partial(method, getattr(system, name)))
    try:
        yield system
    finally:
        for name in instead:
            delattr(system, name)


def backward_in_chunks(
    encode: Callable[[Tensor], Tensor], loss: Callable[[Tensor], Tensor], x: Shaped[Tensor, "b *rest"], size: int
) -> Float[Tensor, ""]:
    """What :func:`encode_in_chunks` does, step by step for one encoder: ``loss(encode(x)).backward()`` in less memory.

    All rows are encoded ``size`` at a time, and only embeddings are kept; the loss of all embeddings gives the gradient
    of each; every chunk is encoded once more and goes backward from its rows of that gradient. Gradients are added to
    those of the encoder's parameters, and of what else the loss learns. Returns the loss, which has no graph.
    ``encode`` must give the same both times. Source: as there.
    """
    with torch.no_grad():
        embedding = torch.cat([encode(chunk) for chunk in x.split(size)])
    embedding.requires_grad_()
    value = loss(embedding)
    value.backward()
    for chunk, gradient in zip(x.split(size), embedding.grad.split(size)):
        encode(chunk).backward(gradient)
    return value.detach()


@contextmanager
def save_memory(system: nn.Module, recompute: bool, chunk: int | None) -> Iterator[nn.Module]:
    """:func:`recompute_blocks` and :func:`encode_in_chunks`, those that are asked for. Yields the system."""
    blocks = recompute_blocks(system) if recompute else nullcontext()
    with blocks, nullcontext() if chunk is None else encode_in_chunks(system, chunk):
        yield system
