"""An experiment of this exercise: what happens, and why. The cell in the notebook is where it is made."""

import math

from mmlearn.exercises import expect_observed, experiment


@experiment("shorter", "longer", "as long")
def check_no_length_penalty(observed: list[float]) -> str:
    """Each further token costs something, so of bare sums the shortest wins; the mean asks what one token costs."""
    wanted, unchanged = [1, math.log(0.3)], [5, 5 * math.log(0.7)]
    expect_observed(observed, wanted, unchanged)
    return "shorter"
