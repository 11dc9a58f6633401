"""A CLIP as a file of JavaScript: what is written can be read back, and is the same model to 1e-3."""

import dataclasses
import json

import pytest
import torch

from mmlearn.data.tokenizer import Tokenizer
from mmlearn.layers import ImageEncoderConfig, TextEncoderConfig
from mmlearn.models import CLIP, CLIPConfig
from mmlearn.visualization.in_browser import as_bytes, read_for_browser, write_for_browser

TEXTS = ["a red heart", "a blue star above a red ring"]
PIXELS = {"mean": (0.1, 0.2, 0.3), "std": (0.5, 0.25, 1.0)}


@pytest.fixture
def tokenizer():
    return Tokenizer.train(TEXTS, vocab_size=280, max_length=12)


@pytest.fixture
def config(tokenizer):
    return CLIPConfig(
        image=ImageEncoderConfig(16, 2, 2, image_size=8, patch_size=4, class_token=False, embedding_norm=True),
        text=TextEncoderConfig(16, 1, 2, vocab_size=tokenizer.vocab_size, max_length=12),
        embedding_width=24,
        pooling="max",
        end_token=tokenizer.end_token,
    )


def tiny(config):
    torch.manual_seed(0)
    return CLIP(config).eval()


def images(count=2, size=8):
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_what_is_written_is_the_same_model_to_a_thousandth(tmp_path, config, tokenizer):
    system, path = tiny(config), tmp_path / "clip.js"
    write_for_browser(path, system, tokenizer, images(), TEXTS, **PIXELS)
    read = read_for_browser(path)
    again = CLIP(CLIPConfig.from_dict(read["config"])).eval()
    again.load_state_dict(read["weights"])
    pixels = torch.stack([entry["image"] for entry in read["gallery"]]) / 255
    assert (pixels - images()).abs().max() <= 0.5 / 255 + 1e-6
    tokens, mask = tokenizer(TEXTS)
    before, after = system(pixels, tokens, mask), again(pixels, tokens, mask)
    assert (before.image_embedding - after.image_embedding).abs().max() < 1e-3
    assert (before.text_embedding - after.text_embedding).abs().max() < 1e-3
    assert torch.isclose(before.logit_scale, after.logit_scale, rtol=2e-3)  # its logarithm is rounded
    assert (read["mean"], read["std"]) == tuple(map(list, PIXELS.values()))
    assert any((value != again.state_dict()[name]).any() for name, value in system.state_dict().items())  # rounded


def test_the_tokenizer_comes_back(tmp_path, config, tokenizer):
    from tokenizers import Tokenizer as Engine

    write_for_browser(tmp_path / "clip.js", tiny(config), tokenizer, images(), TEXTS, **PIXELS)
    engine = Engine.from_str(json.dumps(read_for_browser(tmp_path / "clip.js")["tokenizer"]))
    text = "A red STAR, naïve <end> 🦊"
    assert engine.encode(text).ids == tokenizer([text])[0][0].tolist()


def test_captions_and_further_entries_come_back(tmp_path, config, tokenizer):
    captions = ['</script> "quoted"', "a\\b\u2028ü"]
    more = {"names": ("a", "b"), "kit": {"bytes": as_bytes(torch.tensor([[0.0, 1.0]])), "half": torch.tensor(0.5)}}
    write_for_browser(tmp_path / "clip.js", tiny(config), tokenizer, images(), captions, **PIXELS, **more)
    read = read_for_browser(tmp_path / "clip.js")
    assert [entry["caption"] for entry in read["gallery"]] == captions
    assert read["names"] == ["a", "b"]
    assert read["kit"]["bytes"].tolist() == [[0, 255]]
    assert read["kit"]["half"] == 0.5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pooling": "class", "image": {"class_token": True}}, "pooling 'class'"),
        ({"end_token": None}, "end_token None"),
        ({"text": {"causal": False}}, "reads both ways"),
        ({"text": {"norm_first": False}}, "norms after the branches"),
        ({"image": {"activation": "relu"}}, "activation 'relu'"),
        ({"image": {"convolutions": True}}, "convolutions"),
        ({"image": {"image_size": 12}}, "pictures of 8 × 8 pixels"),
        ({"image": {"image_size": (8, 8)}}, None),
    ],
)
def test_only_what_the_page_can_run_is_written(tmp_path, config, tokenizer, change, message):
    towers = {
        name: dataclasses.replace(getattr(config, name), **value)
        for name, value in change.items()
        if isinstance(value, dict)
    }
    changed = dataclasses.replace(config, **(change | towers))
    path = tmp_path / "clip.js"
    if message is None:
        write_for_browser(path, tiny(changed), tokenizer, images(), TEXTS, **PIXELS)
        return
    with pytest.raises(ValueError, match=message):
        write_for_browser(path, tiny(changed), tokenizer, images(), TEXTS, **PIXELS)
    assert not path.exists()


def test_weights_beyond_half_precision_are_refused(tmp_path, config, tokenizer):
    system = tiny(config)
    system.image_projection.weight.data[0, 0] = 1e6
    with pytest.raises(ValueError, match="65,504"):
        write_for_browser(tmp_path / "clip.js", system, tokenizer, images(), TEXTS, **PIXELS)


def test_a_caption_too_few_is_refused(tmp_path, config, tokenizer):
    with pytest.raises(ValueError, match="there are 2 and 1"):
        write_for_browser(tmp_path / "clip.js", tiny(config), tokenizer, images(), TEXTS[:1], **PIXELS)


def test_pixels_have_three_channels(tmp_path, config, tokenizer):
    with pytest.raises(ValueError, match="three numbers each"):
        write_for_browser(tmp_path / "clip.js", tiny(config), tokenizer, images(), TEXTS, mean=(0.5,), std=(1, 1, 1))


def test_another_file_is_refused(tmp_path):
    (tmp_path / "other.js").write_text("alert(1);\n")
    with pytest.raises(ValueError, match="was not written by write_for_browser"):
        read_for_browser(tmp_path / "other.js")
