"""What goes wrong is told in one line on stderr, with exit code 1 or 2, and leaves nothing half-written."""

import errno
import io
import json
import os
import pickle
import re
import resource
import shutil
import signal
import struct
import subprocess
import sys
import time
import zlib
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmlearn import cli
from mmlearn.data import load
from mmlearn.data.packaged import easy_vqa
from mmlearn.training import checkpoint, loop, runs

# Words that the command does not understand: exit code 2.


TRAIN = ["train", "clip", "--data", "scenes", "--output", "x"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["trian"], "trian"),
        (["train"], "system"),
        (TRAIN[:4], "--output"),
        ([*TRAIN, "--stps", "3"], "--stps"),
        ([*TRAIN, "--steps", "many"], "--steps"),
        ([*TRAIN, "--steps", "0"], "--steps"),
        ([*TRAIN, "--steps", "2.5"], "--steps"),
        ([*TRAIN, "--lr", "0"], "--lr"),
        ([*TRAIN, "--lr", "nan"], "--lr"),
        ([*TRAIN, "--lr", "-1"], "--lr"),
        ([*TRAIN, "--lr", "inf"], "--lr"),
        ([*TRAIN, "--image-size", "1000000"], "--image-size"),
        ([*TRAIN, "--workers", "1000"], "--workers"),
        ([*TRAIN, "--vocab-size", "1000000000"], "--vocab-size"),
        ([*TRAIN, "--steps", "1e99"], "--steps"),
        (["data", "emojy"], "did you mean: mmlearn data show emoji?"),
        ([*TRAIN, "--batch-size", "0"], "--batch-size"),
        ([*TRAIN, "--batch-size", "2.5"], "--batch-size"),
        ([*TRAIN, "--accumulate", "0"], "--accumulate"),
        ([*TRAIN, "--checkpoint-every", "0"], "--checkpoint-every"),
        ([*TRAIN, "--workers", "-1"], "--workers"),
        ([*TRAIN, "--image-size", "0"], "--image-size"),
        ([*TRAIN, "--seed", "-1"], "--seed"),
        ([*TRAIN, "--seed", str(2**70)], "--seed"),
        ([*TRAIN, "--learning-rate", "fast"], "--learning-rate"),
        (["evaluate"], "folder"),
        (["evaluate", "x", "--data", "scenes", "--limit", "1"], "--limit"),
        (["data", "sow"], "sow"),
        (["data", "show"], "name"),
        (["data", "show", "scenes", "--count", "0"], "--count"),
        (["run"], "chapter"),
        (["run", "00", "--seeds", "0"], "--seeds"),
        (["chapters", "surplus"], "surplus"),
        (["--jsn"], "--jsn"),
    ],
)
def test_words_it_does_not_understand(mmlearn, tmp_path, words, says):
    """What is wrong with them is typer's to say; it differs between its versions."""
    said = mmlearn(*words)
    assert (said.code, said.out) == (2, "")
    (line,) = said.err.splitlines()
    assert line.startswith("mmlearn: ")
    assert re.search(r"[.?!] See mmlearn( train| data| run| evaluate| chapters)?( show)? --help\.$", line)
    assert says in line.lower()
    assert not list((tmp_path / "here").iterdir())


# Names that do not exist: exit code 1, and the nearest one.


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["train", "clp"], "There is no system 'clp'; did you mean 'clip'? choose from albef"),
        (["train", "bert"], "bert has no option --image-size: leave it out."),
        (["train", "vatt"], "vatt reads videos, and these samples have none: use --data talking-lips or"),
        (["train", "ast", "--preset", "tinny"], "ASTConfig has no preset 'tinny'; did you mean 'tiny'?"),
        (["train", "unitre"], "did you mean 'uniter'? choose from albef, albert, align, aoa, ast"),
        (["train", "uniter"], "uniter reads regions, which only scenes and collages have: use --data scenes"),
        (["train", "vilbert", "--data", "emoji"], "vilbert reads regions, which only scenes and collages have"),
        (["train", "vilt", "--objectives", "mlm,vqa"], "vqa learns from questions with answers: use --data scenes or"),
        (
            ["train", "vilt", "--objectives", "mln"],
            "There is no objective 'mln' here; did you mean 'mlm'? choose from itm, mlm, vqa.",
        ),
        (["train", "vilt", "--objectives", ""], "There is no objective '' here; choose from itm, mlm, vqa."),
        (
            ["train", "uniter", "--data", "scenes", "--augment"],
            "Nothing can be augmented here, because regions are cut out of pictures",
        ),
        (["train", "clip", "--set", "queue_size=8"], "clip has no setting 'queue_size'; "),
        (["train", "clip", "--set", "dept=8"], "clip has no setting 'dept'; did you mean 'depth'?"),
        (["train", "clip", "--set", "image.dept=8"], "clip has no setting 'image.dept'; did you mean 'image.depth'?"),
        (["train", "clip", "--set", "steps=20"], "steps is an option of its own: --steps 20."),
        (
            ["train", "albef", "--set", "queue_size=25"],
            ["queue of 25 is larger than", "take --set queue_size=16, or another queue_size of at most 16"],
        ),
        (["train", "blip", "--set", "queue_size=4"], "A queue of 4 pairs cannot take 8 at once"),
        (["train", "albef", "--set", "queue_size=0"], "ALBEF needs a queue: queue_size is at least 1, got 0"),
        (["train", "vilt", "--batch-size", "1"], "at least two different captions"),
        (["train", "vilt", "--image-size", "8"], "Pictures of 8 pixels are smaller than a patch of 16"),
        (["train", "vl-bert", "--preset", "bse"], "VLBERTConfig has no preset 'bse'; did you mean 'base'?"),
        (["train", "clip", "--data", "scene"], "no data set and no folder 'scene'; did you mean 'scenes'?"),
        (["train", "clip", "--preset", "tinny"], "CLIPConfig has no preset 'tinny'; did you mean 'tiny'?"),
        (["train", "clip", "--precision", "bf61"], "precision is 'no', 'bf16' or 'fp16', got 'bf61'"),
        (["train", "clip", "--optimizer", "moun"], "no optimiser 'moun'; did you mean 'muon'?"),
        (["train", "clip", "--vocab-size", "7"], "--vocab-size must hold 256 bytes"),
        (["train", "clip", "--language", "de"], "has no option --language"),
        (["train", "clip", "--image-size", "8"], "Pictures of 8 pixels are smaller than a patch of 16"),
        (["train", "clip", "--data", "scenes", "--skip-bad"], "scenes has no option --skip-bad"),
        (["train", "clip", "--data", "emoji", "--language", "dee"], "no names in 'dee'; did you mean 'de'?"),
    ],
)
def test_a_training_that_cannot_be(fails, short, tmp_path, words, says):
    """Later options win over those of a short training that would work."""
    command, system, *options = words
    words = [command, system, *short, "--output", tmp_path / "run", *options]
    fails(*words, says=says, after_progress=True)


@pytest.mark.parametrize("command", [["data", "show"], ["train", "clip", "--output", "x", "--data"]])
def test_data_that_is_not_installed(fails, monkeypatch, command):
    monkeypatch.setattr(easy_vqa, "find_spec", lambda name: None)
    fails(
        *command,
        "easy-vqa",
        says="easy-vqa comes with its author's package; in the clone of mmlearn: pip install -e '.[vqa]'.",
    )


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["data", "show", "emojis"], "no data set and no folder 'emojis'; did you mean 'emoji'?"),
        (["data", "show", "emoji", "--split", "unseen-stile"], "no split 'unseen-stile'; did you mean 'unseen-style'?"),
        (["data", "show", "scenes", "--split", "tran"], "no split 'tran'; did you mean 'train'?"),
        (["run", "08"], "There is no chapter '08'; choose from 00, 00_first_lesson, 07, 07_contrastive"),
        (["run", "contrastiv"], "did you mean '07_contrastive'?"),
        (["run", "07", "--scale", "labtop"], "There is no scale 'labtop'; did you mean 'laptop'?"),
        (["lab", "nowhere"], "mmlearn start nowhere"),
    ],
)
@pytest.mark.usefixtures("notebooks")
def test_names_that_do_not_exist(fails, words, says):
    fails(*words, says=says, after_progress=words[0] == "run")


@pytest.mark.parametrize(
    ("user", "module", "says"),
    [
        (0, "there", "JupyterLab refuses to run as root; be another user, or allow it: jupyter lab --allow-root"),
        (1000, "there", "JupyterLab ended with exit code 1; above it says why."),
        (0, None, "JupyterLab is not installed; in the clone of mmlearn: pip install -e '.[notebooks]'."),
    ],
)
def test_a_jupyter_that_does_not_start(fails, notebooks, monkeypatch, user, module, says):
    monkeypatch.setattr(subprocess, "call", lambda command: 1)
    monkeypatch.setattr(os, "geteuid", lambda: user)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: module)
    fails("lab", says=[says, str(notebooks / "00_first_lesson.ipynb") if "allow-root" in says else ""])


def test_no_chapters_at_all(fails, monkeypatch, tmp_path):
    monkeypatch.setattr("mmlearn.notebooks.PACKAGE", tmp_path / "mmlearn")
    fails("chapters", says="No notebooks came with this installation")


# Folders of the user's own.


@pytest.mark.parametrize("command", ["train", "show", "evaluate"])
@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("no captions", ["neither captions.csv nor captions.jsonl", "image, caption"]),
        ("no column", ["captions.csv, line 2", "'caption'"]),
        ("no picture", ["There is no picture", "gone.png"]),
        ("text for a picture", ["3.png", "is no picture that can be read"]),
    ],
)
def test_folders_with_faults(fails, short, images, run_folder, tmp_path, command, fault, says):
    folder = tmp_path / "own"
    shutil.copytree(images, folder)
    captions = folder / "captions.csv"
    text = captions.read_text()
    if fault == "no captions":
        captions.unlink()
    elif fault == "no column":
        captions.write_text(text.replace("caption", "words"))
    elif fault == "no picture":
        captions.write_text(f"{text}\ngone.png,a thing,train\ngone.png,a thing,test")
    else:
        for path in folder.glob("*.png"):
            path.write_text("text") if path.name == "3.png" or int(path.stem) > 15 else None
        says = says if command != "evaluate" else ["is no picture that can be read"]
    words = {
        "train": ["train", "clip", *short, "--data", folder, "--output", tmp_path / "run"],
        "show": ["data", "show", folder, "--output", tmp_path / "sheet.png"],
        "evaluate": ["evaluate", run_folder, "--data", folder],
    }[command]
    fails(*words, says=says, after_progress=True)


def encoded(form, mode="RGB", **options):
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(noise).convert(mode).save(buffer, form, **options)
    return buffer.getvalue()


def bomb():
    """A PNG of 70 bytes that claims a billion pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", 32_000, 32_000, 8, 2, 0, 0, 0)
    whole = b"\x89PNG\r\n\x1a\n"
    for chunk in (header, b"IDAT" + zlib.compress(b""), b"IEND"):
        whole += struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    return whole


@pytest.mark.parametrize("command", ["train", "show"])
@pytest.mark.parametrize(
    ("content", "says"),
    [
        (encoded("JPEG")[:900], "3.png cannot be read as a picture: image file is truncated"),
        (b"", "3.png is no picture that can be read"),
        (bomb(), "3.png cannot be read as a picture: Image size (1024000000 pixels) exceeds limit"),
    ],
    ids=["cut", "empty", "bomb"],
)
def test_images_that_cannot_be_read(fails, short, images, tmp_path, command, content, says):
    shutil.copytree(images, tmp_path / "own")
    (tmp_path / "own" / "3.png").write_bytes(content)
    words = {
        "train": ["train", "clip", *short, "--data", tmp_path / "own", "--output", tmp_path / "run"],
        "show": ["data", "show", tmp_path / "own", "--output", tmp_path / "sheet.png"],
    }[command]
    fails(*words, says=says, after_progress=True)


def test_unusual_images_and_captions_are_read(works, short, images, tmp_path):
    """CMYK, 16 bits, transparent, animated; and a caption far longer than any context."""
    own = tmp_path / "own"
    shutil.copytree(images, own)
    frames = [Image.new("RGB", (20, 20), name) for name in ("red", "blue")]
    frames[0].save(own / "0.png", "GIF", save_all=True, append_images=frames[1:])
    (own / "1.png").write_bytes(encoded("JPEG", "CMYK"))
    (own / "2.png").write_bytes(encoded("PNG", "RGBA"))
    Image.fromarray(np.arange(1600, dtype=np.uint16).reshape(40, 40) * 40).save(own / "3.png")
    captions = own / "captions.csv"
    captions.write_text(captions.read_text().replace("a grey field", "a grey field" + " and on" * 3000))
    words = ["train", "clip", *short, "--data", own, "--output", tmp_path / "run"]
    for command in (words, ["data", "show", own], ["evaluate", tmp_path / "run", "--data", own]):
        said = works(*command)
        assert "warning" not in said.err.lower()


# Packaged archives.


@pytest.mark.parametrize("damage", ["cut", "overwritten", "empty", "gone"])
@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("emoji/pictures.zip", ["train", "clip", "--data", "emoji"]),
        ("emoji/names.json.gz", ["data", "show", "emoji"]),
        ("emoji-openmoji/pictures.zip", ["data"]),
        ("backbone/mobilenet_v2.safetensors", ["train", "lit"]),
    ],
)
def test_damaged_archives(fails, archive_copy, short, tmp_path, file, words, damage):
    path = archive_copy / file
    content = path.read_bytes()
    half = len(content) // 2
    path.write_bytes({"cut": content[:half], "overwritten": bytes(half) + content[half:]}.get(damage, b""))
    if damage == "gone":
        path.unlink()
    if words[0] == "train":
        words = [*words[:2], *short, *words[2:], "--output", tmp_path / "run"]
    says = [f"{file} is missing" if damage == "gone" else f"{file} is damaged", "Reinstall mmlearn, or run `python -m"]
    fails(*words, says=says, after_progress=True)


def test_a_broken_image_read_by_another_process(mmlearn, short, images, tmp_path, monkeypatch):
    """The error crosses processes with its whole history, of which the user wants the last line."""
    folder = tmp_path / "own"
    shutil.copytree(images, folder)
    real = runs.save_run

    def spoil(*arguments, **options):  # when all have been read once, for the mean of their colours
        for path in folder.glob("*.png"):
            path.write_text("text")
        real(*arguments, **options)

    monkeypatch.setattr(runs, "save_run", spoil)
    words = ["train", "clip", *short, "--data", folder, "--output", tmp_path / "run", "--workers", 1]
    said = mmlearn(*words)
    assert (said.code, said.out) == (1, "")
    says = (
        r"mmlearn: \S+/own/\d+\.png is no picture that can be read \(.*\)\. Add --skip-bad to leave out what cannot be"
    )
    assert re.match(says, said.err.splitlines()[-1])
    assert "Traceback" not in said.err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_image_that_breaks_in_training(mmlearn, works, short, images, tmp_path, monkeypatch, workers):
    """Without --skip-bad it ends the run, which goes on with it; it is named once, and counted at the end."""
    folder = shutil.copytree(images, tmp_path / "own")
    real = loop.save_checkpoint

    def spoil(*arguments, **options):  # after the first step
        real(*arguments, **options)
        for path in folder.glob("1*.png"):
            path.write_text("text")

    monkeypatch.setattr(loop, "save_checkpoint", spoil)
    words = ["train", "clip", *short, "--data", folder, "--output", tmp_path / "run", "--workers", workers]
    words += ["--checkpoint-every", 1, "--steps", 12]
    said = mmlearn(*words)
    assert (said.code, said.out) == (1, "")
    last = said.err.splitlines()[-1]
    says = r"mmlearn: \S+/own/1\d?\.png is no picture .* Add --skip-bad to leave out .*; step (\d+) of 12 is"
    assert 1 <= int(re.match(says, last)[1]) < 12
    assert last.endswith(" saved; add --resume to go on.")
    said = works(*words, "--resume", "--skip-bad")
    count = int(re.search(r"^left out (\d+) in training that could not be read, such as: \S+/own/1", said.err, re.M)[1])
    assert 1 <= count <= len(list(folder.glob("1*.png")))
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 12


# The output folder.


@pytest.fixture(scope="module")
def made_once(images, tmp_path_factory):
    """A finished run."""
    folder = tmp_path_factory.mktemp("made") / "run"
    words = ["--data", images, "--steps", 3, "--batch-size", 8, "--image-size", 32, "--vocab-size", 300]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["mmlearn", "train", "clip", *map(str, words), "--output", str(folder)])
        with pytest.raises(SystemExit) as done:
            cli.main()
    assert done.value.code == 0
    return folder


@pytest.fixture
def run_folder(made_once, tmp_path):
    shutil.copytree(made_once, tmp_path / "finished")
    return tmp_path / "finished"


def test_a_folder_that_holds_a_run(fails, short, run_folder):
    fails("train", "clip", *short, "--output", run_folder, says=["holds a run already; add --resume", "another folder"])
    (run_folder / "config.json").unlink()
    fails("train", "clip", *short, "--output", run_folder, says="holds a model already; give another folder")


def test_what_several_processes_are_for_and_an_average_that_is_not_there(fails, short, run_folder, tmp_path):
    words = ["train", "clip", *short, "--output", tmp_path / "new"]
    fails(*words, "--shard", "--optimizer", "adamw", says="Sharding needs several processes", after_progress=True)
    fails(*words, "--ema", 1.5, says="between 0 and 1, such as 0.9999; got 1.5", after_progress=True)
    fails(*words, "--precision", "fp16", says="'fp16' needs a GPU, and there is none", after_progress=True)
    says = "holds no model-ema.safetensors: it was trained without --ema"
    fails("evaluate", run_folder, "--data", "scenes", "--ema", says=says)


def test_nothing_to_resume(fails, short, tmp_path):
    (tmp_path / "empty").mkdir()
    for name in ("empty", "missing"):
        words = ["train", "clip", *short, "--output", tmp_path / name, "--resume"]
        fails(*words, says=[name, "holds no run to go on with; start it without --resume"])


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--steps", 4], "started with other settings: steps was 3, now 4"),
        (["--seed", 1, "--precision", "bf16"], "seed was 0, now 1; precision was 'no', now 'bf16'"),
        (["--data", "emoji"], "now 'emoji'"),
        (["--image-size", 48], "--image-size was 32, now 48"),
        (["--ema", 0.9], "ema was None, now 0.9"),
    ],
)
def test_resuming_with_other_settings(fails, short, run_folder, more, says):
    fails("train", "clip", *short, "--output", run_folder, "--resume", *more, says=says)


CAPTIONS = ["train", "clip", "--data", "emoji", "--steps", 1, "--batch-size", 4, "--image-size", 32]


def test_resuming_with_other_captions(fails, works, tmp_path):
    """The language is the data's own where none is given."""
    words = [*CAPTIONS, "--vocab-size", 270, "--output", tmp_path / "run"]
    works(*words)
    works(*words, "--language", "en", "--resume")
    says = "started with other settings: --mark-repeats was True, now False; language was 'en', now 'fr'"
    fails(*words, "--language", "fr", "--no-mark-repeats", "--resume", says=says)


@pytest.mark.parametrize(
    ("tokenizer", "says"),
    [
        (None, "tokenizer.json is missing; a trained folder has it beside model.safetensors."),
        ("{}", "tokenizer.json was not written by mmlearn (KeyError"),
    ],
)
def test_resuming_without_the_tokenizer(fails, works, short, run_folder, tokenizer, says):
    """Finished, or with its last checkpoint still to come; where there is none, it starts anew with all its files."""
    path = run_folder / "tokenizer.json"
    whole = path.read_bytes()
    path.unlink() if tokenizer is None else path.write_text(tokenizer)
    words = ["train", "clip", *short, "--output", run_folder, "--resume"]
    fails(*words, says=says)
    (run_folder / "model.safetensors").unlink()
    fails(*words, says=says)
    shutil.rmtree(run_folder / "checkpoints")
    works(*words)
    assert path.read_bytes() == whole


@pytest.mark.parametrize("change", ["a caption", "the order", "a picture"])
def test_resuming_where_the_data_was_changed(fails, works, short, images, tmp_path, change):
    """Also where as many tokens are learned from them, and the model is of the same shape."""
    own = shutil.copytree(images, tmp_path / "own")
    words = ["train", "clip", *short, "--data", own, "--output", tmp_path / "run"]
    works(*words)
    path = own / "captions.csv"
    header, *lines = path.read_text().splitlines()
    if change == "a picture":
        one, other = sorted(own.glob("*.png"))[:2]
        one.write_bytes(other.read_bytes())
    lines = lines[::-1] if change == "the order" else lines
    text = "\n".join([header, *lines]) + "\n"
    path.write_text(text.replace("field", "fjeld") if change == "a caption" else text)
    fails(*words, "--resume", says="was started with other data, or its rows stood in another order")


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (("--image-size", 60), "Pictures of 60 pixels do not divide into patches of 16"),
        (("--batch-size", 1), "clip tells the samples of a batch apart: --batch-size is at least 2, got 1."),
        (("--set", "depth=1000000000"), "depth is at most 1,000, not 1000000000."),
    ],
)
def test_sizes_that_lose_something(fails, short, tmp_path, more, says):
    fails("train", "clip", *short, *more, "--output", tmp_path / "run", says=says)


def test_resuming_another_system(fails, short, run_folder):
    words = ["train", "filip", *short, "--output", run_folder, "--resume"]
    fails(*words, says="system was 'clip', now 'filip'; the model is another one")


@pytest.mark.parametrize("content", ["", "null", "[]", "{}", '{"training": 3}', '{"model_type": "clip"}'])
def test_resuming_from_a_config_of_something_else(fails, short, run_folder, content):
    (run_folder / "config.json").write_text(content)
    words = ["train", "clip", *short, "--output", run_folder, "--resume"]
    fails(*words, says=["config.json was not written by mmlearn train, or is damaged"])


def test_resuming_where_every_checkpoint_is_damaged(short, run_folder):
    (checkpoint,) = run_folder.glob("checkpoints/*")
    (checkpoint / "model.safetensors").write_bytes(b"")
    (run_folder / "model.safetensors").unlink()
    words = ["train", "clip", *map(str, short), "--output", str(run_folder), "--resume"]
    done = subprocess.run([sys.executable, "-m", "mmlearn", *words], capture_output=True, text=True)
    assert done.returncode == 1
    warning, error = done.stderr.splitlines()
    assert warning == f"mmlearn: Passing over {checkpoint}: model.safetensors is damaged."
    assert "holds no whole checkpoint to go on from" in error
    assert (run_folder / "config.json").exists()


@pytest.mark.parametrize("where", ["file", "file/run", "/proc/nowhere/run", "/dev/null"])
def test_an_output_that_cannot_be_written(fails, short, tmp_path, where):
    (tmp_path / "file").write_text("precious")
    output = where if where.startswith("/") else tmp_path / where
    fails("train", "clip", *short, "--output", output, after_progress=True)


def test_a_sheet_that_cannot_be_written(fails, tmp_path):
    (tmp_path / "file").write_text("precious")
    for path in (tmp_path / "file" / "sheet.png", "/proc/nowhere/sheet.png", tmp_path, tmp_path / "sheet.nothing"):
        fails("data", "show", "scenes", "--count", 1, "--output", path)


@pytest.mark.parametrize(
    ("output", "says"),
    [
        ("plot", "plot: a picture's name ends in .png, and that of a page in .html."),
        ("/dev/null", "/dev/null: a picture's name ends in .png"),
        ("plot.docx", "plot.docx: a picture's name ends in .png"),
        (".", ". is a folder; give a file in it that ends in .png, or in .html for a page."),
    ],
)
def test_a_sheet_by_a_name_that_is_no_images(fails, output, says):
    fails("data", "show", "scenes", "--count", 1, "--output", output, says=says)
    assert not list(Path("/dev").glob(".writing-*"))


@contextmanager
def files_of_at_most(size):
    """As on a full disk: more cannot be written to any file. (Python turns the signal for it off.)"""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("size", [0, 100, 5_000, 50_000, 1_000_000])
def test_files_that_grow_too_large(fails, short, tmp_path, size):
    """From the tokenizer to the optimiser's state."""
    with files_of_at_most(size):
        words = ["train", "clip", *short, "--output", tmp_path / "deep" / "run"]
        fails(*words, says="file too large", after_progress=True)
        if size < 5_000:
            fails("data", "show", "scenes", "--count", 1, "--output", tmp_path / "sheet.png", says="file too large")


def test_no_space_left_after_the_first_checkpoint(mmlearn, works, short, tmp_path, monkeypatch):
    """What was good stays, and the run goes on from there once there is space."""
    whole, folder = tmp_path / "whole", tmp_path / "run"
    words = ["train", "clip", *short, "--checkpoint-every", 1]
    mmlearn(*words, "--output", whole)
    real, left = checkpoint._write, [4]  # three files make a checkpoint

    def write(path, tensors):
        left[0] -= 1
        if left[0] < 0:
            path.write_bytes(b"half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        real(path, tensors)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "_write", write)
        said = mmlearn(*words, "--output", folder)
    assert (said.code, said.out) == (1, "")
    file = folder / "checkpoints" / ".writing-00000002"
    last = said.err.splitlines()[-1]
    assert last.startswith(f"mmlearn: {file}")
    assert last.endswith("no space left on device. Mend that, for step 1 of 3 is saved; add --resume to go on.")
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["step-00000001"]
    works(*words, "--output", folder, "--resume")
    assert (folder / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


# Trouble while training.


def test_a_loss_that_is_not_finite(fails, short, tmp_path):
    words = ["train", "clip", *short, "--output", tmp_path / "run", "--learning-rate", 1e38]
    fails(*words, says=["is nan at step", "Lower the learning rate"], after_progress=True)


def test_stopped_before_the_first_checkpoint(mmlearn, short, tmp_path, monkeypatch):
    def step(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "train_step", step)
    said = mmlearn("train", "clip", *short, "--output", tmp_path / "deep" / "run")
    assert (said.code, said.out) == (130, "")
    assert said.err.splitlines()[-1].startswith("mmlearn: stopped")
    assert not (tmp_path / "deep").exists()


def test_files_that_were_there_before_stay(mmlearn, short, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "train_step", lambda *_: 1 / 0)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("precious")
    said = mmlearn("train", "clip", *short, "--output", tmp_path / "run")
    assert said.err.splitlines()[-1].startswith("mmlearn: division by zero (ZeroDivisionError, which was not foreseen")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["notes.txt"]


def test_ctrl_c(short, tmp_path):
    """In a process of its own: one line, exit code 130; its last step is saved, as the line says."""
    words = [*map(str, short), "--steps", "100000", "--checkpoint-every", "2", "--output", str(tmp_path / "run")]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "mmlearn", "train", "clip", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        # In the background of a shell Ctrl-C is ignored, and so it would be in all that is started there.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    for _ in range(4500):
        if len(list(tmp_path.glob("run/checkpoints/step-*"))) >= 2:
            break
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert out == ""
    assert "Traceback" not in err
    last = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])["step"]
    assert err.splitlines()[-1] == f"mmlearn: stopped; step {last} of 100000 is saved; add --resume to go on."
    assert max(path.name for path in tmp_path.glob("run/checkpoints/step-*")) == f"step-{last:08d}"
    assert not list((tmp_path / "run").rglob(".*"))


def test_ctrl_c_in_a_chapter(mmlearn, monkeypatch):
    def stop(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("mmlearn.notebooks.run", stop)
    said = mmlearn("run", "00")
    assert (said.code, said.out) == (130, "")
    assert said.err.splitlines()[1:] == ["mmlearn: stopped."]  # a chapter has no --resume


# Evaluation.


@pytest.fixture(scope="module")
def run_of_regions(tmp_path_factory):
    """A finished run of UNITER."""
    folder = tmp_path_factory.mktemp("regions") / "run"
    made = runs.new_run("uniter", load("scenes", size=32, length=40), options={"vocab_size": 280})
    runs.save_run(made, folder, training={"data": "scenes", "seed": 0})
    checkpoint.save_model(made.system, folder / "model.safetensors")
    return folder


def test_regions_of_other_data(fails, images, run_of_regions):
    for data in ("emoji", images):
        fails("evaluate", run_of_regions, "--data", data, says="uniter reads regions, which only scenes and collages")


def test_resuming_with_other_objectives(fails, run_of_regions):
    words = ["train", "uniter", "--data", "scenes", "--output", run_of_regions, "--resume", "--image-size", 24]
    says = ["objectives was ['mlm', 'mrm', 'itm'], now ['mlm']", "together was False, now T"]
    fails(*words, "--objectives", "mlm", "--together", says=says)


def test_a_folder_without_a_run(fails, tmp_path):
    (tmp_path / "empty").mkdir()
    for name, says in (("empty", "holds no config.json"), ("missing", "There is no folder")):
        words = ["evaluate", tmp_path / name, "--data", "scenes"]
        fails(*words, says=[name, says, "; give the output folder of a finished mmlearn train"])


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_run_with_a_damaged_file(fails, run_folder, name):
    content = (run_folder / name).read_bytes()
    (run_folder / name).write_bytes(content[: len(content) // 2])
    fails("evaluate", run_folder, "--data", "scenes", says=name)
    (run_folder / name).unlink()
    fails("evaluate", run_folder, "--data", "scenes", says=name)


def test_a_run_of_another_system(fails, run_folder):
    settings = json.loads((run_folder / "config.json").read_text())
    (run_folder / "config.json").write_text(json.dumps(settings | {"system": "clpi"}))
    fails("evaluate", run_folder, "--data", "scenes", says=["config.json", "did you mean 'clip'?"])
    (run_folder / "config.json").write_text(json.dumps(settings | {"system": "siglip"}))
    fails("evaluate", run_folder, "--data", "scenes", says=["config.json", "SigLIPConfig has no field"])


def test_weights_and_a_config_that_disagree(fails, run_folder):
    settings = json.loads((run_folder / "config.json").read_text())
    settings["config"]["embedding_width"] = 96
    (run_folder / "config.json").write_text(json.dumps(settings))
    says = ["model.safetensors does not fit its config.json", "text_projection.weight", "96"]
    fails("evaluate", run_folder, "--data", "scenes", says=says)


class Trap:
    """Opened as a pickle, it would leave a folder."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_pickle_in_position_of_weights_is_never_opened(fails, mmlearn, short, run_folder, tmp_path):
    trap = pickle.dumps(Trap(tmp_path / "sprung"))
    (run_folder / "model.safetensors").write_bytes(trap)
    fails("evaluate", run_folder, "--data", "scenes", says="model.safetensors is no whole safetensors file")
    for path in run_folder.glob("checkpoints/*/*.safetensors"):
        path.write_bytes(trap)
    with pytest.warns(UserWarning, match="Passing over"):
        said = mmlearn("train", "clip", *short, "--output", run_folder, "--resume")
    assert said.code == 1
    assert not (tmp_path / "sprung").exists()
    pickle.loads(trap)  # the control
    assert (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--data", "scens"], "did you mean 'scenes'?"),
        (["--data", "emoji", "--split", "unseen"], "emoji has no split 'unseen'"),
        (["--data", "scenes", "--language", "de"], "scenes has no option --language"),
    ],
)
def test_evaluating_on_what_does_not_exist(fails, run_folder, words, says):
    fails("evaluate", run_folder, *words, says=says)


@pytest.mark.parametrize(
    ("captions", "says"),
    [
        (["a dog"], "fewer than two samples in each of its splits"),
        (["a dog", "a dog"], "at least two different captions, and these samples have one"),
    ],
)
def test_evaluating_where_there_is_nothing_to_choose_from(fails, run_folder, tmp_path, captions, says):
    own = tmp_path / "own"
    own.mkdir()
    Image.new("RGB", (32, 32), "red").save(own / "a.png")
    (own / "captions.csv").write_text("\n".join(["image,caption,split", *(f"a.png,{text},test" for text in captions)]))
    fails("evaluate", run_folder, "--data", own, says=says)


# The process itself.


def test_it_runs_as_a_module(tmp_path):
    """Exit codes and streams of ``python -m mmlearn``, without this process's captures."""

    def run(*words):
        command = [sys.executable, "-m", "mmlearn", *words]
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)

    done = run("data", "show", "nothing-like-it")
    assert (done.returncode, done.stdout) == (1, "")
    assert len(done.stderr.splitlines()) == 1
    done = run("nonsense")
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1


def test_the_report_of_a_launcher_ends_with_our_line(tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "1", "-m", "mmlearn"]
    done = subprocess.run([*command, "train", "clip"], capture_output=True, text=True, cwd=tmp_path)
    ours = next(line for line in done.stderr.splitlines() if line.startswith("mmlearn: "))
    *_, last, border = filter(str.strip, done.stderr.splitlines())
    assert done.returncode == 1
    assert last.endswith(ours)
    assert set(border) == {"="}
    assert "During handling" not in done.stderr
    assert "console.py" not in done.stderr  # no traceback of ours


def test_a_reader_that_leaves(tmp_path):
    """``mmlearn … | head`` ends without a word."""
    script = f"{sys.executable} -m mmlearn data --json | true; exit ${{PIPESTATUS[0]}}"
    for buffered in ("", "1"):  # so that the pipe is found broken at the end, or in the middle
        environment = os.environ | {"PYTHONUNBUFFERED": buffered}
        done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, cwd=tmp_path, env=environment)
        assert done.stderr == ""
        assert done.returncode == 1


@pytest.mark.parametrize("closed", ["stdout", "stderr"])
def test_a_stream_that_the_shell_closed(tmp_path, closed):
    """What would go there is not said, and not said elsewhere."""
    descriptor = {"stdout": 1, "stderr": 2}[closed]
    script = f"{sys.executable} -m mmlearn exercises {descriptor}>&-"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0
    assert getattr(done, closed) == ""
    assert ("solved; open one in" in done.stderr) == (closed == "stdout")
    assert "solved; open one in" not in done.stdout


def test_two_processes_share_a_run(short, tmp_path):
    """torchrun: one of them writes, one says the result, and the folder is as that of one process."""
    words = [*map(str, short), "--output", str(tmp_path / "run")]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*command, "-m", "mmlearn", "train", "clip", *words],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(done.stdout.splitlines()) == 1
    assert done.stderr.count("parameters to train on") == 1
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 3
    assert (tmp_path / "run" / "checkpoints" / "step-00000003" / "random-1.safetensors").exists()


def test_grounded_masks_stay_what_they_were(works, fails, tmp_path):
    folder, words = tmp_path / "run", ["--data", "scenes", "--batch-size", 8, "--objectives", "mlm", "--steps", 1]
    words = ["train", "uniter", *words, "--output", folder]
    works(*words, "--mask-grounded")
    assert json.loads((folder / "config.json").read_text())["training"]["mask_grounded"] is True
    fails(*words, "--resume", says="--mask-grounded was True, now None")
    other = ["--data", "scenes", "--output", tmp_path / "other", "--mask-grounded"]
    fails("train", "clip", *other, says="clip hides no words here: leave grounded out")
