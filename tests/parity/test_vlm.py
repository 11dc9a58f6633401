"""A vision–language model equals Transformers' LLaVA-1.5, Idefics3 and SmolVLM: logits, loss, gradients, texts.

Images stand anywhere in a text, and there are several of them.
"""

import json

import pytest
import torch
from published import sharpened, sizes
from testing_tools import close, refused
from transformers import (
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
)

from mmlearn import load_pretrained

IMAGE = 90
ENDS = dict(vocab_size=93, bos_token_id=1, eos_token_id=2, pad_token_id=0, max_position_embeddings=64)
LLAMA = dict(num_key_value_heads=1, **sizes(24, 2, 2, 50), **ENDS)
CLIP = dict(model_type="clip_vision_model", image_size=16, patch_size=8, **sizes(16, 3, 2, 36))
SIGLIP = dict(image_size=20, patch_size=5, **sizes(16, 2, 2, 36))  # 4 × 4 patches


def llava(image=CLIP, tie=False, **more):
    text = LlamaConfig(**LLAMA, tie_word_embeddings=tie)
    return LlavaForConditionalGeneration(
        LlavaConfig(vision_config=image, text_config=text, image_token_index=IMAGE, **more)
    )


def idefics3(kind=Idefics3ForConditionalGeneration, config=Idefics3Config, tie=False, **more):
    text = LlamaConfig(**LLAMA, tie_word_embeddings=tie)
    parts = dict(vision_config=SIGLIP | more.pop("image", {}), text_config=text, tie_word_embeddings=tie)
    return kind(config(**parts, image_token_id=IMAGE, **more))


CASES = {  # a model, its tokens an image, and the size of an image
    "LLaVA-1.5": (llava, 4, 16),
    "LLaVA, last block, tied": (
        lambda: llava(tie=True, vision_feature_layer=-1, multimodal_projector_bias=False, projector_hidden_act="relu"),
        4,
        16,
    ),
    "LLaVA, one block": (lambda: llava(vision_feature_layer=1), 4, 16),
    "Idefics3": (idefics3, 4, 20),
    "Idefics3, tied, s = 4": (lambda: idefics3(tie=True, scale_factor=4), 1, 20),
    "SmolVLM": (lambda: idefics3(SmolVLMForConditionalGeneration, SmolVLMConfig), 4, 20),
    "SmolVLM, s = 3": (
        lambda: idefics3(SmolVLMForConditionalGeneration, SmolVLMConfig, scale_factor=3, image=dict(image_size=45)),
        9,
        45,
    ),
}


def inputs(k, size, b=3, s=2, t=7):
    """Rows of words, s images and words; the images stand elsewhere in each row."""
    generator = torch.Generator().manual_seed(1)
    image = torch.randn(b, s, 3, size, size, generator=generator)
    rows = []
    for i in range(b):
        words = torch.randint(3, IMAGE, (t,), generator=generator)
        one = torch.full((k,), IMAGE)
        rows.append(torch.cat([words[: i + 1], one, words[i + 1 : i + 2 - i % 2], one, words[i + 2 - i % 2 :]]))
    tokens = torch.stack(rows)
    mask = torch.arange(tokens.shape[1]) < tokens.shape[1] - torch.arange(b)[:, None]
    return image, tokens, mask


def theirs(published, image):
    """LLaVA reads the images of all rows in one list."""
    return image.flatten(0, 1) if isinstance(published, LlavaForConditionalGeneration) else image


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_images_among_words(case, padded, twins, assert_same_gradients):
    torch.manual_seed(1)
    build, k, size = CASES[case]
    published, ours = twins(build())
    ours.image_encoder.requires_grad_(True)  # which never learns here; that gradients are equal says more
    image, tokens, mask = inputs(k, size)
    mask = mask if padded else torch.ones_like(mask)
    label = tokens.masked_fill(~mask | (tokens == IMAGE), -100)
    given = dict(pixel_values=theirs(published, image), input_ids=tokens, attention_mask=mask.long())
    expected = published(**given, labels=label)
    output = ours(image, tokens, mask)
    features = published.get_image_features(theirs(published, image)).pooler_output
    close(output.image_embeddings.flatten(0, 1), torch.cat(list(features)))
    close(output.token_logits[mask], expected.logits[mask])
    loss = ours.loss(dict(image=image, tokens=tokens, mask=mask))["lm"]
    close(loss, expected.loss)
    assert_same_gradients(published, ours, loss, expected.loss)


@pytest.mark.parametrize("case", ["LLaVA-1.5", "Idefics3", "SmolVLM"])
def test_texts_are_written_as_published(case, twins):
    """Sharpened, so that the image counts; prompts of unequal length, in which images stand anywhere."""
    torch.manual_seed(2)
    build, k, size = CASES[case]
    published, ours = twins(sharpened(build()))
    image, tokens, _ = inputs(k, size)
    start = torch.cat([torch.ones(3, 1, dtype=torch.long), tokens], 1)
    start[1, :2] = torch.tensor([0, 1])  # one shorter, padded at its left
    real = torch.ones_like(start, dtype=torch.bool)
    real[1, 0] = False
    given = dict(pixel_values=theirs(published, image), input_ids=start, attention_mask=real.long())
    expected = published.generate(**given, max_new_tokens=8, do_sample=False, pad_token_id=0)
    prompt_mask = torch.ones_like(tokens, dtype=torch.bool)
    prompt_mask[1, 0] = False
    prompt = tokens.masked_fill(~prompt_mask, 0)
    got = ours.generate(image, prompt=prompt, prompt_mask=prompt_mask, max_length=tokens.shape[1] + 8)
    assert torch.equal(got[:, tokens.shape[1] :], expected[:, start.shape[1] :])
    assert len(got[:, tokens.shape[1] :].unique(dim=0)) > 1


def test_rows_with_fewer_images(twins):
    """Idefics3 reads black images as none; here a mask says which are real."""
    published, ours = twins(idefics3())
    image, tokens, mask = inputs(4, 20)
    image[2, 1] = 0
    tokens[2][torch.where(tokens[2] == IMAGE)[0][4:]] = 7
    image_mask = torch.tensor([[True, True], [True, True], [True, False]])
    expected = published(pixel_values=image, input_ids=tokens, attention_mask=mask.long()).logits
    close(ours(image, tokens, mask, image_mask).token_logits[mask], expected[mask])


@pytest.mark.parametrize(
    ("build", "part", "change", "says"),
    [
        (idefics3, "text_config", dict(model_type="mistral"), "is of model_type 'mistral', and only 'llama'"),
        (idefics3, None, dict(scale_factor=3), "4 × 4 patches cannot be shuffled by 3: take a divisor"),
        (idefics3, None, dict(image_token_id=93), "image_token 93 is none of the 93 tokens"),
        (idefics3, None, dict(tie_word_embeddings=True), "lm_head.weight is the token table once more, and it is"),
        (idefics3, "text_config", dict(max_position_embeddings=4), "An image takes 4 tokens, and the language model"),
        (llava, None, dict(vision_feature_layer=[-2, -1]), "vision_feature_layer in config.json is one of"),
        (llava, None, dict(model_type="llava_next"), "model_type 'llava_next'; mmlearn loads"),
    ],
)
def test_what_is_not_built_is_refused(build, part, change, says, twins, tmp_path):
    twins(build())
    file = tmp_path / "weights" / "config.json"
    values = json.loads(file.read_text())
    (values[part] if part else values).update(change)
    file.write_text(json.dumps(values))
    refused(says, load_pretrained, file.parent)
