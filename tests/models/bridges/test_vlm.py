"""A vision–language model: images stand where their tokens do, k tokens each, and what does not fit is told."""

import dataclasses

import pytest
import torch
from einops import rearrange
from testing_tools import close, refused, seeded, shaken
from torch import nn

from mmlearn.generation.decoding import greedy
from mmlearn.models.bridges.vlm import VLM, VLMConfig, pixel_shuffle
from mmlearn.models.text.llama import Llama
from mmlearn.models.vision.backbone import BackboneConfig
from mmlearn.recipes.discovery import find_recipe

TINY = VLMConfig.tiny()
IMAGE, K = 511, 4


def tiny(**changes):
    return shaken(VLM(dataclasses.replace(TINY, **changes)), 0.2).eval()


def row(*parts):
    """One text: numbers are words, and ``None`` is the place of an image."""
    return torch.tensor([[token for part in parts for token in ([IMAGE] * K if part is None else [part])]])


def images(s=2, size=64):
    return torch.randn(1, s, 3, size, size, generator=seeded())


def test_neighbours_become_one_token_and_nothing_is_lost():
    rows, columns, d, s = 4, 6, 5, 2
    x = torch.randn(2, rows * columns, d, generator=seeded())
    got = pixel_shuffle(x, rows, s)
    assert got.shape == (2, 6, s * s * d)
    grid = x.unflatten(1, (rows, columns))
    for i in range(rows // s):
        for j in range(columns // s):
            square = grid[:, s * i : s * i + s, s * j : s * j + s]  # row by row
            assert torch.equal(got[:, i * (columns // s) + j], square.flatten(1))
    back = rearrange(got, "b (row column) (y x d) -> b (row y column x) d", row=2, y=s, x=s)
    assert torch.equal(back, x)


def test_each_image_token_gives_way_to_the_next_embedding():
    system, image = tiny(), images()
    tokens = row(1, 7, None, 8, 9, None, 10)
    embeddings = system.encode_image(image)  # of both images
    x = system.embed(embeddings, tokens, tokens == IMAGE)[0]
    assert torch.equal(x[2:6], embeddings[0, :K])
    assert torch.equal(x[8:12], embeddings[0, K:])
    words = system.language_model.embed(tokens)[0]
    assert all(torch.equal(x[i], words[i]) for i in (0, 1, 6, 7, 12))
    close(embeddings[:, :K], system.encode_image(image[:, 0]))  # one image as one of several
    close(system(image, tokens).token_logits, system.language_model.logits(system.language_model.read(x[None])))


def test_images_are_read_in_the_order_of_their_tokens():
    system, image, tokens = tiny(), images(), row(1, 7, None, 8, None, 10)
    said = system(image, tokens).token_logits
    assert torch.equal(said[:, :2], system(image.flip(1), tokens).token_logits[:, :2])  # before any image
    other = image.clone()
    other[:, 1] = 0
    changed = system(other, tokens).token_logits
    assert torch.equal(said[:, :7], changed[:, :7])
    assert not torch.allclose(said[:, 7:], changed[:, 7:], atol=1e-3)


def test_without_an_image_the_language_model_speaks():
    system, tokens = tiny(), row(1, 7, 8, 9)
    said = system(images(0), tokens).token_logits
    assert torch.equal(said, system.language_model(tokens).token_logits)
    assert system.generate(images(0), prompt=tokens[:, 1:], max_length=8).shape[1] <= 8


@pytest.mark.parametrize(
    ("changes", "k"),
    [
        (dict(shuffle=1), 16),
        (dict(shuffle=4, projector_layers=1, projector_bias=False), 1),
        (dict(shuffle=1, pooled_tokens=3), 3),
        (dict(skipped_blocks=1), 4),
    ],
)
def test_how_patches_become_tokens(changes, k):
    system, image = tiny(**changes), images(1)[:, 0]
    assert system.config.num_image_tokens == k
    got = system.encode_image(image)
    assert got.shape == (1, k, 64)
    if "skipped_blocks" in changes:
        tower = system.image_encoder
        x = tower.embedding_norm(tower.embedding(image))
        for block in tower.transformer.blocks[:-1]:
            x = block(x)
        close(got, system.projector(pixel_shuffle(x, 4, 2)))
    if "pooled_tokens" in changes:
        mean = system.image_encoder(image).mean(1)
        close(got.flatten(1), system.projector(mean[:, None])[:, 0])


def test_a_tower_and_a_language_model_of_ones_own():
    class Tower(nn.Module):
        def forward(self, image):
            return image.flatten(2).mean(-1)[:, None].repeat(1, 16, 22)[..., :64]  # (b, 16, 64): the mean colour

    language = Llama(TINY.language_model)
    system = VLM(TINY, Tower(), language).eval()
    assert system.language_model is language
    image = torch.zeros(1, 3, 64, 64)
    assert system(image, row(1, None, 7)).token_logits.shape == (1, 6, 512)


def test_what_is_written_with_a_cache_is_what_is_written_without():
    system, image = tiny(), torch.cat([images(), images().flip(1)])
    prompt = torch.cat([row(7, None, 8, 9, None), row(9, 8, None, None, 7)])
    got = system.generate(image, prompt=prompt, max_length=20)

    def logits(tokens):
        return system(image, tokens).token_logits[:, -1]

    start = torch.cat([torch.full((2, 1), 1), prompt], 1)
    with torch.no_grad():
        expected = greedy(logits, start, max_length=21, end_token=2, pad_token=0)
    assert torch.equal(got, expected[:, 1:])
    assert not torch.equal(got[0, 11:], got[1, 11:])


def test_a_prompt_without_image_tokens_comes_after_the_image():
    system, image = tiny(), images(1)
    prompt = row(7, 8)
    got = system.generate(image[:, 0], prompt=prompt, max_length=7)
    put_in = system.generate(image, prompt=row(None, 7, 8), max_length=11)
    assert torch.equal(got[:, 2:], put_in[:, K + 2 :])
    assert torch.equal(got[:, :2], prompt)


def test_images_are_not_predicted():
    system, image, tokens = tiny(), images(), row(1, 7, None, 8, None, 9)
    logits = system(image, tokens).token_logits
    label = tokens.masked_fill(tokens == IMAGE, -100)[:, 1:]
    expected = nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), label.flatten())
    close(system.loss(dict(image=image, tokens=tokens))["lm"], expected)


# What people get wrong.


def test_image_tokens_that_are_not_those_of_the_images():
    system = tiny()
    refused("Text 0 has 4 image tokens, and its 2 images need 8, 4 each", system, images(), row(1, None, 7))
    refused("Text 0 has 8 image tokens, and its 1 images need 4", system, images(1), row(1, None, 7, None))
    refused("Text 0 has 3 image tokens", system, images(1), row(1, None, 7)[:, :4])
    refused("Text 0 has 8 image tokens", system.generate, images(1), prompt=row(None, None, 7))
    padded = row(1, None, None, 7)
    mask = torch.arange(padded.shape[1])[None] < 5  # what is padding counts for nothing
    system(images(1), padded, mask)
    mask = torch.tensor([[True, False]])
    refused("its 1 images need 4", system, images(), row(1, None, 7, None), None, mask)
    refused("There is no token 999", system, images(1), row(999, None))


def test_more_tokens_than_the_context():
    refused("more than the 32 positions", tiny(), images(8), row(1, *[None] * 8))
    small = dataclasses.replace(TINY.language_model, max_length=16)
    refused("An image takes 16 tokens, and the language model reads 16", tiny, shuffle=1, language_model=small)


def test_configurations_that_cannot_be_built():
    for shuffle in (3, 0):
        refused(f"4 × 4 patches cannot be shuffled by {shuffle}: take a divisor", tiny, shuffle=shuffle)
    refused("Of 3 blocks 4 cannot be skipped", tiny, skipped_blocks=4)
    refused("image_token 512 is none of the 512 tokens", tiny, image_token=512)
    refused("projector_layers is 1 or 2, not 3", tiny, projector_layers=3)
    refused("Unknown activation 'tanh'", tiny, projector_activation="tanh")


def test_the_packaged_tower_and_outputs_as_long_as_words():
    config = VLMConfig(BackboneConfig(image_size=128), TINY.language_model, projector_length=0.3)
    assert VLMConfig.from_dict(config.to_dict()) == config
    assert config.num_image_tokens == 4
    system = find_recipe("vlm").make(config)
    embeddings = system.encode_image(torch.rand(2, 3, 90, 128))
    assert embeddings.shape == (2, 4, 64)
    close(embeddings.square().mean(-1).sqrt(), torch.full((2, 4), 0.3))
    system.language_model.to(torch.bfloat16)  # the projector stays in float32 and learns
    tokens = row(1, None, 8, 9)[:, :]
    system.loss({"image": torch.rand(1, 3, 128, 128), "tokens": tokens})["lm"].backward()
    assert system.projector.norm.weight.grad.abs().sum() > 0


def test_patches_say_where_they_are():
    """A learned vector is added to each embedding of every image, after the norm; at the start it is 0."""
    config = dataclasses.replace(TINY, projector_length=0.3)
    plain, system = VLM(config).eval(), VLM(dataclasses.replace(config, projector_positions=True)).eval()
    assert "projector.positions" not in plain.state_dict()
    plain.load_state_dict({k: v for k, v in system.state_dict().items() if k != "projector.positions"})
    side, k = config.image_encoder.image_size, config.num_image_tokens
    two = torch.rand(1, 2, 3, side, side, generator=seeded())
    assert torch.equal(system.encode_image(two), plain.encode_image(two))
    places = torch.randn(k, config.language_model.width, generator=seeded())
    system.projector.positions.data.copy_(places)
    close(system.encode_image(two) - plain.encode_image(two), places.repeat(2, 1)[None])
    pooled = dataclasses.replace(config, projector_positions=True, pooled_tokens=4)
    assert VLM(pooled).projector.positions is None  # the mean is from everywhere
