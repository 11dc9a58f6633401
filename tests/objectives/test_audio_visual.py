"""Modality dropout drops as often as it says and never both; clusters count where either stream is hidden."""

import pytest
import torch
from testing_tools import close, refused, seeded

from mmlearn.objectives import masked_multimodal_cluster, modality_dropout
from mmlearn.objectives.masked import masked_cross_entropy


def drop(clips, both, audio, seed=0):
    return modality_dropout(torch.ones(clips, 3, dtype=torch.bool), generator=seeded(seed), both=both, audio=audio)


@pytest.mark.parametrize(("both", "audio"), [(0.5, 0.5), (0.25, 0.8), (0.0, 0.0), (0.0, 1.0)])
def test_each_clip_loses_at_most_one_modality_as_often_as_it_says(both, audio):
    heard, seen = drop(20_000, both, audio)
    assert (heard | seen).all()
    for got, wanted in ((heard & seen, both), (~seen, (1 - both) * audio), (~heard, (1 - both) * (1 - audio))):
        assert got.float().mean().item() == pytest.approx(wanted, abs=0.015)
    # clips that follow each other have nothing to do with each other
    pairs = ~heard[:-1] & ~heard[1:]
    assert pairs.float().mean().item() == pytest.approx(((1 - both) * (1 - audio)) ** 2, abs=0.015)


def test_probability_0_of_dropping_keeps_everything():
    for audio in (0.0, 0.3, 1.0):
        heard, seen = drop(1000, 1.0, audio)
        assert heard.all()
        assert seen.all()


def test_dropout_follows_the_generator_alone():
    torch.manual_seed(1)
    first = torch.stack(drop(200, 0.5, 0.5))
    torch.manual_seed(2)
    assert torch.equal(first, torch.stack(drop(200, 0.5, 0.5)))
    assert not torch.equal(first, torch.stack(drop(200, 0.5, 0.5, 1)))


@pytest.mark.parametrize(("both", "audio"), [(-0.1, 0.5), (1.1, 0.5), (0.5, -0.1), (0.5, 1.1)])
def test_probabilities_that_cannot_be(both, audio):
    refused(f"from 0 to 1; got {both} for both and {audio} for the sound alone", drop, 4, both, audio)


def streams(b=3, f=7, c=5):
    g = seeded()
    logits = torch.randn(b, f, c, generator=g)
    cluster = torch.randint(c, (b, f), generator=g)
    audio, video = torch.rand(2, b, f, generator=g) < 0.4
    real = torch.arange(f) < torch.tensor([7, 5, 3])[:, None]
    return logits, cluster, audio, video, real


def test_frames_hidden_in_either_stream_count_and_no_other():
    logits, cluster, audio, video, real = streams()
    counts = (audio | video) & real
    assert 0 < (audio & video & real).sum() < counts.sum() < real.sum()
    wanted = -logits.log_softmax(-1).gather(2, cluster[..., None])[..., 0][counts].mean()
    close(masked_multimodal_cluster(logits, cluster, audio, video, real), wanted)
    elsewhere = logits.where(counts[..., None], torch.randn_like(logits))
    numbers = cluster.where(real, torch.tensor(99))
    close(masked_multimodal_cluster(elsewhere, numbers, audio, video, real), wanted)
    close(wanted, masked_cross_entropy(logits, cluster.masked_fill(~counts, -100)))


def test_guessing_costs_ln_c_and_nothing_hidden_costs_nothing():
    logits, cluster, audio, video, real = streams()
    flat = torch.zeros_like(logits)
    close(masked_multimodal_cluster(flat, cluster, audio, video, real), torch.tensor(5.0).log())
    leaf, nothing = logits.clone().requires_grad_(), torch.zeros_like(audio)
    loss = masked_multimodal_cluster(leaf, cluster, nothing, nothing, real)
    loss.backward()
    assert loss == 0
    assert (leaf.grad == 0).all()
