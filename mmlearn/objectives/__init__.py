"""One pure function per objective. No module state, no data loading."""

from mmlearn.objectives.audio_visual import masked_multimodal_cluster, modality_dropout
from mmlearn.objectives.clusters import cluster, nearest
from mmlearn.objectives.contrastive import (
    binding_loss,
    gathered_positives,
    info_nce,
    late_interaction,
    late_interaction_info_nce,
    mil_nce,
    pair_cross_entropy,
    pairwise_sigmoid,
    ranking_hinge,
    same_caption,
)
from mmlearn.objectives.ctc import ctc_log_likelihood, ctc_loss
from mmlearn.objectives.distillation import distilled_targets, soft_cross_entropy, update_momentum_encoder
from mmlearn.objectives.gather import gather
from mmlearn.objectives.generative import (
    caption_language_modelling,
    causal_language_modelling,
    prefix_language_modelling,
    prefix_mask,
    shifted_right,
    span_denoising,
    text_denoising,
)
from mmlearn.objectives.masked import (
    mask_regions,
    mask_tokens,
    masked_cross_entropy,
    masked_region_classification,
    masked_region_kl,
    masked_region_regression,
    smooth_region_regression,
)
from mmlearn.objectives.matching import hard_negatives, image_text_matching, random_negatives
from mmlearn.objectives.reconstruction import masked_l1
from mmlearn.objectives.separation import binary_mask_loss, binary_masks, ratio_mask_loss, ratio_masks
from mmlearn.objectives.speech import (
    code_diversity,
    code_perplexity,
    distractor_contrast,
    distractor_logits,
    mask_spans,
    masked_cluster,
    sample_distractors,
)
from mmlearn.objectives.subspaces import central_moment_discrepancy, difference_loss
from mmlearn.objectives.transport import cosine_cost, ipot, word_region_alignment

__all__ = [
    "binary_mask_loss", "binary_masks", "binding_loss", "caption_language_modelling", "causal_language_modelling",
    "central_moment_discrepancy", "cluster", "code_diversity", "code_perplexity", "cosine_cost", "ctc_log_likelihood",
    "ctc_loss", "difference_loss", "distilled_targets", "distractor_contrast", "distractor_logits", "gather",
    "gathered_positives", "hard_negatives", "image_text_matching", "info_nce", "ipot", "late_interaction",
    "late_interaction_info_nce", "mask_regions", "mask_spans", "mask_tokens", "masked_cluster", "masked_cross_entropy",
    "masked_l1", "masked_multimodal_cluster", "masked_region_classification", "masked_region_kl",
    "masked_region_regression", "mil_nce", "modality_dropout", "nearest", "pair_cross_entropy", "pairwise_sigmoid",
    "prefix_language_modelling", "prefix_mask", "random_negatives", "ranking_hinge", "ratio_mask_loss", "ratio_masks",
    "same_caption", "sample_distractors", "shifted_right", "smooth_region_regression", "soft_cross_entropy",
    "span_denoising", "text_denoising", "update_momentum_encoder", "word_region_alignment",
]  # fmt: skip
