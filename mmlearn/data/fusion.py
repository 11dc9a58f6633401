"""Batches for fusion pretraining: what is masked, swapped or asked is a function of the samples and a seed alone.

So a stopped run goes on with the same masks, bit for bit, and no worker or process needs a state.
"""

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from mmlearn.data.batches import normalised, numbered
from mmlearn.data.hashing import stream, uniform
from mmlearn.data.made.questions import ANSWERS
from mmlearn.data.made.regions import SceneDetector, scene_keys
from mmlearn.data.made.scenes import SceneSample, lay_out
from mmlearn.data.tokenizer import Tokenizer
from mmlearn.names import choices
from mmlearn.objectives.masked import mask_regions, mask_tokens
from mmlearn.objectives.matching import random_negatives

OBJECTIVES = ("mlm", "mrm", "itm", "vqa", "itc")


class FusionCollate:
    """Samples with ``image`` and ``caption`` → a batch with the labels of pretraining objectives.

    Always ``image`` (b, 3, height, width), normalised by ``mean`` and ``std``, ``tokens`` and ``mask`` (b, t); with a
    ``detector`` also what it finds. Each objective adds its labels:

    - ``mlm``: some ``tokens`` are hidden, ``token_label`` (b, t) is the true one there and -100 elsewhere. With
      ``whole_words`` all tokens of a word are hidden together. Where ``masked_words`` are named, such as colours, no
      other word is hidden.
    - ``mrm``: some ``regions`` are 0, ``masked_regions`` (b, p) says which, ``region_target`` (b, p, f) is what all of
      them were. Serves regression and both classifications.
    - ``itm``: half the rows have another row's text, never an equal one; ``match_label`` (b,) is 0 there, else 1.
    - ``vqa``: the text is the sample's ``question``; ``answer`` (b,) counts in ``answers``.
    - ``itc``: ``caption_id`` (b,), equal where captions are.

    A batch serves one objective, drawn with equal odds as UNITER does. The draw depends on the captions, so processes
    that share a batch may draw different ones: there use ``together``, and no ``vqa`` among others. With ``together`` a
    batch serves all, as in ViLBERT and LXMERT: a text is swapped first and then masked; where ``vqa`` is among others,
    half the batches have questions, masked like captions and never swapped, and half captions. The text without masks
    is ``tokens.where(token_label == -100, token_label)``.

    ``wrong_captions`` is the share of scenes that carry another scene's caption for good, whatever the batch and the
    epoch: noise as in pairs from the web. :meth:`is_wrong` tells which.

    Raises ``ValueError`` for objectives that are unknown, none, or cannot go together (``itm`` swaps the texts that
    ``itc`` compares: ALBEF and BLIP find negatives themselves), for ``mrm`` without a detector, a share outside 0 to 1,
    an empty batch, for ``itm`` a batch with one caption only, for samples without what an option needs,
    and for an answer that is none of ``answers``.
    Source: Chen et al. 2020 (UNITER), section 3.2; Tan & Bansal 2019 (LXMERT), section 3.1.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        objectives: Sequence[str] = ("mlm", "itm"),
        *,
        detector: SceneDetector | None = None,
        mean: Sequence[float] = (0.5, 0.5, 0.5),
        std: Sequence[float] = (0.5, 0.5, 0.5),
        probability: float = 0.15,
        region_probability: float = 0.15,
        whole_words: bool = False,
        masked_words: Collection[str] | None = None,
        together: bool = False,
        answers: Sequence[str] = ANSWERS,
        wrong_captions: float = 0.0,
        seed: int = 0,
    ):
        if isinstance(objectives, str) or not objectives:
            raise ValueError(f"objectives are a list with at least one of {', '.join(OBJECTIVES)}; got {objectives!r}.")
        if unknown := next((name for name in objectives if name not in OBJECTIVES), None):
            raise ValueError(f"There is no objective {unknown!r} for a batch; {choices(unknown, OBJECTIVES)}.")
        if "mrm" in objectives and detector is None:
            raise ValueError("mrm masks regions: pass a detector, such as SceneDetector().")
        if together and {"itm", "itc"} <= set(objectives):
            raise ValueError(
                "itm swaps the texts that itc compares, so they cannot share a batch: leave itm out, or together."
            )
        shares = dict(probability=probability, region_probability=region_probability, wrong_captions=wrong_captions)
        if isinstance(masked_words, str):
            raise ValueError(f"masked_words is a collection of words, such as {{'red', 'blue'}}; got {masked_words!r}.")
        for name, share in shares.items():
            if not 0 <= share <= 1:
                raise ValueError(f"{name} is a share from 0 to 1, got {share}.")
        self.tokenizer, self.objectives, self.detector = tokenizer, tuple(objectives), detector
        self.mean, self.std = mean, std
        self.probability, self.region_probability = probability, region_probability
        self.whole_words, self.together = whole_words, together
        self.masked_words = None if masked_words is None else {word.lower() for word in masked_words}
        self.answers = {answer: number for number, answer in enumerate(answers)}
        self.wrong_captions, self.seed = wrong_captions, seed

    def __call__(self, samples: Sequence[Any]) -> dict[str, Tensor]:
        if not samples:
            raise ValueError("A batch holds at least one text and picture, got no sample.")
        texts = self.captions(samples)
        generator = torch.Generator().manual_seed(int(stream("fusion", self.seed, *texts)) >> 1)
        chosen = self._choose(generator)
        batch = {"image": normalised(samples, self.mean, self.std)}
        if self.detector is not None:
            batch |= self.detector(samples)
        if "vqa" in chosen:
            texts, batch["answer"] = self._ask(samples)
        if "itc" in chosen:
            batch["caption_id"] = numbered(texts)
        if "itm" in chosen:
            texts, batch["match_label"] = _swap(texts, generator)
        batch["tokens"], batch["mask"] = self.tokenizer(texts)
        if "mlm" in chosen:
            words, maskable = self._words(texts, batch["mask"])
            batch["tokens"], batch["token_label"] = mask_tokens(
                batch["tokens"],
                maskable,
                vocab_size=self.tokenizer.vocab_size,
                mask_token=self.tokenizer.mask_token,
                special=(self.tokenizer.pad_token, self.tokenizer.start_token, self.tokenizer.end_token),
                generator=generator,
                probability=self.probability,
                words=words,
            )
        if "mrm" in chosen:
            masked = mask_regions(batch["region_mask"], generator=generator, probability=self.region_probability)
            batch |= {"masked_regions": masked, "region_target": batch["regions"]}
            batch["regions"] = batch["regions"].masked_fill(masked[..., None], 0)
        return batch

    def captions(self, samples: Sequence[Any]) -> list[str]:
        """The caption that each sample has here: its own, or the wrong one that it always has."""
        captions = [sample.caption for sample in samples]
        wrong = self.is_wrong(samples).nonzero()[:, 0].tolist()
        if wrong:
            # The caption of another training scene, which depends on nothing but this scene and the seed.
            other = uniform(stream("other caption", self.seed), scene_keys(samples[i] for i in wrong), 1)[:, 0]
            layout = lay_out("train", (other * 2**24).astype(np.int64), self.seed)
            for row, i in enumerate(wrong):
                captions[i] = SceneSample(samples[i].image, layout, row).caption
        return captions

    def is_wrong(self, samples: Sequence[Any]) -> Bool[Tensor, "b"]:
        """Which samples carry a wrong caption."""
        if not self.wrong_captions:
            return torch.zeros(len(samples), dtype=torch.bool)
        chance = uniform(stream("wrong caption", self.seed), scene_keys(samples), 1)[:, 0]
        return torch.from_numpy(chance < self.wrong_captions)

    def _choose(self, generator: torch.Generator) -> set[str]:
        """The objectives of this batch."""
        draw = torch.rand((), generator=generator).item()
        if not self.together:
            return {self.objectives[int(draw * len(self.objectives))]}
        others = set(self.objectives) - {"vqa"}
        if "vqa" not in self.objectives or (others and draw < 0.5):
            return others
        return set(self.objectives) - {"itm", "itc"}

    def _ask(self, samples: Sequence[Any]) -> tuple[list[str], Int[Tensor, "b"]]:
        """The question of each sample, and the number of its answer."""
        for sample in samples:
            if not hasattr(sample, "question"):
                raise ValueError(
                    f"vqa learns from questions with answers, as scenes and easy-vqa have; got {type(sample).__name__}."
                )
            if (answer := sample.question.answer) not in self.answers:
                raise ValueError(f"{answer!r} is none of the {len(self.answers)} answers: {', '.join(self.answers)}.")
        numbers = [self.answers[sample.question.answer] for sample in samples]
        return [sample.question.text for sample in samples], torch.tensor(numbers)

    def _words(
        self, texts: Sequence[str], mask: Bool[Tensor, "b t"]
    ) -> tuple[Int[Tensor, "b t"] | None, Bool[Tensor, "b t"]]:
        """The number of each token's word, -1 for none, where words are hidden whole; and which tokens may be."""
        if not self.whole_words and self.masked_words is None:
            return None, mask
        encoded = self.tokenizer.engine.encode_batch(list(texts))
        if self.masked_words is not None:
            named = [
                [
                    word is not None and text[slice(*item.word_to_chars(word))].lower() in self.masked_words
                    for word in item.word_ids
                ]
                for text, item in zip(texts, encoded)
            ]
            mask = mask & torch.tensor(named)
        words = [[-1 if word is None else word for word in item.word_ids] for item in encoded]
        return torch.tensor(words) if self.whole_words else None, mask


def _swap(texts: Sequence[str], generator: torch.Generator) -> tuple[list[str], Int[Tensor, "b"]]:
    """Half the rows, chosen by chance, get another row's text; and 0 for these, 1 for the others."""
    other = random_negatives(numbered(texts), generator)
    swapped = torch.randperm(len(texts), generator=generator) < len(texts) // 2
    source = torch.where(swapped, other, torch.arange(len(texts)))
    return [texts[i] for i in source.tolist()], (~swapped).long()
