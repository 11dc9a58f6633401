r"""VisualBERT: the words and the regions of a picture are one sequence, which one BERT reads. The simplest of its kind.

Paper: Li et al. 2019, "VisualBERT: A Simple and Performant Baseline for Vision and Language".
Official code: https://github.com/uclanlp/visualbert.

Deviations: ``tiny`` is ours. Regions come from a detector that is not trained along. Weights start as in our BERT, from
a normal cut at two deviations. A batch trains every objective whose labels it holds. Regions take no position from
words aligned with them.
"""

from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from mmlearn.layers.language import initialise_as_bert
from mmlearn.models.fusion.regions import TINY
from mmlearn.models.fusion.single_stream import SingleStream, SingleStreamConfig


@dataclass(frozen=True)
class VisualBERTConfig(SingleStreamConfig):
    PRESETS = {"tiny": TINY, "base": dict()}


class VisualBERT(SingleStream):
    r"""A region is its projected features, the picture's type, and one position for all; normalised as words are.

    .. math:: \mathrm{LN}(W v + e_\mathrm{picture} + e_\mathrm{position})

    Words are also predicted in texts that do not match, because the paper gives each picture two captions, of which the
    first always matches. Boxes are not read.
    Source: Li et al. 2019, section 3.2; section 3.3 for the objectives.
    """

    OBJECTIVES = ("mlm", "itm")
    MATCHED_ONLY = False

    def __init__(self, config: VisualBERTConfig):
        super().__init__(config)
        self.region_projection = nn.Linear(config.region_width, config.width)
        # Whole tables, as published, though regions read only one row of each.
        self.region_types = nn.Embedding(config.token_types, config.width)
        self.region_positions = nn.Parameter(torch.empty(config.max_length, config.width))
        self.apply(partial(initialise_as_bert, std=config.initial_std))
        with torch.no_grad():
            self.region_types.weight.copy_(self.embedding.get_parameter("token_types.weight"))
            self.region_positions.copy_(self.embedding.positions)

    def embed(self, regions, boxes, region_mask, masked, tokens, token_type, mask):
        # All regions share one position, because they have no order.
        image = self.region_projection(regions) + self.region_types.weight[self.IMAGE_TYPE] + self.region_positions[0]
        image = self.embedding.dropout(self.embedding.norm(image))  # (b, p, d)
        return torch.cat([self.embedding(tokens, token_type, mask), image], dim=1)  # (b, n, d)
