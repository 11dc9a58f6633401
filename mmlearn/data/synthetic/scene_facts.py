"""What captions of scenes state, and whether a text is one: the grammar by which they are made, read backwards."""

import re

from mmlearn.data.synthetic.layouts import COLOURS, MORE, RELATIONS, SHAPES, SIZES, TEMPLATES, TEXTURES

Thing = frozenset[str]  # the words that a text gives it
Fact = tuple[Thing] | tuple[Thing, str, Thing]  # it is there, or how it stands to another

THING = " ".join(f"(?:{'|'.join(words)})" for words in (SIZES, TEXTURES, COLOURS, SHAPES))
RELATION = f"(?:{'|'.join(RELATIONS)})"
FORMS = (f"{form}(?:{more})?".format(THING, RELATION, THING) for form, more in zip(TEMPLATES, MORE))
CLAUSE = f"(?:{'|'.join(FORMS)})"
SENTENCE = re.compile(f"{CLAUSE}(?:; {CLAUSE})*")
KINDS = {word: kind for kind in (SIZES, TEXTURES, COLOURS, SHAPES) for word in kind}
INVERSE = {"right of": "left of", "below": "above"}  # each relation is told from one side


def well_formed(text: str) -> bool:
    r"""Whether a text is a sentence of the grammar by which captions of scenes are made, true or not.

    .. math:: S \to C \mid C\text{; } S, \quad
       C \to \text{a } O\, R \text{ a } O\, [\text{and } R \text{ a } O] \mid
       \text{the } O \text{ is } R \text{ the } O\, [\text{and } R \text{ the } O], \quad
       O \to \text{size texture colour shape}

    with the relations R of scenes; what is in brackets, and more than one clause C, only crowded scenes have. Capitals
    and spaces make no difference.
    """
    return SENTENCE.fullmatch(" ".join(text.lower().split())) is not None


def told_once(subject: Thing, relation: str, other: Thing) -> Fact:
    """How two things stand, always told as left of or above."""
    return (other, INVERSE[relation], subject) if relation in INVERSE else (subject, relation, other)


def stated_facts(text: str) -> set[Fact]:
    """What a text says of a scene: of each thing that it is there, and of two neighbours in the text how they stand.

    Behind "and" with a relation it is the first thing of the clause that stands so. A thing is a shape with all the
    attributes before it, since in a scene no attribute alone finds an object. Words that are none of a scene's are
    passed over.
    """
    facts: set[Fact] = set()
    thing, first, last, relation = set(), None, None, None
    words = text.lower().translate(str.maketrans(",.;", "   ")).split()
    for i, word in enumerate(words):
        if word == "and" and " ".join(words[i + 1 : i + 3]).startswith(RELATIONS):
            last = first
        elif " ".join(words[i : i + 2]) in RELATIONS or word in RELATIONS:
            relation = word if word in RELATIONS else " ".join(words[i : i + 2])
            thing = set()
        elif word in KINDS:
            thing.add(word)
        if word in SHAPES:
            whole = frozenset(thing)
            facts.add((whole,))
            if last and relation:
                facts.add(told_once(last, relation, whole))
            first = first if relation else whole
            thing, last, relation = set(), whole, None
    return facts
