"""An experiment of this exercise: what happens, and why. The cell in the notebook is where it is made."""

from mmlearn.exercises import expect, experiment


@experiment("nearly all", "about half", "next to none")
def check_one_mean_for_all(observed: list[float]) -> str:
    """The two styles are as far apart as two things are, so that pictures of one style look most alike.

    One mean for all takes away what both styles share, and leaves how they differ. Each style has to lose its own.
    """
    expect(len(observed) == 2, "observed must hold own_mean and the share that is found.", "keep the last lines.")
    own_mean, found = observed
    expect(not own_mean, "These are the numbers with a mean for each style.", "change the marked line to False.")
    return "nearly all" if found > 0.8 else "about half" if found > 0.3 else "next to none"
