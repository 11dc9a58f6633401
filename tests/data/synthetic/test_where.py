"""Questions for places: that notes answer them once, and that a thing's place is that of its box."""

import torch
from torch import nn

from mmlearn.data.grid_features import grid_features
from mmlearn.data.synthetic.where import (
    PLACE_OF_PATCH,
    PLACES,
    WORDS,
    ask_note,
    guess_listed,
    notes,
    patches_to_swap,
    weight_on_place,
    where_questions,
)


def seeded():
    return torch.Generator().manual_seed(0)


def test_the_answer_follows_its_noun_and_padding_is_what_is_not_real():
    words, real, noun, place = notes(200, 5, seeded())
    assert words.shape == real.shape == (200, 10)
    assert torch.equal(words > 0, real)
    lengths = real.sum(1)
    assert set(lengths.tolist()) == {2, 4, 6, 8, 10}
    for row, length, asked, answer in zip(words, lengths, noun, place):
        nouns, places = row[:length:2], row[1:length:2]
        assert len(set(nouns.tolist())) == len(nouns)
        assert [WORDS[p] for p in places[nouns == asked]] == [PLACES[answer]]
    assert (notes(20, 5, seeded(), facts=3)[1].sum(1) == 6).all()


def test_who_knows_the_places_alone_guesses_the_commonest():
    note = ["horse", "left", "cat", "left", "dog", "top"]
    words = torch.tensor([[WORDS.index(word) for word in note] + [0, 0]])
    assert guess_listed(words) == torch.tensor(2 / 3).item()
    assert guess_listed(notes(50, 5, seeded(), facts=1)[0]) == 1.0
    pairs = notes(20_000, 2, seeded(), facts=2)[0]
    assert abs(guess_listed(pairs) - 5 / 9) < 0.01  # 1/9 have one place twice: (1/9) + (8/9)/2


def test_a_picture_without_it_has_no_thing_of_that_name():
    asked = where_questions("test", 12)
    others = asked.pictures_without()
    assert others.shape == asked.noun.shape
    for noun, picture, other in zip(asked.noun.tolist(), asked.picture.tolist(), others.tolist()):
        assert WORDS[noun] not in asked.samples[other].names
        skipped = range(picture + 1, other if other > picture else other + 12)
        assert all(WORDS[noun] in asked.samples[number % 12].names for number in skipped)


def test_a_place_is_the_third_of_the_picture_in_which_the_box_has_its_centre():
    asked = where_questions("test", 12)
    assert asked.features.shape == (12, 36, 96)
    alone = grid_features(asked.samples[4].image[None])
    torch.testing.assert_close(asked.features[4:5], alone, atol=0.02, rtol=0)  # other batches round otherwise
    corners = [PLACES[place] for place in PLACE_OF_PATCH[[0, 5, 14, 30]]]
    assert corners == ["top-left", "top-right", "middle", "bottom-left"]
    for number, noun, place, ((left, top, right, bottom),) in zip(
        asked.picture.tolist(), asked.noun.tolist(), asked.place.tolist(), asked.boxes
    ):
        sample = asked.samples[number]
        assert sample.names.count(WORDS[noun]) == 1
        row, column = divmod(place, 3)
        assert (row, column) == (min(int(1.5 * (top + bottom)), 2), min(int(1.5 * (left + right)), 2))
        assert ("top" in PLACES[place], "bottom" in PLACES[place]) == (row == 0, row == 2)
        assert ("left" in PLACES[place], "right" in PLACES[place]) == (column == 0, column == 2)
    assert len(asked.place.unique()) > 4
    first = asked.first_of_pictures(4)
    assert asked.picture[first].tolist() == asked.picture.unique()[:4].tolist()
    hits = [number == 2 for number in asked.picture.tolist()]
    assert asked.first_picture_with(hits, 2) == [k for k, hit in enumerate(hits) if hit][:2]
    assert asked.first_picture_with([False] * len(hits), 2) == [0, 1]
    text, spans = asked.asks(first)
    assert [text[start:end] for start, end in spans] == [WORDS[noun] for noun in asked.noun[first]]
    assert text.startswith(f"where is the {WORDS[asked.noun[0]]}, the ")
    assert text.endswith("?")


class Knows(nn.Module):
    def forward(self, words, real, noun):
        at = (words == noun[:, None]).int().argmax(1) + 1
        return nn.functional.one_hot(words[torch.arange(len(words)), at] - WORDS.index(PLACES[0]), len(PLACES))


def test_one_note_is_asked_for_its_last_things():
    words, told, at = ask_note(Knows(), 8, facts=5)
    assert (len(words), at) == (10, [5, 7, 9])
    assert told == [f"where is the {words[k - 1]}?  It answers: {words[k]}" for k in at]
    assert len(ask_note(Knows(), 4)[0]) == 8


def test_the_weight_counted_is_that_after_the_noun():
    words = torch.tensor([[1, 70, 2, 71], [3, 70, 1, 72]])
    weights = torch.tensor([[0.1, 0.2, 0.3, 0.4], [0.0, 0.0, 0.2, 0.8]])
    assert weight_on_place(weights, words, torch.tensor([1, 1])) == 0.5


def test_swapped_patches_are_the_brightest_or_none_of_them():
    weights = torch.rand(5, 36, generator=seeded()).softmax(1)
    which = patches_to_swap(weights, seeded())
    assert [int(each.sum()) for each in which.values()] == [0, 20, 20, 5 * 32]
    assert torch.equal(which["all others"], ~which["four brightest"])
    assert not (which["four brightest"] & which["four others"]).any()
    for row, top in zip(weights, which["four brightest"]):
        assert row[top].min() > row[~top].max()
