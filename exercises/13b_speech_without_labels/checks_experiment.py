"""An experiment of this exercise: what happens, and why. The cell in the notebook is where it is made."""

import math

from mmlearn.exercises import expect_observed, experiment


@experiment("lower", "higher", "the same")
def check_a_higher_temperature(observed: list[float]) -> str:
    """A cosine is at most 1, and e¹ cannot beat 100 distractors with e⁰: the temperature lets the model be sure."""
    wanted, unchanged = (math.log(1 + 100 * math.exp(-0.9 / temperature)) for temperature in (1, 0.1))
    expect_observed(observed, [wanted], [unchanged])
    return "higher"
