"""What to say of a name that is unknown."""

from collections.abc import Iterable
from difflib import get_close_matches
from textwrap import shorten


def suggest(name: str, known: Iterable[str]) -> str:
    """The known names, and before them the one that was probably meant: it alone holds ``name``, or it is nearest.

    Of very many names those are left out that would make more than 250 characters.
    """
    known = list(known)
    lowered = {each.lower(): each for each in known}
    holding = [each for each in lowered if len(name) > 2 and name.lower() in each]
    near = holding if len(holding) == 1 else get_close_matches(name.lower(), lowered, n=1)
    listed = shorten(", ".join(known), 250, placeholder=f" … ({len(known)} in all)")
    return (f"did you mean {lowered[near[0]]!r}? " if near else "") + f"choose from {listed}"
