"""The recipe of Whisper: what it reads, what it learns, and how that is measured."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import torch
from torch.utils.data import Dataset

from mmlearn.data.fields import Batch, Tokens, WhisperMel, size
from mmlearn.data.tokenizer import PublishedTokenizer
from mmlearn.evaluation.measures import Rows, next_token_accuracy, row
from mmlearn.evaluation.speech import edit_rate
from mmlearn.layers.config import Config
from mmlearn.models.speech.whisper import Whisper, WhisperConfig
from mmlearn.models.speech.whisper_prompt import SpecialTokens
from mmlearn.recipes import Objective, Recipe, ln


@dataclass(frozen=True)
class Transcripts(Tokens):
    """``tokens`` and ``mask`` (b, t) as of :class:`Tokens`, with a prompt behind the start token.

    The prompt says that the text is a transcript without times, and in which language: that of the sample, or English
    where it says none. The special tokens stand behind the vocabulary. ``ValueError`` for texts that are longer than
    the model writes, and for a language that it does not know.
    """

    special: SpecialTokens = SpecialTokens(0, (), 0)  # of the fitted vocabulary

    def fitted(self, data: Dataset, config: Config, seed: int) -> Self:
        found: Any = super().fitted(data, config, seed)
        special, most = size(config, "special"), size(config, "max_length")
        if not isinstance(found.tokenizer, PublishedTokenizer):  # which belongs to the vocabulary of the configuration
            special = special._replace(vocab_size=found.tokenizer.vocab_size + special.count)
        found = replace(found, sentinels=special.count, special=special)
        if (longest := found.tokenizer.max_length + len(found.prompt())) > most:
            raise ValueError(f"Texts of {longest} tokens with their prompt are more than the {most} of this model.")
        return found

    def prompt(self, language: str = "en") -> tuple[int, ...]:
        """The tokens between the start token and a text in this language."""
        return self.special.prompt(language if self.special.multilingual else None)

    def sizes(self) -> dict[str, Any]:
        """As of :class:`Tokens`, without their length, which the configuration says.

        The tokenizer of a published model may itself know special tokens, or some of them.
        """
        found = {name: value for name, value in super().sizes().items() if name != "max_length"}
        return found | {"vocab_size": self.special.vocab_size}

    def __call__(self, samples: Sequence[Any]) -> Batch:
        batch = super().__call__(samples)
        prompts = torch.tensor([self.prompt(getattr(sample, "language", "en")) for sample in samples])
        for name, put_in in (("tokens", prompts), ("mask", torch.ones_like(prompts, dtype=torch.bool))):
            batch[name] = torch.cat([batch[name][:, :1], put_in, batch[name][:, 1:]], 1)
        return batch

    def save(self, folder: Path) -> dict[str, Any]:
        """The special tokens; the tokenizer goes into the ``folder``."""
        return super().save(folder) | {"special": self.special._asdict()}

    def load(self, folder: Path, values: dict[str, Any]) -> Self:
        """The inverse of :meth:`save`."""
        special = SpecialTokens(**values["special"])
        special = special._replace(languages=tuple(special.languages))
        return replace(super().load(folder, values), special=special, sentinels=special.count)


def transcript_errors(run: Any, samples: Sequence[Any]) -> Rows:
    """Error rates of words and letters in greedy transcripts, told the language. Chance: those of the next sound.

    Source: Radford et al. 2022 (Whisper), section 4.4, for what is taken out of texts first.
    """

    def plain(text: str) -> str:
        """Without case and punctuation, which are a matter of taste."""
        return " ".join(re.sub(r"[^\w\s]", " ", text.lower()).split())

    said: list[str] = []
    for start in range(0, len(samples), 32):
        part = samples[start : start + 32]
        spoken = [getattr(sample, "language", "en") for sample in part] if run.system.config.multilingual else None
        for batch in run.batches(part):
            written = run.system.generate(batch["mel"], language=spoken, max_length=run.tokenizer.max_length)
            said += [plain(run.tokenizer.decode(text)) for text in written]
    right = [plain(sample.caption) for sample in samples]
    other = [*said[1:], said[0]]
    return {
        f"{unit} error rate": row(*(edit_rate(list(map(cut, texts)), list(map(cut, right))) for texts in (said, other)))
        for unit, cut in (("word", str.split), ("letter", list))
    }


RECIPE = Recipe(
    Whisper,
    WhisperConfig,
    reads=(WhisperMel(), Transcripts()),
    learns=Objective(
        "transcription", {"transcription": ln("vocab_size")}, measures=(next_token_accuracy, transcript_errors)
    ),
    writes=True,
    architecture="""
    log-mel [30 s] -> convolutions [every second frame] -> sines [position] -> encoder -> decoder [causal]
    prompt and text [language, task, times] -> sum [token, position] -> decoder
    decoder -> language head -> !transcription
    sum == language head
    """,
)
