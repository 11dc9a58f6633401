"""Shards as a stream: who reads which sample, in which order, and what happens where shards are short or damaged."""

import itertools
import json
import tarfile
from collections import Counter

import pytest
import torch
from safetensors.torch import load_file
from stream_in_processes import collate, stopped_and_resumed, train, work
from testing_tools import captioned, image_file, refused, write_tar
from torch.utils.data import DataLoader

from mmlearn.data import Batches, load
from mmlearn.data.readers import stream as module
from mmlearn.data.readers.shards import Shards
from mmlearn.data.readers.stream import ShardStream, StreamBatches
from mmlearn.processes import in_processes

pytest.importorskip("webdataset")
SIZES = (9, 1, 30, 4, 17, 3)  # of shards that are as unlike as can be
TOTAL = sum(SIZES)


def image(i):
    return image_file((8, 8), (i, 255 - i, i % 7))


def files(numbers):
    return captioned((f"{i:03}", image(i), f"number {i}") for i in numbers)


def write_shards(folder, sizes=SIZES):
    """Shards with samples that are numbered from 0 on."""
    folder.mkdir(exist_ok=True)
    start = 0
    for shard, size in enumerate(sizes):
        write_tar(folder / f"train-{shard}.tar", files(range(start, start + size)))
        start += size
    return folder


@pytest.fixture
def shards(tmp_path):
    return write_shards(tmp_path / "shards")


def stream(folder, **options):
    return ShardStream(folder, **dict(size=8, buffer=6) | options)


def numbers(samples):
    return [int(sample.caption.split()[-1]) for sample in samples]


class Worker:
    """What PyTorch says of one of several workers."""

    def __init__(self, workers):
        self.num_workers = workers


def seen(data, monkeypatch, *, world, workers, batch_size, steps, seed=0):
    """The numbers that each process has in each step, as ``DataLoader`` would ask its workers for them."""
    monkeypatch.setattr(module, "get_worker_info", lambda: Worker(workers))
    found = []
    for rank in range(world):
        lanes = [data.batches(collate, batch_size, seed=seed, rank=rank, world=world) for _ in range(workers)]
        found.append([numbers(lanes[step % workers].samples(step)) for step in range(steps)])
    return found


@pytest.mark.parametrize(("world", "workers"), [(1, 1), (2, 1), (4, 1), (2, 2), (4, 3)])
def test_each_sample_is_seen_by_one_process_in_an_epoch(shards, monkeypatch, world, workers):
    data, b = stream(shards), world  # one sample for each process
    epoch = TOTAL // (world * workers) * workers  # steps
    found = seen(data, monkeypatch, world=world, workers=workers, batch_size=b, steps=3 * epoch)
    left = []
    for start in (0, epoch, 2 * epoch):
        counts = Counter(i for steps in found for batch in steps[start : start + epoch] for i in batch)
        assert set(counts.values()) == {1}
        left.append(set(range(TOTAL)) - counts.keys())
        assert len(left[-1]) == TOTAL % (world * workers) < b * workers
    assert {len(steps) for steps in found} == {3 * epoch}  # however long the shards are
    orders = {tuple(i for batch in found[0][start : start + epoch] for i in batch) for start in (0, epoch, 2 * epoch)}
    assert len(orders) == 3
    if left[0]:
        assert len(set(map(tuple, left))) > 1


@pytest.mark.parametrize(("world", "workers", "batch_size"), [(2, 2, 4), (4, 1, 8), (2, 3, 6)])
def test_what_does_not_fill_a_batch_in_every_lane_is_left(shards, monkeypatch, world, workers, batch_size):
    lanes, each = world * workers, batch_size // world
    epoch = TOTAL // (lanes * each) * workers
    found = seen(stream(shards), monkeypatch, world=world, workers=workers, batch_size=batch_size, steps=epoch)
    counts = Counter(i for steps in found for batch in steps for i in batch)
    assert set(counts.values()) == {1}
    assert TOTAL - len(counts) < workers * batch_size
    assert {len(batch) for steps in found for batch in steps} == {each}


def test_over_epochs_no_sample_is_left_always(shards, monkeypatch):
    found = seen(stream(shards), monkeypatch, world=4, workers=1, batch_size=12, steps=5 * 12)  # 60 of 64 in an epoch
    counts = Counter(i for steps in found for batch in steps for i in batch)
    assert counts.keys() == set(range(TOTAL))
    assert max(counts.values()) == 12


def test_batches_are_a_function_of_seed_and_step(shards, monkeypatch):
    options = dict(world=2, workers=2, batch_size=4, steps=40)
    one, two = (seen(stream(shards), monkeypatch, **options) for _ in range(2))
    assert one == two
    assert seen(stream(shards), monkeypatch, **options, seed=1) != one
    monkeypatch.setattr(module, "get_worker_info", lambda: Worker(2))
    for step in (39, 17, 0, 2, 3, 38):  # in any order, by one object
        assert [numbers(stream(shards).batches(collate, 4, rank=r, world=2).samples(step)) for r in (0, 1)] == [
            steps[step] for steps in one
        ]
    jumping = stream(shards).batches(collate, 4, rank=1, world=2)
    assert [numbers(jumping.samples(step)) for step in (39, 17, 19, 0, 2)] == [one[1][i] for i in (39, 17, 19, 0, 2)]


def test_samples_are_mixed_within_shards_and_between_them(shards):
    together = stream(shards, buffer=30).batches(collate, 4)
    order = [i for step in range(16) for i in numbers(together.samples(step))]
    apart = stream(shards, buffer=1).batches(collate, 4)
    plain = [i for step in range(16) for i in numbers(apart.samples(step))]
    positions = [range(start, start + size) for start, size in zip(itertools.accumulate((0, *SIZES)), SIZES)]
    runs = [list(group) for _, group in itertools.groupby(plain, lambda i: next(p for p in positions if i in p))]
    assert sorted(map(len, runs)) == sorted(SIZES)  # without a buffer shard by shard, each in its order,
    assert all(run == sorted(run) for run in runs)
    assert [run[0] for run in runs] != [position[0] for position in positions]  # and shards in an order of the epoch
    assert sum(abs(order.index(i) - plain.index(i)) for i in range(TOTAL)) / TOTAL > 5


def test_a_worker_opens_only_the_shards_of_its_part(tmp_path, monkeypatch):
    folder, opened = write_shards(tmp_path / "shards", [8] * 8), []
    real = ShardStream._shard
    monkeypatch.setattr(ShardStream, "_shard", lambda self, url, *part: opened.append(url) or real(self, url, *part))
    found = seen(stream(folder), monkeypatch, world=4, workers=2, batch_size=16, steps=4)
    assert sorted(i for steps in found for batch in steps for i in batch) == list(range(64))
    assert len(opened) == len(set(opened)) == 8


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_workers_of_a_loader_read_what_is_said_of_them(shards, monkeypatch, workers):
    batches = stream(shards).batches(collate, 4, rank=1, world=2)
    loaded = DataLoader(batches, batch_size=None, sampler=range(5, 30), num_workers=workers)
    got = [batch["number"].int().tolist() for batch in loaded]
    options = dict(world=2, workers=max(1, workers), batch_size=4, steps=30)
    assert got == seen(stream(shards), monkeypatch, **options)[1][5:]


def test_samples_are_those_that_an_index_has(shards):
    index = Shards([str(path) for path in sorted(shards.iterdir())], size=8)
    known = {index[i].source: index[i] for i in range(len(index))}
    data = stream(shards)
    assert len(data) == len(index) == TOTAL
    batches = data.batches(collate, 8)
    for item in (item for step in range(8) for item in batches.samples(step)):
        expected = known.pop(item.source)
        assert item.caption == expected.caption
        assert torch.equal(item.image, expected.image)
    assert not known


# Resampled.


def test_resampled_shards_are_drawn_with_replacement(shards, monkeypatch):
    data = stream(shards, mode="resampled", length=2000)
    found = seen(data, monkeypatch, world=2, workers=2, batch_size=4, steps=1000)
    lanes = [[i for batch in steps[w::2] for i in batch] for steps in found for w in (0, 1)]
    assert {len(lane) for lane in lanes} == {1000}
    assert len(set(map(tuple, lanes))) == 4  # each draws by itself
    counts = Counter(i for lane in lanes for i in lane)
    assert counts.keys() == set(range(TOTAL))
    for start in itertools.accumulate((0, *SIZES[:-1])):  # 4,000 samples are 375 shards, of which each comes as often
        assert abs(counts[start] - 375 / 6) < 4 * (375 * 1 / 6 * 5 / 6) ** 0.5
    again = seen(stream(shards, mode="resampled", length=2000), monkeypatch, world=2, workers=2, batch_size=4, steps=99)
    assert again == [steps[:99] for steps in found]


def test_resampled_shards_are_drawn_by_the_seed(shards, monkeypatch):
    data, options = stream(shards, mode="resampled", buffer=1), dict(world=1, workers=1, batch_size=4, steps=16)
    one, again, other = (seen(data, monkeypatch, **options, seed=seed) for seed in (0, 0, 1))
    assert one == again != other


def test_resampled_epochs_differ_and_need_no_sizes(shards, monkeypatch):
    pattern = f"pipe:cat {shards}/train-{{0..5}}.tar"
    data = ShardStream(pattern, size=8, buffer=6, mode="resampled", length=40)
    assert (len(data), data.sizes) == (40, [None] * 6)
    (found,) = seen(data, monkeypatch, world=1, workers=1, batch_size=8, steps=10)
    assert found[:5] != found[5:]
    assert len(stream(shards, mode="resampled")) == TOTAL  # where it can be counted, an epoch is as long as all shards


# URLs and sizes.


def test_sizes_are_read_beside_the_shards(shards, tmp_path, monkeypatch):
    sizes = {f"train-{i}.tar": size for i, size in enumerate(SIZES)}
    (shards / "sizes.json").write_text(json.dumps(sizes))
    monkeypatch.setattr(module, "members", None)
    piped = f"pipe:cat {shards}/train-{{0..5}}.tar"
    expected = seen(stream(shards), monkeypatch, world=2, workers=1, batch_size=4, steps=20)
    for pattern in (piped, f"file:{shards}/train-{{0..5}}.tar", [str(shards / "train-{0..2}.tar"), *(
        str(shards / f"train-{i}.tar") for i in (3, 4, 5))]):  # fmt: skip
        data = ShardStream(pattern, size=8, buffer=6)
        assert data.sizes == list(SIZES)
        assert seen(data, monkeypatch, world=2, workers=1, batch_size=4, steps=20) == expected


def test_without_sizes_a_url_is_refused(shards):
    refused("train-0.tar holds is not known: write a sizes.json", ShardStream, f"pipe:cat {shards}/train-{{0..5}}.tar")
    (shards / "sizes.json").write_text("[3]")
    module._sizes_in.cache_clear()
    refused(r'sizes\.json is not as \{"00000\.tar": 9873\}', ShardStream, shards)


def test_what_webdataset_does_not_read_is_not_counted(tmp_path):
    content = [
        ("__meta__/1.png", image(1)),
        ("__meta__/1.txt", b"meta"),
        ("1.png", image(1)),
        ("1.cls", b"7"),
        ("1.TXT", b"number 1"),
        ("2.png", image(2)),
        ("3.txt", b"number 3"),
        ("4.jpg", image(4)),
        ("4.json", b'{"caption": "number 4"}'),
        ("readme", b""),
        ("1.png", image(5)),  # apart from the other of that name, and so a sample of its own
        ("1.txt", b"number 5"),
    ]
    data = stream(write_tar(tmp_path / "0.tar", content))
    assert len(data) == 3
    assert sorted(numbers(data.batches(collate, 3).samples(0))) == [1, 4, 5]


# What is wrong.


def test_a_damaged_shard_is_named_in_one_line(shards):
    path = shards / "train-2.tar"
    whole = path.read_bytes()
    with tarfile.open(path) as archive:
        starts = [item.offset for item in archive]
    data = stream(shards)
    for content in (whole[: starts[7] + 700], whole[: starts[8]], b"x" * len(whole), whole[: starts[4]] + b"y" * 5000):
        path.write_bytes(content)
        batches = data.batches(collate, 8)
        says = r"train-2\.tar is (damaged, or no tar file \(|cut off: it holds)"
        refused(says, lambda each=batches: [each.samples(step) for step in range(8)])
        refused(r"train-2\.tar is (no whole|damaged or cut off)", stream, shards)  # already where it is counted


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.usefixtures("unchecked")
def test_with_skip_bad_the_positions_of_bad_samples_are_taken(shards, tmp_path, monkeypatch, workers):
    """All processes stay in step, and a run that is resumed finds its position."""
    (shards / "sizes.json").write_text(json.dumps({f"train-{i}.tar": size for i, size in enumerate(SIZES)}))
    module._sizes_in.cache_clear()
    path = shards / "train-2.tar"  # numbers 10 to 39
    content = files(range(10, 40))
    content[6] = ("013.png", b"no picture")
    write_tar(path, content)
    with tarfile.open(path) as archive:
        starts = [item.offset for item in archive]
    path.write_bytes(path.read_bytes()[: starts[2 * 20] + 600])  # numbers 10 to 29 are whole
    data = stream(shards, skip_bad=True)
    rows = train(data, tmp_path / "whole", steps=8, workers=workers)
    assert len(rows) == 8
    notes = data.bad
    assert sum("013 in" in note and "is no picture" in note for note in notes) == 1
    assert any("train-2.tar is damaged" in note for note in notes)
    found = {i for line in (tmp_path / "whole" / "seen-0.jsonl").open() for i in json.loads(line)}
    assert found == set(range(TOTAL)) - {13, *range(30, 40)}
    again = stopped_and_resumed(stream(shards, skip_bad=True), tmp_path / "resumed", steps=8, workers=workers)
    assert again == rows[3:]
    with pytest.raises(ValueError, match=r"013 in .* is no picture|train-2\.tar is damaged"):
        train(stream(shards), tmp_path / "strict", steps=8)


def test_nothing_but_bad_shards_ends(tmp_path):
    for i in range(3):
        write_tar(tmp_path / f"train-{i}.tar", [("1.png", image(1))])
    refused("No picture with a caption", stream, tmp_path)
    data = stream(tmp_path, mode="resampled", length=10, skip_bad=True)
    refused(r"No shard holds a picture with a caption; the last was .*\.tar", data.batches(collate, 2).samples, 0)
    refused(r"No picture with a caption can be read in .*train-0\.tar and others", lambda: data.head)
    write_tar(tmp_path / "train-0.tar", [("1.png", b"no"), ("1.txt", b"one"), ("2.png", b"no"), ("2.txt", b"two")])
    bad = stream(tmp_path, skip_bad=True).batches(collate, 2)
    refused("No picture with a caption can be read in", bad.samples, 0)


def test_a_command_that_fails_is_told(shards):
    data = ShardStream("pipe:cat nowhere-{0..1}.tar", mode="resampled", length=10)
    refused(r"pipe:cat nowhere-.\.tar is damaged, or no tar file", data.batches(collate, 2).samples, 0)
    data = stream(shards)
    for path in shards.iterdir():
        path.unlink()
    with pytest.raises(FileNotFoundError, match=r"There is no shard .*train-.\.tar"):
        data.batches(collate, 2).samples(0)


@pytest.mark.parametrize(
    ("says", "options"),
    [
        ("A stream is not 'exakt'; did you mean 'exact'", dict(mode="exakt")),
        ("An exact epoch has all samples", dict(length=10)),
        ("at least 1, got 8, 0 and None", dict(buffer=0)),
    ],
)
def test_settings_that_cannot_be(shards, says, options):
    refused(says, stream, shards, **options)


def test_batches_that_cannot_be(shards, monkeypatch, without):
    data = stream(shards)
    refused("does not divide among 3 processes", data.batches, collate, 8, world=3)
    refused("A batch of 65 cannot be drawn from 64 samples", data.batches, collate, 65)
    refused("cannot be sorted by lengths", data.batches, collate, 8, lengths=[1] * TOTAL)
    monkeypatch.setattr(module, "get_worker_info", lambda: Worker(5))
    refused("64 samples has no batch of 16 for each of 5 workers", data.batches(collate, 16).samples, 0)
    with pytest.raises(FileNotFoundError, match=r"There is no shard .*train-6\.tar"):
        ShardStream(str(shards / "train-{5..6}.tar"))
    (shards / "train-0.tar").rename(shards / "0.tar")
    assert len(stream(shards)) == TOTAL - SIZES[0]
    for path in shards.glob("train-*"):
        path.unlink()
    refused(r"has no shards of train, such as train-0001\.tar; name them so, or give a pattern", stream, shards)
    without("webdataset")
    refused(r"pip install -e '\.\[scale\]'", ShardStream, str(shards / "0.tar"))


# In training.


def test_fields_learn_from_samples_of_many_shards(shards, monkeypatch):
    monkeypatch.setattr(module, "HEAD", 12)
    monkeypatch.setattr(module, "SPREAD", 3)
    head = stream(shards).head
    assert [head.caption(i) for i in range(len(head))] == [
        f"number {i}" for i in (*range(4), *range(10, 14), *range(44, 48))
    ]  # the first four of every second shard
    assert head[5].caption == "number 11"
    assert head[5].image.shape == (3, 8, 8)
    (shards / "sizes.json").write_text(json.dumps({f"train-{i}.tar": size for i, size in enumerate(SIZES)}))
    module._sizes_in.cache_clear()
    write_tar(shards / "train-0.tar", [*files([0]), ("001.png", b"no"), ("001.txt", b"one"), *files([2])])
    (shards / "train-4.tar").write_bytes(b"x" * 5000)
    data = stream(shards, skip_bad=True)
    assert numbers(data.head) == [0, 2, 10, 11, 12, 13]
    assert [note.partition(" is ")[0] for note in data.new_bad()] == [
        f"001 in {shards}/train-0.tar", f"{shards}/train-4.tar"
    ]  # fmt: skip
    assert numbers(data.head)[:2] == [0, 2]
    assert data.new_bad() == []  # each is told once


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("mode", ["exact", "resampled"])
def test_a_resumed_run_goes_on_with_the_next_batch(shards, tmp_path, workers, mode):
    options = dict(steps=12, workers=workers, accumulate=2)  # over several epochs
    rows = train(stream(shards, mode=mode), tmp_path / "whole", **options)
    again = stopped_and_resumed(stream(shards, mode=mode), tmp_path / "resumed", **options)
    assert again == rows[3:]
    one, other = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "resumed"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_processes_see_each_sample_once(tmp_path, monkeypatch):
    """An epoch of 64 samples, and two steps of the next; stopped and resumed, bit for bit."""
    processes, workers = 2, 2
    write_shards(tmp_path / "shards")
    in_processes(work, processes, tmp_path, workers)
    read = [
        [json.loads(line) for line in (tmp_path / "whole" / f"seen-{rank}.jsonl").open()] for rank in range(processes)
    ]
    assert {len(steps) for steps in read} == {10}
    assert {len(batch) for steps in read for batch in steps} == {8 // processes}
    data, epoch = stream(tmp_path / "shards"), []
    planned = seen(data, monkeypatch, world=processes, workers=workers, batch_size=8, steps=10)
    for steps, expected in zip(read, planned):
        assert sorted(steps) == sorted(expected)  # workers write when they are done
        epoch += [i for batch in expected[:8] for i in batch]
    assert sorted(epoch) == list(range(TOTAL))
    one, other = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "resumed"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_an_index_makes_other_batches(shards):
    assert type(stream(shards).batches(collate, 4)) is StreamBatches
    assert type(Batches(load(shards), collate, 4)) is Batches
