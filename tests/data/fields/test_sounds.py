"""Sounds in batches: padding is silent and counts nowhere, spectrograms have the data's mean, frames their number."""

from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from testing_tools import Listed, close, refused

from mmlearn.data.fields import Clusters, LogMel, Waveform
from mmlearn.data.fields.sounds import mel_statistics, pad_waveforms
from mmlearn.data.mel import LogMel as Spectrogram
from mmlearn.data.mel import spec_augment
from mmlearn.data.speech_features import mfcc
from mmlearn.layers.config import Config
from mmlearn.objectives.clusters import cluster

LENGTHS = (16_000, 12_345, 500, 1600)


@dataclass(frozen=True)
class Hearing(Config):
    mels: int = 64
    audio_width: int = 12
    frames: int | None = None
    clusters: int = 5


def sounds(*lengths):
    return [SimpleNamespace(waveform=0.3 + 0.1 * torch.randn(length)) for length in lengths or LENGTHS]


# Waveforms.


def test_waveforms_are_padded_with_silence():
    samples = sounds()
    waveform, mask = pad_waveforms([sample.waveform for sample in samples])
    assert waveform.shape == mask.shape == (4, 16_000)
    assert (waveform[~mask] == 0).all()
    for row, real, sample in zip(waveform, mask, samples):
        assert torch.equal(row[real], sample.waveform)
        assert torch.equal(real, torch.arange(16_000) < len(sample.waveform))
    batch = Waveform(standard=False)(samples)
    assert torch.equal(batch["waveform"], waveform)
    assert torch.equal(batch["waveform_mask"], mask)


def test_each_clip_has_mean_0_and_variance_1_whatever_its_neighbours():
    samples = sounds()
    batch = Waveform()(samples)
    for row, real, sample in zip(batch["waveform"], batch["waveform_mask"], samples):
        clip = sample.waveform.double().numpy()
        np.testing.assert_allclose(row[real], (clip - clip.mean()) / np.sqrt(clip.var() + 1e-7), atol=1e-4)
        assert (row[~real] == 0).all()
    assert Waveform.fixed
    assert Waveform().data_options(Hearing()) == {"speech": True}


# Spectrograms.


@pytest.mark.parametrize(("bands", "mels"), [("mels", 64), ("audio_width", 12)])
def test_spectrograms_have_the_mean_and_deviation_of_the_data(bands, mels):
    samples = sounds()
    field = LogMel(bands).fitted(Listed(samples), Hearing(), 0)
    batch = field(samples)
    assert batch["mel"].shape == (4, mels, 100)
    assert batch["mel_mask"].sum(1).tolist() == [100, 78, 4, 10]  # as many as 10 ms begin
    values = batch["mel"].mT[batch["mel_mask"]]
    assert abs(values.mean()) < 1e-4
    assert abs(values.std() - 1) < 1e-3
    raw = np.concatenate([Spectrogram(mels)(sample.waveform[None])[0].flatten() for sample in samples])
    assert (field.mean, field.std) == pytest.approx((raw.mean(), raw.std(ddof=1)), abs=1e-4)
    padded, mask = pad_waveforms([sample.waveform for sample in samples])
    close(batch["mel"] * field.std + field.mean, Spectrogram(mels)(padded, mask)[0], 1e-4)
    few = field(samples[1:3])["mel"]
    close(batch["mel"][1:3, :, : few.shape[2]], few)  # neighbours change nothing


def test_statistics_of_many_sounds_are_of_some_spread_through_them_and_of_silence_can_be_divided_by():
    samples = sounds(*range(400, 3400, 100))
    chosen = [samples[i] for i in (0, 7, 14, 21, 29)]
    assert mel_statistics(Listed(samples), 20, 5) == pytest.approx(mel_statistics(Listed(chosen), 20))
    assert mel_statistics(Listed([SimpleNamespace(waveform=torch.zeros(800))]), 80)[1] == 1e-3


def test_no_more_frames_are_taken_than_a_system_can_read():
    samples, config = sounds(), Hearing(frames=30)
    field = LogMel().fitted(Listed(samples), config, 0)
    assert field.data_options(config) == {"seconds": pytest.approx(0.3), "speech": True}
    batch = field(samples)
    assert batch["mel_mask"].sum(1).tolist() == [30, 30, 4, 10]
    cut = [SimpleNamespace(waveform=sample.waveform[:4800]) for sample in samples]
    assert torch.equal(batch["mel"], LogMel(mels=64, mean=field.mean, std=field.std)(cut)["mel"])
    assert LogMel().data_options(Hearing())["seconds"] is None


@pytest.mark.parametrize("values", [{"std": 0.0}, {"std": -1.0}, {"mean": float("nan")}, {"std": float("inf")}])
def test_numbers_that_no_spectrograms_have_are_refused(values, tmp_path):
    refused("are finite, and std above 0", LogMel, **values)
    with pytest.raises(ValueError, match="are finite, and std above 0"):
        LogMel().load(tmp_path, {"mels": 80, "frames": None, "mean": 0.0, "std": 1.0} | values)


def test_parts_of_spectrograms_are_hidden_by_the_generator():
    batch = LogMel(mels=64)(sounds())
    got = LogMel(mels=64).augmented(batch, torch.Generator().manual_seed(5))
    expected = spec_augment(batch["mel"], batch["mel_mask"], torch.Generator().manual_seed(5))
    assert torch.equal(got["mel"], expected)
    assert not torch.equal(got["mel"], batch["mel"])
    assert torch.equal(got["mel_mask"], batch["mel_mask"])


# Clusters.


@pytest.mark.parametrize("every", [1, 2])
def test_each_frame_has_the_number_of_its_nearest_centroid(every):
    samples = sounds(16_000, 3000, 720)
    field = Clusters(every).fitted(Listed(samples), Hearing(), 3)
    batch = field(samples)
    frames = [mfcc(sample.waveform)[::every].double() for sample in samples]
    centroids = torch.tensor(field.centroids).double()
    assert batch["cluster"].shape == (3, len(frames[0]))
    for row, own in zip(batch["cluster"], frames):
        nearest = (own[:, None] - centroids).square().sum(-1).argmin(1)
        assert torch.equal(row, torch.cat([nearest, torch.full((len(row) - len(own),), -100)]))
    assert field.sizes() == {"clusters": 5}
    assert set(batch["cluster"].unique().tolist()) == {-100, 0, 1, 2, 3, 4}
    # They are those of k-means of all frames, in an order that the seed draws.
    every_frame, generator = torch.cat(frames).float(), torch.Generator().manual_seed(3)
    shuffled = every_frame[torch.randperm(len(every_frame), generator=generator)]
    close(centroids.float(), cluster(shuffled, 5, generator=generator))
    assert field == Clusters(every).fitted(Listed(samples), Hearing(), 3)
    assert field != Clusters(every).fitted(Listed(samples), Hearing(), 4)


def test_clusters_that_cannot_be(tmp_path):
    with pytest.raises(ValueError, match=r"^2 frames are too few for 5 clusters: give more sounds\.$"):
        Clusters().fitted(Listed(sounds(720)), Hearing(), 0)
    for rows in ([[1.0, 2.0], [1.0]], [[1.0, float("nan")]]):
        refused("centroids are rows of equally many finite numbers", Clusters().load, tmp_path, {"centroids": rows})
