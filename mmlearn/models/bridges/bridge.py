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

Shots = tuple[Float[Tensor, "b s 3 height width"], Int[Tensor, "b s t"], Bool[Tensor, "b s t"]]


class BridgeOutput(NamedTuple):
    prefix: Float[Tensor, "b n d"]  # what stands for the picture
    token_logits: Float[Tensor, "b t v"]  # at place i: what comes after token i


class Before(NamedTuple):
    """What stands before a text, embedded, with its places."""

    x: Float[Tensor, "b n d"]
    real: Bool[Tensor, "b n"]
    taken: int | Int[Tensor, "b"]  # places of the language model


class Bridge(nn.Module):
    """A system with parts that others have trained, such as a ``language_model``.

    A part of which nothing learns is in evaluation mode while the rest is trained, so nothing of it is dropped.
    """

    language_model: GPT2 | None

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        self.settle()
        return self

    def settle(self) -> None:
        """Put each part into the mode that goes with what learns now, which stages decide."""
        for part in self.children():
            if learns := [parameter.requires_grad for parameter in part.parameters()]:
                part.train(self.training and any(learns))

    def reader(self, image: Float[Tensor, "b 3 height width"], shots: Shots | None = None) -> Read:
        """What reads texts about each picture, and scores the token after them. ``shots`` as in :meth:`generate`."""
        raise NotImplementedError

    @torch.no_grad()
    def generate(
        self,
        image: Float[Tensor, "b 3 height width"],
        decode: Callable[..., Tensor] = greedy,  # of mmlearn.generation.decoding
        *,
        prompt: Int[Tensor, "b prompt"] | None = None,
        prompt_mask: Bool[Tensor, "b prompt"] | None = None,
        shots: Shots | None = None,
        max_length: int = 20,
    ) -> Int[Tensor, "b length"]:
        """Texts that go on from the ``prompt``, of up to ``max_length`` tokens with it and with the end token.

        Shorter prompts are padded at their left, where ``prompt_mask`` is False. ``shots`` are s pictures with their
        texts, in turn, for each row, which stand before. ``ValueError`` for more than there are places.
        """
        read, model = self.reader(image, shots), self.language_model
        prompt = torch.zeros(len(image), 0, dtype=torch.long, device=image.device) if prompt is None else prompt
        ids = dict(end_token=model.config.end_token, pad_token=model.config.pad_token)
        return go_on(model, read, model.config.start_token, prompt, prompt_mask, decode, max_length, **ids)


class PrefixBridge(Bridge):
    """A bridge that turns a picture into n embeddings, which stand before the text.

    A system gives ``prefix(image)``. Its ``config`` says with ``prefix_positions`` whether those embeddings take places
    of the language model, as words do, or none: then words keep the places that they have without a picture.
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
        before = picture_before(self.language_model, prefix, self.config.prefix_positions)
        return self.language_model.logits(states_behind(self.language_model, before, tokens, mask))

    def before(self, image: Float[Tensor, "b 3 height width"], shots: Shots | None = None) -> Before:
        """What stands before a text about each picture: examples of what is asked, if any, and the picture."""
        places, model = self.config.prefix_positions, self.language_model
        if shots is None:
            return picture_before(model, self.prefix(image), places)
        pictures, tokens, mask = shots
        b, s = pictures.shape[:2]
        shown = self.prefix(torch.cat([pictures, image[:, None]], 1).flatten(0, 1)).unflatten(0, (b, s + 1))
        return shots_before(model, shown, tokens, mask, places)

    def reader(self, image: Float[Tensor, "b 3 height width"], shots: Shots | None = None) -> Read:
        before, model = self.before(image, shots), self.language_model

        def read(now: Reading) -> Float[Tensor, "n v"]:
            taken = before.taken if isinstance(before.taken, int) else now.rows(before.taken)
            behind = Before(now.context(before.x), now.rows(before.real), taken)
            return model.logits(states_behind(model, behind, now.tokens, now.mask, now.position)[:, -1])

        return read

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Float[Tensor, ""]]:
        """The next token of each text behind its picture; with a ``response`` in the batch, of that alone."""
        self.settle()
        return text_loss(self(batch["image"], batch["tokens"], batch.get("mask")).token_logits, batch)


def picture_before(model: GPT2, prefix: Float[Tensor, "b n d"], places: bool) -> Before:
    """A picture alone; with ``places`` its embeddings take some of the language model. ``ValueError`` as told below."""
    b, n, width = prefix.shape
    if width != model.config.width:
        reads = model.config.width
        raise ValueError(f"The bridge gives embeddings of width {width}; the language model reads {reads}.")
    if places:
        check_places(model, n, "the picture")
        prefix = prefix + model.embedding.positions[:n]
    return Before(prefix, torch.ones(b, n, dtype=torch.bool, device=prefix.device), n if places else 0)


def in_turn(
    model: GPT2,
    prefixes: Float[Tensor, "b s n d"],
    tokens: Int[Tensor, "b s t"],
    mask: Bool[Tensor, "b s t"],
    places: bool,
) -> Before:
    """Pictures and texts in turn, of which each row may have others: each sees all that stands before it.

    ``ValueError`` where they take more places than the language model has.
    """
    (s, t), n = tokens.shape[1:], prefixes.shape[2]
    words = look_up(model.embedding.tokens, tokens.flatten(1)).unflatten(1, (s, t))
    place = places_in_turn(mask, n, places)
    taken = (place >= 0).sum(1)
    check_places(model, int(taken.max()), f"{s} pictures with their texts")
    x = torch.cat([prefixes, words], 2).flatten(1, 2) + model.embedding.positions[place] * (place >= 0)[..., None]
    return Before(x, torch.cat([mask.new_ones(*mask.shape[:2], n), mask], 2).flatten(1), taken)


def places_in_turn(mask: Bool[Tensor, "b s t"], n: int, takes: bool) -> Int[Tensor, "b all"]:
    """The place of the language model that everything has where s pictures of n embeddings and s texts take turns.

    Places go on from one text to the next, from 0. Padding has none, which is -1, and so do pictures unless each of
    their embeddings ``takes`` one. Source: Tsimpoukelli et al. 2021 (Frozen), section 3.
    """
    counted = F.pad(mask, (n, 0), value=takes).flatten(1)
    return (counted.cumsum(1) - 1).masked_fill(~counted, -1)


def shots_before(
    model: GPT2,
    prefixes: Float[Tensor, "b pictures n d"],
    tokens: Int[Tensor, "b s t"],
    mask: Bool[Tensor, "b s t"],
    places: bool,
) -> Before:
    """Pictures and texts in turn, and one more picture at the end. ``ValueError`` for more than there are places."""
    shots, last = in_turn(model, prefixes[:, :-1], tokens, mask, places), prefixes[:, -1]
    n, taken = last.shape[1], shots.taken
    if places:
        check_places(model, int(taken.max()) + n, f"{tokens.shape[1]} shots and a picture behind them")
        last, taken = last + model.embedding.positions[taken[:, None] + torch.arange(n, device=last.device)], taken + n
    real = torch.cat([shots.real, shots.real.new_ones(len(last), n)], dim=1)
    return Before(torch.cat([shots.x, last], dim=1), real, taken)


def check_places(model: GPT2, needed: int, what: str) -> None:
    """``ValueError`` where the language model has fewer places than are needed for this."""
    if needed > (most := model.config.max_length):
        raise ValueError(
            f"{what} need {needed} places, and the language model has {most}: give fewer, or shorter ones."
        )


def states_behind(
    model: GPT2,
    before: Before,
    tokens: Int[Tensor, "b t"],
    mask: Bool[Tensor, "b all"] | None = None,
    position: Int[Tensor, "b t"] | None = None,
) -> Float[Tensor, "b t d"]:
    """States of the tokens of a text that stands behind a picture.

    ``before.x`` is empty where its keys are in a cache. ``mask`` and ``position`` count words of this text alone; both
    are given where shots stand before it. Raises ``ValueError`` where the language model has fewer places than are
    needed.
    """
    t, taken = tokens.shape[1], before.taken
    if position is None:
        check_places(model, taken + t, f"{f'{taken} embeddings of a picture and ' if taken else ''}{t} tokens")
        words = look_up(model.embedding.tokens, tokens) + model.embedding.positions[taken : taken + t]
    else:
        words = model.embedding(tokens, position + (taken if isinstance(taken, int) else taken[:, None]))
    mask = None if mask is None else torch.cat([before.real, mask], dim=1)
    return model.read(torch.cat([before.x, words], dim=1), mask)[:, before.x.shape[1] :]


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


def check_specials(config: Any) -> None:
    """``ValueError`` where special tokens are none of the language model's vocabulary."""
    language = config.language_model
    for name in ("start_token", "end_token", "pad_token"):
        if not 0 <= getattr(language, name) < language.vocab_size:
            raise ValueError(
                f"{name} {getattr(language, name)} is none of the {language.vocab_size} tokens of the language model."
            )
