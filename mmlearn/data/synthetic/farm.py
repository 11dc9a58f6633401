"""Sentences about a farm and its kitchen: a few English words whose grammar and sense are known exactly.

Each sentence says of one thing that it lives or that it is food: *they chased the duck until it was tired*, *the duck
was fried until it was crispy*. Nouns such as *duck* fit both, so only its verb and its last word tell which is meant.
A sound tells as well. Without sounds every form of sentence is as likely for either.
"""

import random
from collections.abc import Collection, Iterable, Sequence
from functools import cache
from typing import NamedTuple

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

# fmt: off
BOTH = {"duck": "quacked", "chicken": "clucked", "turkey": "gobbled", "lamb": "bleated", "goose": "honked",
        "crab": "clicked"}
ANIMALS = {"dog": "barked", "cat": "meowed", "horse": "neighed", "owl": "hooted", "wolf": "howled", "frog": "croaked"}
# fmt: on
FOODS = ("bread", "soup", "pizza", "cheese", "rice", "carrot")
SOUNDS = ANIMALS | BOTH  # of everything that can be alive
DONE_TO = {
    True: ("fed", "chased", "petted", "called", "watched", "freed", "tickled", "scared"),
    False: ("cooked", "fried", "grilled", "roasted", "baked", "boiled", "salted", "smoked"),
}
ENDS = {
    True: ("tired", "happy", "calm", "asleep", "lost", "safe"),
    False: ("crispy", "tender", "soft", "brown", "hot", "done"),
}
WHO, LOOKS = ("we", "they", "she", "he"), ("small", "big", "old", "white")
TELLING = frozenset(word for words in (DONE_TO, ENDS) for kind in (True, False) for word in words[kind])
WORDS = (
    "the", "was", "until", "it", ".", *BOTH, *ANIMALS, *FOODS, *SOUNDS.values(),
    *DONE_TO[True], *DONE_TO[False], *ENDS[True], *ENDS[False], *WHO, *LOOKS,
)  # fmt: skip
SPECIAL = ("<pad>", "<start>", "<end>", "<mask>")
SENTINELS = tuple(f"⟨{k}⟩" for k in range(8))  # of T5, the last tokens, which count down
SOUND = 0.2  # how many sentences of something alive say what sound it makes


class FarmSentence(NamedTuple):
    """The words with the full stop, whether the thing is alive, and the number of its noun among the words."""

    words: tuple[str, ...]
    alive: bool
    noun: int


def nouns_for(alive: bool) -> tuple[str, ...]:
    """What can be alive, or food: both have the nouns that fit either."""
    return (*BOTH, *(ANIMALS if alive else FOODS))


class FarmTokens:
    """Words as tokens: special ones, the words of the farm, and T5's sentinels, of which ⟨0⟩ has the last number."""

    pad_token, start_token, end_token, mask_token = range(4)

    def __init__(self) -> None:
        self.names = (*SPECIAL, *WORDS, *reversed(SENTINELS))
        self.number = {name: number for number, name in enumerate(self.names)}
        self.first_sentinel = len(self.names) - 1

    def __len__(self) -> int:
        return len(self.names)

    def prompt(self, text: str | Sequence[str]) -> Int[Tensor, "t"]:
        """The tokens of a text without start and end. ``KeyError`` for a word that the farm has not."""
        words = text.split() if isinstance(text, str) else text
        return torch.tensor([self.number[word] for word in words], dtype=torch.long)

    def __call__(self, texts: Iterable[str | Sequence[str]]) -> tuple[Int[Tensor, "b t"], Bool[Tensor, "b t"]]:
        """Texts between start and end, padded at their right; and which tokens are real."""
        ends = torch.tensor([self.start_token]), torch.tensor([self.end_token])
        tokens = pad_sequence([torch.cat([ends[0], self.prompt(text), ends[1]]) for text in texts], batch_first=True)
        return tokens, tokens != self.pad_token

    def words(self, tokens: Int[Tensor, "t"]) -> list[str]:
        """Every token by its name."""
        return [self.names[token] for token in tokens.tolist()]

    def sentence(self, tokens: Int[Tensor, "t"]) -> list[str]:
        """The words and sentinels alone."""
        return [word for word in self.words(tokens) if word not in SPECIAL]


def telling_halves(draw: random.Random) -> tuple[frozenset[str], frozenset[str]]:
    """The words that tell which is meant in two halves, each with half of the verbs and last words of either kind."""
    lists = [words for by_kind in (DONE_TO, ENDS) for words in by_kind.values()]
    first = frozenset(word for words in lists for word in draw.sample(words, len(words) // 2))
    return first, TELLING - first


def farm_sentence(
    draw: random.Random,
    *,
    alive: bool | None = None,
    nouns: Sequence[str] | None = None,
    telling: Collection[str] = TELLING,
    verb_first: bool | None = None,
    sounds: bool = True,
) -> FarmSentence:
    """A sentence; what is not given is drawn. ``telling`` are the words that may tell what is meant.

    ``verb_first`` is whether the verb comes before the noun. No animal makes its sound where this is given, nor without
    ``sounds``. Raises ``ValueError`` where ``telling`` leaves no verb or no last word.
    """
    alive = draw.random() < 0.5 if alive is None else alive
    verbs, ends = ([word for word in words[alive] if word in telling] for words in (DONE_TO, ENDS))
    if not verbs or not ends:
        raise ValueError("telling needs a verb and a last word of both kinds; TELLING has all of them.")
    noun = draw.choice(nouns or nouns_for(alive))
    thing = ["the", *([draw.choice(LOOKS)] if draw.random() < 0.3 else []), noun]
    if sounds and verb_first is None and alive and draw.random() < SOUND:
        words = [*thing, SOUNDS[noun]]
    elif draw.random() < 0.5 if verb_first is None else verb_first:
        words = [draw.choice(WHO), draw.choice(verbs), *thing]
    else:
        words = [*thing, "was", draw.choice(verbs)]
    return FarmSentence((*words, "until", "it", "was", draw.choice(ends), "."), alive, words.index(noun))


def is_farm_sentence(words: Sequence[str]) -> bool:
    """Whether these words are a sentence of this grammar, of which all parts fit the same kind of thing."""
    return tuple(words) in _all_sentences()


@cache
def _all_sentences() -> frozenset[tuple[str, ...]]:
    found: set[tuple[str, ...]] = set()
    for alive in (True, False):
        things = [("the", *look, noun) for noun in nouns_for(alive) for look in ((), *((word,) for word in LOOKS))]
        clauses = [(who, verb, *thing) for who in WHO for verb in DONE_TO[alive] for thing in things]
        clauses += [(*thing, "was", verb) for verb in DONE_TO[alive] for thing in things]
        clauses += [(*thing, SOUNDS[thing[-1]]) for thing in things if alive]
        found |= {(*clause, "until", "it", "was", end, ".") for clause in clauses for end in ENDS[alive]}
    return frozenset(found)
