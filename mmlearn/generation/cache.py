"""The key–value cache: while a text is written, each token is read once.

A causal layer says of a token what it said when the token was the last one, because no token sees a later one. So its
keys and values can be kept, and each step reads one token. A context, such as the patches of a picture, is read in the
first step alone. A recurrent network keeps its state after the last token instead (:meth:`DecodingStep.state`).

A system gives ``read``, which scores what follows a :class:`DecodingStep`. :func:`cached` and :func:`uncached` turn it
into the ``next_logits`` that decoding asks. Both give the same numbers to rounding, and keep nothing for gradients.

Prompts of unequal length are padded at their left (:func:`pad_left`), so that all texts go on in the same column.
Padding is masked, and positions count real tokens alone: a row is written as if it were alone.
Source: Pope et al. 2023, "Efficiently Scaling Transformer Inference", section 2.1.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn

from mmlearn.generation.decoding import EndToken, NextLogits
from mmlearn.layers import Attention


class DecodingStep(NamedTuple):
    """The tokens that a model is to read now, and what it has to know of them. n rows write b texts, n / b each."""

    tokens: Int[Tensor, "n t"]  # with a cache only those that have not been read
    position: Int[Tensor, "n t"]  # in the text, where padding does not count
    mask: Bool[Tensor, "n all"]  # which tokens are real, those of earlier steps included
    cache: "Cache | None" = None  # of the tokens that have been read before

    @property
    def new(self) -> Bool[Tensor, "n t"]:
        """Which of the tokens that are to be read now are real."""
        return self.mask[:, self.mask.shape[1] - self.tokens.shape[1] :]

    def state(self, start: Sequence[Float[Tensor, "b ..."]]) -> tuple[Float[Tensor, "n ..."], ...]:
        """The state of a recurrent network after the tokens of earlier steps: what was kept, and ``start`` at first."""
        kept = None if self.cache is None else self.cache.state
        return tuple(self.rows(x) for x in start) if kept is None else kept

    def keep(self, state: Sequence[Float[Tensor, "n ..."]]) -> None:
        """Remember the state after these tokens, where there is a cache."""
        if self.cache is not None:
            self.cache.state = tuple(state)

    @property
    def key_mask(self) -> Bool[Tensor, "n all"] | None:
        """The mask for attention: None where every token is real, so that nothing is left out."""
        return None if self.mask.all() else self.mask

    def rows(self, x: Tensor) -> Tensor:
        """Something of each text, (b, ...), for each row, (n, ...)."""
        return _for_rows(x, len(self.tokens))

    def context(self, x: Float[Tensor, "b p d"]) -> Float[Tensor, "n p_or_0 d"]:
        """What cross-attention is given: a context in the first step, and nothing once its keys are in the cache."""
        first = self.mask.shape[1] == self.tokens.shape[1]
        return self.rows(x if first else x[:, :0])


ScoreNext = Callable[[DecodingStep], Float[Tensor, "n v"]]  # scores of what follows the last token of each row


def uncached(read: ScoreNext, mask: Bool[Tensor, "b start"]) -> NextLogits:
    """A ``next_logits`` that reads every text from its first token. ``mask`` says what is real in the start."""
    return torch.inference_mode()(lambda tokens: read(_reading(tokens, mask, 0)))


@contextmanager
def cached(
    model: nn.Module, read: ScoreNext, mask: Bool[Tensor, "b start"], cache: "Cache | None" = None
) -> Iterator[NextLogits]:
    """Within this block the same ``next_logits`` as :func:`uncached`, which reads each token once.

    Every :class:`~mmlearn.layers.Attention` of ``model`` keeps its keys and values; given new tokens alone, it attends
    to all. Rows that a search keeps, drops or exchanges are recognised by their tokens, as is in the ``cache`` of an
    earlier block what a text begins with. The model must read nothing else within it: encode pictures and texts before.
    """
    cache, layers = cache or Cache(), [module for module in model.modules() if isinstance(module, Attention)]
    for layer in layers:
        layer.cache = cache.extend

    @torch.inference_mode()
    def next_logits(tokens: Tensor) -> Tensor:
        return read(_reading(tokens, mask, cache.look_up(tokens, len(mask)), cache))

    try:
        yield next_logits
    finally:
        for layer in layers:
            layer.cache = None


def continue_prompts(
    model: nn.Module,
    read: ScoreNext,
    start_token: int | None,
    prompt: Int[Tensor, "b prompt"],
    prompt_mask: Bool[Tensor, "b prompt"] | None,
    decode: Callable[..., Tensor],
    max_length: int,
    **how: EndToken,
) -> Int[Tensor, "b t"]:
    """The prompts and what is written behind them, up to ``max_length`` tokens in all, without the start token.

    Without a ``start_token`` texts begin with their prompts. Errors as of :mod:`mmlearn.generation.decoding`.
    """
    if start_token is None:
        start, mask = prompt, torch.ones_like(prompt, dtype=torch.bool) if prompt_mask is None else prompt_mask
    else:
        start, mask = start_prompts(start_token, prompt, prompt_mask)
    with cached(model, read, mask) as next_logits:
        written = decode(next_logits, start, max_length=max_length + start.shape[1] - prompt.shape[1], **how)
    return torch.cat([prompt, written[:, start.shape[1] :]], dim=1)


class Cache:
    """The keys and values of the tokens that have been read, and the state of a recurrent network after them."""

    def __init__(self) -> None:
        self.tokens: Int[Tensor, "n t"] | None = None  # that have been read
        self.rows: Tensor | None = None  # (n,): which of them each row goes on from; None: its own
        self.kept: dict[Attention, list[Tensor]] = {}  # layer → their keys and values, (n, h, t, k) each
        self.state: tuple[Tensor, ...] | None = None  # (n, ...) each

    def look_up(self, tokens: Int[Tensor, "n t"], b: int) -> int:
        """How many tokens of each row have been read. Where one row is new from its beginning, all are read again."""
        before, self.tokens = self.tokens, tokens
        if before is not None and before.shape[0] == tokens.shape[0] and before.shape[1] < tokens.shape[1]:
            t = before.shape[1]
            if torch.equal(before, tokens[:, :t]):
                self.rows = None
                return t
            old = rearrange(before, "(b k) t -> b 1 k t", b=b)  # k rows write a text
            new = rearrange(tokens[:, :t], "(b k) t -> b k 1 t", b=b)
            same = (old == new).all(-1)  # (b, k new, k old)
            if same.any(-1).all():
                first = torch.arange(b, device=tokens.device)[:, None] * same.shape[-1]  # row of each text
                self.rows = (first + same.int().argmax(-1)).flatten()
                if self.state is not None:
                    self.state = tuple(x.index_select(0, self.rows) for x in self.state)
                return t
        self.kept.clear()
        self.state = None
        return 0

    def extend(self, layer: Attention, x: Float[Tensor, "n t d"]) -> list[Float[Tensor, "n h all k"]]:
        """Keys and values of the new tokens, behind those of the earlier ones; of a context, which is new once."""
        earlier = self.kept.get(layer)
        if earlier is not None and x.shape[1] == 0:  # a context, which all rows of a text share
            return earlier
        new = layer.keys_and_values(x)
        if earlier is None:
            self.kept[layer] = [part.contiguous() for part in new]
        else:
            if self.rows is not None:
                earlier = [past.index_select(0, self.rows) for past in earlier]
            self.kept[layer] = [torch.cat(pair, dim=2) for pair in zip(earlier, new)]
        return self.kept[layer]


def pad_left(
    prompts: Sequence[Int[Tensor, "_"] | Sequence[int]], pad_token: int = 0
) -> tuple[Int[Tensor, "b t"], Bool[Tensor, "b t"]]:
    """Prompts of unequal length as one batch that ends in one column, and its mask. ``ValueError`` for an empty one."""
    rows = [torch.as_tensor(prompt, dtype=torch.long) for prompt in prompts]
    for i, row in enumerate(rows):
        if not len(row):
            raise ValueError(f"Prompt {i} is empty: a text begins with at least one token, such as a start token.")
    t = max(map(len, rows), default=0)
    tokens = [F.pad(row, (t - len(row), 0), value=pad_token) for row in rows]
    mask = [torch.arange(t) >= t - len(row) for row in rows]
    return torch.stack(tokens), torch.stack(mask)


def start_prompts(
    token: int, prompt: Int[Tensor, "b t"], mask: Bool[Tensor, "b t"] | None = None
) -> tuple[Int[Tensor, "b t+1"], Bool[Tensor, "b t+1"]]:
    """Prompts, padded at their left, with a start token before each; and which tokens are real."""
    mask = torch.ones_like(prompt, dtype=torch.bool) if mask is None else mask
    tokens, mask = F.pad(prompt, (1, 0), value=token), F.pad(mask, (1, 0))
    row, column = torch.arange(len(tokens), device=tokens.device), (~mask).sum(1) - 1
    tokens[row, column], mask[row, column] = token, True
    return tokens, mask


def _reading(
    tokens: Int[Tensor, "n t"], mask: Bool[Tensor, "b start"], read: int, cache: Cache | None = None
) -> DecodingStep:
    """All but the first ``read`` tokens. What was written is real; of the start the mask says what is."""
    mask = _for_rows(mask, len(tokens))
    mask = F.pad(mask, (0, tokens.shape[1] - mask.shape[1]), value=True)
    position = (mask.cumsum(1) - 1).clamp(min=0)
    return DecodingStep(tokens[:, read:], position[:, read:], mask, cache)


def _for_rows(x: Shaped[Tensor, "b ..."], n: int) -> Shaped[Tensor, "n ..."]:
    """Something of each of b texts for each of n rows, n / b of which write a text."""
    return x if len(x) == n else x.repeat_interleave(n // max(len(x), 1), dim=0)
