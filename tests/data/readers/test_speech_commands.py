"""Speech Commands as they lie on disk: the same files in the same splits as torchaudio finds there."""

import numpy as np
import pytest
import soundfile
import torchaudio
from testing_tools import refused

from mmlearn.data import load
from mmlearn.data.readers.speech_commands import SpeechCommands

WORDS = ("bed", "down", "yes")
SPEAKERS = ("0a7c2a8d", "1b4c9b89", "2fa39636", "3bfd30e6", "4c6944d6")


@pytest.fixture
def root(tmp_path):
    """The data set in small, unpacked as torchaudio does it: two recordings of each word by each of five speakers."""
    folder = tmp_path / "SpeechCommands" / "speech_commands_v0.02"
    for w, word in enumerate(WORDS):
        (folder / word).mkdir(parents=True)
        for s, speaker in enumerate(SPEAKERS):
            for k in range(2):
                tone = 0.1 * np.sin(np.arange(15_000 + 100 * s) * (w + 1) / 10)
                soundfile.write(folder / word / f"{speaker}_nohash_{k}.wav", tone, 16_000)
    (folder / "_background_noise_").mkdir()
    for name in ("white_noise", "running_tap"):
        noise = np.random.default_rng(0).standard_normal(16_000) / 10
        soundfile.write(folder / "_background_noise_" / f"{name}.wav", noise, 16_000)
    (folder / "_background_noise_" / "README.md").write_text("noise")
    (folder / "bed" / "no_speaker.wav").write_bytes(b"not part of it")
    for name, speaker in (("testing", SPEAKERS[1]), ("validation", SPEAKERS[3])):
        lines = [f"{word}/{speaker}_nohash_{k}.wav\n" for word in WORDS for k in (1, 0)]
        (folder / f"{name}_list.txt").write_text("".join(lines))
    return tmp_path


def names(data):
    return [entry.sound for entry in data.samples]


PUBLISHED = {"train": "training", "val": "validation", "test": "testing", "all": None}


@pytest.mark.parametrize("split", PUBLISHED)
def test_it_is_torchaudio(root, split):
    published = torchaudio.datasets.SPEECHCOMMANDS(root, subset=PUBLISHED[split])
    data = SpeechCommands(root, split)
    assert len(data) == len(published) == {"train": 18, "val": 6, "test": 6, "all": 30}[split]
    for i in range(len(data)):
        path, _, word, speaker, _ = published.get_metadata(i)
        sample = data[i]
        assert (root / "SpeechCommands" / path) == data.folder / sample.source
        assert sample.caption == data.caption(i) == word
        assert sample.speaker == speaker
        assert len(sample.waveform) == 15_000 + 100 * SPEAKERS.index(speaker)
        assert sample.notes == ()


def test_splits_are_disjoint_and_so_are_their_speakers(root):
    splits = [SpeechCommands(root, split) for split in ("train", "val", "test")]
    found = [name for data in splits for name in names(data)]
    assert len(found) == len(set(found)) == 30
    speakers = [{data[i].speaker for i in range(len(data))} for data in splits]
    assert [len(part) for part in speakers] == [3, 1, 1]
    assert len(set.union(*speakers)) == 5


@pytest.mark.parametrize("position", ["", "SpeechCommands", "SpeechCommands/speech_commands_v0.02"])
def test_any_of_its_folders_will_do(root, position):
    for folder in (root / position, str(root / position)):
        data = load(folder, "val")
        assert isinstance(data, SpeechCommands)
        assert data.words == list(WORDS)


def test_options(root):
    assert len(load(root, seconds=0.5)[0].waveform) == 8000
    with pytest.raises(
        ValueError, match=r"no split 'training'; did you mean 'train'\? choose from train, val, test, all"
    ):
        SpeechCommands(root, "training")
    refused("has no option 'langauge'; choose from seconds, skip_bad", load, root, langauge="de")


def test_missing_lists(root):
    (root / "SpeechCommands" / "speech_commands_v0.02" / "testing_list.txt").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"has no validation_list\.txt and testing_list\.txt: give the unpacked"
    ):
        SpeechCommands(root)


def test_bad_recordings(root):
    data = SpeechCommands(root, "val")
    (data.folder / names(data)[0]).unlink()
    (data.folder / names(data)[1]).write_bytes(b"")
    soundfile.write(data.folder / names(data)[2], np.full(16_000, np.nan), 16_000, subtype="FLOAT")
    for split in ("val", "all"):
        if split == "val":
            with pytest.raises(FileNotFoundError) as caught:
                SpeechCommands(root, split)
            expected = f"There is no sound {data.folder / names(data)[0]}, though a list names it."
            assert str(caught.value) == f"{expected} Add --skip-bad to leave out what cannot be read."
        good = SpeechCommands(root, split, skip_bad=True)
        assert len(good) == {"val": 3, "all": 27}[split]
        assert len(good.skipped) == {"val": 3, "all": 2}[split]
        for name in names(data)[1:3]:
            assert any(str(data.folder / name) in line for line in good.skipped)
        assert all(good[i].waveform.isfinite().all() for i in range(len(good)))
    (data.folder / names(data)[0]).write_bytes(b"")
    with pytest.raises(ValueError, match="is empty"):
        SpeechCommands(root, "val")[0]
    for name in names(data):
        (data.folder / name).write_bytes(b"")
    refused("has no val sounds that can be read", SpeechCommands, root, "val", skip_bad=True)


@pytest.mark.parametrize("skip_bad", [True, False])
def test_what_is_heard_is_noted(root, skip_bad):
    data = SpeechCommands(root, "val")
    low, silent, whole = (data.folder / names(data)[i] for i in (1, 2, 3))
    soundfile.write(low, 0.1 * np.sin(np.arange(8_000)), 8_000)
    soundfile.write(silent, np.zeros(16_000), 16_000)
    data = SpeechCommands(root, "val", skip_bad=skip_bad)
    expected = [f"{low}: 8,000 Hz resampled to 16,000.", f"{silent}: silent."]
    assert data.notes == (expected if skip_bad else [])  # of what was read
    samples = [data[i] for i in range(len(data))]
    assert data.notes == [note for sample in samples for note in sample.notes] == expected
    assert str(whole) not in "".join(data.notes)


def test_a_list_does_not_lead_out(root, tmp_path):
    folder = root / "SpeechCommands" / "speech_commands_v0.02"
    soundfile.write(tmp_path / "secret_nohash_0.wav", np.zeros(16_000), 16_000)
    with (folder / "testing_list.txt").open("a") as file:
        file.write("../../secret_nohash_0.wav\n")
    refused("'../../secret_nohash_0.wav' is outside the folder", SpeechCommands, root, "test")
    assert len(SpeechCommands(root, "test", skip_bad=True)) == 6
