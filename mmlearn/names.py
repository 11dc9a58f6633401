"""What to say of a name that is unknown."""

from collections.abc import Iterable
from difflib import get_close_matches


def choices(name: str, known: Iterable[str]) -> str:
    """The known names, and before them the one that was probably meant: it alone holds ``name``, or it is nearest."""
    known = list(known)
    lowered = {each.lower(): each for each in known}
    holding = [each for each in lowered if len(name) > 2 and name.lower() in each]
    near = holding if len(holding) == 1 else get_close_matches(name.lower(), lowered, n=1)
    return (f"did you mean {lowered[near[0]]!r}? " if near else "") + f"choose from {', '.join(known)}"
