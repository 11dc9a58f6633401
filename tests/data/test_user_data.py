"""The reader's own pairs: folders, COCO and shards in one call, splits that share nothing, one line for the rest."""

import wave

import pytest
from small_coco import write_coco
from testing_tools import captioned, image_file, refused, write_tar

from mmlearn.data import own_pairs, without_boxes
from mmlearn.data.readers.images import ImageText


def folder(root):
    root.mkdir()
    lines = ["image,caption"]
    for i in range(40):
        (root / f"{i}.png").write_bytes(image_file((9, 7), (i, 0, 0)))
        lines.append(f"{i}.png,field {i}")
    (root / "captions.csv").write_text("\n".join(lines))
    return root


def shards(root):
    pytest.importorskip("webdataset")
    root.mkdir()
    for shard in range(2):
        pairs = ((f"{i:06}", image_file((9, 7), (i, 0, 0)), f"field {i}") for i in range(shard, 60, 2))
        write_tar(root / f"{shard:05}.tar", captioned(pairs))
    return root


def coco(root):
    return write_coco(root, copies=6)


@pytest.mark.parametrize("make", [folder, shards, coco])
def test_any_data_in_three_splits(make, tmp_path):
    root = make(tmp_path / "own")
    splits = {split: own_pairs(root, split, size=12) for split in ("train", "val", "test")}
    sources = {}
    for split, data in splits.items():
        samples = [data[i] for i in range(len(data))]
        assert {type(sample) for sample in samples} == {ImageText}
        assert samples[0].image.shape == (3, 12, 12)
        assert [sample.caption for sample in samples] == [data.caption(i) for i in range(len(data))]
        sources[split] = {sample.source for sample in samples}
    assert not sources["val"] & sources["test"]
    assert make is coco or not (sources["val"] | sources["test"]) & sources["train"]  # there the names are alike
    line = without_boxes(splits["val"])
    assert line.startswith("These data have no boxes, so pointing is not measured")
    assert "\n" not in line


def test_coco_is_whole_in_its_halves(tmp_path):
    root = coco(tmp_path / "coco")
    val, test = (own_pairs(root, split, size=8, boxes=True) for split in ("val", "test"))
    assert len(val) + len(test) == 36
    assert len(val.numbers) == len(val)
    assert len(test) > 5
    assert len(val) > 5
    assert without_boxes(val) == ""
    assert any(test[i].links for i in range(len(test)))


def test_what_is_no_pair_is_said(tmp_path):
    refused("There is no folder 'scenes'; give a folder with captions.csv", own_pairs, "scenes")
    refused("no split 'composition'; choose from train, val, test", own_pairs, tmp_path, "composition")
    (tmp_path / "captions.csv").write_text("sound,caption,split\na.wav,a dog,train\n")
    with wave.open(str(tmp_path / "a.wav"), "wb") as sound:
        sound.setparams((1, 2, 16_000, 0, "NONE", ""))
        sound.writeframes(bytes(range(200)) * 40)
    refused("holds sounds; this needs pictures with captions", own_pairs, tmp_path)
