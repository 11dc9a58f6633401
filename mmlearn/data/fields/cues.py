"""A field of vectors: one for each modality of a sample."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch.utils.data import Dataset

from mmlearn.data.batches import fetch, spread
from mmlearn.data.fields.field import Batch, Field, size
from mmlearn.layers.config import Config

LOOKED_AT = 200  # samples


@dataclass(frozen=True)
class Cues(Field):
    """``cues`` (b, m, features), a vector for each modality, and ``cue_mask`` (b, m), which of them are there.

    A sample without ``cue_mask`` has all. Raises ``ValueError`` for data in which one modality is 0 wherever it is
    there, or is nowhere there: a system would learn nothing of it, and not say so.
    """

    modalities: int = 0
    features: int = 0

    holds = {"cues": "Float b {modalities} {features}", "cue_mask": "Bool b {modalities}"}
    optional = ("cue_mask",)
    known = ("modalities", "features")
    needs = "cues"
    noun = "one vector for each modality (cues)"
    advice = "use --data cues"

    def fitted(self, data: Dataset, config: Config, seed: int) -> Self:
        batch = self(fetch(data, spread(len(data), LOOKED_AT)))
        cues, mask = batch["cues"], batch["cue_mask"]
        for m in range(cues.shape[1]):
            if not mask[:, m].any() or not cues[:, m][mask[:, m]].any():
                what = "0 throughout" if mask[:, m].any() else "nowhere there"
                raise ValueError(
                    f"Modality {m} is {what} in {len(cues)} samples: leave it out, or repair the data; where only some "
                    "rows lack it, cue_mask is False there."
                )
        return replace(self, modalities=cues.shape[1], features=cues.shape[2])

    def sizes(self) -> dict[str, Any]:
        return {"modalities": self.modalities, "features": self.features}

    def __call__(self, samples: Sequence[Any]) -> Batch:
        cues = torch.stack([sample.cues for sample in samples])
        everything = torch.ones(cues.shape[1], dtype=torch.bool)
        return {"cues": cues, "cue_mask": torch.stack([getattr(one, "cue_mask", everything) for one in samples])}

    def example(self, b: int, config: Config, generator: torch.Generator) -> Batch:
        m, features = size(config, "modalities"), size(config, "features")
        return {
            "cues": torch.randn(b, m, features, generator=generator),
            "cue_mask": torch.arange(m) < m - (torch.arange(b)[:, None] % 4 == 3).int(),  # some rows lack the last
        }
