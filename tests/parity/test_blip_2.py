"""BLIP-2 equals Transformers' Blip2ForImageTextRetrieval and Blip2ForConditionalGeneration, with a GPT-2: both halves.

What the Q-Former writes in the first stage has no twin there; its states have, under the same mask.
"""

import json

import pytest
import torch
import torch.nn.functional as F
from published import sizes
from testing_tools import close, refused
from transformers import (
    Blip2Config,
    Blip2ForConditionalGeneration,
    Blip2ForImageTextRetrieval,
    Blip2QFormerConfig,
    Blip2VisionConfig,
    GPT2Config,
)

from mmlearn import load_pretrained
from mmlearn.objectives.bridging import query_text_mask

CASES = {
    "odd": dict(former=sizes(24, 3, 3, 50), image=sizes(16, 1, 2, 36), size=(20, 5), queries=5, batch=3, length=11),
    "relu": dict(
        former=sizes(40, 2, 5, 33, hidden_act="relu", cross_attention_frequency=1), queries=3, batch=4, length=8,
        image=sizes(24, 2, 3, 20, layer_norm_eps=1e-4), size=(16, 8),
    ),
    "batch of one": dict(
        former=sizes(16, 4, 1, 24, layer_norm_eps=1e-5, cross_attention_frequency=3), queries=1, batch=1, length=5,
        image=sizes(16, 2, 1, 24, hidden_act="relu"), size=(12, 4),
    ),
}  # fmt: skip
WORDS, IMAGE = 90, 92  # then [Decode] = 90


def inputs(name, reads_text):
    case = CASES[name]
    (size, patch), q, batch, length = case["size"], case["queries"], case["batch"], case["length"]
    language = dict(vocab_size=93, n_positions=q + length, n_embd=24, n_layer=2, n_head=3)
    config = Blip2Config(
        vision_config=Blip2VisionConfig(image_size=size, patch_size=patch, **case["image"]),
        qformer_config=Blip2QFormerConfig(
            vocab_size=WORDS + 1, max_position_embeddings=length, use_qformer_text_input=reads_text, **case["former"]
        ),
        text_config=GPT2Config(bos_token_id=1, eos_token_id=2, **language),
        num_query_tokens=q,
        image_text_hidden_size=12,
        image_token_index=None if reads_text else IMAGE,
    )
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(4, WORDS, (batch, length), generator=generator)
    image = torch.randn(batch, 3, size, size, generator=generator)
    mask = torch.arange(length) <= torch.arange(batch)[:, None] + 2
    return config, image, tokens, mask


def pair(name, kind, twins):
    config, image, tokens, mask = inputs(name, kind is Blip2ForImageTextRetrieval)
    published, ours = twins(kind(config))
    ours.requires_grad_(True)  # also what BLIP-2 never trains; that gradients are equal says more
    return published, ours, image, tokens, mask


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
@pytest.mark.parametrize("case", CASES)
def test_speaking(case, padded, twins, assert_same_gradients):
    published, ours, image, tokens, mask = pair(case, Blip2ForConditionalGeneration, twins)
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


def test_what_is_not_built_is_refused(twins, tmp_path):
    pair("batch of one", Blip2ForConditionalGeneration, twins)
    file = tmp_path / "weights" / "config.json"
    values = json.loads(file.read_text())
    values["text_config"]["model_type"] = "opt"
    file.write_text(json.dumps(values))
    refused("text_config of config.json is of model_type 'opt', and only 'gpt2' is built", load_pretrained, file.parent)
