"""An experiment of this exercise: what happens, and why. The cell in the notebook is where it is made."""

from mmlearn.exercises import expect_observed, experiment


@experiment("0", "1/2", "1")
def check_second_look(observed: list[float]) -> str:
    """What is found is added, so that the question is still in the sum, and matches its own position as well as before.

    Half of the second look goes back to where the first one was. Learned weights of each hop can tell both apart.
    """
    expect_observed(observed, [0.5], [1.0])
    return "1/2"
