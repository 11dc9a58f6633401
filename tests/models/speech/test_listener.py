"""The small listener: padding changes nothing, frames are where they should be, and it learns both of its games."""

from dataclasses import replace

import pytest
import torch
from testing_tools import Listed, close

from mmlearn.models.speech.hubert import HuBERTConfig
from mmlearn.models.speech.listener import HuBERTListener, Listener
from mmlearn.training import fit


def noise(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("length", [1, 7, 30])
def test_a_clip_in_a_padded_batch_is_heard_as_if_it_were_alone(stride, length):
    listener = Listener(5, 8, stride, 5)
    mask = torch.arange(30) < torch.tensor([length, 30])[:, None]
    listener(noise(0, 2, 40, 30), mask)  # so that the norms have seen something
    listener.eval()
    mel = noise(1, 2, 40, 30)
    frames, real = listener(mel, mask)
    assert real.sum(1).tolist() == [-(-length // stride), -(-30 // stride)]
    close(listener.head(frames)[0, real[0]].log_softmax(-1), listener.log_probabilities(mel[0, :, :length]), 1e-5)
    other = mel.masked_fill(~mask[:, None], 100.0)
    close(listener(other, mask)[0], frames, 0)


def test_a_frame_is_centred_on_its_position():
    listener = Listener(5, 8, 3, 1).eval()
    mel = noise(0, 1, 40, 31).requires_grad_()
    frames, _ = listener(mel, torch.ones(1, 31, dtype=torch.bool))
    frames[0, 5].square().sum().backward()
    seen = mel.grad[0].abs().sum(0).nonzero()[:, 0].tolist()
    assert (seen[0], seen[-1]) == (15 - 4, 15 + 4)


def test_what_it_says_are_logarithms_of_probabilities():
    said = Listener(7, 8, 2, 3).eval().log_probabilities(noise(0, 40, 11))
    assert said.shape == (6, 7)
    close(said.exp().sum(-1), torch.ones(6))


def test_both_listeners_are_asked_alike():
    waveform, mask = noise(0, 1, 4000), torch.ones(1, 4000, dtype=torch.bool)
    hubert = HuBERTListener(replace(HuBERTConfig.tiny(), clusters=9, vocab_size=7)).eval()
    hidden = torch.arange(12)[None] < 3
    close(hubert.log_probabilities(waveform[0]), hubert(waveform).logits[0].log_softmax(-1))
    close(hubert.log_probabilities(waveform[0]).exp().sum(-1), torch.ones(12))
    guesses = hubert.cluster_logits({"waveform": waveform, "waveform_mask": mask, "masked": hidden})
    close(guesses, hubert(waveform, mask, hidden).cluster_logits)
    small, mel, real = Listener(7, 8, 2, 3, clusters=9).eval(), noise(1, 1, 40, 24), torch.ones(1, 24, dtype=torch.bool)
    close(small.cluster_logits({"mel": mel, "mel_mask": real}), small.cluster_head(small(mel, real)[0]))


def test_it_learns_tokens_and_clusters_by_heart():
    mel, mask = noise(0, 2, 40, 24), torch.ones(2, 24, dtype=torch.bool)
    texts = {"mel": mel, "mel_mask": mask, "tokens": torch.tensor([[1, 2, 2], [3, 1, 0]])}
    texts["mask"] = texts["tokens"] > 0
    hidden = torch.arange(12) < torch.tensor([[6], [4]])
    numbers = torch.randint(4, (2, 12), generator=torch.Generator().manual_seed(2))
    game = {"mel": mel, "mel_mask": mask, "cluster": numbers, "masked": hidden}
    for batch, name in ((texts, "ctc"), (game, "cluster")):
        torch.manual_seed(0)
        listener = Listener(4, 16, 2, 3, clusters=4)
        (key,) = listener.loss(batch)
        assert key == name
        options = dict(steps=80, batch_size=1, warmup=5, learning_rate=1e-2, progress=False)
        history = fit(listener, Listed([batch] * 4), lambda drawn: drawn[0], **options)
        assert history[-1][name] < 0.1 < history[0][name]
