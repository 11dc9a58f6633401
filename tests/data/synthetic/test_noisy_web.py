"""The small web: captions name what their picture shows, and the stated share is another picture's."""

import pytest
import torch
from testing_tools import refused

from mmlearn.data.synthetic.noisy_web import NAMED, named, text_of, tokens_of, web_pictures


@pytest.fixture(scope="module")
def web():
    return web_pictures("web", 200)


def test_each_order_of_a_caption_names_all_that_the_picture_shows(web):
    assert web.patches.shape == (200, 36, 96)
    for sample, captions in zip(web.samples, web.captions):
        assert sample.caption == text_of(captions[0])
        for tokens in captions:
            words = text_of(tokens).replace(",", " and").split(" and ")
            assert sorted(words) == sorted(sample.names)
            assert torch.equal(tokens, tokens_of(words))
        orders = {text_of(tokens) for tokens in captions}
        assert len(orders) == {2: 2, 3: 6}[len(sample.names)]
    assert {len(sample.names) for sample in web.samples} == {2, 3}


def test_what_is_named_is_what_the_words_say():
    tokens = torch.stack([tokens_of(["owl"]), tokens_of(["fish", "owl"]), tokens_of(["key", "fish", "owl"])])
    assert [text_of(each) for each in tokens] == ["owl", "fish and owl", "key, fish and owl"]
    found = [{NAMED[k] for k in row.nonzero()[:, 0].tolist()} for row in named(tokens)]
    assert found == [{"owl"}, {"fish", "owl"}, {"key", "fish", "owl"}]


@pytest.mark.parametrize("share", [0.0, 0.3, 0.8, 1.0])
def test_the_stated_share_of_captions_is_another_pictures(web, share):
    told = web.with_errors(share, seed=1)
    assert torch.equal(told, web.with_errors(share, seed=1))
    moved = (told != web.captions[:, 0]).any(1)
    assert moved.float().mean().item() == pytest.approx(share, abs=0.1)
    known = {tuple(each) for each in web.captions[:, 0].tolist()}
    assert {tuple(each) for each in told.tolist()} <= known
    true = [
        set(text_of(each).replace(",", " and").split(" and ")) <= set(s.names) for each, s in zip(told, web.samples)
    ]
    assert web.true(told).tolist() == true


def test_nouns_and_pairs_are_counted(web):
    assert web.nouns_right(web.captions[:, 3]) == 1
    assert web.nouns_right(torch.zeros_like(web.captions[:, 0])) == 0
    told = web.with_errors(0.5)
    names = [text_of(each).replace(",", " and").split(" and ") for each in told]
    hits = [name in sample.names for row, sample in zip(names, web.samples) for name in row]
    assert web.nouns_right(told) == pytest.approx(sum(hits) / len(hits))
    true = web.true(told)
    score = true.float() + torch.arange(len(true)) / 1e4
    assert web.sorted_pairs(score, told) == 1
    assert web.sorted_pairs(-score, told) == 0


def test_splits_share_no_picture_and_a_share_is_a_share(web):
    others = web_pictures("clean", 50)
    assert not {s.things for s in others.samples} & {s.things for s in web.samples}
    assert {s.things[0].style for s in web_pictures("photographs", 3).samples} == {"stamps"}
    for share in (-0.1, 1.5, float("nan")):
        refused("^share is from 0 to 1", web.with_errors, share)
