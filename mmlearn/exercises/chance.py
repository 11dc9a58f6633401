"""What a check expects of a result that is drawn by chance: from the generator that is given, anew each time."""

import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor

from mmlearn.exercises.expectations import expect
from mmlearn.exercises.inputs import new_seed, seeded

HAND_ON = "hand generator to every draw, torch.rand(…, generator=generator), and make none of your own."


def expect_share(hits: Tensor, share: float, property: str, hint: str) -> None:
    """Fail where the share of hits is more than six standard deviations off, which chance does once in 10⁸ times."""
    got, error = hits.float().mean().item(), 6 * math.sqrt(share * (1 - share) / hits.numel())
    expect(abs(got - share) <= error, f"{property} Expected about {share:.1%}, got {got:.1%}.", hint)


def expect_seeded(draw: Callable[[Generator], Tensor | tuple[Tensor, ...]]) -> None:
    """Fail unless all chance comes from the generator, and goes on with it.

    The same seed gives the same result and others give another one; so do two calls on one generator.
    """
    seed = new_seed()

    def same(one: Generator, other: Generator) -> bool:
        pair = draw(one), draw(other)
        one, two = (drawn if isinstance(drawn, tuple) else (drawn,) for drawn in pair)
        return all(map(torch.equal, one, two))

    constant = "The same seed must give the same result: all chance comes from generator."
    expect(same(seeded(seed), seeded(seed)), constant, HAND_ON)
    others = all(same(seeded(seed), seeded(seed + i)) for i in range(1, 9))  # of few results one other may be the same
    expect(not others, "Another seed must give another result.", HAND_ON)
    again = seeded(seed)
    expect(
        not all(same(again, again) for _ in range(8)),
        "Two calls on one generator must draw differently: it goes on where it stood.",
        "draw from generator itself; one made of generator.initial_seed() begins anew with each call.",
    )


def expect_rows_differ(draw: Callable[[Generator], Tensor], what: str = "row") -> None:
    """Fail where rows that were given the same always draw the same as each other, though not with each call."""
    drawn = torch.stack([draw(seeded()) for _ in range(8)])
    constant = (drawn == drawn[:1]).all()  # no chance at all, which is told elsewhere
    expect(
        constant or (drawn != drawn[:, :1]).any(),
        f"Each {what} must draw for itself; here all draw the same.",
        "random numbers of shape (b, …), one for each; a number that is expanded stays one number.",
    )
