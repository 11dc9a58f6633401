"""One vector for each modality: how systems of this family begin, and what those that name a class learn."""

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
    features: int = 16  # of each modality; shorter vectors are filled up with zeros
    width: int = 32
    modality_dropout: float = 0.0  # the probability that training hides a modality; the last one of a row stays


@dataclass(frozen=True)
class FusionConfig(CueConfig):
    """With the number of classes to tell apart."""

    num_classes: int = 2


class CueOutput(NamedTuple):
    logits: Float[Tensor, "b classes"]


class AutoencoderOutput(NamedTuple):
    hidden: Float[Tensor, "b d"]  # what all modalities share
    reconstruction: Float[Tensor, "b m features"]


class CueReader(nn.Module):
    """A system that reads ``cues`` (b, m, features), and in ``cue_mask`` (b, m) which of them are there (default: all).

    What is not there is 0, whatever it holds. Training hides more of them with ``modality_dropout``. Raises
    ``ValueError`` for another number of modalities or features, and for a mask of another shape.
    """

    def __init__(self, config: CueConfig):
        super().__init__()
        self.config = config

    def there(
        self, cues: Float[Tensor, "b m features"], cue_mask: Bool[Tensor, "b m"] | None
    ) -> tuple[Float[Tensor, "b m features"], Bool[Tensor, "b m"]]:
        """Cues that are 0 where there is nothing, and the mask, before anything is hidden."""
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
        """As :meth:`there`, less what training hides."""
        cues, mask = self.there(cues, cue_mask)
        if self.training and self.config.modality_dropout:
            mask = keep_modalities(mask, torch.rand(mask.shape, device=mask.device), self.config.modality_dropout)
        return cues.masked_fill(~mask[..., None], 0), mask


class CueClassifier(CueReader):
    """A :class:`CueReader` that names a class: its ``forward`` returns ``logits`` (b, classes) among other things."""

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Float[Tensor, ""]]:
        """``classes``: the cross-entropy of ``label`` (b,)."""
        return {"classes": class_cross_entropy(self(batch["cues"], batch.get("cue_mask")).logits, batch["label"])}


class CueAutoencoder(CueReader):
    """A :class:`CueReader` that restores all modalities: its ``forward`` returns an :class:`AutoencoderOutput`."""

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Float[Tensor, ""]]:
        """``reconstruction``: the squared error of all that the data has, also of what training hid."""
        given = batch["cues"], batch.get("cue_mask")
        return {"reconstruction": cue_reconstruction(self(*given).reconstruction, *self.there(*given))}


class Encoders(nn.ModuleList):
    """A layer with ReLU for each modality. What is not there, is 0 after it as well: (b, m, features) → (b, m, d)."""

    def __init__(self, config: CueConfig):
        super().__init__(
            nn.Sequential(nn.Linear(config.features, config.width), nn.ReLU()) for _ in range(config.modalities)
        )

    def forward(self, cues: Float[Tensor, "b m features"], mask: Bool[Tensor, "b m"]) -> Float[Tensor, "b m d"]:
        encoded = torch.stack([encode(x) for encode, x in zip(self, cues.unbind(1))], dim=1)
        return encoded * mask[..., None]


def hidden_layer(features: int, width: int, outputs: int) -> nn.Sequential:
    """One hidden layer, and outputs that start small, so that no class is preferred."""
    return nn.Sequential(nn.Linear(features, width), nn.ReLU(), small_linear(width, outputs))


def with_one(x: Float[Tensor, "b m d"]) -> Float[Tensor, "b m d_and_1"]:
    """Each vector with a 1 behind it, so that products of some of them are among the products of all."""
    return torch.cat([x, torch.ones_like(x[..., :1])], dim=-1)
