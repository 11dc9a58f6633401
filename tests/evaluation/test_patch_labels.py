"""An encoder that learns what each patch shows, and the labels that scenes give to patches."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from testing_tools import close, refused

from mmlearn.data.synthetic.layouts import COLOURS, SHAPES, small_layout
from mmlearn.data.synthetic.scenes import Scenes, draw_samples
from mmlearn.evaluation.patch_labels import PatchLabels, patch_labels
from mmlearn.layers import ImageEncoder, ImageEncoderConfig

EYE = ImageEncoderConfig(16, 1, 2, image_size=32, patch_size=8, class_token=False)


@pytest.mark.parametrize("side", [4, 8])
def test_a_patch_has_the_labels_of_what_stands_in_its_cell(side):
    """Against the middle of each patch, in pixels, and the middle of each object's cell."""
    scenes = Scenes("train", size=64)
    samples = [scenes[i] for i in range(5)]
    label = patch_labels(samples, side)
    assert label.shape == (5, side**2, 3)
    for sample, own in zip(samples, label):
        there = {
            item.cell: (COLOURS.index(item.colour), SHAPES.index(item.shape), item.cell) for item in sample.objects
        }
        for patch, found in enumerate(own):
            x, y = ((patch % side + 0.5) * 64 / side, (patch // side + 0.5) * 64 / side)
            expected = there.get(int(y // 16) * 4 + int(x // 16))
            assert found.tolist() == ([0, 0, 0] if expected is None else [1 + number for number in expected])


def test_cells_must_divide_into_patches():
    samples = draw_samples(small_layout("train", np.arange(2), 0, objects=1), 32)
    assert (patch_labels(samples, 4)[..., 0] > 0).sum(1).tolist() == [4, 4]
    refused("3 patches a side do not divide into 2 cells", patch_labels, samples, 3)


def test_the_loss_is_that_of_each_kind_and_nothing_is_a_label_of_its_own():
    torch.manual_seed(0)
    system, image = PatchLabels(ImageEncoder(EYE), EYE.width, {"colour": 3, "cell": 4}), torch.randn(2, 3, 32, 32)
    label = torch.stack([torch.randint(4, (2, 16)), torch.randint(5, (2, 16))], -1)
    states = system.image_encoder(image)
    losses = system.loss({"image": image, "label": label})
    assert list(losses) == ["colour", "cell"]
    for i, kind in enumerate(losses):
        logs = F.log_softmax(states @ system.heads[i].weight.T + system.heads[i].bias, -1)
        close(losses[kind], -logs.gather(2, label[..., i : i + 1]).mean())
        assert logs.shape[-1] == (4, 5)[i]
        assert torch.equal(system(image)[..., i], logs.argmax(-1))


def test_labels_are_learned():
    torch.manual_seed(0)
    samples = draw_samples(small_layout("train", np.arange(4), 0, objects=1), 32)
    image, label = torch.stack([sample.image for sample in samples]), patch_labels(samples, 4)
    system = PatchLabels(ImageEncoder(EYE), EYE.width, {"colour": 12, "shape": 12, "cell": 4})
    optimizer = torch.optim.Adam(system.parameters(), 1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        sum(system.loss({"image": image, "label": label}).values()).backward()
        optimizer.step()
    assert (system(image) == label).float().mean() > 0.95


def test_a_class_token_is_no_patch():
    system = PatchLabels(ImageEncoder(ImageEncoderConfig(16, 1, 2, image_size=32, patch_size=8)), 16, {"colour": 3})
    batch = {"image": torch.randn(2, 3, 32, 32), "label": torch.zeros(2, 16, 1, dtype=torch.long)}
    refused("class_token=False", system.loss, batch)
