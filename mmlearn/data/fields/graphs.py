"""Captions with a graph: the scene graph that a caption states, and what a knowledge graph says about its words."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset

from mmlearn.data.fields.field import Batch, size
from mmlearn.data.fields.labels import SPECIAL, Label, MaskedTokens, Sizes
from mmlearn.data.fields.texts import Tokens
from mmlearn.data.synthetic.layouts import COLOURS, RELATIONS, SHAPES, SIZES, TEXTURES
from mmlearn.data.tokenizer import Tokenizer
from mmlearn.layers.config import Config
from mmlearn.objectives.masked import IGNORED, ROLES, mask_nodes

Word = tuple[int, ...]  # its tokens


# The scene graph of a caption.


@dataclass(frozen=True)
class GraphTokens(Tokens):
    """Tokens of captions, and of each caption's scene graph ``role`` and ``node`` (b, t).

    ``role`` is the number in ``ROLES`` of what a token names, and ``node`` tells which object, attribute or
    relation of the caption it is; both are -1 elsewhere. ``phrases`` are those that name something, for each role: by
    default those of scenes, whose graph they give without an error. Other settings as for
    :class:`~mmlearn.data.fields.Tokens`.
    """

    phrases: tuple[tuple[str, ...], ...] = (SHAPES, (*SIZES, *TEXTURES, *COLOURS), RELATIONS)

    optional = (*Tokens.optional, "role", "node")

    @property
    def holds(self) -> dict[str, str]:
        """The entries and their axes."""
        axes = "Int b {max_length} or -1" if self.whole else "Int b t or -1"
        return super().holds | {"role": axes, "node": axes}

    def parse(self, text: str) -> list[tuple[int, int, int]]:
        """The nodes of a text in its order: where the phrase begins and ends, and its role."""
        nodes = []
        for role, phrases in enumerate(self.phrases):
            either = "|".join(sorted(map(re.escape, phrases), key=len, reverse=True)) or "(?!)"  # which nothing fits
            nodes += [(*found.span(), role) for found in re.finditer(rf"\b(?:{either})\b", text, re.IGNORECASE)]
        return sorted(nodes)

    def __call__(self, samples: Sequence[Any]) -> Batch:
        batch = super().__call__(samples)
        texts = [getattr(sample, self.source) for sample in samples]
        role, node = torch.full((2, len(texts), self.tokenizer.max_length), -1)
        for i, (text, encoded) in enumerate(zip(texts, self.tokenizer.engine.encode_batch(texts))):
            words = [(0, 0) if word is None else encoded.word_to_chars(word) for word in encoded.word_ids]
            for k, (start, end, which) in enumerate(self.parse(text)):
                named = torch.tensor([first < end and last > start for first, last in words])
                role[i, named], node[i, named] = which, k
        t = batch["tokens"].shape[1]
        return batch | {"role": role[:, :t], "node": node[:, :t]}

    def example(self, b: int, config: Config, generator: torch.Generator) -> Batch:
        """Random tokens, of which two at a time are a node, of each role in turn."""
        batch = super().example(b, config, generator)
        node = ((torch.arange(batch["tokens"].shape[1]) - 1) // 2).expand_as(batch["tokens"])
        node = node.masked_fill(torch.isin(batch["tokens"], torch.tensor(SPECIAL)), -1)
        return batch | {"role": torch.where(node < 0, -1, node % len(ROLES)), "node": node}


@dataclass(frozen=True)
class MaskedNodes(Label):
    """Some nodes of one ``role`` are hidden. ``object_label`` and so on (b, t) holds the true tokens, -100 elsewhere.

    Of :class:`GraphTokens`. Words that another label hid before are left alone.
    Source: Yu et al. 2021 (ERNIE-ViL), scene graph prediction.
    """

    role: str
    probability: float = 0.3

    @property
    def holds(self) -> dict[str, str]:
        """The entry and its axes."""
        return {f"{self.role}_label": "Int b t < vocab_size or -100"}

    def __call__(self, batch: Batch, generator: torch.Generator, sizes: Sizes) -> Batch:
        role = batch["role"]
        if "token_label" in batch:
            role = role.masked_fill(batch["token_label"] != IGNORED, -1)
        tokens, label = mask_nodes(
            batch["tokens"],
            role,
            batch["node"],
            ROLES.index(self.role),
            vocab_size=sizes("vocab_size"),
            mask_token=Tokenizer.mask_token,
            special=SPECIAL,
            generator=generator,
            probability=self.probability,
        )
        return batch | {"tokens": tokens, f"{self.role}_label": label}


# What a knowledge graph says about the words of a sentence.


class SentenceTree(NamedTuple):
    """A sentence with branches of knowledge, flattened: n tokens in the order in which they are read."""

    tokens: Int[Tensor, "n"]
    position: Int[Tensor, "n"]
    entity: Int[Tensor, "n"]  # the number of the word that a token is of, or that its branch hangs on
    branch: Int[Tensor, "n"]  # 0: the sentence itself


def inject(words: Iterable[Word], graph: Mapping[Word, Sequence[tuple[Word, Word]]]) -> SentenceTree:
    """Put what ``graph`` knows of each word behind it: a branch of relation and tail for each of its triples.

    Words, relations and tails are tuples of tokens. Positions are soft: those of a branch go on from its word, and the
    sentence's go on as if no branch were there, so two tokens may share one.
    Source: Liu et al. 2020 (K-BERT), knowledge and embedding layer; Song et al. 2021 (KVL-BERT), section 3.
    """
    rows: list[tuple[int, int, int, int]] = []
    position = branches = 0
    for number, word in enumerate(words):
        rows += [(token, position + i, number, 0) for i, token in enumerate(word)]
        position += len(word)
        for relation, tail in graph.get(word, ()):
            branches += 1
            rows += [(token, position + i, number, branches) for i, token in enumerate((*relation, *tail))]
    return SentenceTree(*torch.tensor(rows, dtype=torch.long).reshape(-1, 4).unbind(1))


@dataclass(frozen=True)
class KnowledgeTokens(Tokens):
    """Tokens of captions in which what is known of a word stands behind it, as :func:`inject` puts it there.

    ``tokens``, ``mask``, ``position``, ``entity`` and ``branch`` (b, t) are those of the flattened tree; padding has
    the entity -1. ``graph`` maps a word to its (relation, tail) pairs, all of them texts, whose tokens the vocabulary
    gets as well. Other settings as for :class:`~mmlearn.data.fields.Tokens`, but for words, maskable, grounded and
    whole.
    """

    graph: Mapping[str, Sequence[tuple[str, str]]] | tuple[Any, ...] = ()

    optional = (*Tokens.optional, "position", "entity", "branch")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.words or self.maskable is not None or self.grounded or self.whole:
            raise ValueError(
                "KnowledgeTokens have no words, maskable, grounded or whole: use Tokens or leave these out."
            )
        # Tuples, so that fields can be compared and be keys.
        known = tuple((word, tuple(map(tuple, triples))) for word, triples in dict(self.graph).items())
        object.__setattr__(self, "graph", known)

    @property
    def holds(self) -> dict[str, str]:
        """The entries and their axes."""
        return super().holds | {"position": "Int b t < max_length", "entity": "Int b t or -1", "branch": "Int b t"}

    def vocabulary_texts(self, data: Dataset) -> list[str]:
        known = [f"{word} {relation} {tail}" for word, triples in self.graph for relation, tail in triples]
        return super().vocabulary_texts(data) + known

    def sizes(self) -> dict[str, Any]:
        """As of :class:`~mmlearn.data.fields.Tokens`, with room for a branch behind the last word."""
        branches = [len(relation) + len(tail) for triples in self._graph().values() for relation, tail in triples]
        found = super().sizes()
        return found | {"max_length": found["max_length"] + max(branches, default=0)}

    def __call__(self, samples: Sequence[Any]) -> Batch:
        batch, graph = super().__call__(samples), self._graph()
        texts = [getattr(sample, self.source) for sample in samples]
        trees = [inject(_words(encoded), graph) for encoded in self.tokenizer.engine.encode_batch(texts)]
        return batch | _padded_trees(trees)

    def _graph(self) -> dict[Word, list[tuple[Word, Word]]]:
        """The graph as tokens."""

        def tokens(text: str) -> Word:
            return sum(_words(self.tokenizer.engine.encode(text))[1:-1], ())

        return {tokens(word): [(tokens(one), tokens(other)) for one, other in triples] for word, triples in self.graph}

    def example(self, b: int, config: Config, generator: torch.Generator) -> Batch:
        """Random tokens, of which every second one is a word with a branch of two."""
        batch = super().example(b, config, generator)
        graph = {(token,): [((token - 1,), (token - 2,))] for token in range(6, size(config, "vocab_size"), 2)}
        texts = [tokens[real].tolist() for tokens, real in zip(batch["tokens"], batch["mask"])]
        return batch | _padded_trees([inject([(token,) for token in text], graph) for text in texts])


def _words(encoded: Any) -> list[Word]:
    """The tokens of each word of an encoded text, start and end among them."""
    words: dict[Any, Word] = {}
    for position, (token, word, real) in enumerate(zip(encoded.ids, encoded.word_ids, encoded.attention_mask)):
        if real:
            key = ("special", position) if word is None else word
            words[key] = (*words.get(key, ()), token)
    return list(words.values())


def _padded_trees(trees: Sequence[SentenceTree]) -> Batch:
    """Trees as rows of a batch."""
    rows = {name: [getattr(tree, name) for tree in trees] for name in SentenceTree._fields}
    batch = {
        name: pad_sequence(each, batch_first=True, padding_value=-1 if name == "entity" else 0)
        for name, each in rows.items()
    }
    return batch | {"mask": torch.arange(batch["tokens"].shape[1]) < torch.tensor([[len(x)] for x in rows["tokens"]])}


@dataclass(frozen=True)
class MaskedSentence(MaskedTokens):
    """Some ``tokens`` of the sentence are hidden, as by :class:`~mmlearn.data.fields.MaskedTokens`; of knowledge none.

    What is known of a hidden word would tell it, so those branches lose their ``entity``: nothing sees them any more.
    """

    def __call__(self, batch: Batch, generator: torch.Generator, sizes: Sizes) -> Batch:
        sentence = batch["mask"] & (batch["branch"] == 0)
        batch = super().__call__(batch | {"maskable": sentence}, generator, sizes)
        entity, hidden = batch["entity"], batch["token_label"] != IGNORED
        of_hidden = ((entity[:, :, None] == entity[:, None]) & hidden[:, None]).any(-1)  # (b, t)
        return batch | {"entity": entity.masked_fill(of_hidden & ~sentence, -1)}
