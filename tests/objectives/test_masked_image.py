"""Masked image modelling: what is hidden, how order comes back, what each loss costs where nothing is known."""

import math

import pytest
import torch
from testing_tools import close

from mmlearn.objectives import (
    draw_visible,
    hidden_patches,
    mask_blocks,
    masked_codes,
    masked_pixels,
    normalised_patches,
    restore_order,
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_a_share_of_each_image_is_hidden_and_each_patch_equally_often():
    visible = draw_visible(2000, 12, 0.75, generator())
    assert visible.shape == (2000, 3)
    assert (visible.diff(dim=1) > 0).all()
    hidden = hidden_patches(visible, 12)
    assert (hidden.sum(1) == 9).all()
    assert (hidden.float().mean(0) - 0.75).abs().max() < 0.05


def test_order_comes_back_as_in_the_official_code():
    """Which shuffles by noise, keeps the first ones, appends mask tokens and sorts back."""
    noise, tokens, mask_token = torch.rand(3, 10), torch.randn(3, 10, 4), torch.randn(4)
    shuffle = noise.argsort(1)
    kept = shuffle[:, :4]
    seen = tokens.gather(1, kept[..., None].expand(-1, -1, 4))
    longer = torch.cat([seen, mask_token.expand(3, 6, 4)], 1)
    expected = longer.gather(1, shuffle.argsort(1)[..., None].expand(-1, -1, 4))
    restored = restore_order(seen, kept, mask_token, 10)
    close(restored, expected)
    hidden = hidden_patches(kept, 10)
    close(restored[~hidden], tokens[~hidden])
    assert (restored[hidden] == mask_token).all()


def test_pixels_of_visible_patches_cost_nothing():
    target, masked = torch.randn(2, 5, 12), torch.rand(2, 5) < 0.5
    masked[0, 0] = True
    said = target.clone().requires_grad_()
    wrong = torch.where(masked[..., None], said, torch.full_like(said, 9.0))
    close(masked_pixels(wrong, target, masked), torch.tensor(0.0))
    close(masked_pixels(said + masked[..., None] * 2.0, target, masked), torch.tensor(4.0))
    masked_pixels(said * 2, target, masked).backward()
    assert (said.grad[~masked] == 0).all()
    assert (masked_pixels(said, target, torch.zeros_like(masked)) == 0).all()


def test_normalised_patches_have_mean_0_and_variance_1():
    patches = normalised_patches(5 + 3 * torch.randn(2, 7, 48))
    close(patches.mean(-1), torch.zeros(2, 7))
    close(patches.var(-1), torch.ones(2, 7), 1e-4)
    nothing, everywhere = torch.zeros(2, 7, 48), torch.ones(2, 7, dtype=torch.bool)
    close(masked_pixels(nothing, patches, everywhere), torch.tensor(1 - 1 / 48), 1e-4)
    assert normalised_patches(torch.ones(1, 1, 12)).isfinite().all()


@pytest.mark.parametrize("grid", [(14, 14), (8, 8), (5, 9)])
def test_blocks_hide_at_most_the_share_and_in_rectangles(grid):
    masks = torch.stack([mask_blocks(grid, generator(seed), 0.4, 4) for seed in range(60)])
    share = masks.float().mean(1)
    assert share.max() <= 0.4
    assert share.mean() > 0.33
    assert len(masks.unique(dim=0)) > 50
    neighbour = masks.view(-1, *grid)
    together = (neighbour[:, :, 1:] & neighbour[:, :, :-1]).float().mean() / share.mean()
    assert together > 0.6  # of patches that were hidden one by one, 0.4
    assert torch.equal(mask_blocks(grid, generator(3)), mask_blocks(grid, generator(3)))
    assert not mask_blocks(grid, generator(), 0.0).any()


def test_codes_of_visible_patches_cost_nothing_and_nothing_known_costs_ln():
    code, masked = torch.randint(8, (3, 6), generator=generator()), torch.tensor([[True, False] * 3] * 3)
    close(masked_codes(torch.zeros(3, 6, 8), code, masked), torch.tensor(math.log(8)))
    right = 50.0 * torch.nn.functional.one_hot(code, 8)
    close(masked_codes(torch.where(masked[..., None], right, -right), code, masked), torch.tensor(0.0))


@pytest.mark.parametrize("number", [-1, 8, -100])
def test_a_code_outside_the_codebook_is_told_in_one_line(number):
    code = torch.full((1, 2), number)
    with pytest.raises(ValueError, match=f"^Code {number} is outside the codebook, which has codes 0 to 7.$"):
        masked_codes(torch.zeros(1, 2, 8), code, torch.ones(1, 2, dtype=torch.bool))


def test_what_cannot_be_is_told():
    with pytest.raises(ValueError, match=r"share of patches to hide is from 0 to below 1, got 1.0"):
        draw_visible(2, 9, 1.0, generator())
    with pytest.raises(ValueError, match=r"numbered from 0 to 8; got"):
        hidden_patches(torch.tensor([[0, 9]]), 9)
    with pytest.raises(ValueError, match=r"share is from 0 to 1"):
        mask_blocks((4, 4), generator(), 1.5)
