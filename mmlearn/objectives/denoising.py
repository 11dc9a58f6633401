r"""Denoising: a text is spoilt, and the model writes what is missing, or the whole text again.

These functions take one text, (n,), because what is left of it may be shorter or longer. Drawing and spoiling are
apart for T5's spans (:func:`draw_spans`, :func:`hide_spans`), of which :func:`fill_spans` is the exact inverse. BART's
five corruptions each draw what they do and return a :class:`Corruption`, which :func:`restore` undoes together with
the tokens that were :func:`lost`. Of permutation and rotation nothing is lost.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from mmlearn.objectives.masked import uniform

# T5: spans.


def draw_spans(
    length: int, *, generator: torch.Generator, share: float = 0.15, mean_length: float = 3.0
) -> Bool[Tensor, "length"]:
    """Which tokens of a text to hide: about a ``share`` of them, in spans of ``mean_length`` on average.

    All ways to place the spans apart from each other are equally likely. At least one token is hidden and one kept, but
    a text of one token is kept. Raises ``ValueError`` for a share that is none, or a mean length below 1.
    Source: Raffel et al. 2020 (T5), section 3.3.4.
    """
    _check_share(share)
    if mean_length < 1:
        raise ValueError(f"A span has at least one token, so mean_length is 1 or more, got {mean_length}.")
    if length < 2 or share == 0:
        return torch.zeros(length, dtype=torch.bool)
    hidden = min(max(round(length * share), 1), length - 1)
    spans = min(max(round(hidden / mean_length), 1), length - hidden + 1)
    kept = _parts(
        length - hidden + 2, spans + 1, generator
    )  # between the spans, and at both ends, where none is needed
    kept[[0, -1]] -= 1
    lengths = torch.stack([kept, torch.cat([_parts(hidden, spans, generator), torch.tensor([0])])], dim=1)
    return torch.tensor([False, True]).repeat(spans + 1).repeat_interleave(lengths.flatten())


def _parts(total: int, count: int, generator: torch.Generator) -> Int[Tensor, "count"]:
    """So many whole numbers above 0 that add up to ``total``, all such lists equally likely."""
    cuts = torch.randperm(total - 1, generator=generator, device=generator.device)[: count - 1].sort().values.cpu() + 1
    return torch.diff(cuts, prepend=torch.tensor([0]), append=torch.tensor([total]))


def hide_spans(
    text: Int[Tensor, "n"], hidden: Bool[Tensor, "n"], first_sentinel: int
) -> tuple[Int[Tensor, "c"], Int[Tensor, "o"]]:
    r"""The text with a sentinel for each hidden span; and what was there, each span behind its sentinel.

    .. math:: x_1 x_2 \underline{x_3 x_4} x_5 \underline{x_6} \to
       (x_1 x_2 s_0 x_5 s_1, \quad s_0 x_3 x_4 s_1 x_6 s_2)

    Sentinels count down from ``first_sentinel``; the last says that nothing follows. Raises ``ValueError`` for a text
    that holds one of them. Source: Raffel et al. 2020 (T5), section 3.1.4 and figure 2.
    """
    corrupted, target, spans, before = [], [], 0, False
    for token, gone in zip(text.tolist(), hidden.tolist()):
        if gone and not before:
            corrupted.append(first_sentinel - spans)
            target.append(first_sentinel - spans)
            spans += 1
        (target if gone else corrupted).append(token)
        before = gone
    target.append(first_sentinel - spans)
    if ((text <= first_sentinel) & (text >= first_sentinel - spans)).any():
        raise ValueError(
            f"Tokens {first_sentinel - spans} to {first_sentinel} are sentinels here, and the text holds one of them: "
            "reserve numbers that no text has."
        )
    return text.new_tensor(corrupted), text.new_tensor(target)


def fill_spans(corrupted: Int[Tensor, "c"], target: Int[Tensor, "o"], first_sentinel: int) -> Int[Tensor, "n"]:
    """The text that :func:`hide_spans` made these two of.

    Raises ``ValueError`` where the target does not begin with the first sentinel, or its spans are not those that the
    text asks for.
    """
    spans: list[list[int]] = []
    for token in target.tolist():
        if token == first_sentinel - len(spans):
            spans.append([])
        elif not spans:
            raise ValueError(f"A target begins with the sentinel {first_sentinel}; this one begins with {token}.")
        else:
            spans[-1].append(token)
    text, used = [], 0
    for token in corrupted.tolist():
        if token == first_sentinel - used and used < len(spans) - 1:
            text += spans[used]
            used += 1
        else:
            text.append(token)
    if used != len(spans) - 1 or spans[-1]:
        raise ValueError(f"The text asks for {used} spans, and the target has {max(len(spans) - 1, 0)} and an end.")
    return corrupted.new_tensor(text)


# BART: five ways to spoil a text.


class Corruption(NamedTuple):
    """A spoilt text, for each token its position before, -1 for a mask, and how long the text was."""

    tokens: Int[Tensor, "c"]
    source: Int[Tensor, "c"]
    length: int


def mask_tokens_of(
    text: Int[Tensor, "n"], mask_token: int, *, generator: torch.Generator, share: float = 0.15
) -> Corruption:
    """Token masking: each token becomes a mask with probability ``share``. Source: Lewis et al. 2020, section 2.2."""
    source = _positions(text).masked_fill(_chosen(text, share, generator), -1)
    return _corruption(text, source, mask_token)


def delete_tokens(text: Int[Tensor, "n"], *, generator: torch.Generator, share: float = 0.15) -> Corruption:
    """Token deletion: each token vanishes with probability ``share``, and the model must find out where.

    Source: Lewis et al. 2020 (BART), section 2.2.
    """
    return _corruption(text, _positions(text)[~_chosen(text, share, generator)])


def infill(
    text: Int[Tensor, "n"], mask_token: int, *, generator: torch.Generator, share: float = 0.3, mean_length: float = 3.0
) -> Corruption:
    r"""Text infilling: spans become one mask each, so that the model must also say how many tokens are missing.

    .. math:: \text{length of a span} \sim \mathrm{Poisson}(\lambda), \quad \lambda = 3

    Spans are drawn until ``share`` of the tokens is hidden, and the last is cut. One of length 0 puts a mask where
    nothing is missing. Raises ``ValueError`` for a share that is none, or a mean length that is not above 0.
    Source: Lewis et al. 2020 (BART), section 2.2.
    """
    _check_share(share)
    if not mean_length > 0:
        raise ValueError(f"mean_length is above 0, got {mean_length}.")
    wanted = round(len(text) * share)
    lengths: list[int] = []
    rate = torch.full((), float(mean_length), device=generator.device)
    while sum(lengths) < wanted:
        length = int(torch.poisson(rate, generator=generator))
        lengths.append(min(length, wanted - sum(lengths)))
    slots = len(text) - wanted + len(lengths)  # of kept tokens and of masks
    masks = set(torch.randperm(slots, generator=generator, device=generator.device)[: len(lengths)].tolist())
    source, position = [], 0
    for slot in range(slots):
        source.append(-1 if slot in masks else position)
        position += lengths.pop() if slot in masks else 1
    return _corruption(text, torch.tensor(source, dtype=torch.long, device=text.device), mask_token)


def permute_sentences(text: Int[Tensor, "n"], ends: Bool[Tensor, "n"], *, generator: torch.Generator) -> Corruption:
    """Sentence permutation: sentences in any order. ``ends`` is True at the last token of each.

    Source: Lewis et al. 2020 (BART), section 2.2.
    """
    last = [position + 1 for position in ends.nonzero()[:, 0].tolist() if position + 1 < len(text)]
    sentences = _positions(text).tensor_split(last)
    order = torch.randperm(len(sentences), generator=generator, device=generator.device).tolist()
    return _corruption(text, torch.cat([sentences[i] for i in order]))


def rotate_text(text: Int[Tensor, "n"], *, generator: torch.Generator) -> Corruption:
    """Document rotation: the text begins at a token drawn at random, and its beginning comes last.

    Source: Lewis et al. 2020 (BART), section 2.2.
    """
    start = int(torch.randint(max(len(text), 1), (), generator=generator, device=generator.device))
    return _corruption(text, _positions(text).roll(-start))


def lost(text: Int[Tensor, "n"], corruption: Corruption) -> Int[Tensor, "m"]:
    """The tokens that a corruption has not, in their order."""
    return text[_absent(corruption)]


def restore(corruption: Corruption, missing: Int[Tensor, "m"]) -> Int[Tensor, "n"]:
    """The text as it was: what is left at its positions, and what was :func:`lost` at the others.

    Raises ``ValueError`` where more or fewer tokens are given than were lost.
    """
    absent, kept = _absent(corruption), corruption.source >= 0
    if len(missing) != absent.sum():
        raise ValueError(f"{int(absent.sum())} tokens are missing in this text, got {len(missing)}.")
    text = missing.new_empty(corruption.length)
    text[corruption.source[kept]] = corruption.tokens[kept].to(text.dtype)
    text[absent] = missing
    return text


def _absent(corruption: Corruption) -> Bool[Tensor, "n"]:
    """The positions of the text that are no longer there."""
    absent = torch.ones(corruption.length, dtype=torch.bool, device=corruption.source.device)
    absent[corruption.source[corruption.source >= 0]] = False
    return absent


def _corruption(text: Int[Tensor, "n"], source: Int[Tensor, "c"], mask_token: int = 0) -> Corruption:
    tokens = text[source.clamp(min=0)] if len(text) else text.new_zeros(len(source))
    return Corruption(tokens.masked_fill(source < 0, mask_token), source, len(text))


def _positions(text: Tensor) -> Int[Tensor, "n"]:
    return torch.arange(len(text), device=text.device)


def _chosen(text: Tensor, share: float, generator: torch.Generator) -> Bool[Tensor, "n"]:
    _check_share(share)
    return uniform(text.shape, generator, text.device) < share


def _check_share(share: float) -> None:
    if not 0 <= share <= 1:
        raise ValueError(f"The share to hide must be from 0 to 1, got {share}.")
