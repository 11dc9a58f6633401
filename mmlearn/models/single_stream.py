r"""UNITER, VL-BERT and VisualBERT: the words and the regions of a picture are one sequence, which one BERT reads.

The encoder that they share is :class:`~mmlearn.layers.single_stream.SingleStream`. They differ in how a region becomes
a token and in what is learned:

- **UNITER** (Chen et al. 2020, "UNITER: UNiversal Image-TExt Representation Learning",
  https://github.com/ChenRocks/UNITER): features and seven numbers of the box, each projected and normalised.
  Learns MLM, MRFR, MRC or MRC-kl, ITM, WRA.
- **VL-BERT** (Su et al. 2020, "VL-BERT: Pre-training of Generic Visual-Linguistic Representations",
  https://github.com/jackroos/VL-BERT): every element has a token *and* a visual feature, which for words is that of the
  whole picture; boxes are sines and cosines. Learns MLM and MRC, no ITM.
- **VisualBERT** (Li et al. 2019, "VisualBERT: A Simple and Performant Baseline for Vision and Language",
  https://github.com/uclanlp/visualbert): features projected, and a type; no box. Learns MLM and ITM.

Deviations, of all: ``tiny`` is ours. Regions come from a detector that is not trained along. Weights start as in our
BERT, from a normal cut at two deviations. A batch trains every objective whose labels it holds.
UNITER: MRFR sums over features, as in the paper (the code takes their mean); MRC-kl sums over classes (the code: mean);
MRC may name the background. WRA pulls matching pairs together and pushes others apart, as in the code.
VL-BERT: MRC asks for the likeliest class, as in the paper (the code for the whole distribution, as ``mrc_kl`` does).
As in the code for given features, boxes are centre and size (in the paper corners), [END] has no visual feature (in the
paper the whole picture's), and the whole picture is the mean of the unmasked regions (in the paper a network's view of
it). No text comes without a picture. Where a text fills all positions, regions and [END] share its last.
VisualBERT: regions take no position from words aligned with them.
"""

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from mmlearn.layers import TextEmbedding
from mmlearn.layers.heads import classifier
from mmlearn.layers.language import initialise_as_bert
from mmlearn.layers.regions import box_sizes, masked_only
from mmlearn.layers.single_stream import SingleStream, SingleStreamConfig, SingleStreamOutput
from mmlearn.objectives.masked import (
    IGNORED,
    masked_cross_entropy,
    masked_region_classification,
    masked_region_kl,
    masked_region_regression,
)
from mmlearn.objectives.matching import image_text_matching
from mmlearn.objectives.transport import word_region_alignment

# Objective → the entries of a batch that it learns from.
LABELS = {
    "mlm": ("token_label",),
    "mrfr": ("masked_regions", "region_target"),
    "mrc": ("masked_regions", "region_classes"),
    "mrc_kl": ("masked_regions", "region_classes"),
    "itm": ("match_label",),
    "wra": ("match_label",),
}
OPTIONAL = ("mask", "region_mask", "masked_regions", "token_type")

TINY = dict(
    vocab_size=512,
    max_length=32,
    region_width=216,
    region_classes=144,
    width=64,
    depth=3,
    num_heads=4,
    dropout=0.0,
    initial_std=0.125,  # 1 / √64
)
LARGE = dict(width=1024, depth=24, num_heads=16)


class Pretraining(SingleStream):
    """The losses of a single stream: one method for each objective."""

    MATCHED_ONLY: ClassVar[bool] = True  # words and regions are guessed only where text and picture belong together

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Float[Tensor, ""]]:
        """The losses of those ``objectives`` whose labels the batch holds.

        Words are guessed where ``token_label`` (b, t) is not -100; regions where ``masked_regions`` (b, p) is True, by
        their ``region_target`` (b, p, f) or ``region_classes`` (b, p, c). ``match_label`` (b,) is 1 for a text and a
        picture that belong together, 0 otherwise. ``ValueError`` without any such label, or without a pair.
        """
        if not len(batch["tokens"]):
            raise ValueError("A batch holds at least one text and picture.")
        ready = [name for name in self.config.objectives if all(label in batch for label in LABELS[name])]
        if not ready:
            labels = ", ".join(f"{' and '.join(LABELS[name])} for {name}" for name in self.config.objectives)
            raise ValueError(f"This batch has no label to learn from; {type(self).__name__} needs any of: {labels}.")
        given = {name: batch[name] for name in OPTIONAL if name in batch}
        output = self(batch["tokens"], batch["regions"], batch["boxes"], **given)
        together = torch.ones_like(batch["tokens"][:, :1], dtype=torch.bool)  # (b, 1)
        if self.MATCHED_ONLY and "match_label" in batch:
            together = batch["match_label"][:, None] == 1
        return {name: getattr(self, f"_{name}")(output, batch, together) for name in ready}

    def _mlm(self, output: SingleStreamOutput, batch: dict[str, Tensor], together: Tensor) -> Tensor:
        masked = together & (batch["token_label"] != IGNORED)
        return masked_cross_entropy(self.token_logits(output.tokens[masked]), batch["token_label"][masked])

    def _itm(self, output: SingleStreamOutput, batch: dict[str, Tensor], together: Tensor) -> Tensor:
        return image_text_matching(output.match_logits, batch["match_label"])

    def _mrc(self, output: SingleStreamOutput, batch: dict[str, Tensor], together: Tensor) -> Tensor:
        states, classes, masked = self._masked(output, batch, "region_classes", together)
        return masked_region_classification(self.region_classifier(states), classes, masked)

    def _mrc_kl(self, output: SingleStreamOutput, batch: dict[str, Tensor], together: Tensor) -> Tensor:
        states, classes, masked = self._masked(output, batch, "region_classes", together)
        return masked_region_kl(self.region_classifier(states), classes, masked)

    def _masked(
        self, output: SingleStreamOutput, batch: dict[str, Tensor], label: str, together: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The m masked regions of pairs that count: states (1, m, d), labels (1, m, ...), and a mask of ones."""
        masked = batch["masked_regions"] & together
        if "region_mask" in batch:
            masked = masked & batch["region_mask"]
        return masked_only(masked, output.regions, batch[label])


@dataclass(frozen=True)
class UNITERConfig(SingleStreamConfig):
    vocab_size: int = 28_996  # of the cased BERT
    objectives: tuple[str, ...] = ("mlm", "mrfr", "mrc_kl", "itm", "wra")
    alignment_weight: float = 0.1  # of WRA

    PRESETS = {"tiny": TINY, "base": dict(), "large": LARGE}


class UNITER(Pretraining):
    r"""A region is its features v and its box, projected and normalised apart, added to a type, and normalised again.

    .. math:: \mathrm{LN}(\mathrm{LN}(W_v v) + \mathrm{LN}(W_l [x_1, y_1, x_2, y_2, w, h, w h]) + e_\mathrm{picture})

    Source: Chen et al. 2020, section 3.1 and figure 1; section 3.2 for the objectives.
    """

    OBJECTIVES = ("mlm", "mrfr", "mrc", "mrc_kl", "itm", "wra")

    def __init__(self, config: UNITERConfig):
        super().__init__(config)
        width, epsilon = config.width, config.norm_epsilon
        self.region_projection = nn.Linear(config.region_width, width)
        self.region_norm = nn.LayerNorm(width, eps=epsilon)
        self.box_projection = nn.Linear(7, width)
        self.box_norm = nn.LayerNorm(width, eps=epsilon)
        self.sum_norm = nn.LayerNorm(width, eps=epsilon)
        self.masked_region = nn.Parameter(0.02 * torch.randn(config.region_width))
        self.region_classifier = self.region_regression = None
        if {"mrc", "mrc_kl"} & set(config.objectives):
            self.region_classifier = classifier(width, width, config.region_classes, norm_epsilon=epsilon)
        if "mrfr" in config.objectives:
            self.region_regression = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.LayerNorm(width, eps=epsilon))
            self.region_regression_bias = nn.Parameter(torch.zeros(config.region_width))
        self.apply(partial(initialise_as_bert, std=config.initial_std))

    def embed(self, tokens, token_type, mask, regions, boxes, region_mask, masked):
        regions = regions + masked[..., None] * self.masked_region  # which are 0 where masked
        box = torch.cat([boxes, box_sizes(boxes)], dim=-1)
        image = self.region_norm(self.region_projection(regions)) + self.box_norm(self.box_projection(box))
        image = self.sum_norm(image + self.embedding.token_types.weight[self.PICTURE])
        return torch.cat([self.embedding(tokens, token_type), self.embedding.dropout(image)], dim=1)

    def _mrfr(self, output: SingleStreamOutput, batch: dict[str, Tensor], together: Tensor) -> Tensor:
        states, target, masked = self._masked(output, batch, "region_target", together)
        table = self.region_projection.weight.T  # features are written by the matrix that reads them
        prediction = F.linear(self.region_regression(states), table, self.region_regression_bias)
        return masked_region_regression(prediction, target, masked)

    def _wra(self, output: SingleStreamOutput, batch: dict[str, Tensor], together: Tensor) -> Tensor:
        word_mask = batch.get("mask", torch.ones_like(batch["tokens"], dtype=torch.bool))
        region_mask = batch.get("region_mask", torch.ones_like(batch["boxes"][..., 0], dtype=torch.bool))
        distance = word_region_alignment(output.tokens, output.regions, word_mask, region_mask)  # (b,)
        return self.config.alignment_weight * torch.where(batch["match_label"] == 1, distance, -distance).mean()


@dataclass(frozen=True)
class VLBERTConfig(SingleStreamConfig):
    token_types: int = 3  # A and B for sentences, C for the picture
    geometry_width: int = 2048  # features of a box: a multiple of 8
    visual_scale: float = 0.0  # of visual features at first: 0 starts as BERT, initial_std has them as large as tokens
    pooler: bool = False
    objectives: tuple[str, ...] = ("mlm", "mrc")

    PRESETS = {"tiny": TINY | dict(geometry_width=64, visual_scale=0.125), "base": dict(), "large": LARGE}


def box_waves(boxes: Float[Tensor, "b p 4"], width: int) -> Float[Tensor, "b p width"]:
    r"""Sines and cosines of a box's centre and size, in percent of the picture's, at m wavelengths each.

    .. math:: \sin(100\, g / 1000^{i/m}),\; \cos(100\, g / 1000^{i/m}), \quad
       g \in (x_c, y_c, w, h), \quad 0 \le i < m = \mathrm{width} / 8

    Raises ``ValueError`` for a width that is no multiple of 8. Source: Su et al. 2020, section 3.2, and official code.
    """
    if width % 8:
        raise ValueError(f"A box is four numbers in sines and cosines: width must be a multiple of 8, got {width}.")
    left, top, right, bottom = boxes.unbind(-1)
    place = torch.stack([(left + right) / 2, (top + bottom) / 2, right - left, bottom - top], dim=-1)
    steps = torch.arange(width // 8, device=boxes.device) / (width // 8)
    angle = 100 * place[..., None] / 1000**steps  # (b, p, 4, m)
    return torch.cat([angle.sin(), angle.cos()], dim=-1).flatten(-2)


class VLBERT(Pretraining):
    r"""Each element is a token, a visual feature, a segment and a position; words get the whole picture's feature.

    .. math:: e_\mathrm{token} + \mathrm{LN}(\mathrm{ReLU}(W [g(\mathrm{box}), v])) + e_\mathrm{segment}
       + e_\mathrm{position}

    The token of a region is [IMG], or another learned vector where it is masked. The whole picture is one more region.
    All regions stand at one position behind the text, and [END] at the next. Text is padded at its end.
    Source: Su et al. 2020, section 3.2 and figure 1; section 3.3 for the objectives.
    """

    OBJECTIVES = ("mlm", "mrc", "mrc_kl", "itm")
    PICTURE = 2

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
        self.region_classifier = None
        if {"mrc", "mrc_kl"} & set(config.objectives):
            self.region_classifier = nn.Sequential(
                nn.Linear(width, width), nn.GELU(), nn.Linear(width, config.region_classes)
            )
        self.apply(partial(initialise_as_bert, std=config.initial_std))
        for norm in (self.word_visual_norm, self.region_visual_norm):
            nn.init.constant_(norm.weight, config.visual_scale)

    def embed(self, tokens, token_type, mask, regions, boxes, region_mask, masked):
        shown = (region_mask & ~masked).sum(1)[:, None, None]
        whole = regions.sum(1, keepdim=True) / shown.clamp(min=1)  # the mean of what is shown
        regions = torch.cat([regions + masked[..., None] * self.masked_region, whole], dim=1)
        boxes = torch.cat([boxes, boxes.new_tensor([0, 0, 1, 1]).expand(len(boxes), 1, 4)], dim=1)
        visual = self.visual(torch.cat([box_waves(boxes, self.config.geometry_width), regions], dim=-1))
        table, segments, places = self.embedding, self.embedding.token_types, self.embedding.positions
        # Only BERT's sum of embeddings, for visual features join it before the norm.
        text = TextEmbedding.forward(table, tokens) + segments(token_type) + self.word_visual_norm(visual[:, -1:])
        behind = mask.sum(1)[:, None]
        image_token = torch.where(F.pad(masked, (0, 1))[..., None], self.masked_image_token, self.image_token)
        image = image_token + self.region_visual_norm(visual) + places[behind.clamp(max=len(places) - 1)]
        end = self.end_token + places[(behind + 1).clamp(max=len(places) - 1)]
        picture = torch.cat([image, end], dim=1) + segments.weight[self.PICTURE]
        return table.dropout(table.norm(torch.cat([text, picture], dim=1)))


@dataclass(frozen=True)
class VisualBERTConfig(SingleStreamConfig):
    PRESETS = {"tiny": TINY, "base": dict()}


class VisualBERT(Pretraining):
    r"""A region is its projected features, the picture's type, and one position for all; normalised as words are.

    .. math:: \mathrm{LN}(W v + e_\mathrm{picture} + e_\mathrm{position})

    Words are guessed in texts that do not fit as well: of two captions, the first always does. Boxes are not read.
    Source: Li et al. 2019, section 3.2; section 3.3 for the objectives.
    """

    OBJECTIVES = ("mlm", "itm")
    MATCHED_ONLY = False

    def __init__(self, config: VisualBERTConfig):
        super().__init__(config)
        self.region_projection = nn.Linear(config.region_width, config.width)
        # Whole tables, as published, of which regions read one row each.
        self.region_types = nn.Embedding(config.token_types, config.width)
        self.region_positions = nn.Parameter(torch.empty(config.max_length, config.width))
        self.apply(partial(initialise_as_bert, std=config.initial_std))
        with torch.no_grad():
            self.region_types.weight.copy_(self.embedding.token_types.weight)
            self.region_positions.copy_(self.embedding.positions)

    def embed(self, tokens, token_type, mask, regions, boxes, region_mask, masked):
        image = self.region_projection(regions) + self.region_types.weight[self.PICTURE] + self.region_positions[0]
        image = self.embedding.dropout(self.embedding.norm(image))
        return torch.cat([self.embedding(tokens, token_type), image], dim=1)
