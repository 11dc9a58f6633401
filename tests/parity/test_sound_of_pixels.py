"""Sound of Pixels equals its official code, https://github.com/hangzhaomit/Sound-of-Pixels: models/ and main.py.

That code's batch norms, dilated ResNet, U-Net, product, loss and change of frequencies are restated on its names of
weights. The ResNet is torchvision's, whose last stage keeps its size.
"""

import math
import re

import pytest
import torch
import torch.nn.functional as F
from testing_tools import close

from mmlearn.models.audiovisual.sound_of_pixels import SoundOfPixels, SoundOfPixelsConfig
from mmlearn.objectives.separation import binary_mask_loss, loudness

CASES = {  # widths of the U-Net's levels and of the ResNet's stages, blocks, channels, videos, frames of sound
    "three levels": ((6, 8, 10), (4, 6, 8, 10), 2, 5, 4, 13),
    "four levels": ((4, 6, 6, 6), (4, 4, 6), 1, 3, 2, 16),
}


class Weights(dict):
    """Random numbers under the names that are asked for, each made at its first use; batch norms count as well."""

    def conv(self, name, x, outputs, size, **how):
        bias = how.pop("bias", False)
        self.make(f"{name}.weight", (outputs, x.shape[1], size, size), scale=1.5 / (size * x.shape[1] ** 0.5))
        return F.conv2d(x, self[f"{name}.weight"], self.make(f"{name}.bias", (outputs,)) if bias else None, **how)

    def norm(self, name, x, training):
        """In training by the batch's own mean and variance, later by those that were kept."""
        width = x.shape[1:2]
        weight, bias = self.make(f"{name}.weight", width, 0.2, around=1), self.make(f"{name}.bias", width)
        mean = self.make(f"{name}.running_mean", width)
        variance = self.make(f"{name}.running_var", width, 0.1, around=30 if name == "bn0" else 1)
        kept = (None, None) if training else (mean.detach(), variance.detach())
        return F.batch_norm(x, *kept, weight, bias, training)

    def make(self, name, shape, scale=0.2, around=0.0):
        if name not in self:
            self[name] = (around + scale * torch.randn(shape)).requires_grad_()
        return self[name]


def u_net(w, magnitude, widths, channels, training):
    """A level halves, calls the next, doubles, and hands on what it was given beside what it made.

    The code's leaky rectifier changes its input in place, so what is handed on has passed it.
    """

    def level(x, number, name):
        first, last = number == 0, number == len(widths) - 1
        given = x if first else F.leaky_relu(x, 0.2)
        x = w.conv(f"{name}.{0 if first else 1}", given, widths[number], 4, stride=2, padding=1)
        position = 1 if first else 2  # in the list of this level's layers
        if not (first or last):
            x, position = w.norm(f"{name}.2", x, training), 3
        if not last:
            x = level(x, number + 1, f"{name}.{position}.model")
            position += 1
        x = F.interpolate(x.relu(), scale_factor=2, mode="bilinear", align_corners=True)
        outputs = channels if first else widths[number - 1]
        x = w.conv(f"{name}.{position + 2}", x, outputs, 3, padding=1, bias=first)
        return x if first else torch.cat([given, w.norm(f"{name}.{position + 3}", x, training)], dim=1)

    x = F.pad(magnitude[:, None] + 1e-10, (0, -magnitude.shape[-1] % 2 ** len(widths)), value=1e-10)
    return level(w.norm("bn0", x.log(), training), 0, "unet_block.model")[..., : magnitude.shape[-1]]


def frames_to_channels(w, video, widths, blocks, channels, training):
    """Maps of each frame, before the largest of them is taken over space and time."""
    x = w.norm("features.1", w.conv("features.0", video.flatten(0, 1), widths[0], 7, stride=2, padding=3), training)
    x = F.max_pool2d(x.relu(), 3, stride=2, padding=1)
    for stage, width in enumerate(widths):
        for i in range(blocks):
            name, dilated = f"features.{4 + stage}.{i}", stage == len(widths) - 1
            stride = 2 if stage and not i and not dilated else 1
            reach = 1 if not dilated or (not i and stage) else 2
            inside = w.conv(f"{name}.conv1", x, width, 3, stride=stride, padding=reach, dilation=reach)
            inside = w.norm(f"{name}.bn1", inside, training).relu()
            reach = 2 if dilated else 1
            inside = w.conv(f"{name}.conv2", inside, width, 3, padding=reach, dilation=reach)
            inside = w.norm(f"{name}.bn2", inside, training)
            if stage and not i:
                x = w.conv(f"{name}.downsample.0", x, width, 1, stride=stride)
                x = w.norm(f"{name}.downsample.1", x, training)
            x = (x + inside).relu()
    maps = w.conv("fc", x, channels, 3, padding=1, bias=True).unflatten(0, video.shape[:2])
    return maps.transpose(1, 2)


def product(w, pixels, sounds):
    """What is seen anywhere, at any time, weighs the maps of the mixture, which two videos share."""
    chosen = w["scale"] * F.adaptive_max_pool3d(pixels, 1).sigmoid().flatten(1)
    maps = sounds.repeat_interleave(2, dim=0)
    return (chosen[:, None] @ maps.flatten(2)).view(-1, *maps.shape[2:]) + w["bias"]


NAMES = [  # theirs → ours, of the U-Net without its position, and of the ResNet
    (r"^bn0", "audio_network.norm"),
    (r"^features\.0", "video_network.stem.0"),
    (r"^features\.1", "video_network.stem.1"),
    (r"^fc", "video_network.head"),
    (r"\.conv1", ".first"),
    (r"\.bn1", ".first_norm"),
    (r"\.conv2", ".second"),
    (r"\.bn2", ".second_norm"),
    (r"\.downsample", ".shortcut"),
]


def our_name(name, levels, blocks):
    if found := re.match(r"unet_block\.model((?:\.\d\.model)*)\.(\d)\.(\w+)$", name):
        level = found[1].count("model")
        position = int(found[2]) - (level > 0)  # theirs from the convolution on, before which ours has a rectifier too
        going_up = position > (0 if level in (0, levels - 1) else 1)
        if going_up:
            position -= 1 + (0 < level < levels - 1) + (level < levels - 1)  # the same list goes on
        return (
            f"audio_network.{'up' if going_up else 'down'}.{level}.{position + (level > 0 and not going_up)}.{found[3]}"
        )
    if found := re.match(r"features\.([4-7])\.(\d)\.(.*)$", name):
        name = f"video_network.trunk.{blocks * (int(found[1]) - 4) + int(found[2])}.{found[3]}"
    for theirs, ours in NAMES:
        name = re.sub(theirs, ours, name)
    return name


@pytest.fixture(params=[(name, training) for name in CASES for training in (False, True)], ids=str)
def pair(request):
    """Their weights, their maps of pixels and of sounds, our system of these weights, and the inputs."""
    case, training = request.param
    audio_widths, video_widths, blocks, channels, b, frames = CASES[case]
    torch.manual_seed(0)
    video, magnitude = torch.randn(b, 3, 3, 40, 56), torch.rand(b // 2, 32, frames) * 3
    weights = Weights()
    sounds = u_net(weights, magnitude, audio_widths, channels, training)
    pixels = frames_to_channels(weights, video, video_widths, blocks, channels, training)
    config = SoundOfPixelsConfig(
        fft_size=62, bins=32, channels=channels, video_widths=video_widths, blocks=blocks, audio_widths=audio_widths
    )
    model = SoundOfPixels(config).train(training)
    ours = {our_name(name, len(audio_widths), blocks): x.detach() for name, x in weights.items()}
    counts = {name: torch.tensor(0) for name in model.state_dict() if name.endswith("num_batches_tracked")}
    scale, bias = (1 + 0.2 * torch.randn(channels)).requires_grad_(), torch.randn(1).requires_grad_()
    model.load_state_dict(ours | counts | {"scale": scale.detach(), "bias": bias[0].detach()})
    weights |= {"scale": scale, "bias": bias}
    return weights, pixels, sounds, model, video, magnitude


def test_masks_loss_and_gradients(pair, monkeypatch):
    """The product of what is seen and heard, its weighted loss, and the gradient of every weight.

    The official loss is a mean over bins, ours one by weight; its target is a choice of ours, the same for both here.
    """
    weights, pixels, sounds, model, video, magnitude = pair
    monkeypatch.setattr(model, "magnitude", lambda *given: magnitude)
    ours, seen, heard = model(video, torch.zeros(len(magnitude), 16 * magnitude.shape[-1]))
    close(seen, pixels.amax(2).sigmoid())
    close(heard, sounds.repeat_interleave(2, dim=0))
    logits = product(weights, pixels, sounds)
    close(ours, logits)

    target = (torch.rand_like(logits) < 0.5).float()
    weight = (magnitude + 1e-10).log1p().clamp(1e-3, 10).repeat_interleave(2, dim=0)
    close(loudness(magnitude).repeat_interleave(2, dim=0), weight)
    assert logits.abs().max() < 15  # beyond, their sigmoid is 1 in float32, and ours has no sigmoid
    theirs = F.binary_cross_entropy(logits.sigmoid(), target, weight)
    got = binary_mask_loss(ours, target, weight)
    close(got * weight.mean(), theirs)
    (got * weight.mean()).backward()
    theirs.backward()
    levels = len(model.config.audio_widths)
    found = dict(model.named_parameters())
    for name, tensor in weights.items():
        if "running" not in name:
            parameter = found.pop(our_name(name, levels, model.config.blocks))
            close(parameter.grad.flatten(), tensor.grad.flatten())
    assert not found
    assert model.audio_network.down[-1][1].weight.grad.abs().max() > 1e-4


@pytest.mark.parametrize(("frequencies", "bins", "frames"), [(512, 256, 7), (257, 128, 20), (32, 64, 3)])
def test_logarithmic_frequencies(frequencies, bins, frames):
    """A grid of positions in [-1, 1], as the code's ``grid_sample`` meant it in 2019: corners are centres of bins."""
    model = SoundOfPixels(SoundOfPixelsConfig(2 * (frequencies - 1), bins=bins, audio_widths=(2, 2), video_widths=(2,)))

    def sampled(x, along):
        across = torch.linspace(-1, 1, x.shape[-1], dtype=torch.float64)
        grid = torch.stack(torch.meshgrid(across, along, indexing="xy"), dim=-1).expand(len(x), -1, -1, -1)
        return F.grid_sample(x[:, None].double(), grid, align_corners=True)[:, 0].float()

    def even(count):
        return torch.linspace(-1, 1, count, dtype=torch.float64)

    x = torch.rand(2, frequencies, frames)
    close(model.to_bins @ x, sampled(x, (21 ** ((even(bins) + 1) / 2) - 11) / 10))
    x = torch.rand(2, bins, frames)
    close(model.to_frequencies @ x, sampled(x, (10 * even(frequencies) + 11).log() / math.log(21) * 2 - 1))
