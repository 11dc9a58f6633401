"""The recipe of AV-HuBERT: what it reads, what it learns, and how that is measured."""

from collections.abc import Sequence
from typing import Any

import torch

from mmlearn.data.fields import Clusters, LogMel, Video
from mmlearn.evaluation.measures import majority_share, row
from mmlearn.evaluation.speech import join_masked_frames
from mmlearn.models.audiovisual.av_hubert import AVHuBERT, AVHuBERTConfig
from mmlearn.recipes import Objective, Recipe, ln


def masked_cluster_accuracy(run: Any, samples: Sequence[Any]) -> dict[str, dict[str, float | None]]:
    """How many clusters of frames are predicted whose sound or picture is masked. Chance: always the commonest."""
    guesses, labels = [], []
    for batch in run.batches(samples):
        streams = [batch[name] for name in ("video", "mel", "video_mask", "mel_mask")]
        real = run.system.frame_mask(*streams)
        draws = run.system.draw(real)
        masked = (draws.audio_masked | draws.video_masked) & real
        guesses.append(run.system(*streams, draws).cluster_logits[masked].argmax(-1))
        labels.append(batch["cluster"][masked])
    guess, label = join_masked_frames(guesses).cpu(), torch.cat(labels).cpu()
    return {"masked-cluster accuracy": row((guess == label).float().mean(), majority_share(label))}


RECIPE = Recipe(
    AVHuBERT,
    AVHuBERTConfig,
    reads=(Video(), LogMel(), Clusters(every=2)),
    learns=Objective("cluster", {"cluster": ln("clusters")}, measures=(masked_cluster_accuracy,)),
    architecture="""
    lips -> convolutions [ResNet] -> mask spans, drop one -> transformer -> scores of clusters
    scores of clusters -> !cross-entropy [masked frames]
    log-mel -> projection -> mask spans, drop one
    *k-means -> cluster of each frame -> !cross-entropy
    """,
)
