"""DETR's positions, its backbone, and what it refuses; outputs are compared with published code in tests/parity."""

import pytest
import torch
from testing_tools import close, refused
from torchvision.models import resnet18, resnet50

from mmlearn.models import DETR, DETRConfig
from mmlearn.models.vision.detr_blocks import masked_sinusoidal_grid
from mmlearn.models.vision.resnet import RESNETS, resnet


@pytest.mark.parametrize(("preset", "published"), [("resnet-18", resnet18), ("resnet-50", resnet50)])
def test_the_backbone_takes_the_layers_of_torchvision(preset, published):
    with torch.device("meta"):
        ours, theirs = resnet(RESNETS[preset]).state_dict(), published().state_dict()
    theirs = {name: x for name, x in theirs.items() if not name.startswith("fc.") and "num_batches" not in name}
    assert {name: x.shape for name, x in ours.items()} == {name: x.shape for name, x in theirs.items()}


def test_padding_does_not_move_positions():
    real = torch.zeros(2, 4, 5, dtype=torch.bool)
    real[0], real[1, :3, :4] = True, True
    found = masked_sinusoidal_grid(real, 8).view(2, 4, 5, 8)
    close(found[1, :3, :4].reshape(1, 12, 8), masked_sinusoidal_grid(real[1:, :3, :4], 8), 1e-5)
    refused("multiple of 4, got 6", masked_sinusoidal_grid, real, 6)


def test_bad_batches_are_told():
    system = DETR(DETRConfig.tiny())
    batch = {"image": torch.rand(1, 3, 64, 64), "object_classes": torch.zeros(1, 1).long()}
    batch["object_mask"] = torch.ones(1, 1).bool()
    for box in ([0.5, 0.2, 0.1, 0.6], [0.1, 0.2, 0.1, 0.6], [0.1, 0.2, 1.5, 0.6]):
        refused("Box 0 of picture 0", system.loss, batch | {"boxes": torch.tensor([[box]])})
    label, probability, boxes = system.detect(batch["image"])
    assert label.shape == probability.shape == (1, 36)
    assert boxes.shape == (1, 36, 4)
    assert ((probability > 0) & (probability < 1)).all()
    assert (label < 12).all()
