"""What is written is read again, sample by sample."""

import torch
from testing_tools import refused

from mmlearn.data.made.scenes import Scenes
from mmlearn.data.readers.shard_writer import write_shards
from mmlearn.data.readers.shards import Shards


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
