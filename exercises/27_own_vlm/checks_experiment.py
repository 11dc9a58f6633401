"""An experiment of this exercise: what happens, and why. The cell in the notebook is where it is made."""

from mmlearn.exercises import expect_observed, experiment


@experiment("hardly any", "about half", "nearly all", minutes=10)
def check_random_language_model(observed: list[float]) -> str:
    """Twelve answers need no language: frozen random layers pass on what is in the picture, and the projector learns
    whatever makes them write the right token. Words are read by the trained one alone. So a score for naming says
    little about the language model: ask it something that it has to know. In lesson 27 random blocks name nothing after
    forty steps: there answers are sentences about 64 nouns, through thirty blocks.
    """
    expect_observed(observed, [1.0, 0.0], [1.0, 1.0])
    return "nearly all"
