"""What bridges share: frozen parts, and an image that becomes a prefix of embeddings before a text.

The language model reads embeddings. Those of words come from its table; a bridge computes others from an image, and
puts them before the words. Nothing else changes, so that without a prefix the language model predicts what it always
did.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mmlearn.generation.cache import DecodingStep, ScoreNext, continue_prompts
from mmlearn.generation.decoding import greedy
from mmlearn.models.bridges.projector import FrozenParts
from mmlearn.models.text.gpt2 import GPT2, GPT2Config
from mmlearn.objectives.generative import causal_language_modelling, response_language_modelling

TINY_LANGUAGE = GPT2Config(**GPT2Config.PRESETS["tiny"])

Shots = tuple[Float[Tensor, "b s c height width"], Int[Tensor, "b s t"], Bool[Tensor, "b s t"]]


class BridgeOutput(NamedTuple):
    prefix: Float[Tensor, "b n d"]  # the embeddings of the image
    token_logits: Float[Tensor, "b t v"]  # at position i: of the token after token i


class Prefix(NamedTuple):
    """The embeddings before a text, to which their positions are added already."""

    x: Float[Tensor, "b n d"]
    mask: Bool[Tensor, "b n"]
    num_positions: int | Int[Tensor, "b"]  # how many of the language model's positions they take


class Bridge(FrozenParts):
    """A system whose ``language_model`` goes on where a text ends, as GPT-2 and OPT do."""

    language_model: GPT2

    def step_function(self, image: Float[Tensor, "b c height width"], shots: Shots | None = None) -> ScoreNext:
        """The function that decoding calls: it scores the next token of texts. ``shots`` as in :meth:`generate`."""
        raise NotImplementedError

    @torch.no_grad()
    def generate(
        self,
        image: Float[Tensor, "b c height width"],
        decode: Callable[..., Tensor] = greedy,  # of mmlearn.generation.decoding
        *,
        prompt: Int[Tensor, "b prompt"] | None = None,
        prompt_mask: Bool[Tensor, "b prompt"] | None = None,
        shots: Shots | None = None,
        max_length: int = 20,
    ) -> Int[Tensor, "b length"]:
        """Texts that continue the ``prompt``, of up to ``max_length`` tokens with it and with the end token.

        Shorter prompts are padded at their left, where ``prompt_mask`` is False. ``shots`` are s images, each followed
        by its text, that come before the image of each row. ``ValueError`` for more tokens than positions.
        """
        read, model = self.step_function(image, shots), self.language_model
        prompt = torch.zeros(len(image), 0, dtype=torch.long, device=image.device) if prompt is None else prompt
        ids = dict(end_token=model.config.end_token, pad_token=model.config.pad_token)
        return continue_prompts(model, read, model.config.start_token, prompt, prompt_mask, decode, max_length, **ids)


class PrefixBridge(Bridge):
    """A bridge that turns an image into n embeddings, which come before the text.

    A subclass defines ``prefix(image)``. With ``prefix_positions`` in its ``config`` those embeddings take positions of
    the language model, as words do; else they take none, and words keep the positions that they have without an image.
    """

    def prefix(self, image: Float[Tensor, "b c height width"]) -> Float[Tensor, "b n d"]:
        """The embeddings of each image, as wide as those of words."""
        raise NotImplementedError

    def forward(
        self,
        image: Float[Tensor, "b c height width"],
        tokens: Int[Tensor, "b t"],
        mask: Bool[Tensor, "b t"] | None = None,
    ) -> BridgeOutput:
        prefix = self.prefix(image)
        return BridgeOutput(prefix, self.logits_after_prefix(prefix, tokens, mask))

    def logits_after_prefix(
        self, prefix: Float[Tensor, "b n d"], tokens: Int[Tensor, "b t"], mask: Bool[Tensor, "b t"] | None = None
    ) -> Float[Tensor, "b t v"]:
        """Logits of the next token after each token of a text that follows these embeddings."""
        before = image_prefix(self.language_model, prefix, self.config.prefix_positions)
        return self.language_model.logits(states_after_prefix(self.language_model, before, tokens, mask))  # (b, t, v)

    def embed_prefix(self, image: Float[Tensor, "b c height width"], shots: Shots | None = None) -> Prefix:
        """What comes before the text of each image: the image, and before it the shots, if any."""
        positions = self.config.prefix_positions
        if shots is None:
            prefix = self.prefix(image)
            return image_prefix(self.language_model, prefix, positions)
        images, tokens, mask = shots
        b, s = images.shape[:2]
        images = torch.cat([images, image[:, None]], 1)  # (b, s + 1, 3, height, width)
        prefixes = self.prefix(images.flatten(0, 1)).unflatten(0, (b, s + 1))  # (b, s + 1, n, d)
        return few_shot_prefix(self.language_model, prefixes, tokens, mask, positions)

    def step_function(self, image: Float[Tensor, "b c height width"], shots: Shots | None = None) -> ScoreNext:
        prefix, model = self.embed_prefix(image, shots), self.language_model

        def read(step: DecodingStep) -> Float[Tensor, "n v"]:
            count = prefix.num_positions if isinstance(prefix.num_positions, int) else step.rows(prefix.num_positions)
            before = Prefix(
                step.context(prefix.x), step.rows(prefix.mask), count
            )  # empty once its keys are in the cache
            return model.logits(states_after_prefix(model, before, step.tokens, step.mask, step.position)[:, -1])

        return read

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Float[Tensor, ""]]:
        """The next token of each text after its image; with a ``response`` in the batch, of the response alone."""
        self.freeze_modes()
        return text_loss(self(batch["image"], batch["tokens"], batch.get("mask")).token_logits, batch)


def image_prefix(model: GPT2, prefix: Float[Tensor, "b n d"], positions: bool) -> Prefix:
    """The prefix of one image, whose embeddings take ``positions`` of the language model or none.

    ``ValueError`` for embeddings of another width, and for more of them than positions.
    """
    b, n, width = prefix.shape
    if width != model.config.width:
        reads = model.config.width
        raise ValueError(f"The bridge gives embeddings of width {width}; the language model reads {reads}.")
    if positions:
        check_positions(model, n, "the picture")
        prefix = prefix + model.embedding.position_table[:n]
    return Prefix(prefix, torch.ones(b, n, dtype=torch.bool, device=prefix.device), n if positions else 0)


def interleave(
    model: GPT2,
    prefixes: Float[Tensor, "b s n d"],
    tokens: Int[Tensor, "b s t"],
    mask: Bool[Tensor, "b s t"],
    positions: bool,
) -> Prefix:
    """Images and texts, interleaved: s images of n embeddings, each followed by its text.

    ``ValueError`` where they take more positions than the language model has.
    """
    (s, t), n = tokens.shape[1:], prefixes.shape[2]
    words = model.embedding.words(tokens.flatten(1)).unflatten(1, (s, t))  # (b, s, t, d)
    position = interleaved_positions(mask, n, positions)  # (b, s (n + t))
    num_positions = (position >= 0).sum(1)
    check_positions(model, int(num_positions.max()), f"{s} pictures with their texts")
    x = torch.cat([prefixes, words], 2).flatten(1, 2)  # (b, s (n + t), d)
    x = x + model.embedding.position_table[position] * (position >= 0)[..., None]
    return Prefix(x, torch.cat([mask.new_ones(*mask.shape[:2], n), mask], 2).flatten(1), num_positions)


def interleaved_positions(mask: Bool[Tensor, "b s t"], n: int, takes: bool) -> Int[Tensor, "b all"]:
    """The position of each embedding where s images of n embeddings and s texts are interleaved.

    Positions count from 0 through all texts. Padding has none, which is -1, and so do images unless each of
    their embeddings ``takes`` one. Source: Tsimpoukelli et al. 2021 (Frozen), section 3.
    """
    counted = F.pad(mask, (n, 0), value=takes).flatten(1)
    return (counted.cumsum(1) - 1).masked_fill(~counted, -1)


def few_shot_prefix(
    model: GPT2,
    prefixes: Float[Tensor, "b images n d"],
    tokens: Int[Tensor, "b s t"],
    mask: Bool[Tensor, "b s t"],
    positions: bool,
) -> Prefix:
    """s interleaved images and texts, and one more image. ``ValueError`` for more embeddings than positions."""
    shots, last = interleave(model, prefixes[:, :-1], tokens, mask, positions), prefixes[:, -1]
    n, count = last.shape[1], torch.as_tensor(shots.num_positions)  # (b,)
    if positions:
        check_positions(model, int(count.max()) + n, f"{tokens.shape[1]} shots and a picture after them")
        last = last + model.embedding.position_table[count[:, None] + torch.arange(n, device=last.device)]  # (b, n, d)
        count = count + n
    mask = torch.cat([shots.mask, shots.mask.new_ones(len(last), n)], dim=1)
    return Prefix(torch.cat([shots.x, last], dim=1), mask, count)


def check_positions(model: GPT2, needed: int, what: str) -> None:
    """``ValueError`` where the language model has fewer positions than this needs."""
    if needed > (most := model.config.max_length):
        raise ValueError(
            f"{what} need {needed} positions, and the language model has {most}: give fewer, or shorter ones."
        )


def states_after_prefix(
    model: GPT2,
    prefix: Prefix,
    tokens: Int[Tensor, "b t"],
    mask: Bool[Tensor, "b all"] | None = None,
    position: Int[Tensor, "b t"] | None = None,
) -> Float[Tensor, "b t d"]:
    """States of the tokens of a text that follows a prefix.

    ``prefix.x`` is empty where its keys are in a cache. ``mask`` and ``position`` count words of this text alone; both
    are needed where the prefix has shots. Raises ``ValueError`` for more tokens than positions.
    """
    t, first = tokens.shape[1], prefix.num_positions  # the position of the first word
    if position is None:
        if not isinstance(first, int):
            raise ValueError("Words after shots are counted in each row by itself: give their position.")
        check_positions(model, first + t, f"{f'{first} embeddings of a picture and ' if first else ''}{t} tokens")
        words = model.embedding.words(tokens) + model.embedding.position_table[first : first + t]  # (b, t, d)
    else:
        words = model.embedding(tokens, position + (first if isinstance(first, int) else first[:, None]))
    mask = None if mask is None else torch.cat([prefix.mask, mask], dim=1)
    return model.read(torch.cat([prefix.x, words], dim=1), mask)[:, prefix.x.shape[1] :]  # (b, n + t, d) → (b, t, d)


def text_loss(logits: Float[Tensor, "b t v"], batch: dict[str, Tensor]) -> dict[str, Float[Tensor, ""]]:
    """Cross-entropy of the text, or of its ``response`` where the batch has one.

    ``ValueError`` for a batch without a text.
    """
    tokens, mask = batch["tokens"], batch.get("mask")
    if not len(tokens):
        raise ValueError("A batch holds at least one picture with its text.")
    if "response" in batch:
        return {"lm": response_language_modelling(logits, tokens, batch["response"], mask)}
    return {"lm": causal_language_modelling(logits, tokens, mask)}


def check_special_tokens(config: Any) -> None:
    """``ValueError`` where a special token is not in the language model's vocabulary."""
    language = config.language_model
    for name in ("start_token", "end_token", "pad_token"):
        if not 0 <= getattr(language, name) < language.vocab_size:
            raise ValueError(
                f"{name} {getattr(language, name)} is none of the {language.vocab_size} tokens of the language model."
            )
