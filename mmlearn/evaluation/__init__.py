"""Retrieval, alignment as a number, answers, and probes. All takes tensors; nothing knows a particular model."""

from mmlearn.evaluation.alignment import (
    choose_head,
    entropy,
    frames_near,
    frames_within,
    hits_and_misses,
    mass_ratio,
    modality_gap,
    modality_told,
    occlude,
    occlusion_check,
    on_grid,
    pair_alignment,
    pointing_accuracy,
    pointing_chance,
    random_patches,
    uniformity,
)
from mmlearn.evaluation.answers import (
    Predictions,
    compare_priors,
    entailment_accuracy,
    nlvr_accuracy,
    official_scores,
    picture_gain,
    predict,
    prior_guesses,
    prior_shift,
    soft_scores,
    vqa_accuracy,
)
from mmlearn.evaluation.captions import well_formed
from mmlearn.evaluation.cost import count_flops
from mmlearn.evaluation.grounding import (
    HeadReport,
    best_region,
    box_of_map,
    box_scores,
    grad_cam,
    gradient_maps,
    highest,
    iou,
    phrase_maps,
    referring_accuracy,
    region_occlusion_check,
    report_head,
)
from mmlearn.evaluation.heads import best_head, even_share, head_shares, matching_bracket, previous_token, same_token
from mmlearn.evaluation.language import pseudo_losses, token_losses
from mmlearn.evaluation.mentions import Mentions, find_mentions
from mmlearn.evaluation.mode import evaluating
from mmlearn.evaluation.probes import angle_errors, bag_of_words, left_out, linear_probe, nearest_neighbours, zero_shot
from mmlearn.evaluation.reranking import rerank, rerank_both_ways, reranked_retrieval
from mmlearn.evaluation.retrieval import (
    Embeddings,
    belongs,
    embed,
    first_seen,
    median_rank,
    recall_at,
    retrieval,
    similarity,
)
from mmlearn.evaluation.scaling import ScalingLaw, fit_scaling_law
from mmlearn.evaluation.separation import (
    SeparationScores,
    ideal_estimates,
    separation_scores,
    si_sdr,
    si_sdr_improvement,
)
from mmlearn.evaluation.shots import shuffled_labels
from mmlearn.evaluation.speech import (
    attention_in_time,
    edit_rate,
    edits,
    found_among_distractors,
    in_time,
    in_time_by_chance,
    lines_across,
    looks_inside,
    phone_purity,
)
from mmlearn.evaluation.spoken_retrieval import (
    CaptionQuestion,
    caption_question,
    caption_recalls,
    ctc_scores,
    length_scores,
    mean_recall,
    recall_table,
)

__all__ = [
    "CaptionQuestion", "Embeddings", "HeadReport", "Mentions", "Predictions", "ScalingLaw", "SeparationScores",
    "angle_errors", "attention_in_time", "bag_of_words", "belongs", "best_head", "best_region", "box_of_map",
    "box_scores", "caption_question", "caption_recalls", "choose_head", "compare_priors", "count_flops",
    "ctc_scores", "edit_rate", "edits", "embed", "entailment_accuracy", "entropy", "evaluating", "even_share",
    "find_mentions", "first_seen", "fit_scaling_law", "found_among_distractors", "frames_near", "frames_within",
    "grad_cam", "gradient_maps", "head_shares", "highest", "hits_and_misses", "ideal_estimates", "in_time",
    "in_time_by_chance", "iou", "left_out", "length_scores", "linear_probe", "lines_across", "looks_inside",
    "mass_ratio", "matching_bracket", "mean_recall", "median_rank", "modality_gap", "modality_told",
    "nearest_neighbours", "nlvr_accuracy", "occlude", "occlusion_check", "official_scores", "on_grid",
    "pair_alignment", "phone_purity", "phrase_maps", "picture_gain", "pointing_accuracy", "pointing_chance",
    "predict", "previous_token", "prior_guesses", "prior_shift", "pseudo_losses", "random_patches", "recall_at",
    "recall_table", "referring_accuracy", "region_occlusion_check", "report_head", "rerank", "rerank_both_ways",
    "reranked_retrieval", "retrieval", "same_token", "separation_scores", "shuffled_labels",
    "si_sdr", "si_sdr_improvement",
    "similarity", "soft_scores", "token_losses", "uniformity", "vqa_accuracy", "well_formed", "zero_shot",
]  # fmt: skip
