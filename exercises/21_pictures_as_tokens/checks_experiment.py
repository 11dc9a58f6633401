"""An experiment of this exercise: what happens, and why. The cell in the notebook is where it is made."""

from mmlearn.exercises import expect, experiment


@experiment("all of them", "about half", "very few")
def check_a_codebook_far_away(observed: list[int]) -> str:
    """An entry that is nearest to nothing never moves: those that lie far away stay dead, however long one trains.

    Revival puts vectors of the batch in their place, and then nearly all are in use.
    """
    expect(len(observed) == 2, "Two numbers must be observed: without revival, and with it.", "keep the last lines.")
    without, revived = observed
    expect(
        revived > 24,
        "With revival most of 32 entries must be in use.",
        "change the marked line to restart_threshold=0.3.",
    )
    expect(without < revived, "The first number must be the one without revival.", "restart_threshold=0.0 at first.")
    return "very few" if without <= 8 else "about half" if without < 24 else "all of them"
