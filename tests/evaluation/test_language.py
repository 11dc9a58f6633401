"""Losses of tokens by their definition, and by a model that sees what it should."""

import math

import pytest
import torch
from torch.testing import assert_close

from mmlearn.evaluation import pseudo_log_likelihood_losses, token_losses


def test_losses_of_tokens():
    logits = torch.tensor([[0.25, 0.25, 0.5], [0.1, 0.7, 0.2]]).log() + 3.0
    assert token_losses(logits, torch.tensor([2, 0])).tolist() == pytest.approx([math.log(2), math.log(10)])
    assert token_losses(torch.zeros(1, 8), torch.tensor([3])).item() == pytest.approx(math.log(8))


def test_each_token_alone_is_hidden():
    tokens, table = torch.tensor([4, 5, 4, 6]), torch.randn(4, 7, generator=torch.Generator().manual_seed(0))
    table.requires_grad_()
    read = []

    def model(rows):
        read.append(rows)
        return table.expand(len(rows), 4, 7) + rows.sum(1)[:, None, None] * torch.arange(7)

    found = pseudo_log_likelihood_losses(model, tokens, mask_token=3)
    assert read[0].tolist() == [[3, 5, 4, 6], [4, 3, 4, 6], [4, 5, 3, 6], [4, 5, 4, 3]]
    assert not found.requires_grad
    assert tokens.tolist() == [4, 5, 4, 6]
    for i in range(4):
        logits = table[i].detach() + (tokens.sum() - tokens[i] + 3) * torch.arange(7)
        assert_close(found[i], -logits.log_softmax(-1)[tokens[i]])
