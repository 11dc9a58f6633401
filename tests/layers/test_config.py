"""Configurations survive JSON, cannot be changed, and name what they do not know."""

import dataclasses
import json

import pytest

from mmlearn.layers import ImageEncoderConfig, TextEncoderConfig
from mmlearn.models import SYSTEMS, system
from mmlearn.models.clip import CLIPConfig

CASES = [(name, preset) for name in SYSTEMS for preset in system(name)[1].PRESETS]


@pytest.mark.parametrize(("name", "preset"), CASES)
def test_every_preset_survives_json(name, preset):
    config_class = system(name)[1]
    config = config_class.preset(preset)
    back = config_class.from_dict(json.loads(json.dumps(config.to_dict())))
    assert type(back) is config_class
    assert back == config
    assert hash(back) == hash(config)


@pytest.mark.parametrize("name", SYSTEMS)
def test_presets_differ_and_tiny_is_one(name):
    config_class = system(name)[1]
    presets = [config_class.preset(preset) for preset in config_class.PRESETS]
    assert len(set(presets)) == len(presets)
    assert config_class.tiny() == config_class.preset("tiny")
    with pytest.raises(ValueError, match=rf"{config_class.__name__} has no preset 'nano'; choose from tiny, "):
        config_class.preset("nano")


def test_every_field_goes_through_json_and_none_is_taken_from_the_defaults():
    image = ImageEncoderConfig((8, 12), 2, 6, 1, 3, 7, "relu", 1e-3, 0.25, False, True, True)
    assert not any(getattr(image, field.name) == field.default for field in dataclasses.fields(image)), (
        "a default would prove nothing"
    )
    text = TextEncoderConfig(9, 8, 6, 1, 3, 7, "silu", 1e-3, 0.25, False)
    config = CLIPConfig(image, text, embedding_width=5, pooling="max", temperature=0.5, end_token=4)
    plain = config.to_dict()
    back = CLIPConfig.from_dict(json.loads(json.dumps(plain)))
    assert back == config
    assert back.image.image_size == (8, 12)
    assert isinstance(back.text, TextEncoderConfig)
    assert plain["image"]["norm_epsilon"] == 1e-3


def test_missing_fields_take_their_defaults():
    assert CLIPConfig.from_dict({}) == CLIPConfig()
    assert CLIPConfig.from_dict({"embedding_width": 3}) == CLIPConfig(embedding_width=3)


def test_unknown_fields_are_named_with_those_that_exist():
    with pytest.raises(ValueError, match=r"CLIPConfig has no field colour, size; it has embedding_width, .*text"):
        CLIPConfig.from_dict({"size": 3, "colour": 1, "pooling": "class"})
    with pytest.raises(ValueError, match=r"ImageEncoderConfig has no field widht; it has .*width"):
        CLIPConfig.from_dict({"image": {"widht": 3}})


def test_a_configuration_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        CLIPConfig().embedding_width = 3


def test_unknown_systems_are_named_with_those_that_exist():
    with pytest.raises(ValueError, match=r"no system 'vlbert'; did you mean 'vl-bert'\? choose from albef, .*vl-bert"):
        system("vlbert")
