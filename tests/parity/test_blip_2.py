"""BLIP-2 equals Transformers' Blip2ForImageTextRetrieval and Blip2ForConditionalGeneration, both halves, with
GPT-2 and OPT.

What the Q-Former writes in the first stage has no twin there; its states have, under the same mask.
"""

import json

import pytest
import torch
import torch.nn.functional as F
from blip_2 import CASES, IMAGE, inputs, pair, speaking
from published import sharpened
from testing_tools import close, refused
from transformers import Blip2ForConditionalGeneration, Blip2ForImageTextRetrieval

from mmlearn import load_pretrained
from mmlearn.objectives.bridging import query_text_mask


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_matching(case, padded, twins, assert_same_gradients):
    published, ours, image, tokens, mask = pair(case, Blip2ForImageTextRetrieval, twins)
    mask = mask if padded else torch.ones_like(mask)
    given = dict(pixel_values=image, input_ids=tokens, attention_mask=mask.long())
    expected = published(**given, use_image_text_matching_head=True).logits_per_image
    got = ours.match(image, tokens, mask)
    close(got, expected)
    output = ours(image, tokens, mask)
    close(output.match_logits, expected)
    assert output.caption_logits is None
    assert not hasattr(output, "token_logits")
    label = torch.arange(len(tokens)) % 2
    assert_same_gradients(published, ours, F.cross_entropy(got, label), F.cross_entropy(expected, label))


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_similarity(case, padded, twins, assert_same_gradients):
    """Together under the mask of contrast as there, where queries and texts are read apart."""
    published, ours, image, tokens, mask = pair(case, Blip2ForImageTextRetrieval, twins)
    mask = mask if padded else torch.ones_like(mask)
    expected = published(pixel_values=image, input_ids=tokens, attention_mask=mask.long())
    queries, texts = ours.encode_image(image), ours.encode_text(tokens, mask)
    close(queries, expected.image_embeds)
    close(texts, expected.text_embeds)
    output = ours(image, tokens, mask)
    close(output.query_embedding, expected.image_embeds)
    close(output.text_embedding, expected.text_embeds)
    weight = torch.randn(queries.shape, generator=torch.Generator().manual_seed(2))
    losses = (
        (u * weight).sum() + v.sum() for u, v in ((queries, texts), (expected.image_embeds, expected.text_embeds))
    )
    assert_same_gradients(published, ours, *losses)


@pytest.mark.parametrize("task", ["contrast", "matching", "writing"])
def test_states_under_the_masks(task, twins):
    published, ours, image, tokens, mask = pair("odd", Blip2ForImageTextRetrieval, twins)
    patches, q = ours.image_encoder(image), 5
    close(patches, published.vision_model(image).last_hidden_state)
    sees = query_text_mask(task, q, mask)
    asked = published.embeddings(input_ids=tokens, query_embeds=published.query_tokens.expand(3, -1, -1))
    hidden = torch.zeros(sees.shape).masked_fill(~sees, torch.finfo(torch.float32).min)[:, None]
    expected = published.qformer(
        query_embeds=asked, query_length=q, attention_mask=hidden, encoder_hidden_states=patches
    ).last_hidden_state
    queries, texts = ours.query_former(patches, ours.text, tokens, sees)
    close(queries, expected[:, :q])
    close(texts[mask], expected[:, q:][mask])


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("language", ["gpt2", "opt"])
@pytest.mark.parametrize("case", CASES)
def test_speaking(case, language, padded, twins, assert_same_gradients):
    published, ours, image, tokens, mask = pair(case, Blip2ForConditionalGeneration, twins, language)
    mask = mask if padded else torch.ones_like(mask)
    b, q = len(tokens), CASES[case]["queries"]
    label = tokens.masked_fill(~mask, -100)
    label[:, 0] = -100  # the start token, which is not asked here
    expected = published(
        pixel_values=image,
        input_ids=torch.cat([torch.full((b, q), IMAGE), tokens], 1),
        attention_mask=torch.cat([torch.ones(b, q), mask], 1).long(),
        labels=torch.cat([torch.full((b, q), -100), label], 1),
    )
    output = ours(image, tokens, mask)
    close(output.prefix, published.get_image_features(image).pooler_output)
    close(output.token_logits[mask], expected.logits[:, q:][mask])
    loss = ours.loss(dict(image=image, tokens=tokens, mask=mask))["lm"]
    close(loss, expected.loss)
    assert_same_gradients(published, ours, loss, expected.loss)


@pytest.mark.parametrize("language", ["gpt2", "opt"])
def test_texts_are_written_as_published(language, twins):
    """Prompts of unequal length; sharpened, so that the picture counts."""
    config, image, tokens, _ = inputs("odd", False, language)
    published, ours = twins(sharpened(speaking(config)))
    prompt, q = tokens[:, :4], CASES["odd"]["queries"]
    real = torch.arange(4) >= torch.arange(3)[:, None]  # padded at the left
    start = torch.cat([torch.zeros(3, 1), prompt.masked_fill(~real, 0)], 1).long()
    start_real = torch.cat([torch.zeros(3, 1, dtype=torch.bool), real], 1)
    start[torch.arange(3), torch.arange(3)], start_real[torch.arange(3), torch.arange(3)] = 1, True
    given = dict(
        input_ids=torch.cat([torch.full((3, q), IMAGE), start], 1),
        attention_mask=torch.cat([torch.ones(3, q), start_real], 1).long(),
    )
    expected = published.generate(pixel_values=image, **given, max_new_tokens=6, do_sample=False, pad_token_id=0)
    got = ours.generate(image, prompt=prompt.masked_fill(~real, 0), prompt_mask=real, max_length=10)
    pad = 2 if language == "gpt2" else 0
    got = got[:, 4:].masked_fill(got[:, 4:] == pad, 0)
    expected = expected[:, q + 5 :].masked_fill(expected[:, q + 5 :] == pad, 0)
    assert torch.equal(got, expected)
    assert len(got.unique(dim=0)) > 1


def test_what_is_not_built_is_refused(twins, tmp_path):
    pair("batch of one", Blip2ForConditionalGeneration, twins)
    file = tmp_path / "weights" / "config.json"
    values = json.loads(file.read_text())
    values["text_config"]["model_type"] = "llama"
    file.write_text(json.dumps(values))
    says = "text_config of config.json is of model_type 'llama', and only 'gpt2' or 'opt' or 't5' is built"
    refused(says, load_pretrained, file.parent)
