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
from functools import partial
from itertools import pairwise

import numpy as np
import torch
from torch.utils.data import Dataset

from mmlearn.data.hashing import stream
from mmlearn.data.made.drawing import GRID
from mmlearn.data.made.scenes import SceneSample, lay_out
from mmlearn.data.packaged import stamps
from mmlearn.data.packaged.archives import read_json
from mmlearn.data.packaged.emoji import as_text, held_out
from mmlearn.names import choices

SPLITS = ("train", "val", "test")
NO_PICTURE = torch.empty(3, 0, 0)
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
            raise ValueError(f"texts has no split {split!r}; {choices(split, SPLITS)}.")
        if scenes < 10:
            raise ValueError(f"texts has at least 10 scenes, got {scenes}.")
        has = {source: text_languages(source) for source in SOURCES}
        if not any(language in found for found in has.values()):
            raise ValueError(f"texts has nothing in {language!r}; {choices(language, has['stamps'] + has['emoji'])}.")
        wanted = [source for source in SOURCES if language in has[source]] if sources is None else list(sources)
        for source in wanted:
            if source not in SOURCES:
                raise ValueError(f"texts has no source {source!r}; {choices(source, SOURCES)}.")
            if language not in has[source]:
                raise ValueError(f"The {source} of texts are not in {language!r}; {choices(language, has[source])}.")
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


def _scenes(split: str, language: str, count: int, walks: bool) -> Iterator[str]:
    layout = lay_out(split, np.arange(count), seed=0)
    for i in range(count):
        scene = SceneSample(NO_PICTURE, layout, i)
        yield walk(scene) if walks else scene.caption


def walk(scene: SceneSample) -> str:
    """Sentences from each object of a scene to the next in reading order, as ``the red star is above the blue bar.``"""
    objects = scene.objects[: STEPS + 1]
    relations = ["left of" if one.cell // GRID == other.cell // GRID else "above" for one, other in pairwise(objects)]
    names = [f"the {item.colour} {item.shape}" for item in objects]
    return " ".join(f"{one} is {how} {other}." for (one, other), how in zip(pairwise(names), relations))


def short_documents(split: str, scenes: int, seed: int = 0) -> list[tuple[str, str]]:
    """Two sentences about the things of one colour in a scene: the second begins with what the first ends with.

    The colour is the topic, and the thing in the middle tells the order, as in ``the red star is above the red bar.
    the red bar is above the red ring.`` Scenes where both sentences would not say the same relation are left out, as
    are those without three things of the colour: nothing but the things tells which sentence is first.
    """
    found, layout = [], lay_out(split, np.arange(scenes), seed)
    for row in range(scenes):
        objects = SceneSample(NO_PICTURE, layout, row).objects
        colour = Counter(item.colour for item in objects).most_common(1)[0][0]
        shapes = {item.shape: item for item in objects if item.colour == colour}  # one thing of each
        path = sorted(shapes.values(), key=lambda item: item.cell)[:3]
        how = {"left of" if one.cell // GRID == other.cell // GRID else "above" for one, other in pairwise(path)}
        if len(path) == 3 and len(how) == 1:
            names, said = [f"the {colour} {item.shape}" for item in path], how.pop()
            found.append(tuple(f"{one} is {said} {other}." for one, other in pairwise(names)))
    return found


def swap_neighbours(texts: Sequence[str], generator: torch.Generator) -> list[str]:
    """Each text with two neighbouring words exchanged, at a place drawn at random where they differ.

    A bag of words cannot tell the two apart. Raises ``ValueError`` for a text without two neighbours that differ.
    """
    swapped = []
    for text in texts:
        words = text.split()
        places = [i for i, (one, other) in enumerate(pairwise(words)) if one != other]
        if not places:
            raise ValueError(f"Two neighbouring words that differ are exchanged; {text!r} has none.")
        i = places[int(torch.randint(len(places), (), generator=generator))]
        swapped.append(" ".join([*words[:i], words[i + 1], words[i], *words[i + 2 :]]))
    return swapped


def _emoji(split: str, language: str, count: int) -> Iterator[str]:
    for concept, named in read_json("emoji", "names.json.gz")[language].items():
        part = "train" if concept not in held_out() else SPLITS[1 + int(stream("texts", concept)) % 2]
        if part == split:
            yield as_text(named)


def _stamps(split: str, language: str, count: int) -> list[str]:
    return stamps.Stamps(split, language=language).captions


SOURCES = {
    "scenes": partial(_scenes, walks=False),
    "walks": partial(_scenes, walks=True),
    "emoji": _emoji,
    "stamps": _stamps,
}


def text_languages(source: str) -> tuple[str, ...]:
    """The languages that a source of texts has, English among them."""
    if source == "emoji":
        return tuple(read_json("emoji", "names.json.gz"))
    return stamps.languages() if source == "stamps" else ("en",)
