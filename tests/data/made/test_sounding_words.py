"""What sounds, as words: the words are those of the scene, and they sound when they are said to."""

import torch

from mmlearn.data.made.scene_sound import SoundScenes
from mmlearn.data.made.sounding_words import WORDS, sounding_words, times_of_words
from mmlearn.data.mel import LogMel


def test_words_are_those_of_the_scene_in_the_order_in_which_they_sound():
    samples, batch = sounding_words("val", 20, LogMel(40), seconds=0.8, seed=3)
    assert WORDS[0] == "-"
    assert len(set(WORDS)) == len(WORDS)
    assert batch["mel"].shape == (20, 40, 80)
    assert batch["mel_mask"].all()
    assert batch["mask"].all()
    data = SoundScenes("val", objects=2, size=24, seconds=0.8, seed=3)
    for i, (sample, row) in enumerate(zip(samples, batch["tokens"].tolist())):
        first, second = (sample.objects[link.object] for link in sample.links)
        assert [WORDS[token] for token in row] == [first.colour, first.shape, second.colour, second.shape]
        assert sample.caption == data[i].caption
        assert sample.spans[0].offset <= sample.spans[1].onset
    assert abs(float(batch["mel"].mean())) < 1.5


def test_babble_is_as_loud_as_it_is_said_to_be():
    (_, clean), (_, quiet), (samples, loud), (_, again) = (
        sounding_words("val", 12, LogMel(40), seed=1, snr=snr) for snr in (None, 60.0, 0.0, 0.0)
    )
    assert torch.equal(loud["mel"], again["mel"])
    assert torch.equal(loud["tokens"], clean["tokens"])
    apart = [(batch["mel"] - clean["mel"]).abs().mean() for batch in (quiet, loud)]
    assert 0 < apart[0] < apart[1]
    power = ((4 * loud["mel"] - 7).exp() - (4 * clean["mel"] - 7).exp()).sum((1, 2))
    ratio = power / (4 * clean["mel"] - 7).exp().sum((1, 2))
    assert 0.7 < ratio.median() < 1.4  # as loud as the sound: 0 dB
    assert samples[0].waveform.abs().max() <= 1  # and not in the samples


def test_a_word_sounds_when_it_is_said_to():
    samples, batch = sounding_words("val", 20, LogMel(40), seconds=0.8)
    begin, end = times_of_words(samples, frame=0.01)
    assert torch.equal(begin[:, 0], begin[:, 1])
    assert torch.equal(end[:, 2], end[:, 3])
    assert (begin < end).all()
    assert (end[:, 1] <= begin[:, 2]).all()
    loud = batch["mel"].amax(1)
    for row, sound in enumerate(loud):
        inside = torch.cat([sound[int(begin[row, k]) + 2 : int(end[row, k]) - 2] for k in (0, 2)])
        silent = torch.ones(80, dtype=torch.bool)
        for k in (0, 2):
            silent[max(0, int(begin[row, k]) - 2) : int(end[row, k]) + 3] = False
        assert inside.min() > sound[silent].max()
