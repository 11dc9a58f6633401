"""Every data set through batches and two worker processes: the same as without, from the first batch or a later one."""

import io
import json
import tarfile

import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from mmlearn.data import Batches, PairCollate, Tokenizer, image_statistics, load


def picture(i):
    buffer = io.BytesIO()
    Image.effect_noise((12, 12), 20 + 10 * i).save(buffer, "PNG")
    return buffer.getvalue()


def folder(path):
    lines = [{"image": f"{i}.png", "caption": f"picture {i % 5}", "split": "train"} for i in range(8)]
    for i in range(8):
        (path / f"{i}.png").write_bytes(picture(i))
    (path / "captions.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return load(path, size=16)


def coco(path):
    pytest.importorskip("pycocotools")
    from mmlearn.data.read.coco import CocoCaptions

    for i in range(4):
        (path / f"{i}.png").write_bytes(picture(i))
    images = [{"id": i, "file_name": f"{i}.png"} for i in range(4)]
    annotations = [{"id": 10 + i, "image_id": i % 4, "caption": f"caption {i}"} for i in range(8)]
    (path / "captions.json").write_text(json.dumps({"images": images, "annotations": annotations}))
    return CocoCaptions(path, path / "captions.json", size=16)


def shards(path):
    pytest.importorskip("webdataset")
    from mmlearn.data.read.shards import Shards

    with tarfile.open(path / "0.tar", "w") as archive:
        for i in range(8):
            for name, content in ((f"{i}.png", picture(i)), (f"{i}.txt", f"caption {i}".encode())):
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


@pytest.mark.parametrize("name", SETS)
def test_two_workers_give_the_same_batches(name, tmp_path):
    data = SETS[name](tmp_path)
    captions = [data[i].caption for i in range(8)]
    tokenizer = Tokenizer.train(captions, vocab_size=300, max_length=24)
    mean, std = (part.tolist() for part in image_statistics(data, 8))
    batches = Batches(data, PairCollate(tokenizer, mean=mean, std=std, mark_repeats=True), 3, seed=5)
    steps = range(4, 9)  # from the middle of an epoch into the next
    expected = [batches[step] for step in steps]
    got = list(DataLoader(batches, sampler=steps, batch_size=None, num_workers=2))
    assert len(got) == len(expected)
    for one, other in zip(got, expected):
        assert set(one) == {"image", "tokens", "mask", "caption_id"}
        assert one["image"].isfinite().all()
        for key, value in one.items():
            assert torch.equal(value, other[key]), key
    for step, batch in zip(steps, got):  # and what is in them is what the data set says
        for row, index in enumerate(batches.indices(step)):
            assert tokenizer.decode(batch["tokens"][row]) in data[index].caption.lower()
            image = batch["image"][row] * torch.tensor(std).view(3, 1, 1) + torch.tensor(mean).view(3, 1, 1)
            assert torch.allclose(image, data[index].image, atol=1e-5)
