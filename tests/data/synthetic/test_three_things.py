"""Collages of three dyed things: what captions state of them, and what is erased."""

import torch

from mmlearn.data.synthetic.three_things import WORDS, caption_tokens, grid_of_collages, say, stated, three_things


def test_captions_are_of_the_two_things_that_they_name():
    data = three_things("test", 24)
    assert len(data.samples) == len(data.captions) == len(data.grid) >= 4
    for sample, tokens, asked in zip(data.samples, data.captions, data.asked):
        assert len({thing.noun for thing in sample.things}) == len({thing.colour for thing in sample.things}) == 3
        read = [" ".join(WORDS[token] for token in row[1:].tolist()) for row in tokens]
        assert read[0] == asked == say(*sample.things[:2])
        assert read[2 * 2] == say(sample.things[2], sample.things[0])  # captions 2 k begin with thing k
    alone = grid_of_collages(data.samples[:3])  # other batches round otherwise
    torch.testing.assert_close(alone, data.grid[:3], atol=0.02, rtol=0)


def test_a_caption_with_its_colours_exchanged_has_the_same_words_and_other_things():
    tokens = caption_tokens(["a red car and a blue book", "a blue car and a red book", "a blue book and a red car"])
    words, things = stated(tokens)
    assert (words @ words.T == 4).all()
    assert (things @ things.T).tolist() == [[2, 0, 2], [0, 2, 0], [2, 0, 2]]


def test_what_fits_is_what_the_pictures_show():
    data = three_things("test", 60)
    fits, mixed_up = data.compared()
    assert fits.diagonal().all()
    assert mixed_up.any()
    assert not (fits & mixed_up).any()
    for row, asked in enumerate(data.samples):
        wanted = {thing.name for thing in asked.things[:2]}
        for column, seen in enumerate(data.samples):
            names = {thing.name for thing in seen.things}
            words = {word for name in names for word in name.split()}
            assert fits[row, column] == (wanted <= names)
            assert (fits | mixed_up)[row, column] == ({word for name in wanted for word in name.split()} <= words)


def test_the_thing_nearest_to_a_point_is_erased():
    data = three_things("test", 24)
    numbers = [k % 3 for k in range(len(data.samples))]
    assert data.nearest([s.things[k].centre for s, k in zip(data.samples, numbers)]) == numbers
    for sample, gone, left in zip(data.samples, numbers, data.erased(numbers)):
        assert list(left.things) == [thing for k, thing in enumerate(sample.things) if k != gone]
        changed = (left.image - sample.image).abs().sum(0) > 0.1
        assert changed.any()
        assert (changed & ~sample.masks[gone]).float().mean() < 0.1  # its shadow
    for number in range(3):
        for sample, ((left, top, right, bottom),) in zip(data.samples, data.boxes(number)):
            x, y = sample.things[number].centre
            assert left < x < right
            assert top < y < bottom
