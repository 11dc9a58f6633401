"""GIT equals Transformers' GitForCausalLM: logits, the loss, gradients and written captions."""

import json
from functools import partial

import pytest
import torch
from published import sizes
from testing_tools import close, refused
from transformers import GitConfig, GitForCausalLM

from mmlearn import load_pretrained
from mmlearn.generation.decoding import beam_search

CASES = {
    "odd": dict(text=sizes(24, 2, 3, 50), image=sizes(16, 1, 2, 36), size=(20, 5), batch=3, length=11),
    "relu": dict(
        text=sizes(40, 1, 5, 33, hidden_act="relu", layer_norm_eps=1e-5),
        image=sizes(24, 3, 3, 20, layer_norm_eps=1e-6), size=(16, 8), batch=4, length=8,
    ),
    "batch of one": dict(
        text=sizes(16, 2, 1, 24), image=sizes(16, 2, 1, 24, hidden_act="relu"), size=(12, 4), batch=1, length=5
    ),
}  # fmt: skip
WORDS, START, END = 90, 2, 3


def inputs(name):
    case = CASES[name]
    size, patch = case["size"]
    config = GitConfig(
        vision_config=case["image"] | dict(image_size=size, patch_size=patch),
        **case["text"] | dict(vocab_size=WORDS, max_position_embeddings=case["length"]),
        bos_token_id=START,
        eos_token_id=END,
    )
    batch, length = case["batch"], case["length"]
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(4, WORDS, (batch, length), generator=generator)
    image = torch.randn(batch, 3, size, size, generator=generator)
    mask = torch.arange(length) <= torch.arange(batch)[:, None] + 2
    return config, image, tokens, mask


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_captioning(case, padded, twins, assert_same_gradients):
    config, image, tokens, mask = inputs(case)
    mask = mask if padded else torch.ones_like(mask)
    published, ours = twins(GitForCausalLM(config))
    given = dict(pixel_values=image, input_ids=tokens, attention_mask=mask.long())
    expected = published(**given, labels=tokens.masked_fill(~mask, -100))
    output = ours(image, tokens, mask)
    close(output.token_logits[mask], expected.logits[:, -tokens.shape[1] :][mask])
    losses = ours.loss(dict(image=image, tokens=tokens, mask=mask))
    close(losses["lm"], expected.loss)
    assert_same_gradients(published, ours, losses["lm"], expected.loss)


def sharpened(config):
    """So that the picture counts; without that all captions are one."""
    published = GitForCausalLM(config)
    with torch.no_grad():
        for parameter in published.parameters():
            parameter.mul_(3).add_(0.1 * torch.randn(parameter.shape))
    return published


@pytest.mark.parametrize("case", CASES)
def test_captions(case, twins):
    config, image, tokens, _ = inputs(case)
    published, ours = twins(sharpened(config))
    length = CASES[case]["length"]
    begun = torch.cat([torch.full_like(tokens[:, :1], START), tokens[:, :2]], 1)
    expected = published.generate(pixel_values=image, input_ids=begun, max_length=length, pad_token_id=0)[:, 1:]
    got = ours.generate(image, prompt=tokens[:, :2], max_length=length - 1)
    assert torch.equal(got, expected)
    search = dict(num_beams=3, length_penalty=1.0, early_stopping="never")
    beams = published.generate(pixel_values=image, input_ids=begun, max_length=length, pad_token_id=0, **search)[:, 1:]
    found = ours.generate(image, partial(beam_search, beams=3), prompt=tokens[:, :2], max_length=length - 1)
    assert torch.equal(found, beams)
    if len(image) > 1:
        assert len(got.unique(dim=0)) > 1


@pytest.mark.parametrize(("name", "value"), [("num_image_with_embedding", 6), ("tie_word_embeddings", True)])
def test_what_is_not_built_is_refused(name, value, twins, tmp_path):
    twins(GitForCausalLM(inputs("odd")[0]))
    file = tmp_path / "weights" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {name: value}))
    refused(name, load_pretrained, file.parent)
