"""Speech encoders: stride arithmetic, padding that never leaks, features of sounds, and texts that do not fit."""

import dataclasses

import pytest
import torch
from testing_tools import close, refused
from torch import nn

from mmlearn.data.speech_features import mfcc, standardise
from mmlearn.models.speech.context_network import ConvolutionalPositions
from mmlearn.models.speech.encoder import (
    CTCHead,
    FeatureEncoder,
    SpeechEncoder,
    SpeechEncoderConfig,
    frame_count,
    frame_mask,
    receptive_field,
)

PUBLISHED = SpeechEncoderConfig()
KERNELS, STRIDES = PUBLISHED.kernels, PUBLISHED.strides
SMALL = SpeechEncoderConfig(
    channels=(6, 8),
    kernels=(5, 3),
    strides=(3, 2),
    convolution_norm="clip",
    position_kernel=4,
    position_groups=2,
    width=16,
    depth=2,
    num_heads=2,
    norm_first=True,
    dropout=0.0,
)


def clips(b=4, samples=120):
    """Noise, and which of it is real: each clip is 13 samples shorter than the one before."""
    mask = torch.arange(samples) < samples - 13 * torch.arange(b)[:, None]
    return torch.randn(b, samples), mask


def test_frames_are_those_that_a_convolution_makes():
    for kernels, strides in [((5, 3), (3, 2)), ((4, 4, 2), (1, 3, 2)), ((2,), (7,))]:
        stack = nn.Sequential(*(nn.Conv1d(1, 1, kernel, stride) for kernel, stride in zip(kernels, strides)))
        least = receptive_field(kernels, strides)
        for samples in range(least, least + 25):
            assert frame_count(samples, kernels, strides) == stack(torch.zeros(1, 1, samples)).shape[-1]
        assert frame_count(least, kernels, strides) == 1
        assert frame_count(least - 1, kernels, strides) == frame_count(0, kernels, strides) == 0


def test_published_strides_make_fifty_frames_a_second_of_25_ms():
    assert receptive_field(KERNELS, STRIDES) == 400
    assert frame_count(16_000, KERNELS, STRIDES) == 49
    assert frame_count(15 * 16_000, KERNELS, STRIDES) == 749
    samples = torch.arange(0, 3000)
    expected = torch.div(samples - 400, 320, rounding_mode="floor") + 1
    assert torch.equal(frame_count(samples, KERNELS, STRIDES), expected.clamp(min=0))


def test_a_real_frame_sees_real_samples_only():
    """By differentiation: a frame is real exactly if nothing it sees is padding."""
    encoder = FeatureEncoder((3, 4), (5, 3), (3, 2), "layer")
    waveform = torch.randn(1, 60, requires_grad=True)
    features = encoder(waveform)
    for length in (11, 12, 40, 41, 59, 60):
        mask = (torch.arange(60) < length)[None]
        for frame, real in enumerate(frame_mask(mask, (5, 3), (3, 2))[0]):
            (seen,) = torch.autograd.grad(features[0, frame].sum(), waveform, retain_graph=True)
            assert (not (seen[0] != 0)[~mask[0]].any()) == bool(real), (length, frame)


@pytest.mark.parametrize("norm", ["group", "clip", "layer"])
@pytest.mark.parametrize("norm_first", [False, True])
def test_what_is_padded_changes_nothing(norm, norm_first):
    model = SpeechEncoder(dataclasses.replace(SMALL, convolution_norm=norm, norm_first=norm_first))
    waveform, mask = clips()
    output = model(waveform, mask)
    other = model(torch.where(mask, waveform, 7 * torch.randn_like(waveform)), mask)
    assert torch.equal(output.tokens[output.mask], other.tokens[output.mask])
    assert torch.equal(output.mask, frame_mask(mask, SMALL.kernels, SMALL.strides))
    assert not torch.allclose(model(waveform).tokens[1], output.tokens[1], atol=1e-3)


@pytest.mark.parametrize("norm", ["clip", "layer"])
def test_a_clip_is_the_same_alone_and_however_it_is_padded(norm):
    model = SpeechEncoder(dataclasses.replace(SMALL, convolution_norm=norm))
    waveform, mask = clips()
    output = model(waveform, mask)
    for row, length in enumerate(mask.sum(1)):
        alone = model(waveform[row : row + 1, :length]).tokens[0]
        close(output.tokens[row, : len(alone)], alone)
        assert output.mask[row].sum() == len(alone)
    longer = nn.functional.pad(waveform, (0, 50), value=3.0), nn.functional.pad(mask, (0, 50))
    close(model(*longer).tokens[:, : output.tokens.shape[1]][output.mask], output.tokens[output.mask])


def test_with_the_published_group_norm_longer_padding_is_heard():
    """As in the published base models, whose statistics are over all that a batch holds."""
    model = SpeechEncoder(dataclasses.replace(SMALL, convolution_norm="group"))
    waveform, mask = clips(2)
    output = model(waveform * mask, mask)
    longer = model(nn.functional.pad(waveform * mask, (0, 300)), nn.functional.pad(mask, (0, 300)))
    assert not torch.allclose(longer.tokens[0, : output.tokens.shape[1]], output.tokens[0], atol=1e-3)


def test_norms_of_clip_and_group_agree_without_padding():
    torch.manual_seed(0)
    clip = FeatureEncoder((6, 8), (5, 3), (3, 2), "clip")
    group = FeatureEncoder((6, 8), (5, 3), (3, 2), "group")
    group.load_state_dict(clip.state_dict())
    with torch.no_grad():
        for parameter in (*clip.norms.parameters(), *group.norms.parameters()):
            parameter.copy_(torch.arange(6.0) - 2)
    waveform = torch.randn(3, 90)
    close(clip(waveform, torch.ones(3, 90, dtype=torch.bool)), group(waveform))
    close(clip(waveform), group(waveform))


def test_a_new_kernel_has_the_length_of_its_direction():
    positions = ConvolutionalPositions(64, 16, 4)
    close(positions.length, positions.direction.norm(dim=(0, 1)))
    assert positions.direction.std().item() == pytest.approx((4 / (16 * 64)) ** 0.5, rel=0.05)


def test_a_clip_without_a_frame_is_silent_and_changes_no_other():
    model = SpeechEncoder(SMALL)
    waveform, mask = clips(2)
    mask[1] = torch.arange(120) < 10
    output = model(waveform, mask)
    assert not output.mask[1].any()
    assert output.tokens.isfinite().all()
    close(output.tokens[:1], model(waveform[:1], mask[:1]).tokens)


def test_frames_that_see_a_hole_are_not_real():
    mask = torch.arange(120)[None] != 50
    real = frame_mask(mask, SMALL.kernels, SMALL.strides)[0]
    assert (~real).nonzero()[:, 0].tolist() == [frame for frame in range(19) if 6 * frame <= 50 < 6 * frame + 11]


def test_wrong_input_is_told(unchecked):
    model = SpeechEncoder(SMALL)
    waveform, mask = clips(2)
    for wrong in (waveform[0], waveform.long(), waveform[:, None]):
        refused(r"A waveform is a float tensor \(b, samples\); got torch\.", model, wrong)
    refused("A clip of 10 samples is shorter than one window of 11", model, waveform[:, :10])
    with pytest.raises(ValueError, match="A clip of 10 samples is shorter than one window of 11"):
        frame_mask(mask[:, :10], SMALL.kernels, SMALL.strides)
    refused(r"waveform_mask is boolean \(b, samples\).* got torch.int64 \(2, 120\)", model, waveform, mask.long())
    refused(r"like the waveform, \(2, 120\); got torch.bool \(1, 120\)", model, waveform, mask[:1])
    with pytest.raises(ValueError, match=r"masked is boolean \(b, s\) = \(2, 19\).* got torch.bool \(2, 18\)"):
        model(waveform, mask, torch.zeros(2, 18, dtype=torch.bool))
    with pytest.raises(ValueError, match="The norm of the convolutions is 'group', 'clip' or 'layer', not 'batch'"):
        SpeechEncoder(dataclasses.replace(SMALL, convolution_norm="batch"))
    with pytest.raises(ValueError, match="its channels, kernel and stride; got 2, 1 and 2 of them"):
        SpeechEncoder(dataclasses.replace(SMALL, kernels=(3,)))
    refused("width 16 is no multiple of the 3 groups", SpeechEncoder, dataclasses.replace(SMALL, position_groups=3))


def test_standardised_clips():
    waveform, mask = clips(3)
    got = standardise(5 + 3 * waveform, mask)
    for row, real in zip(got, mask):
        assert row[real].mean().item() == pytest.approx(0, abs=1e-5)
        assert row[real].std(correction=0).item() == pytest.approx(1, abs=1e-4)
        assert (row[~real] == 0).all()
    close(got[0], standardise(waveform[:1])[0], 1e-4)
    assert (standardise(torch.full((1, 50), 0.3)).abs() < 1e-2).all()  # silence stays silence


@pytest.mark.parametrize("samples", [400, 719, 720, 1039, 1040, 5000, 16_000])
def test_cepstral_coefficients_are_one_row_a_frame(samples):
    assert mfcc(torch.randn(samples)).shape == (frame_count(samples, KERNELS, STRIDES), 39)


def test_cepstral_coefficients_hear_the_frame_they_stand_for():
    """A click in the middle of a frame moves that frame most, and the first 13 of no frame that does not see it."""
    clip = 0.01 * torch.randn(8000)
    clicked = clip.clone()
    clicked[320 * 12 + 200] += 1
    change = (mfcc(clicked) - mfcc(clip))[:, :13].norm(dim=1)
    assert change.argmax() == 12
    assert (change[:11] == 0).all()
    assert (change[14:] == 0).all()
    refused(r"need 400 samples \(25 ms\), and this clip has 399", mfcc, clip[:399])


def test_texts_that_cannot_be_spelled_are_told():
    head = CTCHead(6, 4)
    logits, frames = torch.randn(2, 3, 4), torch.ones(2, 3, dtype=torch.bool)
    assert head.loss(logits, frames, torch.tensor([[1, 2, 3], [2, 3, 2]])).isfinite()
    with pytest.raises(
        ValueError, match="A clip of 3 frames cannot spell a text that needs 4: one for each token, and"
    ):
        head.loss(logits, frames, torch.tensor([[1, 2, 3], [2, 2, 3]]))
    frames[0, 2] = False
    with pytest.raises(ValueError, match="A clip of 2 frames cannot spell a text that needs 3"):
        head.loss(logits, frames, torch.tensor([[1, 2, 3], [2, 3, 2]]))
    for wrong in (0, 4, -1):
        with pytest.raises(ValueError, match=f"tokens from 0 to 3 but not the blank, 0; got {wrong}"):
            head.loss(logits, frames, torch.tensor([[1, 2], [2, wrong]]))
