"""Labels: what is hidden or exchanged, against the batch as it was; shares against their probabilities."""

from types import SimpleNamespace

import pytest
import torch
from testing_tools import close, refused

from mmlearn.data import Tokenizer, load
from mmlearn.data.fields import MaskedRegions, MaskedTokens, MatchLabel, Regions, ShuffledTokens, Tokens
from mmlearn.data.synthetic.cutouts import NOUNS, PLURALS
from mmlearn.data.synthetic.layouts import COLOURS, SHAPES
from mmlearn.data.synthetic.regions import SceneDetector
from mmlearn.data.synthetic.scenes import Scenes


@pytest.fixture(scope="module")
def scenes():
    return Scenes(size=32).__getitems__(range(200))


@pytest.fixture(scope="module")
def tokenizer(scenes):
    # So few tokens that words have several, and so long that no word is cut.
    return Tokenizer.train([scene.caption for scene in scenes], vocab_size=330, max_length=64)


def labelled(batch, *labels, seed=0):
    generator = torch.Generator().manual_seed(seed)
    for label in labels:
        batch = label(batch, generator, {"vocab_size": 330}.__getitem__)
    return batch


def text_of(batch):
    """The tokens with nothing hidden."""
    return batch["tokens"].where(batch["token_label"] == -100, batch["token_label"])


def hidden_positions(batch):
    return [set(row.nonzero().flatten().tolist()) for row in batch["token_label"] != -100]


def texts_of(*captions):
    return [SimpleNamespace(caption=caption) for caption in captions]


# Words.


def test_no_special_token_and_no_padding_is_hidden_or_drawn(scenes, tokenizer):
    plain = Tokens(tokenizer)(scenes)
    batch = labelled(plain, MaskedTokens(1.0))
    text = text_of(batch)
    assert torch.equal(text, plain["tokens"])
    assert torch.equal(batch["token_label"] == -100, text < 4)  # all that can be hidden is
    assert torch.equal(batch["tokens"] < 3, text < 3)
    shares = [(batch["tokens"] == tokenizer.mask_token), (batch["tokens"] == text) & (text > 3)]
    close(torch.stack(shares).sum((1, 2)) / (text > 3).sum(), torch.tensor([0.8, 0.1]), 0.02)
    rest = batch.keys() - {"tokens", "token_label"}
    assert rest == {"mask", "caption_id"}
    assert all(torch.equal(batch[name], plain[name]) for name in rest)


@pytest.mark.parametrize("probability", [0.15, 1.0])
def test_shuffled_texts_keep_their_tokens(scenes, tokenizer, probability):
    plain = Tokens(tokenizer)(scenes)
    batch = labelled(plain, ShuffledTokens(probability))
    assert torch.equal(batch["tokens"].sort().values, plain["tokens"].sort().values)
    assert torch.equal(batch["shuffled"], batch["tokens"] != plain["tokens"])
    assert not batch["shuffled"][(plain["tokens"] < 4) | ~plain["mask"]].any()
    share = batch["shuffled"].sum() / (plain["tokens"] > 3).sum()
    assert share > 0.7 if probability == 1 else 0.08 < share < 0.15  # one alone stays, and some words are said twice
    assert {name for name in batch if batch[name] is not plain.get(name)} == {"tokens", "shuffled"}
    assert not torch.equal(labelled(plain, ShuffledTokens(probability), seed=1)["tokens"], batch["tokens"])
    refused("probability is a share", ShuffledTokens, 1.5)


@pytest.mark.parametrize("probability", [0.4, 0.7])
def test_about_so_many_tokens_are_hidden(scenes, tokenizer, probability):
    batch = labelled(Tokens(tokenizer)(scenes), MaskedTokens(probability))
    hidden = (batch["token_label"] != -100).sum() / (text_of(batch) > 3).sum()
    assert hidden.item() == pytest.approx(probability, abs=0.03)


def test_whole_words_are_hidden_as_a_whole(scenes, tokenizer):
    def broken(words):
        batch = labelled(Tokens(tokenizer, words=words)(scenes), MaskedTokens(0.3))
        hidden, torn, several = (batch["token_label"] != -100).tolist(), 0, 0
        for row, scene in zip(hidden, scenes):
            for _, positions in tokenizer.words(scene.caption):
                several += len(positions) > 1
                torn += len({row[position] for position in positions}) > 1
        assert several > 200
        assert 0.2 < batch["token_label"].ne(-100).sum() / (text_of(batch) > 3).sum() < 0.4
        assert "word" not in batch
        return torn

    assert broken(True) == 0
    assert broken(False) > 50


def word_positions(tokenizer, text, chosen):
    """Which positions of a text hold one of these words: a space before it is part of a word, as of its token."""
    found = {position for word, positions in tokenizer.words(text) if word.lower() in chosen for position in positions}
    return found | {position - 1 for position in found if tokenizer.engine.encode(text).tokens[position - 1] == "Ġ"}


@pytest.mark.parametrize("words", [False, True])
@pytest.mark.parametrize("chosen", [COLOURS, set(SHAPES), ["the", "a", "circle"]])
def test_only_the_named_words_are_hidden(scenes, tokenizer, chosen, words):
    def hidden(probability):
        plain = Tokens(tokenizer, words=words, maskable=chosen)(scenes)
        batch = labelled(plain, MaskedTokens(probability))
        assert torch.equal(text_of(batch), plain["tokens"])
        assert "maskable" not in batch
        return hidden_positions(batch)

    expected = [word_positions(tokenizer, scene.caption, chosen) for scene in scenes]
    assert sum(len(positions) for positions in expected) > 300
    assert hidden(1.0) == expected
    some = hidden(0.4)
    assert all(got and got <= positions for got, positions in zip(some, expected))  # at least one of each row
    assert 0.4 < sum(map(len, some)) / sum(map(len, expected)) < 0.85


def test_only_the_nouns_of_collages_are_hidden_where_words_are_grounded():
    samples = load("collages", "train").__getitems__(range(20))
    tokenizer = Tokenizer.train([sample.caption for sample in samples], vocab_size=2000, max_length=40)
    plain = Tokens(tokenizer, grounded=True)(samples)
    batch = labelled(plain, MaskedTokens())
    for row, (sample, hidden) in enumerate(zip(samples, hidden_positions(batch), strict=True)):
        nouns = [
            part
            for link in sample.links
            for part in tokenizer.positions(sample.caption, *sample.grounded_position(link))
        ]
        assert plain["maskable"][row].nonzero().flatten().tolist() == sorted(nouns)
        told = tokenizer.decode(plain["tokens"][row][plain["maskable"][row]]).split()
        assert len(told) == len(sample.links)
        assert set(told) <= set(NOUNS) | set(PLURALS.values())
        assert hidden
        assert hidden <= set(nouns)
    assert "maskable" not in batch


def test_what_has_no_grounded_words_says_so(tokenizer):
    field = Tokens(tokenizer, grounded=True)
    refused("uniter hides grounded words, and nothing links", field.check_sample, texts_of("a ring")[0], "uniter")
    refused("Grounded words are those of captions", Tokens, grounded=True, maskable=["red"])
    refused("Grounded words are those of captions", Tokens, grounded=True, source="text")


def test_named_words_of_several_tokens_are_hidden_as_a_whole(tokenizer):
    several = [word for word in COLOURS if len(tokenizer.words(f"a {word}")[1][1]) > 1]
    samples = texts_of(*(f"a {word} {word} thing, {word}" for word in several))
    assert len(several) > 3
    batch, shares = Tokens(tokenizer, words=True, maskable=COLOURS)(samples), {True: [], False: []}
    for seed in range(30):
        got = hidden_positions(labelled(batch, MaskedTokens(0.5), seed=seed))
        for positions, sample in zip(got, samples, strict=True):
            for word, own in tokenizer.words(sample.caption):
                shares[word in several].append(len(positions & set(own)) / len(own))
    assert set(shares[False]) == {0}
    assert set(shares[True]) == {0, 1}
    assert min(shares[True].count(0), shares[True].count(1)) > 20


@pytest.mark.parametrize("absent", [["zebra"], []])
def test_a_word_of_no_caption_hides_nothing(scenes, tokenizer, absent):
    plain = Tokens(tokenizer, maskable=absent)(scenes)
    batch = labelled(plain, MaskedTokens(1.0))
    assert (batch["token_label"] == -100).all()
    assert torch.equal(batch["tokens"], plain["tokens"])


# Regions.


def test_hidden_regions_are_zero_and_the_target_is_what_they_were(scenes):
    found = Regions(SceneDetector(0.2))(scenes)
    batch = labelled(found, MaskedRegions(0.3))
    masked = batch["masked_regions"]
    assert torch.equal(batch["region_target"], found["regions"])
    assert (batch["regions"][masked] == 0).all()
    assert torch.equal(batch["regions"][~masked], found["regions"][~masked])
    assert found["regions"][masked].any(-1).all()  # and the batch as it was is as it was
    assert (masked <= batch["region_mask"]).all()
    assert masked.any(1).all()
    for name in ("boxes", "region_mask", "region_classes"):
        assert torch.equal(batch[name], found[name])


@pytest.mark.parametrize(("words", "regions"), [(0.2, 0.6), (0.7, 0.3), (0.4, 1.0)])
def test_words_and_regions_have_a_share_each(scenes, tokenizer, words, regions):
    batch = Tokens(tokenizer)(scenes) | Regions()(scenes)
    batch = labelled(batch, MaskedTokens(words), MaskedRegions(regions))
    hidden = (batch["token_label"] != -100).sum() / (text_of(batch) > 3).sum()
    assert hidden.item() == pytest.approx(words, abs=0.03)
    assert (batch["masked_regions"].sum() / batch["region_mask"].sum()).item() == pytest.approx(regions, abs=0.04)


# Pairs that do not match.


@pytest.mark.parametrize("count", [2, 7, 200])
@pytest.mark.parametrize("repeats", [False, True])
def test_half_the_rows_have_another_caption(scenes, tokenizer, count, repeats):
    plain = Tokens(tokenizer, repeats=repeats)(scenes[:count]) | {"image": torch.randn(count, 3)}
    batch = labelled(plain, MatchLabel())
    assert torch.equal((batch["tokens"] == plain["tokens"]).all(1), batch["match_label"] == 1)
    assert (batch["match_label"] == 0).sum() == count // 2
    whole = {tuple(row) for row in plain["tokens"].tolist()}
    assert all(tuple(row) in whole for row in batch["tokens"].tolist())
    assert torch.equal(batch["mask"], batch["tokens"] != 0)
    assert torch.equal(batch["image"], plain["image"])
    if repeats:
        number = dict(zip(map(tuple, plain["tokens"].tolist()), plain["caption_id"].tolist()))
        assert [number[tuple(row)] for row in batch["tokens"].tolist()] == batch["caption_id"].tolist()


@pytest.mark.parametrize("repeats", [False, True])
def test_an_equal_caption_is_no_wrong_one(tokenizer, repeats):
    plain = Tokens(tokenizer, repeats=repeats)(texts_of(*["a red ring"] * 15, "a blue bar"))
    seen = 0
    for seed in range(20):
        batch = labelled(plain, MatchLabel(), seed=seed)
        assert torch.equal((batch["tokens"] == plain["tokens"]).all(1), batch["match_label"] == 1)
        seen += int((batch["match_label"] == 0).sum())
    assert seen == 20 * 8
    with pytest.raises(ValueError, match="at least two different captions"):
        labelled(Tokens(tokenizer, repeats=repeats)(texts_of("a", "a")), MatchLabel())


@pytest.mark.parametrize("words", [False, True])
@pytest.mark.parametrize("swapped_first", [False, True])
def test_what_belongs_to_a_text_goes_with_it(scenes, tokenizer, words, swapped_first):
    """In either order, the labels are those of the text that is read, and only its own words are hidden."""
    plain = Tokens(tokenizer, words=words, maskable=COLOURS)(scenes)
    labels = (MatchLabel(), MaskedTokens(0.5))
    batch = labelled(plain, *(labels if swapped_first else labels[::-1]))
    assert torch.equal((text_of(batch) == plain["tokens"]).all(1), batch["match_label"] == 1)
    assert torch.equal(batch["mask"], text_of(batch) != 0)
    caption = {tuple(row): scene.caption for row, scene in zip(plain["tokens"].tolist(), scenes)}
    for text, hidden in zip(text_of(batch).tolist(), hidden_positions(batch)):
        assert hidden
        assert hidden <= word_positions(tokenizer, caption[tuple(text)], COLOURS)
        for _, positions in tokenizer.words(caption[tuple(text)]) if words else ():
            assert len(hidden & set(positions)) in (0, len(positions))


@pytest.mark.parametrize("label", [MaskedTokens, MaskedRegions])
@pytest.mark.parametrize("share", [1.5, -0.1, float("nan")])
def test_a_share_is_from_0_to_1(label, share):
    refused(rf"^probability is a share from 0 to 1, got {share}\.$", label, share)
