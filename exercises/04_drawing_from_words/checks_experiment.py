"""An experiment of this exercise: what happens, and why. The cell in the notebook is where it is made."""

from mmlearn.exercises import expect_observed, experiment


@experiment("they come to rest", "they stay as far away", "they move away")
def check_both_at_once(observed: list[float]) -> str:
    """At once, each answers to where the other was: every step leads outwards, by a factor of √(1 + 0.1²)."""
    expect_observed(observed, [12.0322], [1.0118])
    return "they move away"
