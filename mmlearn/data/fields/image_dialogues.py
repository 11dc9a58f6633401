"""Texts of a vision–language model, in which tokens stand for images."""

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import torch
from torch.utils.data import Dataset

from mmlearn.data.batches import caption_ids, spread
from mmlearn.data.fields.field import Batch, resize, size
from mmlearn.data.fields.texts import Dialogues, Tokens, text_samples
from mmlearn.layers.config import Config

CHECKED = 256  # conversations whose length is looked at before the first batch


@dataclass(frozen=True)
class ImageDialogues(Dialogues):
    """As :class:`Dialogues`, with the image tokens of one image after the start token of each text.

    The image token is the last of the vocabulary, and no word. A vision–language model reads an embedding of the image
    at each; how many there are, ``image_tokens``, its configuration says, as ``num_image_tokens``.

    Where the tokenizer is that of a language model that chats, a text is a question and its answer in turns of its
    template, and the image token one of its vocabulary. To a caption the question is what ``asks`` of the tokenizer is.
    Raises ``ValueError`` for a conversation that is longer than the language model reads.
    """

    sentinels: int = 1
    image_tokens: int = 0
    longest: int | None = None  # conversation, in tokens, that the language model reads

    def fitted(self, data: Dataset, config: Config, seed: int) -> Self:
        """As of :class:`Dialogues`, with the number of image tokens."""
        config = resize(config, {"image_size": int(data[0].image.shape[-1])})
        count, most = config.num_image_tokens, size(config, "max_length")
        found = Tokens.fitted(self, data, config, seed)
        if found.chat is None and (needed := found.tokenizer.max_length + count) > most:
            raise ValueError(
                f"Texts of {found.tokenizer.max_length} tokens and {count} of an image are {needed}, more than the "
                f"{most} that the language model reads: take shorter ones, or smaller pictures."
            )
        if found.chat is None:
            return replace(found, image_tokens=count)
        chat = copy(found.chat)  # of which an image takes so many tokens from now on
        chat.begin(chat.template, chat.first, chat.image_token, count)
        found = replace(found, tokenizer=chat, image_tokens=count, longest=most)
        found.lengths(data, spread(len(data), CHECKED))  # others are checked when their batch comes
        return found

    @property
    def chat(self) -> Any:
        """The tokenizer, if it knows the turns of a chat."""
        return self.tokenizer if hasattr(self.tokenizer, "turns") else None

    def sizes(self) -> dict[str, Any]:
        """As of :class:`Dialogues`; of a language model that chats its own numbers hold."""
        return super().sizes() if self.chat is None else {"image_token": self.chat.image_token}

    def _in_turns(self, samples: Sequence[Any]) -> Batch:
        texts = [getattr(sample, self.source) for sample in samples]
        prompts = [getattr(sample, "prompt", "") for sample in samples]
        answers = [text[len(prompt) :].strip() for text, prompt in zip(texts, prompts)]
        tokens, response, real = self.chat.encode([prompt or self.chat.asks for prompt in prompts], answers)
        if self.longest is not None and tokens.shape[1] > self.longest:
            i = int(real.sum(1).argmax())
            raise ValueError(
                f"The conversation {texts[i]!r:.60} has {tokens.shape[1]} tokens, {self.image_tokens} of them of its "
                f"image, and the language model reads {self.longest}: shorten it, or take smaller pictures."
            )
        batch = {"tokens": tokens, "mask": real, "response": response}
        return batch | ({"caption_id": caption_ids(texts)} if self.repeats else {})

    def __call__(self, samples: Sequence[Any]) -> Batch:
        if self.chat is not None:
            return self._in_turns(samples)
        return self.with_images(super().__call__(samples), self.tokenizer.vocab_size, self.image_tokens)

    def lengths(self, data: Dataset, indices: Sequence[int]) -> list[int]:
        """How many tokens the texts of these samples have, with those of an image. Errors as of a batch of them."""
        return self(text_samples(data, indices))["mask"].sum(1).tolist()

    def example(self, b: int, config: Config, generator: torch.Generator) -> Batch:
        return self.with_images(
            super().example(b, config, generator), size(config, "vocab_size") - 1, config.num_image_tokens
        )

    @staticmethod
    def with_images(batch: Batch, image_token: int, count: int) -> Batch:
        """The batch with so many image tokens after each start token; they are real, and nobody is to say them."""
        put_in = {"tokens": image_token, "mask": True, "response": False}
        return {
            name: torch.cat([x[:, :1], x.new_full((len(x), count), put_in[name]), x[:, 1:]], 1) if name in put_in else x
            for name, x in batch.items()
        }

    def save(self, folder: Path) -> dict[str, Any]:
        """As of :class:`Dialogues`, with the number of image tokens."""
        return super().save(folder) | {"image_tokens": self.image_tokens}

    def load(self, folder: Path, values: dict[str, Any]) -> Self:
        """The inverse of :meth:`save`."""
        return replace(super().load(folder, values), image_tokens=int(values["image_tokens"]))
