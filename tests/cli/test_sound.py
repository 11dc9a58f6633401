"""Folders with sounds at the command: what is shown, what is said of files that are bad, and what cannot be trained."""

import json

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from mmlearn.data.fields import images

RATE = 16_000


def tone(seconds=0.5, rate=RATE, loudness=0.3):
    return loudness * np.sin(2 * np.pi * 440 * np.arange(round(seconds * rate)) / rate)


@pytest.fixture
def sounds(tmp_path):
    """Eight sounds of one's own, all to train on; ``bad`` adds a file of that name and content."""
    folder = tmp_path / "sounds"
    folder.mkdir()
    lines = ["sound,caption,split"]
    for i in range(8):
        soundfile.write(folder / f"{i}.flac", tone(), RATE)
        lines.append(f"{i}.flac,hum number {i},train")
    captions = folder / "captions.csv"
    captions.write_text("\n".join(lines))

    def bad(name, content=None):
        if content is not None:
            (folder / name).write_bytes(content)
        captions.write_text(captions.read_text() + f"\n{name},a bad one,train")

    return folder, bad


@pytest.fixture
def words(tmp_path):
    """Speech Commands, in small."""
    folder = tmp_path / "speech_commands_v0.02"
    for word in ("yes", "no"):
        (folder / word).mkdir(parents=True)
        for k in range(3):
            soundfile.write(folder / word / f"abc{k}_nohash_0.wav", tone(), RATE)
    (folder / "testing_list.txt").write_text("yes/abc0_nohash_0.wav\nno/abc0_nohash_0.wav\n")
    (folder / "validation_list.txt").write_text("yes/abc1_nohash_0.wav\n")
    return folder


def image(path):
    with Image.open(path) as sheet:
        return np.asarray(sheet.convert("RGB")) / 255


def test_sounds_are_shown(mmlearn, sounds):
    folder, _ = sounds
    said = mmlearn("data", "show", folder, "--count", 2)
    assert (said.code, said.err) == (0, "")
    assert said.out == "runs/data/sounds-train.png\n"
    assert image(said.out.strip()).std() > 0.05


def test_speech_commands_are_shown(mmlearn, words):
    for split in ("train", "val", "test"):
        said = mmlearn("data", "show", words, "--split", split, "--output", f"{split}.png")
        assert said == (0, f"{split}.png\n", "")


def test_a_long_recording_needs_no_time(mmlearn, sounds):
    folder, _ = sounds
    with soundfile.SoundFile(folder / "0.flac", "w", RATE, 1) as file:
        for _ in range(20):
            file.write(tone(60.0))
    said = mmlearn("data", "show", folder, "--output", "x.png", "--count", 1)
    cut = "only its first 10 s are taken"
    line = f"to know of 1 sounds (1 × {cut}), such as: {folder / '0.flac'}: {cut}.\n"
    assert (said.code, said.err) == (0, line)


@pytest.fixture
def odd(sounds):
    """Two of the sounds are converted, one is silent and one clipped."""
    folder, _ = sounds
    soundfile.write(folder / "3.flac", np.stack([tone(rate=48_000)] * 2, 1), 48_000)
    soundfile.write(folder / "4.flac", tone(rate=8_000), 8_000)
    soundfile.write(folder / "5.flac", 0 * tone(), RATE)
    soundfile.write(folder / "6.flac", tone(loudness=4.0).clip(-1, 1), RATE)
    converted = f"{folder / '3.flac'}: 2 channels mixed into one; 48,000 Hz resampled to 16,000."
    said = "1 × 2 channels mixed into one, 1 × 48,000 Hz resampled to 16,000, 1 × 8,000 Hz resampled to 16,000"
    return folder, [
        f"to know of 2 sounds ({said}), such as: {converted}",
        f"to know of 2 sounds (1 × silent, 1 × clipped), such as: {folder / '5.flac'}: silent.",
        f"to know of 4 sounds ({said}, 1 × silent, 1 × clipped), such as: {converted}",
    ]


def test_what_is_converted_silent_or_clipped_is_said(mmlearn, odd):
    folder, (by_headers, heard, at_once) = odd
    said = mmlearn("data", "show", folder, "--output", "x.png")
    assert (said.code, said.out) == (0, "x.png\n")
    assert said.err.splitlines() == [by_headers, heard]
    said = mmlearn("data", "show", folder, "--output", "x.png", "--count", 1, "--skip-bad")
    assert said.err.splitlines() == [at_once]  # all of each was heard


def test_it_is_said_of_speech_commands_once_they_are_heard(mmlearn, words):
    for path in words.glob("*/abc2_nohash_0.wav"):
        soundfile.write(path, tone(rate=8_000), 8_000)
    said = mmlearn("data", "show", words, "--output", "x.png")
    example = f"{words / 'no' / 'abc2_nohash_0.wav'}: 8,000 Hz resampled to 16,000."
    assert said == (0, "x.png\n", f"to know of 2 sounds (2 × 8,000 Hz resampled to 16,000), such as: {example}\n")


@pytest.mark.parametrize(("few", "workers"), [(False, 0), (True, 0), (True, 2)])
def test_it_is_said_in_training_and_evaluation(mmlearn, odd, monkeypatch, few, workers):
    """Once: before training, of what is heard for the mean of the pictures; else when all was heard."""
    folder, (by_headers, heard, at_once) = odd
    with_images(folder)
    if few:
        monkeypatch.setattr(images, "image_statistics", lambda data: (torch.full((3,), 0.5), torch.full((3,), 0.5)))
    options = ["--image-size", 32, "--vocab-size", 300, "--workers", workers]
    said = mmlearn("train", "clip", "--data", folder, "--steps", 4, "--batch-size", 4, *options, "--output", "run")
    lines = [line.partition(", such as")[0] for line in said.err.splitlines() if line.startswith(("to know", "clip:"))]
    clip = next(line for line in lines if line.startswith("clip:"))
    first, second = (line.partition(", such as")[0] for line in (by_headers, heard))
    assert lines == ([first, clip, second] if few else [first, second, clip])
    said = mmlearn("evaluate", "run", "--data", folder, "--split", "train")
    assert (said.code, said.err.splitlines()) == (0, [at_once])
    said = mmlearn("evaluate", "run", "--data", folder, "--split", "train", "--skip-bad")
    assert (said.code, said.err.splitlines()) == (0, [at_once])


BAD = {
    "missing.wav": (None, "There is no sound"),
    "empty.ogg": (b"", "is empty (0 bytes)"),
    "picture.ogg": (b"\x89PNG\r\n\x1a\n" + bytes(99), "(Format not recognised); expected WAV, FLAC, Ogg"),
    "video.m4a": (b"\x00\x00\x00\x20ftypM4A " + bytes(99), "(Format not recognised); expected WAV, FLAC, Ogg"),
    "page.mp3": (b"<html>not found</html>", "(Format not recognised); expected WAV, FLAC, Ogg"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_told_in_one_line(fails, sounds, name):
    folder, bad = sounds
    content, says = BAD[name]
    bad(name, content)
    fails("data", "show", folder, says=[str(folder / name), says])


def test_bad_files_are_left_out_and_counted(mmlearn, sounds):
    folder, bad = sounds
    for name, (content, _) in BAD.items():
        bad(name, content)
    soundfile.write(folder / "cut.wav", tone(), RATE)
    bad("cut.wav", (folder / "cut.wav").read_bytes()[:999])
    soundfile.write(folder / "nan.wav", np.nan * tone(), RATE, subtype="FLOAT")
    bad("nan.wav")
    said = mmlearn("data", "show", folder, "--output", "x.png", "--count", 1, "--skip-bad")
    assert (said.code, said.out) == (0, "x.png\n")
    (line,) = said.err.splitlines()
    assert line == f"left out 7 sounds, such as: There is no sound {folder / 'missing.wav'}."


def test_all_bad(fails, sounds):
    folder, _ = sounds
    for path in folder.glob("*.flac"):
        path.write_bytes(b"")
    fails("data", "show", folder, "--skip-bad", says=f"{folder} has no train sounds that can be read.")


def test_a_system_that_reads_images_needs_them(works, fails, sounds, words, tmp_path):
    folder, _ = sounds
    options = ["--steps", 1, "--batch-size", 4, "--output", tmp_path / "run"]
    for data in (folder, words):
        fails(
            *("train", "clip", "--data", data, *options),
            says="clip reads pictures, and these samples have none: use other data.",
            after_progress=True,  # that a batch is smaller
        )
    works("train", "clip", "--data", "emoji", "--image-size", 32, *options)
    for data in (folder, words):
        fails(
            *("evaluate", tmp_path / "run", "--data", data, "--split", "train"),
            says="clip reads pictures, and these samples have none: use other data.",
        )


def with_images(folder):
    """Give each of the sounds a picture."""
    rows = (folder / "captions.csv").read_text().splitlines()[1:]
    for i in range(8):
        Image.new("RGB", (32, 32), (30 * i, 0, 99)).save(folder / f"{i}.png")
    lines = ["sound,caption,split,image", *(f"{row},{i}.png" for i, row in enumerate(rows))]
    (folder / "captions.csv").write_text("\n".join(lines))


def test_images_beside_sounds_can_be_trained_on(works, sounds, tmp_path):
    folder, _ = sounds
    with_images(folder)
    options = ["--steps", 2, "--batch-size", 4, "--image-size", 32, "--vocab-size", 300, "--output", tmp_path / "run"]
    works("train", "clip", "--data", folder, *options)
    assert (tmp_path / "run" / "model.safetensors").is_file()


def test_only_folders_have_bad_files(fails):
    fails("data", "show", "scenes", "--skip-bad", says="scenes has no option --skip-bad")


# Systems that hear.


@pytest.mark.parametrize("system", ["clap", "decoar2", "hubert", "wav2vec2"])
def test_sounds_of_ones_own_are_learned_from(works, sounds, system, tmp_path):
    folder, _ = sounds
    run = tmp_path / "run"
    options = ["--steps", 2, "--batch-size", 4, "--output", run]
    said = works("train", system, "--data", folder, *options)
    assert said.out.startswith("loss ")
    assert "on 8 samples" in said.err
    said = works("evaluate", run, "--data", folder, "--split", "train", "--json")
    rows = {row["measure"]: row for row in json.loads(said.out)}
    wanted = {
        "clap": {"audio to text R@1 of 8", "text to audio median rank"},
        "decoar2": {"L1 distance of masked frames", "perplexity of 32 codes"},
        "hubert": {"masked-cluster accuracy"},
        "wav2vec2": {"masked-frame accuracy", "perplexity of 32 codes"},
    }[system]
    assert wanted <= set(rows)
    assert all(np.isfinite(row["obtained"]) for row in rows.values())


def test_spoken_words_are_learned(mmlearn, works, fails, words, sounds, tmp_path):
    run = tmp_path / "run"
    options = ["--steps", 2, "--batch-size", 2]
    said = works("train", "ast", "--data", words, *options, "--output", run)
    said = mmlearn("evaluate", run, "--data", words, "--split", "train", "--json")
    assert [(row["measure"], row["chance"]) for row in json.loads(said.out)] == [
        ("word accuracy", pytest.approx(2 / 3))
    ]
    folder, _ = sounds
    says = "Captions are told apart here, and these are 8 different ones of 8: use data where each occurs often"
    fails("train", "ast", "--data", folder, *options, "--output", tmp_path / "other", says=says)
    said = fails("evaluate", run, "--data", folder, "--split", "train", says="is none of the 2 names that were learned")


def test_longer_sounds_are_cut_for_a_system_that_takes_less(works, sounds, tmp_path):
    folder, _ = sounds
    soundfile.write(folder / "0.flac", tone(3.0), RATE)
    options = ["--steps", 1, "--batch-size", 8, "--vocab-size", 300, "--output", tmp_path / "run"]
    said = works("train", "clap", "--data", folder, *options)
    assert f"{folder / '0.flac'}: only its first 2.56 s are taken." in said.err
    works("evaluate", tmp_path / "run", "--data", folder, "--split", "train")


def test_a_run_that_hears_goes_on(works, fails, sounds, tmp_path):
    folder, _ = sounds
    data = ["--data", folder, "--batch-size", 4]
    whole, parted = tmp_path / "whole", tmp_path / "parted"
    works("train", "decoar2", *data, "--steps", 4, "--output", whole)
    # The schedule is that of all steps: a run that is stopped after two has the same.
    works("train", "decoar2", *data, "--steps", 4, "--checkpoint-every", 2, "--output", parted)
    (parted / "model.safetensors").unlink()
    for file in (parted / "checkpoints" / "step-00000004").iterdir():
        file.write_bytes(b"")
    works("train", "decoar2", *data, "--steps", 4, "--checkpoint-every", 2, "--resume", "--output", parted)
    assert (parted / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    fails("train", "wav2vec2", *data, "--steps", 4, "--resume", "--output", parted, says="system was 'decoar2', now")
    for path in folder.glob("*.flac"):  # the same captions
        soundfile.write(path, tone(loudness=0.01), RATE)
    fails("train", "decoar2", *data, "--steps", 4, "--resume", "--output", parted, says="was started with other data")
    config = json.loads((parted / "config.json").read_text())
    (parted / "config.json").write_text(json.dumps(config | {"fields": {"mel": {"mean": "loud"}}}))
    fails("train", "decoar2", *data, "--steps", 4, "--resume", "--output", parted, says="or is damaged")


def test_spoken_captions_are_learned_from(mmlearn, works, fails, tmp_path):
    """Those of stamps, in a language that is spoken; only with speech are they asked for."""
    options = ["--steps", 1, "--batch-size", 4, "--vocab-size", 300, "--output", tmp_path / "run"]
    said = works("train", "clap", "--data", "stamps", "--language", "es", *options)
    said = mmlearn("evaluate", tmp_path / "run", "--data", "stamps", "--language", "es", "--limit", 8, "--json")
    assert "audio to text median rank" in said.out
    other = ["--steps", 1, "--output", tmp_path / "other"]
    says = "Nobody says the captions in 'de'; choose from bg, ca, es, fr, ro, ru"
    fails("train", "clap", "--data", "stamps", "--language", "de", *other, says=says)


# What is heard is written.


@pytest.fixture
def whisper(works, sounds, tmp_path):
    """A run that has heard the sounds of a folder, and the folder."""
    folder, _ = sounds
    options = ["--steps", 2, "--batch-size", 4, "--vocab-size", 300, "--output", tmp_path / "run"]
    works("train", "whisper", "--data", folder, *options)
    return tmp_path / "run", folder


def test_what_is_heard_is_written(works, whisper):
    run, folder = whisper
    said = works("evaluate", run, "--data", folder, "--split", "train", "--json")
    assert {row["measure"] for row in json.loads(said.out)} == {
        "next-word accuracy",
        "word error rate",
        "letter error rate",
    }
    one, two = folder / "0.flac", folder / "1.flac"
    said = works("generate", run, "--sound", one, "--language", "French", "--json")
    assert [row["sound"] for row in json.loads(said.out)] == [str(one)]
    said = works("generate", run, "--sound", one, "--sound", two, "--times", "--task", "translate")
    assert [line.partition(": ")[0] for line in said.out.splitlines()] == [str(one), str(two)]


def test_what_cannot_be_heard_is_told(works, fails, whisper):
    run, folder = whisper
    sound = ["generate", run, "--sound", folder / "0.flac"]
    fails("generate", run, says="whisper cannot write without --sound FILE.")
    fails("generate", run, "--image", folder / "0.flac", says="whisper takes no --image FILE: leave it out.")
    fails(*sound, "--language", "frensh", says="knows no language 'frensh'; did you mean 'french'")
    fails(*sound, "--task", "sing", says="There is no task 'sing'; choose from transcribe, translate")
    fails("generate", run, "--sound", folder / "none.flac", says=f"There is no sound {folder / 'none.flac'}.")
    soundfile.write(folder / "3.flac", tone(11.0), RATE)
    fails("generate", run, "--sound", folder / "3.flac", says="3.flac lasts 11 s, and 10.24 s are heard at once")
    soundfile.write(folder / "4.flac", tone(rate=8_000), 8_000)
    with pytest.warns(UserWarning, match=r"4\.flac: 8,000 Hz resampled to 16,000\."):
        works("generate", run, "--sound", folder / "4.flac")


def test_systems_that_hear_nothing_say_so(fails, works, sounds, tmp_path):
    folder, _ = sounds
    options = ["--steps", 1, "--batch-size", 4, "--vocab-size", 300, "--output", tmp_path / "run"]
    works("train", "gpt2", "--data", folder, *options)
    fails("generate", tmp_path / "run", "--sound", folder / "0.flac", says="gpt2 takes no --sound FILE: leave it out.")
    fails("generate", tmp_path / "run", "--language", "fr", says="gpt2 takes no --language: leave it out.")
