"""WebDataset shards: written by webdataset and by tar, read at random, and never read by half."""

import json
import random
import tarfile

import pytest
import torch
from testing_tools import captioned, image_file, refused, write_tar

from mmlearn.data import load
from mmlearn.data.readers.folder import split_of
from mmlearn.data.readers.shards import ShardFolder, Shards, write_shards
from mmlearn.data.synthetic.scenes import Scenes

webdataset = pytest.importorskip("webdataset")
COLOURS = ("red", "green", "blue")


def image(i, form="PNG"):
    return image_file((8, 8), COLOURS[i % 3], form)


def samples(count, start=0):
    return captioned((f"{i:06}", image(i), f" caption {i}\n") for i in range(start, start + count))


def test_shards_that_webdataset_wrote(tmp_path):
    with webdataset.ShardWriter(str(tmp_path / "%05d.tar"), maxcount=4, verbose=0) as writer:
        for i in range(10):
            writer.write({"__key__": f"sample{i:03}", "png": image(i), "txt": f"caption {i}"})
    data = Shards(str(tmp_path / "{00000..00002}.tar"), size=4)
    assert len(data) == 10
    for i in (9, 0, 5, 5):
        assert data[i].caption == f"caption {i}"
        assert data[i].source == f"sample{i:03} in {tmp_path}/{i // 4:05}.tar"
        assert int(data[i].image[:, 2, 2].argmax()) == i % 3
        assert data[i].image.shape == (3, 4, 4)


def test_a_list_of_patterns_and_a_path(tmp_path):
    for shard in "abc":
        write_tar(tmp_path / f"{shard}.tar", samples(2, ord(shard)))
    assert len(Shards([str(tmp_path / "{a,b}.tar"), str(tmp_path / "c.tar")])) == 6
    assert len(Shards(tmp_path / "c.tar")) == 2


def test_captions_in_json_and_other_endings(tmp_path):
    files = [
        ("a/1.jpg", image(0, "JPEG")),
        ("a/1.json", json.dumps({"caption": " one ", "text": "not this"}).encode()),
        ("a/1.cls", b"7"),
        ("b/1.PNG", image(1)),
        ("b/1.TXT", "zwei 日本".encode()),
        ("c.webp", image(2, "WEBP")),
        ("c.caption", b"three"),
        ("d.png", image(0)),
        ("d.json", json.dumps({"caption": "", "text": "four"}).encode()),
    ]
    data = Shards(write_tar(tmp_path / "x.tar", files), size=4)
    assert [data[i].caption for i in range(len(data))] == ["one", "zwei 日本", "three", "four"]
    assert [int(data[i].image[:, 1, 1].argmax()) for i in range(4)] == [0, 1, 2, 0]


def test_what_has_no_caption_or_no_image_is_no_sample(tmp_path):
    files = [("1.png", image(1)), ("2.txt", b"alone"), ("3.png", image(0)), ("3.txt", b"three"), ("README", b"")]
    data = Shards(write_tar(tmp_path / "x.tar", files))
    assert [data[i].caption for i in range(len(data))] == ["three"]
    for files in ([("1.png", image(1))], [("2.txt", b"alone")], [("readme", b"")], []):
        refused(r"No picture with a caption in .*y\.tar", Shards, write_tar(tmp_path / "y.tar", files))


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("1.txt", b" \n", "caption is empty"),
        ("1.json", b'{"caption": ""}', "caption is empty"),
        ("1.json", b"{}", "caption is empty"),
        ("1.json", b"[1]", "expected an object of JSON"),
        ("1.json", b"{", "is not JSON"),
    ],
)
def test_a_sample_that_is_wrong_is_named(tmp_path, name, text, expected):
    data = Shards(write_tar(tmp_path / "x.tar", [("1.png", image(1)), (name, text), *samples(1)]))
    with pytest.raises(ValueError, match=rf"1 in .*x\.tar.*{expected}"):
        data[0]
    assert data[1].caption == "caption 0"


def test_a_image_that_is_none_is_named(tmp_path):
    data = Shards(write_tar(tmp_path / "x.tar", [("1.png", b"no"), ("1.txt", b"one")]))
    with pytest.raises(ValueError, match=r"^1 in .*x\.tar is no picture"):
        data[0]


def test_a_missing_shard_is_named(tmp_path):
    write_tar(tmp_path / "0.tar", samples(1))
    with pytest.raises(FileNotFoundError, match=r"There is no shard .*1\.tar"):
        Shards(str(tmp_path / "{0..1}.tar"))


def test_files_that_are_no_tar(tmp_path):
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("1.png"))
    packed = path.read_bytes()
    for content in (b"", b"hello", packed, b"x" * 5000):
        path.write_bytes(content)
        refused(r"x\.tar is no whole, uncompressed tar file", Shards, path)


def test_a_shard_cut_anywhere_is_noticed(tmp_path):
    """Also between two files, where a reader of tar would see a shorter archive."""
    path = write_tar(tmp_path / "x.tar", samples(3))
    whole = path.read_bytes()
    with tarfile.open(path) as archive:
        starts = [item.offset for item in archive]
        end = archive.offset
    generator = random.Random(0)
    for length in [*starts, *(generator.randrange(end) for _ in range(60)), end - 1, end, end + 100]:
        path.write_bytes(whole[:length])
        refused(r"x\.tar is (no whole|damaged or cut off)", Shards, path)


def test_a_damaged_header_does_not_hide_what_follows(tmp_path):
    path = write_tar(tmp_path / "x.tar", samples(3))
    whole = path.read_bytes()
    with tarfile.open(path) as archive:
        starts = [item.offset for item in archive]
    for start in starts:
        for position in (0, 100, 124, 148):  # name, mode, size, checksum
            content = bytearray(whole)
            content[start + position] ^= 0x55
            path.write_bytes(content)
            refused(r"x\.tar is (no whole|damaged or cut off after 00000)", Shards, path)


def test_without_webdataset_it_says_what_to_install(tmp_path, without):
    without("webdataset")
    refused(r"pip install -e '\.\[scale\]'", Shards, write_tar(tmp_path / "x.tar", samples(1)))


def test_a_shard_that_is_a_link_out_of_its_folder_is_refused(tmp_path):
    write_tar(tmp_path / "elsewhere.tar", samples(4))
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train-0000.tar").symlink_to(tmp_path / "elsewhere.tar")
    refused("'train-0000.tar' is outside the folder", ShardFolder, tmp_path / "data")


@pytest.mark.parametrize("pattern", ["{}-{:04}.tar", "{}/{:04}.tar"])
def test_a_folder_whose_shards_name_their_split(tmp_path, pattern):
    for split, count in (("train", 5), ("test", 2)):
        for shard in range(2):
            path = tmp_path / pattern.format(split, shard)
            path.parent.mkdir(exist_ok=True)
            write_tar(path, samples(count, 10 * shard))
    data = load(tmp_path, size=4)
    assert type(data) is ShardFolder
    assert (len(data), len(load(tmp_path, "test")), len(load(tmp_path, "all"))) == (10, 4, 14)
    assert data.caption(5) == data[5].caption == "caption 10"
    assert data[5].image.shape == (3, 4, 4)
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "deep" / "er" / "train-9.tar").write_text("not looked for")
    assert len(load(tmp_path)) == 10
    refused(r"has no shards of val, such as val-0001\.tar", load, tmp_path, "val")
    refused(r"no split 'tests'; did you mean 'test'", load, tmp_path, "tests")


def test_a_folder_whose_shards_name_none(tmp_path):
    write_tar(tmp_path / "0000.tar", samples(100))
    write_tar(tmp_path / "0001.tar", samples(100, 100))
    parts = {split: {key for key, _, _ in load(tmp_path, split).samples} for split in ("train", "val", "test", "all")}
    assert parts["train"] | parts["val"] | parts["test"] == parts["all"]
    assert sum(map(len, parts.values())) == 2 * len(parts["all"]) == 400
    assert 140 <= len(parts["train"]) <= 175
    assert min(len(parts["val"]), len(parts["test"])) >= 8
    for path in tmp_path.iterdir():
        path.unlink()
    write_tar(tmp_path / "0000.tar", samples(1))
    own = split_of("000000")
    assert len(load(tmp_path, own)) == 1
    for split in {"train", "val", "test"} - {own}:
        refused(f"too few samples to have some for {split}", load, tmp_path, split)


def test_samples_are_read_again_from_shards_of_like_size(tmp_path):
    scenes = list(Scenes("train", size=64, seed=0, length=7))
    paths = write_shards(tmp_path / "new", scenes, 3)
    assert [path.name for path in paths] == ["00000.tar", "00001.tar", "00002.tar"]
    read = Shards([str(path) for path in paths], size=64)
    found = {read[i].caption: read[i].image for i in range(len(read))}
    assert sorted(read[i].caption for i in range(len(read))) == sorted(scene.caption for scene in scenes)
    for scene in scenes:
        torch.testing.assert_close(found[scene.caption], scene.image, atol=1 / 255, rtol=0)
    for k, path in enumerate(paths):
        own = Shards([str(path)])
        assert [own[i].caption for i in range(len(own))] == [scene.caption for scene in scenes[k::3]]


def test_there_is_at_least_one_shard(tmp_path):
    refused("at least one shard, got 0", write_shards, tmp_path, [], 0)
