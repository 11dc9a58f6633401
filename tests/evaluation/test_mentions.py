"""Which tokens name what, and where it is: against the captions and masks of scenes."""

from types import SimpleNamespace

import pytest
import torch
from testing_tools import refused

from mmlearn.data import Tokenizer, load
from mmlearn.evaluation import Mentions, find_mentions, mass_ratio, on_grid, pointing_accuracy, pointing_chance


@pytest.fixture(scope="module")
def scenes():
    return load("scenes", "val", size=32).__getitems__(range(40))


@pytest.fixture(scope="module")
def tokenizer(scenes):
    return Tokenizer.train([sample.caption for sample in scenes], vocab_size=400, max_length=40)


@pytest.mark.parametrize("grid", [(8, 8), (4, 4), (2, 4)])
def test_the_region_of_a_phrase_is_the_mask_of_its_object(scenes, tokenizer, grid):
    mentions = find_mentions(scenes, tokenizer, grid)
    assert mentions.sample == [i for i in range(40) for _ in range(2)]  # each caption names two
    assert mentions.region.shape == (80, grid[0] * grid[1])
    rows, columns = 32 // grid[0], 32 // grid[1]
    for i, phrase, number, region in zip(mentions.sample, mentions.phrase, mentions.object, mentions.region):
        sample = scenes[i]
        assert phrase == sample.objects[number].name
        shares = [
            float(sample.masks[number, top : top + rows, left : left + columns].float().mean())
            for top in range(0, 32, rows)
            for left in range(0, 32, columns)
        ]
        assert region.tolist() == pytest.approx(shares, abs=1e-6)
        assert region.sum() > 0


def test_the_tokens_of_a_phrase_spell_it(scenes, tokenizer):
    mentions = find_mentions(scenes, tokenizer, (4, 4))
    tokens, _ = tokenizer([sample.caption for sample in scenes])
    for i, phrase, positions in zip(mentions.sample, mentions.phrase, mentions.tokens):
        assert tokenizer.decode(tokens[i, positions]) == phrase
        assert positions == list(range(positions[0], positions[-1] + 1))
        noun = phrase.split()[-1]
        assert noun.endswith(tokenizer.decode(tokens[i, positions[-1:]]))


def test_select_takes_the_map_of_the_last_token(scenes, tokenizer):
    mentions = find_mentions(scenes, tokenizer, (4, 4))
    maps = torch.arange(40.0)[:, None, None] * 1000 + torch.arange(40.0)[:, None] + torch.zeros(16)
    got = mentions.select(maps)
    expected = [1000 * i + tokens[-1] for i, tokens in zip(mentions.sample, mentions.tokens)]
    assert got.shape == (80, 16)
    assert got[:, 0].tolist() == got[:, 15].tolist() == expected


def test_a_map_that_knows_the_masks_points_and_one_that_does_not_is_at_chance(scenes, tokenizer):
    mentions = find_mentions(scenes, tokenizer, (8, 8))
    maps = torch.zeros(40, 40, 64)
    for i, tokens, number in zip(mentions.sample, mentions.tokens, mentions.object):
        maps[i, tokens[-1]] = on_grid(scenes[i].masks[number][None], (8, 8))[0]
    assert pointing_accuracy(mentions.select(maps), mentions.region) == 1
    assert mass_ratio(mentions.select(maps), mentions.region) > 5
    chance = pointing_chance(mentions.region)
    assert chance < 0.125
    assert pointing_accuracy(mentions.select(torch.zeros(40, 40, 64)), mentions.region) == pytest.approx(chance)


def test_phrases_that_were_cut_off_are_left_out(scenes, tokenizer):
    short = Tokenizer.train([sample.caption for sample in scenes], vocab_size=400, max_length=6)
    mentions = find_mentions(scenes, short, (4, 4))
    assert 0 < len(mentions.sample) < 80
    for i, phrase in zip(mentions.sample, mentions.phrase):
        assert scenes[i].caption.split()[1] == phrase.split()[0]  # the first of the two
    assert max(max(tokens) for tokens in mentions.tokens) < 5


def test_samples_without_links_among_others_are_left_out(scenes, tokenizer):
    mixed = [SimpleNamespace(caption="a dog"), scenes[3], SimpleNamespace(caption="a cat", links=()), scenes[5]]
    mentions = find_mentions(mixed, tokenizer, (4, 4))
    assert mentions.sample == [1, 1, 3, 3]
    assert isinstance(mentions, Mentions)


@pytest.mark.parametrize("samples", [[], [SimpleNamespace(caption="a dog")]])
def test_where_nothing_is_linked_it_says_so(tokenizer, samples):
    refused("nothing can be pointed at", find_mentions, samples, tokenizer, (4, 4))
