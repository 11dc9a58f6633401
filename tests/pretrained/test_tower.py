"""A published tower that sees a picture as 4 × 4 fields, as the packaged one does."""

from dataclasses import replace
from unittest.mock import Mock

import pytest
import torch
import torch.nn.functional as F
from chats import llama_folder, siglip_folder
from testing_tools import close, refused, seeded

from mmlearn import load_pretrained
from mmlearn.models.bridges.vlm import VLM, VLMConfig
from mmlearn.models.vision.backbone import BackboneConfig
from mmlearn.pretrained.backbone import load_positions
from mmlearn.pretrained.tower import MOBILENET, fields_of
from mmlearn.recipes.discovery import find_recipe
from mmlearn.training.pretrained_parts import read_parts


@pytest.fixture(scope="module")
def siglip(tmp_path_factory):
    folder = tmp_path_factory.mktemp("siglip")
    siglip_folder(folder)
    return str(folder)


def test_fields_are_means_of_the_patches_of_the_published_tower(siglip):
    """4 × 4 patches of a picture of 32 pixels, in 2 × 2 fields; pixels from 0 to 1 are normalised as it wants them."""
    config = fields_of(siglip, side=2)
    tower, image = load_positions(config), torch.rand(3, 3, 32, 32, generator=seeded())
    patches = load_pretrained(siglip).image_encoder((image - 0.5) / 0.25).unflatten(1, (4, 4))  # (b, 4, 4, 32)
    expected = torch.stack([patches[:, i : i + 2, j : j + 2].mean((1, 2)) for i in (0, 2) for j in (0, 2)], 1)
    found = tower(image)
    close(found, F.layer_norm(expected, (32,)))
    assert torch.equal(tower(found.mT.unflatten(2, (2, 2))), found)  # that were computed before
    assert tower(torch.rand(1, 3, 50, 50)).shape == (1, 4, 32)
    assert not any(parameter.requires_grad for parameter in tower.parameters())


def test_a_system_has_it_in_the_packaged_towers_place(siglip):
    config = replace(VLMConfig.tiny(), image_encoder=fields_of(siglip), shuffle=1)
    assert VLMConfig.from_dict(config.to_dict()) == config
    assert config.num_image_tokens == 16
    for system in (find_recipe("vlm").make(config), VLM(config, load_positions(config.image_encoder))):
        assert system.encode_image(torch.rand(2, 3, 64, 64)).shape == (2, 16, 64)


def test_the_packaged_one_stands_in_for_what_cannot_be_had(monkeypatch):
    assert fields_of() == BackboneConfig()
    monkeypatch.setattr("huggingface_hub.snapshot_download", Mock(side_effect=OSError))
    with pytest.warns(UserWarning, match="^mobilenetv2 in place of nobody/tower, which cannot be had here"):
        assert fields_of(["nobody/tower", MOBILENET]) == BackboneConfig()
    with pytest.raises(FileNotFoundError, match="nobody/tower"):
        fields_of("nobody/tower")


def test_a_tower_whose_pixels_nothing_describes_is_refused(tmp_path):
    siglip_folder(tmp_path)
    (tmp_path / "preprocessor_config.json").unlink()
    says = "does not say how images are normalised: put the model's preprocessor_config.json into it"
    refused(says, fields_of, str(tmp_path))
    refused(says, read_parts, {"image_encoder": tmp_path}, VLMConfig.tiny())


def test_what_has_no_such_fields_is_refused(siglip, tmp_path):
    llama_folder(tmp_path)
    refused("is a Llama, which has no image tower beside a text tower", fields_of, str(tmp_path))
    refused("32 pixels a side, do not divide into 3 × 3 fields", fields_of, siglip, 3)
