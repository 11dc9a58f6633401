"""Pictures, regions and videos in batches: the pixels of the samples by numpy, and samples stay as they are."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from testing_tools import Listed, close, refused

from mmlearn.data import fetch, load
from mmlearn.data.augment import augment
from mmlearn.data.fields import Image, Regions, Video
from mmlearn.data.synthetic.regions import SceneDetector
from mmlearn.layers.config import Config
from mmlearn.models.contrastive.clip import CLIPConfig
from mmlearn.models.trimodal.misa import MISAConfig
from mmlearn.models.trimodal.mult import MulTConfig

CONFIG = CLIPConfig.tiny()


def images(count, height=6, width=8):
    scale = torch.tensor([1.0, 0.5, 0.1]).view(3, 1, 1)
    return [SimpleNamespace(image=torch.rand(3, height, width) * scale) for _ in range(count)]


# Pictures.


def test_images_are_normalised_by_channel_and_samples_stay_as_they_are():
    samples = images(4)
    before = np.stack([sample.image.clone().numpy() for sample in samples])
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.25, 2.0)
    batch = Image(mean, std)(samples)
    assert set(batch) == {"image"}
    expected = (before - np.array(mean).reshape(3, 1, 1)) / np.array(std).reshape(3, 1, 1)
    assert batch["image"].dtype == torch.float32
    np.testing.assert_allclose(batch["image"].numpy(), expected, rtol=1e-5, atol=1e-6)
    assert all(np.array_equal(sample.image.numpy(), image) for sample, image in zip(samples, before))
    close(Image()(samples)["image"], torch.from_numpy(before) * 2 - 1)  # -1 to 1 until the data's are known


@pytest.mark.parametrize("constant", [False, True])
def test_fitted_to_data_its_images_have_mean_0_and_deviation_1(constant):
    """A channel that never changes, as in drawings without blue, becomes 0: 0 / 0 would be NaN from step 1 on."""
    data = images(20, 16, 16)
    if constant:
        for sample in data:
            sample.image[2] = 0.25
    field = Image().fitted(Listed(data), CONFIG, 0)
    image = field(data)["image"]
    close(image.mean((0, 2, 3)), torch.zeros(3), 1e-4)
    close(image.std((0, 2, 3)), torch.tensor([1, 1, 0 if constant else 1]).float(), 1e-4)
    assert field.sizes() == {"image_size": 16}
    given = Image(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)).fitted(
        Listed(data), CONFIG, 0
    )  # of a tower that is as it is
    assert torch.equal(given(data)["image"], torch.stack([sample.image for sample in data]))
    assert given.sizes() == {"image_size": 16}


def test_images_are_asked_for_in_their_size_and_hold_at_least_a_patch():
    assert Image(image_size=48).data_options(CONFIG) == {"size": 48}
    with pytest.raises(ValueError, match=r"^Pictures of 4 pixels are smaller than a patch of 16\.$"):
        Image().fitted(Listed(images(3, 4, 4)), CONFIG, 0)


@pytest.mark.parametrize(
    "values",
    [
        {"mean": (0.5, 0.5)},
        {"std": (0.5, 0.5, 0.0)},
        {"std": (0.5, 0.5, -1.0)},
        {"mean": (0.5, 0.5, float("nan"))},
        {"std": (0.5, 0.5, float("inf"))},
        {"image_size": 0},
    ],
)
def test_numbers_that_no_images_have_are_refused(values, tmp_path):
    refused(r"mean and std are three numbers each|image_size is at least 1", Image, **values)
    with pytest.raises(ValueError, match=r"mean and std are three numbers each|image_size is at least 1"):
        Image().load(tmp_path, {"mean": [0, 0, 0], "std": [1, 1, 1], "image_size": 8} | values)


def test_images_are_varied_by_the_generator():
    batch = {"image": torch.randn(3, 3, 16, 16), "mask": torch.ones(3, 2)}
    got = Image().augmented(batch, torch.Generator().manual_seed(4))
    assert torch.equal(got["image"], augment(batch["image"], torch.Generator().manual_seed(4)))
    assert got["mask"] is batch["mask"]
    assert not torch.equal(got["image"], batch["image"])


# Regions.


@pytest.mark.parametrize("width", [4, 8])
def test_regions_are_what_the_detector_finds(width):
    detector, scenes = SceneDetector(0.2, width), fetch(load("scenes", size=32), range(20))
    batch, found = Regions(detector)(scenes), detector(scenes)
    assert batch.keys() == found.keys() == Regions.holds.keys()
    assert all(torch.equal(batch[name], found[name]) for name in found)
    sizes = Regions(detector).sizes()
    assert sizes["region_width"] == found["regions"].shape[2]
    assert sizes["region_classes"] == found["region_classes"].shape[2]
    assert Regions().fixed


# Videos.


def clips(*lengths, size=8, fps=25):
    return [
        SimpleNamespace(video=torch.rand(f, 3, size, size), waveform=torch.zeros(16_000 * f // fps)) for f in lengths
    ]


def test_videos_are_padded_and_their_pixels_lie_from_minus_1_to_1():
    samples = clips(5, 2, 7)
    before = [sample.video.clone() for sample in samples]
    batch = Video()(samples)
    assert batch["video"].shape == (3, 7, 3, 8, 8)
    assert torch.equal(batch["video_mask"], torch.arange(7) < torch.tensor([5, 2, 7])[:, None])
    for video, mask, sample, old in zip(batch["video"], batch["video_mask"], samples, before):
        close(video[mask], (old - 0.5) / 0.5)
        assert torch.equal(sample.video, old)


def test_videos_may_be_cut_and_made_smaller():
    samples = clips(5, 2, 7)
    batch = Video(frames=3, shown=4)(samples)
    assert batch["video"].shape == (3, 3, 3, 4, 4)
    assert batch["video_mask"].sum(1).tolist() == [3, 2, 3]
    means = samples[2].video[:3].unfold(2, 2, 2).unfold(3, 2, 2).mean((-2, -1))  # of squares of 2 × 2 pixels
    close(batch["video"][2], 2 * means - 1)


@pytest.mark.parametrize("fps", [10, 25])
def test_another_rate_of_frames_is_told(fps):
    field = Video(fps=fps, image_size=24)
    assert field.data_options(Config()) == {"size": 24, "fps": fps}
    field.check_sample(clips(2 * fps, fps=fps)[0], "vatt")
    refused(rf"^vatt reads {fps} frames a second; got 20 in 4 s\.$", field.check_sample, clips(20, fps=5)[0], "vatt")


def test_an_example_may_be_higher_than_wide():
    from mmlearn.models import PixelBERTConfig

    config = PixelBERTConfig(image_size=(24, 40))
    assert Image().example(2, config, torch.Generator())["image"].shape == (2, 3, 24, 40)


@pytest.mark.parametrize(
    ("config", "frame"), [(MISAConfig.tiny(), (3, 16, 16)), (MISAConfig.preset("MOSI"), (47,)), (MulTConfig(), (35,))]
)
def test_frames_of_an_example_are_as_many_numbers_as_the_configuration_says(config, frame):
    video = Video(shown=16, features="video_width").example(2, config, torch.Generator().manual_seed(0))["video"]
    assert video.shape == (2, 12, *frame)
    assert video[0, 0].numel() == config.video_width
