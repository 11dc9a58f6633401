"""HuBERT: padding and gaps never leak, clusters are guessed and made anew, chance resumes, sizes are the published."""

import dataclasses
import math

import pytest
import torch
from testing_tools import close, fit, mean_loss, overfit
from torch.utils.data import Dataset

from mmlearn.data.speech_features import mfcc
from mmlearn.evaluation import phone_purity
from mmlearn.layers import record_attention
from mmlearn.models.speech.encoder import SpeechEncoderConfig, frame_count
from mmlearn.models.speech.hubert import HuBERT, HuBERTConfig
from mmlearn.objectives.clusters import cluster, nearest
from mmlearn.recipes.hubert import cluster_targets

TINY = HuBERTConfig.tiny()
# A frame for every 6 samples, so that tests are quick.
SMALL = dataclasses.replace(
    TINY,
    speech=SpeechEncoderConfig(
        channels=(12, 16),
        kernels=(5, 3),
        strides=(3, 2),
        convolution_norm="clip",
        position_kernel=16,
        position_groups=2,
        width=32,
        depth=3,
        num_heads=2,
        norm_first=True,
        dropout=0.0,
    ),
    clusters=7,
    embedding_width=16,
)
TEXTS = dataclasses.replace(SMALL, clusters=0, vocab_size=9)


def clips(b=4, samples=180, seed=0):
    """Noise of which each clip has 13 samples less than the one before, and a cluster for each frame."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.arange(samples) < samples - 13 * torch.arange(b)[:, None]
    return {
        "waveform": torch.randn(b, samples, generator=generator),
        "waveform_mask": mask,
        "cluster": torch.randint(7, (b, frame_count(samples, (5, 3), (3, 2))), generator=generator),
    }


def read(model, batch, masked=None):
    return model(batch["waveform"], batch["waveform_mask"], masked)


def real_frames(model, batch):
    return model.speech.frame_mask(batch["waveform"], batch["waveform_mask"])


def other_padding(batch):
    return batch | {"waveform": torch.where(batch["waveform_mask"], batch["waveform"], 5.0)}


@pytest.mark.parametrize("norm", ["group", "clip", "layer"])
def test_padding_changes_nothing_that_is_real(norm):
    config = dataclasses.replace(SMALL, vocab_size=9, alpha=0.5)
    model = HuBERT(dataclasses.replace(config, speech=dataclasses.replace(config.speech, convolution_norm=norm)))
    batch = clips()
    output, other = read(model, batch), read(model, other_padding(batch))
    for name in ("tokens", "cluster_logits", "logits"):
        assert torch.equal(getattr(output, name)[output.mask], getattr(other, name)[output.mask]), name
    number = torch.where(output.mask, batch["cluster"], 3)
    assert model.loss(batch) == model.loss(other_padding(batch) | {"cluster": number})
    assert model.loss(batch) == model.loss(batch | {"cluster": number.masked_fill(~output.mask, -100)})


def test_gaps_hide_what_is_to_be_guessed():
    model = HuBERT(dataclasses.replace(SMALL, speech=dataclasses.replace(SMALL.speech, convolution_norm="layer")))
    batch = clips(1)
    masked = torch.zeros(1, 29, dtype=torch.bool)
    masked[0, 10:16] = True
    waveform = batch["waveform"].clone()
    waveform[0, 6 * 10 + 5 : 6 * 15 + 6] = torch.randn(31)  # seen by hidden frames only
    other = batch | {"waveform": waveform}
    assert torch.equal(read(model, other, masked).cluster_logits, read(model, batch, masked).cluster_logits)
    assert not torch.allclose(read(model, other).cluster_logits, read(model, batch).cluster_logits, atol=1e-3)


def test_logits_are_cosines_with_the_vectors_of_clusters():
    model, batch = HuBERT(SMALL), clips()
    output = read(model, batch)
    frames = model.projection(output.tokens)
    for c in range(7):
        expected = torch.cosine_similarity(frames, model.cluster_embedding[c], dim=-1) / 0.1
        close(output.cluster_logits[..., c], expected)


def test_the_clusters_of_hidden_real_frames_are_guessed():
    model, batch = HuBERT(SMALL), clips()
    masked = model.draw(real_frames(model, batch))
    log_probability = read(model, batch, masked).cluster_logits.log_softmax(-1)
    cost = -log_probability.gather(2, batch["cluster"][..., None])[..., 0]
    close(model.loss(batch)["cluster"], cost[masked].mean())
    everywhere = batch | {"masked": torch.ones_like(masked)}
    real = real_frames(model, batch)
    cost = -read(model, batch, real).cluster_logits.log_softmax(-1).gather(2, batch["cluster"][..., None])[..., 0]
    close(model.loss(everywhere)["cluster"], cost[real].mean())
    both = HuBERT(dataclasses.replace(SMALL, alpha=0.25))
    both.load_state_dict(model.state_dict())
    cost = -log_probability.gather(2, batch["cluster"][..., None])[..., 0]
    expected = 0.25 * cost[masked].mean() + 0.75 * cost[~masked & real].mean()
    close(both.loss(batch)["cluster"], expected)


def test_guessing_costs_ln_of_the_clusters_and_the_spread_of_cosines():
    """Cosines of random directions in d dimensions spread by d^-1/2, which at τ costs half of 1 / (d τ²) more."""

    def start(temperature):
        config = dataclasses.replace(SMALL, temperature=temperature, embedding_width=256)
        return mean_loss(lambda: HuBERT(config), lambda seed: clips(seed=seed), seeds=30)

    assert start(10.0) == pytest.approx(math.log(7), abs=0.02)
    assert start(0.1) == pytest.approx(math.log(7) + 0.5 / (256 * 0.1**2), abs=0.15)


def test_texts_are_learned():
    torch.manual_seed(0)
    batch = clips()
    mask = torch.arange(5) < 2 + torch.arange(4)[:, None]
    batch |= {"tokens": torch.randint(1, 9, (4, 5)) * mask, "mask": mask}
    model = HuBERT(TEXTS)
    before = model.loss(batch)["ctc"].item()
    assert overfit(model, batch, steps=20, learning_rate=1e-2) < 0.3 * before
    assert set(HuBERT(dataclasses.replace(SMALL, vocab_size=9)).loss(batch)) == {"ctc"}


def test_chance_is_a_function_of_seed_and_step():
    model, real = HuBERT(SMALL), torch.ones(3, 29, dtype=torch.bool)
    first = model.draw(real)
    torch.manual_seed(5)
    assert torch.equal(first, model.draw(real))
    assert not torch.equal(first, HuBERT(dataclasses.replace(SMALL, seed=1)).draw(real))
    model.after_step()
    assert not torch.equal(first, model.draw(real))


def test_what_cannot_be_learned_is_told():
    model, batch = HuBERT(SMALL), clips()
    only = {name: batch[name] for name in ("waveform", "waveform_mask")}
    message = "Nothing to learn: this HuBERT needs cluster in the batch and clusters, or tokens and vocab_size"
    for system, given in ((model, only), (HuBERT(TEXTS), batch), (HuBERT(TEXTS), only)):
        with pytest.raises(ValueError, match=message):
            system.loss(given)
    with pytest.raises(
        ValueError, match=r"These clips have \(4, 29\) frames, and cluster numbers \(4, 28\): make them"
    ):
        model.loss(batch | {"cluster": batch["cluster"][:, 1:]})
    with pytest.raises(ValueError, match="A batch holds at least one clip"):
        model.loss({name: rows[:0] for name, rows in batch.items()})
    with pytest.raises(ValueError, match=r"holds waveform \(b, samples\); this one has cluster"):
        model.loss({"cluster": batch["cluster"]})
    with pytest.raises(ValueError, match="block is from 0 to 3, got 4"):
        model.block_output(batch["waveform"][0], 4)
    assert read(HuBERT(TEXTS), batch).cluster_logits is read(model, batch).logits is None


def test_no_gap_costs_nothing():
    model, batch = HuBERT(SMALL), clips()
    loss = model.loss(batch | {"masked": torch.zeros(4, 29, dtype=torch.bool)})["cluster"]
    loss.backward()
    assert loss.item() == 0
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


# Clusters.


def hisses(count=6, samples=4000):
    """Clips that hiss in two ways one after the other, of four that there are; and which is amid each frame."""
    generator = torch.Generator().manual_seed(3)
    first, second = torch.randint(4, (2, count), generator=generator)
    change = torch.randint(1200, 2800, (count,), generator=generator)
    number = torch.where(torch.arange(samples) < change[:, None], first[:, None], second[:, None])
    spectrum = torch.fft.rfft(torch.randn(count, samples, generator=generator))
    frequency = torch.linspace(0, 8000, spectrum.shape[1])
    bands = [(frequency > low) & (frequency < low + 900) for low in (300, 1300, 2600, 4500)]
    ways = torch.stack([torch.fft.irfft(spectrum * band, n=samples) for band in bands], dim=2)
    waveform = ways.gather(2, number[..., None])[..., 0] + 1e-3 * torch.randn(count, samples, generator=generator)
    return waveform, number[:, 200::320][:, : frame_count(samples, TINY.speech.kernels, TINY.speech.strides)]


def test_the_first_clusters_are_of_how_it_sounds():
    waveform, number = hisses()
    found = cluster_targets(list(waveform), 12, generator=torch.Generator().manual_seed(0))
    assert all(frames.shape == number[0].shape for frames in found)
    assert phone_purity(torch.stack(found), number) > 0.9
    again = cluster_targets(list(waveform), 12, generator=torch.Generator().manual_seed(0))
    assert all(torch.equal(one, two) for one, two in zip(found, again))
    every = torch.cat([mfcc(clip) for clip in waveform])
    every = every / every.std(0)
    centroids = cluster(every, 12, generator=torch.Generator().manual_seed(0))
    assert torch.equal(torch.cat(found), nearest(every, centroids))


def test_clips_of_any_length_have_a_cluster_for_each_frame():
    clips = [torch.randn(samples) for samples in (400, 1777, 3000)]
    model = HuBERT(TINY)
    for found in (
        cluster_targets(clips, 3, generator=torch.Generator().manual_seed(0)),
        cluster_targets(clips, 3, generator=torch.Generator().manual_seed(0), model=model, block=2),
    ):
        assert [len(frames) for frames in found] == [1, 5, 9]
        assert torch.cat(found).unique().tolist() == [0, 1, 2]
    batch = {"waveform": clips[1][None], "cluster": found[1][None]}
    assert model.loss(batch)["cluster"].isfinite()


def test_the_next_clusters_are_of_what_was_learned():
    """Guess clusters from one another, then cluster a middle block: better than the same of a new model."""
    waveform, number = hisses(count=12)
    torch.manual_seed(0)
    model = HuBERT(dataclasses.replace(TINY, clusters=8))
    options = dict(model=model, block=2)

    def purity():
        found = cluster_targets(list(waveform), 8, generator=torch.Generator().manual_seed(0), **options)
        return phone_purity(torch.stack(found), number)

    before = purity()
    first = torch.stack(cluster_targets(list(waveform), 8, generator=torch.Generator().manual_seed(0)))
    overfit(model, {"waveform": waveform, "cluster": first}, steps=25, learning_rate=3e-3)
    assert purity() > before + 0.1


def test_hidden_states_are_read_without_dropout_and_leave_the_mode():
    speech = dataclasses.replace(SMALL.speech, dropout=0.5)
    model, clip = HuBERT(dataclasses.replace(SMALL, speech=speech)).train(), torch.randn(90)
    one, two = model.block_output(clip, 2), model.block_output(clip, 2)
    assert torch.equal(one, two)
    assert not one.requires_grad
    assert model.training
    assert not model.eval().block_output(clip, 1).equal(one)
    assert not model.training
    close(one, model.speech(clip[None], depth=2).tokens[0])


class Clips(Dataset):
    """Noise with clusters."""

    def __init__(self, count=12):
        self.batch = clips(count)

    def __len__(self):
        return len(self.batch["waveform"])

    def __getitem__(self, index):
        return {name: rows[index] for name, rows in self.batch.items()}


class Stop(Exception):
    """Ends a run after a step."""


def train(folder, system, stop_after=None, **options):
    def on_step(step, metrics):
        if step == stop_after:
            raise Stop

    return system, fit(
        system,
        Clips(),
        lambda samples: {name: torch.stack([sample[name] for sample in samples]) for name in samples[0]},
        steps=6,
        batch_size=4,
        warmup=1,
        checkpoint_every=2,
        progress=False,
        output=folder,
        on_step=on_step,
        **options,
    )


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_resumed_run_equals_one_that_was_never_stopped(tmp_path, optimizer):
    config = dataclasses.replace(SMALL, speech=dataclasses.replace(SMALL.speech, dropout=0.1))
    torch.manual_seed(0)
    whole, history = train(tmp_path / "whole", HuBERT(config), optimizer=optimizer)
    torch.manual_seed(0)
    with pytest.raises(Stop):
        train(tmp_path / "stopped", HuBERT(config), stop_after=3, optimizer=optimizer)
    torch.manual_seed(77)
    resumed, rest = train(tmp_path / "stopped", HuBERT(config), optimizer=optimizer, resume=True)
    assert rest == history[2:]
    for name, value in resumed.state_dict().items():
        assert torch.equal(value, whole.state_dict()[name]), name
    assert whole.steps.item() == 6


def test_attention_is_recorded():
    model, batch = HuBERT(SMALL), clips()
    with record_attention(model) as maps:
        recorded = read(model, batch)
    close(recorded.cluster_logits, read(model, batch).cluster_logits)
    assert list(maps) == [f"speech.context.transformer.blocks.{i}.attention" for i in range(3)]
