"""An experiment of this exercise: what happens, and why. The cell in the notebook is where it is made."""

from mmlearn.exercises import expect, experiment


@experiment("all eight", "about five", "one or two")
def check_left_alone(observed: list[float]) -> str:
    """An expert that gets nothing learns nothing, so that it is not chosen later either: some are left without work.

    The others have to serve several kinds. The balance loss makes an expert cost more the more tokens it gets.
    """
    expect(len(observed) == 2, "observed must hold the weight and the number of experts.", "keep the last lines.")
    weight, used = observed
    expect(weight == 0, "These are the numbers with the balance loss.", "change the marked line to weight = 0.0.")
    return "all eight" if used == 8 else "about five" if used >= 4 else "one or two"
