"""A hidden patch shows one vector, and where it stands is still known."""

import pytest
import torch
from testing_tools import close

from mmlearn.models.vision.masked_embedding import MaskedImageEmbedding


def test_hidden_patches_show_the_mask_token_at_their_positions():
    torch.manual_seed(0)
    embedding, image = MaskedImageEmbedding(16, 8, 12), torch.randn(3, 3, 16, 16)
    masked = torch.tensor([[True, False, False, True]] * 3)
    x, plain = embedding(image, masked), embedding(image)
    close(x[:, [0, 2, 3]], plain[:, [0, 2, 3]])
    close(x[:, [1, 4]], (embedding.mask_token + embedding.positions[[1, 4]]).expand(3, 2, 12))
    larger = torch.randn(1, 3, 24, 16)
    assert embedding(larger, torch.ones(1, 6, dtype=torch.bool)).shape == (1, 7, 12)


def test_a_mask_that_does_not_fit_is_told():
    with pytest.raises(
        ValueError, match=r"masked_patches is boolean \(3, 4\) for these pictures, got torch.bool \(3, 5\)"
    ):
        MaskedImageEmbedding(16, 8, 12)(torch.randn(3, 3, 16, 16), torch.ones(3, 5, dtype=torch.bool))
