"""Spoken captions: how they are spelt, what is kept of them, and their batches."""

import unicodedata
from dataclasses import replace

import pytest
import torch
from testing_tools import close, seeded

from mmlearn.data.packaged.stamps import SPOKEN, Stamps
from mmlearn.data.spoken_captions import (
    LETTERS,
    NAMES,
    VOCAB_SIZE,
    SpokenCaption,
    batches_of_like_length,
    fits,
    groups_of_like_length,
    hidden_batch,
    one_after_the_other,
    padded_mels,
    silenced,
    sizes_of,
    spell,
    spelt_batch,
    spoken_captions,
    to_letters,
    to_tokens,
    varied_batch,
)
from mmlearn.models.speech.hubert import HuBERTConfig
from mmlearn.models.speech.listener import HuBERTListener


def clip(frames, text="ab", seed=0):
    return SpokenCaption(torch.randn(40, frames, generator=seeded(seed)), text, "a/b", "es")


CLIPS = [clip(frames, text, i) for i, (frames, text) in enumerate([(30, "ab"), (12, "c"), (21, "aab"), (9, "d")])]


# Letters.


@pytest.mark.parametrize(
    ("caption", "spelt"),
    [
        ("Una garza ceniza.", "una garza ceniza"),
        ("Tux— талисмана на Linux!", "tux talismana na linux"),
        ("Щука, жираф и ёж", "shtuka zhiraf i iozh"),
        ("L’été à Noël", "l ete a noel"),
        ("Țară și 3 mâini", "tara si 3 maini"),
        ("…", ""),
    ],
)
def test_captions_in_letters_that_all_languages_share(caption, spelt):
    assert spell(caption) == spelt
    assert spell(unicodedata.normalize("NFD", caption)) == spelt
    assert spell(spelt) == spelt


@pytest.mark.parametrize("language", SPOKEN)
def test_hardly_a_letter_of_a_language_is_lost(language):
    captions = Stamps("train", language=language, speech=True, size=8).captions
    kept = sum(letter.isalnum() for caption in captions for letter in spell(caption))
    assert kept >= 0.98 * sum(letter.isalnum() for caption in captions for letter in caption)
    assert NAMES[language]


def test_letters_are_tokens_after_the_blank():
    assert to_tokens(LETTERS).tolist() == list(range(1, VOCAB_SIZE))
    assert to_letters(to_tokens("no 7 llamas")) == "no 7 llamas"
    assert to_tokens("").shape == (0,)
    with pytest.raises(ValueError, match="substring not found"):
        to_tokens("ñ")


# Clips.


def test_clips_of_a_split(tmp_path, monkeypatch):
    monkeypatch.setenv("MMLEARN_HOME", str(tmp_path))
    clips = spoken_captions("val", "ro", count=12)
    data = Stamps("val", language="ro", speech=True, size=8)
    assert 0 < len(clips) <= 12
    assert [one.name for one in clips] == [name for name in data.names[:12] if name in {one.name for one in clips}]
    for one in clips:
        assert one.text == spell(data.captions[data.names.index(one.name)])
        assert one.mel.shape[1] <= 300
        close(one.mel.mean(1), torch.zeros(40), 1e-3)
        assert (one.mel.std(1) <= 1).all()
    assert len(list((tmp_path / "features").iterdir())) == 1
    again = spoken_captions("val", "ro", count=12)
    assert all(torch.equal(one.mel, other.mel) for one, other in zip(clips, again))
    assert [one.name for one in spoken_captions("val", "ro", count=12, longest=100)] == [
        one.name for one in clips if one.mel.shape[1] <= 100
    ]
    with pytest.raises(ValueError, match="Nobody says the captions in 'de'"):
        spoken_captions("val", "de")


def test_which_clips_are_long_enough_for_their_text():
    assert not fits(clip(300, ""))
    assert [fits(clip(frames, "abc")) for frames in (9, 10)] == [False, True]  # 3.3 frames of 3
    assert [fits(clip(frames, "aab")) for frames in (12, 13)] == [False, True]  # and one between the two a
    assert fits(clip(4, "abc"), stride=1)


# Batches.


def test_padding_is_silent_and_marked():
    batch = spelt_batch(CLIPS)
    assert batch["mel"].shape == (4, 40, 30)
    assert batch["mel_mask"].sum(1).tolist() == [30, 12, 21, 9]
    for i, one in enumerate(CLIPS):
        frames = one.mel.shape[1]
        assert torch.equal(batch["mel"][i, :, :frames], one.mel)
        assert not batch["mel"][i, :, frames:].any()
        assert to_letters(batch["tokens"][i][batch["mask"][i]]) == one.text
    assert sizes_of(CLIPS).tolist() == [[30, 2], [12, 1], [21, 3], [9, 1]]
    assert sizes_of([]).shape == (0, 2)


def test_what_is_hidden_shows_nothing_and_has_its_own_number():
    centroids = torch.randn(7, 40, generator=seeded(1))
    whole, batch = padded_mels(CLIPS), hidden_batch(CLIPS, centroids, seeded(2))
    real = whole["mel_mask"][:, ::3]
    assert batch["masked"].any()
    assert not (batch["masked"] & ~real).any()
    assert ((batch["cluster"] == -100) == ~real).all()
    for row, frame in real.nonzero().tolist():
        distance = (whole["mel"][row, :, 3 * frame] - centroids).square().sum(1)
        assert batch["cluster"][row, frame] == distance.argmin()
        shown, there = (each["mel"][row, :, 3 * frame : 3 * frame + 3] for each in (batch, whole))
        assert torch.equal(shown, torch.zeros_like(there) if batch["masked"][row, frame] else there)
    again = hidden_batch(CLIPS, centroids, seeded(2))
    assert torch.equal(again["masked"], batch["masked"])


def test_waveforms_are_heard_in_frames_of_20_ms():
    sounds = [torch.randn(160 * 30, generator=seeded(3)), torch.randn(3300, generator=seeded(4))]
    clips = [one._replace(waveform=sound) for one, sound in zip((clip(30), clip(21, "c")), sounds)]
    spelt = spelt_batch(clips)
    assert spelt["waveform_mask"].sum(1).tolist() == [4800, 3300]
    assert torch.equal(spelt["waveform"][1, :3300], sounds[1])
    assert "mel" not in spelt
    centroids = torch.randn(7, 40, generator=seeded(1))
    batch = hidden_batch(clips, centroids, seeded(2))
    system = HuBERTListener(replace(HuBERTConfig.tiny(), clusters=7)).eval()
    real = system.speech.frame_mask(batch["waveform"], batch["waveform_mask"])
    assert batch["cluster"].shape == batch["masked"].shape == real.shape
    assert ((batch["cluster"] == -100) == ~real).all()
    assert batch["masked"].any()
    for row, frame in real.nonzero().tolist():
        middle = (clips[row].mel[:, 2 * frame + 1] - centroids).square().sum(1)  # 10 ms a frame of the log-mel
        assert batch["cluster"][row, frame] == middle.argmin()
    assert system.loss(batch)["cluster"] > 0
    assert system.cluster_logits(batch).shape == (*real.shape, 7)


def test_waveforms_are_kept_where_they_are_asked_for(tmp_path, monkeypatch):
    monkeypatch.setenv("MMLEARN_HOME", str(tmp_path))
    data = Stamps("val", language="ro", speech=True, size=8)
    for one in spoken_captions("val", "ro", count=3, mels=80, waveforms=True):
        assert one.mel.shape[0] == 80
        wave = data.spoken(data.names.index(one.name))
        close(one.waveform, (wave - wave.mean()) / wave.std(correction=0), 1e-3)
        assert one.mel.shape[1] == -(-len(wave) // 160)


def test_groups_and_batches_are_of_like_length():
    groups = groups_of_like_length(CLIPS, 2)
    assert [[one.mel.shape[1] for one in group] for group in groups] == [[9, 12], [21, 30]]
    batches = batches_of_like_length(CLIPS, 2, 5, seeded())
    assert len(batches) == 5
    for first, second in (batches[:2], batches[2:4]):
        frames = sorted([*first["mel_mask"].sum(1).tolist(), *second["mel_mask"].sum(1).tolist()])
        assert frames == [9, 12, 21, 30]  # once through all clips
        assert {first["mel"].shape[2], second["mel"].shape[2]} == {12, 30}
    again = batches_of_like_length(CLIPS, 2, 5, seeded())
    assert all(torch.equal(one["tokens"], other["tokens"]) for one, other in zip(batches, again))


def test_two_recordings_one_after_the_other_and_one_of_them_silenced():
    one, two = (SpokenCaption(torch.randn(40, frames), text, text, "es") for frames, text in ((5, "un"), (7, "si")))
    clip, spans = one_after_the_other(one, two, pause=3)
    assert (clip.text, clip.mel.shape, spans) == ("un si", (40, 15), [(0, 5), (8, 15)])
    assert torch.equal(clip.mel[:, :5], one.mel)
    assert torch.equal(clip.mel[:, 8:], two.mel)
    quiet = one.mel[:, one.mel.mean(0).argmin()]
    assert all(torch.equal(clip.mel[:, frame], quiet) for frame in (5, 6, 7))
    mel = silenced(clip, spans[0])
    assert torch.equal(mel[:, 8:], two.mel)
    assert (mel[:, :5] == mel[:, :1]).all()
    assert mel[:, 0].mean() == clip.mel.mean(0).min()
    assert torch.equal(clip.mel[:, :5], one.mel)  # the clip is as it was


def test_labels_are_joined_and_stretched_with_their_recordings():
    one, two = (
        SpokenCaption(torch.randn(40, frames), text, text, "es", labels=to_tokens(text).repeat_interleave(10))
        for frames, text in ((20, "un"), (30, "uno"))
    )
    clip, _ = one_after_the_other(one, two, pause=5)
    assert to_letters(clip.labels) == "u" * 10 + "n" * 10 + " " * 5 + "u" * 10 + "n" * 10 + "o" * 10
    batch = spelt_batch([one, two])
    assert (batch["labels"][0, 20:] == -100).all()
    varied = varied_batch(batch, seeded())
    frames = varied["mel"].shape[2]
    assert 27 <= frames <= 36
    assert varied["mel_mask"].dtype == torch.bool
    assert varied["mel_mask"].shape == varied["labels"].shape == (2, frames)
    assert to_letters(varied["labels"][1].unique_consecutive()) == "uno"
    assert torch.equal(varied["labels"][0] == -100, ~varied["mel_mask"][0])
    assert "labels" not in spelt_batch([one, two._replace(labels=None)])
