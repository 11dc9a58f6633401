"""``texts``: texts without pictures, for systems that read words alone. All are those of other data sets.

There are four sources. ``scenes`` are captions of rendered scenes; ``walks`` are three sentences about one scene, each
from an object to the next, so that their order can be told; ``emoji`` are names of concepts with their keywords;
``stamps`` are captions of stamps. Scenes and walks are English; emoji have 30 languages, stamps 55.

Splits are those of the other data sets, so no scene, no caption of a stamp and no concept of an emoji is in two. Of
the 200 concepts that emoji hold out, half are in ``val`` and half in ``test``, by a hash.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor
from torch.utils.data import Dataset

from mmlearn.data.hashing import stream
from mmlearn.data.packaged import stamps
from mmlearn.data.packaged.archives import read_json
from mmlearn.data.packaged.emoji import as_text, held_out
from mmlearn.data.synthetic.layouts import scene_layout
from mmlearn.data.synthetic.scenes import NO_IMAGE, SceneObject, SceneSample
from mmlearn.suggestions import suggest

SPLITS = ("train", "val", "test")
STEPS = 3  # sentences of a walk


@dataclass(frozen=True)
class TextSample:
    """A text, the source that it is from, and its language."""

    caption: str
    source: str
    language: str


class Texts(Dataset):
    """The texts of a split, source by source.

    ``sources`` narrows them; without it they are all that have texts in ``language``. ``scenes`` is how many scenes
    there are in ``train``, a tenth of which are in each other split; each scene has a caption and a walk.
    Raises ``ValueError`` for an unknown split, source or language, and for less than ten scenes.
    """

    name, splits, disk = "texts", SPLITS, "none: those of scenes, emoji and stamps"
    licence = "Apache-2.0 (scenes), Unicode-3.0 (emoji), GPL-2.0-or-later (stamps)"
    shows = "texts alone: captions of scenes, walks through scenes, names and keywords of emoji, captions of stamps"

    def __init__(
        self, split: str = "train", *, sources: Sequence[str] | None = None, language: str = "en", scenes: int = 5000
    ):
        if split not in SPLITS:
            raise ValueError(f"texts has no split {split!r}; {suggest(split, SPLITS)}.")
        if scenes < 10:
            raise ValueError(f"texts has at least 10 scenes, got {scenes}.")
        has = {source: text_languages(source) for source in SOURCES}
        if not any(language in found for found in has.values()):
            raise ValueError(f"texts has nothing in {language!r}; {suggest(language, has['stamps'] + has['emoji'])}.")
        wanted = [source for source in SOURCES if language in has[source]] if sources is None else list(sources)
        for source in wanted:
            if source not in SOURCES:
                raise ValueError(f"texts has no source {source!r}; {suggest(source, SOURCES)}.")
            if language not in has[source]:
                raise ValueError(f"The {source} of texts are not in {language!r}; {suggest(language, has[source])}.")
        if not wanted:
            raise ValueError(f"texts are of at least one source; choose from {', '.join(SOURCES)}.")
        count = scenes if split == "train" else scenes // 10
        self.split, self.language = split, language
        texts = ((source, text) for source in wanted for text in SOURCES[source](split, language, count))
        self.samples = [TextSample(text, source, language) for source, text in texts]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> TextSample:
        return self.samples[index]

    def caption(self, index: int) -> str:
        """The text of a sample."""
        return self.samples[index].caption


def unseen_scenes(split: str, count: int, seed: int = 0) -> Iterator[SceneSample]:
    """The first scenes of a split, without their pictures."""
    layout = scene_layout(split, np.arange(count), seed)
    return (SceneSample(NO_IMAGE, layout, i) for i in range(count))


def walk(scene: SceneSample) -> str:
    """Sentences from each object of a scene to the next in reading order, as ``the red star is above the blue bar.``"""
    return " ".join(sentence for sentence, _ in _steps(scene.objects[: STEPS + 1]))


def _steps(path: Sequence[SceneObject]) -> list[tuple[str, str]]:
    """A sentence from each object to the next, and the relation that it says."""
    how = ["left of" if one.row == other.row else "above" for one, other in pairwise(path)]
    names = pairwise(f"the {item.colour} {item.shape}" for item in path)
    return [(f"{one} is {relation} {other}.", relation) for (one, other), relation in zip(names, how)]


def short_documents(split: str, scenes: int, seed: int = 0) -> list[tuple[str, str]]:
    """Two sentences about the things of one colour in a scene: the second begins with what the first ends with.

    The colour is the topic, and the thing in the middle tells the order, as in ``the red star is above the red bar.
    the red bar is above the red ring.`` Scenes where both sentences would not say the same relation are left out, as
    are those without three things of the colour: nothing but the things tells which sentence is first.
    """
    found = []
    for scene in unseen_scenes(split, scenes, seed):
        colour = Counter(item.colour for item in scene.objects).most_common(1)[0][0]
        shapes = {item.shape: item for item in scene.objects if item.colour == colour}  # one thing of each
        steps = _steps(sorted(shapes.values(), key=lambda item: item.cell)[:3])
        if len(steps) == 2 and steps[0][1] == steps[1][1]:
            found.append((steps[0][0], steps[1][0]))
    return found


def _emoji(split: str, language: str, count: int) -> Iterator[str]:
    for concept, named in read_json("emoji", "names.json.gz")[language].items():
        part = "train" if concept not in held_out() else SPLITS[1 + int(stream("texts", concept)) % 2]
        if part == split:
            yield as_text(named)


SOURCES = {  # of a split, in a language, and of how many scenes
    "scenes": lambda split, language, count: (scene.caption for scene in unseen_scenes(split, count)),
    "walks": lambda split, language, count: map(walk, unseen_scenes(split, count)),
    "emoji": _emoji,
    "stamps": lambda split, language, count: stamps.Stamps(split, language=language).captions,
}


def text_languages(source: str) -> tuple[str, ...]:
    """The languages that a source of texts has, English among them."""
    if source == "emoji":
        return tuple(read_json("emoji", "names.json.gz"))
    return stamps.languages() if source == "stamps" else ("en",)


# A language of brackets, in which it is known where each closing bracket has its partner.

BRACKETS = "()[]{}<>"
FIRST = 4  # token of the first bracket; before it are padding, start, end and mask


def bracket_sentences(
    count: int, generator: torch.Generator, *, pairs: int = 8, deepest: int = 5
) -> tuple[Int[Tensor, "b n"], Int[Tensor, "b n"]]:
    """Sentences of so many pairs of brackets behind a start token, and for each closing bracket where its partner is.

    The partner of any other token is -1. At each position a bracket is opened or closed with equal odds, where both may
    be: at most ``deepest`` are open at once, and the one that was opened last is closed first. Raises ``ValueError``
    for no pair, or no depth.
    """
    if min(pairs, deepest) < 1:
        raise ValueError(f"A sentence has at least one pair and one depth, got pairs={pairs}, deepest={deepest}.")
    n = 2 * pairs
    chance = torch.rand(count, n, generator=generator).tolist()
    kind = torch.randint(len(BRACKETS) // 2, (count, n), generator=generator).tolist()
    tokens, partner = torch.ones(count, n + 1, dtype=torch.long), torch.full((count, n + 1), -1)
    for row in range(count):
        still_open, opened = [], 0
        for i in range(n):
            may_open = opened < pairs and len(still_open) < deepest
            if not still_open or (may_open and chance[row][i] < 0.5):
                still_open.append((i + 1, kind[row][i]))
                tokens[row, i + 1] = FIRST + 2 * kind[row][i]
                opened += 1
            else:
                partner[row, i + 1], which = still_open.pop()
                tokens[row, i + 1] = FIRST + 1 + 2 * which
    return tokens, partner


def spell_brackets(tokens: Int[Tensor, "n"]) -> str:
    """The brackets of a sentence, without the start token."""
    return "".join(BRACKETS[token - FIRST] for token in tokens.tolist() if token >= FIRST)
