"""Pictures are changed each by itself, reproducibly, and not at all by amounts of 0."""

import torch
from testing_tools import close

from mmlearn.data.augment import augment

NOTHING = dict(shift=0, scale=0, turn=0, tint=0)


def images(b=6):
    return torch.randn(b, 3, 24, 32, generator=torch.Generator().manual_seed(1))


def test_nothing_changes_nothing():
    close(augment(images(), torch.Generator().manual_seed(0), **NOTHING), images())


def test_the_generator_decides():
    first, again, other = (augment(images(), torch.Generator().manual_seed(seed)) for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert (first - other).abs().mean() > 0.05
    assert first.shape == images().shape


def test_each_image_is_changed_by_itself():
    same = images(1).expand(5, -1, -1, -1)
    changed = augment(same, torch.Generator().manual_seed(0))
    assert all((changed[i] - changed[i + 1]).abs().mean() > 0.05 for i in range(4))


def test_a_shift_moves_by_at_most_its_share():
    """A bright column in the middle of 32 stays within 0.25 · 32 pixels of it, and does not stay where it is."""
    image = torch.zeros(200, 3, 32, 32)
    image[..., 15:17] = 1
    moved = augment(image, torch.Generator().manual_seed(0), **NOTHING | {"shift": 0.25})
    position = (moved.mean((1, 2)) * torch.arange(32)).sum(-1) / moved.mean((1, 2)).sum(-1)
    assert (position - 15.5).abs().max() <= 8.01
    assert (position - 15.5).std() > 3


def test_a_tint_is_one_line_a_channel():
    image = images()
    changed = augment(image, torch.Generator().manual_seed(0), **NOTHING | {"tint": 0.25})
    for before, after in zip(image.flatten(0, 1), changed.flatten(0, 1)):
        gain = (after.max() - after.min()) / (before.max() - before.min())
        close((after - after.mean()).abs(), gain * (before - before.mean()).abs(), 1e-4)
