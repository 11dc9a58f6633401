"""One check of captions, whatever file they come from."""

import json
import tarfile

import pytest
from PIL import Image
from testing_tools import image_file, write_tar

from mmlearn.data.readers.captions import checked
from mmlearn.data.readers.coco import CocoCaptions
from mmlearn.data.readers.folder import Folder
from mmlearn.data.readers.shards import Shards
from mmlearn.data.readers.stream import ShardStream

BAD = {
    "": "caption is empty",
    " \n\t": "caption is empty",
    None: "caption is empty",
    5: "caption is a text, not 5",
    ("a",): r"caption is a text, not \['a'\]",
    "a \ud83d dog": "caption holds half a character",
    "a\0b": r"caption holds the control character '\\x00'",
    "a\x1b[2Jb": r"caption holds the control character '\\x1b'",
    "a\x9bb": r"caption holds the control character '\\x9b'",
}


def jsonl(path, caption):
    Image.new("RGB", (8, 8)).save(path / "0.png")
    (path / "captions.jsonl").write_text(json.dumps({"image": "0.png", "caption": caption}))
    return lambda: Folder(path, "all", size=8)


def csv(path, caption):
    if not isinstance(caption, str) or "\ud83d" in caption or not caption.strip():
        return jsonl(path, caption)
    Image.new("RGB", (8, 8)).save(path / "0.png")
    (path / "captions.csv").write_text(f"image,caption\n0.png,{caption}\n")
    return lambda: Folder(path, "all", size=8)


def coco(path, caption):
    Image.new("RGB", (8, 8)).save(path / "0.png")
    content = {"images": [{"id": 1, "file_name": "0.png"}], "annotations": [{"image_id": 1, "caption": caption}]}
    (path / "captions.json").write_text(json.dumps(content))
    return lambda: CocoCaptions(path, path / "captions.json")


def shard(path, caption):
    files = [("1.png", image_file((8, 8), "red")), ("1.json", json.dumps({"caption": caption}).encode())]
    write_tar(path / "0.tar", files)
    return path / "0.tar"


def shards(path, caption):
    return lambda: Shards(shard(path, caption))[0]


def stream(path, caption):
    data = ShardStream(shard(path, caption))
    return lambda: data.batches(list, 1).samples(0)


@pytest.mark.parametrize("loader", [csv, jsonl, coco, shards, stream])
def test_every_loader_says_the_same(tmp_path, loader):
    for number, (caption, says) in enumerate(BAD.items()):
        (tmp_path / str(number)).mkdir()
        read = loader(tmp_path / str(number), caption)
        with pytest.raises(ValueError, match=rf"{says}.*Add --skip-bad to leave out") as caught:
            read()
        assert str(tmp_path) in str(caught.value)
        assert str(caught.value).isprintable()


def test_ends_of_lines_and_tabs_are_text():
    for text in ("one\ntwo", "one\ttwo", "one\r\ntwo", "one\x85two", "one\u2028two", "日本語", "👩\u200d👧"):
        assert checked(f" {text}\n", "here") == text


def test_a_shard_in_another_encoding(tmp_path):
    write_tar(tmp_path / "0.tar", [("1.png", image_file((8, 8), "red")), ("1.txt", "groß".encode("latin-1"))])
    with pytest.raises(ValueError, match=r"1 in .*0\.tar: caption is not UTF-8 \(byte 3\)"):
        Shards(tmp_path / "0.tar").caption(0)
    assert tarfile.is_tarfile(tmp_path / "0.tar")


def test_a_name_that_stands_twice(tmp_path):
    (tmp_path / "captions.json").write_text('{"images": [], "annotations": [], "images": []}')
    with pytest.raises(ValueError, match="'images' stands twice in one object"):
        CocoCaptions(tmp_path, tmp_path / "captions.json")
