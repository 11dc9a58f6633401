"""Retrieval, alignment as a number, and probes. Everything takes tensors; nothing knows a particular model."""

from mmlearn.evaluation.alignment import (
    choose_head,
    entropy,
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
from mmlearn.evaluation.mentions import Mentions, find_mentions
from mmlearn.evaluation.probes import linear_probe, nearest_neighbours, zero_shot
from mmlearn.evaluation.retrieval import Embeddings, embed, median_rank, recall_at, retrieval, similarity

__all__ = [
    "Embeddings",
    "Mentions",
    "choose_head",
    "embed",
    "entropy",
    "find_mentions",
    "linear_probe",
    "mass_ratio",
    "median_rank",
    "modality_gap",
    "nearest_neighbours",
    "occlude",
    "occlusion_check",
    "on_grid",
    "pair_alignment",
    "pointing_accuracy",
    "pointing_chance",
    "random_patches",
    "recall_at",
    "retrieval",
    "similarity",
    "uniformity",
    "zero_shot",
]
