"""The zoo: kept weights come back as they were, with their record, and nothing else is taken for them."""

import json

import pytest
import torch
from testing_tools import refused
from torch import nn

from mmlearn import load_pretrained
from mmlearn.data.tokenizer import Tokenizer
from mmlearn.models.contrastive.clip import CLIP, CLIPConfig
from mmlearn.pretrained import zoo
from mmlearn.pretrained.zoo import keep, load_zoo, zoo_names, zoo_records

RECORD = dict(steps=3, seed=0, data="collages", licence="Apache-2.0")
PIXELS = dict(image_mean=[0.8, 0.7, 0.6], image_std=[0.1, 0.2, 0.3])


@pytest.fixture
def archives(tmp_path, monkeypatch):
    monkeypatch.setattr(zoo, "ARCHIVES", tmp_path)
    return tmp_path


def small_clip():
    torch.manual_seed(0)
    return CLIP(CLIPConfig.preset("tiny")).eval()


def test_a_system_comes_back_with_its_tokenizer_and_record(archives):
    clip, tokenizer = small_clip(), Tokenizer.train(["a cat above a dog"], max_length=12)
    keep("clip", clip, RECORD | PIXELS, system="clip", tokenizer=tokenizer, archives=archives)
    model, again, record = load_zoo("clip")
    image, texts = torch.rand(2, 3, 64, 64), tokenizer(["a dog", "a cat above a dog"])
    with torch.no_grad():
        for ours, theirs in zip(model(image, *texts), clip.half().float()(image, *texts)):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    assert torch.equal(again(["a cat"])[0], tokenizer(["a cat"])[0])
    assert {name: record[name] for name in RECORD} == RECORD
    assert record["system"] == "clip"
    assert not model.training
    assert zoo_names() == ["clip"]
    assert zoo_records()["clip"]["megabytes"] > 0
    assert type(load_pretrained("zoo/clip")) is CLIP


def test_a_lessons_own_model_is_filled_and_frozen_parts_stay(archives):
    one, other = (nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)) for _ in range(2))
    keep("own", one, RECORD, without=("1.",), archives=archives)
    other[1].weight.data.fill_(7)
    load_zoo("own", other)
    torch.testing.assert_close(other[0].weight, one[0].weight.half().float(), rtol=0, atol=0)
    assert (other[1].weight == 7).all()
    assert (other[1].num_batches_tracked) == 0
    refused("a model that its lesson defines", load_zoo, "own")
    refused("does not fit this Linear", load_zoo, "own", nn.Linear(3, 4))
    refused("does not fit this Sequential", load_zoo, "own", nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5)))


def test_what_was_learned_beside_a_frozen_part_is_kept_and_merged(tmp_path, monkeypatch):
    """The projector and LoRA are in the file, the language model is not; it is loaded, and changed by them."""
    from dataclasses import replace

    from mmlearn.layers.lora import add_lora, merge_lora
    from mmlearn.models.bridges.vlm import VLM, VLMConfig
    from mmlearn.pretrained.image_chat import frozen_language_model

    name, seeded = "zoo/llama-collages", torch.manual_seed(0)
    (language_model, chat), (again, _) = frozen_language_model(name), frozen_language_model(name)
    monkeypatch.setattr(zoo, "ARCHIVES", tmp_path)
    config = replace(VLMConfig.tiny(), language_model=language_model.config, image_token=chat.image_token)
    system = VLM(config, language_model=language_model).eval()
    image, tokens = torch.rand(2, 3, 64, 64), torch.tensor([chat.prompt("what is this?", 4)] * 2)
    plain = system(image, tokens).token_logits
    add_lora(language_model, rank=2, layers=("query",))
    for key, value in language_model.named_parameters():
        if key.endswith(".up"):
            value.data.normal_(std=0.5, generator=seeded)
    how = dict(system="vlm", without=("language_model",), archives=tmp_path)
    record = RECORD | PIXELS | dict(parts=dict(language_model=name))
    refused("says lora where a part that is not kept has LoRA", keep, "vlm", system, record, **how)
    record |= dict(lora=dict(part="language_model", rank=2, alpha=16.0, layers=["query"]))
    path = keep("vlm", system, record, **how)
    kept = zoo._tensors(path)
    assert {key.split(".")[-1] for key in kept if key.startswith("language_model")} == {"down", "up"}
    merge_lora(language_model)
    refused("says lora where", keep, "vlm", system, record, **how)
    wanted = system(image, tokens).token_logits
    assert not torch.allclose(wanted, plain, atol=0.1)
    other = VLM(config, language_model=again).eval()
    load_zoo("vlm", into=other)
    torch.testing.assert_close(other(image, tokens).token_logits, wanted, rtol=0.01, atol=0.02)  # fp16
    assert other.state_dict().keys() == system.state_dict().keys()  # no layer of LoRA is left


@pytest.mark.parametrize(("data", "licence"), [("stamps", "GPL-2.0-or-later"), ("emoji-openmoji", "CC-BY-SA-4.0")])
def test_what_copyleft_data_taught_lies_apart(archives, data, licence):
    path = keep("own", nn.Linear(2, 2), RECORD | dict(data=data, licence=licence), archives=archives)
    assert path.parent.name == "zoo-copyleft"
    load_zoo("own", nn.Linear(2, 2))


def test_an_unknown_name_is_answered_with_the_nearest(archives):
    keep("uniter", nn.Linear(2, 2), RECORD, archives=archives)
    with pytest.raises(FileNotFoundError, match=r"There is no zoo/unitr; did you mean 'uniter'"):
        load_zoo("unitr")


@pytest.mark.parametrize("position", [9, -1])
def test_a_changed_byte_is_found(archives, position):
    path = keep("own", nn.Linear(2, 2), RECORD, archives=archives)
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)
    refused("its bytes have changed", load_zoo, "own", nn.Linear(2, 2))


def test_another_version_is_told(archives):
    from hashlib import sha256

    from safetensors.torch import save

    path = keep("own", nn.Linear(2, 2), RECORD, archives=archives)
    path.write_bytes(save({"weight": torch.ones(2)}, metadata={"format": "pt"}))
    (path.parent / "index.json").write_text(json.dumps({"own": sha256(path.read_bytes()).hexdigest()}))
    refused("is of another version of mmlearn", load_zoo, "own", nn.Linear(2, 2))
    path.unlink()
    with pytest.raises(FileNotFoundError, match="is missing"):
        load_zoo("own", nn.Linear(2, 2))


@pytest.mark.parametrize("lacking", RECORD)
def test_a_record_says_what_it_must(archives, lacking):
    record = {name: value for name, value in RECORD.items() if name != lacking}
    refused(f"needs '{lacking}'", keep, "own", nn.Linear(2, 2), record, archives=archives)


def test_a_processor_makes_what_the_model_reads():
    import mmlearn

    model, processor = mmlearn.load_pretrained("zoo/clip-collages"), mmlearn.load_processor("zoo/clip-collages")
    inputs = processor(torch.rand(2, 3, 96, 96), ["two bananas", "a dog with a bicycle"])
    with torch.no_grad():
        assert model(**inputs).text_embedding.shape == (2, 128)
    assert {"load_pretrained", "load_processor", "models", "data", "training"} <= set(dir(mmlearn))


def test_a_system_of_pixels_reads_them_as_its_record_says(archives):
    """In a command and by its processor; a record that says nothing of pixels is refused."""
    from types import SimpleNamespace

    from mmlearn.pretrained import load_processor
    from mmlearn.training.published import load_zoo_run

    clip, tokenizer = small_clip(), Tokenizer.train(["a cat above a dog"], max_length=12)
    refused("needs 'image_mean'", keep, "clip", clip, RECORD, system="clip", tokenizer=tokenizer, archives=archives)
    keep("clip", clip, RECORD | PIXELS, system="clip", tokenizer=tokenizer, archives=archives)
    images = torch.rand(2, 3, 64, 64)
    mean, std = (torch.tensor(PIXELS[name]).view(3, 1, 1) for name in ("image_mean", "image_std"))
    wanted = (images - mean) / std
    torch.testing.assert_close(load_processor("zoo/clip")(images, ["a cat"] * 2)["image"], wanted)
    run = load_zoo_run("clip")
    samples = [SimpleNamespace(image=image, caption="a cat") for image in images]
    torch.testing.assert_close(run.plain(samples)["image"], wanted)
    keep("clip", clip, RECORD | PIXELS | dict(image_std=0.5), system="clip", tokenizer=tokenizer, archives=archives)
    refused("does not say image_mean and image_std", load_zoo_run, "clip")


def test_a_command_reads_a_file_of_the_zoo_once_to_compare_it(archives, monkeypatch):
    from mmlearn.training.published import load_zoo_run

    clip, tokenizer = small_clip(), Tokenizer.train(["a cat above a dog"], max_length=12)
    keep("clip", clip, RECORD | PIXELS, system="clip", tokenizer=tokenizer, archives=archives)
    compared, whole = [], zoo.hashlib.sha256
    monkeypatch.setattr(zoo.hashlib, "sha256", lambda content: compared.append(len(content)) or whole(content))
    load_zoo_run("clip")
    assert len(compared) == 1


def test_what_ships_is_whole_small_and_licensed():
    records = zoo_records()
    assert {"clip-collages", "uniter-collages"} <= set(records)
    assert sum(record["megabytes"] for record in records.values()) < 30
    for name, record in records.items():
        assert {"steps", "seed", "data", "licence", "seconds", "lesson"} <= set(record), name


def test_commands_measure_what_is_in_it(monkeypatch, tmp_path):
    """With the frozen features and the words that it was trained with."""
    from mmlearn.data import load
    from mmlearn.training.evaluate import measure
    from mmlearn.training.published import load_zoo_run

    monkeypatch.setenv("MMLEARN_HOME", str(tmp_path))
    run = load_zoo_run("clip-collages")
    samples = load("collages", "test", grid=True, pictures=64).__getitems__(range(64))
    rows = measure(run, samples, list(run.stage.objectives().values()))
    assert rows["text to image R@1 of 64"]["obtained"] > 0.5
    assert rows["pointing accuracy"]["obtained"] > 0.9 > 5 * rows["pointing accuracy"]["chance"]


def test_a_run_is_opened_as_well(tmp_path):
    from safetensors.torch import save_file
    from testing_tools import Listed

    from mmlearn.data import load
    from mmlearn.pretrained import load_processor
    from mmlearn.training.runs import new_run, save_run

    run = new_run("clip", Listed(load("scenes", "train").__getitems__(range(8))))
    save_run(run, tmp_path)
    save_file(run.system.state_dict(), tmp_path / "model.safetensors")
    model = load_pretrained(tmp_path)
    assert type(model) is CLIP
    assert not model.training
    assert all(torch.equal(value, run.system.state_dict()[name]) for name, value in model.state_dict().items())
    refused("is no name of the zoo; of a run: mmlearn.training.runs.load_run", load_processor, str(tmp_path))
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"parts": {"text_encoder": "elsewhere"}}))
    refused("a part or the system's file lies elsewhere: mmlearn.training.runs.load_run", load_pretrained, tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="holds no model"):
        load_pretrained(tmp_path)


def test_an_installation_that_is_read_only_is_read(tmp_path, archives):
    """Nothing is written to read it; and what would be kept there is refused in a line."""
    path = keep("own", nn.Linear(2, 2), RECORD, archives=archives)
    path.parent.chmod(0o555)
    before = {each: each.stat().st_mtime_ns for each in archives.rglob("*")}
    load_zoo("own", nn.Linear(2, 2))
    zoo_records()
    assert {each: each.stat().st_mtime_ns for each in archives.rglob("*")} == before
    path.parent.chmod(0o755)
    (tmp_path / "file").touch()  # nobody can write in there, root included
    with pytest.raises(OSError, match=r"file/zoo cannot be written \(Not a directory\): weights are kept in a clone"):
        keep("own", nn.Linear(2, 2), RECORD, archives=tmp_path / "file")


def test_the_clip_that_is_kept_reads_a_sentence_to_its_end():
    clip, tokenizer, _ = load_zoo("clip-collages")
    with torch.no_grad():
        cow, dog = clip.encode_text(*tokenizer(["a watermelon above a cow", "a watermelon above a dog"]))
    assert cow @ dog < 0.99
