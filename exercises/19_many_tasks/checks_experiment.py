"""An experiment of this exercise: what happens, and why. The cell in the notebook is where it is made."""

from mmlearn.exercises import expect, experiment


@experiment("on both objects", "both on one object", "both half-way between them")
def check_without_matching(observed: list[float]) -> str:
    """A list has an order and a set has none: each guess is asked now for one object and now for the other.

    What costs least then is their mean. Matching asks each guess for the object that it is near already, so that the
    two part ways.
    """
    expect(len(observed) == 3, "observed must hold what was matched, and two distances.", "keep the last lines.")
    matched, off, apart = observed
    expect(not matched, "These are the numbers with matching.", "change the marked line to matched = False.")
    return "on both objects" if off < 0.1 else "both on one object" if apart > 0.1 else "both half-way between them"
