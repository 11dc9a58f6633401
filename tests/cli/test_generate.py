"""``mmlearn generate``: what a trained run says, the same from the command line as from Python; and what it refuses."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from testing_tools import Listed, refused

from mmlearn.data import load
from mmlearn.training.runs import load_run, new_run
from mmlearn.training.writing import STRATEGIES, as_text, write

SMALL = ["--batch-size", 16, "--image-size", 32, "--vocab-size", 300]


@pytest.fixture(scope="module")
def blip(tmp_path_factory, images):
    """A captioner that has learned a folder of pictures, one word of which is the colour."""
    from mmlearn.training import fit
    from mmlearn.training.data import load_training_data
    from mmlearn.training.runs import save_run

    learned = dict(preset="tiny", objectives=["lm"], options=dict(image_size=32, vocab_size=300))
    data = load_training_data("blip", str(images), **learned)
    run = new_run("blip", data, **learned, settings={"queue_size": 16})
    folder = tmp_path_factory.mktemp("runs") / "blip"
    save_run(run, folder, training={})
    fit(run.system, data, run.collate(), steps=60, batch_size=16, learning_rate=3e-3, optimizer="adamw", output=folder)
    return folder


@pytest.fixture
def bert(tmp_path, works, images):
    works("train", "bert", "--data", images, "--steps", 1, *SMALL[:2], *SMALL[4:], "--output", tmp_path / "bert")
    return tmp_path / "bert"


def test_it_says_what_it_has_learned(works, blip, images):
    said = works("generate", blip, "--image", images / "2.png")
    assert works("generate", blip, "--picture", images / "2.png").out == said.out  # as it was called before
    assert said.err == ""
    assert said.out.startswith("a blue field ")
    several = works("generate", blip, "--image", images / "0.png", "--image", images / "1.png")
    first, second = several.out.splitlines()
    assert first.startswith(f"{images / '0.png'}: a red field ")
    assert second.startswith(f"{images / '1.png'}: a green field ")
    assert works("generate", blip, "--image", images / "2.png", "--strategy", "beam").out.startswith("a blue ")


def test_averaged_weights_are_asked_for_where_there_are_some(works, fails, blip, images, tmp_path):
    words = ["--image", images / "2.png"]
    fails("generate", blip, *words, "--ema", says="model-ema.safetensors: it was trained without --ema")
    other = shutil.copytree(blip, tmp_path / "other")
    weights = load_file(other / "model.safetensors")
    save_file(weights, other / "model-ema.safetensors")
    weights["language_head.bias"][weights["language_head.bias"].argmin()] = 100.0
    save_file(weights, other / "model.safetensors")
    said = works("generate", blip, *words).out
    assert works("generate", other, *words, "--ema").out == said != works("generate", other, *words).out


def test_a_prompt_goes_on(works, blip, images):
    said = works("generate", blip, "--image", images / "3.png", "--prompt", "A blue")
    assert said.out.startswith("a blue field ")  # although the picture is grey


def test_as_from_python(works, blip, images):
    run, path = load_run(blip), images / "4.png"
    said = json.loads(works("generate", blip, "--image", path, "--json").out)
    assert said == write(run, images=[path]) == [{"image": str(path), "text": said[0]["text"]}]
    sample = next(one for one in load(str(images), "train", size=32) if one.source.endswith("4.png"))
    with torch.no_grad():
        tokens = run.system.generate(run.field("image")([sample])["image"], max_length=run.tokenizer.max_length)
    assert run.tokenizer.decode(tokens[0]) == said[0]["text"]


@pytest.mark.parametrize("strategy", ["greedy", "beam", "sample"])
def test_limits_are_those_of_decoding(works, blip, images, strategy):
    words = ["generate", blip, "--image", images / "2.png", "--strategy", strategy, "--json"]
    limits = ["--min-new-tokens", 12, "--no-repeat-ngram-size", 1]
    said = json.loads(works(*words, *limits).out)
    expected = dict(images=[images / "2.png"], strategy=strategy, min_new_tokens=12, no_repeat_ngram_size=1)
    assert said == write(load_run(blip), **expected) != json.loads(works(*words).out)


@pytest.mark.parametrize("strategy", ["sample", "top-k", "nucleus"])
def test_draws_follow_the_seed(works, blip, images, strategy):
    words = ["generate", blip, "--image", images / "5.png", "--image", images / "6.png", "--num", 8, "--json"]
    one, again, other = (json.loads(works(*words, "--strategy", strategy, "--seed", seed).out) for seed in (0, 0, 1))
    assert one == again != other
    assert [row["image"] for row in one] == [str(images / "5.png")] * 8 + [str(images / "6.png")] * 8
    assert len({row["text"] for row in one}) > 2
    assert write(load_run(blip), images=[images / "5.png"], num=3, strategy=strategy, seed=0) != one[:3]


def test_the_words_of_strategies_are_all_there_are(mmlearn):
    help_text = " ".join(mmlearn("generate", "--help").out.split())
    *names, last = STRATEGIES
    assert f"{', '.join(names)} or {last}." in help_text


def test_what_is_refused(fails, blip, bert, images, tmp_path):
    image = ["--image", images / "0.png"]
    fails("generate", bert, says="bert writes no text: it has learned mlm. Systems that do: bart, gpt2, llama")
    fails("generate", tmp_path / "none", says="There is no folder")
    fails("generate", blip, says="blip cannot write without --image FILE.")
    fails("generate", blip, "--prompt", "a", says="blip cannot write without --image FILE.")
    fails("generate", blip, "--image", "none.png", says="There is no picture none.png.")
    fails("generate", blip, "--image", images / "captions.csv", says="is no picture that can be read (BMP, GIF")
    for prompt in ("", "   "):
        fails("generate", blip, *image, "--prompt", prompt, says="The prompt is empty")
    fails("generate", blip, *image, "--prompt", "a red field " * 20, says=["The prompt has more than", "shorten it."])
    fails("generate", blip, *image, "--strategy", "gready", says=["no strategy 'gready'", "greedy"])
    for strategy in ("greedy", "beam"):
        words = ["--num", 2, "--strategy", strategy]
        fails("generate", blip, *image, *words, says=[f"{strategy} always writes the same", "sample, top-k or nucleus"])


def test_a_tokenizer_of_another_vocabulary(fails, blip, works, images, tmp_path):
    works("train", "clip", "--data", images, "--steps", 1, *SMALL[:4], "--vocab-size", 270, "--output", tmp_path / "c")
    other = shutil.copytree(blip, tmp_path / "other")
    shutil.copy(tmp_path / "c" / "tokenizer.json", other)
    fails("generate", other, "--image", images / "0.png", says=["vocab_size", "and the model"])


def test_weights_that_are_nan(fails, blip, images, tmp_path):
    other = shutil.copytree(blip, tmp_path / "other")
    weights = load_file(other / "model.safetensors")
    weights["language_head.bias"][7] = float("nan")
    save_file(weights, other / "model.safetensors")
    for strategy in STRATEGIES:
        words = ["--image", images / "0.png", "--strategy", strategy]
        fails("generate", other, *words, says=["have nan among them", "the model's weights"])


def test_what_is_written_is_measured(works, blip, images):
    rows = json.loads(works("evaluate", blip, "--data", images, "--split", "train", "--json").out)
    rows = {row["measure"]: row for row in rows}
    for name in ("BLEU-4", "ROUGE-L", "CIDEr-D"):
        assert rows[f"{name} of captions"]["obtained"] > 1.2 * rows[f"{name} of captions"]["chance"]
    assert not any("facts" in name for name in rows)


def test_a_bridge_to_a_language_model_that_was_trained_before(works, fails, images, tmp_path):
    """Its weights come with it and stay as they are, bit for bit; and the bridge writes, with a prompt or without."""
    few = ["--steps", 2, "--batch-size", 16]
    works("train", "gpt2", "--data", images, *few, "--vocab-size", 300, "--output", tmp_path / "gpt2")
    given = ["--data", images, *few, "--image-size", 32, "--start", f"language_model={tmp_path / 'gpt2'}"]
    works("train", "frozen", *given, "--output", tmp_path / "frozen")
    language = load_file(tmp_path / "gpt2" / "model.safetensors")
    whole = load_file(tmp_path / "frozen" / "model.safetensors")
    assert all(torch.equal(value, whole[f"language_model.{key}"]) for key, value in language.items())
    assert works("generate", tmp_path / "frozen", "--image", images / "1.png", "--prompt", "a").out.startswith("a")
    measured = works("evaluate", tmp_path / "frozen", "--data", images, "--json").out
    assert {"next-word accuracy", "BLEU-4 of captions"} <= {row["measure"] for row in json.loads(measured)}
    works("train", "frozen", *given, "--resume", "--output", tmp_path / "frozen")
    wrong = [*given[:-1], f"decoder={tmp_path / 'gpt2'}", "--output", tmp_path / "other"]
    fails("train", "frozen", *wrong, says="There is no part 'decoder' to start from")


def test_what_no_file_holds_is_asked_for_in_python():
    """VLP writes about regions, which a detector finds."""
    scenes = load("scenes", "train")
    run = new_run("vlp", {None: Listed([scenes[i] for i in range(4)])})
    refused("vlp writes about regions and boxes and region_classes, which no file holds", write, run)


@pytest.mark.parametrize(("words", "text"), [("café", "café"), ("caf\udcc3\udca9", "café"), ("", "")])
def test_a_prompt_that_an_ascii_locale_did_not_decode(words, text):
    assert as_text(words) == text


@pytest.mark.parametrize("words", ["a\ud800", "bb\udcff", "ccc\ude00\ud83d"])
def test_a_prompt_that_is_no_text(words):
    refused("The prompt is no text in UTF-8", as_text, words)


def test_several_images_behind_one_option(works, blip, images):
    one, other = images / "0.png", images / "1.png"
    said = works("generate", blip, "--image", one, other, "--json").out
    assert said == works("generate", blip, "--image", one, "--image", other, "--json").out
    assert [row["image"] for row in json.loads(said)] == [str(one), str(other)]
    assert works("generate", "--image", one, blip).out == works("generate", blip, "--image", one).out


def test_the_zoo_by_its_names(fails):
    clip = "clip writes no text: it has learned itc. Systems that do: blip, blip-2"
    fails("generate", "zoo/clip-collages", "--image", "a.png", says=clip)
    fails("generate", "zoo/uniter-collages", says=["mmlearn run 08", "They know zoo/clip-collages"])
    fails("evaluate", "zoo/uniter-collages", "--data", "collages", says="lesson 08 defines it")
    fails("evaluate", "zoo/clp-collages", "--data", "collages", says="did you mean 'clip-collages'")
    fails("evaluate", "zoo/clip-collages", "--data", "collages", "--ema", says="leave out --system and --ema")
