"""The field of one vector a modality: data in which one says nothing is refused."""

from dataclasses import dataclass

import torch
from testing_tools import Listed, refused

from mmlearn.data import load
from mmlearn.data.fields import Cues
from mmlearn.models.classic_fusion.early_fusion import EarlyFusionConfig


@dataclass
class Sample:
    cues: torch.Tensor


def test_sizes_are_those_of_the_data():
    field = Cues().fitted(load("cues", features=5), EarlyFusionConfig.tiny(), 0)
    assert field.sizes() == {"modalities": 2, "features": 5}
    batch = field([Sample(torch.ones(2, 5))])
    assert batch["cue_mask"].all()


def test_a_modality_of_zeros_or_one_that_is_nowhere_is_told():
    data = [load("cues")[i] for i in range(20)]
    silent = [Sample(sample.cues * torch.tensor([[1.0], [0.0]])) for sample in data]
    refused("Modality 1 is 0 throughout in 20 samples", Cues().fitted, Listed(silent), EarlyFusionConfig.tiny(), 0)
    for sample in silent:
        sample.cue_mask = torch.tensor([False, True])
        sample.cues = torch.ones(2, 16)
    refused("Modality 0 is nowhere there in 20 samples", Cues().fitted, Listed(silent), EarlyFusionConfig.tiny(), 0)
