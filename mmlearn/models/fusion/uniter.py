r"""UNITER: the words and the regions of a picture are one sequence, which one BERT reads.

Paper: Chen et al. 2020, "UNITER: UNiversal Image-TExt Representation Learning".
Official code: https://github.com/ChenRocks/UNITER.

Deviations: ``tiny`` is ours. Regions come from a detector that is not trained along. Weights start as in our BERT, from
a normal cut at two deviations. A batch trains every objective whose labels it holds. MRFR sums over features, as in the
paper (the code takes their mean); MRC-kl sums over classes (the code: mean); MRC may name the background. WRA pulls
matching pairs together and pushes others apart, as in the code.
"""

from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from mmlearn.layers.language import initialise_as_bert
from mmlearn.models.fusion.heads import classifier
from mmlearn.models.fusion.pretraining_losses import Batch, Losses, regions_to_predict
from mmlearn.models.fusion.regions import TINY
from mmlearn.models.fusion.single_stream import LARGE, SingleStreamConfig, SingleStreamOutput
from mmlearn.models.fusion.uniter_encoder import UNITEREncoder
from mmlearn.objectives.masked import masked_region_regression
from mmlearn.objectives.transport import word_region_alignment


@dataclass(frozen=True)
class UNITERConfig(SingleStreamConfig):
    vocab_size: int = 28_996  # of the cased BERT
    objectives: tuple[str, ...] = ("mlm", "mrfr", "mrc_kl", "itm", "wra")
    alignment_weight: float = 0.1  # of WRA

    PRESETS = {"tiny": TINY, "base": dict(), "large": LARGE}


class UNITER(UNITEREncoder):
    """One stream, in which masked regions are predicted as well, and words and regions are aligned.

    Source: Chen et al. 2020, section 3.1 and figure 1; section 3.2 for the objectives.
    """

    OBJECTIVES = ("mlm", "mrfr", "mrc", "mrc_kl", "itm", "wra")

    config: UNITERConfig

    def __init__(self, config: UNITERConfig):
        super().__init__(config)
        width, epsilon = config.width, config.norm_epsilon
        if {"mrc", "mrc_kl"} & set(config.objectives):
            self.region_classifier = classifier(width, width, config.region_classes, norm_epsilon=epsilon)
        if "mrfr" in config.objectives:
            self.region_regression = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.LayerNorm(width, eps=epsilon))
            self.region_regression_bias = nn.Parameter(torch.zeros(config.region_width))
        self.apply(partial(initialise_as_bert, std=config.initial_std))

    def region_features(self, regions: Float[Tensor, "*p d"]) -> Float[Tensor, "*p f"]:
        """The features of masked regions, predicted through the transpose of the matrix that projects features."""
        return F.linear(self.region_regression(regions), self.region_projection.weight.T, self.region_regression_bias)

    def image_losses(self, output: SingleStreamOutput, batch: Batch) -> Losses:
        """``mrc`` or ``mrc_kl``, ``mrfr``, and ``wra``, the alignment of words and regions."""
        losses = super().image_losses(output, batch)
        if "mrfr" in self.config.objectives and {"masked_regions", "region_target"} <= batch.keys():
            prediction = self.region_features(output.regions)  # (b, p, f)
            losses["mrfr"] = masked_region_regression(prediction, batch["region_target"], regions_to_predict(batch))
        if "wra" in self.config.objectives and "match_label" in batch:
            word_mask = batch.get("mask", torch.ones_like(batch["tokens"], dtype=torch.bool))
            region_mask = batch.get("region_mask", torch.ones_like(batch["boxes"][..., 0], dtype=torch.bool))
            distance = word_region_alignment(output.tokens, output.regions, word_mask, region_mask)  # (b,)
            # Matching pairs are pulled together, others pushed apart, as in the official code.
            signed = torch.where(batch["match_label"] == 1, distance, -distance)
            losses["wra"] = self.config.alignment_weight * signed.mean()
        return losses
