"""Training in less memory: some things are computed twice, so that they need not be kept. Gradients are the same.

:func:`recompute_blocks` keeps of each transformer block only what goes in. :func:`encode_in_chunks` keeps of each tower
only what comes out. Nothing else knows of this file but training and plans.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mmlearn.layers import TransformerBlock


@contextmanager
def around_blocks(model: nn.Module, call: Callable) -> Iterator[nn.Module]:
    """Within this block each transformer block is called as ``call(forward, x, …)``. Yields the model."""
    blocks: list[Any] = [module for module in model.modules() if isinstance(module, TransformerBlock)]
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
    if embedding.grad is None:
        raise ValueError("The loss does not depend on the embeddings.")
    for chunk, gradient in zip(x.split(size), embedding.grad.split(size)):
        encode(chunk).backward(gradient)
    return value.detach()


@contextmanager
def save_memory(system: nn.Module, recompute: bool, chunk: int | None) -> Iterator[nn.Module]:
    """:func:`recompute_blocks` and :func:`encode_in_chunks`, those that are asked for. Yields the system."""
    blocks = recompute_blocks(system) if recompute else nullcontext()
    with blocks, nullcontext() if chunk is None else encode_in_chunks(system, chunk):
        yield system
