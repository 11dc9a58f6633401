"""Bands are normalised over what is real, and clips are stretched as PyTorch stretches pictures."""

import pytest
import torch
import torch.nn.functional as F
from testing_tools import close

from mmlearn.models.audio.mel import MelNorm, stretch


def spread(norm):
    """Weights and statistics that are not 1 and 0."""
    for tensor in (norm.weight.data, norm.running_var):
        tensor.uniform_(0.5, 2)
    for tensor in (norm.bias.data, norm.running_mean):
        tensor.normal_()
    return norm


@pytest.mark.parametrize(("s", "frames"), [(13, 20), (20, 20), (31, 20), (2, 7), (1, 5), (97, 256)])
def test_stretching_is_pytorchs_bicubic_interpolation_for_clips_of_any_length(s, frames):
    mel = torch.randn(3, 5, s)
    whole = F.interpolate(mel[:, None], (5, frames), mode="bicubic", align_corners=True)[:, 0]
    close(stretch(mel, torch.full((3,), s), frames), whole)
    longer = F.pad(mel, (0, 6), value=9.0)
    close(stretch(longer, torch.full((3,), s), frames), whole)
    several = stretch(mel, torch.tensor([s, 1, (s + 1) // 2]), frames)
    close(several[0], whole[0])
    close(several[1], mel[1, :, :1].expand(-1, frames))
    close(several[2], stretch(mel[2:, :, : (s + 1) // 2], torch.tensor([(s + 1) // 2]), frames)[0])


def test_norm_of_whole_clips_is_pytorchs_and_then_stretched():
    """In training and after it; the affine part commutes with the stretching."""
    norm, mel = spread(MelNorm(5, 20)), torch.randn(3, 5, 13)
    theirs = torch.nn.BatchNorm1d(5)
    theirs.load_state_dict(norm.state_dict() | {"num_batches_tracked": torch.tensor(0)})
    for training in (True, False):
        norm.train(training)
        theirs.train(training)
        expected = F.interpolate(theirs(mel)[:, None], (5, 20), mode="bicubic", align_corners=True)[:, 0]
        every = torch.ones(3, 13, dtype=torch.bool)
        close(norm(mel, every), expected)
        norm(mel, every).square().sum().backward()
        F.interpolate(theirs(mel)[:, None], (5, 20), mode="bicubic", align_corners=True).square().sum().backward()
        close(norm.weight.grad, theirs.weight.grad, 1e-4)
        close(norm.bias.grad, theirs.bias.grad, 1e-4)
    close(norm.running_mean, theirs.running_mean)
    close(norm.running_var, theirs.running_var)


@pytest.mark.parametrize("training", [False, True])
def test_norm_knows_real_frames_alone(training):
    norm, mel = spread(MelNorm(5, 20)).train(training), torch.randn(3, 5, 13)
    mask = torch.arange(13) < torch.tensor([[13], [4], [9]])
    before = {name: value.clone() for name, value in norm.state_dict().items()}
    out = norm(mel, mask)
    after = dict(norm.state_dict())
    real = mel.mT[mask]  # (26, 5)
    if training:
        close(after["running_mean"], 0.9 * before["running_mean"] + 0.1 * real.mean(0))
        close(after["running_var"], 0.9 * before["running_var"] + 0.1 * real.var(0))
    norm.load_state_dict(before)
    assert torch.equal(norm(mel.masked_fill(~mask[:, None], 99.0), mask), out)
    if not training:
        for i, row in enumerate(mask):
            close(norm(mel[i : i + 1, :, row], row[row][None]), out[i : i + 1])


def test_norm_of_next_to_nothing():
    norm = spread(MelNorm(5, 20))
    for training in (True, False):
        norm.train(training)
        silent = norm(torch.randn(2, 5, 7), torch.zeros(2, 7, dtype=torch.bool))
        close(silent, norm.bias[:, None].expand(2, 5, 20))  # the mean
        before = norm.running_mean.clone(), norm.running_var.clone()
        assert norm(torch.randn(1, 5, 1), torch.ones(1, 1, dtype=torch.bool)).isfinite().all()
        assert torch.equal(norm.running_mean, before[0])
        assert torch.equal(norm.running_var, before[1])
        assert norm(torch.zeros(0, 5, 7), torch.ones(0, 7, dtype=torch.bool)).shape == (0, 5, 20)
