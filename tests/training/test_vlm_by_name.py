"""``mmlearn train vlm`` from parts by name: what it reads, what it trains, what it writes, and what it refuses."""

import json
from dataclasses import replace
from unittest.mock import Mock

import pytest
import torch
from chats import llama_folder, siglip_folder, write_json
from published import GPT2 as SMALL_GPT2
from safetensors.torch import load_file
from testing_tools import Listed, refused
from transformers import GPT2Config, GPT2LMHeadModel

from mmlearn import load_pretrained
from mmlearn.data import load
from mmlearn.data.batches import spread
from mmlearn.data.packed import padding
from mmlearn.layers.lora import merge_lora
from mmlearn.models.bridges.vlm import VLM, VLMConfig
from mmlearn.models.text.llama import Llama, LlamaConfig
from mmlearn.models.vision.backbone import BackboneConfig
from mmlearn.recipes import REPLY
from mmlearn.training.checkpoint import save_model
from mmlearn.training.conversation import Conversation
from mmlearn.training.pretrained_parts import read_parts
from mmlearn.training.runs import load_run, new_run, save_run

TINY = VLMConfig.tiny()


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A small SigLIP and a small Llama that chats, as they are published."""
    root = tmp_path_factory.mktemp("published")
    for name in ("tower", "language", "gpt2"):
        (root / name).mkdir()
    siglip_folder(root / "tower")
    llama_folder(root / "language")
    GPT2LMHeadModel(GPT2Config(**SMALL_GPT2)).save_pretrained(root / "gpt2")
    return root


@pytest.fixture(scope="module")
def samples():
    data = load("collages", "train", size=32)
    return Listed([data[i] for i in range(12)])


def parts_of(folders):
    return read_parts({"image_encoder": folders / "tower", "language_model": folders / "language"}, TINY)


def made(folders, samples, stage="instruct", **settings):
    return new_run("vlm", samples, parts=parts_of(folders), stage=stage, settings=settings)


def test_parts_bring_weights_pixels_and_turns(folders, samples):
    run, tower, language = (
        made(folders, samples), load_pretrained(folders / "tower"), load_pretrained(folders / "language")
    )  # fmt: skip
    for part, whole in ((run.system.image_encoder, tower.image_encoder), (run.system.language_model, language)):
        assert all(torch.equal(part.state_dict()[key], value) for key, value in whole.state_dict().items())
    image = run.field("image")
    assert (image.mean, image.std, image.image_size) == ((0.5,) * 3, (0.25,) * 3, 32)
    asked = [REPLY.ask(sample) for sample in samples.samples]
    batch, chat = run.collate()(samples.samples), run.tokenizer
    shown = chat.framed
    for row, real, answers, one in zip(batch["tokens"], batch["mask"], batch["response"], asked):
        said = chat.engine.decode(row[real].tolist(), skip_special_tokens=False)
        begins = f"<|im_start|>user\n{shown}{one.prompt}<|end|>\n<|im_start|>assistant\n"
        assert said == f"{begins}{one.response}<|end|>"
        assert chat.engine.decode(row[answers].tolist(), skip_special_tokens=False) == f"{one.response}<|end|>"
        assert (row == run.system.image_token).sum() == run.system.config.num_image_tokens == 4
    captioned = made(folders, samples, "align")
    text = captioned.tokenizer.engine.decode(captioned.collate()(samples.samples)["tokens"][0].tolist())
    assert f"Describe this image.\nassistant\n{samples[0].caption}" in text.replace("\n\n", "\n")


@pytest.mark.parametrize(
    ("stage", "settings", "trained"),
    [
        ("align", {}, {"projector"}),
        ("align", dict(lora_rank=2), {"projector"}),
        ("instruct", dict(lora_rank=2), {"projector", "down", "up"}),
        ("instruct", {}, {"projector", "language_model"}),
        ("instruct", dict(tower_learns=True), {"projector", "language_model", "image_encoder"}),
    ],
)
def test_what_is_trained(stage, settings, trained, folders, samples):
    run = made(folders, samples, stage, **settings)
    names = set(run.stage.optimizer_steps[0].trained_names(run.system))
    every = {name for name, _ in run.system.named_parameters()}
    assert names == {name for name in every if name.split(".")[0] in trained or name.split(".")[-1] in trained}


def test_a_run_with_thin_matrices_and_its_turns_is_read_again(folders, samples, tmp_path):
    run = made(folders, samples, lora_rank=2)
    for name, parameter in run.system.named_parameters():
        if name.endswith(".up"):
            torch.nn.init.normal_(parameter)
    save_run(run, tmp_path)
    save_model(run.system, tmp_path / "model.safetensors")
    back = load_run(tmp_path)
    assert back.system.state_dict().keys() == load_file(tmp_path / "model.safetensors").keys()
    packed = run.collate(pack=128)(samples.samples)
    again = back.collate(pack=128)(samples.samples)
    assert all(torch.equal(packed[name], again[name]) for name in packed)
    run.system.eval()
    with torch.no_grad():
        expected, found = run.system.loss(packed)["lm"], back.system.loss(again)["lm"]
        alone = back.system.loss(back.collate()(samples.samples))["lm"]
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(found, alone)
    alone = run.collate()(samples.samples)["mask"].sum(1).tolist()
    assert padding(packed["mask"].sum(1).tolist()) < padding(alone)
    assert run.lengths(samples, 12) == alone
    Conversation(back).ask("what is it?")
    merge_lora(back.system.language_model)
    torch.testing.assert_close(back.system.loss(again)["lm"], expected, rtol=1e-4, atol=1e-4)
    values = json.loads((tmp_path / "chat.json").read_text())
    write_json(tmp_path / "chat.json", values | {"image_token": "<image>"})
    refused("was not written by mmlearn train, or is damaged: .*chat.json should hold a template", load_run, tmp_path)


@pytest.mark.parametrize("rank", [0, 2, 3])
def test_a_language_model_says_what_its_thin_matrices_have_learned(rank, folders, samples, tmp_path):
    """Taken over from a run with LoRA of rank 2, into a system that has none, as many, or more."""
    run = made(folders, samples, lora_rank=2)
    for name, parameter in run.system.named_parameters():
        if name.endswith(".up"):
            torch.nn.init.normal_(parameter)
    save_run(run, tmp_path)
    save_model(run.system, tmp_path / "model.safetensors")
    parts = read_parts({"language_model": tmp_path}, TINY)
    again = new_run("vlm", samples, parts=parts, stage="instruct", settings=dict(lora_rank=rank))
    tokens = torch.arange(5, 25)[None]
    expected, untaught = (one.system.language_model(tokens).token_logits for one in (run, made(folders, samples)))
    torch.testing.assert_close(again.system.language_model(tokens).token_logits, expected, rtol=1e-4, atol=1e-4)
    assert (expected - untaught).abs().max() > 0.1


def test_lengths_are_known_without_pictures(folders, samples):
    """Captions of files come without them; a picture that is drawn when it is looked at is not drawn."""
    run = made(folders, samples, "align")
    lengths = run.collate()(samples.samples)["mask"].sum(1).tolist()
    drawn = load("collages", "train", size=32)
    assert run.lengths(drawn, 4) == run.collate()([drawn[i] for i in spread(len(drawn), 4)])["mask"].sum(1).tolist()

    class Files(Listed):
        def caption(self, index):
            return samples[index].caption

    assert run.lengths(Files([None] * 12), 12) == lengths
    instructed = Listed(
        [Mock(spec=["caption", "question"], caption=s.caption, question=s.question) for s in samples.samples]
    )
    again = made(folders, samples)
    assert again.lengths(instructed, 12) == again.collate()(samples.samples)["mask"].sum(1).tolist()


def test_parts_of_the_package_are_parts_too(samples):
    named = {"image_encoder": "mobilenetv2", "language_model": "zoo/llama-collages"}
    parts = read_parts(named, TINY)
    assert isinstance(parts["image_encoder"].config, BackboneConfig)
    large = Listed([load("collages", "train", size=256)[i] for i in range(2)])
    run = new_run("vlm", large, parts=parts, settings={"shuffle": 1})
    batch = run.collate()(large.samples)
    assert (batch["tokens"] == run.system.image_token).sum() == 2 * run.system.config.num_image_tokens
    assert torch.isfinite(run.system.loss(batch)["lm"])
    assert run.tokenizer.decode(batch["tokens"][0][batch["response"][0]]) == large[0].caption.lower()


def test_what_does_not_fit_is_told_in_a_line(folders, samples, tmp_path, monkeypatch):
    def parts(**named):
        return read_parts({name: folders / folder for name, folder in named.items()}, TINY)

    refused("is a GPT2, and no language model of Llama's kind", parts, language_model="gpt2")
    refused("is a SigLIP, and no language model of Llama's kind", parts, language_model="tower")
    refused("is a GPT2, in which there is no image_encoder of the kind", parts, image_encoder="gpt2")
    says, width = "language_model.width is 24 with this data or part, and cannot be set", {"language_model.width": 48}
    refused(says, made, folders, samples, **width)
    refused("4 × 4 patches cannot be shuffled by 3", made, folders, samples, shuffle=3)
    monkeypatch.setattr("huggingface_hub.snapshot_download", Mock(side_effect=OSError))
    with pytest.raises(FileNotFoundError, match=r"^'nobody/tower' is no folder here, and the hub did not"):
        read_parts({"image_encoder": "nobody/tower"}, TINY)
    short = parts_of(folders)
    short["language_model"] = short["language_model"]._replace(
        config=replace(short["language_model"].config, max_length=20)
    )
    says = r"The conversation '.+' has \d\d tokens, 4 of them of its image, and the language model reads 20: shorten it"
    refused(says, new_run, "vlm", samples, parts=short)
    run = made(folders, samples)
    refused(r"A conversation of \d+ tokens, with those of its image, does not fit into rows of 9: pack \d+ or more",
            run.collate(pack=9), samples.samples)  # fmt: skip
    refused("clip reads one text in each row: leave pack out", new_run("clip", samples).collate, pack=64)
    refused("The prompt holds <|end|>, which is no word", run.tokenizer.encode, ["a"], ["a <|end|> b"])


def test_parts_of_other_widths_in_python():
    small = Llama(LlamaConfig.tiny())
    refused("The language model has width 64 and 512 tokens; the configuration says 960 and 49,152",
            VLM, VLMConfig.preset("SigLIP-B/16+SmolLM2-360M"), torch.nn.Identity(), small)  # fmt: skip
    wide = VLM(TINY, torch.nn.Identity())
    wide.image_encoder.forward = lambda image: torch.zeros(len(image), 16, 7)
    says = "The image tower gives 7 numbers a patch; the configuration says 64"
    refused(says, wide.encode_image, torch.rand(1, 3, 64, 64))
