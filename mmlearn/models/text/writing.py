"""How encoder-decoders such as BART and T5 generate: pad the source texts, encode them once, decode with a cache."""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from mmlearn.generation.cache import DecodingStep, cached

Decoder = Callable[[DecodingStep, Float[Tensor, "n p d"], Bool[Tensor, "n t"] | None], Float[Tensor, "n v"]]


def source_texts(
    prompt: Int[Tensor, "b t"], mask: Bool[Tensor, "b t"] | None, prefix: list[int], suffix: list[int], pad_token: int
) -> tuple[Int[Tensor, "b s"], Bool[Tensor, "b s"]]:
    """Texts with special tokens before and after them, padded at their right, and their mask."""
    real = torch.ones_like(prompt, dtype=torch.bool) if mask is None else mask
    rows = [torch.cat([row.new_tensor(prefix), row[r], row.new_tensor(suffix)]) for row, r in zip(prompt, real)]
    if not rows:
        return prompt, real
    lengths = torch.tensor([len(row) for row in rows], device=prompt.device)
    tokens = pad_sequence(rows, batch_first=True, padding_value=pad_token)
    return tokens, torch.arange(tokens.shape[1], device=prompt.device) < lengths[:, None]


def generate_from(
    system: nn.Module,
    source: tuple[Int[Tensor, "b s"], Bool[Tensor, "b s"]],
    last_logits: Decoder,
    decode: Callable[..., Tensor],
    start_token: int,
    max_length: int,
) -> Int[Tensor, "b o"]:
    """The texts that a system writes for a ``source``, of up to ``max_length`` tokens with the end token.

    ``last_logits(step, context, mask)`` scores the token after the last one of each row, which attends to the encoded
    source ``context``; ``mask`` is True where that is real, or None where all of it is.
    """
    tokens, mask = source
    context = system.encode(tokens, mask)  # (b, s, d)
    padded = not mask.all()
    start = tokens.new_full((len(tokens), 1), start_token)

    def read(step: DecodingStep) -> Float[Tensor, "n v"]:
        return last_logits(step, step.context(context), step.rows(mask) if padded else None)

    ids = dict(end_token=system.config.end_token, pad_token=system.config.pad_token)
    with cached(system, read, torch.ones_like(start, dtype=torch.bool)) as next_logits:
        return decode(next_logits, start, max_length=max_length + 1, **ids)[:, 1:]  # without the start
