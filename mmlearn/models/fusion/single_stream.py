"""One BERT over the words and the regions of a picture: what UNITER, OSCAR, VL-BERT and VisualBERT share.

Each system adds how a region becomes a token, and what else is learned. Source: Li et al. 2019 (VisualBERT), section
3.2; Su et al. 2020 (VL-BERT), section 3.2; Chen et al. 2020 (UNITER), section 3.1.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmlearn.layers import BERTEmbedding, BERTEncoderConfig, MaskedLanguageHead, Transformer
from mmlearn.layers.language import pooler
from mmlearn.models.fusion.pretraining_losses import Batch, Losses, check_losses, itm_loss, mlm_loss, regions_to_predict
from mmlearn.models.fusion.regions import REGION_INPUTS, check_boxes, read_regions
from mmlearn.objectives.masked import masked_region_classification, masked_region_kl

LARGE: dict[str, Any] = dict(width=1024, depth=24, num_heads=16)


@dataclass(frozen=True)
class SingleStreamConfig(BERTEncoderConfig):
    region_width: int = 2048  # features of a region
    region_classes: int = 1601  # of the detector
    pooler: bool = True
    objectives: tuple[str, ...] = ("mlm", "itm")  # their heads are built


class SingleStreamOutput(NamedTuple):
    tokens: Float[Tensor, "b t d"]
    regions: Float[Tensor, "b p d"]
    pooled: Float[Tensor, "b d"]  # the first token, through the pooler if there is one
    match_logits: Float[Tensor, "b 2"] | None  # None without the head; 1: text and picture belong together


class SingleStream(nn.Module):
    """The words, embedded as in BERT, and then the regions, embedded by the system (``embed``), go through one BERT.

    Inputs are those of :func:`~mmlearn.models.fusion.regions.read_regions`, as are errors. Modules have the names of
    our BERT, so training may start from its weights: ``load_state_dict(bert.state_dict(), strict=False)``. Raises
    ``ValueError`` also for an objective that the system does not have, and for too few token types.
    """

    OBJECTIVES: ClassVar[tuple[str, ...]] = ()
    INPUTS: ClassVar[tuple[str, ...]] = REGION_INPUTS  # the entries of a batch that forward reads
    IMAGE_TYPE: ClassVar[int] = 1  # the token type of regions
    MATCHED_ONLY: ClassVar[bool] = True  # masked words count only where text and picture belong together

    def __init__(self, config: SingleStreamConfig):
        super().__init__()
        if unknown := [name for name in config.objectives if name not in self.OBJECTIVES]:
            raise ValueError(f"{type(self).__name__} learns {', '.join(self.OBJECTIVES)}, not {', '.join(unknown)}.")
        if config.token_types <= self.IMAGE_TYPE:
            raise ValueError(
                f"Regions have type {self.IMAGE_TYPE}: token_types must be more; got {config.token_types}."
            )
        self.config = config
        self.embedding = BERTEmbedding(config)
        self.transformer = Transformer(config)
        self.pooler = pooler(config.width) if config.pooler else nn.Identity()
        self.language_head = MaskedLanguageHead(config) if "mlm" in config.objectives else None
        self.match_head = nn.Linear(config.width, 2) if "itm" in config.objectives else None
        self.region_classifier: nn.Module | None = None  # systems that classify regions build one

    def embed(
        self,
        regions: Float[Tensor, "b p f"],
        boxes: Float[Tensor, "b p 4"],
        region_mask: Bool[Tensor, "b p"],
        masked: Bool[Tensor, "b p"],
        tokens: Int[Tensor, "b t"],
        token_type: Int[Tensor, "b t"],
        mask: Bool[Tensor, "b t"],
    ) -> Float[Tensor, "b n d"]:
        """Words, then regions, then what else the system appends. Features are 0 where masked or padding."""
        raise NotImplementedError

    def forward(
        self,
        regions: Float[Tensor, "b p f"],
        boxes: Float[Tensor, "b p 4"],
        tokens: Int[Tensor, "b t"],
        mask: Bool[Tensor, "b t"] | None = None,
        region_mask: Bool[Tensor, "b p"] | None = None,
        masked_regions: Bool[Tensor, "b p"] | None = None,
        token_type: Int[Tensor, "b t"] | None = None,
    ) -> SingleStreamOutput:
        regions, boxes, region_mask, masked = read_regions(
            regions, boxes, region_mask, masked_regions, texts=len(tokens), width=self.config.region_width
        )
        mask = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask
        token_type = torch.zeros_like(tokens) if token_type is None else token_type * mask  # 0 at padding
        x = self.embed(regions, boxes, region_mask, masked, tokens, token_type, mask)  # (b, n, d)
        return self.encode(x, mask, region_mask)

    def encode(
        self,
        x: Float[Tensor, "b n d"],
        mask: Bool[Tensor, "b t"],
        region_mask: Bool[Tensor, "b p"],
        visible: Bool[Tensor, "b n n"] | None = None,
    ) -> SingleStreamOutput:
        """The embedded sequence through BERT. ``visible`` says which tokens each may attend to: by default all."""
        t, p = mask.shape[1], region_mask.shape[1]
        # Behind words and regions stand tokens of the system's own, such as VL-BERT's [END]: always real.
        real = F.pad(torch.cat([mask, region_mask], dim=1), (0, x.shape[1] - t - p), value=True)  # (b, n)
        x = self.transformer(x, real if visible is None else visible & real[:, None])  # (b, n, d)
        pooled = self.pooler(x[:, 0])  # (b, d)
        match_logits = self.match_head(pooled) if self.match_head is not None else None
        return SingleStreamOutput(x[:, :t], x[:, t : t + p], pooled, match_logits)

    def token_logits(self, x: Float[Tensor, "... d"]) -> Float[Tensor, "... v"]:
        if self.language_head is None:
            raise ValueError(f"This {type(self).__name__} has no language head: set 'mlm' among the objectives.")
        return self.language_head(x, self.embedding.tokens.weight)

    def loss(self, batch: Batch) -> Losses:
        """The losses of those ``objectives`` whose labels the batch holds.

        Labels are those of :mod:`mmlearn.models.fusion.pretraining_losses`. ``ValueError`` without any such label,
        without a row, and for boxes that cannot be.
        """
        output = self(**{name: batch[name] for name in self.INPUTS if name in batch})
        check_boxes(batch["boxes"], batch.get("region_mask"))
        losses = mlm_loss(self, output, batch, self.MATCHED_ONLY) | itm_loss(self, output, batch)
        return check_losses(self, batch, losses | self.image_losses(output, batch))

    def image_losses(self, output: SingleStreamOutput, batch: Batch) -> Losses:
        """``mrc`` and ``mrc_kl``: the detector's class of a masked region, or its distribution over classes."""
        if self.region_classifier is None or not {"masked_regions", "region_classes"} <= batch.keys():
            return {}
        masked = regions_to_predict(batch)  # (b, p)
        logits, classes = self.region_classifier(output.regions), batch["region_classes"]  # (b, p, classes) each
        losses = {"mrc": masked_region_classification, "mrc_kl": masked_region_kl}
        return {name: loss(logits, classes, masked) for name, loss in losses.items() if name in self.config.objectives}
