"""Clips in batches: what is in them is what the samples say, noise is at its SNR, and the data sets load by name."""

import pickle
from functools import cache

import pytest
import torch
from testing_tools import close
from torch.utils.data import DataLoader

from mmlearn.data import Batches, PairCollate, Tokenizer, data_sets, load
from mmlearn.data.made.scene_sound import SoundScenes
from mmlearn.data.made.scene_video import VideoScenes
from mmlearn.data.made.talking_lips import TOKENS, TalkingLips
from mmlearn.data.mel import LogMel
from mmlearn.data.sound_batches import SoundCollate
from mmlearn.data.video_batches import Changed, Noisy, VideoCollate

SETS = {
    "scenes-sound": lambda: SoundScenes(size=24, length=8),
    "scenes-video": lambda: VideoScenes(size=24, length=8),
    "talking-lips": lambda: TalkingLips(size=16, length=8),
}


@cache
def samples(name):
    return SETS[name]().__getitems__(range(8))


@cache
def tokenizer():
    texts = [getattr(sample, "story", sample.caption) for name in SETS for sample in samples(name)]
    return Tokenizer.train(texts, vocab_size=400, max_length=40)


def test_a_batch_of_video_has_picture_sound_text_and_order():
    clips = samples("scenes-video")
    batch = VideoCollate(tokenizer(), log_mel=LogMel(), mark_repeats=True, text="story")(clips)
    assert set(batch) == {
        "video", "waveform", "waveform_mask", "mel", "mel_mask", "tokens", "mask", "caption_id", "order"
    }  # fmt: skip
    assert batch["video"].shape == (8, 20, 3, 24, 24)
    assert batch["mel"].shape == (8, 80, 200)
    for i, clip in enumerate(clips):
        close(batch["video"][i] * 0.5 + 0.5, clip.video, 1e-6)
        assert torch.equal(batch["waveform"][i], clip.waveform)
        assert tokenizer().decode(batch["tokens"][i]) == clip.story
        assert batch["order"][i] == clip.order
        assert torch.equal(clip.image, clip.video[clip.hit.frame])  # the sample is as it was
    plain = VideoCollate(tokenizer(), image_mean=(0.0, 0.1, 0.2), image_std=(1.0, 2.0, 0.5))(clips)
    assert tokenizer().decode(plain["tokens"][0]) == clips[0].caption
    close(plain["video"][0, 3, 2], (clips[0].video[3, 2] - 0.2) / 0.5, 1e-6)


def test_a_batch_of_lips_has_units_and_targets():
    clips = samples("talking-lips")
    batch = VideoCollate()(clips)
    assert set(batch) == {"video", "waveform", "waveform_mask", "units", "speaker", "tokens", "mask"}
    for i, clip in enumerate(clips):
        assert torch.equal(batch["units"][i], clip.units)
        assert batch["speaker"][i] == clip.speaker
        said = batch["tokens"][i][batch["mask"][i]]
        assert "".join(TOKENS[number] for number in said) == clip.transcript
        assert not batch["tokens"][i][~batch["mask"][i]].any()
    with_text = VideoCollate(tokenizer())(clips)
    assert tokenizer().decode(with_text["tokens"][0]) == clips[0].transcript


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize(("snr", "kind"), [(-5.0, "babble"), (10.0, "white")])
def test_noise_in_a_batch_has_its_snr_and_reaches_the_spectrogram(name, snr, kind):
    collate = (SoundCollate if name == "scenes-sound" else VideoCollate)(log_mel=LogMel())
    clean, noisy = collate(samples(name)), Noisy(collate, snr, kind)(samples(name))
    noise = (noisy["waveform"].double() - clean["waveform"]).square().sum(1)
    ratio = 10 * torch.log10(clean["waveform"].double().square().sum(1) / noise)
    assert (ratio - snr).abs().max() < 1e-4
    close(noisy["mel"], LogMel()(noisy["waveform"])[0])
    assert not torch.allclose(noisy["mel"], clean["mel"], atol=0.5)
    assert torch.equal(Noisy(collate, snr, kind)(samples(name))["waveform"], noisy["waveform"])
    assert not torch.equal(Noisy(collate, snr, kind)(samples(name)[::-1])["waveform"].flip(0), noisy["waveform"])
    for key in set(clean) - {"waveform", "mel"}:
        assert torch.equal(clean[key], noisy[key]), key


def test_clips_of_several_lengths_are_padded():
    short, long = (SoundScenes(size=24, seconds=s).__getitems__([3])[0] for s in (1.0, 1.5))
    batch = Noisy(SoundCollate(log_mel=LogMel()), 0.0)([short, long])
    assert batch["waveform"].shape == (2, 24000)
    assert batch["waveform_mask"].sum(1).tolist() == [16000, 24000]
    assert not batch["waveform"][0, 16000:].any()
    for row, sample in zip(batch["waveform"], (short, long)):
        clean = sample.waveform.double()
        noise = row[: len(clean)] - clean
        assert (10 * torch.log10(clean.square().sum() / noise.square().sum())).abs() < 1e-4


@pytest.mark.parametrize("value", [0.0, float("nan")])
def test_a_silent_sample_is_named(value):
    loud, silent = (SoundScenes(size=24).__getitems__([3])[0] for _ in range(2))
    silent = Changed(silent, waveform=torch.full((32_000,), value), source="folder/silent.wav")
    with pytest.raises(ValueError, match=r"^folder/silent\.wav is silent or not a number, so that no SNR can be set"):
        Noisy(SoundCollate(), 0.0)([loud, silent])


@pytest.mark.parametrize("name", SETS)
def test_two_workers_give_the_same_batches(name):
    collate = Noisy(SoundCollate(tokenizer()) if name == "scenes-sound" else VideoCollate(tokenizer()), 0.0)
    batches = Batches(SETS[name](), collate, 3, seed=5)
    got = list(DataLoader(batches, sampler=range(1, 4), batch_size=None, num_workers=2))
    for step, batch in zip(range(1, 4), got, strict=True):
        for key, value in batches[step].items():
            assert torch.equal(batch[key], value), (step, key)


@pytest.mark.parametrize("name", SETS)
def test_each_set_loads_by_name_and_its_samples_travel(name):
    for split in data_sets()[name].splits:
        data = load(name, split, size=24, length=3)
        sample = data[2]
        assert (data.split, len(data), sample.image.shape) == (split, 3, (3, 24, 24))
        copy = pickle.loads(pickle.dumps(sample))
        assert (copy.caption, copy.source) == (sample.caption, sample.source)
        assert split in sample.source
        assert "2" in sample.source
        assert torch.equal(copy.waveform, sample.waveform)
    with pytest.raises(ValueError, match=", ".join(data_sets()[name].splits)):
        load(name, "no such split")
    assert [x.caption for x in load(name, length=3)] == [load(name)[i].caption for i in range(3)]


@pytest.mark.parametrize("name", SETS)
def test_pictures_and_captions_alone_are_pairs_as_any(name):
    batch = PairCollate(tokenizer())(samples(name))
    assert batch["image"].shape[:2] == (8, 3)
    assert tokenizer().decode(batch["tokens"][1]) == samples(name)[1].caption
