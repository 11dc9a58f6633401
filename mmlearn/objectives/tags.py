"""Triples of words, tags and a picture: is one part another picture's? OSCAR asks it of the tags, VinVL of both.

The samplers draw which rows to pollute. They return from which row each one takes its words, from which its tags, and
the label: 0 for a whole triple, 1 where the tags are another picture's, 2 where the words are.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from mmlearn.objectives.matching import hard_negatives, random_negatives
from mmlearn.tensor_checks import values_are_readable

Triples = tuple[Int[Tensor, "b"], Int[Tensor, "b"], Int[Tensor, "b"]]


def pollute_tags(tag_id: Int[Tensor, "b"], generator: torch.Generator) -> Triples:
    """OSCAR: half of the rows, drawn at random, take the tags of another picture; all others are equally likely.

    Rows with one ``tag_id``, as of two captions of a picture, never give each other tags. Of an odd number of rows one
    less than half is polluted. Raises ``ValueError`` where all rows have the same tags.
    Source: Li et al. 2020 (OSCAR), section 3, contrastive loss.
    """
    own = torch.arange(len(tag_id))
    label = (torch.randperm(len(own), generator=generator) < len(own) // 2).long()
    return own, torch.where(label == 1, random_negatives(tag_id, generator), own), label


def pollute_triples(caption_id: Int[Tensor, "b"], tag_id: Int[Tensor, "b"], generator: torch.Generator) -> Triples:
    """VinVL: a quarter of the rows take the words of another picture, as many its tags, and half stay whole.

    Words come from a row with another ``caption_id`` and another ``tag_id``, because a picture may have several
    captions; tags come from a row with another ``tag_id``. Of numbers that 4 does not divide, fewer words are polluted.
    Raises ``ValueError`` for a row that no other may give anything. Source: Zhang et al. 2021 (VinVL), section 3.2.
    """
    own, b = torch.arange(len(tag_id)), len(tag_id)
    position = torch.randperm(b, generator=generator)
    label = torch.where(position < b // 4, 2, (position < b // 2).long())
    same = (caption_id[:, None] == caption_id) | (tag_id[:, None] == tag_id)
    words = hard_negatives(torch.zeros(b, b), same, generator)  # all others alike
    tags = random_negatives(tag_id, generator)
    return torch.where(label == 2, words, own), torch.where(label == 1, tags, own), label


def triple_contrastive(logits: Float[Tensor, "b c"], polluted: Int[Tensor, "b"]) -> Float[Tensor, ""]:
    r"""The cross-entropy of what is polluted in each triple: nothing, the tags, or (with three classes) the words.

    .. math:: \ell = -\frac{1}{b} \sum_i \log \mathrm{softmax}(z_i)_{c_i}

    Logits that know nothing give ln 2 for OSCAR, ln 3 for VinVL. Raises ``ValueError`` where there is no triple, or, on
    a CPU, a label is none of the c classes. Source: Li et al. 2020 (OSCAR), section 3, contrastive loss; Zhang et al.
    2021 (VinVL), section 3.2, 3-way contrastive loss.
    """
    if not len(logits):
        raise ValueError("A triple of words, tags and picture is judged in at least one row, got none.")
    if values_are_readable(polluted) and not ((polluted >= 0) & (polluted < logits.shape[1])).all():
        raise ValueError(f"polluted is 0 for a whole triple, else up to {logits.shape[1] - 1}; got another number.")
    return F.cross_entropy(logits, polluted)
