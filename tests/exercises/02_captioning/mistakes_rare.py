"""Wrong answers that only rare inputs give away, and what each is told: ``RARE[task][what it says][name]``."""

from mmlearn.evaluation.captions import cider_d
from mmlearn.objectives.rewards import self_critical


def _each(texts, change):
    return [[change(one) for one in several] for several in texts]


def _letters(text):
    return " ".join(text.replace(" ", ""))


def _blanks(text):
    """Words between single blanks; two blanks have an empty word between them."""
    return " ".join(word or "nothing" for word in text.replace("\n", "x").replace("\t", "x").split(" "))


def _by(change):
    return lambda candidates, references: cider_d([change(one) for one in candidates], _each(references, change))


RARE = {
    "cider_d": {
        "With words of several letters: The score must be the same.": {
            "letters": _by(_letters),
            "first letters": _by(lambda text: " ".join(word[0] for word in text.split())),
            "no capitals": _by(lambda text: text.lower()),
        },
        "With words between tabs and line ends: The score must be the same.": {"blanks": _by(_blanks)},
    },
    "self_critical": {
        "Where what stands behind the end has probability": {
            "times the mask": lambda logs, real, r, g: -((r - g).detach() * (logs * real).sum(1)).mean()
        },
        "With log-probabilities of minus thousands: They must count.": {
            "cut off at -100": lambda logs, real, r, g: self_critical(logs.clamp(min=-100), real, r, g)
        },
    },
}
