"""What bridges share: parts that stay as they are, and a picture that stands before a text as embeddings.

The language model reads embeddings. Those of words come from its table; those that a bridge makes of a picture are no
word's, and stand before them. Nothing else changes, so without any of them the language model says what it always said.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Self

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmlearn.generation.cache import Read, Reading, go_on
from mmlearn.generation.decoding import greedy
from mmlearn.layers import ImageEncoderConfig
from mmlearn.layers.embeddings import look_up
from mmlearn.models.text.gpt2 import GPT2, GPT2Config
from mmlearn.objectives.generative import causal_language_modelling, response_language_modelling

TINY_IMAGE = ImageEncoderConfig(64, 3, 2, image_size=64, patch_size=16, class_token=False, embedding_norm=True)
TINY_LANGUAGE = GPT2Config(**GPT2Config.PRESETS["tiny"])


class BridgeOutput(NamedTuple):
    prefix: Float[Tensor, "b n d"]  # what stands for the picture
    token_logits: Float[Tensor, "b t v"]  # at place i: what comes after token i


class Bridge(nn.Module):
    """A system with an ``image_encoder`` and a ``language_model`` that others have trained.

    A part of which nothing learns is in evaluation mode while the rest is trained, so nothing of it is dropped.
    """

    image_encoder: nn.Module
    language_model: GPT2 | None

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        self.settle()
        return self

    def settle(self) -> None:
        """Put both parts into the mode that goes with what learns now, which stages decide."""
        for part in filter(None, (self.image_encoder, self.language_model)):
            part.train(self.training and any(parameter.requires_grad for parameter in part.parameters()))


class PrefixBridge(Bridge):
    """A bridge that turns a picture into n embeddings, which stand before the text.

    A system gives ``prefix(image)``. Its ``config`` says with ``prefix_places`` whether those embeddings take places of
    the language model, as words do, or none: then words keep the places that they have without a picture.
    """

    def prefix(self, image: Float[Tensor, "b 3 height width"]) -> Float[Tensor, "b n d"]:
        """The embeddings that stand for each picture, as wide as those of words."""
        raise NotImplementedError

    def forward(
        self,
        image: Float[Tensor, "b 3 height width"],
        tokens: Int[Tensor, "b t"],
        mask: Bool[Tensor, "b t"] | None = None,
    ) -> BridgeOutput:
        prefix = self.prefix(image)
        return BridgeOutput(prefix, self.logits_behind(prefix, tokens, mask))

    def logits_behind(
        self, prefix: Float[Tensor, "b n d"], tokens: Int[Tensor, "b t"], mask: Bool[Tensor, "b t"] | None = None
    ) -> Float[Tensor, "b t v"]:
        """What the language model says after each token of a text that stands behind these embeddings."""
        n = prefix.shape[1]
        states = states_behind(self.language_model, prefix, n, tokens, mask, places=self.config.prefix_places)
        return self.language_model.logits(states)

    def reader(self, image: Float[Tensor, "b 3 height width"]) -> Read:
        """What reads texts about these pictures, and scores the token after them."""
        prefix, model = self.prefix(image), self.language_model

        def read(now: Reading) -> Float[Tensor, "n v"]:
            given = now.context(prefix), prefix.shape[1], now.tokens, now.mask, now.position
            return model.logits(states_behind(model, *given, places=self.config.prefix_places)[:, -1])

        return read

    @torch.no_grad()
    def generate(
        self,
        image: Float[Tensor, "b 3 height width"],
        decode: Callable[..., Tensor] = greedy,  # of mmlearn.generation.decoding
        *,
        prompt: Int[Tensor, "b prompt"] | None = None,
        prompt_mask: Bool[Tensor, "b prompt"] | None = None,
        max_length: int = 20,
    ) -> Int[Tensor, "b t"]:
        """Texts that go on from the ``prompt``, of up to ``max_length`` tokens with it and with the end token.

        Shorter prompts are padded at their left, where ``prompt_mask`` is False.
        """
        return write_about(self, self.reader(image), len(image), decode, prompt, prompt_mask, max_length)

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Float[Tensor, ""]]:
        """The next token of each text behind its picture; with a ``response`` in the batch, of that alone."""
        self.settle()
        return text_loss(self(batch["image"], batch["tokens"], batch.get("mask")).token_logits, batch)


def states_behind(
    model: GPT2,
    prefix: Float[Tensor, "b n_or_0 d"],
    n: int,
    tokens: Int[Tensor, "b t"],
    mask: Bool[Tensor, "b all"] | None = None,
    position: Int[Tensor, "b t"] | None = None,
    *,
    places: bool = True,
) -> Float[Tensor, "b t d"]:
    """States of the tokens of a text that stands behind n embeddings.

    ``prefix`` is empty where its keys are in a cache. ``mask`` and ``position`` count words alone. Raises
    ``ValueError`` where the language model has fewer places than are needed, or embeddings of another width.
    """
    width, most, first = model.config.width, model.config.max_length, n if places else 0
    if prefix.shape[-1] != width:
        raise ValueError(f"The bridge gives embeddings of width {prefix.shape[-1]}; the language model reads {width}.")
    if first + tokens.shape[1] > most:
        raise ValueError(
            f"{f'{n} embeddings of pictures and ' if first else ''}{tokens.shape[1]} tokens are more than the {most} "
            "places of the language model: give fewer or shorter texts."
        )
    if position is None:
        words = look_up(model.embedding.tokens, tokens) + model.embedding.positions[first : first + tokens.shape[1]]
    else:
        words = model.embedding(tokens, position + first)
    if places:
        prefix = prefix + model.embedding.positions[: prefix.shape[1]]
    mask = None if mask is None else F.pad(mask, (n, 0), value=True)
    return model.read(torch.cat([prefix, words], dim=1), mask)[:, prefix.shape[1] :]


def write_about(
    system: Bridge,
    read: Read,
    b: int,
    decode: Callable[..., Tensor],
    prompt: Int[Tensor, "b prompt"] | None,
    prompt_mask: Bool[Tensor, "b prompt"] | None,
    max_length: int,
) -> Int[Tensor, "b t"]:
    """The prompts, or nothing, and what is written behind them."""
    language = system.language_model.config
    if prompt is None:
        prompt = torch.zeros(b, 0, dtype=torch.long, device=system.language_model.embedding.positions.device)
    ids = dict(end_token=language.end_token, pad_token=language.pad_token)
    return go_on(system.language_model, read, language.start_token, prompt, prompt_mask, decode, max_length, **ids)


def text_loss(logits: Float[Tensor, "b t v"], batch: dict[str, Tensor]) -> dict[str, Float[Tensor, ""]]:
    """Cross-entropy of the text, or of its ``response`` where the batch says which tokens that is.

    ``ValueError`` for a batch without a text.
    """
    tokens, mask = batch["tokens"], batch.get("mask")
    if not len(tokens):
        raise ValueError("A batch holds at least one picture with its text.")
    if "response" in batch:
        return {"lm": response_language_modelling(logits, tokens, batch["response"], mask)}
    return {"lm": causal_language_modelling(logits, tokens, mask)}


def check_language_model(config: Any) -> None:
    """``ValueError`` where special tokens are none of the language model's vocabulary."""
    language = config.language_model
    for name in ("start_token", "end_token", "pad_token"):
        if not 0 <= getattr(language, name) < language.vocab_size:
            raise ValueError(
                f"{name} {getattr(language, name)} is none of the {language.vocab_size} tokens of the language model."
            )
