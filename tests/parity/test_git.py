"""GIT equals Transformers' GitForCausalLM: logits, the loss, gradients and written captions."""

import json
from functools import partial

import pytest
import torch
from published import CAPTIONED, captioned_inputs, sharpened
from testing_tools import close, refused
from transformers import GitConfig, GitForCausalLM

from mmlearn import load_pretrained
from mmlearn.generation.decoding import beam_search

WORDS, START, END = 90, 2, 3


def inputs(case):
    text, image, *given = captioned_inputs(case, WORDS)
    config = GitConfig(vision_config=image, **text | dict(vocab_size=WORDS), bos_token_id=START, eos_token_id=END)
    return config, *given


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("case", CAPTIONED)
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


@pytest.mark.parametrize("case", CAPTIONED)
def test_captions(case, twins):
    config, image, tokens, _ = inputs(case)
    published, ours = twins(sharpened(GitForCausalLM(config)))
    length = tokens.shape[1]
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
