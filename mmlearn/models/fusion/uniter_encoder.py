"""The encoder of UNITER, which UC2 shares: how a region becomes a token of the one sequence."""

import torch
from torch import nn

from mmlearn.models.fusion.regions import box_sizes
from mmlearn.models.fusion.single_stream import SingleStream, SingleStreamConfig


class UNITEREncoder(SingleStream):
    r"""A region's features v and its box are projected and normalised apart, added to a type, and normalised again.

    .. math:: \mathrm{LN}(\mathrm{LN}(W_v v) + \mathrm{LN}(W_l [x_1, y_1, x_2, y_2, w, h, w h]) + e_\mathrm{picture})

    Where a region is masked, a learned vector takes the place of its features. Source: Chen et al. 2020 (UNITER),
    section 3.1 and figure 1.
    """

    def __init__(self, config: SingleStreamConfig):
        super().__init__(config)
        width, epsilon = config.width, config.norm_epsilon
        self.region_projection = nn.Linear(config.region_width, width)
        self.region_norm = nn.LayerNorm(width, eps=epsilon)
        self.box_projection = nn.Linear(7, width)
        self.box_norm = nn.LayerNorm(width, eps=epsilon)
        self.sum_norm = nn.LayerNorm(width, eps=epsilon)
        self.masked_region = nn.Parameter(0.02 * torch.randn(config.region_width))

    def embed(self, regions, boxes, region_mask, masked, tokens, token_type, mask):
        regions = regions + masked[..., None] * self.masked_region  # masked regions came as zeros
        box = torch.cat([boxes, box_sizes(boxes)], dim=-1)  # (b, p, 7)
        # Each is normalised before the sum, so that 2,048 features do not drown seven numbers.
        image = self.region_norm(self.region_projection(regions)) + self.box_norm(self.box_projection(box))  # (b, p, d)
        image = self.sum_norm(image + self.embedding.token_types.weight[self.IMAGE_TYPE])
        return torch.cat([self.embedding(tokens, token_type, mask), self.embedding.dropout(image)], dim=1)  # (b, n, d)
