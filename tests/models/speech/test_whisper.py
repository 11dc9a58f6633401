"""Whisper: what a prompt is, that silence behind a sound is part of it, what is asked wrongly, and what it learns."""

import dataclasses

import pytest
import torch
from testing_tools import close, overfit, refused

from mmlearn.data.fields import WhisperMel
from mmlearn.data.mel import whisper_log_mel
from mmlearn.data.readers.sound import SoundSample
from mmlearn.layers import record_attention
from mmlearn.models.speech.whisper import Whisper, WhisperConfig, encoder_positions
from mmlearn.recipes.whisper import RECIPE

SMALL = dataclasses.replace(WhisperConfig.tiny(), mels=8, frames=60, vocab_size=150, max_length=16, width=32)
ENGLISH = dataclasses.replace(SMALL, multilingual=False)


def small(config=SMALL, seed=0):
    torch.manual_seed(seed)
    return Whisper(config).eval()


def batch(b=4):
    return next(RECIPE.examples(SMALL, b=b))


def test_positions_turn_from_once_in_six_frames_to_once_in_63000():
    positions = encoder_positions(20, 8)
    s = torch.arange(20)
    for i, rate in enumerate((1, 10_000 ** (-1 / 3), 10_000 ** (-2 / 3), 1 / 10_000)):
        close(positions[:, i], (s * rate).sin())
        close(positions[:, 4 + i], (s * rate).cos())
    for width in (2, 7):
        refused("width is even", encoder_positions, 20, width)


def test_keys_have_no_bias():
    names = [name for name, _ in small().named_parameters()]
    assert not any(name.endswith("key.bias") for name in names)
    assert sum(name.endswith("query.bias") for name in names) == 6


def test_the_prompt_is_what_figure_1_shows():
    special = SMALL.special
    assert special.times == 31
    assert special.first == 150 - 31 - 6 - 7
    assert special.prompt("fr") == (special.first + 4, special.first + 8, special.first + 12)
    assert special.prompt("French", "translate") == (special.first + 4, special.first + 7, special.first + 12)
    assert special.prompt("fr", times=True) == special.prompt("fr")[:2]
    assert ENGLISH.special.prompt(None) == (special.no_times,)
    assert ENGLISH.special.prompt(None, times=True) == ()


def test_a_language_is_given_or_found():
    model, mel = small(), batch()["mel"]
    frames = model.encode_audio(mel)
    close(model.detect_language(frames).sum(1), torch.ones(4))
    first = SMALL.special.first
    with torch.no_grad():
        model.decoder.norm.bias.copy_(1000 * model.decoder.embedding.tokens.weight[first + 5])  # Romanian follows all
    assert model.prompts(frames, None, "transcribe", False)[:, 1].tolist() == [first + 5] * 4
    assert model.prompts(frames, ["en", "fr", "ru", "es"], "transcribe", False)[:, 1].tolist() == [
        first + i for i in (0, 4, 6, 3)
    ]
    assert model.generate(mel[:0]).shape == (0, 0)
    assert small(ENGLISH).prompts(frames, None, "transcribe", False).tolist() == [[1, SMALL.special.no_times]] * 4


@pytest.mark.parametrize(
    ("config", "asked", "says"),
    [
        (SMALL, dict(language="frensh"), "knows no language 'frensh'; did you mean 'french'"),
        (SMALL, dict(language="xx"), "knows no language 'xx'; choose from english, "),
        (SMALL, dict(language="german"), "knows no language 'german'"),  # which others know
        (SMALL, dict(language=["fr", "fr"]), "one for each of 4; got 2"),
        (SMALL, dict(language="fr", task="translte"), "no task 'translte'; did you mean 'translate'"),
        (ENGLISH, dict(language="fr"), "writes English alone, and takes no language 'fr'"),
        (ENGLISH, dict(language="en"), "writes English alone, and takes no language 'en'"),
        (ENGLISH, dict(task="translate"), "writes English alone, and takes no task 'translate'"),
        (dataclasses.replace(SMALL, vocab_size=40), dict(language="fr"), "40 tokens have no room for 44 special ones"),
    ],
)
def test_what_cannot_be_asked(config, asked, says):
    refused(says, small(config).generate, batch()["mel"], **asked)


def test_sounds_of_another_size():
    model, mel = small(), batch()["mel"]
    refused(
        "59 frames are fewer than the 60 that this model hears: put silence behind", model.encode_audio, mel[..., :59]
    )
    refused("61 frames are more than the 60 of this model; cut", model.encode_audio, torch.zeros(1, 8, 61))
    refused(r"A log-mel is a float tensor \(b, 8, s\)", model.encode_audio, torch.zeros(1, 7, 60))
    refused("hears English alone", small(ENGLISH).detect_language, model.encode_audio(mel))
    field = WhisperMel(8, 60)
    clip = SoundSample(torch.zeros(9601), "a", "long.wav")
    refused("long.wav lasts 0.6001 s, and 0.6 s are heard at once: cut it into pieces", field, [clip])
    refused("A sound of 0.6001 s is longer than the 0.6 s", whisper_log_mel, clip.waveform[None], 8, 60)
    refused("needs more than 200 samples, got 200", whisper_log_mel, torch.zeros(1, 200))


def test_silence_is_heard_as_well():
    """A clip is the same in any batch, and silence at its end is part of it: no mask is needed, and none is there."""
    field, generator = WhisperMel(8, 60), torch.Generator().manual_seed(0)
    clips = [SoundSample(0.1 * torch.randn(n, generator=generator), "a", "a") for n in (3000, 9600, 500)]
    mel = field(clips)["mel"]
    assert mel.shape == (3, 8, 60)
    close(mel[:1], field(clips[:1])["mel"])
    assert mel[0, :, 25:].unique().numel() == 1  # 80 dB below the loudest
    close(mel.amax((1, 2)) - mel.amin((1, 2)), torch.tensor([2.0, (mel[1].max() - mel[1].min()), 2.0]))


def test_what_is_written_with_times_is_phrases():
    model, special = small(), SMALL.special
    written = model.generate(batch()["mel"], language="fr", times=True, max_length=11)
    for row in written.tolist():
        row = row[: row.index(2)] if 2 in row else row
        stamps = [token for token in row if token >= special.first_time]
        assert row[0] == stamps[0] <= special.first_time + 50
        assert stamps == sorted(stamps)
        assert not any(special.first <= token < special.first_time for token in row)


def test_the_decoder_listens_and_frames_are_read_once(monkeypatch):
    """Keys and values of the frames are made in the first step; every step attends to them."""
    model, mel = small(), batch()["mel"]
    layer = model.decoder.transformer.blocks[0].cross_attention
    seen, real = [], layer.keys_and_values
    monkeypatch.setattr(layer, "keys_and_values", lambda x: seen.append(x.shape[1]) or real(x))
    with record_attention(model) as maps:
        model.generate(mel, language="fr", max_length=6)
    assert seen == [30]
    shapes = {value.shape[2:] for name, value in maps.items() if name.startswith("decoder") and "cross" in name}
    assert shapes == {(4, 30), (1, 30)}


def test_words_that_go_with_sounds_are_learned():
    model, given = small().train(), batch(3)
    overfit(model, given, 100, 3e-3)
    own = model.loss(given)["transcription"]
    others = model.loss(given | {"mel": given["mel"].roll(1, 0)})["transcription"]
    assert own < 0.2
    assert others > 3 * own
