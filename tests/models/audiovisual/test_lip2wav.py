"""Lip2Wav: the future is never heard, what is said comes from the lips, sizes are as stated."""

import dataclasses

import pytest
import torch
from testing_tools import close, count_parameters, overfit, refused
from torch import nn

from mmlearn.layers import record_attention
from mmlearn.models.audiovisual.lip2wav import ConvBlock, FaceEncoder, Lip2Wav, Lip2WavConfig

TINY = dataclasses.replace(Lip2WavConfig.tiny(), mels=8, video_widths=(8, 8), width=32, prenet_width=16)
STEADY = dataclasses.replace(TINY, prenet_dropout=0.0)
SMALL = dataclasses.replace(TINY, video_widths=(8,), depth=1, postnet_depth=2)


def speech(b=3, frames=6, seed=0, mels=8, size=16):
    """Mouths that are dark where they open, and a band that is as loud as they are open; clips end apart."""
    generator = torch.Generator().manual_seed(seed)
    opening = torch.rand(b, frames, generator=generator)
    rows = (torch.arange(size) - size / 2 + 0.5).abs() / (size / 2)
    video = 0.5 - (rows < opening[..., None]).float()[..., None, :, None].expand(b, frames, 3, size, size)
    band = torch.exp(-(((torch.arange(mels) - 3.0) / 2) ** 2))[:, None]
    mel = 2 * opening.repeat_interleave(4, 1)[:, None] * band - 0.5
    video_mask = torch.arange(frames) < frames - torch.arange(b)[:, None]
    return {
        "video": video.contiguous(),
        "mel": mel,
        "video_mask": video_mask,
        "mel_mask": video_mask.repeat_interleave(4, 1),
    }


def test_no_step_hears_itself_or_what_comes():
    model, batch = Lip2Wav(TINY).eval(), speech(1)
    before = model(batch["video"], batch["mel"]).before
    for frame in (0, 3, 4, 11, 12, 22):
        mel = batch["mel"].clone()
        mel[:, :, frame] += 5
        changed = (model(batch["video"], mel).before - before).abs().amax((0, 1)) > 1e-6
        first = 4 * (frame // 4 + 1)  # the step after the one that this frame belongs to
        assert not changed[:first].any()
        # Only the last frame of a step is heard.
        assert bool(changed[first:].any()) is (frame % 4 == 3)


def test_every_frame_of_the_video_is_seen():
    model, batch = Lip2Wav(TINY).eval(), speech(1)
    before = model(batch["video"], batch["mel"]).before
    for frame in range(6):
        video = batch["video"].clone()
        video[:, frame] += 1
        assert ((model(video, batch["mel"]).before - before).abs().amax((0, 1)) > 1e-6).all()


def test_the_loss_starts_at_the_size_of_what_is_to_be_said():
    model, batch = Lip2Wav(STEADY), speech()
    model.output.weight.data.zero_()
    expected = batch["mel"].mT[batch["mel_mask"]].abs().mean()
    losses = model.loss(batch)
    assert set(losses) == {"before", "mel"}
    close(losses["before"], expected)
    close(losses["mel"], expected)  # the post-net adds nothing yet


def test_the_loss_counts_real_frames_only():
    model, batch = Lip2Wav(TINY).eval(), speech()
    nn.init.ones_(model.postnet.layers[-1].norm.weight)
    output = model(**batch)
    for name, loss in model.loss(batch).items():
        error = (getattr(output, name) - batch["mel"]).abs().mT[batch["mel_mask"]]
        close(loss, error.mean())
    whole = {name: batch[name] for name in ("video", "mel")}
    everything = {name: torch.ones_like(batch[name]) for name in ("video_mask", "mel_mask")}
    assert model.loss(whole) == model.loss(whole | everything)


def test_longer_padding_changes_no_loss_in_training():
    """Batch norm counts real frames alone, in what it takes off and in what it remembers."""
    batch = speech()
    more = {"video": 2, "video_mask": 2, "mel": 8, "mel_mask": 8}
    pads = {"video": (0, 0, 0, 0, 0, 0, 0, more["video"])}
    longer = {name: nn.functional.pad(x, pads.get(name, (0, more[name]))) for name, x in batch.items()}
    one, other = Lip2Wav(STEADY), Lip2Wav(STEADY)
    nn.init.ones_(one.postnet.layers[-1].norm.weight)
    other.load_state_dict(one.state_dict())
    expected, found = one.loss(batch), other.loss(longer)
    for name in expected:
        close(found[name], expected[name])
    for buffer, kept in zip(one.buffers(), other.buffers()):
        close(kept, buffer)


def test_what_is_said_comes_from_the_lips():
    """A video of other lips is not said as well; and the pre-net's dropout stops in evaluation."""
    model, batch = Lip2Wav(dataclasses.replace(SMALL, prenet_dropout=0.7)), speech(4, seed=1)
    del batch["video_mask"], batch["mel_mask"]
    overfit(model, batch, steps=240, learning_rate=5e-3)
    model.eval()
    said = model.generate(batch["video"])
    error = (said - batch["mel"]).abs().mean()
    assert error < 0.5 * (batch["mel"] - batch["mel"].mean((0, 2), keepdim=True)).abs().mean()
    assert (model.generate(batch["video"].roll(1, 0)) - batch["mel"]).abs().mean() > 2 * error
    assert torch.equal(model.generate(batch["video"]), said)


def test_what_is_generated_is_what_is_predicted_from_it():
    """Shown the generated past, the model says it again."""
    model, batch = Lip2Wav(TINY).eval(), speech()
    said = model.generate(batch["video"], batch["video_mask"])
    assert said.shape == (3, 8, 24)
    again = model(batch["video"], said, batch["video_mask"], batch["mel_mask"]).before
    close(again.mT[batch["mel_mask"]], said.mT[batch["mel_mask"]])  # at first the post-net adds nothing
    assert (said.mT[~batch["mel_mask"]] == 0).all()
    close(model.generate(batch["video"][2:, :4])[0], said[2, :, :16])


@pytest.mark.parametrize(("mel_per_frame", "frames_per_step", "frames"), [(8 / 3, 2, 16), (4.0, 5, 24), (10.0, 4, 60)])
def test_clocks_of_any_rate(mel_per_frame, frames_per_step, frames):
    config = dataclasses.replace(TINY, mel_per_frame=mel_per_frame, frames_per_step=frames_per_step)
    model, batch = Lip2Wav(config).eval(), speech()
    assert model.generate(batch["video"]).shape == (3, 8, frames)
    output = model(batch["video"], torch.randn(3, 8, frames))
    assert output.mel.shape == (3, 8, frames)


def test_the_same_time_attracts_from_the_start():
    """Averaged over clips, the step in whose time a frame lies looks at it more than at those far away."""
    model, batch = Lip2Wav(dataclasses.replace(TINY, width=64)).eval(), speech(4, frames=40)
    with record_attention(model) as maps:
        model(batch["video"], batch["mel"])
    weights = maps["decoder.blocks.0.cross_attention"].mean((0, 1))
    position = torch.arange(40)
    near = (position[:, None] - position).abs() <= 1
    far = (position[:, None] - position).abs() >= 10
    assert weights[near].mean() > 1.5 * weights[far].mean()


def test_convolutions_keep_time_and_add_what_came():
    encoder = FaceEncoder((4, 6), first_kernel=5, blocks=2, width=7).eval()
    assert [layer.residual for layer in encoder.layers] == [False, False, True, True]
    assert [layer.convolution.stride for layer in encoder.layers] == [(1, 2, 2)] * 2 + [(1, 1, 1)] * 2
    assert encoder(torch.randn(2, 5, 3, 20, 12), torch.ones(2, 5, dtype=torch.bool)).shape == (2, 5, 7)
    layer = ConvBlock(nn.Conv1d(3, 3, 1), nn.Identity(), residual=True)
    layer.norm.weight.data.zero_()
    x, mask = torch.randn(2, 3, 4), torch.tensor([[1, 1, 1, 1], [1, 0, 0, 0]]).bool()
    assert torch.equal(layer(x, mask), x * mask[:, None])


def test_wrong_input_is_told(unchecked):
    model, batch = Lip2Wav(TINY), speech()
    for name in ("video", "mel"):
        refused(f"this batch has no {name}", model.loss, {key: rows for key, rows in batch.items() if key != name})
    refused("at least one; got 0 and 0", model.loss, {name: rows[:0] for name, rows in batch.items()})
    refused("at least one; got 3 and 2", model, batch["video"], batch["mel"][:2])
    with pytest.raises(ValueError, match=r"A log-mel is a float tensor \(b, 8, s\); got torch.float32 \(3, 7, 24\)"):
        model(batch["video"], batch["mel"][:, 1:])
    refused("at least one frame; this one has none", model.generate, batch["video"][:, :0])


def test_size():
    """The paper has no count."""
    assert count_parameters(Lip2Wav, Lip2WavConfig.preset("base")) == 62_220_752
