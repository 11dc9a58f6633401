"""Every command does what its help says: results on stdout, progress on stderr, exit code 0."""

import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from contextlib import nullcontext
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
import typer
from PIL import Image
from safetensors.torch import load_file

from mmlearn import __version__ as mmlearn_version
from mmlearn import cli, console, doctor, exercises, objectives, train_command
from mmlearn.data import data_sets, load
from mmlearn.data.fields import Image as Pixels
from mmlearn.data.fields import Regions, TaggedCaptions, Tokens
from mmlearn.data.packaged import easy_vqa
from mmlearn.recipes.discovery import find_recipe, system_files
from mmlearn.training import output
from mmlearn.training.runs import load_run


def reading(*kinds):
    """The systems whose recipes read just these kinds of fields → the names of their objectives."""
    recipes = {name: find_recipe(name) for name in system_files()}
    return {
        name: set(recipe.stages[0].objectives())
        for name, recipe in recipes.items()
        if {type(field) for field in recipe.reads} == set(kinds)
    }


PAIRED = [name for name, learns in reading(Pixels, Tokens).items() if learns == {"itc"}]
ASKED = [name for name, learns in reading(Pixels, Tokens).items() if learns == {"vqa"}]
# UniT also learns from boxes, which a folder of pictures has not; nor has it questions.
PIXELS = {name: learns for name, learns in reading(Pixels, Tokens).items() if name not in [*PAIRED, *ASKED, "unit"]}


def commands(group, path=()):
    """Every command and group with its words."""
    yield path, group
    for name, command in getattr(group, "commands", {}).items():
        yield from commands(command, (*path, name))


COMMANDS = dict(commands(typer.main.get_command(cli.app)))


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_help(mmlearn, words):
    said = mmlearn(*words, "--help")
    assert said.code == 0
    assert said.err == ""
    assert said.out.startswith("Usage: ")
    assert re.search(rf"Example: mmlearn {' '.join(words)}\b", " ".join(said.out.split())), "there is no example"
    command = COMMANDS[words]
    assert command.help.strip().splitlines()[0] in " ".join(said.out.split())
    for parameter in command.params:
        explained = getattr(parameter, "hidden", False) or getattr(parameter, "help", None)
        assert explained, f"{' '.join(words)} {parameter.name} is not explained"


def test_the_commands_are_those_of_the_design():
    top = {words[0] for words in COMMANDS if words}
    assert top == {
        *(
            "chapters",
            "chat",
            "run",
            "start",
            "lab",
            "train",
            "evaluate",
            "generate",
            "convert",
            "data",
            "exercises",
            "doctor",
            "plan",
            "systems",
        )
    }


def test_without_words_it_helps(mmlearn):
    assert mmlearn() == mmlearn("--help") == mmlearn("-h") == mmlearn("help")
    assert mmlearn("help", "train") == mmlearn("train", "-h")


@pytest.mark.parametrize(("typed", "offered"), [("mmlearn ev", "evaluate"), ("mmlearn train --lea", "--learning-rate")])
def test_shells_complete_what_is_typed(typed, offered, tmp_path):
    """In a process of its own, as bash asks for it once --install-completion has told bash of it."""
    position = {"COMP_WORDS": typed, "COMP_CWORD": str(len(typed.split()) - 1), "_MMLEARN_COMPLETE": "complete_bash"}
    command = [sys.executable, "-m", "mmlearn"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=os.environ | position)
    assert done.stdout.split() == [offered]


def test_version(works):
    assert works("--version").out == f"{mmlearn_version}\n"


def test_systems(works, fails):
    """All of them in a table, and of one its presets; how large these should be is tested beside the recipes."""
    rows = json.loads(works("systems", "--json").out)
    assert [row["system"] for row in rows] == list(system_files())
    assert {"system": "clip", "reads": "Image, Tokens", "learns": "itc"}.items() <= {
        row["system"]: row for row in rows
    }["clip"].items()
    assert works("systems", "clip").out.splitlines()[3].split() == ["ViT-B/32", "151277313"]
    fails("systems", "clp", says="There is no system 'clp'; did you mean 'clip'?")
    kept = {row["name"]: row for row in json.loads(works("systems", "--zoo", "--json").out)}
    assert kept["zoo/clip-collages"]["system"] == "clip"
    assert kept["zoo/uniter-collages"]["system"] == "of lesson 08"
    fails("systems", "clip", "--zoo", says="--zoo lists all weights; leave out the name.")


@pytest.mark.parametrize(("text", "steps"), [("500", 500), ("1e3", 1000), ("1_000", 1000), ("1.5e1", 15)])
def test_numbers_of_steps(text, steps):
    assert train_command.count(text) == steps


def test_an_error_that_was_not_foreseen_is_told_in_one_line(mmlearn, monkeypatch):
    class PanicException(BaseException):  # as Rust's
        pass

    for error in (RuntimeError("x\ny"), RecursionError("deep"), PanicException("at the disco"), KeyError("a")):

        def fail(*_, error=error):
            raise error

        monkeypatch.setattr("mmlearn.systems_command.row_of", fail)
        said = mmlearn("systems")
        assert (said.code, said.out) == (1, "")
        (line,) = said.err.splitlines()
        assert line.startswith("mmlearn: ")
        assert line.endswith(f"({type(error).__name__}, which was not foreseen; add --debug to see where).")
        said = mmlearn("systems", "--debug")
        assert "Traceback" in said.err
        assert said.err.splitlines()[-1] == line


def test_control_characters_are_spelled_out_and_long_names_cut(capsys):
    """An escape character in a caption could change what the terminal does."""
    console.say("a\x1b[31mred\x00\x07\u202e\u2028 \x9b Ärger 日本語 🙂")
    assert capsys.readouterr().err == "a\\x1b[31mred\\x00\\x07\\u202e\\u2028 \\x9b Ärger 日本語 🙂\n"
    console.show([{"name\x1b": "a\nb\x1b[2J"}], False)
    assert "\x1b" not in (out := capsys.readouterr().out)
    assert len(out.splitlines()) == 2


def test_convert(mmlearn, tmp_path):
    """Of DeCoAR 2.0, the smallest; tests/pretrained/test_convert.py has all."""
    names = {"post_extract_proj": (64, 10), "encoder.layer_norm": None, "encoder.layers.0.self_attn_layer_norm": None}
    names |= {f"encoder.layers.0.self_attn.{part}_proj": (64, 64) for part in "qkv"}
    names |= {"encoder.layers.0.self_attn.out_proj": (64, 64), "encoder.layers.0.final_layer_norm": None}
    names |= {"encoder.layers.0.fc1": (32, 64), "encoder.layers.0.fc2": (64, 32)}
    weights = {f"{name}.weight": torch.ones(shape or 64) for name, shape in names.items()}
    weights |= {f"{name}.bias": torch.ones(shape[0] if shape else 64) for name, shape in names.items()}
    weights |= {"encoder.pos_conv.0.weight_g": torch.ones(1, 1, 4), "encoder.pos_conv.0.bias": torch.ones(64)}
    weights["encoder.pos_conv.0.weight_v"] = torch.ones(64, 16, 4)
    torch.save({"model": weights}, tmp_path / "released.pt")
    said = mmlearn("convert", tmp_path / "released.pt", tmp_path / "ours")
    assert (said.code, said.out) == (0, f"{tmp_path / 'ours' / 'model.safetensors'}\n")
    assert said.err.startswith(f"{tmp_path / 'released.pt'} is decoar2: ")
    (tmp_path / "released.pt").write_bytes(b"<html>")
    said = mmlearn("convert", tmp_path / "released.pt", tmp_path / "other")
    assert (said.code, said.out, said.err.count("\n")) == (1, "", 1)
    assert "is no whole pickle of PyTorch" in said.err


# Data.


def test_data(mmlearn):
    said = mmlearn("data")
    assert (said.code, said.err) == (0, "")
    for name, make in data_sets().items():
        assert name in said.out.splitlines()
        assert f"licence  {make.licence}" in said.out
    rows = json.loads(mmlearn("data", "--json").out)
    assert [row["name"] for row in rows] == list(data_sets())
    for row in rows:
        assert list(row) == ["name", "licence", "size", "pairs", "shows", "example"]
        if row["name"] == "easy-vqa":
            continue
        assert row["example"]
        for split in data_sets()[row["name"]].splits:
            assert f"{split} {len(load(row['name'], split)):,}" in row["pairs"]


@pytest.mark.skipif(find_spec("easy_vqa") is None, reason="pip install -e '.[vqa]'")
def test_data_that_was_installed_apart(mmlearn, tmp_path):
    row = json.loads(mmlearn("data", "--json").out)[-1]
    assert row["pairs"] == "train 38,575, test 9,673"
    assert row["example"].startswith(("what", "is", "does"))
    said = mmlearn("data", "show", "easy-vqa", "--count", 2, "--output", tmp_path / "sheet.png")
    assert said == (0, f"{tmp_path / 'sheet.png'}\n", "")


def test_data_that_is_not_installed(mmlearn, monkeypatch):
    """The others are listed all the same, and it is said how to get it."""
    monkeypatch.setattr(easy_vqa, "find_spec", lambda name: None)
    *others, row = json.loads(mmlearn("data", "--json").out)
    assert [other["name"] for other in others] == list(data_sets(apart=False))
    assert (row["name"], row["licence"], row["example"]) == ("easy-vqa", "MIT", None)
    assert row["pairs"].endswith("pip install -e '.[vqa]'.")
    said = mmlearn("data")
    assert said.code == 0
    assert said.out.splitlines()[-1] == "  example  –"


SPLITS = [(name, split) for name, make in data_sets(apart=False).items() for split in make.splits]


@pytest.mark.parametrize(("name", "split"), SPLITS)
def test_data_show(mmlearn, tmp_path, name, split):
    path = tmp_path / "made" / "sheet.png"
    said = mmlearn("data", "show", name, "--split", split, "--output", path, "--count", 4)
    assert (said.code, said.out, said.err) == (0, f"{path}\n", "")
    with Image.open(path) as image:
        image.verify()
        assert image.width > 300
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(("name", "split"), [("scenes", "train"), ("emoji-openmoji", "unseen-style")])
def test_data_show_chooses_where_to_write(mmlearn, tmp_path, name, split):
    said = mmlearn("data", "show", name, "--count", 1)
    assert said.out == f"runs/data/{name}-{split}.png\n"
    assert (tmp_path / "here" / said.out.strip()).is_file()


def test_data_show_a_folder_of_ones_own(mmlearn, images, tmp_path):
    said = mmlearn("data", "show", images, "--output", tmp_path / "sheet.pdf")
    assert said == (0, f"{tmp_path / 'sheet.pdf'}\n", "")
    assert (tmp_path / "sheet.pdf").read_bytes().startswith(b"%PDF")


def test_data_show_names_the_sheet_after_the_folder(mmlearn, tmp_path, monkeypatch):
    Image.new("RGB", (24, 24)).save(tmp_path / "4.png")
    (tmp_path / "captions.jsonl").write_text('{"image": "4.png", "caption": "a $HOME\\\\bin$ 3", "split": "train"}')
    monkeypatch.chdir(tmp_path)
    assert mmlearn("data", "show", ".") == (0, f"runs/data/{tmp_path.name}-train.png\n", "")


def test_letters_that_the_font_lacks_are_told_once(mmlearn):
    said = mmlearn("data", "show", "stamps", "--language", "zh-CN", "--output", "zh.png", "--count", 12)
    assert (said.code, said.out) == (0, "zh.png\n")
    (line,) = said.err.splitlines()
    assert line == "Letters that the font lacks are boxes; a page leaves them to the browser: --output zh.html"
    assert mmlearn("data", "show", "stamps", "--language", "zh-CN", "--output", "zh.html").err == ""


# Training and evaluation.


def trained(folder):
    names = {"checkpoints", "config.json", "metrics.jsonl", "model.safetensors", "tokenizer.json"}
    assert {path.name for path in folder.iterdir()} - {"data.safetensors"} == names  # of data that lie in files
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


MORE = {"albef": ["--set", "queue_size=16"], "blip": ["--set", "queue_size=16"]}  # which the folder's 16 pictures fill


def evaluated(works, folder, data):
    """The rows of ``mmlearn evaluate``, which stand in its table as well."""
    said = works("evaluate", folder, "--data", data, "--limit", 16, "--json")
    rows = json.loads(said.out)
    assert all(set(row) == {"measure", "obtained", "chance"} for row in rows)
    table = works("evaluate", folder, "--data", data, "--limit", 16).out.splitlines()
    assert table[0].split() == ["measure", "obtained", "chance"]
    assert len(table) == len(rows) + 1
    for row, line in zip(rows, table[1:]):
        assert line.startswith(row["measure"])
        assert f"{row['obtained']:.4g}" in line
    return {row["measure"]: row for row in rows}


@pytest.mark.parametrize("system", [*PAIRED, *PIXELS])
def test_train_and_evaluate_on_a_folder(works, short, images, tmp_path, system):
    folder = tmp_path / "runs" / "one"
    said = works("train", system, *short, *MORE.get(system, []), "--output", folder)
    rows = trained(folder)
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert said.out == f"loss {rows[-1]['loss']:.3f}; {folder / 'model.safetensors'}\n"
    first, *_, last = said.err.splitlines()
    assert first.startswith(f"{system}: ")
    assert "16 samples" in first
    assert last == f"Next: mmlearn evaluate {folder} --data {images}"
    assert "3/3" in said.err
    measures = evaluated(works, folder, images)
    assert ("image to text R@1 of 8" in measures) == (system in PAIRED or "itc" in PIXELS[system])
    assert ("matching accuracy" in measures) == bool({"itm", "pairs"} & set(PIXELS.get(system, ())))


@pytest.fixture
def thirty(tmp_path):
    """What a newcomer has: 30 pictures of other shapes, without splits."""
    folder, lines = tmp_path / "thirty", ["image,caption"]
    folder.mkdir()
    for i in range(30):
        Image.new("RGB", [(64, 48), (63, 63), (30, 60)][i % 3], (8 * i, 90, 200)).save(folder / f"{i}.png")
        lines.append(f"{i}.png,the colour of number {i}")
    (folder / "captions.csv").write_text("\n".join(lines))
    return folder


@pytest.mark.parametrize("system", ["clip", "albef"])
def test_the_readmes_commands_on_thirty_pictures(works, thirty, tmp_path, system):
    n, held_out = len(load(thirty, "train")), len(load(thirty, "test"))
    said = works("train", system, "--data", thirty, "--output", tmp_path / "mine", "--steps", 1, "--batch-size", 64)
    *lines, last = said.err.splitlines()
    assert lines[0] == f"a batch has {n} samples instead of 64: the data has no more"
    assert (lines[1] == f"the queue has {n} pairs instead of 1024: the data has no more") == (system == "albef")
    assert "× only the middle square is read" in said.err
    next_one = last.removeprefix("Next: mmlearn ").split()
    with pytest.warns(UserWarning, match=f"test of .* has only {held_out} samples.*--split names another"):
        said = works(*next_one)
    assert f"image to text R@1 of {held_out}" in said.out


def test_a_split_without_two_samples_is_replaced(works, fails, thirty, tmp_path):
    captions = thirty / "captions.csv"
    rows = captions.read_text().splitlines()
    kinds = ["split", *["train"] * 27, "val", "val", "test"]
    captions.write_text("\n".join(f"{row},{kind}" for row, kind in zip(rows, kinds)))
    works("train", "clip", "--data", thirty, "--output", tmp_path / "mine", "--steps", 1, "--batch-size", 8)
    with pytest.warns(UserWarning, match="test of .* has no two samples: this is of --split val$"):
        works("evaluate", tmp_path / "mine", "--data", thirty)
    captions.write_text("\n".join(f"{row},train" for row in rows).replace("caption,train", "caption,split"))
    with pytest.warns(UserWarning, match="this is of --split train, which it may have learned from"):
        works("evaluate", tmp_path / "mine", "--data", thirty)
    captions.write_text("image,caption,split\n0.png,one,test")
    fails("evaluate", tmp_path / "mine", "--data", thirty, says="has fewer than two samples in each of its splits")


def test_settings_as_one_types_them(works, fails, mmlearn, thirty, tmp_path):
    short = ["train", "albef", "--data", thirty, "--steps", 1, "--batch-size", 4]
    works(*short, "--output", tmp_path / "one", "--set", "queue-size=20", "--set", "image.depth=2")
    config = json.loads((tmp_path / "one" / "config.json").read_text())["config"]
    assert (config["queue_size"], config["image"]["depth"]) == (20, 2)
    assert config["text"]["depth"] != 2
    said = mmlearn(*short, "--output", tmp_path / "two", "--queue-size", "25")
    assert "A setting of the system is typed --set queue_size=VALUE." in said.err


@pytest.mark.parametrize("system", ASKED)
def test_train_and_evaluate_on_questions(works, tmp_path, system):
    folder = tmp_path / "run"
    words = ["--data", "scenes", "--steps", 2, "--batch-size", 8, "--image-size", 32, "--vocab-size", 400]
    works("train", system, *words, "--output", folder)
    assert len(trained(folder)) == 2
    assert "answer accuracy" in evaluated(works, folder, "scenes")


def test_train_and_evaluate_on_scenes(mmlearn, works, tmp_path):
    folder = tmp_path / "run"
    options = ["--steps", 2, "--batch-size", 8, "--image-size", 32, "--vocab-size", 280, "--precision", "bf16"]
    works("train", "clip", "--data", "scenes", *options, "--output", folder, "--accumulate", 2)
    assert len(trained(folder)) == 2
    measures = evaluated(works, folder, "scenes")
    assert {"pointing accuracy", "modality gap, image and text", "text to image median rank"} <= set(measures)
    assert "the ground" in " ".join(measures)
    composition = mmlearn("evaluate", folder, "--data", "scenes", "--split", "composition", "--limit", 4, "--json")
    assert composition.code == 0


@pytest.mark.parametrize(
    "system", [*reading(Tokens, Regions), *reading(TaggedCaptions, Regions), "ernie-vil", "kvl-bert"]
)
def test_train_and_evaluate_systems_of_regions(works, tmp_path, system):
    folder = tmp_path / "run"
    options = ["--steps", 2, "--batch-size", 8, "--image-size", 32, "--vocab-size", 280, "--precision", "bf16"]
    works("train", system, "--data", "scenes", *options, "--output", folder)
    assert [row["step"] for row in trained(folder)] == [1, 2]
    measures = evaluated(works, folder, "scenes")
    assert "masked-word accuracy" in measures
    assert ("matching accuracy" in measures) == (system not in {"kvl-bert", "oscar", "vinvl", "vl-bert", "vlp"})
    assert ("triples told from polluted ones" in measures) == (system in {"oscar", "vinvl"})


def test_objectives_and_together(works, tmp_path):
    """What a system learns may be chosen, is kept, and decides what is measured."""
    words = ["--data", "scenes", "--steps", 2, "--batch-size", 8, "--image-size", 32, "--vocab-size", 400]
    works("train", "uniter", *words, "--objectives", "mlm, mrm", "--together", "--output", tmp_path / "one")
    assert all({"mlm", "mrfr", "mrc_kl"} <= set(row) for row in trained(tmp_path / "one"))
    settings = json.loads((tmp_path / "one" / "config.json").read_text())
    assert (settings["objectives"], settings["together"]) == (["mlm", "mrm"], True)
    assert not any("matching" in name for name in evaluated(works, tmp_path / "one", "scenes"))
    works("train", "lxmert", *words, "--objectives", "vqa", "--output", tmp_path / "two")
    measures = set(evaluated(works, tmp_path / "two", "scenes"))
    assert {"answer accuracy", "answer accuracy, another picture", "answer accuracy, count"} <= measures
    assert all(name.startswith("answer accuracy") for name in measures)


def test_a_published_benchmark_of_questions(mmlearn, works, tmp_path):
    """Its answers are the run's own: kept with it, counted in its published order, and asked of it again."""
    words = ["--data", "easy-vqa", "--steps", 2, "--batch-size", 8, "--image-size", 32, "--vocab-size", 400]
    said = works("train", "vilt", *words, "--objectives", "vqa", "--output", tmp_path / "run")
    settings = json.loads((tmp_path / "run" / "config.json").read_text())
    assert settings["fields"]["answer"]["answers"] == list(load("easy-vqa").labels)
    assert settings["config"]["answers"] == 13
    measures = evaluated(works, tmp_path / "run", "easy-vqa")
    assert {f"answer accuracy, {kind}" for kind in ("colour", "shape", "existence", "absence")} <= set(measures)
    said = mmlearn("evaluate", tmp_path / "run", "--data", "scenes")
    assert said.code == 1
    assert "is none of the 13 answers: " in said.err


def test_images_that_differ_each_time(works, short, tmp_path):
    losses = []
    for more in ([], ["--augment"]):
        folder = tmp_path / f"run{len(more)}"
        works("train", "vilt", *short, *more, "--output", folder)
        losses.append(trained(folder)[0]["loss"])
    assert losses[0] != losses[1]


@pytest.mark.parametrize("system", PAIRED)
def test_a_batch_of_one(works, fails, short, tmp_path, system):
    """Only SigLIP learns from a pair without others."""
    words = ["train", system, *short, "--batch-size", 1, "--output", tmp_path / "run"]
    if system != "siglip":
        fails(*words, says="--batch-size is at least 2, got 1")
        return
    works(*words)
    assert all(row["loss"] > 0 for row in trained(tmp_path / "run"))


def test_the_average_of_weights_is_measured(works, short, tmp_path):
    """It is another model than the last one, in the same layout, and load_run reads either."""
    works("train", "clip", *short, "--output", tmp_path / "run", "--ema", 0.5, "--learning-rate", 0.1)
    last, average = (load_run(tmp_path / "run", ema=ema).system.state_dict() for ema in (False, True))
    assert last.keys() == average.keys()
    assert any(not torch.equal(value, average[name]) for name, value in last.items())
    data = short[short.index("--data") + 1]
    rows = [
        json.loads(works("evaluate", tmp_path / "run", "--data", data, "--json", *more).out) for more in ([], ["--ema"])
    ]
    assert [row["measure"] for row in rows[0]] == [row["measure"] for row in rows[1]]


def test_language_and_tensorboard(works, tmp_path):
    options = ["--steps", 1, "--batch-size", 4, "--image-size", 32, "--language", "de", "--tensorboard"]
    said = works("train", "siglip", "--data", "emoji", *options, "--output", tmp_path / "run")
    assert list((tmp_path / "run" / "tensorboard").iterdir())
    next_line = said.err.splitlines()[-1]
    assert next_line == f"Next: mmlearn evaluate {tmp_path / 'run'} --data emoji --language de"
    said = works(*shlex.split(next_line)[2:], "--limit", 8)


def test_a_seed_decides_and_resuming_changes_nothing(mmlearn, works, short, tmp_path):
    """The same command twice, and once stopped in between: the same weights; another seed: others."""
    weights = {}
    for name, more in (("a", []), ("b", []), ("other", ["--seed", 1])):
        works("train", "clip", *short, "--output", tmp_path / name, *more)
        weights[name] = (tmp_path / name / "model.safetensors").read_bytes()
    assert weights["a"] == weights["b"] != weights["other"]
    said = mmlearn("train", "clip", *short, "--output", tmp_path / "a", "--resume")  # already finished
    assert said.code == 0
    assert said.out == f"{tmp_path / 'a' / 'model.safetensors'}\n"
    assert (tmp_path / "a" / "model.safetensors").read_bytes() == weights["a"]


@pytest.mark.parametrize("system", ["filip", "albef", "uniter"])
@pytest.mark.parametrize("stop", [1, 2])
def test_resuming(mmlearn, works, short, tmp_path, monkeypatch, system, stop):
    """After a stop beyond the first checkpoint, and after one before it, when there is nothing to go on from."""
    from mmlearn.training import loop

    whole, folder = tmp_path / "whole", tmp_path / "run"
    more = MORE.get(system, ["--data", "scenes"])
    words = ["train", system, *short, "--checkpoint-every", 2, *more]
    works(*words, "--output", whole)

    class Killed(SystemExit):
        pass

    with monkeypatch.context() as patch:
        real, left = loop.train_step, [stop]

        def step(*arguments):
            if not left[0]:
                raise Killed(9)
            left[0] -= 1
            return real(*arguments)

        patch.setattr(loop, "train_step", step)
        patch.setattr(output, "nothing_half_written", lambda _: nullcontext())  # as if killed
        assert mmlearn(*words, "--output", folder).code == 9
    assert (folder / "config.json").exists()
    assert not (folder / "model.safetensors").exists()
    works(*words, "--output", folder, "--resume")
    assert (folder / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    assert len(trained(folder)) == 3


def test_bad_images_can_be_left_out(works, short, images, tmp_path):
    broken = tmp_path / "some broken"
    broken.mkdir()
    for path in images.iterdir():
        (broken / path.name).write_bytes(path.read_bytes()[: 40 if path.name == "3.png" else None])
    words = [broken if word == images else word for word in short]
    said = works("train", "clip", *words, "--output", tmp_path / "run", "--skip-bad")
    assert said.err.startswith("left out 1 pictures, such as: ")
    assert "3.png" in said.err.splitlines()[0]
    assert "15 samples" in said.err
    last = said.err.splitlines()[-1]
    assert last == f"Next: mmlearn evaluate {tmp_path / 'run'} --data '{broken}' --skip-bad"
    works(*shlex.split(last)[2:])


def test_weights_are_plain_tensors(mmlearn, short, tmp_path):
    mmlearn("train", "clip", *short, "--output", tmp_path / "run")
    values = load_file(tmp_path / "run" / "model.safetensors")
    assert all(value.dtype == torch.float32 and value.isfinite().all() for value in values.values())


# Chapters, exercises, doctor.


def test_chapters(mmlearn, notebooks):
    rows = json.loads(mmlearn("chapters", "--json").out)
    assert rows == [
        {"chapter": "00", "title": "The lesson", "minutes": 2, "notebook": "00_first_lesson.ipynb"},
        {"chapter": "07", "title": "Pairs", "minutes": 2, "notebook": "07_contrastive.ipynb"},
    ]
    table = mmlearn("chapters").out.splitlines()
    assert len(table) == 3
    assert table[2].split() == ["07", "Pairs", "2", "07_contrastive.ipynb"]


def test_start_copies_and_never_overwrites(mmlearn, notebooks, tmp_path):
    said = mmlearn("start", tmp_path / "mine")
    copied = [tmp_path / "mine" / "notebooks" / path.name for path in sorted(notebooks.iterdir())]
    assert said.code == 0
    assert said.out.splitlines() == list(map(str, copied))
    copied[0].write_text("mine")
    said = mmlearn("start", tmp_path / "mine")
    assert (said.code, said.out) == (0, "")
    assert said.err.startswith("2 files exist already")
    assert mmlearn("start", tmp_path / "a b").err.endswith(f"Go on with: mmlearn lab '{tmp_path / 'a b'}'\n")
    assert copied[0].read_text() == "mine"


def test_exercises(mmlearn, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    rows = json.loads(mmlearn("exercises", "--json").out)
    assert rows
    assert all(set(row) == {"solved", "exercise", "task", "difficulty", "minutes"} for row in rows)


def test_hints_come_one_at_a_time_and_begin_anew_after_a_reset(mmlearn, tmp_path, monkeypatch):
    monkeypatch.setenv("MMLEARN_HOME", str(tmp_path / "home"))
    words = exercises.steps("07_contrastive", "info_nce")
    for number, step in enumerate([*words, words[-1]], 1):
        number = min(number, len(words))
        said = mmlearn("exercises", "hint", "info_nce")
        assert (said.code, said.out) == (0, f"{number} of {len(words)}: {step}\n")
        assert ("mmlearn exercises solution info_nce" in said.err) == (number == len(words))
    exercises.attempt(exercises.find_task("info_nce").check, objectives.info_nce)
    assert exercises.solved() == {"07_contrastive/info_nce"}
    said = mmlearn("exercises", "reset", "07_contrastive/info_nce")
    assert (said.code, "is open again" in said.err) == (0, True)
    assert exercises.solved() == set()
    assert mmlearn("exercises", "hint", "info_nce").out.startswith("1 of ")


def test_a_damaged_file_of_hints_counts_as_empty(mmlearn, tmp_path, monkeypatch):
    monkeypatch.setenv("MMLEARN_HOME", str(tmp_path))
    for content in (b"", b"[1]", b"{", b'{"07_contrastive/info_nce": "two"}'):
        (tmp_path / "hints.json").write_bytes(content)
        assert mmlearn("exercises", "hint", "info_nce").out.startswith("1 of ")


def test_a_solution_is_plain_code(mmlearn):
    said = mmlearn("exercises", "solution", "word_region_alignment")
    assert (said.code, said.err) == (0, "")
    compile(said.out, "solution", "exec")
    assert "def word_region_alignment(" in said.out
    assert "def ipot(" in said.out  # which it calls


def test_an_unknown_task_is_answered_with_the_nearest(mmlearn):
    said = mmlearn("exercises", "hint", "info_nc")
    assert said.code == 1
    assert said.err == ("mmlearn: There is no task 'info_nc'; did you mean 'info_nce'? mmlearn exercises lists them.\n")


def test_doctor(mmlearn):
    said = mmlearn("doctor", "--json")
    rows = {row["name"]: row["state"] for row in json.loads(said.out)}
    assert {"mmlearn", "Python", "torch", "emoji", "disk", "speed"} <= set(rows)
    assert said.code == ("wrong" in rows.values())


def test_doctor_knows_every_extra_and_how_to_get_it(mmlearn, monkeypatch):
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = set(project["optional-dependencies"]) - {"dev"}
    rows = {row["name"]: row for row in json.loads(mmlearn("doctor", "--json").out)}
    assert extras == set(doctor.EXTRAS) <= set(rows)
    for module, extra in (("easy_vqa", "vqa"), ("scipy", "notebooks")):
        monkeypatch.setattr(importlib.util, "find_spec", lambda name, absent=module: None if name == absent else name)
        rows = {row["name"]: row for row in json.loads(mmlearn("doctor", "--json").out)}
        assert (rows[extra]["state"], rows[extra]["detail"]) == (
            "missing",
            f"in the clone: pip install -e '.[{extra}]'",
        )
