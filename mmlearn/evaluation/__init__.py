"""Retrieval, alignment as a number, answers, and probes. All takes tensors; nothing knows a particular model."""

from mmlearn.evaluation.alignment import (
    choose_head,
    entropy,
    frames_near,
    mass_ratio,
    modality_gap,
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
from mmlearn.evaluation.mentions import Mentions, find_mentions
from mmlearn.evaluation.mode import evaluating
from mmlearn.evaluation.probes import linear_probe, nearest_neighbours, zero_shot
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
from mmlearn.evaluation.separation import (
    SeparationScores,
    ideal_estimates,
    separation_scores,
    si_sdr,
    si_sdr_improvement,
)
from mmlearn.evaluation.speech import found_among_distractors

__all__ = [
    "Embeddings", "HeadReport", "Mentions", "Predictions", "SeparationScores", "belongs", "best_region", "box_of_map",
    "box_scores", "choose_head", "compare_priors", "count_flops", "embed", "entailment_accuracy", "entropy",
    "evaluating", "find_mentions", "first_seen", "found_among_distractors", "frames_near", "grad_cam", "gradient_maps",
    "highest", "ideal_estimates", "iou", "linear_probe", "mass_ratio", "median_rank", "modality_gap",
    "nearest_neighbours", "nlvr_accuracy", "occlude", "occlusion_check", "official_scores", "on_grid", "pair_alignment",
    "phrase_maps", "picture_gain", "pointing_accuracy", "pointing_chance", "predict", "prior_guesses", "prior_shift",
    "random_patches", "recall_at", "referring_accuracy", "region_occlusion_check", "report_head", "rerank",
    "rerank_both_ways", "reranked_retrieval", "retrieval", "separation_scores", "si_sdr", "si_sdr_improvement",
    "similarity", "soft_scores", "uniformity", "vqa_accuracy", "zero_shot",
]  # fmt: skip
