"""A folder of one's own: what its captions file may look like, and what is said of one that is wrong."""

import csv
import json
from collections import Counter

import pytest
from PIL import Image

from mmlearn.data import load
from mmlearn.data.read.folder import Folder

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
    """A folder with four pictures; ``write`` gives it a captions file of rows or of text."""
    for i, colour in enumerate(("red", "green", "blue", "white")):
        Image.new("RGB", (8, 8), colour).save(tmp_path / f"{i}.png")

    def write(content, kind="csv", header=("image", "caption"), encoding="utf-8"):
        path = tmp_path / f"captions.{kind}"
        if isinstance(content, str):
            path.write_text(content, encoding=encoding, newline="")
        elif kind == "csv":
            with path.open("w", encoding=encoding, newline="") as file:
                csv.writer(file).writerows([header, *content])
        else:
            lines = [json.dumps(dict(zip(header, row)), ensure_ascii=False) for row in content]
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
    assert data.pairs == [("0.png", "a dog"), ("1.png", "a cat")]


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
    assert data.pairs == [("0.png", "a dog"), ("1.png", "a cat")]


def test_pictures_may_lie_deeper(folder):
    root = folder([("deep/er/0.jpg", "a dog"), ("deep/../1.png", "a cat")])
    (root / "deep" / "er").mkdir(parents=True)
    Image.new("RGB", (8, 8), "red").save(root / "deep" / "er" / "0.jpg")
    assert len(Folder(root, "all", size=4)) == 2


# Splits.


def test_splits_are_disjoint_and_together_all(folder):
    root = folder([(f"{i % 4}.png", "same") for i in range(4)])
    for i in range(300):
        (root / f"n{i}.png").write_bytes((root / "0.png").read_bytes())
    names = [f"n{i}.png" for i in range(300)]
    rows = [(name, f"caption {i // 2}") for i, name in enumerate(names)]  # each caption twice
    root = folder(rows)
    splits = {split: Folder(root, split, size=4).pairs for split in ("train", "val", "test")}
    assert (
        Counter([pair for pairs in splits.values() for pair in pairs])
        == Counter(rows)
        == Counter(Folder(root, "all").pairs)
    )
    captions = [{caption for _, caption in pairs} for pairs in splits.values()]
    assert not captions[0] & captions[1]
    assert not captions[0] & captions[2]
    assert not captions[1] & captions[2]
    for split, share in (("train", 0.8), ("val", 0.1), ("test", 0.1)):
        assert abs(len(splits[split]) / 2 - 150 * share) < 4 * (150 * share * (1 - share)) ** 0.5
    shuffled = folder(rows[::-1])  # the order of lines has no part in it
    assert {split: set(Folder(shuffled, split).pairs) for split in splits} == {k: set(v) for k, v in splits.items()}


def test_a_picture_with_several_captions_stands_in_one_split(folder):
    root = folder([("0.png", "first")])
    for i in range(60):
        (root / f"n{i}.png").write_bytes((root / "0.png").read_bytes())
    root = folder(
        [(prefix + f"n{i}.png", f"{i} {k}") for k, prefix in enumerate(("", "./", "x/../")) for i in range(60)]
    )
    (root / "x").mkdir()
    where = {
        split: {(root / image).resolve() for image, _ in Folder(root, split).pairs}
        for split in ("train", "val", "test")
    }
    assert sum(map(len, where.values())) == 60
    assert min(map(len, where.values())) > 0


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_a_split_column_decides(folder, kind):
    rows = [("0.png", "same", "test"), ("1.png", "same", " val "), ("2.png", "a", "train"), ("3.png", "b", "test")]
    root = folder(rows, kind, header=("image", "caption", "split"))
    assert Folder(root, "test").pairs == [("0.png", "same"), ("3.png", "b")]
    assert Folder(root, "val").pairs == [("1.png", "same")]
    assert Folder(root).pairs == [("2.png", "a")]


def test_upper_case_is_no_other_caption(folder):
    for kind in range(12):
        root = folder([("0.png", f"A Dog {kind}"), ("1.png", f"a dog {kind}")])
        assert sorted(len(_pairs_or_none(root, split)) for split in ("train", "val", "test")) == [0, 0, 2]


def _pairs_or_none(root, split):
    try:
        return Folder(root, split).pairs
    except ValueError:
        return []


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
        ("", "FOLDER has no all pictures."),
        ("image,caption\n", "FOLDER has no all pictures."),
        ("image,caption\n../secret.png,a dog\n", "line 2: '../secret.png' is outside the folder."),
        ("image,caption\n/etc/passwd,a dog\n", "line 2: '/etc/passwd' is outside the folder."),
        ("image,caption\nx/../../secret.png,a dog\n", "is outside the folder."),
        ("image,caption\na\x00b.png,a dog\n", "line 2: 'a\\x00b.png' cannot be a path"),
    ],
)
def test_a_table_that_is_wrong(folder, text, expected):
    assert expected in said(folder(text))


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
        ('["0.png", "a dog"]\n', "line 1: expected an object with image or sound, and caption."),
        ("[" * 100_000, "line 1 is not JSON"),
        ("{}\n", "line 1: no 'image'; it has nothing."),
        ('{"image": "0.png", "caption": "a \\ud83d dog"}', "line 1: caption holds half a character"),
        ('{"image": "0.png", "caption": "a", "split": 1}', "line 1: split is train, val or test, not '1'."),
        ('{"image": "../0.png", "caption": "a"}', "line 1: '../0.png' is outside the folder."),
    ],
)
def test_json_lines_that_are_wrong(folder, text, expected):
    assert expected in said(folder(text, "jsonl"))


def test_a_link_that_leads_out_is_outside(folder, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside")
    root = folder([("link.png", "a dog")])
    Image.new("RGB", (8, 8)).save(outside / "secret.png")
    (root / "link.png").symlink_to(outside / "secret.png")
    assert "line 2: 'link.png' is outside the folder." in said(root)


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
    with pytest.raises(ValueError, match="no split 'dev'; choose from train, val, test, all"):
        Folder(root, "dev")
    assert said(root, "val") == "FOLDER has no val pictures."


def test_a_missing_picture_is_told_at_once(folder):
    root = folder([("0.png", "a dog"), ("missing.png", "a cat")])
    expected = "There is no picture FOLDER/missing.png, though the captions name it."
    assert said(root, error=FileNotFoundError) == expected


def test_a_bad_picture_is_told_when_it_is_read(folder):
    root = folder([("0.png", "a dog"), ("bad.png", "a cat")])
    (root / "bad.png").write_text("no picture")
    data = Folder(root, "all", size=4)
    assert data[0].caption == "a dog"
    with pytest.raises(ValueError, match=r"bad\.png is no picture"):
        data[1]


def test_bad_pictures_are_skipped_and_listed_once_each(folder):
    names = ["0.png", "missing.png", "empty.png", "text.png", "cut.jpg", "1.png", "empty.png", "0.png"]
    root = folder([(name, f"caption {i}") for i, name in enumerate(names)])
    (root / "empty.png").write_bytes(b"")
    (root / "text.png").write_text("image,caption")
    Image.effect_noise((64, 64), 50).save(root / "cut.jpg")
    (root / "cut.jpg").write_bytes((root / "cut.jpg").read_bytes()[:1500])
    data = Folder(root, "all", size=4, skip_bad=True)
    assert data.pairs == [("0.png", "caption 0"), ("1.png", "caption 5"), ("0.png", "caption 7")]
    assert len(data.skipped) == 4
    for name, line in zip(names[1:5], data.skipped):
        assert str(root / name) in line
    assert all(data[i].image.shape == (3, 4, 4) for i in range(3))


def test_nothing_left_is_said(folder):
    root = folder([("missing.png", "a dog")])
    assert said(root, skip_bad=True) == "FOLDER has no all pictures that can be read."


def test_load_takes_a_folder_and_its_options(folder):
    root = folder([(f"{i}.png", "a dog", "test") for i in range(4)], header=("image", "caption", "split"))
    for path in (root, str(root)):
        data = load(path, "test", size=6)
        assert isinstance(data, Folder)
        assert data[3].image.shape == (3, 6, 6)
