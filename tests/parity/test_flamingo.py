"""Flamingo's parts equal those of Transformers' Idefics where both follow the paper: outputs and gradients.

Idefics differs in this: its language model is LLaMA, so its gated blocks have norms that only scale and an MLP with
three matrices; its resampler has ReLU, where the paper squares it; its gates may be one for each feature. Here the
norms, the MLP and the activation of the one are given to the other, and all the rest is compared as it is.
"""

import pytest
import torch
from testing_tools import close, seeded
from torch import nn
from transformers import IdeficsConfig
from transformers.models.idefics.modeling_idefics import IdeficsGatedCrossAttentionLayer
from transformers.models.idefics.perceiver import IdeficsPerceiverResampler

from mmlearn.layers import ImageEncoderConfig
from mmlearn.models.bridges.flamingo import FlamingoConfig, GatedCrossAttention, PerceiverResampler
from mmlearn.models.text.gpt2 import GPT2Config
from mmlearn.objectives.bridging import last_image_mask

CASES = {"odd": (24, 3, 40, 5, 7, 2), "two latents": (16, 1, 24, 3, 2, 1), "deep": (32, 4, 16, 2, 5, 4)}


def both(name):
    """Configurations of ours and theirs: widths and heads of picture and text, latents and depth."""
    image_width, image_heads, width, heads, latents, depth = CASES[name]
    if width % heads:
        heads = 4
    ours = FlamingoConfig(
        image_encoder=ImageEncoderConfig(image_width, 1, 1),
        language_model=GPT2Config(width=width, depth=1, num_heads=heads),
        num_latents=latents,
        resampler_depth=depth,
        resampler_heads=image_heads,
        activation="relu",
    )
    theirs = IdeficsConfig(
        hidden_size=width,
        num_attention_heads=heads,
        vision_config=dict(embed_dim=image_width),
        perceiver_config=dict(qk_layer_norms_perceiver=False),
        alpha_type="float",
        alpha_initializer="zeros",
        attn_implementation="eager",
    )
    return ours, theirs


def shaken_pair(ours, theirs, positions):
    """Noise on theirs, the same in ours; ``positions`` are our names → theirs."""
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=seeded(len(parameter.shape))))
        named, known = dict(ours.named_parameters()), dict(theirs.named_parameters())
        assert named.keys() == positions.keys()
        assert known.keys() == set(positions.values())
        for name, other in positions.items():
            named[name].copy_(known[other].reshape(named[name].shape))
    return {name: (named[name], known[other]) for name, other in positions.items()}


def assert_same(got, expected, pairs):
    close(got, expected)
    weight = torch.randn(got.shape, generator=seeded(1))
    for output in (got, expected):
        (output * weight).sum().backward()
    for name, (one, two) in pairs.items():
        torch.testing.assert_close(one.grad, two.grad.reshape(one.shape), atol=1e-5, rtol=1e-5, msg=name)
        assert one.grad.abs().max() > 1e-6


@pytest.mark.parametrize("case", CASES)
def test_resampler(case):
    config, published = both(case)
    ours, depth = PerceiverResampler(config), config.resampler_depth
    width, heads = config.image_encoder.width, config.resampler_heads
    theirs = IdeficsPerceiverResampler(published, width, depth, heads, width // heads, config.num_latents)
    positions = {"latents": "latents", "norm.weight": "layer_norm.weight", "norm.bias": "layer_norm.bias"}
    for i in range(depth):
        for part, other in (("image", "context"), ("latents", "latents")):
            for what in ("weight", "bias"):
                positions[f"blocks.{i}.{part}_norm.{what}"] = f"blocks.{i}.0.{other}_layer_norm.{what}"
        for part, other in (("query", "q_proj"), ("key", "k_proj"), ("value", "v_proj"), ("output", "output_proj")):
            positions[f"blocks.{i}.attention.{part}.weight"] = f"blocks.{i}.0.{other}.weight"
        for part, other in (("norm.weight", "ln.weight"), ("norm.bias", "ln.bias")):
            positions[f"blocks.{i}.mlp.{part}"] = f"blocks.{i}.1.{other}"
        positions[f"blocks.{i}.mlp.expand.weight"] = f"blocks.{i}.1.fc.weight"
        positions[f"blocks.{i}.mlp.contract.weight"] = f"blocks.{i}.1.c_proj.weight"
    pairs = shaken_pair(ours, theirs, positions)
    image = torch.randn(3, 9, width)
    assert_same(ours(image), theirs(image), pairs)


@pytest.mark.parametrize("case", CASES)
def test_gated_block_among_several_images(case):
    """The first words stand before any picture, and others see the last picture before them."""
    config, published = both(case)
    width, image_width = config.language_model.width, config.image_encoder.width
    ours, theirs = GatedCrossAttention(config), IdeficsGatedCrossAttentionLayer(published, layer_idx=0).eval()
    theirs.input_layernorm, theirs.post_attention_layernorm = nn.LayerNorm(width), nn.LayerNorm(width)
    expand, contract = nn.Linear(width, 4 * width, bias=False), nn.Linear(4 * width, width, bias=False)
    theirs.mlp = nn.Sequential(expand, nn.ReLU(), contract)
    positions = {"attention_gate": "alpha_cross_attn", "mlp_gate": "alpha_dense"}
    for what in ("weight", "bias"):
        positions[f"attention_norm.{what}"] = f"input_layernorm.{what}"
        positions[f"mlp.norm.{what}"] = f"post_attention_layernorm.{what}"
    for part, other in (("query", "q_proj"), ("key", "k_proj"), ("value", "v_proj"), ("output", "o_proj")):
        positions[f"attention.{part}.weight"] = f"cross_attn.{other}.weight"
    positions |= {"mlp.expand.weight": "mlp.0.weight", "mlp.contract.weight": "mlp.2.weight"}
    pairs = shaken_pair(ours, theirs, positions)
    images, each = 3, config.num_latents
    words, latents = torch.randn(2, 8, width), torch.randn(2, images * each, image_width)
    before = torch.tensor([[0, 0, 1, 1, 2, 2, 3, 3], [0, 1, 1, 1, 1, 2, 2, 3]])
    sees = last_image_mask(before, images, each)
    hidden = torch.zeros(sees.shape).masked_fill(~sees, torch.finfo(torch.float32).min)[:, None]
    expected = theirs(
        words, image_hidden_states=latents, image_attention_mask=hidden, cross_attention_gate=(before > 0).float()
    )
    assert_same(ours(words, latents, sees), expected, pairs)


def test_closed_gates_change_nothing():
    config, published = both("odd")
    words, latents = torch.randn(2, 8, config.language_model.width), torch.randn(2, 7, config.image_encoder.width)
    assert torch.equal(GatedCrossAttention(config)(words, latents), words)
    theirs = IdeficsGatedCrossAttentionLayer(published, layer_idx=0).eval()
    given = dict(image_attention_mask=torch.zeros(2, 1, 8, 7), cross_attention_gate=torch.ones(2, 8))
    assert torch.equal(theirs(words, image_hidden_states=latents, **given), words)
