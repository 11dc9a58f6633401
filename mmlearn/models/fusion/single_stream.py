"""One BERT over the words and the regions of a picture: what UNITER, VL-BERT and VisualBERT share.

Each of them adds how a region becomes a token, and what else is learned. Source: Li et al. 2019 (VisualBERT), section
3.2; Su et al. 2020 (VL-BERT), section 3.2; Chen et al. 2020 (UNITER), section 3.1.
"""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmlearn.layers.config import Config
from mmlearn.layers.language import pooler
from mmlearn.layers.padded import BERTEmbedding, MaskedLanguageHead, bert_transformer
from mmlearn.models.fusion.regions import masked_only, read_regions
from mmlearn.objectives.masked import (
    IGNORED,
    masked_cross_entropy,
    masked_region_classification,
    masked_region_kl,
)
from mmlearn.objectives.matching import image_text_matching

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


@dataclass(frozen=True)
class SingleStreamConfig(Config):
    vocab_size: int = 30_522
    max_length: int = 512  # tokens
    token_types: int = 2
    pad_token: int = 0  # its vector does not learn by being looked up
    region_width: int = 2048  # features of a region
    region_classes: int = 1601  # of the detector
    width: int = 768
    depth: int = 12
    num_heads: int = 12
    mlp_width: int | None = None  # 4 · width
    activation: str = "gelu"
    norm_epsilon: float = 1e-12
    dropout: float = 0.1
    initial_std: float = 0.02  # of weights
    pooler: bool = True
    objectives: tuple[str, ...] = ("mlm", "itm")  # what is learned; their heads are built


class SingleStreamOutput(NamedTuple):
    tokens: Float[Tensor, "b t d"]
    regions: Float[Tensor, "b p d"]
    pooled: Float[Tensor, "b d"]  # the first token, through the pooler if there is one
    match_logits: Float[Tensor, "b 2"] | None  # 1: words and picture belong together, 0: they do not


class SingleStream(nn.Module):
    """BERT's embedding of the words and the system's own of the regions (``embed``), one after the other through BERT.

    ``boxes`` are shares of the picture: left, top, right, bottom. Masks are True where a token or region is real.
    ``masked_regions`` are to be guessed: whatever ``regions`` holds there is not looked at. Modules bear the names that
    they have in our BERT, from whose weights training may start: ``load_state_dict(bert.state_dict(), strict=False)``.

    Raises ``ValueError`` for an objective that is not among the system's, too few token types, and texts and regions
    that do not agree in number or are of another width.
    """

    OBJECTIVES: ClassVar[tuple[str, ...]] = ()
    PICTURE: ClassVar[int] = 1  # the token type of regions

    def __init__(self, config: SingleStreamConfig):
        super().__init__()
        if unknown := [name for name in config.objectives if name not in self.OBJECTIVES]:
            raise ValueError(f"{type(self).__name__} learns {', '.join(self.OBJECTIVES)}, not {', '.join(unknown)}.")
        if config.token_types <= self.PICTURE:
            raise ValueError(
                f"Regions are of token type {self.PICTURE}; token_types must be more, got {config.token_types}."
            )
        self.config = config
        self.embedding = BERTEmbedding(
            config.vocab_size,
            config.width,
            config.max_length,
            token_types=config.token_types,
            pad_token=config.pad_token,
            norm_epsilon=config.norm_epsilon,
            dropout=config.dropout,
        )
        self.transformer = bert_transformer(
            config.width,
            config.depth,
            config.num_heads,
            mlp_width=config.mlp_width,
            activation=config.activation,
            norm_epsilon=config.norm_epsilon,
            dropout=config.dropout,
        )
        self.pooler = pooler(config.width) if config.pooler else None
        self.masked_language_head = None
        if "mlm" in config.objectives:
            self.masked_language_head = MaskedLanguageHead(
                config.width, config.vocab_size, activation=config.activation, norm_epsilon=config.norm_epsilon
            )
        self.matching_head = nn.Linear(config.width, 2) if "itm" in config.objectives else None

    def embed(
        self,
        tokens: Int[Tensor, "b t"],
        token_type: Int[Tensor, "b t"],
        mask: Bool[Tensor, "b t"],
        regions: Float[Tensor, "b p f"],
        boxes: Float[Tensor, "b p 4"],
        region_mask: Bool[Tensor, "b p"],
        masked: Bool[Tensor, "b p"],
    ) -> Float[Tensor, "b n d"]:
        """Words, regions, and what else the system puts behind them; features are 0 where masked or padding."""
        raise NotImplementedError

    def forward(
        self,
        tokens: Int[Tensor, "b t"],
        regions: Float[Tensor, "b p f"],
        boxes: Float[Tensor, "b p 4"],
        mask: Bool[Tensor, "b t"] | None = None,
        region_mask: Bool[Tensor, "b p"] | None = None,
        masked_regions: Bool[Tensor, "b p"] | None = None,
        token_type: Int[Tensor, "b t"] | None = None,
    ) -> SingleStreamOutput:
        regions, region_mask = read_regions(
            regions, boxes, region_mask, masked_regions, texts=len(tokens), width=self.config.region_width
        )
        mask = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask
        token_type = torch.zeros_like(tokens) if token_type is None else token_type
        masked = torch.zeros_like(region_mask) if masked_regions is None else masked_regions
        padding = ~region_mask[..., None]
        x = self.embed(
            tokens,
            token_type,
            mask,
            regions.masked_fill(padding, 0),
            boxes.masked_fill(padding, 0),
            region_mask,
            masked,
        )
        t, p = tokens.shape[1], regions.shape[1]
        real = F.pad(torch.cat([mask, region_mask], dim=1), (0, x.shape[1] - t - p), value=True)
        x = self.transformer(x, real)
        pooled = self.pooler(x[:, 0]) if self.pooler is not None else x[:, 0]
        match_logits = self.matching_head(pooled) if self.matching_head is not None else None
        return SingleStreamOutput(x[:, :t], x[:, t : t + p], pooled, match_logits)

    def token_logits(self, x: Float[Tensor, "... d"]) -> Float[Tensor, "... v"]:
        """Which token was here? Of states of any leading shape, for only the masked ones need be read."""
        return self.masked_language_head(x, self.embedding.tokens.weight)


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
