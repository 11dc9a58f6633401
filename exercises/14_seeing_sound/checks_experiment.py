"""An experiment of this exercise: what happens, and why. The cell in the notebook is where it is made."""

import math

from mmlearn.exercises import expect_observed, experiment


@experiment("2 dB", "3 dB", "6 dB")
def check_half_the_noise(observed: list[float]) -> str:
    """Half of the amplitude is a quarter of the power, and 10 log10 4 is 6; a tenth of the amplitude is 20 dB."""
    expect_observed(observed, [10 * math.log10(4)], [0.0])
    return "6 dB"
