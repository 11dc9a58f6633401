"""Conversations about collages, in words alone: notes of what is there, questions, and their answers.

A language model that has read many of them can answer from notes, and has never seen a picture.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from mmlearn.data.synthetic.cutouts import COLOURS, DYED, NOUNS
from mmlearn.data.tokenizer import Tokenizer

# What the pictures of lesson 22a show; its texts are about all nouns.
PICTURED = (
    *DYED, "cat", "dog", "horse", "penguin", "turtle", "fish", "owl", "duck", "banana", "pizza", "cake", "guitar",
    "tree", "bicycle", "violin", "crown", "lion", "rabbit", "tulip", "star", "lemon", "bus",
)  # fmt: skip
LIST, BLANK = "what is there?", "paper"
LONGEST = 36  # words of notes
MOST = 3  # times that notes name a thing

Turn = tuple[str, str]  # a question and its answer


def names_in_order(things: Sequence[Any]) -> list[str]:
    """Each name once, from top to bottom: by the upper edge of the first thing that is called so."""
    ordered = sorted(things, key=lambda thing: thing.centre[1] - thing.side / 2)
    return list(dict.fromkeys(thing.name for thing in ordered))


def imagine(rng: np.random.Generator) -> list[str]:
    """Four to eight names of things that could be in a collage that nobody draws, one of them dyed at least."""
    nouns = [NOUNS[k] for k in rng.permutation(len(NOUNS))[: rng.integers(4, 9)]]
    if not set(nouns) & set(DYED):
        nouns[0] = DYED[rng.integers(len(DYED))]
    return [f"{COLOURS[rng.integers(len(COLOURS))]} {noun}" if noun in DYED else noun for noun in nouns]


def notes(names: Sequence[str], rng: np.random.Generator) -> tuple[str, list[str]]:
    """What somebody notes who walks over a picture, and the names in the order of these notes.

    Some things are noted several times, and between them blank paper. At most 36 words, if the names have no more.
    """
    seen = [name for name in names for _ in range(int(rng.integers(1, MOST + 1)))]
    seen += [BLANK] * int(rng.integers(0, max(1, LONGEST - len(" ".join(seen).split()))))
    order = [seen[k] for k in rng.permutation(len(seen))]
    return " ".join(order), [name for name in dict.fromkeys(order) if name != BLANK]


def questions(names: Sequence[str], rng: np.random.Generator, most: int = 5) -> list[Turn]:
    """So many questions with their answers, each about another noun, so that none gives away the next answer.

    They ask for the colour of a dyed thing, where there is one left, or whether a thing is there (half of them are).
    """
    nouns = [name.split()[-1] for name in names]
    dyed = [name.split() for name, noun in zip(names, nouns) if noun in DYED and nouns.count(noun) == 1]
    others = [noun for noun in nouns if noun not in {noun for _, noun in dyed}]
    absent = [NOUNS[k] for k in rng.permutation(len(NOUNS)) if NOUNS[k] not in nouns]
    asked = []
    for _ in range(most):
        if dyed and rng.random() < 0.6:
            colour, noun = dyed.pop(rng.integers(len(dyed)))
            asked.append((f"what colour is the {noun}?", f"{colour}."))
        elif others and rng.random() < 0.5:
            noun = others.pop(rng.integers(len(others)))
            others = [each for each in others if each != noun]
            asked.append((f"is there a {noun}?", "yes."))
        else:
            asked.append((f"is there a {absent.pop()}?", "no."))
    return asked


def talk(names: Sequence[str], rng: np.random.Generator) -> list[Turn]:
    """Five questions, or in two of five conversations all names in their order."""
    return [(LIST, f"{', '.join(names)}.")] if rng.random() < 0.4 else questions(names, rng)


def written(rng: np.random.Generator) -> tuple[str, list[Turn]]:
    """Notes and a conversation about them."""
    text, names = notes(imagine(rng), rng)
    return text, talk(names, rng)


def colour_asked(names: Sequence[str]) -> list[Turn]:
    """What colour the dyed thing has, where there is exactly one; else no question."""
    dyed = [name.split() for name in names if name.split()[-1] in DYED]
    return [(f"what colour is the {dyed[0][1]}?", f"{dyed[0][0]}.")] if len(dyed) == 1 else []


def encode(
    tokenizer: Tokenizer, befores: Sequence[Sequence[int]], conversations: Sequence[Sequence[Turn]]
) -> tuple[Int[Tensor, "b t"], Bool[Tensor, "b t"]]:
    """The tokens of conversations, each behind a start token and its ``befores``; and which of them are of answers.

    Shorter rows end with padding.
    """
    known: dict[str, list[int]] = {"": []}
    rows: list[list[tuple[int, bool]]] = []
    for before, turns in zip(befores, conversations):
        row = [(token, False) for token in (tokenizer.start_token, *before)]
        for part, is_answer in ((part, k == 1) for turn in turns for k, part in enumerate(turn)):
            if part not in known:
                known[part] = tokenizer.prompt(part).tolist()
            row += [(token, is_answer) for token in known[part]]
        rows.append(row)
    longest = max(map(len, rows))
    pairs = torch.tensor([row + [(tokenizer.pad_token, False)] * (longest - len(row)) for row in rows])
    return pairs[..., 0], pairs[..., 1].bool()


def boxes_asked(samples: Sequence[Any], turns: Sequence[Turn]) -> list[list[list[float]]]:
    """For each of these questions for a colour the box of its thing, as shares of the picture."""
    found = []
    for sample, (question, answer) in zip(samples, turns):
        words = {question.rstrip("?").split()[-1], answer.rstrip(".")}  # a noun and its colour
        things = [k for k, thing in enumerate(sample.things) if set(thing.name.split()) == words]
        found.append((sample.boxes[things] / sample.size).tolist())
    return found
