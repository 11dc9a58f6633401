"""An experiment of this exercise: what happens, and why. The cell in the notebook is where it is made."""

import math

from mmlearn.exercises import expect_observed, experiment


@experiment("rise", "fall", "stay")
def check_more_candidates(observed: list[float]) -> str:
    """Above and below the line there are five times as many: it stays ln(2b - 1), the cost of knowing nothing."""
    expect_observed(observed, [5, math.log(15)], [1, math.log(15)])
    return "stay"
