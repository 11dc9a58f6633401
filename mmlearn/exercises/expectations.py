"""What a check expects of a result. Each failure names the property that does not hold, and gives a hint."""

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from numbers import Real
from typing import Any

import torch
from torch import Tensor

NOT_SOLVED = "not solved yet"


class CheckFailed(Exception):
    """A student's function lacks a property. The message names it and gives a hint."""

    def __init__(self, property: str, hint: str = "", *, answered: bool = True):
        super().__init__(f"{property} Hint: {hint}" if hint else property)
        self.property, self.hint = property, hint
        self.answered = answered  # not so where the function calls, or is, a stub
        self.by_hand: CheckFailed | None = None  # what the statement's own example said before

    def tell(self, name: str) -> None:
        """Print it, as a notebook shows it under a task of this name."""
        print(f"{'✘' if self.answered else '…'}  {name}: {self.property}")
        if self.hint:
            print(f"   Hint: {self.hint}")


def expect(holds: bool | Tensor, property: str, hint: str) -> None:
    """Fail with this property and hint unless it holds."""
    if not bool(holds):
        raise CheckFailed(property, hint)


@contextmanager
def case(words: str) -> Iterator[None]:
    """Within this block a failure is told with these words before it, such as "With a mask"."""
    try:
        yield
    except CheckFailed as failure:
        if not failure.answered:
            raise
        raise CheckFailed(f"{words}: {failure.property}", failure.hint) from failure


# What comes back.


def expect_tensor(got: Any, shape: tuple[int, ...] | None = None, *, finite: bool = True) -> Tensor:
    """Hand back ``got`` if it is a tensor, of this shape, and finite unless that is left to later; otherwise fail."""
    several = isinstance(got, list | tuple)
    hint = "torch.stack, torch.cat or torch.tensor makes one of them." if several else "return the tensor."
    expect(isinstance(got, Tensor), f"It must return a tensor, not a {type(got).__name__}.", hint)
    expect(
        shape is None or got.shape == shape,
        f"Its result must have shape {shape if shape is None else tuple(shape)}; this one has {tuple(got.shape)}.",
        "write the shape beside each line and see where it goes wrong.",
    )
    expect(
        not finite or got.isfinite().all(),
        "Its result must be finite; this one holds NaN or infinity.",
        "somewhere 0 is divided by 0, a logarithm meets 0, or exp grows too large.",
    )
    return got


def expect_boolean(got: Any, shape: tuple[int, ...]) -> Tensor:
    """Hand back ``got`` if it is a boolean tensor of this shape."""
    got = expect_tensor(got, shape)
    expect(got.dtype == torch.bool, f"It must be boolean; this is {got.dtype}.", "a comparison gives booleans.")
    return got


def expect_whole(got: Any, shape: tuple[int, ...], hint: str = "int64: argmax, arange and // give that.") -> Tensor:
    """Hand back ``got`` if it is a tensor of whole numbers, of this shape."""
    got = expect_tensor(got, shape)
    whole = not got.is_floating_point() and got.dtype != torch.bool
    expect(whole, f"It must hold whole numbers; this is {got.dtype}.", hint)
    return got


def expect_parts(got: Any, *names: str) -> tuple:
    """Hand back ``got`` if it is a tuple with a part for each of these names."""
    hint = f"return {', '.join(names)}"
    wanted = f"It must return {', '.join(names[:-1])} and {names[-1]}"
    brackets = f"{hint}: commas alone make a tuple, square brackets make a list."
    expect(not isinstance(got, list), f"{wanted}, as a tuple; this is a list.", brackets)
    expect(isinstance(got, tuple), f"{wanted}; this is a {type(got).__name__}.", hint)
    expect(len(got) == len(names), f"{wanted}; these are {len(got)}.", hint)
    return got


def near(got: Tensor, wanted: Tensor | float, tolerance: float = 1e-5) -> bool:
    """Equal to ``tolerance``, and never so where ``got`` is NaN: to recognise a mistake by what it gives."""
    wanted = torch.as_tensor(wanted, dtype=got.dtype).expand_as(got)
    return torch.allclose(got, wanted, atol=tolerance, rtol=tolerance)


def expect_close(got: Any, wanted: Tensor | float, property: str, hint: str, *, tolerance: float = 1e-5) -> None:
    """Fail unless ``got`` is a tensor like ``wanted``: same shape, () for a number, finite, equal to ``tolerance``."""
    wanted = torch.as_tensor(wanted)
    wanted = wanted if wanted.is_floating_point() else wanted.float()
    got = expect_tensor(got, wanted.shape).to(wanted.dtype)
    numbers = f" Expected {wanted:.4g}, got {got:.4g}." if wanted.ndim == 0 else ""
    expect(torch.allclose(got, wanted, atol=tolerance, rtol=tolerance), property + numbers, hint)


def expect_one_number(got: Any) -> float:
    """Hand back ``got`` as a plain number if it is one finite number, plain or in a tensor."""
    shape = f" of shape {tuple(got.shape)}" if isinstance(got, Tensor) else ""
    expect(
        isinstance(got, Real) or (isinstance(got, Tensor) and got.ndim == 0),
        f"It must return one number, not a {type(got).__name__}{shape}.",
        "take the mean over all rows at the end.",
    )
    expect(
        math.isfinite(got),
        f"Its result must be finite; this one is {float(got)}.",
        "somewhere 0 is divided by 0, or a logarithm meets 0.",
    )
    return float(got)


def expect_number(got: Any, wanted: Real, property: str, hint: str, *, tolerance: float = 1e-5) -> None:
    """Fail unless ``got`` is one number, plain or in a tensor, equal to ``wanted`` to ``tolerance``."""
    got = expect_one_number(got)
    expect(
        math.isclose(got, wanted, abs_tol=tolerance, rel_tol=tolerance),
        f"{property} Expected {wanted:.4g}, got {got:.4g}.",
        hint,
    )


def expect_seen(got: Tensor, wanted: Tensor, real: Tensor, property: str, hint: str) -> None:
    """Fail unless a mask (b, n, n) shows each ``real`` token, (b, n), what it must see. Rows of padding may be any."""
    expect(torch.equal(got & real[:, :, None], wanted & real[:, :, None]), property, hint)


def expect_not(
    got: Tensor, mistaken: Tensor | float | tuple, property: str, hint: str, *, tolerance: float = 1e-5
) -> None:
    """Fail where ``got`` is what a known mistake gives, or one of several mistakes of a tuple."""
    several = mistaken if isinstance(mistaken, tuple) else (mistaken,)
    expect(not any(near(got, one, tolerance) for one in several), property, hint)


def expect_log(got: Any, count: int, symbol: str, hint: str) -> None:
    """Fail unless a loss that knows nothing of ``count`` choices costs the logarithm of their number."""
    property = f"Logits that know nothing must cost ln {symbol} = ln {count}."
    expect_close(got, math.log(count), property, hint)


# What the function is like.


def over(draws: Sequence[tuple], loss: Callable) -> Tensor:
    """The loss of each of several draws, so that no wrong one is right by luck."""
    return torch.stack([expect_tensor(loss(*draw), ()) for draw in draws])


def agreement(function: Callable, reference: Callable, *, tolerance: float = 1e-5) -> Callable[..., None]:
    """What compares the student's function with the library's: ``agrees(inputs, property, hint, **named)``.

    ``inputs`` is a tuple, for both functions; or a list of tuples, whose results are losses, all of them compared.
    """

    return functools.partial(_expect_agreement, function, reference, tolerance)


def _expect_agreement(
    function: Callable,
    reference: Callable,
    tolerance: float,
    inputs: tuple | list[tuple],
    property: str,
    hint: str,
    **named: Any,
) -> None:
    several = isinstance(inputs, list)
    got, wanted = (
        over(inputs, functools.partial(each, **named)) if several else each(*inputs, **named)
        for each in (function, reference)
    )
    compare = expect_close if isinstance(wanted, Tensor) else expect_number
    compare(got, wanted, property, hint, tolerance=tolerance)
