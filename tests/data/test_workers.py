"""Every data set through batches and two worker processes: the same as without, from the first batch or a later one."""

import io
import json
import pickle
import tarfile

import pytest
import torch
from PIL import Image as Drawing
from torch.utils.data import DataLoader

from mmlearn.data import Batches, Collate, Tokenizer, data_sets, load
from mmlearn.data.fields import Clusters, Image, LogMel, MaskedTokens, MatchLabel, Tokens, Video, Waveform
from mmlearn.layers.config import Config


def image(i):
    buffer = io.BytesIO()
    Drawing.effect_noise((12, 12), 20 + 10 * i).save(buffer, "PNG")
    return buffer.getvalue()


def folder(path):
    lines = [{"image": f"{i}.png", "caption": f"picture {i % 5}", "split": "train"} for i in range(8)]
    for i in range(8):
        (path / f"{i}.png").write_bytes(image(i))
    (path / "captions.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return load(path, size=16)


def coco(path):
    from mmlearn.data.readers.coco import CocoCaptions

    for i in range(4):
        (path / f"{i}.png").write_bytes(image(i))
    images = [{"id": i, "file_name": f"{i}.png"} for i in range(4)]
    annotations = [{"id": 10 + i, "image_id": i % 4, "caption": f"caption {i}"} for i in range(8)]
    (path / "captions.json").write_text(json.dumps({"images": images, "annotations": annotations}))
    return CocoCaptions(path, path / "captions.json", size=16)


def shards(path):
    pytest.importorskip("webdataset")
    from mmlearn.data.readers.shards import Shards

    with tarfile.open(path / "0.tar", "w") as archive:
        for i in range(8):
            for name, content in ((f"{i}.png", image(i)), (f"{i}.txt", f"caption {i}".encode())):
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return Shards(path / "0.tar", size=16)


SETS = {
    "scenes": lambda path: load("scenes", size=24, length=8),
    "emoji": lambda path: load("emoji", "unseen-concept", size=16),
    "emoji-openmoji": lambda path: load("emoji-openmoji", "unseen-both", size=16),
    "folder": folder,
    "coco": coco,
    "shards": shards,
}


SOUNDS = ("scenes-sound", "scenes-video", "talking-lips")


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("name", SETS)
def test_two_workers_give_the_same_batches(name, tmp_path):
    data = SETS[name](tmp_path)
    fields = tuple(field.fitted(data, Config(), 0) for field in (Image(), Tokens(vocab_size=300, max_length=24)))
    batches = Batches(data, Collate(fields), 3, seed=5)
    steps = range(4, 9)  # from the middle of an epoch into the next
    got = list(DataLoader(batches, sampler=steps, batch_size=None, num_workers=2))
    mean, std = (torch.tensor(part).view(3, 1, 1) for part in (fields[0].mean, fields[0].std))
    for step, batch in zip(steps, got, strict=True):
        assert same(batch, batches[step])
        assert set(batch) == {"image", "tokens", "mask", "caption_id"}
        assert batch["image"].isfinite().all()
        for row, index in enumerate(batches.indices(step)):  # and what is in them is what the data set says
            tokens, _ = fields[1].tokenizer([data[index].caption])
            assert torch.equal(batch["tokens"][row], tokens[0, : batch["tokens"].shape[1]])
            assert torch.allclose(batch["image"][row] * std + mean, data[index].image, atol=1e-5)


@pytest.mark.parametrize("name", SOUNDS)
def test_two_workers_hear_and_mask_the_same(name):
    data = load(name, size=24, length=8)
    samples = [data[i] for i in range(8)]
    tokenizer = Tokenizer.train([sample.caption for sample in samples], vocab_size=300)
    fields = (Waveform(), LogMel(mels=20), Clusters(centroids=((0.0,) * 39, (5.0,) * 39)), Tokens(tokenizer))
    fields += () if name == "scenes-sound" else (Video(),)
    batches = Batches(data, Collate(fields, (MatchLabel(), MaskedTokens())), 3, seed=5)
    got = list(DataLoader(batches, sampler=range(1, 4), batch_size=None, num_workers=2))
    assert all(same(batch, batches[step]) for step, batch in zip(range(1, 4), got, strict=True))


@pytest.mark.parametrize("name", SOUNDS)
def test_samples_with_sounds_travel_between_processes_and_say_where_they_are_from(name):
    for split in data_sets()[name].splits:
        sample = load(name, split, size=24, length=3)[2]
        copy = pickle.loads(pickle.dumps(sample))
        assert (copy.caption, copy.source) == (sample.caption, sample.source)
        assert split in sample.source
        assert "2" in sample.source
        assert torch.equal(copy.waveform, sample.waveform)
    assert [x.caption for x in load(name, length=3)] == [load(name)[i].caption for i in range(3)]
