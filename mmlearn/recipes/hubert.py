"""The recipe of HuBERT: what it reads, what it learns, and how that is measured."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mmlearn.data.fields import Clusters, Waveform
from mmlearn.data.speech_features import mfcc
from mmlearn.evaluation.measures import majority_share, row
from mmlearn.evaluation.speech import join_masked_frames
from mmlearn.models.speech.hubert import HuBERT, HuBERTConfig
from mmlearn.objectives.clusters import cluster, nearest
from mmlearn.recipes import Objective, Recipe, ln


def masked_cluster_accuracy(run: Any, samples: Sequence[Any]) -> dict[str, dict[str, float | None]]:
    """How many clusters of masked frames are predicted. Chance: always the commonest."""
    guesses, labels = [], []
    for batch in run.batches(samples):
        waveform, mask = batch["waveform"], batch["waveform_mask"]
        masked = run.system.draw(run.system.speech.frame_mask(waveform, mask))
        guesses.append(run.system(waveform, mask, masked).cluster_logits[masked].argmax(-1))
        labels.append(batch["cluster"][masked])
    guess, label = join_masked_frames(guesses).cpu(), torch.cat(labels).cpu()
    return {"masked-cluster accuracy": row((guess == label).float().mean(), majority_share(label))}


def cluster_targets(
    clips: Sequence[Tensor], clusters: int, *, generator: torch.Generator, model: HuBERT | None = None, block: int = 6
) -> list[Tensor]:
    """A cluster number for each frame of each clip: by k-means on MFCC or, with a ``model``, on its frames.

    Clips are (samples,), each of its own length, and so are their numbers (s,). Cepstral coefficients fit the published
    strides. Each is scaled to variance 1; the official code takes them as they are. Raises ``ValueError`` for fewer
    frames than clusters.
    Source: sections II-A and IV-B.
    """
    frames = [mfcc(clip) if model is None else model.block_output(clip, block) for clip in clips]
    every = torch.cat(frames)
    scale = every.std(0).clamp(min=1e-6) if model is None else 1.0
    centroids = cluster(every / scale, clusters, generator=generator)
    return list(nearest(every / scale, centroids).split([len(rows) for rows in frames]))


RECIPE = Recipe(
    HuBERT,
    HuBERTConfig,
    reads=(Waveform(), Clusters()),
    learns=Objective("cluster", {"cluster": ln("clusters")}, measures=(masked_cluster_accuracy,)),
    architecture="""
    waveform -> convolutions -> mask spans -> transformer -> scores of clusters -> !cross-entropy [masked frames]
    waveform -> *k-means [MFCC, then features] -> cluster of each frame -> !cross-entropy
    """,
)
