"""Fields that are read or named: texts, and one of several names."""

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

import torch
from torch import Tensor
from torch.utils.data import Dataset

from mmlearn.data.batches import caption_ids, fetch, spread
from mmlearn.data.fields.field import Batch, Field, size
from mmlearn.data.synthetic.questions import ANSWERS
from mmlearn.data.tokenizer import Tokenizer
from mmlearn.layers.config import Config
from mmlearn.objectives.sentences import segment_rows

SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
SPECIAL = {f"{name}_token": getattr(Tokenizer, f"{name}_token") for name in ("pad", "start", "end")}
TEXTS = 5000  # of them, at most, a vocabulary is made
RENDERED = 1000  # the same where each caption costs a whole sample


@dataclass(frozen=True)
class Tokens(Field):
    """``tokens`` and ``mask`` (b, t) of the captions, and ``caption_id`` (b,), which is equal where captions are.

    A batch is as long as its longest text, unless ``whole``: then always ``max_length``, for systems that read padding
    or gather tokens from several processes. With ``words`` the batch also numbers each token's word, so that words are
    masked whole. Where ``maskable`` names words, such as colours, no other word may be masked; with ``grounded`` those
    alone may that a sample's ``links`` ground in its picture, a collage's nouns or a scene's colours. Without
    ``repeats`` there is no ``caption_id``: equal captions count as different. The vocabulary is that of the data, and
    behind it ``sentinels`` numbers that no text has, as T5 needs; ``source`` is the attribute of a sample that holds
    its text.
    """

    tokenizer: Tokenizer | None = None
    whole: bool = False
    words: bool = False
    maskable: Collection[str] | None = None
    grounded: bool = False
    repeats: bool = True
    sentinels: int = 0
    vocab_size: int = 1024  # at most, without sentinels
    max_length: int = 32  # at most
    source: str = "caption"

    optional = ("caption_id", "word")

    def __post_init__(self) -> None:
        if isinstance(self.maskable, str):
            raise ValueError(f"maskable is a collection of words, such as {{'red', 'blue'}}; got {self.maskable!r}.")
        if self.maskable is not None:  # a frozen set, so that fields can be compared and be keys
            object.__setattr__(self, "maskable", frozenset(word.lower() for word in self.maskable))
        if self.grounded and (self.maskable is not None or self.source != "caption"):
            raise ValueError("Grounded words are those of captions: give no maskable words and no other source.")

    @property
    def needs(self) -> str:
        """The attribute that every sample must have."""
        return self.source

    @property
    def holds(self) -> dict[str, str]:
        """The entries and their axes."""
        length = "{max_length}" if self.whole else "t"
        entries = {"tokens": f"Int b {length} < vocab_size", "mask": f"Bool b {length}", "caption_id": "Int b"}
        return entries | ({"word": f"Int b {length} or -1"} if self.words else {})

    def fitted(self, data: Dataset, config: Config, seed: int) -> Self:
        """With a vocabulary of these texts, unless there is one, as that of a language model that is taken over."""
        if self.tokenizer is not None:
            return self
        texts = self.vocabulary_texts(data)
        tokenizer = Tokenizer.train(texts, vocab_size=self.vocab_size, max_length=self.max_length)
        return replace(self, tokenizer=Tokenizer(tokenizer.engine, int(tokenizer(texts)[1].sum(1).max())))

    def vocabulary_texts(self, data: Dataset) -> list[str]:
        """The texts that a vocabulary is made of."""
        count = TEXTS if self.source == "caption" and hasattr(data, "caption") else RENDERED
        return texts_of(data, spread(len(data), count), self.source)

    def sizes(self) -> dict[str, Any]:
        found = {"vocab_size": self.tokenizer.vocab_size + self.sentinels, "max_length": self.tokenizer.max_length}
        return found | {name: getattr(self.tokenizer, name) for name in SPECIAL}

    def example_sizes(self, config: Config) -> dict[str, Any]:
        return dict(SPECIAL)

    def __call__(self, samples: Sequence[Any]) -> Batch:
        if self.tokenizer is None:
            raise ValueError("Tokens has no tokenizer yet: Tokens(Tokenizer.train(captions)), or fitted(…) to data.")
        texts = [getattr(sample, self.source) for sample in samples]
        tokens, mask = self.tokenizer(texts)
        batch = {"tokens": tokens, "mask": mask}
        if self.grounded:
            batch["maskable"] = mask & self._grounded(samples)
        if self.words or self.maskable is not None:
            encoded = self.tokenizer.engine.encode_batch(texts)
            if self.words:
                batch["word"] = torch.tensor(
                    [[-1 if word is None else word for word in one.word_ids] for one in encoded]
                )
            if self.maskable is not None:
                batch["maskable"] = mask & self._named(texts, encoded)
        if not self.whole:
            t = int(mask.sum(1).max())
            batch = {name: value[:, :t] for name, value in batch.items()}
        return batch | ({"caption_id": caption_ids(texts)} if self.repeats else {})

    def check_sample(self, sample: Any, system: str) -> None:
        """As of every field; for ``grounded`` words it also has links."""
        super().check_sample(sample, system)
        if self.grounded and not hasattr(sample, "grounded_position"):
            raise ValueError(
                f"{system} hides grounded words, and nothing links those of these captions to regions: use --data "
                "scenes, --data collages or a COCO folder with its instances, or leave grounded out."
            )

    def _grounded(self, samples: Sequence[Any]) -> Tensor:
        """Which tokens belong to a word that only the picture can tell."""
        found = torch.zeros(len(samples), self.tokenizer.max_length, dtype=torch.bool)
        for row, sample in zip(found, samples):
            for link in sample.links:
                row[self.tokenizer.positions(sample.caption, *sample.grounded_position(link))] = True
        return found

    def _named(self, texts: Sequence[str], encoded: Sequence[Any]) -> Tensor:
        """Which tokens belong to a word of ``maskable``."""
        return torch.tensor(
            [
                [
                    word is not None and text[slice(*one.word_to_chars(word))].lower() in self.maskable
                    for word in one.word_ids
                ]
                for text, one in zip(texts, encoded)
            ]
        )

    def example(self, b: int, config: Config, generator: torch.Generator) -> Batch:
        longest, vocab = size(config, "max_length", 12), size(config, "vocab_size")
        t = longest if self.whole else min(12, longest)
        end = 3 + (torch.arange(b) * 3) % (min(12, t) - 3)  # texts of 4 tokens, with start and end, and more
        tokens = torch.randint(4, vocab - self.sentinels, (b, t), generator=generator)
        tokens[:, 0], tokens[torch.arange(b), end] = Tokenizer.start_token, Tokenizer.end_token
        mask = torch.arange(t) <= end[:, None]
        batch = {"tokens": tokens.masked_fill(~mask, Tokenizer.pad_token), "mask": mask, "caption_id": torch.arange(b)}
        return batch | (
            {"word": (torch.arange(t) - 1).div(2, rounding_mode="floor").expand(b, t)} if self.words else {}
        )

    def save(self, folder: Path) -> dict[str, Any]:
        self.tokenizer.save(folder)
        return {}

    def load(self, folder: Path, values: dict[str, Any]) -> Self:
        return replace(self, tokenizer=Tokenizer.load(folder))


@dataclass(frozen=True)
class Dialogues(Tokens):
    """Texts of a language model, and ``response`` (b, t): which tokens answer, the end token among them.

    The caption of a sample that has a ``prompt`` begins with that, and the rest answers. Of another sample all but the
    start token does. How many positions the language model has, its configuration says, and not the data. Other
    settings as for :class:`Tokens`. Raises ``ValueError`` for a vocabulary whose texts are longer than the language
    model reads.
    """

    @property
    def holds(self) -> dict[str, str]:
        """The entries and their axes."""
        return super().holds | {"response": "Bool b t"}

    def fitted(self, data: Dataset, config: Config, seed: int) -> Self:
        found, most = super().fitted(data, config, seed), size(config, "max_length")
        if found.tokenizer.max_length > most:
            raise ValueError(
                f"Texts of {found.tokenizer.max_length} tokens are more than the {most} that the language model reads: "
                "take one with more positions."
            )
        return found

    def sizes(self) -> dict[str, Any]:
        """As of :class:`Tokens`, without their length."""
        return {name: value for name, value in super().sizes().items() if name != "max_length"}

    def __call__(self, samples: Sequence[Any]) -> Batch:
        batch = super().__call__(samples)
        asked = [self._asked(sample) for sample in samples]
        position = torch.arange(batch["tokens"].shape[1])
        return batch | {"response": batch["mask"] & (position >= torch.tensor(asked)[:, None])}

    def _asked(self, sample: Any) -> int:
        """How many tokens come before the response: the start token and those of the prompt."""
        prompt = getattr(sample, "prompt", "")
        offsets = self.tokenizer.engine.encode(getattr(sample, self.source)).offsets if prompt else ()
        return 1 + sum(start < end <= len(prompt) for start, end in offsets)

    def example(self, b: int, config: Config, generator: torch.Generator) -> Batch:
        """Random texts, of which some tokens answer."""
        batch = super().example(b, config, generator)
        first = 1 + torch.arange(b)[:, None] % 3
        return batch | {"response": batch["mask"] & (torch.arange(batch["mask"].shape[1]) >= first)}


@dataclass(frozen=True)
class Segments(Tokens):
    """Each caption as two segments that follow each other: ``tokens``, ``mask`` and ``token_type`` (b, t).

    A row is ``<start> A <end> B <end>``, and ``token_type`` is 0 up to the first end and 1 behind it. A caption of
    several sentences is cut between two of them, another one between two words. Other settings as for
    :class:`Tokens`, but that words are not numbered. Source: Devlin et al. 2019 (BERT), figure 2.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.words or self.maskable is not None or self.grounded or self.whole:
            raise ValueError("Segments have no words, maskable, grounded or whole: use Tokens, or leave these out.")

    @property
    def holds(self) -> dict[str, str]:
        """The entries and their axes."""
        return super().holds | {"token_type": "Int b t < 2"}

    def sizes(self) -> dict[str, Any]:
        """As of :class:`Tokens`, with room for one more end token."""
        found = super().sizes()
        return found | {"max_length": found["max_length"] + 1}

    def __call__(self, samples: Sequence[Any]) -> Batch:
        if self.tokenizer is None:
            name = type(self).__name__
            raise ValueError(f"{name} has no tokenizer yet: {name}(Tokenizer.train(texts)), or fitted(…) to data.")
        texts = [getattr(sample, self.source) for sample in samples]
        halves = [self.tokenizer(part) for part in zip(*self.pairs(samples))]
        rows = [
            _fit([tokens[real].tolist() for tokens, real in pair], self.tokenizer.max_length + 1)
            for pair in zip(*(zip(tokens, mask) for tokens, mask in halves))
        ]
        return _segment_rows(rows) | ({"caption_id": caption_ids(texts)} if self.repeats else {})

    def pairs(self, samples: Sequence[Any]) -> list[tuple[str, str]]:
        """Both segments of each sample, as text."""
        return [segments(getattr(sample, self.source)) for sample in samples]

    def example(self, b: int, config: Config, generator: torch.Generator) -> Batch:
        """Random pairs of segments, some of which have no second one."""

        def drawn(count: int) -> list[int]:
            return torch.randint(4, size(config, "vocab_size") - self.sentinels, (count,), generator=generator).tolist()

        start, end = [Tokenizer.start_token], [Tokenizer.end_token]
        rows = [([*start, *drawn(1 + i % 3), *end], [*drawn(2 * i % 5), *end]) for i in range(b)]
        return _segment_rows(rows) | {"caption_id": torch.arange(b)}


def segments(text: str) -> tuple[str, str]:
    """A text in two: between two sentences where there are several, else between two words."""
    parts = SENTENCE_END.split(text.strip())
    parts = parts if len(parts) > 1 else text.split()
    middle = (len(parts) + 1) // 2
    return " ".join(parts[:middle]), " ".join(parts[middle:])


def _fit(pair: list[list[int]], most: int) -> tuple[list[int], list[int]]:
    """Both segments without the second start token, and short enough; the longer one loses its last tokens first."""
    first, second = pair[0], pair[1][1:]
    while len(first) + len(second) > most:
        max(first, second, key=len).pop(-2)
    return first, second


def _segment_rows(rows: Sequence[tuple[list[int], list[int]]]) -> Batch:
    """Pairs of segments as rows of a batch."""
    pairs = [(torch.tensor(first, dtype=torch.long), torch.tensor(second, dtype=torch.long)) for first, second in rows]
    return dict(zip(("tokens", "token_type", "mask"), segment_rows(pairs)))


def texts_of(data: Dataset, indices: Sequence[int], source: str = "caption") -> list[str]:
    """The texts of these samples; captions without pictures where the data set has ``caption(index)``."""
    if source == "caption" and hasattr(data, "caption"):
        return [data.caption(index) for index in indices]
    return [getattr(sample, source) for part in in_chunks(data, indices) for sample in part]


def text_samples(data: Dataset, indices: Sequence[int]) -> list[Any]:
    """These samples, or where the data set has ``caption(index)`` their captions alone: no picture is read for them."""
    if hasattr(data, "caption"):
        return [SimpleNamespace(caption=data.caption(index)) for index in indices]
    return fetch(data, indices)


def in_chunks(data: Dataset, indices: Sequence[int]) -> Iterator[list[Any]]:
    """These samples, few enough at a time that their pictures fit the memory."""
    return (fetch(data, indices[start : start + 256]) for start in range(0, len(indices), 256))


@dataclass(frozen=True)
class Labels(Field):
    """``label`` (b,): which of the data's names a sample has. Their number is the size ``into`` of the configuration.

    ``source`` is the attribute that holds the name; ``names`` are all that there are, from the data if not given.
    """

    into: str = "num_classes"
    source: str = "caption"
    names: tuple[str | int, ...] = ()

    known = ("names",)

    def __post_init__(self) -> None:
        if len(set(self.names)) < len(self.names):
            raise ValueError(f"names differ from each other, not {', '.join(map(str, self.names))}.")

    @property
    def holds(self) -> dict[str, str]:
        """The entries and their axes."""
        return {"label": f"Int b < {self.into}"}

    @property
    def needs(self) -> str:
        """The attribute that every sample must have."""
        return self.source

    def fitted(self, data: Dataset, config: Config, seed: int) -> Self:
        if self.source != "caption":
            found = fetch(data, spread(len(data), 200))
            return replace(self, names=tuple(sorted({getattr(sample, self.source) for sample in found})))
        if names := getattr(data, "words", ()):  # a data set that knows them, such as Speech Commands
            return replace(self, names=tuple(names))
        # All captions where reading them is cheap, so that no rare name is missed.
        count = len(data) if hasattr(data, "caption") else TEXTS
        found = texts_of(data, spread(len(data), count))
        names = tuple(sorted(set(found)))
        if not 2 <= len(names) <= len(found) / 2:
            raise ValueError(
                f"Captions are told apart here, and these are {len(names)} different ones of {len(found)}: use data "
                "where each occurs often, or take a system that reads texts, such as clap."
            )
        return replace(self, names=names)

    def sizes(self) -> dict[str, Any]:
        return {self.into: len(self.names)}

    def example_sizes(self, config: Config) -> dict[str, Any]:
        return {self.into: size(config, self.into) or 7}

    def __call__(self, samples: Sequence[Any]) -> Batch:
        number = {name: i for i, name in enumerate(self.names)}
        for sample in samples:
            if (name := getattr(sample, self.source)) not in number:
                raise ValueError(
                    f"{name!r} is none of the {len(number)} names that were learned: let every split hold some of each."
                )
        return {"label": torch.tensor([number[getattr(sample, self.source)] for sample in samples])}

    def example(self, b: int, config: Config, generator: torch.Generator) -> Batch:
        return {"label": torch.arange(b) % size(config, self.into)}


@dataclass(frozen=True)
class Answers(Field):
    """``answer`` (b,): the number of the right answer to each sample's question, among the data's answers."""

    answers: tuple[str, ...] = ()

    holds = {"answer": "Int b < answers"}
    known = ("answers",)
    needs = "question"

    def check_sample(self, sample: Any, system: str) -> None:
        if getattr(sample, "question", None) is None:
            raise ValueError(
                "vqa learns from questions with answers: use --data scenes or --data easy-vqa or --data collages, or "
                "leave vqa out."
            )

    def fitted(self, data: Dataset, config: Config, seed: int) -> Self:
        return replace(self, answers=tuple(getattr(data, "labels", ANSWERS)))

    def sizes(self) -> dict[str, Any]:
        return {"answers": len(self.answers)}

    def example_sizes(self, config: Config) -> dict[str, Any]:
        return {"answers": size(config, "answers") or 7}

    def __call__(self, samples: Sequence[Any]) -> Batch:
        number = {answer: i for i, answer in enumerate(self.answers)}
        for sample in samples:
            if (answer := sample.question.answer) not in number:
                raise ValueError(f"{answer!r} is none of the {len(number)} answers: {', '.join(number)}.")
        return {"answer": torch.tensor([number[sample.question.answer] for sample in samples])}

    def example(self, b: int, config: Config, generator: torch.Generator) -> Batch:
        return {"answer": torch.arange(b) % size(config, "answers")}
