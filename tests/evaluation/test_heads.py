"""Heads with a name: shares of heads that do it, that do not, and of an even one."""

import pytest
import torch
from testing_tools import refused

from mmlearn.evaluation.heads import (
    HeadTargets,
    best_head,
    head_shares,
    matching_bracket,
    previous_token,
    same_token,
    uniform_share,
)

TOKENS = torch.tensor([[1, 5, 6, 5, 2, 0], [1, 7, 7, 8, 4, 2]])
MASK = TOKENS > 0


def test_where_the_token_before_stands():
    may, should = previous_token(TOKENS, MASK)
    assert should[0].nonzero().tolist() == [[2, 1], [3, 2]]  # the first word has a special token before it
    assert should[1].nonzero().tolist() == [[2, 1], [3, 2], [4, 3]]
    assert torch.equal(may, MASK[:, :, None] & MASK[:, None, :])
    causal = previous_token(TOKENS, MASK, causal=True)
    assert torch.equal(causal.should, should)
    assert previous_token(TOKENS, MASK, special=0).should[1].nonzero().tolist() == [[i, i - 1] for i in range(1, 6)]
    assert torch.equal(causal.may, may.tril())


@pytest.mark.parametrize(("causal", "positions"), [(False, [[1, 3], [3, 1]]), (True, [[3, 1]])])
def test_where_the_same_token_stands(causal, positions):
    may, should = same_token(TOKENS, MASK, causal=causal)
    assert should[0].nonzero().tolist() == positions
    assert not may.diagonal(dim1=1, dim2=2).any()
    assert not (should & ~may).any()
    texts = torch.tensor([[1, 4, 1, 4, 0, 0]])
    assert same_token(texts, texts > 0).should.nonzero().tolist() == [[0, 1, 3], [0, 3, 1]]


def test_before_a_bracket_is_closed_its_partner_is_to_be_found():
    partner = torch.tensor([[-1, -1, -1, 2, 1], [-1, -1, 1, -1, 3]])  # ( [ ] )  and  ( ) ( )
    may, should = matching_bracket(partner)
    assert should.nonzero().tolist() == [[0, 3, 1]]
    assert matching_bracket(partner, far=1).should.nonzero().tolist() == [[0, 2, 2], [0, 3, 1], [1, 1, 1], [1, 3, 3]]
    assert torch.equal(may[0], torch.ones(5, 5, dtype=torch.bool).tril())


def test_shares_of_heads():
    positions = same_token(TOKENS, MASK)
    right = positions.should.float()
    wrong = (positions.may & ~positions.should).float()
    itself = torch.eye(6).expand(2, 6, 6) + 0.5 * right  # where it may not look, it is not counted
    half = torch.where(torch.arange(2)[:, None, None] == 0, right, wrong)
    maps = [torch.stack([right, wrong], 1), torch.stack([itself, half], 1)]
    assert head_shares(maps, positions).tolist() == [[1, 0], [1, 0.5]]
    assert best_head(torch.tensor([[0.1, 0.2], [0.9, 0.3]])) == (1, 0)


def test_an_even_head():
    may = torch.ones(1, 3, 4, dtype=torch.bool)
    may[0, 1, 2:] = False
    should = torch.zeros(1, 3, 4, dtype=torch.bool)
    should[0, 0, :3] = should[0, 1, 0] = True  # the third query is not asked
    assert uniform_share(HeadTargets(may, should)) == pytest.approx((3 / 4 + 1 / 2) / 2)


def test_nothing_to_look_at():
    positions = HeadTargets(torch.ones(1, 2, 2, dtype=torch.bool), torch.zeros(1, 2, 2, dtype=torch.bool))
    refused("No query has a right position", head_shares, [torch.ones(1, 1, 2, 2)], positions)
