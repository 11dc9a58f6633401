"""BLIP-2 on FlanT5 equals Transformers' Blip2ForConditionalGeneration with a T5: logits, loss, gradients, texts."""

import pytest
import torch
from blip_2 import CASES, IMAGE, inputs, pair, speaking
from published import sharpened
from testing_tools import close
from torch.nn.utils.rnn import pad_sequence
from transformers import Blip2ForConditionalGeneration


def read_by_t5(q, tokens, asked):
    """What the encoder of theirs reads: a token for each query, and the prompts, each with its end token."""
    rows = [torch.cat([torch.full((q,), IMAGE), row[real], torch.tensor([2])]) for row, real in zip(tokens, asked)]
    real = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
    return dict(input_ids=pad_sequence(rows, batch_first=True), attention_mask=real)


@pytest.mark.parametrize("prompted", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_speaking_through_t5(case, prompted, twins, assert_same_gradients):
    """Without a prompt, captions are written; with one, the decoder writes what answers."""
    published, ours, image, tokens, mask = pair(case, Blip2ForConditionalGeneration, twins, "t5")
    position, q = torch.arange(tokens.shape[1]), CASES[case]["queries"]
    response = mask & (position >= (2 + torch.arange(len(tokens))[:, None] % 2 if prompted else 1))
    given = read_by_t5(q, tokens, mask & ~response & (position > 0))
    label = pad_sequence([row[real] for row, real in zip(tokens, response)], batch_first=True, padding_value=-100)
    expected = published(pixel_values=image, **given, labels=label)
    output = ours(image, tokens, mask, *([response] if prompted else []))
    close(output.prefix, published.get_image_features(image).pooler_output)
    before = torch.nn.functional.pad(response[:, 1:], (0, 1))  # logits of a token are those after the one before
    close(output.token_logits[before], expected.logits[label >= 0])
    batch = dict(image=image, tokens=tokens, mask=mask) | (dict(response=response) if prompted else {})
    loss = ours.loss(batch)["lm"]
    close(loss, expected.loss)
    assert_same_gradients(published, ours, loss, expected.loss)


def test_texts_are_written_as_published(twins):
    """Prompts of unequal length; sharpened, so that the picture counts."""
    config, image, tokens, _ = inputs("odd", False, "t5")
    published, ours = twins(sharpened(speaking(config)))
    prompt = tokens[:, :4]
    real = torch.arange(4) >= torch.arange(3)[:, None]  # padded at the left
    given = read_by_t5(CASES["odd"]["queries"], prompt, real)
    expected = published.generate(pixel_values=image, **given, max_new_tokens=6, do_sample=False)
    got = ours.generate(image, prompt=prompt.masked_fill(~real, 0), prompt_mask=real, max_length=10)
    assert torch.equal(got[:, 4:], expected[:, 1:])
    assert len(got[:, 4:].unique(dim=0)) > 1
