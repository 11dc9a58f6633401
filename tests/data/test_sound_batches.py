"""Samples with sounds become batches with the right masks, whatever else the samples have."""

import pickle
from dataclasses import dataclass, replace

import pytest
import torch
from mmlearn.data.sound_batches import SoundCollate, SpecAugmented, mel_statistics, pad_waveforms
from testing_tools import close
from torch.utils.data import Dataset

from mmlearn.data import Batches, Tokenizer
from mmlearn.data.mel import LogMel, spec_augment
from mmlearn.data.read.sound import SoundSample

LENGTHS = (16_000, 12_345, 500, 1600)
WORDS = ("yes", "no", "yes", "stop")


class Listed(Dataset):
    def __init__(self, given):
        self.given = given

    def __len__(self):
        return len(self.given)

    def __getitem__(self, index):
        return self.given[index]


def samples(image=False):
    draw = torch.Generator().manual_seed(0)
    return [
        SoundSample(
            waveform=0.1 * torch.randn(length, generator=draw),
            caption=word,
            source=f"{number}.wav",
            image=torch.rand(3, 8, 8, generator=draw) if image else None,
        )
        for number, (length, word) in enumerate(zip(LENGTHS, WORDS))
    ]


def test_waveforms_are_padded_with_silence():
    waveform, mask = pad_waveforms([sample.waveform for sample in samples()])
    assert waveform.shape == mask.shape == (4, 16_000)
    assert mask.sum(1).tolist() == list(LENGTHS)
    assert (waveform[~mask] == 0).all()
    for row, real, sample in zip(waveform, mask, samples()):
        assert torch.equal(row[real], sample.waveform)
        assert torch.equal(real, torch.arange(16_000) < len(sample.waveform))


def test_a_batch_holds_what_there_is():
    assert set(SoundCollate()(samples())) == {"waveform", "waveform_mask"}
    tokenizer = Tokenizer.train(list(WORDS), vocab_size=300, max_length=8)
    collate = SoundCollate(tokenizer, log_mel=LogMel(64), words=sorted({*WORDS}), mark_repeats=True)
    batch = collate(samples(image=True))
    shapes = {name: tuple(tensor.shape) for name, tensor in batch.items()}
    t = batch["tokens"].shape[1]
    assert shapes == {
        "waveform": (4, 16_000),
        "waveform_mask": (4, 16_000),
        "mel": (4, 64, 100),
        "mel_mask": (4, 100),
        "tokens": (4, t),
        "mask": (4, t),
        "label": (4,),
        "image": (4, 3, 8, 8),
        "caption_id": (4,),
    }
    assert batch["label"].tolist() == [2, 0, 2, 1]
    assert batch["mel_mask"].sum(1).tolist() == [100, 78, 4, 10]
    assert (batch["caption_id"][:, None] == batch["caption_id"]).tolist() == [[a == b for a in WORDS] for b in WORDS]
    tokens, mask = tokenizer(list(WORDS))
    assert torch.equal(batch["tokens"], tokens)
    assert torch.equal(batch["mask"], mask)
    close(batch["image"][1], (samples(image=True)[1].image - 0.5) / 0.5)


def test_a_video_is_stacked():
    @dataclass
    class Clip:
        waveform: torch.Tensor
        video: torch.Tensor
        caption: str = "x"

    batch = SoundCollate()([Clip(torch.zeros(800), torch.zeros(5, 3, 4, 4)) for _ in range(2)])
    assert batch["video"].shape == (2, 5, 3, 4, 4)


def test_statistics_normalise():
    given = samples()
    mean, std = mel_statistics(Listed(given), LogMel())
    batch = SoundCollate(log_mel=LogMel(), mean=mean, std=std)(given)
    values = batch["mel"].mT[batch["mel_mask"]]
    assert abs(values.mean()) < 1e-4
    assert abs(values.std() - 1) < 1e-3
    raw = SoundCollate(log_mel=LogMel())(given)["mel"]
    close(batch["mel"] * std + mean, raw, 1e-4)
    assert mel_statistics(Listed([SoundSample(torch.zeros(800), "", "")]), LogMel())[1] == 1e-3


def test_neighbours_change_nothing():
    collate = SoundCollate(log_mel=LogMel())
    whole, few = collate(samples()), collate(samples()[1:3])
    close(whole["mel"][1:3, :, : few["mel"].shape[2]], few["mel"])


def test_captions_that_are_no_word():
    with pytest.raises(ValueError, match=r"1\.wav has the caption 'no', which is none of the words\."):
        SoundCollate(words=["yes", "stop"])(samples())


def test_some_with_pictures_and_some_without():
    mixed = [*samples(image=True)[:2], *samples()[2:]]
    with pytest.raises(ValueError, match=r"2\.wav has no image, and others of its batch have one\."):
        SoundCollate()(mixed)


def test_augmentation_is_a_function_of_the_samples():
    collate = SoundCollate(log_mel=LogMel())
    hidden = SpecAugmented(collate)
    plain, once = collate(samples()), hidden(samples())
    assert torch.equal(once["mel"], hidden(samples())["mel"])
    assert not torch.equal(once["mel"], plain["mel"])
    assert torch.equal(once["waveform"], plain["waveform"])
    reordered = hidden(samples()[::-1])["mel"]
    assert not torch.equal(reordered.flip(0), once["mel"])
    renamed = [replace(sample, source=f"other {sample.source}") for sample in samples()]
    assert not torch.equal(hidden(renamed)["mel"], once["mel"])
    spans = once["mel"] == 0
    assert not spans[~plain["mel_mask"][:, None].expand_as(spans)].any()
    draws = [spec_augment(plain["mel"], plain["mel_mask"], torch.Generator().manual_seed(seed)) for seed in range(3)]
    assert all(not torch.equal(draw, once["mel"]) for draw in draws)


def test_workers_can_have_it():
    collate = SpecAugmented(SoundCollate(log_mel=LogMel(), words=[*WORDS]))
    data = Batches(Listed(samples()), collate, 2, seed=0)
    again = pickle.loads(pickle.dumps(data))
    for name, tensor in data[3].items():
        assert torch.equal(tensor, again[3][name])
