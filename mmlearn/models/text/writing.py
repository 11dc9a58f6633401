"""What the two systems that read a text and write another share: how they are asked to write."""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from mmlearn.generation.cache import Reading, cached

Decoder = Callable[[Reading, Float[Tensor, "n p d"], Bool[Tensor, "n t"] | None], Float[Tensor, "n v"]]


def source_texts(
    prompt: Int[Tensor, "b t"], mask: Bool[Tensor, "b t"] | None, before: list[int], after: list[int], pad_token: int
) -> tuple[Int[Tensor, "b s"], Bool[Tensor, "b s"]]:
    """Texts with special tokens before and after, padded at their right, and what of them is real."""
    real = torch.ones_like(prompt, dtype=torch.bool) if mask is None else mask
    rows = [torch.cat([row.new_tensor(before), row[some], row.new_tensor(after)]) for row, some in zip(prompt, real)]
    if not rows:
        return prompt, real
    lengths = torch.tensor([len(row) for row in rows], device=prompt.device)
    tokens = pad_sequence(rows, batch_first=True, padding_value=pad_token)
    return tokens, torch.arange(tokens.shape[1], device=prompt.device) < lengths[:, None]


def write_for(
    system: nn.Module,
    source: tuple[Int[Tensor, "b s"], Bool[Tensor, "b s"]],
    last_logits: Decoder,
    decode: Callable[..., Tensor],
    start_token: int,
    max_length: int,
) -> Int[Tensor, "b o"]:
    """The texts that a system writes for these, of up to ``max_length`` tokens with the end token.

    ``last_logits(reading, context, mask)`` scores what follows the last token of each row, which looks at the encoded
    source ``context``, where ``mask`` says what is real, or is None where all is.
    """
    tokens, mask = source
    context = system.encode(tokens, mask)
    padded = not mask.all()
    start = tokens.new_full((len(tokens), 1), start_token)

    def read(now: Reading) -> Float[Tensor, "n v"]:
        return last_logits(now, now.context(context), now.rows(mask) if padded else None)

    ids = dict(end_token=system.config.end_token, pad_token=system.config.pad_token)
    with cached(system, read, torch.ones_like(start, dtype=torch.bool)) as next_logits:
        return decode(next_logits, start, max_length=max_length + 1, **ids)[:, 1:]
