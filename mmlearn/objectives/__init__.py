"""One pure function per objective. No module state, no data loading."""

from mmlearn.objectives.contrastive import (
    info_nce,
    late_interaction,
    late_interaction_info_nce,
    mil_nce,
    pair_cross_entropy,
    pairwise_sigmoid,
    ranking_hinge,
    same_caption,
)
from mmlearn.objectives.distillation import distilled_targets, soft_cross_entropy, update_average
from mmlearn.objectives.gather import gather
from mmlearn.objectives.masked import (
    mask_regions,
    mask_tokens,
    masked_cross_entropy,
    masked_region_classification,
    masked_region_kl,
    masked_region_regression,
)
from mmlearn.objectives.matching import hard_negatives, image_text_matching, random_negatives
from mmlearn.objectives.subspaces import central_moment_discrepancy, difference_loss
from mmlearn.objectives.transport import cosine_cost, ipot, word_region_alignment

__all__ = [
    "central_moment_discrepancy",
    "cosine_cost",
    "difference_loss",
    "distilled_targets",
    "gather",
    "hard_negatives",
    "image_text_matching",
    "info_nce",
    "ipot",
    "late_interaction",
    "late_interaction_info_nce",
    "mask_regions",
    "mask_tokens",
    "masked_cross_entropy",
    "masked_region_classification",
    "masked_region_kl",
    "masked_region_regression",
    "mil_nce",
    "pair_cross_entropy",
    "pairwise_sigmoid",
    "random_negatives",
    "ranking_hinge",
    "same_caption",
    "soft_cross_entropy",
    "update_average",
    "word_region_alignment",
]
