r"""VL-BERT: every element of one sequence has a token and a visual feature, which for words is the whole picture's.

Paper: Su et al. 2020, "VL-BERT: Pre-training of Generic Visual-Linguistic Representations".
Official code: https://github.com/jackroos/VL-BERT.

Deviations: ``tiny`` is ours. Regions come from a detector that is not trained along. Weights start as in our BERT, from
a normal cut at two deviations. A batch trains every objective whose labels it holds. MRC predicts the likeliest class,
as in the paper (the code predicts the distribution, as ``mrc_kl`` does). All masked regions become zeros; the code
keeps one in ten as it is. As in the code for given features, boxes are centre and size (in the paper corners), [END]
has no visual feature (in the paper the whole picture's), and the whole picture is the mean of the unmasked regions (in
the paper a network's view of it; the code adds 1e-5 to their number). Its box ends at the picture's edge, in the code
one pixel before. No text comes without a picture. Where a text fills all positions, regions and [END] share its last.
"""

from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from mmlearn.layers import TextEmbedding
from mmlearn.layers.language import check_text_mask, initialise_as_bert
from mmlearn.models.fusion.regions import TINY
from mmlearn.models.fusion.single_stream import LARGE, SingleStream, SingleStreamConfig


@dataclass(frozen=True)
class VLBERTConfig(SingleStreamConfig):
    token_types: int = 3  # A and B for sentences, C for the picture
    geometry_width: int = 2048  # features of a box: a multiple of 8
    visual_scale: float = 0.0  # of visual features at first: 0 starts as BERT, initial_std has them as large as tokens
    pooler: bool = False
    objectives: tuple[str, ...] = ("mlm", "mrc")

    PRESETS = {"tiny": TINY | dict(geometry_width=64, visual_scale=0.125), "base": dict(), "large": LARGE}


def sinusoidal_boxes(boxes: Float[Tensor, "b p 4"], width: int) -> Float[Tensor, "b p width"]:
    r"""Sines and cosines of a box's centre and size, in percent of the picture's, at m wavelengths each.

    .. math:: \sin(100\, g / 1000^{i/m}),\; \cos(100\, g / 1000^{i/m}), \quad
       g \in (x_c, y_c, w, h), \quad 0 \le i < m = \mathrm{width} / 8

    Raises ``ValueError`` for a width that is no multiple of 8. Source: Su et al. 2020, section 3.2, and official code.
    """
    if width % 8:
        raise ValueError(f"A box is four numbers in sines and cosines: width must be a multiple of 8, got {width}.")
    left, top, right, bottom = boxes.unbind(-1)  # each (b, p)
    geometry = torch.stack([(left + right) / 2, (top + bottom) / 2, right - left, bottom - top], dim=-1)  # (b, p, 4)
    exponent = torch.arange(width // 8, device=boxes.device) / (width // 8)  # (m,)
    angle = 100 * geometry[..., None] / 1000**exponent  # (b, p, 4, m)
    return torch.cat([angle.sin(), angle.cos()], dim=-1).flatten(-2)  # (b, p, width)


class VLBERT(SingleStream):
    r"""Each element has a token, a visual feature, a segment and a position; words get the whole picture's feature.

    .. math:: e_\mathrm{token} + \mathrm{LN}(\mathrm{ReLU}(W [g(\mathrm{box}), v])) + e_\mathrm{segment}
       + e_\mathrm{position}

    The token of a region is [IMG], or another learned vector where it is masked. The whole picture is one more region.
    All regions stand at one position behind the text, and [END] at the next. Text is padded at its end.
    Source: Su et al. 2020, section 3.2 and figure 1; section 3.3 for the objectives.
    """

    OBJECTIVES = ("mlm", "mrc", "mrc_kl", "itm")
    IMAGE_TYPE = 2

    def __init__(self, config: VLBERTConfig):
        super().__init__(config)
        width, epsilon = config.width, config.norm_epsilon
        self.visual = nn.Sequential(
            nn.Dropout(config.dropout), nn.Linear(config.geometry_width + config.region_width, width), nn.ReLU()
        )
        self.word_visual_norm = nn.LayerNorm(width, eps=epsilon)
        self.region_visual_norm = nn.LayerNorm(width, eps=epsilon)
        self.image_token = nn.Parameter(config.initial_std * torch.randn(width))
        self.masked_image_token = nn.Parameter(config.initial_std * torch.randn(width))
        self.end_token = nn.Parameter(config.initial_std * torch.randn(width))
        self.masked_region = nn.Parameter(torch.zeros(config.region_width))
        if {"mrc", "mrc_kl"} & set(config.objectives):
            first, last = nn.Linear(width, width), nn.Linear(width, config.region_classes)
            self.region_classifier = nn.Sequential(first, nn.GELU(), last)
        self.apply(partial(initialise_as_bert, std=config.initial_std))
        for norm in (self.word_visual_norm, self.region_visual_norm):
            nn.init.constant_(norm.weight, config.visual_scale)

    def embed(self, regions, boxes, region_mask, masked, tokens, token_type, mask, position=None):
        # The whole picture is one more region: the mean of the unmasked ones, in a box around everything.
        unmasked = (region_mask & ~masked).sum(1)[:, None, None]  # (b, 1, 1)
        whole_image = regions.sum(1, keepdim=True) / unmasked.clamp(min=1)  # (b, 1, f)
        regions = torch.cat([regions + masked[..., None] * self.masked_region, whole_image], dim=1)  # (b, p + 1, f)
        boxes = torch.cat([boxes, F.pad(boxes.new_ones(len(boxes), 1, 2), (2, 0))], dim=1)  # 0 0 1 1 behind the others
        geometry = sinusoidal_boxes(boxes, self.config.geometry_width)
        visual = self.visual(torch.cat([geometry, regions], dim=-1))  # (b, p + 1, d)

        check_text_mask(mask)
        embedding, segments, positions = self.embedding, self.embedding.token_types, self.embedding.positions
        # Only BERT's sum of embeddings, because visual features join it before the norm.
        words = TextEmbedding.forward(embedding, tokens, position)  # (b, t, d)
        text = words + segments(token_type) + self.word_visual_norm(visual[:, -1:])

        next_position = mask.sum(1)[:, None]  # (b, 1): all regions stand right behind the text
        image_token = torch.where(F.pad(masked, (0, 1))[..., None], self.masked_image_token, self.image_token)
        image = image_token + self.region_visual_norm(visual)
        image = image + positions[next_position.clamp(max=len(positions) - 1)]  # (b, p + 1, d)
        end = self.end_token + positions[(next_position + 1).clamp(max=len(positions) - 1)]  # (b, 1, d)
        image = torch.cat([image, end], dim=1) + segments.weight[self.IMAGE_TYPE]
        return embedding.dropout(embedding.norm(torch.cat([text, image], dim=1)))  # (b, t + p + 2, d)
