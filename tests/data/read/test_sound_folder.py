"""A folder with sounds of one's own: captions, splits, pictures beside sounds, and what is said of bad files."""

import csv
import json
import pickle

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from mmlearn.data import load
from mmlearn.data.read.folder import Folder
from mmlearn.data.read.sound import read_sound
from mmlearn.data.read.sound_folder import SoundFolder, names_sounds

RATE = 16_000


def tone(frequency=440.0, seconds=0.5, rate=RATE):
    return (0.3 * np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


@pytest.fixture
def folder(tmp_path):
    """A folder with a sound of each kind; ``write`` gives it a captions file."""
    soundfile.write(tmp_path / "0.wav", tone(), RATE)
    soundfile.write(tmp_path / "1.flac", np.stack([tone(rate=48_000)] * 2, 1), 48_000)
    soundfile.write(tmp_path / "2.ogg", tone(rate=8_000), 8_000, format="OGG", subtype="OPUS")
    soundfile.write(tmp_path / "3.mp3", tone(), RATE)

    def write(rows, header=("sound", "caption"), kind="csv"):
        if kind == "csv":
            with (tmp_path / "captions.csv").open("w", encoding="utf-8", newline="") as file:
                csv.writer(file).writerows([header, *rows])
        else:
            lines = [json.dumps(dict(zip(header, row))) for row in rows]
            (tmp_path / "captions.jsonl").write_text("\n".join(lines) + "\n")
        return tmp_path

    return write


GOOD = [("0.wav", "a hum"), ("1.flac", "a hum, twice"), ("2.ogg", "πλοίο"), ("3.mp3", "a hum"), ("0.wav", "once more")]


def said(folder, split="all", error=ValueError, **options):
    """The one line that is said of this folder."""
    with pytest.raises(error) as caught:
        SoundFolder(folder, split, **options)
    text = str(caught.value)
    assert "\n" not in text
    assert str(folder) in text
    return text.replace(str(folder), "FOLDER")


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
@pytest.mark.parametrize("header", [("sound", "caption"), ("audio", "text"), ("recording", "description")])
def test_sounds_and_captions(folder, kind, header):
    root = folder(GOOD, header, kind)
    data = SoundFolder(root, "all")
    assert len(data) == 5
    for i, (sound, caption) in enumerate(GOOD):
        sample = data[i]
        assert (sample.source, sample.caption, sample.speaker, sample.image) == (sound, caption, "", None)
        assert data.caption(i) == caption
        assert sample.waveform.shape == (8000,)
        assert torch.equal(sample.waveform, read_sound(root / sound, notes=[]))
    assert data.notes == [
        f"{root / '1.flac'}: 2 channels mixed into one; 48,000 Hz resampled to 16,000.",
        f"{root / '2.ogg'}: 8,000 Hz resampled to 16,000.",
    ]
    assert [data[i].notes for i in (0, 1)] == [(), (data.notes[0],)]
    assert data.skipped == []


def test_load_tells_sounds_from_pictures(folder, tmp_path_factory):
    data = load(folder(GOOD), "all", seconds=0.2)
    assert isinstance(data, SoundFolder)
    assert data[0].waveform.shape == (3200,)
    assert data[0].notes == (f"{data.folder / '0.wav'}: only its first 0.2 s are taken.",)
    pictures = tmp_path_factory.mktemp("pictures")
    Image.new("RGB", (8, 8)).save(pictures / "0.png")
    (pictures / "captions.csv").write_text("image,caption\n0.png,a dog\n")
    assert isinstance(load(pictures, "all"), Folder)
    assert not names_sounds(pictures)
    for text in ("", "sound", "\n", "captions\x00"):
        (pictures / "captions.csv").write_text(text)
        with pytest.raises(ValueError, match=r"captions|pictures"):
            load(pictures, "all")


def test_pictures_beside_sounds(folder):
    rows = [("0.wav", "a hum", "red.png", "Ann"), ("1.flac", "a hum", "sub/blue.png", " Bob ")]
    root = folder(rows, ("sound", "caption", "picture", "speaker"))
    (root / "sub").mkdir()
    Image.new("RGB", (30, 20), "red").save(root / "red.png")
    assert said(root, error=FileNotFoundError).startswith(
        "There is no picture FOLDER/sub/blue.png, though the captions"
    )
    Image.new("RGB", (30, 20), "blue").save(root / "sub" / "blue.png")
    data = SoundFolder(root, "all", size=16)
    assert [data[i].image[:, 3, 3].tolist() for i in range(2)] == [[1, 0, 0], [0, 0, 1]]
    assert data[0].image.shape == (3, 16, 16)
    assert [data[i].speaker for i in range(2)] == ["Ann", "Bob"]
    (root / "red.png").write_bytes(b"no picture")
    good = SoundFolder(root, "all", skip_bad=True)
    assert [row.sound for row in good.rows] == ["1.flac"]
    assert len(good.skipped) == 1
    assert str(root / "red.png") in good.skipped[0]


def test_splits_go_by_caption(folder):
    root = folder(GOOD)
    names = [f"n{i}.wav" for i in range(200)]
    for name in names:
        (root / name).write_bytes((root / "0.wav").read_bytes())
    root = folder([(name, f"caption {i // 4}") for i, name in enumerate(names)])  # four speakers each
    parts = {split: SoundFolder(root, split) for split in ("train", "val", "test")}
    assert sorted(row.sound for data in parts.values() for row in data.rows) == sorted(names)
    captions = [{row.caption for row in data.rows} for data in parts.values()]
    assert sum(map(len, captions)) == len(set.union(*captions)) == 50
    assert len(parts["train"]) > 120
    root = folder([("0.wav", "same", "test"), ("1.flac", "same", "val")], ("sound", "caption", "split"))
    assert [row.sound for row in SoundFolder(root, "val").rows] == ["1.flac"]
    assert said(root, "train") == "FOLDER has no train sounds."
    with pytest.raises(ValueError, match="no split 'dev'; choose from train, val, test, all"):
        SoundFolder(root, "dev")


def bad_files(root):
    """One of each kind, by name, with what is said of it."""
    whole = (root / "0.wav").read_bytes()
    (root / "empty.wav").write_bytes(b"")
    (root / "cut.wav").write_bytes(whole[:9000])
    soundfile.write(root / "hole.ogg", np.tile(tone(), 20), RATE)
    content = bytearray((root / "hole.ogg").read_bytes())
    content[len(content) // 2 : len(content) // 2 + 3000] = bytes(3000)
    (root / "hole.ogg").write_bytes(content)
    (root / "cut.flac").write_bytes((root / "1.flac").read_bytes()[:9000])
    Image.effect_noise((64, 64), 50).save(root / "picture.ogg", format="PNG")
    (root / "text.mp3").write_text("sound,caption")
    (root / "codec.wav").write_bytes(whole[:20] + b"\x61\x01" + whole[22:])
    soundfile.write(root / "nan.wav", np.full(8000, np.nan), RATE, subtype="FLOAT")
    soundfile.write(root / "short.wav", tone(seconds=0.01), RATE)
    return {
        "missing.wav": "There is no sound",
        "empty.wav": "is empty (0 bytes)",
        "cut.wav": "is cut off",
        "hole.ogg": "is damaged",
        "cut.flac": "cannot be read as a sound",
        "picture.ogg": "it is a PNG picture",
        "text.mp3": "it is none of",
        "codec.wav": "its codec, number 0x161, is not supported",
        "nan.wav": "NaN or infinite",
        "short.wav": "less than a window",
    }


def test_bad_sounds_are_skipped_and_counted_and_others_are_unharmed(folder):
    root = folder(GOOD)
    bad = bad_files(root)
    silent, loud = root / "silent.wav", root / "loud.wav"
    soundfile.write(silent, np.zeros(8000), RATE)
    soundfile.write(loud, (9 * tone()).clip(-1, 1), RATE)
    rows = [
        ("silent.wav", "nothing"),
        *((name, "bad") for name in bad),
        ("empty.wav", "again"),
        *GOOD,
        ("loud.wav", ""),
    ]
    rows[-1] = ("loud.wav", "too loud")
    data = SoundFolder(folder(rows), "all", skip_bad=True)
    assert [row.sound for row in data.rows] == ["silent.wav", *(sound for sound, _ in GOOD), "loud.wav"]
    assert len(data.skipped) == len(bad)
    for (name, says), line in zip(bad.items(), data.skipped):
        assert str(root / name) in line
        assert says in line
        assert "\n" not in line
    assert data.notes[0] == f"{silent}: silent."
    assert data.notes[-1].startswith(f"{loud}: clipped, ")
    assert len(data.notes) == 4
    assert all(len(data[i].waveform) == 8000 for i in range(len(data)))


def test_what_is_heard_is_noted_without_skip_bad_too(folder):
    root = folder(GOOD)
    soundfile.write(root / "silent.wav", np.zeros(8000), RATE)
    soundfile.write(root / "loud.flac", (9 * tone(rate=8_000)).clip(-1, 1), 8_000)
    data = SoundFolder(folder([*GOOD, ("silent.wav", "nothing"), ("loud.flac", "too much")]), "all", seconds=0.4)
    by_headers = data.notes
    assert by_headers == data.new_notes()
    assert len(by_headers) == 3
    assert by_headers[2] == f"{root / 'loud.flac'}: 8,000 Hz resampled to 16,000."
    cut = "only its first 0.4 s are taken"
    for _ in range(2):  # nothing is noted twice
        samples = [data[i] for i in range(len(data))]
        assert len(data.notes) == 6
        assert {note for sample in samples for note in sample.notes} == set(data.notes)
        assert f"{root / 'silent.wav'}: {cut}; silent." in data.notes
        assert data.notes[2].startswith(f"{root / 'loud.flac'}: 8,000 Hz resampled to 16,000; {cut}; clipped, ")
    assert len(data.new_notes()) == 6  # all are cut, which no header tells
    assert data.new_notes() == []
    copied = pickle.loads(pickle.dumps(data))
    assert copied.notes == data.notes


@pytest.mark.parametrize("name", ["missing.wav", "empty.wav", "cut.wav", "picture.ogg", "text.mp3", "codec.wav"])
def test_a_bad_header_is_told_at_once(folder, name):
    root = folder(GOOD)
    says = bad_files(root)[name]
    root = folder([*GOOD, (name, "bad")])
    error = FileNotFoundError if name == "missing.wav" else ValueError
    text = said(root, error=error)
    assert f"FOLDER/{name}" in text
    assert says in text


@pytest.mark.parametrize("name", ["hole.ogg", "cut.flac", "nan.wav", "short.wav"])
def test_what_is_wrong_inside_is_told_when_it_is_read(folder, name):
    root = folder(GOOD)
    says = bad_files(root)[name]
    data = SoundFolder(folder([*GOOD, (name, "bad")]), "all")
    assert data[0].caption == "a hum"
    with pytest.raises(ValueError, match=name) as caught:
        data[5]
    assert says in str(caught.value)


def test_nothing_left_is_said(folder):
    assert said(folder([("missing.wav", "a")]), skip_bad=True) == "FOLDER has no all sounds that can be read."


@pytest.mark.parametrize(
    ("rows", "header", "expected"),
    [
        ([("0.wav", "a")], ("sound", "label"), "line 2: no 'caption'; it has sound, label."),
        ([("0.wav", "")], ("sound", "caption"), "line 2: caption is empty."),
        ([("", "a")], ("sound", "caption"), "line 2: sound is empty."),
        ([("../x.wav", "a")], ("sound", "caption"), "line 2: '../x.wav' is outside the folder."),
        ([("0.wav", "a", "/etc/passwd")], ("sound", "caption", "image"), "'/etc/passwd' is outside the folder."),
        ([("0.wav", "a", "")], ("sound", "caption", "image"), "line 2: image is empty."),
        ([("a\x00b", "a")], ("sound", "caption"), "cannot be a path"),
        ([("0.wav", "a", "dev")], ("sound", "caption", "split"), "split is train, val or test, not 'dev'."),
    ],
)
def test_a_table_that_is_wrong(folder, rows, header, expected):
    assert expected in said(folder(rows, header))


def test_a_link_that_leads_out_is_outside(folder, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside") / "x.wav"
    root = folder([("link.wav", "a")])
    soundfile.write(outside, tone(), RATE)
    (root / "link.wav").symlink_to(outside)
    assert "line 2: 'link.wav' is outside the folder." in said(root)


def test_no_folder(tmp_path):
    assert said(tmp_path / "none", error=FileNotFoundError) == "There is no folder FOLDER."
    assert "neither captions.csv nor captions.jsonl" in said(tmp_path, error=FileNotFoundError)
