"""LLaVA equals Transformers' LlavaForConditionalGeneration, of a CLIP and a GPT-2: states, logits, loss, gradients."""

import json

import pytest
import torch
from published import LlavaOfGPT2, sizes
from testing_tools import close, refused
from transformers import GPT2Config, LlavaConfig

from mmlearn import load_pretrained

IMAGE = 90  # the token that patches replace there


CASES = {
    "odd": dict(
        text=dict(n_embd=24, n_layer=2, n_head=3, n_inner=50), image=sizes(16, 3, 2, 36), size=(20, 5),
        batch=3, length=11,
    ),
    "last layer": dict(
        text=dict(n_embd=40, n_layer=1, n_head=5, activation_function="relu"), image=sizes(24, 2, 3, 20), size=(16, 8),
        batch=4, length=8, vision_feature_layer=-1, projector_hidden_act="relu", multimodal_projector_bias=False,
    ),
    "batch of one": dict(
        text=dict(n_embd=16, n_layer=2, n_head=1), image=sizes(16, 2, 1, 24, hidden_act="relu"), size=(12, 4),
        batch=1, length=5, vision_feature_layer=1,
    ),
}  # fmt: skip


def inputs(name):
    case = dict(CASES[name])
    (size, patch), batch, length = case.pop("size"), case.pop("batch"), case.pop("length")
    patches = (size // patch) ** 2
    text = GPT2Config(vocab_size=91, n_positions=patches + length, bos_token_id=1, eos_token_id=2, **case.pop("text"))
    image = case.pop("image") | dict(image_size=size, patch_size=patch, model_type="clip_vision_model")
    config = LlavaConfig(vision_config=image, text_config=text, image_token_index=IMAGE, **case)
    tokens, image = torch.randint(3, IMAGE, (batch, length)), torch.randn(batch, 3, size, size)
    mask = torch.arange(length) <= torch.arange(batch)[:, None] + 2
    return config, image, tokens, mask, patches


def theirs(tokens, mask, patches, label):
    """Their inputs: a token for each patch, before the text."""
    b = len(tokens)
    return dict(
        input_ids=torch.cat([torch.full((b, patches), IMAGE), tokens], 1),
        attention_mask=torch.cat([torch.ones(b, patches), mask], 1).long(),
        labels=torch.cat([torch.full((b, patches), -100), label], 1),
    )


@pytest.mark.parametrize("responses", [False, True])
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_llava(case, padded, responses, twins, assert_same_gradients):
    torch.manual_seed(1)
    config, image, tokens, mask, patches = inputs(case)
    mask = mask if padded else torch.ones_like(mask)
    published, ours = twins(LlavaOfGPT2(config))
    ours.image_encoder.requires_grad_(True)  # which LLaVA never trains; that gradients are equal says more
    response = mask & (torch.arange(tokens.shape[1]) >= (2 if responses else 1))
    expected = published(pixel_values=image, **theirs(tokens, mask, patches, tokens.masked_fill(~response, -100)))
    output = ours(image, tokens, mask)
    close(output.prefix, torch.stack(published.get_image_features(image).pooler_output))
    close(output.token_logits[mask], expected.logits[:, patches:][mask])
    batch = dict(image=image, tokens=tokens, mask=mask) | (dict(response=response) if responses else {})
    loss = ours.loss(batch)["lm"]
    close(loss, expected.loss)
    assert_same_gradients(published, ours, loss, expected.loss)


def test_texts_are_written_as_published(twins):
    """Sharpened, so that the picture counts."""
    config, image, tokens, _, patches = inputs("odd")
    published = LlavaOfGPT2(config)
    with torch.no_grad():
        for parameter in published.parameters():
            parameter.mul_(3).add_(0.1 * torch.randn(parameter.shape))
    published, ours = twins(published)
    start = torch.full((3, 1), 1)
    prompt = torch.cat([start, tokens[:, :2]], 1)
    given = theirs(prompt, torch.ones_like(prompt), patches, prompt)
    del given["labels"]
    expected = published.generate(pixel_values=image, **given, max_new_tokens=6, do_sample=False, pad_token_id=2)
    got = ours.generate(image, prompt=tokens[:, :2], max_length=8)
    assert torch.equal(got, expected[:, patches + 1 :])
    assert len(got.unique(dim=0)) > 1


@pytest.mark.parametrize(
    ("part", "change", "says"),
    [
        (
            "text_config",
            dict(model_type="mistral"),
            "text_config of config.json is of model_type 'mistral', and only 'gpt2' or 'llama'",
        ),
        ("vision_config", dict(model_type="siglip_vision_model"), "only 'clip_vision_model' is built"),
        (None, dict(vision_feature_select_strategy="full"), "vision_feature_select_strategy = 'full'"),
        (None, dict(vision_feature_layer=[-2, -1]), "vision_feature_layer in config.json is one of"),
        (None, dict(projector_hidden_act="tanh"), "projector_hidden_act 'tanh'"),
    ],
)
def test_what_is_not_built_is_refused(part, change, says, twins, tmp_path):
    twins(LlavaOfGPT2(inputs("batch of one")[0]))
    file = tmp_path / "weights" / "config.json"
    values = json.loads(file.read_text())
    (values[part] if part else values).update(change)
    file.write_text(json.dumps(values))
    refused(says, load_pretrained, file.parent)
