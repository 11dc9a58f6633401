"""Wrong answers that only rare inputs give away, and what each is told: ``RARE[task][what it says][name]``."""

import math
from collections import Counter

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
        "?": {
            "letters": _by(_letters),
            "first letters": _by(lambda text: " ".join(word[0] for word in text.split())),
            "blanks": _by(_blanks),
            "no capitals": _by(lambda text: text.lower()),
        },
    },
    "self_critical": {
        "?": {
            "times the mask": lambda logs, real, r, g: -((r - g).detach() * (logs * real).sum(1)).mean(),
            "cut off at -100": lambda logs, real, r, g: self_critical(logs.clamp(min=-100), real, r, g),
        },
    },
}
