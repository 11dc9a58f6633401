"""The hinge of tokens and pictures, counted pair by pair; and the picture that is nearest to a token."""

import pytest
import torch
import torch.nn.functional as F
from testing_tools import close

from mmlearn.objectives.vokens import nearest_vokens, token_image_hinge


def embedded(b=5, t=4, d=6):
    mask = torch.arange(t) <= torch.arange(b)[:, None] % t
    return F.normalize(torch.randn(b, t, d), dim=-1), F.normalize(torch.randn(b, d), dim=-1), mask


@pytest.mark.parametrize("captions", [None, [0, 1, 0, 2, 3], [7, 7, 7, 7, 1], [4, 4, 4, 4, 4]])
@pytest.mark.parametrize("margin", [0.1, 0.5])
def test_the_hinge_against_counting(captions, margin):
    tokens, images, mask = embedded()
    number, terms = captions or list(range(5)), []
    for s in range(5):
        wrong = [x for x in range(5) if number[x] != number[s]]
        for word in tokens[s][mask[s]] if wrong else []:
            short = [max(0.0, margin - float(word @ images[s]) + float(word @ images[x])) for x in wrong]
            terms.append(sum(short) / len(short))
    got = token_image_hinge(tokens, images, mask, margin, None if captions is None else torch.tensor(captions))
    assert got.item() == pytest.approx(sum(terms) / max(len(terms), 1), abs=1e-6)


def test_what_the_hinge_is_at_its_ends():
    """Pictures that cannot be told apart cost the margin, tokens on their pictures nothing; padding does not count."""
    tokens, images, mask = embedded()
    close(token_image_hinge(tokens, images[:1].expand(5, -1), mask, 0.3), torch.tensor(0.3))
    assert token_image_hinge(torch.eye(5)[:, None].expand(5, 4, 5), torch.eye(5), mask, 0.9) == 0
    assert token_image_hinge(tokens[:1], images[:1], mask[:1]) == 0  # no picture is wrong
    assert token_image_hinge(tokens, images, mask & False) == 0
    other = torch.where(mask[..., None], tokens, torch.randn(tokens.shape))
    assert torch.equal(token_image_hinge(other, images, mask), token_image_hinge(tokens, images, mask))


def test_the_voken_is_the_nearest_image_whatever_their_order():
    tokens, _, mask = embedded()
    vokens = F.normalize(torch.randn(9, 6), dim=-1)
    found = nearest_vokens(tokens, vokens, mask)
    assert (found[~mask] == -100).all()
    distance = (tokens[:, :, None] - vokens).norm(dim=-1)
    assert torch.equal(found[mask], distance.argmin(-1)[mask])
    order = torch.randperm(9)
    assert torch.equal(order[nearest_vokens(tokens, vokens[order], mask)[mask]], found[mask])
