r"""OSCAR: the tags of detected objects stand between the words and the regions, as anchors for both modalities.

Paper: Li et al. 2020, "Oscar: Object-Semantics Aligned Pre-training for Vision-Language Tasks".
Official code: https://github.com/microsoft/Oscar.

Deviations: ``tiny`` is ours. Regions and tags come from a detector that is not trained along. Weights start as in our
BERT, from a normal cut at two deviations. A batch trains every objective whose labels it holds. Half of a batch is
polluted, where the paper draws for each triple. Wrong tags are another picture's tags, as in the paper; the code may
also take its caption. As in the code, a masked token may also become another one or stay, as in BERT;
masked tokens are predicted in polluted triples too; and class 0 is a matching triple, which the paper calls y = 1.
"""

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import nn

from mmlearn.layers.language import initialise_as_bert
from mmlearn.models.fusion.pretraining_losses import Batch, Losses
from mmlearn.models.fusion.regions import TINY, box_sizes
from mmlearn.models.fusion.single_stream import LARGE, SingleStream, SingleStreamConfig, SingleStreamOutput
from mmlearn.objectives.tags import triple_contrastive


@dataclass(frozen=True)
class OSCARConfig(SingleStreamConfig):
    region_norm: bool = False  # normalise projected regions
    objectives: tuple[str, ...] = ("mlm", "contrastive")

    PRESETS = {"tiny": TINY, "base": dict(), "large": LARGE}


class OSCAR(SingleStream):
    r"""One BERT reads [w, q, v]: words w, tags q as a second segment of the text, and regions v.

    .. math:: v_i = W [v'_i, x_1, y_1, x_2, y_2, w, h] + b

    ``token_type`` is 0 for words and 1 for tags; regions have neither type nor position. A text without tags, and
    without a ``token_type``, is read as well. Masked tokens (``mlm``) may be words or tags. ``contrastive``
    predicts from the first token whether the tags are another picture's: ``polluted`` (b,) is 1 where they are.
    Source: Li et al. 2020 (OSCAR), section 3: input, masked token loss and contrastive loss.
    """

    OBJECTIVES = ("mlm", "contrastive")
    POLLUTED: ClassVar[tuple[str, ...]] = ("tags",)  # what may be another picture's

    def __init__(self, config: OSCARConfig):
        super().__init__(config)
        self.region_projection = nn.Linear(config.region_width + 6, config.width)
        norm = nn.LayerNorm(config.width, eps=config.norm_epsilon)
        self.region_norm = norm if config.region_norm else nn.Identity()
        contrastive = "contrastive" in config.objectives
        self.contrast_head = nn.Linear(config.width, 1 + len(self.POLLUTED)) if contrastive else None
        self.apply(partial(initialise_as_bert, std=config.initial_std))

    def embed(self, regions, boxes, region_mask, masked, tokens, token_type, mask):
        box = torch.cat([boxes, box_sizes(boxes)[..., :2]], dim=-1)  # (b, p, 6)
        image = self.region_norm(self.region_projection(torch.cat([regions, box], dim=-1)))  # (b, p, d)
        return torch.cat([self.embedding(tokens, token_type, mask), self.embedding.dropout(image)], dim=1)  # (b, n, d)

    def image_losses(self, output: SingleStreamOutput, batch: Batch) -> Losses:
        """``contrastive``: does this triple match, or which part is another picture's?"""
        if self.contrast_head is None or "polluted" not in batch:
            return {}
        return {"contrastive": triple_contrastive(self.contrast_head(output.pooled), batch["polluted"])}
