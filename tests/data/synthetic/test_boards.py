"""Boards of tiles: each question's two answers are true, and compressed features follow their definition."""

import pytest
import torch
import torch.nn.functional as F

from mmlearn.data.synthetic.boards import (
    NEXT,
    NONE,
    PLACES,
    THINGS,
    TILE,
    WORDS,
    Tiles,
    board_boxes,
    board_image,
    boards,
    compressed,
    tiles,
)
from mmlearn.pretrained.backbone import load_backbone


@pytest.fixture
def plain():
    nouns = torch.arange(len(THINGS)).repeat(2)
    images = torch.rand(len(nouns), 3, 4, 4, generator=torch.Generator().manual_seed(0))
    return Tiles(images, torch.randn(len(nouns), 5, generator=torch.Generator().manual_seed(1)), nouns)


def test_answers_are_beside_what_is_named(plain):
    drawn = boards(plain, 200, torch.Generator().manual_seed(0), by_place=0.3)
    nouns = plain.nouns[drawn.tiles]
    assert all(len(set(row)) == 9 for row in nouns.tolist())
    assert torch.equal(nouns.gather(1, drawn.where[:, None])[:, 0], drawn.what)
    by_place = drawn.question[:, 1] == NONE
    assert 30 < by_place.sum() < 90
    assert [WORDS[word] for word in drawn.question[by_place, 0]] == [PLACES[at] for at in drawn.where[by_place]]
    noun, relation = drawn.question[~by_place].T
    assert torch.equal(noun, nouns.gather(1, drawn.named[:, None])[~by_place, 0])
    assert torch.equal(NEXT[relation - len(THINGS), drawn.named[~by_place]], drawn.where[~by_place])


def test_every_tile_and_every_place_with_such_a_neighbour_is_drawn(plain):
    drawn = boards(plain, 2400, torch.Generator().manual_seed(0))
    assert drawn.tiles.unique().tolist() == list(range(len(plain.nouns)))
    relation = drawn.question[:, 1] - len(THINGS)
    counts = torch.stack([drawn.named[relation == k].bincount(minlength=9) for k in range(len(NEXT))])
    assert torch.equal(counts > 0, NEXT >= 0)
    assert counts[counts > 0].min() > 65  # of 100 that are expected


def test_neighbours_and_words(plain):
    assert NEXT[:, 0].tolist() == [-1, 1, -1, 3]  # left of, right of, above and below the top-left
    drawn = boards(plain, 1, torch.Generator().manual_seed(0))
    noun, relation = (WORDS[word] for word in drawn.question[0].tolist())
    assert drawn.asked(0) == f"{relation} the {noun}"
    assert boards(plain, 1, torch.Generator().manual_seed(0), by_place=1.0).asked(0).startswith("at the ")


def test_a_board_is_its_tiles_in_reading_order(plain):
    picture = board_image(plain, torch.arange(9))
    assert torch.equal(picture[:, 4:8, 8:12], plain.images[5])
    assert board_boxes()[5].tolist() == pytest.approx([2 / 3, 1 / 3, 1, 2 / 3])


def test_compressed_features_keep_distances_up_to_one_scale(plain):
    (small,) = compressed(plain, width=5)
    before, after = (torch.pdist(each.features) for each in (plain, small))
    torch.testing.assert_close(after / after.mean(), before / before.mean())
    assert small.features.std() == pytest.approx(1, abs=1e-4)
    one, other = compressed(plain, plain._replace(features=plain.features + 1), width=2)
    moved = other.features - one.features  # by the mean of the first alone: all as far
    assert one.features.shape == (36, 2)
    assert moved[0].abs().max() > 0.1
    torch.testing.assert_close(moved, moved[:1].expand(36, 2))


def test_tiles_are_drawn_and_seen_one_by_one():
    seen = tiles(("noto",))
    assert seen.features.shape == (4 * len(THINGS), 1280)
    assert torch.equal(seen.nouns, torch.arange(len(THINGS)).repeat_interleave(4))
    alone = torch.cat([load_backbone(TILE)(image[None]) for image in seen.images[:3]])
    torch.testing.assert_close(seen.features[:3], F.layer_norm(alone, alone.shape[1:]), atol=0.02, rtol=0)
    one, mirrored = seen.images[::4], seen.images[2::4]  # on other papers
    assert (one - mirrored.flip(-1)).abs().mean() < (one - mirrored).abs().mean()
