"""What is no log-mel is told in one line; bands are normalised over what is real, and clips stretched."""

import pytest
import torch
import torch.nn.functional as F
from testing_tools import close

from mmlearn.models.audio.mel import MelNorm, check_mel

MEL = torch.zeros(2, 64, 30)


def test_a_log_mel_and_its_mask_pass():
    for length in ([30, 30], [30, 0], [1, 17]):
        check_mel(MEL, torch.arange(30) < torch.tensor(length)[:, None], 64, 30)
    check_mel(MEL[:0], None, 64)
    check_mel(MEL.half(), None, 64)


@pytest.mark.parametrize(
    ("mel", "says"),
    [
        (MEL[0], r"A log-mel is a float tensor \(b, 64, s\); got torch.float32 \(64, 30\)"),
        (MEL.mT, r"got torch.float32 \(2, 30, 64\)"),
        (MEL[:, :40], r"got torch.float32 \(2, 40, 30\)"),
        (MEL.long(), r"got torch.int64 \(2, 64, 30\)"),
        (MEL[:, :, :0], "at least one frame; this one has none"),
        (torch.zeros(2, 64, 31), "31 frames are more than the 30 of this model; cut the sound into pieces"),
    ],
)
def test_what_is_no_log_mel_is_told(mel, says, unchecked):
    with pytest.raises(ValueError, match=says) as error:
        check_mel(mel, None, 64, 30)
    assert "\n" not in str(error.value)


def test_masks_that_cannot_be_are_told(unchecked):
    whole = torch.ones(2, 30, dtype=torch.bool)
    for wrong in (whole.long(), whole[:1], whole[:, :29]):
        with pytest.raises(ValueError, match=r"mel_mask is boolean \(b, s\) like the log-mel, \(2, 30\); got"):
            check_mel(MEL, wrong, 64)
    hole = whole.clone()
    hole[1, 4] = False
    late = torch.arange(30).expand(2, 30) > 3
    for wrong in (hole, late):
        with pytest.raises(ValueError, match="from the first frame of a sound to its last; pad behind"):
            check_mel(MEL, wrong, 64)


def spread(norm):
    """Weights and statistics that are not 1 and 0."""
    for tensor in (norm.weight.data, norm.running_var):
        tensor.uniform_(0.5, 2)
    for tensor in (norm.bias.data, norm.running_mean):
        tensor.normal_()
    return norm


def test_norm_of_whole_clips_is_pytorchs_and_then_stretched():
    """In training and after it; the affine part commutes with the stretching."""
    norm, mel = spread(MelNorm(5, 20)), torch.randn(3, 5, 13)
    theirs = torch.nn.BatchNorm1d(5)
    theirs.load_state_dict(norm.state_dict() | {"num_batches_tracked": torch.tensor(0)})
    for training in (True, False):
        norm.train(training)
        theirs.train(training)
        expected = F.interpolate(theirs(mel)[:, None], (5, 20), mode="bicubic", align_corners=True)[:, 0]
        close(norm(mel), expected)
        norm(mel).square().sum().backward()
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
            close(norm(mel[i : i + 1, :, row]), out[i : i + 1])
        close(norm(mel, torch.ones_like(mask)), norm(mel))


def test_norm_of_next_to_nothing():
    norm = spread(MelNorm(5, 20))
    for training in (True, False):
        norm.train(training)
        silent = norm(torch.randn(2, 5, 7), torch.zeros(2, 7, dtype=torch.bool))
        close(silent, norm.bias[:, None].expand(2, 5, 20))  # the mean
        assert norm(torch.randn(1, 5, 1)).isfinite().all()
        assert (
            norm(torch.zeros(0, 5, 7)).shape == norm(torch.zeros(0, 5, 7), torch.ones(0, 7).bool()).shape == (0, 5, 20)
        )
    assert norm.running_mean.isfinite().all()
