"""An experiment of this exercise: what happens, and why. The cell in the notebook is where it is made."""

from mmlearn.exercises import expect_observed, experiment


@experiment("fall to 0", "stay as it was", "rise to ln 8")
def check_not_shifted(observed: list[float]) -> str:
    """Logits that are asked for the token that was just read need only copy it. The loss says that all is well, and
    what is written repeats its first token, because nobody asked what comes next."""
    expect_observed(observed, [1.0, 1.0], [0.0, 0.0])
    return "fall to 0"
