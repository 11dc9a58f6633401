"""Files that break while they are trained on, and data that are not what a run began with."""

import csv
import json
import shutil

import pytest
import soundfile
import torch
from PIL import Image
from sound_files import tone
from testing_tools import captioned, image_file, refused, write_tar
from torch.utils.data import DataLoader

from mmlearn.data import Batches, load
from mmlearn.data.readers.sound import RATE
from mmlearn.data.readers.stream import ShardStream
from mmlearn.training.data import check_data, described, kept_before, write_marks
from mmlearn.training.loader import LEFT_OUT, gather_bad, recall_bad

COUNT = 12


def image(i):
    return image_file((8, 8), (20 * i, 0, 200))


def images(folder):
    lines = [{"image": f"{i}.png", "caption": f"number {i}", "split": "train"} for i in range(COUNT)]
    for i in range(COUNT):
        (folder / f"{i}.png").write_bytes(image(i))
    (folder / "captions.jsonl").write_text("\n".join(map(json.dumps, lines)))


def sounds(folder):
    with (folder / "captions.csv").open("w", newline="") as file:
        csv.writer(file).writerows(
            [["sound", "caption", "split"], *([f"{i}.wav", f"number {i}", "train"] for i in range(COUNT))]
        )
    for i in range(COUNT):
        soundfile.write(folder / f"{i}.wav", tone(100 + i, seconds=0.1), RATE)


def coco(folder):
    (folder / "train2017").mkdir()
    (folder / "annotations").mkdir()
    for i in range(COUNT):
        (folder / "train2017" / f"{i}.png").write_bytes(image(i))
    images = [{"id": i, "file_name": f"{i}.png"} for i in range(COUNT)]
    annotations = [{"image_id": i, "caption": f"number {i}"} for i in range(COUNT)]
    text = json.dumps({"images": images, "annotations": annotations})
    (folder / "annotations" / "captions_train2017.json").write_text(text)


def shards(folder):
    for k in range(3):
        pairs = ((f"{i:02}", image(i), f"number {i}") for i in range(4 * k, 4 * k + 4))
        write_tar(folder / f"train-{k}.tar", captioned(pairs))


def spoil(folder):
    """Break the fourth sample, and with it nothing else."""
    for path in folder.rglob("3.*"):
        path.write_bytes(b"no longer")
    for path in folder.glob("train-0.tar"):
        path.write_bytes(path.read_bytes().replace(image(3), b"x" * len(image(3))))


KINDS = {"pictures": images, "sounds": sounds, "coco": coco, "shards": shards}


@pytest.fixture(params=KINDS)
def folder(request, tmp_path):
    (tmp_path / "data").mkdir()
    KINDS[request.param](tmp_path / "data")
    return tmp_path / "data"


def numbers(samples):
    return [int(sample.caption.split()[-1]) for sample in samples]


def collate(samples):
    return {"number": torch.tensor(numbers(samples))}


def test_another_sample_takes_the_position_whoever_asks_and_whenever(folder):
    data = load(folder, skip_bad=True)
    whole = numbers(data)
    assert (whole, data.bad) == ([*range(COUNT)], [])
    spoil(folder)
    found = numbers(data)
    assert found == [*range(3), found[3], *range(4, COUNT)]
    assert found[3] != 3
    assert len(data.bad) == len(data.new_bad()) == 1
    assert data.new_bad() == []
    again = load(folder, skip_bad=True, as_before={**data.kept()})  # read anew, as where a run goes on
    assert len(again) == COUNT
    assert numbers([again[3], again[0]]) == [found[3], 0]
    batches = Batches(again, collate, 4)
    steps = range(2, 9)
    for workers in (0, 2):
        loaded = DataLoader(batches, batch_size=None, sampler=steps, num_workers=workers)
        assert [batch["number"].tolist() for batch in loaded] == [
            [found[i] for i in batches.indices(step)] for step in steps
        ]
    ranks = [Batches(again, collate, 4, rank=rank, world=2) for rank in (0, 1)]
    for step in steps:
        assert [i for one in ranks for i in numbers(one.samples(step))] == numbers(batches.samples(step))


def test_without_it_the_message_says_how(folder):
    data = load(folder)
    spoil(folder)
    with pytest.raises(ValueError, match=r"Add --skip-bad to leave out what cannot be read\.") as caught:
        data[3]
    assert "3." in str(caught.value) or "03 in" in str(caught.value)
    assert len(load(folder, skip_bad=True)) == COUNT - 1


def test_where_all_are_broken_it_ends(folder):
    data = load(folder, skip_bad=True)
    shutil.rmtree(folder)
    with pytest.raises(ValueError, match=r"None of 100 \w+ can be read, such as: "):
        data[0]


# Going on.


def begun(data, folder):
    """What a run remembers of its data."""
    folder.mkdir(exist_ok=True)
    write_marks(data, folder)
    return json.loads(json.dumps({"data": described(data)}))


def going_on(folder, config, **options):
    (before,) = kept_before(config, None, None)
    return load(folder, as_before=before, **options)


def test_a_run_goes_on_with_what_was_there(folder, tmp_path):
    run = tmp_path / "run"
    spoil(folder)
    data = load(folder, skip_bad=True)
    config = begun(data, run)
    assert len(data) == COUNT - 1
    same = going_on(folder, config)
    check_data(same, run, config)
    assert numbers(same) == numbers(data) == [*range(3), *range(4, COUNT)]
    assert len(same.skipped) == 1


def test_a_file_that_broke_is_noted_or_refused(folder, tmp_path):
    run = tmp_path / "run"
    config = begun(load(folder), run)
    spoil(folder)
    data = going_on(folder, config, skip_bad=True)
    check_data(data, run, config)
    assert (len(data), len(data.bad)) == (COUNT, 1)
    with pytest.raises(ValueError, match="Add --skip-bad"):
        check_data(going_on(folder, config), run, config)


def test_a_file_that_is_another_is_refused(folder, tmp_path):
    run = tmp_path / "run"
    config = begun(load(folder), run)
    for path in folder.rglob("3.*"):
        path.write_bytes(next(folder.rglob(f"4{path.suffix}")).read_bytes())
    for path in folder.glob("train-0.tar"):
        path.write_bytes(path.read_bytes().replace(image(3), image(5)))
    with pytest.raises(
        ValueError, match=r"was started with other data, or its rows stood in another order: .* changed"
    ):
        check_data(going_on(folder, config, skip_bad=True), run, config)


def test_what_a_shard_lost_keeps_its_position(tmp_path):
    folder, run = tmp_path / "data", tmp_path / "run"
    folder.mkdir()
    shards(folder)
    config = begun(load(folder), run)
    (folder / "train-0.tar").write_bytes((folder / "train-0.tar").read_bytes()[:3000])  # the first two samples stay
    (folder / "train-2.tar").unlink()
    data = going_on(folder, config, skip_bad=True)
    check_data(data, run, config)
    found = numbers(data)
    assert [found[i] for i in (0, 4, 5, 6, 7)] == [0, 4, 5, 6, 7]
    assert len(found) == COUNT
    assert set(found) <= {0, 1, 4, 5, 6, 7}
    with pytest.raises(ValueError, match="Add --skip-bad"):
        check_data(going_on(folder, config), run, config)


def test_a_stream_goes_on_where_a_shard_broke(tmp_path):
    folder, run = tmp_path / "data", tmp_path / "run"
    folder.mkdir()
    shards(folder)
    config = begun(ShardStream(folder), run)
    (folder / "train-0.tar").write_bytes((folder / "train-0.tar").read_bytes()[:3000])
    (before,) = kept_before(config, None, None)
    with pytest.raises(ValueError, match="Add --skip-bad"):
        check_data(ShardStream(folder, as_before=before), run, config)
    data = ShardStream(folder, as_before=before, skip_bad=True)
    check_data(data, run, config)
    assert (data.sizes, len(data.bad)) == ([4, 4, 4], 1)
    shutil.copy(folder / "train-1.tar", folder / "train-0.tar")
    with pytest.raises(ValueError, match="was started with other data"):
        check_data(ShardStream(folder, as_before=before, skip_bad=True), run, config)


@pytest.mark.parametrize(
    "kept", [{"left_out": [5]}, {"left_out": [["a", "b", "c"]]}, {"sizes": ["a"]}, {"counts": {"0.tar": 10**12}}]
)
def test_what_nobody_wrote_is_refused(kept):
    with pytest.raises(ValueError, match="cannot be"):
        kept_before({"data": [{"fingerprint": "", "kept": kept}]}, None, None)


def test_rows_in_another_order_are_refused(tmp_path):
    folder, run = tmp_path / "data", tmp_path / "run"
    folder.mkdir()
    images(folder)
    config = begun(load(folder), run)
    path = folder / "captions.jsonl"
    path.write_text("\n".join(path.read_text().splitlines()[::-1]))
    with pytest.raises(ValueError, match="was started with other data, or its rows stood in another order"):
        check_data(going_on(folder, config), run, config)


def test_made_data_have_no_files(tmp_path):
    data = load("scenes", length=8)
    assert described(data) == [None]
    config = begun(data, tmp_path / "run")
    check_data(data, tmp_path / "run", config)
    assert not list((tmp_path / "run").iterdir())


def test_an_upright_image_beside_a_link_that_leads_out(tmp_path):
    """A link that leads out is one row of many, and may be left out as any other."""
    images(tmp_path)
    Image.new("RGB", (8, 8)).save(tmp_path.parent / "secret.png")
    (tmp_path / "3.png").unlink()
    (tmp_path / "3.png").symlink_to(tmp_path.parent / "secret.png")
    data = load(tmp_path, skip_bad=True)
    assert len(data) == COUNT - 1
    assert "outside the folder" in data.skipped[0]


# Files that are missing when a run goes on.


def spoken(folder):
    for name in ("validation_list.txt", "testing_list.txt"):
        (folder / name).write_text("")
    for number in range(4):
        (folder / "bed").mkdir(exist_ok=True)
        soundfile.write(folder / "bed" / f"{number}_nohash_0.wav", tone(100 + number, seconds=0.1), RATE)
    return lambda before: load(folder, "train", as_before=before), sorted((folder / "bed").iterdir())


def streamed(folder, mode):
    paths = [folder / f"train-{number}.tar" for number in range(4)]
    for i, path in enumerate(paths):
        write_tar(path, [(f"{i}.png", image(i)), (f"{i}.txt", f"number {i}".encode())])
    pattern = folder if mode == "folder" else f"{folder}/train-{{0..3}}.tar"
    return lambda before: ShardStream(pattern, as_before=before), paths


@pytest.mark.parametrize("number", [0, 1, 3])
@pytest.mark.parametrize(
    "make", [spoken, lambda folder: streamed(folder, "folder"), lambda folder: streamed(folder, "pattern")]
)
def test_a_missing_file_is_said_to_be_missing(tmp_path, make, number):
    data, run = tmp_path / "data", tmp_path / "run"
    data.mkdir()
    run.mkdir()
    opened, files = make(data)
    began = opened(None)
    config = {"data": described(began)}
    write_marks(began, run)
    content = files[number].read_bytes()
    files[number].unlink()
    before = files[number - 1] if number else "at the start"
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        check_data(opened(config["data"][0]["kept"]), run, config)
    said = str(caught.value)
    missing = (f"There is no {files[number]} any more", f"There is no shard {files[number]}")
    assert any(text in said for text in missing) or ("1 of its 4 files is missing now" in said and str(before) in said)
    files[number].write_bytes(content)
    check_data(opened(config["data"][0]["kept"]), run, config)


# What was left out before a run stopped.


def test_what_was_left_out_before_counts_when_a_run_goes_on(folder, tmp_path):
    data = load(folder, "train", skip_bad=True)
    gather_bad(data, tmp_path)
    assert not (tmp_path / LEFT_OUT).exists()
    recall_bad(data, tmp_path)
    data.note_bad(["a is broken", "b is broken"])
    gather_bad({None: data, "other": [1]}, tmp_path)
    again = load(folder, "train", skip_bad=True)
    recall_bad({None: again, "other": [1]}, tmp_path)
    again.note_bad(["b is broken", "c is broken"])
    assert again.bad == ["a is broken", "b is broken", "c is broken"]
    assert again.new_bad() == ["c is broken"]


@pytest.mark.parametrize("text", ["[[", "7", "[7]", "[" * 100_000])
def test_a_damaged_list_of_what_was_left_out_is_refused(folder, tmp_path, text):
    (tmp_path / LEFT_OUT).write_text(text)
    refused(rf"{LEFT_OUT} is damaged", recall_bad, load(folder, "train", skip_bad=True), tmp_path)
