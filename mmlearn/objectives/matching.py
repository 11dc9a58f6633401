"""Image-text matching: does this text describe this picture? And where wrong pairs come from.

A wrong pair is a picture with the text of another row. Random ones are soon too easy; hard ones look right.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mmlearn.objectives.all_gather import EVERY
from mmlearn.objectives.draws import draw_by_odds
from mmlearn.tensor_checks import values_are_readable


def image_text_matching(logits: Float[Tensor, "n 2"], label: Int[Tensor, "n"]) -> Float[Tensor, ""]:
    r"""Cross-entropy of a yes/no question for each pair: index 1 says that picture and text belong together.

    .. math:: \ell = -\frac{1}{n} \sum_i \log \mathrm{softmax}(z_i)_{y_i}

    Logits that know nothing give ln 2. Raises ``ValueError`` where there is no pair, or, on a CPU, a label is
    neither 0 nor 1. Source: Chen et al. 2020 (UNITER), section 3.2; Li et al. 2021 (ALBEF), section 3.2.
    """
    if not len(logits):
        raise ValueError("Matching needs at least one pair of picture and text, got none.")
    if values_are_readable(label) and not ((label == 0) | (label == 1)).all():
        raise ValueError("match_label is 1 where text and picture belong together and 0 where not; got another number.")
    return F.cross_entropy(logits, label)


def random_negatives(caption_id: Int[Tensor, "b"], generator: torch.Generator) -> Int[Tensor, "b"]:
    """For each row another row, any with another caption, all equally likely: its text does not fit this picture.

    Raises ``ValueError`` for a row whose caption all rows share. Source: Chen et al. 2020 (UNITER), section 3.2.
    """
    different = caption_id[:, None] != caption_id
    return _draw(different.float(), different, generator)


def hard_negatives(
    similarity: Float[Tensor, "b m"], positives: Bool[Tensor, "b m"], generator: torch.Generator
) -> Int[Tensor, "b"]:
    r"""For each row a wrong candidate among m, the more similar the likelier.

    .. math:: P(j \mid i) = \frac{\exp s_{ij}}{\sum_{k \notin P_i} \exp s_{ik}}, \quad j \notin P_i

    ``similarity`` is already divided by the temperature; ``positives`` says which candidates fit a row, and these are
    never drawn. Raises ``ValueError``, on a CPU, for a row that all candidates fit, or for similarities that are NaN.
    Source: Li et al. 2021 (ALBEF), section 3.2, contrastive hard negatives.
    """
    if values_are_readable(similarity) and similarity.isnan().any():
        raise ValueError("Similarities hold NaN: training has diverged before; lower the learning rate.")
    logits = similarity.masked_fill(positives, -torch.inf)
    return _draw(logits.softmax(-1), ~positives, generator)


def _draw(
    probability: Float[Tensor, "b m"], negatives: Bool[Tensor, "b m"], generator: torch.Generator
) -> Int[Tensor, "b"]:
    """One of its negatives for each row, with these odds."""
    b, m = probability.shape
    if not b or (values_are_readable(negatives) and not negatives.any(1).all()):
        raise ValueError(
            f"In a batch of {b} with {m} candidates no negative exists for some row: all fit it. "
            "Use a larger batch with at least two different captions."
        )
    return draw_by_odds(probability, generator)


def positive_pairs(caption_id: Int[Tensor, "all"], rows: slice = EVERY) -> Bool[Tensor, "b all"]:
    """Which texts of a batch fit a row as well as its own; a negative number means a caption that is like no other."""
    number = torch.arange(len(caption_id), device=caption_id.device)
    return (number[rows, None] == number) | ((caption_id[rows, None] == caption_id) & (caption_id >= 0))
