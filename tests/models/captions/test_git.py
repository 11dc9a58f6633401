"""GIT: who sees whom, and captions one by one and from prompts of unequal length."""

import dataclasses

import torch
from testing_tools import close, pairs, refused, shaken

from mmlearn.generation.cache import pad_left, start_prompts, uncached
from mmlearn.generation.decoding import greedy
from mmlearn.layers.recording import record_attention
from mmlearn.models import GIT, GITConfig

TINY = dataclasses.replace(GITConfig.tiny(), end_token=511)


def build(seed=0):
    torch.manual_seed(seed)
    return shaken(GIT(TINY)).eval()


@torch.no_grad()
def test_a_image_sees_itself_and_a_word_the_image_and_the_past():
    system, batch = build(), pairs()
    with record_attention(system) as maps:
        system(**batch)
    weights = maps["transformer.blocks.2.attention"]
    image, words = weights[:, :, :16], weights[:, :, 16:]
    assert (image[..., 16:] == 0).all()
    assert (image[..., :16] > 0).all()
    assert (words[..., :16] > 0).all()
    assert (words[..., 16:].triu(1) == 0).all()
    real = batch["mask"][:, None, None].expand_as(words[..., 16:])
    assert (words[..., 16:][~real] == 0).all()


@torch.no_grad()
def test_prompts_of_unequal_length_go_on_as_each_alone_with_the_cache_and_without():
    system, image = build(), pairs()["image"][:3]
    prompt, mask = pad_left([[9, 8, 7], [30], [4, 5]])
    written = system.generate(image, prompt=prompt, prompt_mask=mask, max_length=9)
    for i, own in enumerate(([9, 8, 7], [30], [4, 5])):
        alone = system.generate(image[i : i + 1], prompt=torch.tensor([own]), max_length=9 - 3 + len(own))
        close(written[i, 3:], alone[0, len(own) :])
    start, real = start_prompts(1, prompt, mask)
    anew = greedy(uncached(system.step_function(image), real), start, end_token=511, max_length=10)
    assert torch.equal(written[:, 3:], anew[:, 4:])


@torch.no_grad()
def test_images_of_another_size_are_read_and_what_cannot_be_is_told():
    system, tokens = build(), pairs()["tokens"][:1]
    assert system(torch.randn(1, 3, 96, 48), tokens).patches.shape == (1, 18, 64)
    refused("smaller than one 16-pixel patch", system, torch.randn(1, 3, 8, 64), tokens)
    refused("33 tokens are more than the 32", system, torch.randn(1, 3, 64, 64), torch.zeros(1, 33, dtype=torch.long))
    refused("padded at its left", system, torch.randn(1, 3, 64, 64), tokens, torch.arange(12)[None] > 2)
