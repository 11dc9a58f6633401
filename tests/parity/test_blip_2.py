"""BLIP-2 equals Transformers' Blip2ForImageTextRetrieval and Blip2ForConditionalGeneration, both halves, with
GPT-2, OPT and T5.

What the Q-Former writes in the first stage has no twin there; its states have, under the same mask.
"""

import json

import pytest
import torch
import torch.nn.functional as F
from published import sharpened, sizes
from testing_tools import close, refused
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    Blip2Config,
    Blip2ForConditionalGeneration,
    Blip2ForImageTextRetrieval,
    Blip2QFormerConfig,
    Blip2VisionConfig,
    GPT2Config,
    OPTConfig,
    T5Config,
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
ENDS = dict(bos_token_id=1, eos_token_id=2)
LANGUAGE = {
    "gpt2": lambda n: GPT2Config(vocab_size=93, n_positions=n, n_embd=24, n_layer=2, n_head=3, **ENDS),
    "opt": lambda n: OPTConfig(
        vocab_size=93, max_position_embeddings=n, ffn_dim=36, **sizes(24, 2, 3, 0), **ENDS, pad_token_id=0
    ),
    "t5": lambda n: T5Config(
        vocab_size=93, d_model=24, d_kv=10, d_ff=36, num_layers=2, num_heads=3, feed_forward_proj="gated-gelu",
        relative_attention_num_buckets=6, relative_attention_max_distance=16, tie_word_embeddings=False,
        eos_token_id=2, pad_token_id=0, decoder_start_token_id=0,
    ),
}  # fmt: skip


def inputs(name, reads_text, language):
    case = CASES[name]
    (size, patch), q, batch, length = case["size"], case["queries"], case["batch"], case["length"]
    config = Blip2Config(
        vision_config=Blip2VisionConfig(image_size=size, patch_size=patch, **case["image"]),
        qformer_config=Blip2QFormerConfig(
            vocab_size=WORDS + 1, max_position_embeddings=length, use_qformer_text_input=reads_text, **case["former"]
        ),
        text_config=LANGUAGE[language](q + length),
        num_query_tokens=q,
        image_text_hidden_size=12,
        image_token_index=None if reads_text else IMAGE,
    )
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(4, WORDS, (batch, length), generator=generator)
    image = torch.randn(batch, 3, size, size, generator=generator)
    mask = torch.arange(length) <= torch.arange(batch)[:, None] + 2
    return config, image, tokens, mask


def speaking(config):
    """With a language head of its own where the language model is a T5, as of FlanT5."""
    model = Blip2ForConditionalGeneration(config)
    if config.text_config.model_type == "t5":
        head = model.language_model.lm_head
        head.weight = torch.nn.Parameter(torch.randn_like(head.weight) * 0.2)
    return model


def pair(name, kind, twins, language="gpt2"):
    config, image, tokens, mask = inputs(name, kind is Blip2ForImageTextRetrieval, language)
    published, ours = twins(speaking(config) if kind is Blip2ForConditionalGeneration else kind(config))
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


@pytest.mark.parametrize("language", ["gpt2", "opt", "t5"])
def test_texts_are_written_as_published(language, twins):
    """Prompts of unequal length; sharpened, so that the picture counts."""
    config, image, tokens, _ = inputs("odd", False, language)
    published, ours = twins(sharpened(speaking(config)))
    prompt, q = tokens[:, :4], CASES["odd"]["queries"]
    real = torch.arange(4) >= torch.arange(3)[:, None]  # padded at the left
    if language == "t5":
        given, told = read_by_t5(q, prompt, real), 1
    else:
        start, told = torch.cat([torch.zeros(3, 1), prompt.masked_fill(~real, 0)], 1).long(), q + 5
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
    expected = expected[:, told:].masked_fill(expected[:, told:] == pad, 0)
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
