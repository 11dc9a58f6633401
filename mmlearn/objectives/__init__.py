"""One pure function per objective. No module state, no data loading."""

from mmlearn.objectives.contrastive import (
    info_nce,
    late_interaction,
    late_interaction_info_nce,
    pair_cross_entropy,
    pairwise_sigmoid,
    ranking_hinge,
    same_caption,
)
from mmlearn.objectives.gather import gather

__all__ = [
    "gather",
    "info_nce",
    "late_interaction",
    "late_interaction_info_nce",
    "pair_cross_entropy",
    "pairwise_sigmoid",
    "ranking_hinge",
    "same_caption",
]
