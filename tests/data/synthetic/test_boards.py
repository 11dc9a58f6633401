"""Boards of tiles: each question's two answers are true, and compressed features follow their definition."""

import pytest
import torch

from mmlearn.data.synthetic.boards import (
    NEXT,
    NONE,
    PLACES,
    THINGS,
    WORDS,
    Tiles,
    board_boxes,
    board_image,
    boards,
    compressed,
    tiles,
)


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
    assert compressed(plain, plain, width=2)[1].features.shape == (36, 2)


def test_tiles_are_drawn_and_seen_one_by_one():
    seen = tiles(("noto",))
    assert seen.features.shape == (4 * len(THINGS), 1280)
    assert torch.equal(seen.nouns, torch.arange(len(THINGS)).repeat_interleave(4))
