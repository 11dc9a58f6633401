"""Parts that others have trained are taken over: with their weights, their settings and what they read with."""

import json

import pytest
import torch
from published import GPT2 as SMALL_GPT2
from safetensors.torch import load_file, save_file
from testing_tools import Listed, refused
from tokenizers import ByteLevelBPETokenizer
from transformers import GPT2Config, GPT2LMHeadModel

from mmlearn.data import load
from mmlearn.recipes import REPLY
from mmlearn.training.checkpoint import save_model
from mmlearn.training.pretrained_parts import read_parts, read_start
from mmlearn.training.runs import load_run, new_run, save_run


@pytest.fixture(scope="module")
def samples():
    data = load("scenes", "train", size=64)
    return Listed([data[i] for i in range(40)])


@pytest.fixture(scope="module")
def runs(samples, tmp_path_factory):
    """Runs of a language model and of a CLIP, as if they were trained."""
    folders = {}
    for name, settings in (("gpt2", {"depth": 2}), ("clip", {})):
        run = new_run(name, samples, seed=3, settings=settings, options={} if name == "clip" else {"vocab_size": 300})
        folders[name] = tmp_path_factory.mktemp(name)
        save_run(run, folders[name])
        save_model(run.system, folders[name] / "model.safetensors")
    return folders


def bridge(samples, runs, name="llava"):
    config = find(name).config.tiny()
    parts = read_parts({"language_model": runs["gpt2"], "image_encoder": runs["clip"]}, config)
    return new_run(name, samples, parts=parts)


def find(name):
    from mmlearn.recipes.discovery import find_recipe

    return find_recipe(name)


@pytest.mark.parametrize("name", ["llava", "blip-2", "minigpt-4", "flamingo"])
def test_both_parts_come_with_all_that_belongs_to_them(name, samples, runs):
    run, gpt2, clip = bridge(samples, runs, name), load_run(runs["gpt2"]), load_run(runs["clip"])
    for part, whole in (
        (run.system.language_model, gpt2.system),
        (run.system.image_encoder, clip.system.image_encoder),
    ):
        for key, value in whole.state_dict().items():
            assert torch.equal(part.state_dict()[key], value)
    assert run.system.config.language_model == gpt2.system.config
    assert run.tokenizer.engine.to_str() == gpt2.tokenizer.engine.to_str()
    assert run.tokenizer.engine.to_str() != clip.tokenizer.engine.to_str()
    assert run.field("image").mean == clip.field("image").mean
    batch = run.collate()(samples.samples[:4])
    run.recipe.check(batch, run.system.config)


def test_a_q_former_of_an_earlier_system_is_a_part(samples, runs, tmp_path):
    first = bridge(samples, runs, "blip-2")
    save_run(first, tmp_path)
    save_model(first.system, tmp_path / "model.safetensors")
    names = ("image_encoder", "query_former", "language_model")
    parts = read_parts(dict.fromkeys(names, tmp_path), find("minigpt-4").config.tiny())
    second = new_run("minigpt-4", samples, parts=parts)
    for name in names:
        for key, value in getattr(first.system, name).state_dict().items():
            assert torch.equal(getattr(second.system, name).state_dict()[key], value)


def saved(run, folder):
    save_run(run, folder)
    save_model(run.system, folder / "model.safetensors")
    return folder / "model.safetensors"


def test_a_run_without_its_frozen_part_finds_it(samples, runs, tmp_path):
    run = bridge(samples, runs)
    weights = saved(run, tmp_path)
    save_file({key: x for key, x in load_file(weights).items() if not key.startswith("language_model.")}, weights)
    back = load_run(tmp_path)
    for key, value in run.system.state_dict().items():
        assert torch.equal(value, back.system.state_dict()[key])
    values = json.loads((tmp_path / "config.json").read_text())
    values["parts"]["language_model"] = str(tmp_path / "gone")
    (tmp_path / "config.json").write_text(json.dumps(values))
    refused(
        "lacks language_model, which came from .*gone, and that is no longer there: put it back", load_run, tmp_path
    )


def test_a_later_stage_remembers_the_parts_that_have_stayed_as_they_were(samples, runs):
    """Of a part that is trained, the folder where it came from holds other weights."""
    first = bridge(samples, runs)
    assert first.parts == {"language_model": str(runs["gpt2"]), "image_encoder": str(runs["clip"])}
    second = new_run("llava", samples, stage="instruct", start=first)
    assert second.parts == {"image_encoder": str(runs["clip"])}
    assert new_run("llava", samples, stage="align", start=second).parts == second.parts


def test_a_published_folder_is_a_part_where_its_vocabulary_fits(samples, tmp_path):
    GPT2LMHeadModel(GPT2Config(**SMALL_GPT2 | dict(n_positions=64))).save_pretrained(tmp_path)
    parts = read_parts({"language_model": tmp_path}, find("frozen").config.tiny())
    assert parts["language_model"].config.width == 16
    says = r"language_model of .* has vocab_size 30, and this training needs \d+: take one that"
    refused(says, new_run, "frozen", samples, parts=parts)


def test_a_published_folder_with_its_vocabulary_is_read_as_it_was_written(samples, tmp_path):
    """A byte-level vocabulary as GPT-2's: one token begins, ends and pads, and capitals stay."""
    engine = ByteLevelBPETokenizer()
    engine.train_from_iterator(
        [sample.caption for sample in samples.samples] + ["Is it?"] * 9, 300, show_progress=False
    )
    engine.add_special_tokens(["<|endoftext|>"])
    words = engine.get_vocab_size()
    size = dict(vocab_size=words, n_positions=64, bos_token_id=words - 1, eos_token_id=words - 1)
    GPT2LMHeadModel(GPT2Config(**SMALL_GPT2 | size)).save_pretrained(tmp_path / "published")
    engine.save(str(tmp_path / "published" / "tokenizer.json"))
    parts = read_parts({"language_model": tmp_path / "published"}, find("llava").config.tiny())
    run = new_run("llava", samples, parts=parts, stage="instruct")
    assert run.system.config.language_model.start_token == run.system.config.language_model.pad_token == words - 1
    saved(run, tmp_path / "run")
    back = load_run(tmp_path / "run")
    batch = run.collate()(samples.samples[:4])
    for one, two in zip(batch.values(), back.collate()(samples.samples[:4]).values(), strict=True):
        assert torch.equal(one, two)
    run.recipe.check(batch, run.system.config)
    for row, real, answers, sample in zip(batch["tokens"], batch["mask"], batch["response"], samples.samples):
        asked = REPLY.ask(sample)
        assert row[0] == row[real][-1] == words - 1
        assert back.tokenizer.decode(row[answers]) == asked.response
        assert back.tokenizer.decode(row[real & ~answers]) == asked.prompt
    assert back.tokenizer.decode(back.tokenizer.prompt("Is it?")) == "Is it?"
    refused("The prompt is empty", back.tokenizer.prompt, " ")
    refused("more than the 62 tokens", back.tokenizer.prompt, "a " * 99)
    text = samples.samples[0].caption
    tokens = back.tokenizer([text])[0][0]
    for word, positions in back.tokenizer.words(text):
        assert back.tokenizer.decode(tokens[positions]) == word


def test_start_tells_runs_from_parts(runs):
    begun, parts = read_start([str(runs["clip"])], "clip", "tiny")
    assert begun.name == "clip"
    assert parts == {}
    begun, parts = read_start([f"language_model={runs['gpt2']}"], "frozen", "tiny")
    assert begun is None
    assert list(parts) == ["language_model"]
    assert read_start([], "frozen", "tiny") == (None, {})


def test_what_does_not_fit_is_told_in_one_line(samples, runs, tmp_path):
    gpt2, clip = (str(runs[name]) for name in ("gpt2", "clip"))
    refused("A run starts from one other, and parts are PART=FOLDER", read_start, [gpt2, clip], "frozen", "tiny")
    refused("There is no part 'decoder' to start from", read_start, [f"decoder={gpt2}"], "frozen", "tiny")
    refused("is a CLIP, in which there is no language_model", read_start, [f"language_model={clip}"], "frozen", "tiny")
    with pytest.raises(FileNotFoundError, match=r"There is no folder .*nowhere"):
        read_start(["language_model=/nowhere"], "frozen", "tiny")
    parts = read_parts({"language_model": gpt2}, find("frozen").config.tiny())
    thin = {"language_model": parts["language_model"]._replace(weights={})}
    refused("language_model of .* is not built as it is here: embedding", new_run, "frozen", samples, parts=thin)
    begun = new_run("frozen", samples)
    (tmp_path / "config.json").write_text("{not")
    refused("config.json is not JSON", read_parts, {"language_model": tmp_path}, begun.system.config)
    refused("starts from decides language_model: leave it out", new_run, "frozen", samples, start=begun, parts=parts)


def test_parts_that_nobody_trains_are_told(samples, runs, recwarn):
    with pytest.warns(UserWarning, match="^image_encoder and language_model start at random and will not be trained"):
        new_run("llava", samples)
    parts = read_parts({"image_encoder": runs["clip"]}, find("llava").config.tiny())
    with pytest.warns(UserWarning, match="^language_model starts at random .* --start language_model=FOLDER"):
        new_run("llava", samples, parts=parts)
    recwarn.clear()
    bridge(samples, runs)
    new_run("gpt2", samples)
    new_run("clip", samples)
    new_run("llava", samples, parts=parts, stage="instruct")  # in which the language model learns
    assert not list(recwarn)
