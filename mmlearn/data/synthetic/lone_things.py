"""Drawings and photographs of one thing each, on paper, with its name: pairs for lessons that match the two.

The things are those of :mod:`~mmlearn.data.synthetic.collages`. Seven nouns are dyed, so that some names have two
words; of these names one in six is held out, and both of its words are seen in others.
"""

import numpy as np

from mmlearn.data.hashing import stream
from mmlearn.data.packaged.emoji import FLUENT, KNOWN
from mmlearn.data.synthetic.collages import CollageSample, Thing, lay_out
from mmlearn.data.synthetic.cutouts import COLOURS, DYED, NOUNS, PAPERS, PHOTOGRAPHS
from mmlearn.data.synthetic.scenes import Link
from mmlearn.suggestions import suggest

STYLES = {
    "train": KNOWN, "val": KNOWN, "test": KNOWN, "unseen-name": KNOWN, "unseen-style": FLUENT,
    "photographs": PHOTOGRAPHS,
}  # fmt: skip
AREA = 0.4  # of the picture that a thing fills, about


def lone_things(split: str, count: int, *, size: int = 64, seed: int = 0) -> list[CollageSample]:
    """So many pictures of one thing each; the ``caption`` is its name, "cat" or "red car".

    ``unseen-name`` has the names that no other split has, ``unseen-style`` other drawings, and ``photographs``
    photographs of 34 of the nouns. Neighbours have different names, and so have the last and the first. Raises
    ``ValueError`` for an unknown split.
    """
    if split not in STYLES:
        raise ValueError(f"There is no split {split!r}; {suggest(split, STYLES)}.")
    unseen = split == "unseen-name"
    rng = np.random.default_rng([int(stream("lone things", split)), seed])
    samples: list[CollageSample] = []
    while len(samples) < count:
        (thing,) = lay_out(rng, STYLES[split], 1, 1, nouns=DYED if unseen else NOUNS, area=AREA)
        near = {samples[k].caption for k in (0, -1) if samples and (k or len(samples) + 1 == count)}
        if held_out_name(thing) == unseen and thing.name not in near:
            link, paper = Link(0, len(thing.name), 0), int(rng.integers(PAPERS))
            samples.append(CollageSample(size, (thing,), thing.name, (link,), paper, 0))
    return samples


def held_out_name(thing: Thing) -> bool:
    """Whether this colour of this noun is in no split but ``unseen-name``: one colour of each noun that is dyed."""
    return thing.colour is not None and COLOURS.index(thing.colour) == DYED.index(thing.noun) % len(COLOURS)
