"""An experiment of this exercise: what happens, and why. The cell in the notebook is where it is made."""

from mmlearn.exercises import expect_observed, experiment


@experiment("0", "ln 2 / 2", "ln 2")
def check_votes_for_xor(observed: list[float]) -> str:
    """A fourth pair that is surely wrong costs more than three right ones save, so that the best votes add up to 0.

    The loss is convex in votes, and at 0 the four pairs pull each vote both ways alike.
    """
    expect_observed(observed, [0.7], [0.0])
    return "ln 2"
