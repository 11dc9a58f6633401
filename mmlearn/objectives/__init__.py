"""One pure function per objective. No module state, no data loading."""

from mmlearn.objectives.audio_visual import masked_multimodal_cluster, modality_dropout
from mmlearn.objectives.classes import class_cross_entropy
from mmlearn.objectives.clusters import cluster, nearest
from mmlearn.objectives.contrastive import (
    binding_loss,
    both_ways,
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
from mmlearn.objectives.cues import (
    cue_reconstruction,
    destroy_numbers,
    keep_modalities,
    pair_similarity,
    similarity_of_pairs,
)
from mmlearn.objectives.denoising import (
    delete_tokens,
    draw_spans,
    fill_spans,
    hide_spans,
    infill,
    lost,
    mask_tokens_of,
    permute_sentences,
    restore,
    rotate_text,
)
from mmlearn.objectives.detection import (
    replaced_token_detection,
    sample_replacements,
    shuffle_tokens,
    substitute_tokens,
)
from mmlearn.objectives.distillation import (
    distilled_targets,
    inherit_knowledge,
    inheritance_rate,
    soft_cross_entropy,
    update_momentum_encoder,
)
from mmlearn.objectives.drawing import (
    conditioning_augmentation,
    damsm,
    interpolate_texts,
    matching_aware_discrimination,
    matching_aware_generation,
    other_captions,
    standard_normal_divergence,
    word_attention,
    word_region_scores,
)
from mmlearn.objectives.experts import balance, global_entropy, local_entropy, router_z, top_experts
from mmlearn.objectives.gather import gather, own_rows
from mmlearn.objectives.generative import (
    backwards,
    caption_language_modelling,
    causal_language_modelling,
    draw_prefix,
    prefix_language_modelling,
    prefix_mask,
    response_language_modelling,
    responses_in_turn,
    shifted_right,
    span_denoising,
    text_denoising,
)
from mmlearn.objectives.masked import (
    mask_nodes,
    mask_regions,
    mask_tokens,
    masked_cross_entropy,
    masked_region_classification,
    masked_region_kl,
    masked_region_regression,
    smooth_region_regression,
)
from mmlearn.objectives.masked_image import (
    draw_visible,
    hidden_patches,
    mask_blocks,
    masked_codes,
    masked_pixels,
    normalised_patches,
    restore_order,
)
from mmlearn.objectives.matched import asking_rows, matched_info_nce
from mmlearn.objectives.matching import hard_negatives, image_text_matching, random_negatives
from mmlearn.objectives.reconstruction import masked_l1
from mmlearn.objectives.rewards import self_critical, token_log_probs, until_end
from mmlearn.objectives.self_distillation import contextual_targets, masked_regression, rising_decay
from mmlearn.objectives.sentences import next_sentence, segment_order, sentence_order, swap_segments
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
from mmlearn.objectives.unpaired import keep_largest, masked_divergence, own_gradient

__all__ = [
    "asking_rows", "backwards", "balance", "binary_mask_loss", "binary_masks", "binding_loss", "both_ways",
    "caption_language_modelling", "causal_language_modelling", "central_moment_discrepancy", "class_cross_entropy",
    "cluster", "code_diversity", "code_perplexity", "conditioning_augmentation", "contextual_targets",
    "cosine_cost", "ctc_log_likelihood", "ctc_loss", "cue_reconstruction", "damsm", "delete_tokens",
    "destroy_numbers", "difference_loss", "distilled_targets", "distractor_contrast", "distractor_logits",
    "draw_prefix", "draw_spans", "draw_visible", "fill_spans", "gather", "gathered_positives", "global_entropy",
    "hard_negatives", "hidden_patches", "hide_spans", "image_text_matching", "infill", "info_nce",
    "inherit_knowledge", "inheritance_rate", "interpolate_texts", "ipot", "keep_largest", "keep_modalities",
    "late_interaction", "late_interaction_info_nce", "local_entropy", "lost", "mask_blocks",
    "mask_nodes", "mask_regions",
    "mask_spans", "mask_tokens", "mask_tokens_of", "masked_cluster", "masked_codes", "masked_cross_entropy",
    "masked_divergence", "masked_l1", "masked_multimodal_cluster", "masked_pixels", "masked_region_classification",
    "masked_region_kl", "masked_region_regression", "masked_regression", "matched_info_nce",
    "matching_aware_discrimination", "matching_aware_generation", "mil_nce", "modality_dropout", "nearest",
    "next_sentence", "normalised_patches", "other_captions", "own_gradient", "own_rows", "pair_cross_entropy",
    "pair_similarity", "pairwise_sigmoid", "permute_sentences", "prefix_language_modelling", "prefix_mask",
    "random_negatives", "ranking_hinge", "ratio_mask_loss", "ratio_masks", "replaced_token_detection",
    "response_language_modelling", "responses_in_turn",
    "restore", "restore_order", "rising_decay", "rotate_text", "router_z",
    "same_caption", "sample_distractors", "sample_replacements", "segment_order", "self_critical", "sentence_order",
    "shifted_right", "shuffle_tokens", "similarity_of_pairs", "smooth_region_regression", "soft_cross_entropy",
    "span_denoising", "standard_normal_divergence", "substitute_tokens", "swap_segments", "text_denoising",
    "token_log_probs", "top_experts", "until_end", "update_momentum_encoder", "word_attention",
    "word_region_alignment", "word_region_scores",
]  # fmt: skip
