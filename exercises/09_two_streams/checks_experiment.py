"""An experiment of this exercise: what happens, and why. The cell in the notebook is where it is made."""

from mmlearn.exercises import expect_observed, experiment


@experiment("1/2", "1/3", "1/4")
def check_half_a_box_off(observed: list[float]) -> str:
    """Half of each is shared, and together they cover one and a half: ⅓, so that a third of the width is the most."""
    expect_observed(observed, [1 / 3], [1.0])
    return "1/3"
