r"""LXMERT: one encoder for words, one for regions, and layers in which each asks the other.

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

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmlearn.data.fields import MaskedTokens, Regions, Tokens
from mmlearn.layers import Config
from mmlearn.layers.activations import ACTIVATIONS
from mmlearn.layers.language import initialise_as_bert, pooler
from mmlearn.layers.padded import (
    NO_PADDING,
    Attention,
    BERTEmbedding,
    MaskedLanguageHead,
    Padding,
    TransformerBlock,
    bert_transformer,
)
from mmlearn.models.fusion.heads import check_scores, classifier
from mmlearn.models.fusion.regions import masked_only, read_regions
from mmlearn.models.fusion.streams import co_attention
from mmlearn.objectives.masked import (
    IGNORED,
    masked_cross_entropy,
    masked_region_classification,
    smooth_region_regression,
)
from mmlearn.objectives.matching import image_text_matching
from mmlearn.recipes import ITM, MLM, MRM, VQA, Recipe

NORM_EPSILON = 1e-12  # as in BERT


@dataclass(frozen=True)
class LXMERTConfig(Config):
    vocab_size: int = 30_522
    max_length: int = 512  # tokens
    token_types: int = 2
    width: int = 768
    language_depth: int = 9
    region_depth: int = 5
    cross_depth: int = 5
    num_heads: int = 12
    mlp_width: int | None = None  # 4 · width
    activation: str = "gelu"
    dropout: float = 0.1
    initial_std: float = 0.02  # of weights
    region_width: int = 2048  # features of a region
    pretraining_heads: bool = True  # masked words, and whether picture and text match
    feature_head: bool = True  # features of masked regions
    region_classes: int = 1600  # 0: no head for them, here and below
    region_attributes: int = 400
    answers: int = 9500

    PRESETS = {
        "tiny": dict(
            vocab_size=512,
            max_length=32,
            width=64,
            language_depth=2,
            region_depth=1,
            cross_depth=1,
            num_heads=4,
            dropout=0.0,
            initial_std=0.125,
            region_width=216,
            region_classes=144,
            region_attributes=0,
            answers=0,
        ),
        "base": dict(),
    }


class LXMERTOutput(NamedTuple):
    tokens: Float[Tensor, "b t d"]
    regions: Float[Tensor, "b p d"]
    pooled: Float[Tensor, "b d"]  # of the first token
    match_logits: Float[Tensor, "b 2"] | None  # index 1: picture and text belong together
    answer_logits: Float[Tensor, "b answers"] | None


class RegionEmbedding(nn.Module):
    r"""The feature of a region and the place of its box, each projected and normalised, and the mean of the two.

    .. math:: v_j = \big(\mathrm{LN}(W_F f_j + b_F) + \mathrm{LN}(W_P p_j + b_P)\big) / 2

    Both are normalised on their own, so that neither drowns the other. Source: section 2.1.
    """

    def __init__(self, region_width: int, width: int, dropout: float):
        super().__init__()
        self.features = nn.Linear(region_width, width)
        self.feature_norm = nn.LayerNorm(width, eps=NORM_EPSILON)
        self.boxes = nn.Linear(4, width)
        self.box_norm = nn.LayerNorm(width, eps=NORM_EPSILON)
        self.dropout = nn.Dropout(dropout)

    def forward(self, regions: Float[Tensor, "b p f"], boxes: Float[Tensor, "b p 4"]) -> Float[Tensor, "b p d"]:
        return self.dropout((self.feature_norm(self.features(regions)) + self.box_norm(self.boxes(boxes))) / 2)


class CrossModalityLayer(nn.Module):
    r"""Words ask regions and regions ask words, at the same time; then each stream goes on alone through a block.

    .. math:: \hat h_i = \mathrm{LN}\big(h_i + \mathrm{CrossAtt}(h_i, \{v_1, \dots, v_m\})\big), \quad
       \hat v_j = \mathrm{LN}\big(v_j + \mathrm{CrossAtt}(v_j, \{h_1, \dots, h_n\})\big)

    Both directions share one attention and its norm, as the official code has it. Its second map in
    :func:`~mmlearn.layers.record_attention`, ``cross_attention#2``, is of regions that look at words. A stream whose
    padding was removed comes with that, and is handed back without it.
    Source: section 2.2, cross-modality encoder.
    """

    def __init__(self, width: int, num_heads: int, *, mlp_width: int | None, activation: str, dropout: float):
        super().__init__()
        self.cross_attention = Attention(width, num_heads, dropout=dropout)
        self.cross_norm = nn.LayerNorm(width, eps=NORM_EPSILON)
        self.dropout = nn.Dropout(dropout)
        block = dict(mlp_width=mlp_width, activation=activation, dropout=dropout)
        block |= dict(norm_first=False, norm_epsilon=NORM_EPSILON)
        self.language = TransformerBlock(width, num_heads, **block)
        self.regions = TransformerBlock(width, num_heads, **block)

    def forward(
        self,
        words: Float[Tensor, "*bt d"],
        regions: Float[Tensor, "*bp d"],
        mask: Bool[Tensor, "b t"] | None = None,
        region_mask: Bool[Tensor, "b p"] | None = None,
        padding: Padding = NO_PADDING,
        region_padding: Padding = NO_PADDING,
    ) -> tuple[Float[Tensor, "*bt d"], Float[Tensor, "*bp d"]]:
        def look(own: Padding, others: Padding, x: Tensor, other: Tensor, mask: Tensor | None) -> Tensor:
            return self.cross_norm(x + self.dropout(self.cross_attention(x, other, mask, False, own, others)))

        looks = partial(look, padding, region_padding), partial(look, region_padding, padding)
        words, regions = co_attention(words, regions, mask, region_mask, *looks)
        words = self.language(words, mask, padding=padding)
        return words, self.regions(regions, region_mask, padding=region_padding)


class RegionHead(nn.Module):
    """What was at a masked region? One layer, and for each kind of answer a linear layer on top of it.

    Returns (b, p, size) for each name in ``outputs``. Source: section 3.1.2 and the official code.
    """

    def __init__(self, width: int, activation: str, outputs: dict[str, int]):
        super().__init__()
        self.dense = nn.Linear(width, width)
        self.activation = ACTIVATIONS[activation]
        self.norm = nn.LayerNorm(width, eps=NORM_EPSILON)
        self.outputs = nn.ModuleDict({name: nn.Linear(width, size) for name, size in outputs.items()})

    def forward(self, regions: Float[Tensor, "b p d"]) -> dict[str, Float[Tensor, "b p size"]]:
        x = self.norm(self.activation(self.dense(regions)))
        return {name: output(x) for name, output in self.outputs.items()}


class LXMERT(nn.Module):
    """A BERT of words, a BERT of regions without order, and cross-modality layers; read at the first word.

    ``regions`` are a detector's features and ``boxes`` their places, as shares of the picture; ``mask`` and
    ``region_mask`` are True where a word or a region is real. ``masked_regions`` are to be guessed, so whatever they
    hold becomes zeros. Heads are built where the configuration asks for them. Raises ``ValueError`` for regions and
    boxes that do not fit the texts or ``region_width``.
    Source: section 2 and figure 1.
    """

    def __init__(self, config: LXMERTConfig):
        super().__init__()
        self.config = config
        width, heads = config.width, config.num_heads
        block = dict(mlp_width=config.mlp_width, activation=config.activation, dropout=config.dropout)
        self.embedding = BERTEmbedding(
            config.vocab_size, width, config.max_length, token_types=config.token_types, dropout=config.dropout
        )
        self.region_embedding = RegionEmbedding(config.region_width, width, config.dropout)
        self.language_encoder = bert_transformer(width, config.language_depth, heads, **block)
        self.region_encoder = bert_transformer(width, config.region_depth, heads, **block)
        self.cross_layers = nn.ModuleList(CrossModalityLayer(width, heads, **block) for _ in range(config.cross_depth))
        self.pooler = pooler(width)
        self._build_heads(config)
        self.apply(partial(initialise_as_bert, std=config.initial_std))

    def _build_heads(self, config: LXMERTConfig) -> None:
        width = config.width
        self.masked_language_head = self.matching_head = self.region_head = self.answer_head = None
        if config.pretraining_heads:
            self.masked_language_head = MaskedLanguageHead(width, config.vocab_size, activation=config.activation)
            self.matching_head = nn.Linear(width, 2)
        outputs = {
            "features": config.region_width * config.feature_head,
            "classes": config.region_classes,
            "attributes": config.region_attributes,
        }
        if outputs := {name: size for name, size in outputs.items() if size}:
            self.region_head = RegionHead(width, config.activation, outputs)
        if config.answers:
            self.answer_head = classifier(width, 2 * width, config.answers)

    def forward(
        self,
        tokens: Int[Tensor, "b t"],
        regions: Float[Tensor, "..."],
        boxes: Float[Tensor, "..."],
        mask: Bool[Tensor, "b t"] | None = None,
        region_mask: Bool[Tensor, "..."] | None = None,
        masked_regions: Bool[Tensor, "..."] | None = None,
        token_type: Int[Tensor, "b t"] | None = None,
    ) -> LXMERTOutput:
        regions, region_mask = read_regions(
            regions, boxes, region_mask, masked_regions, texts=len(tokens), width=self.config.region_width
        )
        padding, region_padding = Padding(mask), Padding(region_mask)
        words = padding.remove(self.language_encoder(self.embedding(tokens, token_type), mask))
        regions = region_padding.remove(self.region_encoder(self.region_embedding(regions, boxes), region_mask))
        for layer in self.cross_layers:
            words, regions = layer(words, regions, mask, region_mask, padding, region_padding)
        words, regions = padding.restore(words), region_padding.restore(regions)
        pooled = self.pooler(words[:, 0])
        return LXMERTOutput(
            tokens=words,
            regions=regions,
            pooled=pooled,
            match_logits=self.matching_head(pooled) if self.matching_head is not None else None,
            answer_logits=self.answer_head(pooled) if self.answer_head is not None else None,
        )

    def token_logits(self, x: Float[Tensor, "... d"]) -> Float[Tensor, "... v"]:
        return self.masked_language_head(x, self.embedding.tokens.weight)

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Float[Tensor, ""]]:
        """``mlm``, ``mrfr``, ``mrc``, ``itm`` and ``vqa``: those with labels in the batch and a head to learn.

        Of regions where ``masked_regions`` is True, ``region_target`` (b, p, f) is what they held, ``region_classes``
        and ``region_attributes`` (b, p, classes) what a detector saw. ``answer`` is one (b,), or a score for each
        (b, answers). Raises ``ValueError`` without any of them, or for an empty batch. Source: section 3.1.
        """
        if not len(batch["tokens"]):
            raise ValueError("A batch holds at least one text and picture.")
        inputs = ("tokens", "regions", "boxes", "mask", "region_mask", "masked_regions", "token_type")
        output = self(**{name: batch[name] for name in inputs if name in batch})
        losses = {}
        if "token_label" in batch and self.masked_language_head is not None:
            masked = batch["token_label"] != IGNORED
            losses["mlm"] = masked_cross_entropy(self.token_logits(output.tokens[masked]), batch["token_label"][masked])
        if "masked_regions" in batch and self.region_head is not None:
            losses |= self._region_losses(output.regions, batch)
        if "match_label" in batch and output.match_logits is not None:
            losses["itm"] = image_text_matching(output.match_logits, batch["match_label"])
        if "answer" in batch and output.answer_logits is not None:
            losses["vqa"] = answer_loss(output.answer_logits, batch["answer"], batch.get("match_label"))
        if not losses:
            raise ValueError(
                "Nothing to learn: this LXMERT needs token_label, masked_regions, match_label or answer in the batch, "
                "and the head that goes with it in its configuration."
            )
        return losses

    def _region_losses(self, regions: Tensor, batch: dict[str, Tensor]) -> dict[str, Float[Tensor, ""]]:
        masked, losses = batch["masked_regions"] & batch.get("region_mask", batch["masked_regions"]), {}
        states, _ = masked_only(masked, regions)
        predicted = self.region_head(states)
        if "features" in predicted and "region_target" in batch:
            target = masked_only(masked, batch["region_target"])
            losses["mrfr"] = smooth_region_regression(predicted["features"], *target)
        for name, loss in (("classes", "mrc"), ("attributes", "mrc_attributes")):
            if name in predicted and f"region_{name}" in batch:
                target = masked_only(masked, batch[f"region_{name}"])
                losses[loss] = masked_region_classification(predicted[name], *target)
        return losses


def answer_loss(
    logits: Float[Tensor, "b answers"], answer: Tensor, match_label: Int[Tensor, "b"] | None = None
) -> Float[Tensor, ""]:
    """Cross-entropy of the answer (b,), -100 for none; or, for scores (b, answers), their binary ones, summed.

    What is asked about another picture has no answer, so pairs with match_label 0 do not count. Raises ``ValueError``
    for an answer or score that does not exist. Source: section 3.1.3; for scores, official code of fine-tuning on VQA.
    """
    matched = torch.ones_like(answer[..., 0] if answer.ndim > 1 else answer, dtype=torch.bool)
    if match_label is not None:
        matched = match_label == 1
    if not answer.is_floating_point():
        return masked_cross_entropy(logits, answer.masked_fill(~matched, IGNORED))
    check_scores(answer, *logits.shape)
    total = F.binary_cross_entropy_with_logits(logits[matched], answer[matched], reduction="sum")
    return total / matched.sum().clamp(min=1)


RECIPE = Recipe(
    LXMERT,
    LXMERTConfig,
    reads=(Tokens(), Regions()),
    learns=(ITM, MLM, MRM, replace(VQA, labels=(MaskedTokens(),))),  # questions are masked like captions
    settings={"answers": 0, "region_attributes": 0},
)
