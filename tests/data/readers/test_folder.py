"""A folder of one's own: what its captions file may look like, and what is said of one that is wrong."""

import csv
import json
import pickle
from collections import Counter

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image
from sound_files import tone
from testing_tools import refused

from mmlearn.data import load
from mmlearn.data.readers.folder import Folder
from mmlearn.data.readers.sound import RATE, read_sound

CAPTIONS = [
    "a dog",
    'he said "hello", and left; twice',
    "日本語, πλοίο, 👩\u200d👧, e\u0301té",
    "one line\u2028or two\x85or three",
    "line one\nline two",
    "  spaces around  ",
    "'single' \\ backslash \\n",
    "<b>tag</b>",
]


@pytest.fixture
def folder(tmp_path):
    """A folder with four pictures and sounds; ``write`` gives it a captions file of lines or of text."""
    for i, colour in enumerate(("red", "green", "blue", "white")):
        Image.new("RGB", (8, 8), colour).save(tmp_path / f"{i}.png")
    short = tone(seconds=0.5)
    soundfile.write(tmp_path / "0.wav", short, RATE)
    soundfile.write(tmp_path / "1.flac", np.stack([tone(seconds=0.5, rate=48_000)] * 2, 1), 48_000)
    soundfile.write(tmp_path / "2.ogg", tone(seconds=0.5, rate=8_000), 8_000, format="OGG", subtype="OPUS")
    soundfile.write(tmp_path / "3.mp3", short, RATE)

    def write(content, kind="csv", header=("image", "caption"), encoding="utf-8"):
        path = tmp_path / f"captions.{kind}"
        if isinstance(content, str):
            path.write_text(content, encoding=encoding, newline="")
        elif kind == "csv":
            with path.open("w", encoding=encoding, newline="") as file:
                csv.writer(file).writerows([header, *content])
        else:
            lines = [json.dumps(dict(zip(header, line)), ensure_ascii=False) for line in content]
            path.write_text("\n".join(lines) + "\n", encoding=encoding, newline="")
        return tmp_path

    return write


def said(folder, split="all", error=ValueError, **options):
    """The one line that is said of this folder."""
    with pytest.raises(error) as caught:
        Folder(folder, split, **options)
    text = str(caught.value)
    assert "\n" not in text
    assert str(folder) in text
    return text.replace(str(folder), "FOLDER")


# What may be there.


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_captions_come_back_as_they_were_written(folder, kind):
    data = Folder(folder([(f"{i % 4}.png", caption) for i, caption in enumerate(CAPTIONS)], kind), "all", size=4)
    assert len(data) == len(CAPTIONS)
    assert [data.caption(i) for i in range(len(data))] == [caption.strip() for caption in CAPTIONS]
    assert [data[i].caption for i in range(len(data))] == [caption.strip() for caption in CAPTIONS]
    assert [data[i].source for i in range(len(data))] == [f"{i % 4}.png" for i in range(len(CAPTIONS))]
    assert data[2].image.shape == (3, 4, 4)
    assert data[2].image[:, 0, 0].tolist() == [0, 0, 1]
    assert data.skipped == []


@pytest.mark.parametrize(
    "text",
    [
        "image,caption\n0.png,a dog\n1.png,a cat\n",
        "image,caption\r\n0.png,a dog\r\n\r\n1.png,a cat\r\n",
        "image,caption\n0.png,a dog\n1.png,a cat",  # no end of line
        "\ufeffimage,caption\n0.png,a dog\n1.png,a cat\n",  # a byte-order mark, as spreadsheets write it
        ' Image , Caption \n0.png, a dog\n1.png, "a cat"\n',
        "id,text,file_name\n7,a dog,0.png\n8,a cat,1.png\n",
        '"image","caption"\n"0.png","a dog"\n"1.png","a cat"\n',
    ],
)
def test_ways_to_write_a_table(folder, text):
    data = Folder(folder(text), "all", size=4)
    assert [(entry.image, entry.caption) for entry in data.samples] == [("0.png", "a dog"), ("1.png", "a cat")]


@pytest.mark.parametrize(
    "text",
    [
        '{"image": "0.png", "caption": "a dog"}\n{"image": "1.png", "caption": "a cat"}\n',
        '{"image": "0.png", "caption": "a dog"}\r\n\r\n{"caption": "a cat", "file_name": "1.png", "more": [1]}',
        '\ufeff{"path": "0.png", "text": "a dog"}\n{"path": "1.png", "description": "\\u0061 cat"}\n',
    ],
)
def test_ways_to_write_json_lines(folder, text):
    data = Folder(folder(text, "jsonl"), "all", size=4)
    assert [(entry.image, entry.caption) for entry in data.samples] == [("0.png", "a dog"), ("1.png", "a cat")]


def test_images_may_lie_deeper(folder):
    root = folder([("deep/er/0.jpg", "a dog"), ("deep/../1.png", "a cat")])
    (root / "deep" / "er").mkdir(parents=True)
    Image.new("RGB", (8, 8), "red").save(root / "deep" / "er" / "0.jpg")
    assert len(Folder(root, "all", size=4)) == 2


# Splits.


def in_splits(root, **options):
    """The entries of each split."""
    found = {}
    for split in ("train", "val", "test"):
        try:
            found[split] = Folder(root, split, **options).samples
        except ValueError:  # it is empty
            found[split] = []
    return found


@pytest.mark.parametrize(("kind", "file"), [("image", "0.png"), ("sound", "0.wav")])
def test_splits_are_disjoint_and_together_all(folder, kind, file):
    root = folder([])
    names = [f"n{i}.{file[-3:]}" for i in range(300)]
    for name in names:
        (root / name).write_bytes((root / file).read_bytes())
    lines = [(name, f"caption {i // 2}") for i, name in enumerate(names)]  # each caption twice
    splits = in_splits(folder(lines, header=(kind, "caption")))
    found = [(getattr(entry, kind), entry.caption) for entries in splits.values() for entry in entries]
    assert Counter(found) == Counter(lines)
    assert [(getattr(entry, kind), entry.caption) for entry in Folder(root, "all").samples] == lines
    captions = [{entry.caption for entry in entries} for entries in splits.values()]
    assert sum(map(len, captions)) == len(set.union(*captions)) == 150
    for split, share in (("train", 0.8), ("val", 0.1), ("test", 0.1)):
        assert abs(len(splits[split]) / 2 - 150 * share) < 4 * (150 * share * (1 - share)) ** 0.5
    shuffled = in_splits(folder(lines[::-1], header=(kind, "caption")))  # the order of lines has no part in it
    assert {split: set(entries) for split, entries in shuffled.items()} == {k: set(v) for k, v in splits.items()}


def test_a_image_with_several_captions_stands_in_one_split(folder):
    root = folder([])
    for i in range(60):
        (root / f"n{i}.png").write_bytes((root / "0.png").read_bytes())
    (root / "x").mkdir()
    folder([(prefix + f"n{i}.png", f"{i} {k}") for k, prefix in enumerate(("", "./", "x/../")) for i in range(60)])
    where = [{(root / entry.image).resolve() for entry in entries} for entries in in_splits(root).values()]
    assert sum(map(len, where)) == 60
    assert min(map(len, where)) > 0


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_a_split_column_decides(folder, kind):
    lines = [("0.png", "same", "test"), ("1.png", "same", " val "), ("2.png", "a", "train"), ("3.png", "b", "test")]
    root = folder(lines, kind, header=("image", "caption", "split"))
    found = {split: [entry.image for entry in entries] for split, entries in in_splits(root).items()}
    assert found == {"train": ["2.png"], "val": ["1.png"], "test": ["0.png", "3.png"]}


def test_upper_case_is_no_other_caption(folder):
    for kind in range(12):
        root = folder([("0.png", f"A Dog {kind}"), ("1.png", f"a dog {kind}")])
        assert sorted(map(len, in_splits(root).values())) == [0, 0, 2]


# Sounds.


GOOD = [("0.wav", "a hum"), ("1.flac", "a hum, twice"), ("2.ogg", "πλοίο"), ("3.mp3", "a hum"), ("0.wav", "once more")]
SOUNDS = ("sound", "caption")


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
@pytest.mark.parametrize("header", [SOUNDS, ("audio", "text"), ("recording", "description")])
def test_sounds_and_captions(folder, kind, header):
    root = folder(GOOD, kind, header)
    data = Folder(root, "all")
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


def test_images_beside_sounds(folder):
    lines = [("0.wav", "a hum", "0.png", "Ann"), ("1.flac", "a hum", "sub/blue.png", " Bob ")]
    root = folder(lines, header=("sound", "caption", "picture", "speaker"))
    (root / "sub").mkdir()
    expected = "There is no picture FOLDER/sub/blue.png, though the captions name it. Add --skip-bad to leave out"
    assert said(root, error=FileNotFoundError).startswith(expected)
    Image.new("RGB", (30, 20), "blue").save(root / "sub" / "blue.png")
    data = Folder(root, "all", size=16)
    assert [data[i].image[:, 3, 3].tolist() for i in range(2)] == [[1, 0, 0], [0, 0, 1]]
    assert data[0].image.shape == (3, 16, 16)
    assert [data[i].speaker for i in range(2)] == ["Ann", "Bob"]
    (root / "0.png").write_bytes(b"no picture")
    good = Folder(root, "all", skip_bad=True)
    assert [entry.sound for entry in good.samples] == ["1.flac"]
    assert len(good.skipped) == 1
    assert str(root / "0.png") in good.skipped[0]


def bad_sounds(root):
    """One of each kind, by name, with what is said of it."""
    whole = (root / "0.wav").read_bytes()
    (root / "empty.wav").write_bytes(b"")
    (root / "cut.wav").write_bytes(whole[:9000])
    soundfile.write(root / "hole.ogg", np.tile(tone(seconds=0.5), 20), RATE)
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
        "picture.ogg": "cannot be read as a sound",
        "text.mp3": "expected WAV, FLAC, Ogg, MP3 or the like",
        "codec.wav": "cannot be read as a sound",
        "hole.ogg": "or damaged",
        "cut.flac": "cannot be read as a sound",
        "nan.wav": "NaN or infinite",
        "short.wav": "less than a window",
    }


def test_bad_sounds_are_skipped_and_counted_and_others_are_unharmed(folder):
    root = folder([])
    bad = bad_sounds(root)
    silent, loud = root / "silent.wav", root / "loud.wav"
    soundfile.write(silent, np.zeros(8000), RATE)
    soundfile.write(loud, (9 * tone(seconds=0.5)).clip(-1, 1), RATE)
    lines = [("silent.wav", "nothing"), *((name, "bad") for name in bad), ("empty.wav", "again")]
    data = Folder(folder([*lines, *GOOD, ("loud.wav", "too loud")], header=SOUNDS), "all", skip_bad=True)
    assert [entry.sound for entry in data.samples] == ["silent.wav", *(sound for sound, _ in GOOD), "loud.wav"]
    assert len(data.skipped) == len(bad)
    for (name, says), line in zip(bad.items(), data.skipped):
        assert str(root / name) in line
        assert says in line
        assert "\n" not in line
    assert data.notes[0] == f"{silent}: silent."
    assert data.notes[-1].startswith(f"{loud}: clipped, ")
    assert len(data.notes) == 4
    assert all(len(data[i].waveform) == 8000 for i in range(len(data)))


def test_a_bad_header_is_told_at_once_and_what_is_wrong_inside_when_it_is_read(folder):
    root = folder([])
    for name, says in bad_sounds(root).items():
        folder([*GOOD, (name, "bad")], header=SOUNDS)
        if name in ("hole.ogg", "cut.flac", "nan.wav", "short.wav"):
            data = Folder(root, "all")
            assert data[0].caption == "a hum"
            with pytest.raises(ValueError, match=name) as caught:
                data[5]
            assert says in str(caught.value)
        else:
            text = said(root, error=FileNotFoundError if name == "missing.wav" else ValueError)
            assert f"FOLDER/{name}" in text
            assert says in text


def test_what_is_known_of_sounds_is_noted_without_skip_bad_too(folder):
    root = folder([])
    soundfile.write(root / "silent.wav", np.zeros(8000), RATE)
    soundfile.write(root / "loud.flac", (9 * tone(seconds=0.5, rate=8_000)).clip(-1, 1), 8_000)
    folder([*GOOD, ("silent.wav", "nothing"), ("loud.flac", "too much")], header=SOUNDS)
    data = Folder(root, "all", seconds=0.4)
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


# What is wrong.


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("image,label\n0.png,a dog\n", "FOLDER/captions.csv, line 2: no 'caption'; it has image, label."),
        ("picture,caption\n0.png,a dog\n", "FOLDER/captions.csv, line 2: no 'image'; it has picture, caption."),
        ("image;caption\n0.png;a dog\n", "no 'image'; it has image;caption."),
        ("0.png,a dog\n1.png,a cat\n", "no 'image'; it has 0.png, a dog."),
        ("image,caption\n0.png,a dog\n1.png,\n", "FOLDER/captions.csv, line 3: caption is empty."),
        ("image,caption\n0.png,  \n", "line 2: caption is empty."),
        ("image,caption\n0.png\n", "line 2: caption is empty."),
        ("image,caption\n,a dog\n", "line 2: image is empty."),
        ("image,caption\n0.png,a dog, in the rain\n", "line 2: more columns than the header; quote captions"),
        ('image,caption\n0.png,"a dog\n1.png,a cat\n', "line 2: unexpected end of data; is there a quote too many?"),
        ("image,caption\n" + "0.png,a dog\n" * 3 + "0.png," + "x" * 200_000, "line 5: field larger than field limit"),
        ("image,caption,split\n0.png,a dog,dev\n", "line 2: split is train, val or test, not 'dev'."),
        ("", "FOLDER/captions.csv is empty: write a header and a line for each picture or sound."),
        ("image,caption\n", "FOLDER has no all pictures."),
        ("image,caption\n../secret.png,a dog\n", "line 2: '../secret.png' is outside the folder."),
        ("image,caption\n/etc/passwd,a dog\n", "line 2: '/etc/passwd' is outside the folder."),
        ("image,caption\nx/../../secret.png,a dog\n", "is outside the folder."),
        ("image,caption\na\x00b.png,a dog\n", "line 2: image holds the control character '\\x00'."),
        ("sound,label\n0.wav,a\n", "line 2: no 'caption'; it has sound, label."),
        ("sound,caption\n,a\n", "line 2: sound is empty."),
        ("sound,caption\n../x.wav,a\n", "line 2: '../x.wav' is outside the folder."),
        ("sound,caption,image\n0.wav,a,/etc/passwd\n", "'/etc/passwd' is outside the folder."),
        ("sound,caption,image\n0.wav,a,\n", "line 2: image is empty."),
        ("sound,caption,split\n0.wav,a,train\n", "FOLDER has no val sounds."),
    ],
)
def test_a_table_that_is_wrong(folder, text, expected):
    assert expected in said(folder(text), "val" if "no val" in expected else "all")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"image": "0.png"}\n', "FOLDER/captions.jsonl, line 1: no 'caption'; it has image."),
        ('{"image": "0.png", "caption": ""}\n', "line 1: caption is empty."),
        ('{"image": "0.png", "caption": null}\n', "line 1: caption is empty."),
        ('{"image": "0.png", "caption": ["a dog"]}\n', "line 1: caption is a text, not ['a dog']."),
        ('{"image": "0.png", "caption": 0}\n', "line 1: caption is a text, not 0."),
        ('{"image": "0.png", "caption": false}\n', "line 1: caption is a text, not False."),
        ('{"image": 5, "caption": "a dog"}\n', "line 1: image is a text, not 5."),
        ('{"image": "0.png", "text": 5.5}\n', "line 1: text is a text, not 5.5."),
        (
            '{"image": "0.png", "caption": "a"}\n\n{"image": "0.png", "cap\n',
            "FOLDER/captions.jsonl, line 3 is not JSON:",
        ),
        (
            '["0.png", "a dog"]\n',
            "line 1: expected an object of JSON, such as {\"caption\": …}, got ['0.png', 'a dog'].",
        ),
        ("[" * 100_000, "line 1 is not JSON"),
        ("{}\n", "line 1: no 'image'; it has nothing."),
        ('{"image": "0.png", "caption": "a \\ud83d dog"}', "line 1: caption holds half a character"),
        ('{"image": "0.png", "caption": "a", "split": 1}', "line 1: split is train, val or test, not '1'."),
        ('{"image": "../0.png", "caption": "a"}', "line 1: '../0.png' is outside the folder."),
    ],
)
def test_json_lines_that_are_wrong(folder, text, expected):
    assert expected in said(folder(text, "jsonl"))


@pytest.mark.parametrize("header", [("image", "caption"), SOUNDS])
def test_a_link_that_leads_out_is_outside(folder, tmp_path_factory, header):
    secret = tmp_path_factory.mktemp("outside") / "secret"
    secret.write_bytes(b"")
    root = folder([("link", "a dog")], header=header)
    (root / "link").symlink_to(secret)
    assert "line 2: 'link' is outside the folder." in said(root)


def test_another_encoding(folder):
    text = said(folder("image,caption\n0.png,ein großes Schiff\n", encoding="latin-1"))
    assert text == "FOLDER/captions.csv is not UTF-8 (byte 27); save it as UTF-8."


def test_no_captions_and_no_folder(tmp_path):
    assert "FOLDER has neither captions.csv nor captions.jsonl. Write one" in said(tmp_path, error=FileNotFoundError)
    assert said(tmp_path / "none", error=FileNotFoundError) == "There is no folder FOLDER."
    (tmp_path / "file").write_text("")
    assert said(tmp_path / "file", error=FileNotFoundError) == "There is no folder FOLDER."


def test_an_unknown_split_and_an_empty_one(folder):
    root = folder([("0.png", "a", "train")], header=("image", "caption", "split"))
    refused("no split 'dev'; choose from train, val, test, all", Folder, root, "dev")
    assert said(root, "val") == "FOLDER has no val pictures."


def test_a_missing_image_is_told_at_once(folder):
    root = folder([("0.png", "a dog"), ("missing.png", "a cat")])
    expected = "There is no picture FOLDER/missing.png, though the captions name it. "
    assert said(root, error=FileNotFoundError) == f"{expected}Add --skip-bad to leave out what cannot be read."


def test_a_bad_image_is_told_when_it_is_read(folder):
    root = folder([("0.png", "a dog"), ("bad.png", "a cat")])
    (root / "bad.png").write_text("no picture")
    data = Folder(root, "all", size=4)
    assert data[0].caption == "a dog"
    with pytest.raises(ValueError, match=r"bad\.png is no picture"):
        data[1]


def test_bad_images_are_skipped_and_listed_once_each(folder):
    names = ["0.png", "missing.png", "empty.png", "text.png", "cut.jpg", "1.png", "empty.png", "0.png"]
    root = folder([(name, f"caption {i}") for i, name in enumerate(names)])
    (root / "empty.png").write_bytes(b"")
    (root / "text.png").write_text("image,caption")
    Image.effect_noise((64, 64), 50).save(root / "cut.jpg")
    (root / "cut.jpg").write_bytes((root / "cut.jpg").read_bytes()[:1500])
    data = Folder(root, "all", size=4, skip_bad=True)
    assert [(entry.image, entry.caption) for entry in data.samples] == [
        ("0.png", "caption 0"), ("1.png", "caption 5"), ("0.png", "caption 7")
    ]  # fmt: skip
    assert len(data.skipped) == 4
    for name, line in zip(names[1:5], data.skipped):
        assert str(root / name) in line
    assert all(data[i].image.shape == (3, 4, 4) for i in range(3))


@pytest.mark.parametrize(("kind", "what"), [("image", "pictures"), ("sound", "sounds")])
def test_nothing_left_is_said(folder, kind, what):
    root = folder([("missing", "a dog")], header=(kind, "caption"))
    assert said(root, skip_bad=True) == f"FOLDER has no all {what} that can be read."


def test_load_takes_a_folder_and_its_options(folder):
    root = folder([(f"{i}.png", "a dog", "test") for i in range(4)], header=("image", "caption", "split"))
    for path in (root, str(root)):
        data = load(path, "test", size=6)
        assert isinstance(data, Folder)
        assert data[3].image.shape == (3, 6, 6)
        assert data.holds == "pictures"
    data = load(folder(GOOD, header=SOUNDS), "all", seconds=0.2)
    assert data.holds == "sounds"
    assert data[0].waveform.shape == (3200,)
    assert data[0].notes == (f"{data.folder / '0.wav'}: only its first 0.2 s are taken.",)
    for text in ("", "sound", "\n", "captions\x00"):
        folder(text)
        refused(r"captions|pictures", load, root, "all")


# Lines that are wrong may be left out.


@pytest.mark.parametrize(
    ("text", "kind", "bad"),
    [
        ("image,caption\n0.png,a\n1.png,b,c\n2.png,\n3.png,d\n", "csv", 2),
        ("image,caption\n0.png,a\n1.png,b\x1b[2J\n../0.png,c\n3.png,d\n", "csv", 2),
        ("image,caption,split\n0.png,a,\n1.png,b,dev\n3.png,d,\n", "csv", 1),
        ("image,caption\n0.png,a\n1.png,b" + "x" * 200_000 + "\n3.png,d\n", "csv", 1),
        ('{"image": "0.png", "caption": "a"}\n{"image":\n[1]\n{"image": "3.png", "caption": "d"}', "jsonl", 2),
        ('{"image": "0.png", "caption": "a"}\n{"caption": "b", "image": "1.png", "caption": "c"}\n'
         '{"image": "3.png", "caption": "d"}', "jsonl", 1),
    ],
)  # fmt: skip
def test_lines_that_are_wrong_are_left_out(folder, text, kind, bad):
    root = folder(text, kind)
    assert said(root).endswith("Add --skip-bad to leave out what cannot be read.")
    data = Folder(root, "all", size=4, skip_bad=True)
    assert [entry.caption for entry in data.samples] == ["a", "d"]
    assert len(data.skipped) == bad
    assert all(str(root) in line and "line" in line for line in data.skipped)


def test_lines_in_another_encoding_are_left_out(folder):
    root = folder("image,caption\n0.png,a\n1.png,großes Schiff\n2.png,größer\n3.png,d\n", encoding="latin-1")
    data = Folder(root, "all", size=4, skip_bad=True)
    assert [entry.caption for entry in data.samples] == ["a", "d"]
    assert data.skipped == [f"{root}/captions.csv, line {line} is not UTF-8." for line in (3, 4)]


@pytest.mark.parametrize("names", ["caption,caption", "caption,Caption ", "image,caption"])
def test_two_columns_of_one_name(folder, names):
    root = folder(f"image,{names},,\n0.png,a,b,,\n")
    assert "captions.csv: two columns are called" in said(root, skip_bad=True)
