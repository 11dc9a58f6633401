"""Sound and video as tokens: patches are where they should be, padding is zeros, and a mask never lets any through."""

import dataclasses
import json

import pytest
import torch
from testing_tools import close, count_parameters, refused

from mmlearn.layers import record_attention
from mmlearn.models.audio.encoder import AudioEncoder, AudioEncoderConfig, WaveformTokens, patchify_frames, patchify_mel
from mmlearn.models.trimodal.video import VideoTokens

CONFIG = AudioEncoderConfig(mels=12, frames=30, patch_size=(4, 5), stride=(4, 5), width=16, depth=2, num_heads=2)
OVERLAP = dataclasses.replace(CONFIG, stride=(2, 3))


def lengths_mask(lengths, n):
    return torch.arange(n) < torch.tensor(lengths)[:, None]


@pytest.mark.parametrize(("size", "stride"), [((4, 5), (4, 5)), ((4, 5), (2, 3)), ((4, 4), (5, 6))])
def test_patches_are_cut_where_they_should_be(size, stride):
    mel = torch.randn(2, 12, 23)
    patches = patchify_mel(mel, size, stride)
    assert patches.shape == (2, (12 - size[0]) // stride[0] + 1, (23 - size[1]) // stride[1] + 1, size[0] * size[1])
    for row in range(patches.shape[1]):
        for column in range(patches.shape[2]):
            band, frame = row * stride[0], column * stride[1]
            assert torch.equal(
                patches[:, row, column], mel[:, band : band + size[0], frame : frame + size[1]].flatten(1)
            )


def test_a_key_and_a_value_besides():
    """As PyTorch's attention has them with ``add_bias_kv``, and so ImageBind."""
    config = dataclasses.replace(CONFIG, extra_key=True, one_position=True, patch_norm=True, depth=1)
    encoder = AudioEncoder(config).eval()
    ours = encoder.transformer.blocks[0].attention
    theirs = torch.nn.MultiheadAttention(16, 2, add_bias_kv=True, batch_first=True)
    parts = (ours.query, ours.key, ours.value)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([part.weight for part in parts]))
        theirs.in_proj_bias.copy_(torch.cat([part.bias for part in parts]))
        theirs.bias_k.copy_(ours.key.extra[None, None])
        theirs.bias_v.copy_(ours.value.extra[None, None])
    theirs.out_proj.load_state_dict(ours.output.state_dict())
    x, mask = torch.randn(3, 7, 16), lengths_mask([7, 4, 1], 7)
    expected, weights = theirs(x, x, x, key_padding_mask=~mask)
    keys = torch.nn.functional.pad(mask, (0, 1), value=True)
    close(ours(x, mask=keys), expected)
    mel, mel_mask = torch.randn(4, 12, 30), lengths_mask([30, 17, 10, 3], 30)
    with record_attention(encoder) as maps:
        encoder(mel, mel_mask)
    assert maps["transformer.blocks.0.attention"].shape == (4, 2, 19, 20)
    assert weights.shape == (3, 7, 8)
    assert (maps["transformer.blocks.0.attention"][..., -1] > 0).all()
    assert len(encoder.embedding.positions) == 3
    assert encoder.embedding.patches.bias is None


def test_a_column_is_real_without_padding_and_the_first_with_anything():
    mask = lengths_mask([23, 10, 9, 3, 0], 23)
    assert patchify_frames(mask, 5, 5).tolist() == [
        [True] * 4,
        [True, True, False, False],
        [True, False, False, False],
        [True, False, False, False],
        [False] * 4,
    ]
    assert patchify_frames(mask, 5, 3).sum(1).tolist() == [7, 2, 2, 1, 0]


IMAGE_BIND = dataclasses.replace(CONFIG, extra_key=True, one_position=True, patch_norm=True)


@pytest.mark.parametrize("config", [CONFIG, OVERLAP, dataclasses.replace(CONFIG, class_token=False), IMAGE_BIND])
def test_padding_changes_nothing(config):
    encoder, mel, lengths = AudioEncoder(config), torch.randn(4, 12, 30), [30, 17, 10, 3]
    mel_mask = lengths_mask(lengths, 30)
    tokens, mask = encoder(mel, mel_mask)
    noise = torch.where(mel_mask[:, None], mel, torch.full_like(mel, torch.nan))
    assert torch.equal(encoder(noise, mel_mask).tokens[mask], tokens[mask])
    for row, length in enumerate(lengths):
        alone = encoder(mel[row : row + 1, :, :length])
        assert alone.mask.all()
        close(alone.tokens[0], tokens[row][mask[row]])
    assert not torch.allclose(encoder(mel).tokens[1], tokens[1], atol=1e-3)


def test_bands_and_times_are_told_apart():
    encoder = AudioEncoder(dataclasses.replace(CONFIG, class_token=False))
    tokens = encoder(torch.ones(1, 12, 30)).tokens[0]
    assert torch.pdist(tokens).min() > 1e-2


def test_size_of_the_audio_tower_of_image_bind():
    """A ViT-B over 12 × 19 patches of 16 × 16; our sum of positions has 31 of them, the grid 228."""
    config = AudioEncoderConfig()
    with torch.device("meta"):
        embedding = AudioEncoder(config).embedding
    assert (len(embedding.bands), len(embedding.times)) == (12, 19)
    blocks = 12 * (12 * 768**2 + 13 * 768)
    assert count_parameters(AudioEncoder, config) == blocks + (16 * 16 + 1) * 768 + 768 + 31 * 768 + 2 * 768
    assert AudioEncoderConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_wrong_sound_is_told(unchecked):
    encoder = AudioEncoder(CONFIG)
    for wrong in (torch.randn(2, 11, 30), torch.randn(12, 30), torch.zeros(2, 12, 30, dtype=torch.long)):
        refused(r"A log-mel is a float tensor \(b, 12, s\); got", encoder, wrong)
    for frames, says in ((0, "at least one frame"), (31, "31 frames are more than the 30 of this model")):
        refused(says, encoder, torch.randn(2, 12, frames))
    with pytest.raises(ValueError, match=r"mel_mask is boolean \(b, s\) like the log-mel, \(2, 30\).*got.*\(2, 29\)"):
        encoder(torch.randn(2, 12, 30), torch.ones(2, 29, dtype=torch.bool))


def test_a_waveform_is_cut_into_pieces():
    tokens, waveform = WaveformTokens(100, 8, 16), torch.randn(3, 60)
    mask = lengths_mask([60, 33, 0], 60)
    x, real = tokens(waveform, mask)
    assert real.sum(1).tolist() == [8, 5, 0]
    for row, length in ((0, 60), (1, 33)):
        for piece in range(-(-length // 8)):
            samples = torch.zeros(8)
            part = waveform[row, 8 * piece : min(8 * piece + 8, length)]
            samples[: len(part)] = part
            close(x[row, piece], tokens.patches.weight @ samples + tokens.patches.bias + tokens.positions[piece])
    noise = torch.where(mask, waveform, torch.nan)
    assert torch.equal(tokens(noise, mask)[0], x)
    close(tokens(waveform[1:2, :33])[0], x[1:2, :5])


def test_a_video_is_cut_into_boxes():
    """Equation 1 of VATT, box by box."""
    tokens, video = VideoTokens((8, 20, 24), (2, 8, 8), 16), torch.randn(2, 5, 3, 20, 18)
    mask = lengths_mask([5, 3], 5)
    x, real = tokens(video, mask)
    assert x.shape == (2, 3 * 3 * 3, 16)
    assert real.tolist() == [[True] * 27, [True] * 18 + [False] * 9]
    padded = torch.zeros(2, 6, 3, 24, 24)
    padded[:, :5, :, :20, :18] = video * mask[:, :, None, None, None]
    for i in range(3):
        for j in range(3):
            for k in range(3):
                box = padded[:, 2 * i : 2 * i + 2, :, 8 * j : 8 * j + 8, 8 * k : 8 * k + 8]
                position = tokens.times[i] + tokens.rows[j] + tokens.columns[k]
                close(x[:, 9 * i + 3 * j + k], tokens.patches(box.flatten(1)) + position)
    close(tokens(video[1:, :3])[0], x[1:, :18])


def test_wrong_waveforms_and_videos_are_told(unchecked):
    sound, video = WaveformTokens(100, 8, 16), VideoTokens((8, 16, 16), (2, 8, 8), 16)
    with pytest.raises(ValueError, match=r"A waveform is a float tensor \(b, samples\); got torch.int16"):
        sound(torch.zeros(2, 50, dtype=torch.int16))
    for samples in (0, 101):
        refused(f"1 to 100 samples here, got {samples}", sound, torch.randn(2, samples))
    refused(r"\(b, frames, 3, height, width\); got torch.float32 \(2, 3, 16, 16\)", video, torch.randn(2, 3, 16, 16))
    refused("from 1 to 8 × 16 × 16 frames and pixels here, got 9 × 16 × 16", video, torch.randn(2, 9, 3, 16, 16))
    refused("got 0 × 16 × 16", video, torch.randn(2, 0, 3, 16, 16))
