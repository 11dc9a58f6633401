"""Configurations survive JSON, cannot be changed, and name what they do not know."""

import dataclasses
import json
import re

import pytest
import torch
from testing_tools import refused

from mmlearn.layers import ImageEncoderConfig, TextEncoderConfig, TransformerConfig
from mmlearn.models.bridges.frozen import FrozenConfig
from mmlearn.models.contrastive.clip import CLIPConfig
from mmlearn.models.speech.wav2vec2 import Wav2Vec2Config
from mmlearn.models.text.opt import OPTConfig
from mmlearn.recipes.discovery import find_recipe, system_files


@pytest.mark.parametrize("name", list(system_files()))
def test_presets_differ_and_tiny_is_one(name):
    config_class = find_recipe(name).config
    presets = [config_class.preset(preset) for preset in config_class.PRESETS]
    assert len(set(presets)) == len(presets)
    assert config_class.tiny() == config_class.preset("tiny")
    refused(rf"{config_class.__name__} has no preset 'nano'; choose from tiny[.,]", config_class.preset, "nano")


def test_every_field_goes_through_json_and_none_is_taken_from_the_defaults():
    image = ImageEncoderConfig(6, 1, 3, 7, "relu", False, 1e-3, 0.25, 0.125, (8, 12), 2, False, True, True, 4)
    assert not any(getattr(image, field.name) == field.default for field in dataclasses.fields(image)), (
        "a default would prove nothing"
    )
    text = TextEncoderConfig(6, 1, 3, 7, "silu", False, 1e-3, 0.25, 0.125, 9, 8, False)
    config = CLIPConfig(image, text, embedding_width=5, pooling="max", temperature=0.5, end_token=4)
    plain = config.to_dict()
    back = CLIPConfig.from_dict(json.loads(json.dumps(plain)))
    assert back == config
    assert back.image.image_size == (8, 12)
    assert isinstance(back.text, TextEncoderConfig)
    assert plain["image"]["norm_epsilon"] == 1e-3


def test_a_part_of_another_kind_than_the_default_says_so():
    """A bridge may have a GPT-2 or an OPT."""
    config = FrozenConfig(language_model=OPTConfig.tiny())
    plain = config.to_dict()
    assert plain["language_model"]["kind"] == "OPTConfig"
    assert FrozenConfig.from_dict(json.loads(json.dumps(plain))) == config
    assert "kind" not in FrozenConfig().to_dict()["language_model"]
    for kind in ("OPTConfigs", "ImageEncoderConfig", 3, None):
        changed = {"language_model": plain["language_model"] | {"kind": kind}}
        refused(
            "There is no kind .* of GPT2Config; .*choose from GPT2Config, OPTConfig", FrozenConfig.from_dict, changed
        )


def test_missing_fields_take_their_defaults():
    assert CLIPConfig.from_dict({}) == CLIPConfig()
    assert CLIPConfig.from_dict({"embedding_width": 3}) == CLIPConfig(embedding_width=3)


def test_fields_without_a_default_are_asked_for():
    assert TransformerConfig.from_dict({"width": 8, "depth": 1, "num_heads": 2}) == TransformerConfig(8, 1, 2)
    refused("TransformerConfig needs depth, num_heads as well", TransformerConfig.from_dict, {"width": 8})


def test_unknown_fields_are_named_with_those_that_exist():
    with pytest.raises(ValueError, match=r"CLIPConfig has no field colour, size; it has embedding_width, .*text"):
        CLIPConfig.from_dict({"size": 3, "colour": 1, "pooling": "class"})
    refused(r"ImageEncoderConfig has no field widht; it has .*width", CLIPConfig.from_dict, {"image": {"widht": 3}})


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"embedding_width": "abc"}, "CLIPConfig: embedding_width is a whole number, not 'abc'."),
        ({"embedding_width": True}, "CLIPConfig: embedding_width is a whole number, not True."),
        ({"embedding_width": 0}, "CLIPConfig: embedding_width is above 0, not 0."),
        ({"embedding_width": {}}, "CLIPConfig: embedding_width is a whole number, not {}."),
        ({"temperature": float("nan")}, "CLIPConfig: temperature is a number, not nan."),
        ({"end_token": "abc"}, "CLIPConfig: end_token is a whole number or null, not 'abc'."),
        ({"end_token": -1}, "CLIPConfig: end_token is at least 0, not -1."),
        ({"image": {"num_heads": -1}}, "ImageEncoderConfig: num_heads is above 0, not -1."),
        ({"image": {"norm_epsilon": "abc"}}, "ImageEncoderConfig: norm_epsilon is a number, not 'abc'."),
        ({"image": {"class_token": 1}}, "ImageEncoderConfig: class_token is true or false, not 1."),
        (
            {"image": {"image_size": [8, 8, 8]}},
            "image_size is a whole number or a list of 2 times a whole number, not (8, 8, 8).",
        ),
        ({"image": {"image_size": [8, -8]}}, "ImageEncoderConfig: image_size is above 0, not (8, -8)."),
        ({"text": 3}, "CLIPConfig: text is the settings of a TextEncoderConfig, not 3."),
        ({"pooling": None}, "CLIPConfig: pooling is a text, not None."),
    ],
)
def test_values_of_another_type_or_sign_are_named(values, says):
    refused(re.escape(says), CLIPConfig.from_dict, values)


def test_a_whole_number_is_a_number_and_a_bias_or_a_logarithm_may_be_below_0():
    assert CLIPConfig.from_dict({"temperature": 1, "image": {"image_size": [8, 12]}}).temperature == 1
    assert find_recipe("siglip").config.from_dict({"bias": -3}).bias == -3
    assert find_recipe("discrete-vae").config.from_dict({"least_log_scale": -3}).least_log_scale == -3


def test_a_configuration_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        CLIPConfig().embedding_width = 3


def test_unknown_systems_are_named_with_those_that_exist():
    refused(r"no system 'vlbert'; did you mean 'vl-bert'\? choose from albef, .* in all", find_recipe, "vlbert")


@pytest.mark.parametrize("name", sorted(system_files()))
def test_narrow_presets_are_built_and_keep_their_shape(name):
    """Every published preset, narrow and shallow: parts of the same kinds, with fewer numbers in them."""
    recipe = find_recipe(name)
    for config in [recipe.config.preset(item) for item in recipe.config.PRESETS if not item.startswith("tiny")]:
        with torch.device("meta"):
            whole, narrow = (dict(recipe.make(one).named_parameters()) for one in (config, config.narrowed()))
        assert {re.sub(r"\d+", "0", key) for key in narrow} == {re.sub(r"\d+", "0", key) for key in whole}
        numbers = [sum(parameter.numel() for parameter in of.values()) for of in (narrow, whole)]
        assert numbers[0] < 0.5 * numbers[1] or config == config.narrowed(), numbers


@pytest.mark.parametrize("depth", [2, 5])
def test_so_many_blocks_are_left(depth):
    config = CLIPConfig.preset("ViT-B/32")
    small = config.narrowed(depth)
    assert (small.image.depth, small.text.depth, small.image.width) == (depth, depth, config.image.width // 8)


def test_channels_of_convolutions_are_widths():
    narrow = Wav2Vec2Config.preset("base").narrowed()
    assert (narrow.speech.channels, narrow.speech.width) == ((64,) * 7, 96)
    tiny = Wav2Vec2Config.tiny()
    assert tiny.narrowed().speech.channels == (16, 24, 32, 48, 8, 8, 8)  # what is narrow already stays
