"""MAE equals Transformers' ViTMAEForPreTraining and ViTMAEModel: tokens, painted pixels, loss, gradients."""

import pytest
import torch
from published import sizes
from testing_tools import close
from transformers import ViTMAEConfig, ViTMAEForPreTraining, ViTMAEModel
from transformers.models.vit_mae.modeling_vit_mae import build_2d_sinusoidal_position_embedding

from mmlearn.models.vision.mae import fixed_positions


def decoder(width, depth, heads, mlp):
    names = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    return dict(zip((f"decoder_{name}" for name in names), (width, depth, heads, mlp)))


CASES = {
    "plain pixels": sizes(24, 2, 3, 50, image_size=28, patch_size=7, batch=3) | decoder(20, 2, 5, 33),
    "normalised": sizes(40, 3, 5, 33, image_size=24, patch_size=4, norm_pix_loss=True, mask_ratio=0.6, batch=4)
    | decoder(16, 1, 2, 24)
    | dict(hidden_act="relu"),
    "batch of one": sizes(16, 1, 1, 24, image_size=15, patch_size=5, norm_pix_loss=True, layer_norm_eps=1e-6, batch=1)
    | decoder(28, 3, 7, 56),
}


def inputs(case):
    case = dict(CASES[case])
    batch, size = case.pop("batch"), case["image_size"]
    patches = (size // case["patch_size"]) ** 2
    config = ViTMAEConfig(**case)
    noise = torch.rand(batch, patches)
    kept = int(patches * (1 - config.mask_ratio))
    return config, torch.randn(batch, 3, size, size), noise, noise.argsort(1)[:, :kept]


@pytest.mark.parametrize("case", CASES)
def test_pretraining(case, twins, assert_same_gradients):
    torch.manual_seed(1)
    config, image, noise, visible = inputs(case)
    published, ours = twins(ViTMAEForPreTraining(config))
    expected = published(pixel_values=image, noise=noise)
    output = ours(image, visible)
    assert torch.equal(output.hidden, expected.mask.bool())
    close(output.prediction, expected.logits)
    loss = ours.loss(dict(image=image, visible=visible.sort(1).values))["pixels"]
    close(loss, expected.loss)
    assert_same_gradients(published, ours, loss, expected.loss)
    assert all(x.grad is None for x in (ours.decoder.positions, ours.image_encoder.embedding.positions))


@pytest.mark.parametrize("case", CASES)
def test_encoder_alone(case, twins, assert_same_gradients):
    torch.manual_seed(1)
    config, image, noise, visible = inputs(case)
    published, ours = twins(ViTMAEModel(config))
    expected, output = published(pixel_values=image, noise=noise).last_hidden_state, ours(image, visible)
    close(output.tokens, expected)
    assert output.prediction is None
    assert_same_gradients(published, ours, output.tokens.square().mean(), expected.square().mean())


@pytest.mark.parametrize("grid", [(4, 4), (7, 7)])
def test_positions_are_theirs(grid):
    theirs = build_2d_sinusoidal_position_embedding(*grid, 24)  # of rows first; all released weights have columns first
    close(fixed_positions(grid, 24), torch.cat([torch.zeros(1, 24), torch.cat([theirs[:, 12:], theirs[:, :12]], 1)]))
