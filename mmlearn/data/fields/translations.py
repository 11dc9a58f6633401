"""Captions in two languages, and what is hidden or exchanged in them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Int
from torch import Tensor
from torch.utils.data import Dataset

from mmlearn.data.batches import spread
from mmlearn.data.fields.field import Batch, size
from mmlearn.data.fields.labels import SPECIAL, Label, Sizes
from mmlearn.data.fields.texts import RENDERED, Tokens, texts_of
from mmlearn.data.tokenizer import Tokenizer
from mmlearn.layers.config import Config
from mmlearn.objectives.masked import mask_tokens
from mmlearn.objectives.translation import code_switch

# The entries of a caption, what is padding in each, and the same of its translation.
EXCHANGED = (("tokens", Tokenizer.pad_token, "translation"), ("mask", False, "translation_mask"))
EXCHANGED += (("word_pair", -1, "translation_pair"),)


@dataclass(frozen=True)
class Translations(Tokens):
    """As :class:`Tokens`, and ``translation`` with ``translation_mask`` (b, u), the captions in another language.

    Both languages have one vocabulary. Where the data know which word translates which, ``word_pair`` (b, t) and
    ``translation_pair`` (b, u) number them: tokens of a word and of its translation have one number, and others -1.
    ``class_names`` are names of regions, in the language of captions; the last token of each is in ``class_tokens`` of
    the configuration.
    """

    class_names: tuple[str, ...] = ()

    optional = ("caption_id", "word_pair", "translation_pair")

    @property
    def holds(self) -> dict[str, str]:
        """The entries and their axes."""
        texts = {"translation": "Int b u < vocab_size", "translation_mask": "Bool b u"}
        return super().holds | texts | {"word_pair": "Int b t or -1", "translation_pair": "Int b u or -1"}

    def check_sample(self, sample: Any, system: str) -> None:
        """``ValueError`` for a sample without a translation."""
        super().check_sample(sample, system)
        if getattr(sample, "translation", None) is None:
            raise ValueError(
                f"{system} reads captions in two languages, and these samples have no translation: use --data scenes "
                "or --data stamps."
            )

    def vocabulary_texts(self, data: Dataset) -> list[str]:
        """Captions and translations."""
        return super().vocabulary_texts(data) + texts_of(data, spread(len(data), RENDERED), "translation")

    def sizes(self) -> dict[str, Any]:
        """As of :class:`Tokens`, and which tokens name classes."""
        named = tuple(int(self.tokenizer.prompt(name)[-1]) for name in self.class_names)
        return super().sizes() | {"class_tokens": named}

    def example_sizes(self, config: Config) -> dict[str, Any]:
        """With a token for each class of the detector."""
        classes, ordinary = size(config, "region_classes", 0), size(config, "vocab_size") - 4
        return super().example_sizes(config) | {"class_tokens": tuple(4 + k % ordinary for k in range(classes))}

    def __call__(self, samples: Sequence[Any]) -> Batch:
        batch = super().__call__(samples)
        tokens, mask = self.tokenizer([sample.translation for sample in samples])
        u = int(mask.sum(1).max())
        batch |= {"translation": tokens[:, :u], "translation_mask": mask[:, :u]}
        if not all(hasattr(sample, "translated_words") for sample in samples):
            return batch
        word = self._word_numbers([sample.caption for sample in samples])[:, : batch["tokens"].shape[1]]
        other = self._word_numbers([sample.translation for sample in samples])[:, :u]
        pairs = [torch.tensor([*sample.translated_words, -1]) for sample in samples]  # -1 is that of no word
        return batch | {"word_pair": word, "translation_pair": torch.stack([p[row] for p, row in zip(pairs, other)])}

    def _word_numbers(self, texts: Sequence[str]) -> Int[Tensor, "b t"]:
        """Which word of its text each token is of, as white space divides it; -1 of a token that is of none."""
        return torch.tensor(
            [
                [
                    -1 if word is None else len(text[:end].split()) - 1
                    for word, (_, end) in zip(one.word_ids, one.offsets)
                ]
                for text, one in zip(texts, self.tokenizer.engine.encode_batch(list(texts)))
            ]
        )

    def example(self, b: int, config: Config, generator: torch.Generator) -> Batch:
        """Random texts, of which each word is two tokens long."""
        batch, other = (super(Translations, self).example(b, config, generator) for _ in range(2))
        batch |= {"translation": other["tokens"].flip(0), "translation_mask": other["mask"].flip(0)}
        number = (torch.arange(batch["tokens"].shape[1]) - 1).div(2, rounding_mode="floor").expand(b, -1)
        pairs = {"word_pair": "mask", "translation_pair": "translation_mask"}
        return batch | {name: number.masked_fill(~batch[mask], -1) for name, mask in pairs.items()}


class EitherLanguage(Label):
    """Half of the rows have their caption and its translation exchanged, so that both languages are learned."""

    def __call__(self, batch: Batch, generator: torch.Generator, sizes: Sizes) -> Batch:
        b, n = len(batch["tokens"]), max(batch["tokens"].shape[1], batch["translation"].shape[1])
        swapped, changed = (torch.randperm(b, generator=generator) < b // 2)[:, None], {}
        for name, padding, other in (each for each in EXCHANGED if each[0] in batch):
            one, two = (F.pad(batch[key], (0, n - batch[key].shape[1]), value=padding) for key in (name, other))
            changed |= {name: torch.where(swapped, two, one), other: torch.where(swapped, one, two)}
        return batch | changed


@dataclass(frozen=True)
class CodeSwitched(Label):
    """Captions of which some words are translated, each with this ``probability``. Translations stay as they are.

    Source: Ni et al. 2021 (M3P), section 3.2.
    """

    probability: float = 0.5

    def __call__(self, batch: Batch, generator: torch.Generator, sizes: Sizes) -> Batch:
        names = ("tokens", "translation", "mask", "translation_mask", "word_pair", "translation_pair")
        tokens, mask = code_switch(*(batch[name] for name in names), self.probability, generator)
        n = max(1, int(mask.sum(1).max()))
        rest = {name: value for name, value in batch.items() if name not in ("word_pair", "translation_pair")}
        return rest | {"tokens": tokens[:, :n], "mask": mask[:, :n]}


@dataclass(frozen=True)
class MaskedTranslations(Label):
    """Some tokens of both texts are hidden, and ``token_label`` (b, t) and ``translation_label`` (b, u) hold them.

    Elsewhere labels are -100. ``together``: a word is hidden whole and with its translation (co-masking), so that it
    cannot be read off there. Source: Lample & Conneau 2019 (XLM), section 3.3; Zhou et al. 2021 (UC2), section 3.2.
    """

    together: bool = False
    probability: float = 0.15

    holds = {"token_label": "Int b t < vocab_size or -100", "translation_label": "Int b u < vocab_size or -100"}

    def __call__(self, batch: Batch, generator: torch.Generator, sizes: Sizes) -> Batch:
        def side_by_side(one: str, other: str) -> Tensor:
            return torch.cat([batch[one], batch[other]], dim=1)

        hidden, label = mask_tokens(
            side_by_side("tokens", "translation"),
            side_by_side("mask", "translation_mask"),
            vocab_size=sizes("vocab_size"),
            mask_token=Tokenizer.mask_token,
            special=SPECIAL,
            generator=generator,
            probability=self.probability,
            words=side_by_side("word_pair", "translation_pair") if self.together else None,
        )
        t = batch["tokens"].shape[1]
        texts = {"tokens": hidden[:, :t], "translation": hidden[:, t:]}
        return batch | texts | {"token_label": label[:, :t], "translation_label": label[:, t:]}
