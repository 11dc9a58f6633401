"""Sound of Pixels: each gets its own back from a mixture, and pixels have sounds."""

import dataclasses
import math
from types import SimpleNamespace

import pytest
import torch
from testing_tools import close, overfit, refused

from mmlearn.evaluation import si_sdr_improvement
from mmlearn.models.audiovisual.sound_of_pixels import SoundOfPixels, SoundOfPixelsConfig, log_frequency
from mmlearn.objectives import ratio_masks
from mmlearn.recipes.sound_of_pixels import separation

TINY = dataclasses.replace(SoundOfPixelsConfig.tiny(), bins=32, audio_widths=(8, 16, 16))
RATIO = dataclasses.replace(TINY, masks="ratio")
COLOURS = torch.tensor([[1.0, 0, 0], [0, 0, 1.0]])


def solos(b=4, seed=0, samples=4000, size=32):
    """Red squares that sound low and blue ones that sound high, in turn, somewhere on grey, for 5 frames."""
    generator = torch.Generator().manual_seed(seed)
    kind = torch.arange(b) % 2
    pitch = torch.tensor([400.0, 1500.0])[kind] * (1 + 0.3 * torch.rand(b, generator=generator))
    waveform = 0.3 * torch.sin(2 * torch.pi * pitch[:, None] * torch.arange(samples) / 16_000)
    video = 0.05 * torch.randn(b, 5, 3, size, size, generator=generator)
    corner = torch.randint(size - 12, (b, 2), generator=generator).tolist()
    for clip, (row, column), which in zip(video, corner, kind):
        clip[:, :, row : row + 12, column : column + 12] = COLOURS[which][:, None, None]
    return {"video": video, "waveform": waveform}


def settled(config=TINY):
    """A model in evaluation mode whose batch norms have seen sound."""
    model = SoundOfPixels(config)
    for seed in range(20):
        model.loss(solos(seed=seed))
    return model.eval()


def test_the_loss_starts_at_what_guessing_costs():
    """ln 2 for yes or no; for shares of two half the distance between them, which is at most a half."""
    assert SoundOfPixels(TINY).loss(solos())["mask"].item() == pytest.approx(math.log(2), abs=0.02)
    assert 0.3 < SoundOfPixels(RATIO).loss(solos())["mask"].item() < 0.5


def test_what_is_seen_gets_its_sound_out_of_the_mixture():
    model, batch = SoundOfPixels(RATIO), solos(4)
    overfit(model, batch, steps=50, learning_rate=5e-3)
    model.eval()
    sources = batch["waveform"].view(2, 2, -1)
    mixture = sources.sum(1).repeat_interleave(2, dim=0)
    estimate = model.separate(batch["video"], mixture)
    assert si_sdr_improvement(estimate, batch["waveform"], mixture).mean() > 5
    # The other's picture gets the other's sound.
    swapped = model.separate(batch["video"].view(2, 2, 5, 3, 32, 32).flip(1).flatten(0, 1), mixture)
    assert si_sdr_improvement(swapped, batch["waveform"], mixture).mean() < -5


def test_rows_that_follow_each_other_are_mixed():
    model, batch = settled(RATIO), solos(4)
    magnitude = batch["waveform"].view(2, 2, -1)
    output = model(batch["video"], magnitude.sum(1).repeat_interleave(2, dim=0))
    close(model(batch["video"], magnitude.sum(1)).logits, output.logits)  # a mixture may have several videos
    each = torch.stack([model.magnitude(sources) for sources in magnitude])
    weight = model.magnitude(magnitude.sum(1)).log1p().clamp(1e-3, 10)
    error = (output.logits.sigmoid().view_as(each) - ratio_masks(each)).abs() * weight[:, None]
    close(model.loss(batch)["mask"], error.sum() / weight.sum() / 2)
    refused("at least one mixture of 2 videos", model.loss, {name: rows[:3] for name, rows in batch.items()})
    three = SoundOfPixels(dataclasses.replace(RATIO, sources=3)).eval()
    assert three.loss({name: rows[:3] for name, rows in batch.items()})["mask"].isfinite()


def test_frames_are_taken_at_equal_distances():
    model, video = SoundOfPixels(TINY), torch.arange(9.0).view(1, 9, 1, 1, 1).expand(2, 9, 3, 4, 4)
    assert model.sample_frames(video, None)[0, :, 0, 0, 0].tolist() == [0, 4, 8]
    mask = torch.arange(9) < torch.tensor([[5], [1]])
    assert model.sample_frames(video, mask)[:, :, 0, 0, 0].tolist() == [[0, 2, 4], [0, 0, 0]]
    assert model.sample_frames(video[:, :1], None)[0, :, 0, 0, 0].tolist() == [0, 0, 0]


def test_pixels_are_the_largest_over_time_and_the_clip_the_largest_over_pixels():
    model, batch = settled(), solos()
    output = model(batch["video"], batch["waveform"])
    single = [model.video_network(batch["video"][:, k : k + 1]) for k in (0, 2, 4)]
    close(output.pixels, torch.stack(single).amax(0))
    expected = torch.einsum("bk,k,bkus->bus", output.pixels.amax((2, 3)), model.scale, output.sounds) + model.bias
    close(output.logits, expected)


def test_every_pixel_has_a_sound():
    model, batch = settled(RATIO), solos(2)
    model.scale.data = torch.rand(len(model.scale)) * 3
    sounds = model.separate_pixels(batch["video"], batch["waveform"])
    pixels = model(batch["video"], batch["waveform"]).pixels
    assert sounds.shape == (2, *pixels.shape[2:], 4000)
    model.video_network.forward = lambda video: pixels[:, :, 1:2, 1:2].expand_as(pixels)
    close(model.separate(batch["video"], batch["waveform"]), sounds[:, 1, 1])


def test_a_mask_that_lets_all_through_gives_the_mixture_back():
    for config in (TINY, RATIO):
        model, batch = settled(config), solos(2)
        model.scale.data.zero_()
        for bias, expected in ((50.0, batch["waveform"]), (-50.0, 0 * batch["waveform"])):
            model.bias.data.fill_(bias)
            close(model.separate(batch["video"], batch["waveform"]), expected, 1e-4)


def test_frequencies_go_to_bins_and_back():
    to_bins, to_frequencies = log_frequency(257, 128)
    close(to_bins.sum(1), torch.ones(128))
    close(to_frequencies.sum(1), torch.ones(257))
    smooth = (torch.arange(257) / 40).sin()
    close(to_frequencies @ (to_bins @ smooth), smooth, 0.01)
    centre = to_bins @ torch.arange(257.0)
    close(centre, 256 * (21 ** torch.linspace(0, 1, 128) - 1) / 20, 1e-3)
    assert centre[0] == 0
    assert centre[-1] == pytest.approx(256)


def test_clips_may_have_any_length():
    model = settled()
    for samples in (1, 300, 4001):
        batch = solos(2, samples=samples)
        output = model(batch["video"], batch["waveform"])
        assert output.logits.shape == (2, 32, 1 + math.ceil(samples / 256))
        assert model.separate(batch["video"], batch["waveform"]).shape == (2, samples)
        assert model.loss(batch)["mask"].isfinite()
    silent = solos(2)
    assert model.loss(silent | {"waveform": torch.zeros(2, 4000)})["mask"].isfinite()


def test_wrong_input_is_told(unchecked):
    model, batch = SoundOfPixels(TINY), solos()
    refused("this batch has no waveform", model.loss, {"video": batch["video"]})
    refused("this batch has no video", model.loss, {"waveform": batch["waveform"]})
    with pytest.raises(ValueError, match=r"at least one mixture of 2 videos .* got 0 videos and 0 sounds"):
        model.loss({name: rows[:0] for name, rows in batch.items()})
    refused("got 4 videos and 2 sounds", model.loss, batch | {"waveform": batch["waveform"][:2]})
    refused("got 4 videos and 3 sounds", model, batch["video"], batch["waveform"][:3])
    refused("masks is 'binary' or 'ratio', not 'soft'", SoundOfPixels, dataclasses.replace(TINY, masks="soft"))
    with pytest.raises(ValueError, match="3 levels halve the bins as often: bins must be a multiple of 8, got 36"):
        SoundOfPixels(dataclasses.replace(TINY, bins=36))


def test_published_size():
    """The paper has no count; without its last layer, torchvision's ResNet-18 has 11,176,512 parameters."""
    config = SoundOfPixelsConfig.preset("resnet18-unet7")
    with torch.device("meta"):
        model = SoundOfPixels(config)
    assert sum(p.numel() for p in model.video_network.parameters()) == 11_176_512 + 16 * (512 * 9 + 1)
    assert model.video_network.trunk(torch.empty(1, 64, 56, 56, device="meta")).shape == (1, 512, 14, 14)
    assert model.audio_network(torch.empty(2, 256, 256, device="meta")).shape == (2, 16, 256, 256)


def test_longer_padding_changes_no_frame():
    """Neither of the logits nor of what is separated, however long the batch and whatever the padding holds."""
    model, batch = settled(), solos(4)
    lengths = torch.tensor([4000, 2100, 3000, 900])
    for samples in (4000, 5500, 9000):
        padded = torch.nn.functional.pad(batch["waveform"], (0, samples - 4000), value=torch.nan)
        mask = torch.arange(samples) < lengths[:, None]
        with torch.no_grad():
            whole = model(batch["video"], padded, None, mask).logits
            sound = model.separate(batch["video"], padded, None, mask)
        for i, n in enumerate(lengths.tolist()):
            video, alone = batch["video"][i : i + 1], batch["waveform"][i : i + 1, :n]
            expected = model(video, alone).logits[0]
            assert expected.shape[1] == 1 + math.ceil(n / TINY.hop)
            close(whole[i, :, : expected.shape[1]], expected)
            close(sound[i, :n], model.separate(video, alone)[0])
            assert sound[i].isfinite().all()


def test_padding_has_no_loss():
    """Batch norms of training see all frames, so this is about evaluation."""
    model, batch = settled(), solos(4)
    mask = torch.arange(4000) < torch.tensor([[4000], [4000], [2000], [1500]])
    before = model.loss(batch | {"waveform_mask": mask})["mask"]
    longer = torch.nn.functional.pad(batch["waveform"], (0, 3000), value=torch.nan)
    wider = torch.nn.functional.pad(mask, (0, 3000))
    close(model.loss(batch | {"waveform": longer, "waveform_mask": wider})["mask"], before)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_finite_in_silence(dtype):
    model, batch = SoundOfPixels(TINY), solos(4)
    batch["waveform"][1] = 0
    batch["waveform"][2] *= 1e-6
    with torch.autocast("cpu", dtype):
        loss = model.loss(batch)["mask"]
    loss.backward()
    assert loss.isfinite()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters() if parameter.grad is not None)
    with torch.autocast("cpu", dtype), torch.no_grad():
        assert model.eval()(batch["video"], batch["waveform"]).logits.isfinite().all()


@pytest.mark.parametrize("waveform", [torch.ones(1, 4000), torch.zeros(2, 4000)])
def test_without_a_mixture_nothing_is_measured(waveform):
    batch = {"video": torch.rand(len(waveform), 4, 3, 32, 32), "waveform": waveform}
    run = SimpleNamespace(system=settled(), batches=lambda samples, size: [batch])
    with pytest.raises(ValueError, match=f"of two clips that are heard; {len(waveform)} samples gave none"):
        separation(run, list(waveform))
