"""What is no waveform, no log-mel or no mask is told in one line."""

import pytest
import torch
from testing_tools import refused

from mmlearn.models.audio.checks import real_frames, real_samples

MEL = torch.zeros(2, 64, 30)


def test_a_log_mel_and_its_mask_pass():
    for length in ([30, 30], [30, 0], [1, 17]):
        mask = torch.arange(30) < torch.tensor(length)[:, None]
        assert real_frames(MEL, mask, 64, 30) is mask
    assert real_frames(MEL, None, 64).all()
    assert real_frames(MEL[:0], None, 64).shape == (0, 30)
    real_frames(MEL.half(), None, 64)


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
    refused(says, real_frames, mel, None, 64, 30)


def test_masks_that_cannot_be_are_told(unchecked):
    whole = torch.ones(2, 30, dtype=torch.bool)
    for wrong in (whole.long(), whole[:1], whole[:, :29]):
        refused(r"mel_mask is boolean \(b, s\) like the log-mel, \(2, 30\); got", real_frames, MEL, wrong, 64)


def test_waveforms_and_their_masks(unchecked):
    waveform, mask = torch.randn(2, 50), torch.arange(50) < torch.tensor([[50], [20]])
    assert real_samples(waveform, mask) is mask
    assert real_samples(waveform, None).all()
    for wrong in (waveform[0], waveform.long(), waveform[:, None]):
        refused(r"A waveform is a float tensor \(b, samples\); got torch\.", real_samples, wrong, None)
    for wrong in (mask.long(), mask[:1], mask[:, :9]):
        refused(
            r"waveform_mask is boolean \(b, samples\) like the waveform, \(2, 50\); got", real_samples, waveform, wrong
        )
