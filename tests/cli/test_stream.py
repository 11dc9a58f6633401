"""``mmlearn train --stream``."""

import pytest
from testing_tools import captioned, image_file, write_tar

pytest.importorskip("webdataset")
SHORT = ["--steps", 4, "--batch-size", 8, "--image-size", 32, "--vocab-size", 300]


@pytest.fixture
def shards(tmp_path):
    folder = tmp_path / "shards"
    folder.mkdir()
    for shard, size in (("train-0", 9), ("train-1", 20), ("test-0", 8)):
        images = (image_file((40, 40), (10 * i, 0, 200)) for i in range(size))
        pairs = ((f"{i:03}", image, f"picture {i} of {shard}") for i, image in enumerate(images))
        write_tar(folder / f"{shard}.tar", captioned(pairs))
    return folder


def test_a_folder_is_streamed_and_measured(works, fails, shards):
    asked = ["train", "clip", "--data", shards, *SHORT, "--stream", "exact", "--output", "run"]
    said = works(*asked)
    assert "parameters to train on 29 samples" in said.err
    assert said.err.splitlines()[-1] == f"Next: mmlearn evaluate run --data {shards}"
    assert works("evaluate", "run", "--data", shards, "--json").out.startswith("[")
    works(*asked, "--resume")
    fails(*asked, "--workers", 2, "--resume", says=("other settings: stream was 'exact,", "workers 2"))
    fails(*asked[:-4], "--output", "run", "--resume", says="stream was 'exact,")


def test_a_pattern_is_resampled(works, shards):
    pattern = f"pipe:cat {shards}/train-{{0..1}}.tar"
    options = ["--stream", "resampled", "--epoch-samples", 16, "--output", "run", "--skip-bad"]
    said = works("train", "clip", "--data", pattern, *SHORT, *options)
    assert "parameters to train on 16 samples" in said.err
    assert said.err.splitlines()[-1] == "Next: mmlearn evaluate run --data FOLDER"


def test_what_is_left_out_is_told(works, fails, shards):
    path = shards / "train-1.tar"
    path.write_bytes(path.read_bytes().replace(b"\x89PNG", b"xxxx", 1))
    asked = ["train", "clip", "--data", shards, *SHORT, "--stream", "exact", "--output", "run"]
    fails(*asked, says="is no picture that can be read")
    said = works(*asked, "--skip-bad")
    assert "left out 1 in training that could not be read, such as: 000 in" in said.err


def test_what_a_stream_is_not_is_told_in_one_line(fails, shards):
    def refused(system, *options, says):
        fails("train", system, "--data", shards, *SHORT, "--output", "run", *options, says=says)

    refused("clip", "--stream", "random", says="A stream is not 'random'; choose from exact, resampled")
    refused("clip", "--stream", "exact", "--epoch-samples", 9, says="An exact epoch has all samples")
    refused("clip", "--epoch-samples", 9, says="Only of a stream can the samples of an epoch be set")
    refused("clip", "--stream", "exact", "--language", "de", says="A stream has one language")
    alone = ["train", "wav2vec2", "--data", shards, "--output", "run", "--stream", "exact"]
    fails(*alone, says="these samples have none", after_progress=True)  # that a batch is smaller
    for path in shards.glob("train-*"):
        path.write_bytes(b"")
    refused("clip", "--stream", "exact", says="train-0.tar is no whole, uncompressed tar file")
