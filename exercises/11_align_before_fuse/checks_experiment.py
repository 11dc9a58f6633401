"""An experiment of this exercise: what happens, and why. The cell in the notebook is where it is made."""

from mmlearn.exercises import expect_observed, experiment


@experiment("0.37", "0.63", "0.99")
def check_a_slower_teacher(observed: list[float]) -> str:
    """Of the start mˢ is left, which is 1/e = 0.37 after 1 / (1 - m) = 200 steps: a slow teacher begins badly."""
    expect_observed(observed, [1 - 0.995**200], [1 - 0.9**200])
    return "0.63"
