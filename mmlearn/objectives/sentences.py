r"""Two segments of a text: does the second follow (NSP), and do they stand in order (SOP)?

A row is ``[start] A [end] B [end]`` and padding; ``token_type`` is 0 up to the first end and 1 behind it, as BERT reads
it. The samplers draw which rows to change and return the rows to read with their labels: 0 for a row as it was, 1 for
one that was changed.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from mmlearn.objectives.matching import random_negatives
from mmlearn.tensor_checks import values_are_readable

Rows = tuple[Int[Tensor, "b n"], Int[Tensor, "b n"], Bool[Tensor, "b n"], Int[Tensor, "b"]]


def segment_order(logits: Float[Tensor, "b 2"], label: Int[Tensor, "b"]) -> Float[Tensor, ""]:
    r"""NSP and SOP: the cross-entropy of a yes/no question for each row, where class 1 says that it was changed.

    .. math:: \ell = -\frac{1}{b} \sum_i \log \mathrm{softmax}(z_i)_{y_i}

    Logits that know nothing give ln 2. Raises ``ValueError`` where there is no row, or, on a CPU, a label is neither 0
    nor 1. Source: Devlin et al. 2019 (BERT), section 3.1, task #2; Lan et al. 2020 (ALBERT), section 3.1.
    """
    if not len(logits):
        raise ValueError("Two segments are judged in at least one row, got none.")
    if values_are_readable(label) and not ((label == 0) | (label == 1)).all():
        raise ValueError("A label is 0 for segments as they were and 1 for changed ones; got another number.")
    return F.cross_entropy(logits, label)


def swap_segments(
    tokens: Int[Tensor, "b t"], token_type: Int[Tensor, "b t"], mask: Bool[Tensor, "b t"], swapped: Bool[Tensor, "b"]
) -> tuple[Int[Tensor, "b t"], Int[Tensor, "b t"]]:
    """Tokens and token types with both segments of these rows exchanged: the same tokens in another order.

    To swap twice changes nothing. Source: Lan et al. 2020 (ALBERT), section 3.1.
    """
    b, t = tokens.shape
    position = torch.arange(t, device=tokens.device).expand(b, t)
    # Start token, second segment with its end, first one with its end, padding.
    rank = torch.where(token_type == 1, 1, 2).masked_fill(position == 0, 0).masked_fill(~mask, 3)
    order = torch.where(swapped[:, None], rank.argsort(dim=1, stable=True), position)
    kind = torch.where(token_type == 1, 0, 1).masked_fill((position == 0) | ~mask, 0)
    return tokens.gather(1, order), torch.where(swapped[:, None], kind.gather(1, order), token_type)


def sentence_order(
    tokens: Int[Tensor, "b t"], token_type: Int[Tensor, "b t"], mask: Bool[Tensor, "b t"], generator: torch.Generator
) -> Rows:
    """SOP: half of the rows, drawn at random, with their segments exchanged; tokens, token types, mask and label.

    Right and wrong rows hold the same two segments, so that what they are about does not tell them apart.
    Source: Lan et al. 2020 (ALBERT), section 3.1.
    """
    swapped = _half(len(tokens), generator).to(tokens.device)
    return *swap_segments(tokens, token_type, mask, swapped), mask, swapped.long()


def next_sentence(
    tokens: Int[Tensor, "b t"],
    token_type: Int[Tensor, "b t"],
    mask: Bool[Tensor, "b t"],
    document: Int[Tensor, "b"],
    max_length: int,
    generator: torch.Generator,
) -> Rows:
    """NSP: half of the rows, drawn at random, with the second segment of another one; tokens, types, mask and label.

    It is never of a row with the same number in ``document``. A row that would be longer than ``max_length`` loses the
    last tokens before its end. Raises ``ValueError`` where all rows are of one document.
    Source: Devlin et al. 2019 (BERT), section 3.1, task #2.
    """
    changed, other = _half(len(tokens), generator), random_negatives(document, generator).cpu()
    own = torch.arange(len(tokens))
    rows = join_segments(tokens, token_type, mask, own, torch.where(changed, other, own), max_length)
    return *rows, changed.long().to(tokens.device)


def join_segments(
    tokens: Int[Tensor, "b t"],
    token_type: Int[Tensor, "b t"],
    mask: Bool[Tensor, "b t"],
    first: Int[Tensor, "b"],
    second: Int[Tensor, "b"],
    max_length: int,
) -> tuple[Int[Tensor, "b n"], Int[Tensor, "b n"], Bool[Tensor, "b n"]]:
    """Row i gets the first segment of row ``first[i]`` and the second one of row ``second[i]``: tokens, types and mask.

    A row that would be longer than ``max_length`` loses the last tokens before its end.
    """
    rows = []
    for i, j in zip(first.tolist(), second.tolist()):
        before, behind = tokens[i][mask[i] & (token_type[i] == 0)], tokens[j][mask[j] & (token_type[j] == 1)]
        if (room := max_length - len(before)) < len(behind):
            behind = torch.cat([behind[: room - 1], behind[-1:]])
        rows.append((before, behind))
    return segment_rows(rows)


def segment_rows(
    pairs: Sequence[tuple[Int[Tensor, "_"], Int[Tensor, "_"]]],
) -> tuple[Int[Tensor, "b t"], Int[Tensor, "b t"], Bool[Tensor, "b t"]]:
    """First and second segments as rows of one length: tokens, 0 where a row is padded; token types, and mask."""
    tokens = pad_sequence([torch.cat(pair) for pair in pairs], batch_first=True)
    parts = [torch.cat([torch.zeros_like(first), torch.ones_like(second)]) for first, second in pairs]
    length = torch.tensor([len(part) for part in parts], device=tokens.device)
    mask = torch.arange(tokens.shape[1], device=tokens.device) < length[:, None]
    return tokens, pad_sequence(parts, batch_first=True), mask


def _half(b: int, generator: torch.Generator) -> Bool[Tensor, "b"]:
    """Half of the rows; of an odd number one less."""
    return torch.randperm(b, generator=generator, device=generator.device).cpu() < b // 2
