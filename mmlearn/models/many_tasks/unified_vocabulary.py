"""What systems share that answer all tasks with tokens of one vocabulary: words, then places, then picture codes.

A box is four places: left, top, right, bottom. A picture is codes, row by row. So a caption, an answer, a region and a
picture are all written by one decoder, from left to right, and learned by one loss.
Source: Wang et al. 2022 (OFA), section 3.2; Chen et al. 2022 (Pix2Seq), section 2.1, for places.
"""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmlearn.generation.cache import Read, Reading, cached
from mmlearn.generation.decoding import greedy
from mmlearn.layers.embeddings import look_up
from mmlearn.models.text.writing import source_texts
from mmlearn.objectives import shifted_right, text_denoising
from mmlearn.objectives.boxes import dequantise
from mmlearn.values import may_look


class Vocabulary:
    """Where each kind of token begins, for a configuration with ``vocab_size`` words, ``bins`` and ``codes``."""

    vocab_size: int
    bins: int
    codes: int

    @property
    def places(self) -> range:
        """The numbers of places."""
        return range(self.vocab_size, self.vocab_size + self.bins)

    @property
    def first_code(self) -> int:
        """The number of code 0."""
        return self.vocab_size + self.bins

    @property
    def all_tokens(self) -> int:
        """Words, places and codes."""
        return self.first_code + self.codes


class Written(NamedTuple):
    """What a system says of a target."""

    token_logits: Float[Tensor, "b o v"]  # at place i: what token i of the target is
    context: Float[Tensor, "b n d"]  # of what was read


class UnifiedVocabulary(nn.Module):
    """A system that reads pictures and texts, and writes tokens of one vocabulary.

    A system gives ``encode(…)``, which returns a context and what of it is real, and :meth:`decode`. Its ``config`` is
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
        """Logits of what follows each token of a target, which begins with the start token."""
        raise NotImplementedError

    def written(self, target: Int[Tensor, "b o"], **inputs: Any) -> Written:
        """What the decoder says of each token of a target, from what ``encode`` reads and the tokens before it."""
        context, mask = self.encode(**inputs)
        return Written(self.decode(shifted_right(target, self.config.start_token), context, mask), context)

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Float[Tensor, ""]]:
        """``tokens``: the cross-entropy of every real token of the target, whatever it stands for.

        ``ValueError`` without a text.
        """
        if not len(batch["tokens"]):
            raise ValueError("A batch holds at least one text.")
        names = inspect.signature(self.forward).parameters.keys() & batch.keys()
        logits = self(**{name: batch[name] for name in names}).token_logits
        return {"tokens": text_denoising(logits, batch["target"], batch.get("target_mask"))}

    def reader(self, context: Float[Tensor, "b n d"], mask: Bool[Tensor, "b n"]) -> Read:
        """What reads the beginning of a target, and scores the token after it."""

        def read(now: Reading) -> Float[Tensor, "n v"]:
            return self.decode(now.tokens, now.context(context), now.rows(mask), now.position, now.mask)[:, -1]

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
        """What is written for these inputs: words up to the end token, or ``count`` tokens that are ``allowed``."""
        config, (context, mask) = self.config, self.encode(**inputs)
        start = torch.full((len(context), 1), config.start_token, device=context.device)
        may = torch.zeros(config.all_tokens, dtype=torch.bool, device=context.device)
        may[slice(config.vocab_size) if allowed is None else slice(allowed.start, allowed.stop)] = True
        read = self.reader(context, mask)
        end = config.end_token if count is None else config.all_tokens  # a number that no token has
        length = max_length if count is None else count
        ids = dict(end_token=end, pad_token=config.pad_token, max_length=length + 1)
        with cached(self, lambda now: read(now).masked_fill(~may, -torch.inf), torch.ones_like(start).bool()) as ask:
            return decode(ask, start, **ids)[:, 1:]

    def locate(self, decode: Callable[..., Tensor] = greedy, **inputs: Any) -> Float[Tensor, "b 4"]:
        """The box that answers each text: left, top, right and bottom as shares of the picture."""
        places = self.config.places
        tokens = self.write(decode, allowed=places, count=4, **inputs)
        return dequantise(tokens - places.start, len(places))

    def draw(self, count: int, decode: Callable[..., Tensor] = greedy, **inputs: Any) -> Int[Tensor, "b count"]:
        """So many codes of a codebook that answer each text."""
        first = self.config.first_code
        return self.write(decode, allowed=range(first, self.config.all_tokens), count=count, **inputs) - first


class ImageTextSeq2Seq(UnifiedVocabulary):
    """A :class:`UnifiedVocabulary` that reads an ``image`` and ``tokens``, in which a text begins with ``text_start``.

    It has a table of ``tokens``, and ``target_positions`` (most, d) of the tokens of a target.
    """

    def forward(
        self,
        image: Float[Tensor, "b 3 height width"] | None,
        tokens: Int[Tensor, "b t"],
        target: Int[Tensor, "b o"],
        mask: Bool[Tensor, "b t"] | None = None,
    ) -> Written:
        return self.written(target, image=image, tokens=tokens, mask=mask)

    def placed(
        self, target: Int[Tensor, "b q"], position: Int[Tensor, "b q"] | None, target_mask: Bool[Tensor, "b o"] | None
    ) -> Float[Tensor, "b q d"]:
        """Tokens of a target with their places. ``ValueError`` for more than there are places."""
        length, most = (target if target_mask is None else target_mask).shape[1], len(self.target_positions)
        if length > most:
            raise ValueError(f"{length} tokens are more than the {most} of a target: write fewer.")
        places = self.target_positions[: target.shape[1]] if position is None else self.target_positions[position]
        return look_up(self.tokens, target) + places

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
        """The words that answer prompts about pictures, which have no special tokens, with the end token."""
        prompt = torch.zeros(len(image), 0, dtype=torch.long, device=image.device) if prompt is None else prompt
        ends = [self.config.text_start], [self.config.end_token]
        tokens, mask = source_texts(prompt, prompt_mask, *ends, self.config.pad_token)
        return self.write(decode, image=image, tokens=tokens, mask=mask, max_length=max_length)


def check_tokens(tokens: Int[Tensor, "b t"], config: Any, most: int) -> None:
    """``ValueError`` for more tokens than a text may have, or, on a CPU, for one that is no word, place or code."""
    if tokens.shape[1] > most:
        raise ValueError(f"{tokens.shape[1]} tokens are more than the {most} of a text here; shorten it.")
    if may_look(tokens) and (wrong := (tokens < 0) | (tokens >= config.all_tokens)).any():
        raise ValueError(
            f"There is no token {int(tokens[wrong][0])}: there are {config.vocab_size} words, {config.bins} places and "
            f"{config.codes} codes, from 0."
        )
