"""Where is it? The same question about a note, a list of things and their places, and about a collage.

A lesson asks it of networks that have to look one fact up among many. The places are nine, and a picture's are its
thirds.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmlearn.data import load
from mmlearn.data.grid_features import grid_features
from mmlearn.data.synthetic.cutouts import NOUNS

PLACES = ["top-left", "top", "top-right", "left", "middle", "right", "bottom-left", "bottom", "bottom-right"]
WORDS = ["<pad>", *NOUNS, *PLACES]
PLACE_OF_PATCH = torch.tensor([3 * (row // 2) + column // 2 for row in range(6) for column in range(6)])


def notes(
    count: int, most_facts: int, generator: torch.Generator, facts: int | None = None
) -> tuple[Int[Tensor, "b t"], Bool[Tensor, "b t"], Int[Tensor, "b"], Int[Tensor, "b"]]:
    """Notes of ``facts`` facts, or of one to ``most_facts``: words, which are real, a noun to ask for, its place.

    A fact is a noun and a place; no noun occurs twice in a note. t is twice ``most_facts``, and padding is 0.
    Places are numbered as in ``PLACES``, and words as in ``WORDS``.
    """
    n = torch.full((count,), facts) if facts else torch.randint(1, most_facts + 1, (count,), generator=generator)
    nouns = torch.rand(count, len(NOUNS), generator=generator).argsort(1)[:, :most_facts]
    places = torch.randint(len(PLACES), nouns.shape, generator=generator)
    words = torch.stack([1 + nouns, 1 + len(NOUNS) + places], 2).flatten(1)  # (b, t): noun, place, noun, place ...
    real = torch.arange(2 * most_facts) < 2 * n[:, None]
    asked = (torch.rand(count, generator=generator) * n).long()[:, None]
    return words * real, real, 1 + nouns.gather(1, asked)[:, 0], places.gather(1, asked)[:, 0]


def guess_listed(words: Int[Tensor, "b t"]) -> float:
    """How often a guess is right that knows a note's places, and not what is at which: the commonest place of each."""
    listed = torch.stack([(words == WORDS.index(place)).sum(1) for place in PLACES], 1)  # (b, places)
    return (listed.amax(1) / listed.sum(1)).mean().item()


def weight_on_place(weights: Float[Tensor, "b t"], words: Int[Tensor, "b t"], noun: Int[Tensor, "b"]) -> float:
    """The mean weight on the place that follows the noun of the question."""
    at = (words == noun[:, None]).int().argmax(1, keepdim=True) + 1
    return weights.gather(1, at).mean().item()


@torch.no_grad()
def ask_note(model: nn.Module, most_facts: int, facts: int = 6) -> tuple[list[str], list[str], list[int]]:
    """Ask for the last three things of a note: its words, what was asked and answered, and where the places are."""
    facts, count = min(facts, most_facts), 3
    words, real, *_ = notes(1, most_facts, torch.Generator().manual_seed(1), facts)
    words, real, first = words.expand(count, -1), real.expand(count, -1), facts - count
    nouns = words[0, 2 * first : 2 * facts : 2]
    found = model(words, real, nouns).argmax(1)
    told = [f"where is the {WORDS[noun]}?  It answers: {PLACES[place]}" for noun, place in zip(nouns, found)]
    return [WORDS[word] for word in words[0, : 2 * facts]], told, [2 * (first + k) + 1 for k in range(count)]


def patches_to_swap(weights: Float[Tensor, "b n"], generator: torch.Generator) -> dict[str, Bool[Tensor, "b n"]]:
    """Which patches are exchanged to see whether an answer rests on those with the largest weights."""
    top = torch.zeros_like(weights, dtype=torch.bool).scatter(1, weights.topk(4).indices, True)
    other = torch.rand(weights.shape, generator=generator).masked_fill(top, -1).topk(4).indices
    others = torch.zeros_like(top).scatter(1, other, True)
    return {"none": top & ~top, "four brightest": top, "four others": others, "all others": ~top}


@dataclass(frozen=True)
class PlaceQuestions:
    """Collages, and for each thing that is in its picture once: picture, noun, place and box (in shares of it)."""

    samples: Sequence[Any]
    features: Float[Tensor, "n 36 96"]
    picture: Int[Tensor, "questions"]
    noun: Int[Tensor, "questions"]
    place: Int[Tensor, "questions"]
    boxes: Sequence[Sequence[Sequence[float]]]  # of each question its one box

    def first_of_pictures(self, count: int) -> list[int]:
        """The first question of each of the first pictures."""
        numbers = self.picture.tolist()
        return [numbers.index(number) for number in dict.fromkeys(numbers)][:count]

    def first_picture_with(self, hits: Sequence[bool], count: int) -> list[int]:
        """So many questions that hit, of the first picture that has them; where none has, all of the first picture."""
        for number in range(len(self.samples)):
            rows = [k for k in (self.picture == number).nonzero().flatten().tolist() if hits[k]]
            if len(rows) >= count:
                return rows[:count]
        return (self.picture == self.picture[0]).nonzero().flatten().tolist()[:count]

    def pictures_without(self) -> Int[Tensor, "questions"]:
        """For each question a picture in which its noun is not: the next one that has none."""
        found = []
        for start, noun in zip(self.picture.tolist(), self.noun.tolist()):
            turns = ((start + k) % len(self.samples) for k in range(1, len(self.samples)))
            found.append(next(number for number in turns if WORDS[noun] not in self.samples[number].names))
        return torch.tensor(found)

    def asks(self, rows: Sequence[int]) -> tuple[str, list[tuple[int, int]]]:
        """Several questions as one sentence, and where their nouns are in it."""
        text, spans = "where is", []
        for row in rows:
            text += (", the " if spans else " the ") + (noun := WORDS[self.noun[row]])
            spans.append((len(text) - len(noun), len(text)))
        return text + "?", spans


def where_questions(split: str, count: int, seed: int = 0) -> PlaceQuestions:
    """The questions about the first collages of a split, with the frozen features of their 6 × 6 patches."""
    samples = load("collages", split, seed=seed).__getitems__(range(count))
    rows = []
    for number, sample in enumerate(samples):
        for noun, box in zip(sample.names, sample.boxes / sample.size):
            if sample.names.count(noun) == 1:
                column, row = (1.5 * (box[:2] + box[2:])).clamp(0, 2.9).int().tolist()  # of its centre
                rows.append((number, WORDS.index(noun), 3 * row + column, [box.tolist()]))
    picture, noun, place, boxes = zip(*rows)
    features = grid_features(torch.stack([sample.image for sample in samples]))
    return PlaceQuestions(samples, features, torch.tensor(picture), torch.tensor(noun), torch.tensor(place), boxes)
