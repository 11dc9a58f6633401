"""The two towers are their parts in order, and their settings reach every part."""

import pytest
import torch
from testing_tools import close
from torch import nn

from mmlearn.layers import ImageEncoder, ImageEncoderConfig, TextEncoder, TextEncoderConfig

IMAGE = dict(image_size=(8, 12), patch_size=4, width=12, depth=2, num_heads=3)
TEXT = dict(vocab_size=20, max_length=7, width=12, depth=2, num_heads=3)


def disturb(module):
    """Norms and biases start at 1 and 0, where they would prove nothing."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return module


@pytest.mark.parametrize("class_token", [False, True])
@pytest.mark.parametrize("embedding_norm", [False, True])
def test_image_encoder_is_its_parts_in_order(embedding_norm, class_token):
    config = ImageEncoderConfig(**IMAGE, embedding_norm=embedding_norm, class_token=class_token)
    encoder, image = disturb(ImageEncoder(config)), torch.randn(2, 3, 8, 12)
    x = encoder.embedding(image)
    if embedding_norm:
        x = nn.functional.layer_norm(x, (12,), encoder.embedding_norm.weight, encoder.embedding_norm.bias)
    for block in encoder.transformer.blocks:
        x = x + block.attention(block.attention_norm(x))
        x = x + block.mlp(block.mlp_norm(x))
    expected = nn.functional.layer_norm(x, (12,), encoder.norm.weight, encoder.norm.bias)
    assert encoder(image).shape == (2, 6 + class_token, 12)
    close(encoder(image), expected)
    close(encoder.read(image, 0), expected[:, 0])
    assert (encoder.embedding.patches.bias is None) == embedding_norm  # the norm would take it away


@pytest.mark.parametrize("causal", [False, True])
def test_text_encoder_is_its_parts_in_order(causal):
    encoder, tokens = disturb(TextEncoder(TextEncoderConfig(**TEXT, causal=causal))), torch.randint(20, (2, 5))
    mask = torch.arange(5) < torch.tensor([[3], [5]])
    x = encoder.embedding(tokens)
    for block in encoder.transformer.blocks:
        x = x + block.attention(block.attention_norm(x), mask=mask, causal=causal)
        x = x + block.mlp(block.mlp_norm(x))
    expected = nn.functional.layer_norm(x, (12,), encoder.norm.weight, encoder.norm.bias)
    close(encoder(tokens, mask), expected)
    for position in (0, -1):
        close(encoder.read(tokens, position, mask), expected[:, position])
    close(encoder.read(tokens, torch.tensor([2, 4]), mask), expected[[0, 1], [2, 4]])


@pytest.mark.parametrize("causal", [False, True])
def test_causal_text_does_not_see_later_tokens_and_the_other_does(causal):
    encoder, tokens = TextEncoder(TextEncoderConfig(**TEXT, causal=causal)), torch.randint(19, (4, 7))
    changed = tokens.clone()
    changed[:, 4:] = 19
    assert torch.equal(encoder(changed)[:, :4], encoder(tokens)[:, :4]) == causal
    assert not torch.equal(encoder(changed)[:, 4:], encoder(tokens)[:, 4:])


def test_settings_reach_every_part():
    settings = dict(mlp_width=10, activation="quick_gelu", norm_epsilon=1e-2, dropout=0.3)
    for encoder in (
        ImageEncoder(ImageEncoderConfig(**IMAGE, **settings, embedding_norm=True)),
        TextEncoder(TextEncoderConfig(**TEXT, **settings)),
    ):
        norms = [module.eps for module in encoder.modules() if isinstance(module, nn.LayerNorm)]
        assert set(norms) == {1e-2}
        assert len(norms) == 2 * 2 + 1 + isinstance(encoder, ImageEncoder)
        for block in encoder.transformer.blocks:
            assert block.mlp.expand.out_features == 10
            assert block.mlp.activation.__name__ == "quick_gelu"
            assert block.attention.dropout == block.dropout.p == 0.3
            assert block.attention.num_heads == 3


def test_a_image_of_another_size_is_read_with_as_many_patches_as_it_has():
    encoder = ImageEncoder(ImageEncoderConfig(**IMAGE))
    assert encoder(torch.randn(1, 3, 16, 8)).shape == (1, 1 + 4 * 2, 12)
    assert encoder(torch.randn(1, 3, 8, 12)).shape == (1, 1 + 2 * 3, 12)
