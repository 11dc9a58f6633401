"""Damaged, hostile and unsupported checkpoints are refused with a sentence, and good ones load whatever their dress."""

import json
import os
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from testing_tools import close
from transformers import BertConfig, BertForPreTraining, CLIPConfig, CLIPModel, SiglipConfig, SiglipModel

from mmlearn import load_pretrained
from mmlearn.models.bert import BERT
from mmlearn.models.clip import CLIP

SMALL = dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24)
TEXT = dict(vocab_size=30, max_position_embeddings=6, **SMALL)
IMAGE = dict(image_size=8, patch_size=4, **SMALL)
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
FC1 = "text_model.encoder.layers.0.mlp.fc1.weight"


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """One folder for each family, as Transformers saves it."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("published")
    CLIPModel(CLIPConfig(text_config=TEXT | {"eos_token_id": 29}, vision_config=IMAGE, projection_dim=12)).save_pretrained(
        folder / "clip"
    )
    SiglipModel(SiglipConfig(text_config=TEXT, vision_config=IMAGE)).save_pretrained(folder / "siglip")
    BertForPreTraining(BertConfig(**TEXT)).save_pretrained(folder / "bert")
    return folder


@pytest.fixture
def folder(published, tmp_path):
    """A function from a family to a copy of its checkpoint, to be damaged."""
    return lambda family="clip": Path(shutil.copytree(published / family, tmp_path / family))


def tensors(folder, change):
    """Rewrite the weights of ``folder`` as ``change`` makes them."""
    values = load_file(folder / WEIGHTS)
    save_file({name: value.contiguous() for name, value in change(values).items()}, folder / WEIGHTS)
    return folder


def settings(folder, part=None, **changes):
    config = json.loads((folder / "config.json").read_text())
    (config if part is None else config[part]).update(changes)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def refused(folder, message, error=ValueError):
    with pytest.raises(error, match=message) as caught:
        load_pretrained(folder)
    assert type(caught.value) is error  # and not a subclass from within, such as a JSON or Unicode error
    assert str(folder) in str(caught.value) or "config.json" in str(caught.value) or "are both" in str(caught.value)


def shard(folder, **placed):
    """Split the weights in two files with an index; ``placed`` are further entries of it."""
    values = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    names = sorted(values)
    index = {}
    for i, part in enumerate((names[::2], names[1::2]), start=1):
        file = f"model-{i:05}-of-00002.safetensors"
        save_file({name: values[name] for name in part}, folder / file)
        index |= dict.fromkeys(part, file)
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": index | placed}))
    return folder


def test_good_checkpoints_load(folder):
    """In evaluation mode, with every value in its place; whole and in shards."""
    for family in ("clip", "siglip", "bert"):
        whole = load_pretrained(folder(family))
        assert not whole.training
        assert all(parameter.dtype == torch.float32 for parameter in whole.parameters())
    clip = load_pretrained(shard(folder("clip").rename(folder("siglip").parent / "sharded")))
    assert isinstance(clip, CLIP)
