r"""LXMERT: one encoder for words, one for regions, and layers in which each attends to the other.

Paper: Tan & Bansal 2019, "LXMERT: Learning Cross-Modality Encoder Representations from Transformers", EMNLP.
Official code: https://github.com/airsplay/lxmert.

Deviations: ``tiny`` is ours. Every loss is a mean over what is masked; the official code averages over all regions,
multiplies by 6.67 ≈ 1 / 0.15, and weighs labels by the detector's confidence. Masked regions are zeros, as in the
paper; the code keeps or swaps one in five. Attributes, which only the code predicts, are learned where a batch has
them. The first position and token type learn; the code declares them padding, so that they stay as they started.
Questions count where picture and text match, by the one answer given, or by soft scores with the binary cross-entropy
of the official fine-tuning. Norms have the epsilon of BERT.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmlearn.layers import Attention, BERTEmbedding, BERTEncoderConfig, Transformer, TransformerBlock
from mmlearn.layers.activations import ACTIVATIONS
from mmlearn.layers.language import MaskedLanguageHead, initialise_as_bert, pooler
from mmlearn.models.fusion.heads import VQAHead
from mmlearn.models.fusion.pretraining_losses import (
    Batch,
    Losses,
    check_losses,
    itm_loss,
    mlm_loss,
    regions_to_predict,
    vqa_loss,
)
from mmlearn.models.fusion.regions import REGION_INPUTS, TINY, check_boxes, read_regions
from mmlearn.models.fusion.streams import co_attention
from mmlearn.objectives.masked import masked_region_classification, smooth_region_regression


@dataclass(frozen=True)
class LXMERTConfig(BERTEncoderConfig):
    depth: int = 9  # blocks of the language encoder
    region_depth: int = 5  # blocks of the region encoder
    cross_depth: int = 5  # cross-modality layers
    region_width: int = 2048  # features of a region
    pretraining_heads: bool = True  # masked words, and whether picture and text match
    feature_head: bool = True  # features of masked regions
    region_classes: int = 1600  # 0: no head for them, here and below
    region_attributes: int = 400
    answers: int = 9500

    PRESETS = {
        "tiny": TINY | dict(depth=2, region_depth=1, cross_depth=1, region_attributes=0, answers=0),
        "base": dict(),
    }


class LXMERTOutput(NamedTuple):
    tokens: Float[Tensor, "b t d"]
    regions: Float[Tensor, "b p d"]
    pooled: Float[Tensor, "b d"]  # of the first token
    match_logits: Float[Tensor, "b 2"] | None  # index 1: picture and text belong together
    answer_logits: Float[Tensor, "b answers"] | None


class RegionEmbedding(nn.Module):
    r"""The features and the box of a region, each projected and normalised, and the mean of the two.

    .. math:: v_j = \big(\mathrm{LN}(W_F f_j + b_F) + \mathrm{LN}(W_P p_j + b_P)\big) / 2

    Both are normalised on their own, so that neither drowns the other. Source: section 2.1.
    """

    def __init__(self, config: LXMERTConfig):
        super().__init__()
        self.features = nn.Linear(config.region_width, config.width)
        self.feature_norm = nn.LayerNorm(config.width, eps=config.norm_epsilon)
        self.boxes = nn.Linear(4, config.width)
        self.box_norm = nn.LayerNorm(config.width, eps=config.norm_epsilon)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, regions: Float[Tensor, "b p f"], boxes: Float[Tensor, "b p 4"]) -> Float[Tensor, "b p d"]:
        return self.dropout((self.feature_norm(self.features(regions)) + self.box_norm(self.boxes(boxes))) / 2)


class CrossModalityLayer(nn.Module):
    r"""Words attend to regions and regions to words, at the same time; then each stream passes a block of its own.

    .. math:: \hat h_i = \mathrm{LN}\big(h_i + \mathrm{CrossAtt}(h_i, \{v_1, \dots, v_m\})\big), \quad
       \hat v_j = \mathrm{LN}\big(v_j + \mathrm{CrossAtt}(v_j, \{h_1, \dots, h_n\})\big)

    Both directions share one attention and its norm, as the official code has it. Its second map in
    :func:`~mmlearn.layers.record_attention`, ``cross_attention#2``, is of regions that attend to words.
    Source: section 2.2, cross-modality encoder.
    """

    def __init__(self, config: LXMERTConfig):
        super().__init__()
        attention_dropout = config.dropout if config.attention_dropout is None else config.attention_dropout
        self.cross_attention = Attention(config.width, config.num_heads, dropout=attention_dropout)
        self.cross_norm = nn.LayerNorm(config.width, eps=config.norm_epsilon)
        self.dropout = nn.Dropout(config.dropout)
        self.language = TransformerBlock(config)
        self.regions = TransformerBlock(config)

    def forward(
        self,
        words: Float[Tensor, "b t d"],
        regions: Float[Tensor, "b p d"],
        mask: Bool[Tensor, "b t"] | None = None,
        region_mask: Bool[Tensor, "b p"] | None = None,
    ) -> tuple[Float[Tensor, "b t d"], Float[Tensor, "b p d"]]:
        words, regions = co_attention(words, regions, mask, region_mask, self.cross_attend, self.cross_attend)
        return self.language(words, mask), self.regions(regions, region_mask)

    def cross_attend(
        self, x: Float[Tensor, "b q d"], context: Float[Tensor, "b n d"], context_mask: Bool[Tensor, "b n"] | None
    ) -> Float[Tensor, "b q d"]:
        return self.cross_norm(x + self.dropout(self.cross_attention(x, context, context_mask)))


class RegionHead(nn.Module):
    """Predicts features, classes and attributes of a masked region: one layer, and a linear layer for each of them.

    Returns (..., size) for each name in ``outputs``. Source: section 3.1.2 and the official code.
    """

    def __init__(self, config: LXMERTConfig, outputs: dict[str, int]):
        super().__init__()
        self.dense = nn.Linear(config.width, config.width)
        self.activation = ACTIVATIONS[config.activation]
        self.norm = nn.LayerNorm(config.width, eps=config.norm_epsilon)
        self.outputs = nn.ModuleDict({name: nn.Linear(config.width, size) for name, size in outputs.items()})

    def forward(self, regions: Float[Tensor, "*p d"]) -> dict[str, Float[Tensor, "*p size"]]:
        x = self.norm(self.activation(self.dense(regions)))
        return {name: output(x) for name, output in self.outputs.items()}


# Loss → the output of the region head, the label in a batch, and the objective that compares them.
REGION_LOSSES = {
    "mrfr": ("features", "region_target", smooth_region_regression),
    "mrc": ("classes", "region_classes", masked_region_classification),
    "mrc_attributes": ("attributes", "region_attributes", masked_region_classification),
}


class LXMERT(nn.Module):
    """A BERT of words, a BERT of regions without order, and cross-modality layers; pooled at the first word.

    Inputs are those of :func:`~mmlearn.models.fusion.regions.read_regions`, as are errors. Heads are built where the
    configuration asks for them. Source: section 2 and figure 1.
    """

    def __init__(self, config: LXMERTConfig):
        super().__init__()
        self.config = config
        self.embedding = BERTEmbedding(config)
        self.region_embedding = RegionEmbedding(config)
        self.language_encoder = Transformer(config)
        self.region_encoder = Transformer(replace(config, depth=config.region_depth))
        self.cross_layers = nn.ModuleList(CrossModalityLayer(config) for _ in range(config.cross_depth))
        self.pooler = pooler(config.width)
        self.language_head = MaskedLanguageHead(config) if config.pretraining_heads else None
        self.match_head = nn.Linear(config.width, 2) if config.pretraining_heads else None
        features = config.region_width if config.feature_head else 0
        outputs = dict(features=features, classes=config.region_classes, attributes=config.region_attributes)
        outputs = {name: size for name, size in outputs.items() if size}
        self.region_head = RegionHead(config, outputs) if outputs else None
        self.apply(partial(initialise_as_bert, std=config.initial_std))
        # Built after the others were initialised, because it starts in its own way: so small that it prefers no answer.
        self.answer_head = VQAHead(config.width, config.answers) if config.answers else None

    def forward(
        self,
        regions: Float[Tensor, "b p f"],
        boxes: Float[Tensor, "b p 4"],
        tokens: Int[Tensor, "b t"],
        mask: Bool[Tensor, "b t"] | None = None,
        region_mask: Bool[Tensor, "b p"] | None = None,
        masked_regions: Bool[Tensor, "b p"] | None = None,
        token_type: Int[Tensor, "b t"] | None = None,
    ) -> LXMERTOutput:
        regions, boxes, region_mask, _ = read_regions(
            regions, boxes, region_mask, masked_regions, texts=len(tokens), width=self.config.region_width
        )
        words = self.language_encoder(self.embedding(tokens, token_type, mask), mask)  # (b, t, d)
        regions = self.region_encoder(self.region_embedding(regions, boxes), region_mask)  # (b, p, d)
        for layer in self.cross_layers:
            words, regions = layer(words, regions, mask, region_mask)
        pooled = self.pooler(words[:, 0])  # (b, d)
        return LXMERTOutput(
            tokens=words,
            regions=regions,
            pooled=pooled,
            match_logits=self.match_head(pooled) if self.match_head is not None else None,
            answer_logits=self.answer_head(pooled) if self.answer_head is not None else None,
        )

    def token_logits(self, x: Float[Tensor, "... d"]) -> Float[Tensor, "... v"]:
        if self.language_head is None:
            raise ValueError("This LXMERT has no language head: set pretraining_heads.")
        return self.language_head(x, self.embedding.tokens.weight)

    def loss(self, batch: Batch) -> Losses:
        """``mlm``, ``itm``, ``vqa``, ``mrfr``, ``mrc`` and ``mrc_attributes``: those with labels and a head to learn.

        Labels are those of :mod:`mmlearn.models.fusion.pretraining_losses`, and ``region_attributes``
        (b, p, attributes). Raises ``ValueError`` without any of them, for an empty batch, and for boxes that cannot be.
        Source: section 3.1.
        """
        output = self(**{name: batch[name] for name in REGION_INPUTS if name in batch})
        check_boxes(batch["boxes"], batch.get("region_mask"))
        losses = mlm_loss(self, output, batch, matched_only=False) | itm_loss(self, output, batch)
        losses |= vqa_loss(self, output, batch) | self.region_losses(output.regions, batch)
        return check_losses(self, batch, losses)

    def region_losses(self, regions: Float[Tensor, "b p d"], batch: Batch) -> Losses:
        """``mrfr``, ``mrc`` and ``mrc_attributes``, as far as there are heads and labels."""
        if self.region_head is None or "masked_regions" not in batch:
            return {}
        masked = regions_to_predict(batch, matched_only=False)  # (b, p)
        predicted = self.region_head(regions)  # each (b, p, size)
        return {
            name: loss(predicted[head], batch[label], masked)
            for name, (head, label, loss) in REGION_LOSSES.items()
            if head in predicted and label in batch
        }
