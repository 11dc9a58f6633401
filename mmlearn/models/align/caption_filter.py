"""Captioning and filtering: a captioner writes captions, and a filter keeps those that fit their image.

Captions from the web often do not describe the image. BLIP's decoder writes a synthetic one for each, its match
head scores both, and a new model learns from what is kept.
Source: Li et al. 2022 (BLIP), section 3.3 and figure 3.
"""

from collections.abc import Sequence
from typing import NamedTuple

from jaxtyping import Bool, Float
from torch import Tensor


class KeptCaption(NamedTuple):
    """A caption that passed the filter: its image, its source ("web" or "synthetic"), its score."""

    image: int
    caption: str
    source: str
    score: float


class FilterStatistics(NamedTuple):
    """How well a filter separates captions whose truth is known; NaN where a share is of nothing."""

    kept: int  # captions
    share: float  # of all captions, kept
    precision: float  # of the kept ones, the share that is true
    before: float  # of all captions, the share that is true: the precision of keeping everything
    recall: float  # of the true ones, the share that is kept


def filter_captions(
    web: Sequence[str],
    synthetic: Sequence[str],
    web_score: Float[Tensor, "n"],
    synthetic_score: Float[Tensor, "n"],
    threshold: float = 0.5,
) -> list[KeptCaption]:
    """The captions that score at least ``threshold``, image by image, the one from the web first.

    Image i has the captions ``web[i]`` and ``synthetic[i]``; scores are the match head's probability that they
    fit. A picture may keep both, one or none, and one that is written twice counts once. Raises ``ValueError`` where
    captions and scores are not as many, or a score or the threshold is no probability.
    Source: section 3.3.
    """
    a, b, c, d = (len(one) for one in (web, synthetic, web_score, synthetic_score))
    if not a == b == c == d:
        raise ValueError(f"A picture has a web caption, a synthetic one and two scores; got {a}, {b}, {c} and {d}.")
    for score in (web_score, synthetic_score):
        _check_probabilities(score, threshold)
    kept = []
    for image, (one, two) in enumerate(zip(web, synthetic)):
        candidates = [("web", one, float(web_score[image])), ("synthetic", two, float(synthetic_score[image]))]
        found = [KeptCaption(image, text, source, score) for source, text, score in candidates if score >= threshold]
        kept += found[:1] if one == two else found
    return kept


def filter_statistics(score: Float[Tensor, "n"], truth: Bool[Tensor, "n"], threshold: float = 0.5) -> FilterStatistics:
    r"""How good a filter is on captions that are known to fit their image or not, one ``truth`` for each score.

    .. math:: \text{precision} = \frac{|K \cap T|}{|K|}, \quad \text{recall} = \frac{|K \cap T|}{|T|}

    for the kept captions K and the true ones T. Raises ``ValueError`` where there are not as many truths as scores, no
    caption at all, or a score or the threshold is no probability.
    """
    if not 1 <= len(score) == len(truth):
        found = f"{len(score)} scores and {len(truth)} truths"
        raise ValueError(f"Statistics need at least one caption, and a truth for each score; got {found}.")
    _check_probabilities(score, threshold)
    keep = score >= threshold
    kept, true, both = int(keep.sum()), int(truth.sum()), int((keep & truth).sum())
    return FilterStatistics(kept, kept / len(score), _share(both, kept), true / len(score), _share(both, true))


def _check_probabilities(score: Float[Tensor, "n"], threshold: float) -> None:
    if not 0 <= threshold <= 1 or not ((score >= 0) & (score <= 1)).all():  # NaN is neither
        raise ValueError(
            f"Scores and threshold are probabilities from 0 to 1, got scores {score.tolist()[:4]} and threshold "
            f"{threshold}; take the softmax of match logits, at index 1."
        )


def _share(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")
