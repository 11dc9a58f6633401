"""One vector for each modality: the input of all systems of this family, and the losses of both kinds of them."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mmlearn.layers.config import Config
from mmlearn.layers.heads import small_linear
from mmlearn.objectives import class_cross_entropy
from mmlearn.objectives.cues import cue_reconstruction, keep_modalities


@dataclass(frozen=True)
class CueConfig(Config):
    """Sizes that all systems of this family have."""

    modalities: int = 2
    features: int = 16  # of each modality; shorter vectors are padded with zeros
    width: int = 32
    modality_dropout: float = 0.0  # the probability that training drops a modality; one of a row stays


@dataclass(frozen=True)
class FusionConfig(CueConfig):
    """With the number of classes."""

    num_classes: int = 2


class CueOutput(NamedTuple):
    logits: Float[Tensor, "b classes"]


class AutoencoderOutput(NamedTuple):
    hidden: Float[Tensor, "b d"]  # the representation that all modalities share
    reconstruction: Float[Tensor, "b m features"]


class CueReader(nn.Module):
    """A system that reads ``cues`` (b, m, features); ``cue_mask`` (b, m) is True where one is present (default: all).

    Missing modalities become 0. Training drops more of them with ``modality_dropout``. Raises
    ``ValueError`` for another number of modalities or features, and for a mask of another shape.
    """

    def __init__(self, config: CueConfig):
        super().__init__()
        self.config = config

    def mask_missing(
        self, cues: Float[Tensor, "b m features"], cue_mask: Bool[Tensor, "b m"] | None
    ) -> tuple[Float[Tensor, "b m features"], Bool[Tensor, "b m"]]:
        """Cues that are 0 where a modality is missing, and the mask, before modality dropout."""
        mask = torch.ones_like(cues[..., 0], dtype=torch.bool) if cue_mask is None else cue_mask
        shape = (self.config.modalities, self.config.features)
        if cues.shape[1:] != shape or mask.shape != cues.shape[:2]:
            raise ValueError(
                f"Cues are {shape[0]} vectors of {shape[1]} numbers a row, all zeros and False in cue_mask where one "
                f"is missing; got {tuple(cues.shape)} and {tuple(mask.shape)}."
            )
        return cues.masked_fill(~mask[..., None], 0), mask

    def read(
        self, cues: Float[Tensor, "b m features"], cue_mask: Bool[Tensor, "b m"] | None
    ) -> tuple[Float[Tensor, "b m features"], Bool[Tensor, "b m"]]:
        """As :meth:`mask_missing`, in training after modality dropout."""
        cues, mask = self.mask_missing(cues, cue_mask)
        if self.training and self.config.modality_dropout:
            mask = keep_modalities(mask, torch.rand(mask.shape, device=mask.device), self.config.modality_dropout)
        return cues.masked_fill(~mask[..., None], 0), mask


class CueClassifier(CueReader):
    """A :class:`CueReader` that classifies: the output of its ``forward`` has ``logits`` (b, classes)."""

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Float[Tensor, ""]]:
        """``classes``: the cross-entropy of ``label`` (b,)."""
        return {"classes": class_cross_entropy(self(batch["cues"], batch.get("cue_mask")).logits, batch["label"])}


class CueAutoencoder(CueReader):
    """A :class:`CueReader` that reconstructs all modalities: its ``forward`` returns an :class:`AutoencoderOutput`."""

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Float[Tensor, ""]]:
        """``reconstruction``: the squared error of all modalities that are present, also of dropped ones."""
        cues, cue_mask = batch["cues"], batch.get("cue_mask")
        reconstruction = self(cues, cue_mask).reconstruction
        return {"reconstruction": cue_reconstruction(reconstruction, *self.mask_missing(cues, cue_mask))}


class CueEncoders(nn.ModuleList):
    """A layer with ReLU for each modality. A missing one is 0 after it as well: (b, m, features) → (b, m, d)."""

    def __init__(self, config: CueConfig):
        super().__init__(
            nn.Sequential(nn.Linear(config.features, config.width), nn.ReLU()) for _ in range(config.modalities)
        )

    def forward(self, cues: Float[Tensor, "b m features"], mask: Bool[Tensor, "b m"]) -> Float[Tensor, "b m d"]:
        encoded = torch.stack([encode(x) for encode, x in zip(self, cues.unbind(1))], dim=1)  # (b, m, d)
        return encoded * mask[..., None]


def classifier(features: int, width: int, outputs: int) -> nn.Sequential:
    """One hidden layer, and outputs that start small, so that no class is preferred."""
    return nn.Sequential(nn.Linear(features, width), nn.ReLU(), small_linear(width, outputs))


def append_one(x: Float[Tensor, "b m d"]) -> Float[Tensor, "b m d_and_1"]:
    """Each vector with a 1 appended, so that products of some modalities are among the products of all."""
    return torch.cat([x, torch.ones_like(x[..., :1])], dim=-1)
