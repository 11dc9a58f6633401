"""What is said of collages: captions and the facts that they state, and questions with their answers."""

from collections.abc import Sequence
from itertools import permutations
from typing import Any

import numpy as np

from mmlearn.data.synthetic.cutouts import COLOURS, NOUNS, PLURALS
from mmlearn.data.synthetic.questions import OPPOSITE, Question
from mmlearn.data.synthetic.scene_facts import Fact, told_once
from mmlearn.data.synthetic.scenes import Link

WORDED = {"left of": "to the left of", "right of": "to the right of"}  # in captions
SINGULARS = {plural: noun for noun, plural in PLURALS.items()} | {noun: noun for noun in NOUNS}
RELATION_WORDS = {"left": "left of", "right": "right of", "above": "above", "below": "below", "with": None}
ANSWERS = ("yes", "no", "0", "1", "2", *COLOURS)


def relation(one: Any, other: Any) -> str:
    """How one thing stands to another, along the axis on which they are further apart."""
    x, y = one.centre[0] - other.centre[0], one.centre[1] - other.centre[1]
    return ("right of" if x > 0 else "left of") if abs(x) > abs(y) else "below" if y > 0 else "above"


def article(name: str) -> str:
    """``an`` before a vowel, else ``a``."""
    return "an" if name[0] in "aeiou" else "a"


def held_out_pair(one: str, other: str) -> bool:
    """Whether no training caption names these two nouns together: one pair in eight."""
    a, b = sorted((NOUNS.index(one), NOUNS.index(other)))
    return (a * 31 + b * 17) % 8 == 0


def describe(
    things: Sequence[Any], rng: np.random.Generator, unseen_pairs: bool = False
) -> tuple[str, tuple[Link, ...]]:
    """A caption that names two or three kinds of these things, and its links.

    With ``unseen_pairs`` its first two nouns are a held-out pair, else no two of its nouns are one. One thing alone is
    named where the collage has no such pair.
    """
    groups: dict[str, list[int]] = {}
    for number, thing in enumerate(things):
        groups.setdefault(thing.name, []).append(number)
    kinds = [list(groups.values())[k] for k in rng.permutation(len(groups))]
    chosen = kinds[:1]
    if unseen_pairs:  # which of the kinds comes first is as random as before
        pairs = [
            (one, other) for one, other in permutations(kinds, 2)
            if len(other) == 1 and held_out_pair(things[one[0]].noun, things[other[0]].noun)
        ]  # fmt: skip
        chosen = list(pairs[0][:1]) if pairs else chosen
        kinds = [*chosen, *(other for one, other in pairs if one is chosen[0])]
    wanted = 2 + (rng.random() < 0.5)
    for group in kinds[1:]:
        noun = things[group[0]].noun
        fits = [held_out_pair(things[one[0]].noun, noun) == (unseen_pairs and one is chosen[0]) for one in chosen]
        repeated = any(things[one[0]].noun == noun for one in chosen)
        if len(group) == 1 and not repeated and all(fits) and len(chosen) < wanted:
            chosen.append(group)
    caption, links, said = "", [], ""
    for position, group in enumerate(chosen):
        first, thing, two = things[chosen[0][0]], things[group[0]], len(group) > 1
        how = relation(first, thing) if len(chosen[0]) == 1 else "with"
        if position:
            caption += " and" * (position > 1) + f" {WORDED.get(how, how)}" * (how != said) + " "
            said = how
        name = " ".join(filter(None, (thing.colour, PLURALS[thing.noun] if two else thing.noun)))
        caption += "two " if two else f"{article(name)} "
        links.append(Link(len(caption), len(caption) + len(name), group[0]))
        caption += name
    return caption, tuple(links)


def stated_facts(text: str) -> set[Fact]:
    """What a caption states, as :func:`describe` words it: what is there, and how its first thing is to the others.

    A thing is a noun with the colour and the "two" before it. Behind "with" nothing is said of where. A relation holds
    for all things behind it, up to another one. Words that no caption has are passed over.
    """
    facts: set[Fact] = set()
    thing: set[str] = set()
    first, how = None, None
    for word in text.lower().replace(",", " ").replace(".", " ").split():
        if word in COLOURS or word == "two":
            thing.add(word)
        elif word in RELATION_WORDS:
            how, thing = RELATION_WORDS[word], set()
        elif word in SINGULARS:
            whole = frozenset({*thing, SINGULARS[word]})
            facts.add((whole,))
            if first and how:
                facts.add(told_once(first, how, whole))
            first, thing = first or whole, set()
    return facts


def ask(things: Sequence[Any], bits: int) -> Question:
    """The question that ``bits`` picks; every kind that the collage allows is as likely, and so are yes and no."""
    nouns = [thing.noun for thing in things]
    once = [thing for thing in things if nouns.count(thing.noun) == 1]
    dyed = [thing for thing in once if thing.colour]
    kinds = ("exist", "count", *(["relation"] if len(once) > 1 else []), *(["colour"] if dyed else []))
    bits, kind = divmod(bits, len(kinds))
    bits, yes = divmod(bits, 2)
    absent = [noun for noun in NOUNS if noun not in nouns]
    if kinds[kind] == "exist":
        noun = nouns[bits % len(nouns)] if yes else absent[bits % len(absent)]
        return Question("exist", f"is there {article(noun)} {noun}?", "yes" if yes else "no")
    if kinds[kind] == "count":  # twice as often of what is there
        choices = sorted(nouns, key=nouns.count, reverse=True) if yes or bits % 2 else absent
        noun = choices[0] if yes else choices[bits % len(choices)]
        return Question("count", f"how many {PLURALS[noun]} are there?", str(nouns.count(noun)))
    if kinds[kind] == "colour":
        thing = dyed[bits % len(dyed)]
        return Question("colour", f"what colour is the {thing.noun}?", str(thing.colour))
    one = once[bits % len(once)]
    others = [thing for thing in once if thing is not one]
    other = others[bits // len(once) % len(others)]
    true = relation(one, other)
    stated = true if yes else OPPOSITE[true]
    return Question("relation", f"is the {one.noun} {stated} the {other.noun}?", "yes" if yes else "no")
