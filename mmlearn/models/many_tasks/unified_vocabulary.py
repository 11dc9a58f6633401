"""What systems share that solve all tasks by tokens of one vocabulary: words, then locations, then image codes.

A box is four location tokens: left, top, right, bottom. An image is codes, row by row. So a caption, an answer, a
region and an image are all written by one decoder, from left to right, and learned by one loss. Source: Wang et al.
2022 (OFA), section 3.2; Chen et al. 2022 (Pix2Seq), section 2.1, for locations.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmlearn.generation.cache import DecodingStep, ScoreNext, cached
from mmlearn.generation.decoding import greedy
from mmlearn.layers.embeddings import look_up
from mmlearn.models.text.writing import source_texts
from mmlearn.objectives import shifted_right, text_denoising
from mmlearn.objectives.boxes import dequantise
from mmlearn.tensor_checks import values_are_readable


class Vocabulary:
    """Which tokens are of which type, for a configuration with ``vocab_size`` words, ``bins`` and ``codes``."""

    vocab_size: int
    bins: int
    codes: int

    @property
    def location_tokens(self) -> range:
        """The numbers of locations."""
        return range(self.vocab_size, self.vocab_size + self.bins)

    @property
    def first_code(self) -> int:
        """The number of code 0."""
        return self.vocab_size + self.bins

    @property
    def all_tokens(self) -> int:
        """Words, locations and codes."""
        return self.first_code + self.codes


class Seq2SeqOutput(NamedTuple):
    token_logits: Float[Tensor, "b o v"]  # at position i: of token i of the target
    context: Float[Tensor, "b n d"]  # the states of the encoder


class UnifiedVocabulary(nn.Module):
    """A system that reads images and texts, and writes tokens of one vocabulary.

    A subclass defines ``encode(…)``, which returns a context and its mask, and :meth:`decode`. Its ``config`` is
    a :class:`Vocabulary` with ``start_token``, with which a target begins, ``end_token`` and ``pad_token``.
    """

    def decode(
        self,
        target: Int[Tensor, "b q"],
        context: Float[Tensor, "b n_or_0 d"],
        mask: Bool[Tensor, "b n"],
        position: Int[Tensor, "b q"] | None = None,
        target_mask: Bool[Tensor, "b o"] | None = None,
    ) -> Float[Tensor, "b q v"]:
        """Logits of the next token after each token of a target, which begins with the start token."""
        raise NotImplementedError

    def decoder_input(self, target: Int[Tensor, "b o"]) -> Int[Tensor, "b o"]:
        """What the decoder reads to write this target: the start token, and then all of it but the last token."""
        return shifted_right(target, self.config.start_token)

    def step_function(self, context: Float[Tensor, "b n d"], mask: Bool[Tensor, "b n"]) -> ScoreNext:
        """The function that decoding calls: it scores the next token of targets."""

        def read(step: DecodingStep) -> Float[Tensor, "n v"]:
            return self.decode(step.tokens, step.context(context), step.rows(mask), step.position, step.mask)[:, -1]

        return read

    @torch.no_grad()
    def write(
        self,
        decode: Callable[..., Tensor] = greedy,  # of mmlearn.generation.decoding
        *,
        allowed: range | None = None,
        count: int | None = None,
        max_length: int = 32,
        **inputs: Any,
    ) -> Int[Tensor, "b o"]:
        """The target for these inputs: words up to the end token, or ``count`` tokens of those ``allowed``."""
        config, (context, mask) = self.config, self.encode(**inputs)
        first = 0 if allowed is None else allowed.start  # a token of the type that is written
        start = self.decoder_input(torch.full((len(context), 1), first, device=context.device))
        permitted = torch.zeros(config.all_tokens, dtype=torch.bool, device=context.device)
        permitted[slice(config.vocab_size) if allowed is None else slice(allowed.start, allowed.stop)] = True
        read = self.step_function(context, mask)
        end = config.end_token if count is None else config.all_tokens  # a number that no token has
        length = max_length if count is None else count
        ids = dict(end_token=end, pad_token=config.pad_token, max_length=length + 1)
        masked = lambda step: read(step).masked_fill(~permitted, -torch.inf)  # noqa: E731
        with cached(self, masked, torch.ones_like(start).bool()) as next_logits:
            return decode(next_logits, start, **ids)[:, 1:]  # without the start token

    def locate(self, decode: Callable[..., Tensor] = greedy, **inputs: Any) -> Float[Tensor, "b 4"]:
        """The box that each text refers to: left, top, right and bottom as shares of the image."""
        locations = self.config.location_tokens
        tokens = self.write(decode, allowed=locations, count=4, **inputs)  # (b, 4)
        return dequantise(tokens - locations.start, len(locations))

    def draw(self, count: int, decode: Callable[..., Tensor] = greedy, **inputs: Any) -> Int[Tensor, "b count"]:
        """``count`` codes of an image for each text."""
        first = self.config.first_code
        return self.write(decode, allowed=range(first, self.config.all_tokens), count=count, **inputs) - first


def token_loss(logits: Float[Tensor, "b o v"], batch: dict[str, Tensor]) -> dict[str, Float[Tensor, ""]]:
    """``tokens``: the cross-entropy of every real token of the target, of whatever type."""
    return {"tokens": text_denoising(logits, batch["target"], batch.get("target_mask"))}


class ImageTextSeq2Seq(UnifiedVocabulary):
    """A :class:`UnifiedVocabulary` that reads an ``image`` and ``tokens``, in which a text begins with ``text_start``.

    It has a table of ``tokens``, and ``target_positions`` (length, d) for the tokens of a target.
    """

    def forward(
        self,
        image: Float[Tensor, "b 3 height width"] | None,
        tokens: Int[Tensor, "b t"],
        target: Int[Tensor, "b o"],
        mask: Bool[Tensor, "b t"] | None = None,
    ) -> Seq2SeqOutput:
        context, mask = self.encode(image, tokens, mask)
        return Seq2SeqOutput(self.decode(self.decoder_input(target), context, mask), context)

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Float[Tensor, ""]]:
        """The :func:`token_loss` of the target. ``ValueError`` without a text."""
        check_texts(batch)
        output = self(batch.get("image"), batch["tokens"], batch["target"], batch.get("mask"))
        return token_loss(output.token_logits, batch)

    def embed_target(
        self, target: Int[Tensor, "b q"], position: Int[Tensor, "b q"] | None, target_mask: Bool[Tensor, "b o"] | None
    ) -> Float[Tensor, "b q d"]:
        """Tokens of a target with their positions. ``ValueError`` for more tokens than positions."""
        length, most = (target if target_mask is None else target_mask).shape[1], len(self.target_positions)
        if length > most:
            raise ValueError(f"{length} tokens are more than the {most} of a target: write fewer.")
        positions = self.target_positions[: target.shape[1]] if position is None else self.target_positions[position]
        return look_up(self.tokens, target) + positions  # (b, q, d)

    @torch.no_grad()
    def generate(
        self,
        image: Float[Tensor, "b 3 height width"],
        decode: Callable[..., Tensor] = greedy,
        *,
        prompt: Int[Tensor, "b t"] | None = None,
        prompt_mask: Bool[Tensor, "b t"] | None = None,
        max_length: int = 32,
    ) -> Int[Tensor, "b o"]:
        """The words that answer prompts about images, with the end token. Prompts have no special tokens."""
        prompt = torch.zeros(len(image), 0, dtype=torch.long, device=image.device) if prompt is None else prompt
        start, end = [self.config.text_start], [self.config.end_token]
        tokens, mask = source_texts(prompt, prompt_mask, start, end, self.config.pad_token)
        return self.write(decode, image=image, tokens=tokens, mask=mask, max_length=max_length)


def check_texts(batch: dict[str, Tensor]) -> None:
    """``ValueError`` for a batch without a text."""
    if not len(batch["tokens"]):
        raise ValueError("A batch holds at least one text.")


def check_tokens(tokens: Int[Tensor, "b t"], config: Any, most: int) -> None:
    """``ValueError`` for more tokens than a text may have, or, on a CPU, for one that is no word, location or code."""
    if tokens.shape[1] > most:
        raise ValueError(f"{tokens.shape[1]} tokens are more than the {most} of a text here; shorten it.")
    if values_are_readable(tokens) and (wrong := (tokens < 0) | (tokens >= config.all_tokens)).any():
        raise ValueError(
            f"There is no token {int(tokens[wrong][0])}: there are {config.vocab_size} words, {config.bins} locations "
            f"and {config.codes} codes, from 0."
        )
