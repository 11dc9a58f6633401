import pytest
import torch

from mmlearn.data.packaged.emoji import FLUENT
from mmlearn.data.synthetic.collage_words import relation
from mmlearn.data.synthetic.cutouts import COLOURS, DYED
from mmlearn.data.synthetic.two_things import (
    CONTENT,
    WORDS,
    clear_photographs,
    content_spans,
    in_order,
    single_things,
    two_things,
)


@pytest.fixture(scope="module")
def drawn():
    return two_things("test", 40)


def test_captions_name_things_in_reading_order(drawn):
    for sample, caption in zip(drawn.samples, drawn.captions):
        one, other = in_order(sample.things)
        assert relation(one, other) in ("left of", "above")
        assert caption == f"a {one.name} {relation(one, other)} a {other.name}"


def test_boxes_are_those_of_the_things_that_content_words_name(drawn):
    for sample, boxes, row in zip(drawn.samples, drawn.boxes, drawn.tokens):
        for number, ((left, top, right, bottom),) in zip(CONTENT, boxes):
            word = WORDS[row[number]]
            inside = [t for t in sample.things if left < t.centre[0] < right and top < t.centre[1] < bottom]
            assert any(word in t.name for t in inside)


def test_redyed_changes_one_word_and_pixels_of_one_thing(drawn):
    new = drawn.redyed()
    assert torch.equal((new.tokens != drawn.tokens).sum(0).bool(), torch.arange(9) == 6)
    assert (new.tokens[:, 6] != drawn.tokens[:, 6]).all()
    changed = (new.images != drawn.images).any(1)
    for (*_, ((left, top, right, bottom),)), pixels in zip(drawn.boxes, changed):
        y, x = pixels.nonzero(as_tuple=True)
        assert len(y)
        assert x.min() >= 48 * left - 1e-3
        assert x.max() < 48 * right + 1e-3
        assert y.min() >= 48 * top - 1e-3
        assert y.max() < 48 * bottom + 1e-3


def test_facts_need_a_colour_on_its_own_noun(drawn):
    assert drawn.facts(drawn.tokens).all()
    wrong = drawn.tokens.clone()
    wrong[:, 2] = torch.where(wrong[:, 2] == WORDS.index("red"), WORDS.index("blue"), WORDS.index("red"))
    assert drawn.facts(wrong).tolist() == [[0, 1, 1]] * 40


def test_spans_are_the_content_words(drawn):
    caption, spans = content_spans(drawn.tokens[0])
    assert [caption[start:end] for start, end in spans] == [WORDS[drawn.tokens[0, k]] for k in CONTENT]


def test_single_things_are_numbered():
    single = single_things(FLUENT, DYED, 30)
    assert single.images.shape == (30, 3, 48, 48)
    names = [f"{COLOURS[c]} {DYED[n]}" for c, n in zip(single.colours, single.nouns)]
    assert names == [thing.name for thing in single.things]


def test_photographs_keep_their_colours():
    photographs = clear_photographs()
    assert len(photographs.images) == len(photographs.things) == len(photographs.colours)
    shown = photographs.shown(6)
    middle = shown[:, :, 70:90, 70:90].mean((2, 3))
    yellow = middle[2]  # the lemon
    assert yellow[0] > 0.6
    assert yellow[1] > 0.5
    assert yellow[2] < 0.4
