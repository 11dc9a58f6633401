"""BLIP equals Transformers' BlipForImageTextRetrieval and BlipForConditionalGeneration: both halves, with gradients."""

import json
from functools import partial
from pathlib import Path

import pytest
import torch
from published import CAPTIONED, captioned_inputs, sharpened
from testing_tools import close, refused
from transformers import BertConfig, BertModel, BlipConfig, BlipForConditionalGeneration, BlipForImageTextRetrieval

from mmlearn import load_pretrained
from mmlearn.generation.decoding import beam_search

WORDS = 90  # then [Decode] = 90 and [Encode] = 91
DECODE, ENCODE, END = WORDS, WORDS + 1, 3


def inputs(case, label_smoothing=0.1):
    text, image, *given = captioned_inputs(case, WORDS)
    special = dict(vocab_size=WORDS + 2, bos_token_id=DECODE, sep_token_id=END, label_smoothing=label_smoothing)
    return BlipConfig(text_config=text | special, vision_config=image, image_text_hidden_size=12), *given


def beginning(tokens, role):
    """Transformers leaves this to the caller."""
    return torch.cat([torch.full_like(tokens[:, :1], role), tokens[:, 1:]], dim=1)


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("case", CAPTIONED)
def test_matching(case, padded, twins, assert_same_gradients):
    config, image, tokens, mask = inputs(case)
    mask = mask if padded else torch.ones_like(mask)
    published, ours = twins(BlipForImageTextRetrieval(config))
    given = dict(input_ids=beginning(tokens, ENCODE), attention_mask=mask.long())
    expected = published(pixel_values=image, **given).itm_score
    got = ours.match(image, tokens, mask)
    close(got, expected)
    close(ours(image, tokens, mask).match_logits, expected)
    label = torch.arange(len(tokens)) % 2
    torch.nn.functional.cross_entropy(got, label).backward()
    torch.nn.functional.cross_entropy(expected, label).backward()
    assert_same_gradients(published, ours)


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("case", CAPTIONED)
def test_similarity(case, padded, twins, assert_same_gradients):
    config, image, tokens, mask = inputs(case)
    mask = mask if padded else torch.ones_like(mask)
    published, ours = twins(BlipForImageTextRetrieval(config))
    given = dict(pixel_values=image, input_ids=tokens, attention_mask=mask.long())
    expected = published(**given, use_itm_head=False).itm_score
    got = ours.encode_image(image) @ ours.encode_text(tokens, mask).T
    close(got, expected)
    output = ours(image, tokens, mask)
    close(output.image_embedding @ output.text_embedding.T, expected)
    assert not hasattr(output, "token_logits")
    weight = torch.randn(got.shape, generator=torch.Generator().manual_seed(2))
    assert_same_gradients(published, ours, (got * weight).sum(), (expected * weight).sum())


@pytest.mark.parametrize(("padded", "label_smoothing"), [(False, 0.1), (True, 0.1), (True, 0.0)])
@pytest.mark.parametrize("case", CAPTIONED)
def test_captioning(case, padded, label_smoothing, twins, assert_same_gradients):
    config, image, tokens, mask = inputs(case, label_smoothing)
    mask = mask if padded else torch.ones_like(mask)
    published, ours = twins(BlipForConditionalGeneration(config))
    expected = published(
        pixel_values=image,
        input_ids=beginning(tokens, DECODE),
        attention_mask=mask.long(),
        labels=tokens.masked_fill(~mask, -100),
    )
    output = ours(image, tokens, mask)
    close(output.token_logits[mask], expected.logits[mask])
    assert output._fields == ("patches", "token_logits")
    losses = ours.loss(dict(image=image, tokens=tokens, mask=mask))
    assert set(losses) == {"lm"}
    close(losses["lm"], expected.loss)
    assert_same_gradients(published, ours, losses["lm"], expected.loss)


@pytest.mark.parametrize("count", [2, 5])
def test_three_losses(count, monkeypatch):
    """Without momentum encoder and queue the sum is that of both published halves, which share what the paper says."""
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")
    import twins as benched

    size = dict(width=24, depth=2, heads=3, vocab=90, words=(4, 9), image=20, patch=5, length=9)
    ours, published, batch = benched.blip(size), benched.PublishedBLIP(size), benched.captioned_images(size, count)
    counts = [sum(parameter.numel() for parameter in model.parameters()) for model in (ours, published)]
    assert counts[0] == counts[1]
    with torch.no_grad():
        for parameter in published.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    ours.load_state_dict(published.our_state())
    losses = benched.total(ours, batch), published(**batch)
    close(*losses)
    for loss in losses:
        loss.backward()
    with torch.no_grad():
        for parameter in published.parameters():
            parameter.copy_(torch.zeros_like(parameter) if parameter.grad is None else parameter.grad)
    expected = published.our_state()
    for name, parameter in ours.named_parameters():
        close(parameter.grad, expected[name])
        assert parameter.grad.abs().max() > 1e-6 or name.endswith("key.bias"), name


@pytest.mark.parametrize("case", CAPTIONED)
def test_greedy_captions(case, twins):
    config, image, tokens, _ = inputs(case)
    published, ours = twins(sharpened(BlipForConditionalGeneration(config)))
    length = tokens.shape[1]
    expected = published.generate(pixel_values=image, max_length=length)
    assert torch.equal(ours.generate(image, max_length=length - 1), expected[:, 1:])
    prompt = tokens[:, :2]
    asked = torch.cat([torch.zeros_like(tokens[:, :1]), prompt, torch.full_like(tokens[:, :1], END)], dim=1)
    expected = published.generate(pixel_values=image, input_ids=asked, max_length=length)
    got = ours.generate(image, prompt=prompt, max_length=length - 1)
    assert torch.equal(got, expected[:, 1:])
    assert torch.equal(got[:, :2], prompt)
    if len(image) > 1:
        assert len(got.unique(dim=0)) > 1


@pytest.mark.parametrize("length_penalty", [0.0, 0.7, 2.0])
@pytest.mark.parametrize("beams", [2, 3, 5])
def test_captions_of_beams_as_published(beams, length_penalty, twins):
    """With Transformers' exact stop; its usual one may miss the best text."""
    config, _, _, _ = inputs("relu")
    published = sharpened(BlipForConditionalGeneration(config))
    with torch.no_grad():
        published.text_decoder.cls.predictions.bias[END] -= 1
    published, ours = twins(published)
    image = torch.randn(24, 3, 16, 16)
    search = dict(num_beams=beams, length_penalty=length_penalty, early_stopping="never")
    expected = published.generate(pixel_values=image, max_length=8, **search)[:, 1:]
    got = ours.generate(image, partial(beam_search, beams=beams, length_penalty=length_penalty), max_length=7)
    behind = (expected == END).cumsum(1) - (expected == END).int() > 0  # where Transformers repeats the end token
    assert torch.equal(got, expected.masked_fill(behind, 0))
    assert len(got.unique(dim=0)) > 4
    assert not torch.equal(got, ours.generate(image, max_length=7)[:, : got.shape[1]])


def test_captions_end_as_published(twins):
    """The end token is the likeliest after a few words, at another place in each caption."""
    config, image, _, _ = inputs("relu")
    published = sharpened(BlipForConditionalGeneration(config))
    with torch.no_grad():
        published.text_decoder.cls.predictions.bias[END] += 2
    published, ours = twins(published)
    image = torch.randn(24, 3, 16, 16)
    expected = published.generate(pixel_values=image, max_length=8)[:, 1:]
    got = ours.generate(image, max_length=7)
    assert torch.equal(got, expected)
    ends = (got == END).sum(1)
    assert 0 < ends.sum() < len(ends)  # some end, and are padded, and some do not
    assert (got == 0).any()


def test_the_text_encoder_is_bert(twins):
    """Without a picture it is BERT with a single token type, which can be added to the positions."""
    config, _, tokens, mask = inputs("odd")
    published, ours = twins(BlipForImageTextRetrieval(config))
    shape = CAPTIONED["odd"]["text"]
    bert = BertModel(BertConfig(vocab_size=WORDS + 2, max_position_embeddings=11, **shape), add_pooling_layer=False)
    state = {name: value for name, value in published.text_encoder.state_dict().items() if "cross" not in name}
    state["embeddings.token_type_embeddings.weight"] = torch.zeros(2, 24)
    bert.load_state_dict(state)
    expected = bert.eval()(tokens, mask.long()).last_hidden_state
    close(ours.online.text(tokens, mask)[mask], expected[mask])


def test_a_table_that_is_not_shared_is_refused(twins, tmp_path):
    twins(BlipForConditionalGeneration(inputs("odd")[0]))
    file = tmp_path / "weights" / "config.json"
    values = json.loads(file.read_text())
    values["text_config"]["tie_word_embeddings"] = False
    file.write_text(json.dumps(values))
    refused("tie_word_embeddings = False", load_pretrained, file.parent)


def test_other_layouts_are_refused(tmp_path):
    from transformers import BlipForQuestionAnswering, BlipModel

    for layout, holds in ((BlipForQuestionAnswering, "both"), (BlipModel, "neither")):
        layout(inputs("odd")[0]).save_pretrained(tmp_path / holds)
        refused(f"and holds {holds}", load_pretrained, tmp_path / holds)
