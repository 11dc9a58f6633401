"""What a check expects of a result that is learned from: for every input that is learned, a gradient that is right."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from mmlearn.exercises.expectations import expect, expect_close, expect_tensor
from mmlearn.exercises.guard import parameters
from mmlearn.exercises.inputs import seeded

STAY = "stay in torch: no item(), detach(), numpy, no_grad() or torch.tensor(…) on the way."

NOT_FINITE = "a root or logarithm of 0, or an infinity, makes it NaN; nan_to_num mends the result, not the gradient."


def expect_trains(function: Callable, *learned: Any, like: Callable, fixed: tuple = (), **named: Any) -> None:
    """Fail unless the gradient of every input that is learned is there, finite, and the one that ``like`` has.

    Both functions are called with what is learned, a tensor or a list of tensors each, then with what is ``fixed``.
    A result of several parts is learned from by all of them.
    """
    given = [_leaves(value) for value in learned]
    leaves = [leaf for value in given for leaf in (value if isinstance(value, list) else [value])]
    names = _names(like, given)
    result, wanted = _parts(function(*given, *fixed, **named)), _parts(like(*given, *fixed, **named))
    expect(len(result) == len(wanted), "Its result must have as many parts as the library's.", "count what you return.")
    for part, right in zip(result, wanted):
        expect_tensor(part, right.shape)
    _expect_graph(result, leaves)
    towards = [torch.randn(part.shape, generator=seeded()) if part.ndim else torch.ones(()) for part in wanted]
    got, right = _gradients(result, towards, leaves), _gradients(wanted, towards, leaves)
    for name, one, other in zip(names, got, right):
        _expect_gradient(name, one, other)


def expect_sure_and_wrong(function: Callable, *learned: Any, like: Callable, fixed: tuple = ()) -> None:
    """Fail unless logits of hundreds that are wrong cost hundreds, as with ``like``, and are learned from."""
    got, wanted = (one(*learned, *fixed) for one in (function, like))
    hint = (
        "cross_entropy, log_softmax and logsumexp take logits of any size; a clamp, or a small number inside the "
        "logarithm, limits what a mistake costs."
    )
    expect_close(got, wanted, "A wrong answer so sure must cost hundreds.", hint, tolerance=1e-4)
    expect_trains(function, *learned, like=like, fixed=fixed)


def expect_finite_gradient(function: Callable, *learned: Tensor, fixed: tuple = ()) -> None:
    """Fail where a gradient is NaN or infinite, whatever it is otherwise: for inputs where two right answers differ."""
    leaves = [_leaves(value) for value in learned]
    parts = _parts(function(*leaves, *fixed))
    expect(all(part.requires_grad for part in parts), "A gradient must flow from the result to its inputs.", STAY)
    gradients = torch.autograd.grad(sum(part.sum() for part in parts), leaves, allow_unused=True)
    expect(all(one is None or one.isfinite().all() for one in gradients), "Its gradient must be finite.", NOT_FINITE)


def expect_constant(got: Tensor) -> None:
    """Fail where a result has a gradient because an input has one."""
    hint = "@torch.no_grad() above the function, or detach() what is learned."
    expect(not got.requires_grad, "It must have no gradient: it counts as a constant.", hint)


def expect_zero(function: Callable, learned: Tensor, *fixed: Any, **named: Any) -> None:
    """Fail unless the loss is 0 and has a gradient nevertheless, of 0, where nothing is there to be learned."""
    leaf = learned.clone().requires_grad_()
    got = function(leaf, *fixed, **named)
    expect_close(got, 0.0, "The loss must be 0.", "a mean over nothing is NaN: divide the sum by at least 1.")
    hint = "the sum over nothing is 0 and has a graph; a number without one stops backward(), and with it other losses."
    expect(got.requires_grad, "The 0 must have a graph, because backward() is called on it.", hint)
    (gradient,) = torch.autograd.grad(got, leaf, allow_unused=True)
    nothing = gradient is None or not gradient.any()  # NaN is something
    expect(nothing, "The gradient of this 0 must be 0.", "nan_to_num mends the result, not the gradient: mask first.")


def _leaves(value: Any) -> Any:
    if isinstance(value, list):
        return [_leaves(one) for one in value]
    return value.detach().clone().requires_grad_()


def _names(like: Callable, given: list) -> list[str]:
    """What the inputs that are learned are called."""
    words = [*parameters(like), *(f"input {position + 1}" for position in range(len(given)))][: len(given)]
    pairs = zip(words, given)
    return [
        name
        for word, value in pairs
        for name in ([f"{word}[{i}]" for i in range(len(value))] if isinstance(value, list) else [word])
    ]


def _parts(result: Any) -> list[Tensor]:
    """The parts of a result that can be learned from."""
    parts = list(result) if isinstance(result, tuple) else [result]
    return [part for part in parts if not isinstance(part, Tensor) or part.is_floating_point()]


def _expect_graph(result: list[Tensor], leaves: list[Tensor]) -> None:
    made = [part for part in result if part.is_leaf and part.requires_grad and not any(part is leaf for leaf in leaves)]
    new = "a copy" if made and made[0].ndim else "a new number"
    expect(
        not made,
        f"Its result must be made of its inputs; this is {new}, which no input can learn from.",
        "torch.tensor(…, requires_grad=True) begins a graph of its own: return what you computed as it is.",
    )
    some = all(part.requires_grad for part in result)
    expect(some, "A gradient must flow from the result to its inputs, or nothing is learned.", STAY)


def _gradients(parts: list[Tensor], towards: list[Tensor], leaves: list[Tensor]) -> tuple[Tensor | None, ...]:
    total = sum((part * way).sum() for part, way in zip(parts, towards))
    return torch.autograd.grad(total, leaves, allow_unused=True)


def _expect_gradient(name: str, got: Tensor | None, wanted: Tensor | None) -> None:
    wanted = torch.zeros(()) if wanted is None else wanted
    largest = float(wanted.abs().max()) if wanted.numel() else 0.0
    missing = got is None or not got.any()
    expect(
        not missing or largest < 1e-6,
        f"A gradient must flow to every input that is learned; none comes to {name}.",
        f"{name} is learned too; {STAY}",
    )
    if got is None:
        return
    expect(got.isfinite().all(), f"Its gradient must be finite; that of {name} is not.", NOT_FINITE)
    size = max(largest, 1e-3)
    same = torch.allclose(got / size, wanted.expand_as(got) / size, atol=1e-3, rtol=1e-3)
    hint = "nothing on the way may be a constant: no detach() of a part, no clamp that cuts a logit off."
    expect(same, f"Its gradient must be right as well as its value; that of {name} is not.", hint)
