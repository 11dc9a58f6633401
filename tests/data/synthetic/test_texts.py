"""Texts alone: what they say is true of their scenes, no text is in two splits, and what there is not is told."""

import re
from collections import Counter

import pytest
import torch
from testing_tools import refused

from mmlearn.data import load
from mmlearn.data.synthetic.scenes import Scenes
from mmlearn.data.synthetic.texts import FIRST, SOURCES, bracket_sentences, short_documents, spell_brackets, walk

SPLITS = ("train", "val", "test")


@pytest.fixture(scope="module")
def parts():
    return {split: load("texts", split, scenes=400) for split in SPLITS}


def test_how_many_there_are(parts):
    counted = {split: Counter(sample.source for sample in part.samples) for split, part in parts.items()}
    assert counted["train"] == {"scenes": 400, "walks": 400, "emoji": 1444, "stamps": 714}
    assert counted["val"]["scenes"] == counted["test"]["walks"] == 40
    assert counted["val"]["emoji"] + counted["test"]["emoji"] == 200
    assert min(counted["val"]["emoji"], counted["test"]["emoji"]) > 80


def test_no_text_is_in_two_splits(parts):
    """Scenes have so few words that two may be described alike; concepts and stamps are apart."""
    texts = {
        split: {sample.caption for sample in part.samples if sample.source in ("emoji", "stamps")}
        for split, part in parts.items()
    }
    for one in SPLITS:
        for other in SPLITS:
            assert one == other or not texts[one] & texts[other]


def test_captions_are_those_of_the_scenes(parts):
    scenes = Scenes("val", size=24)
    found = [sample.caption for sample in parts["val"].samples if sample.source == "scenes"]
    assert found == [scenes[i].caption for i in range(40)]


def test_walks_are_true_and_each_sentence_begins_where_the_last_one_ended():
    for scene in Scenes("train", size=24, length=30):
        sentences = walk(scene).split(". ")
        assert len(sentences) == 3
        last = None
        for k, sentence in enumerate(sentences):
            one, how, other = re.fullmatch(r"the (.+) is (left of|above) the (.+?)\.?", sentence).groups()
            assert (k, how, k + 1) in scene.graph
            assert one == f"{scene.objects[k].colour} {scene.objects[k].shape}"
            assert last in (None, one)
            last = other


def test_languages_and_sources():
    french = load("texts", language="fr")
    assert {sample.source for sample in french.samples} == {"emoji", "stamps"}
    assert {sample.language for sample in french.samples} == {"fr"}
    assert [one.source for one in load("texts", sources=["stamps"]).samples] == ["stamps"] * 714
    data = load("texts", "test", sources=["walks"], scenes=20)
    assert len(data) == 2
    assert data.caption(1) == data[1].caption
    assert list(SOURCES) == ["scenes", "walks", "emoji", "stamps"]


def test_what_there_is_not():
    refused("no split 'tset'; did you mean 'test'", load, "texts", "tset")
    refused("nothing in 'xx'", load, "texts", language="xx")
    refused("no source 'emojis'; did you mean 'emoji'", load, "texts", sources=["emojis"])
    refused("The walks of texts are not in 'fr'", load, "texts", sources=["walks"], language="fr")
    refused("at least one source", load, "texts", sources=[])
    refused("at least 10 scenes", load, "texts", scenes=9)


def test_systems_that_want_more_say_so():
    from mmlearn.training.runs import new_run

    refused("clip reads pictures, and these samples have none", new_run, "clip", load("texts", "val", scenes=10))
    run = new_run("gpt2", load("texts", "val", scenes=10))
    assert run.system.config.max_length == run.tokenizer.max_length
    assert isinstance(run.collate()([load("texts", "val", scenes=10)[0]])["tokens"], torch.Tensor)


def test_short_documents_have_a_topic_and_an_order():
    documents = short_documents("val", 400)
    assert 50 < len(documents) < 400
    form = re.compile(r"the (\w+) (\w+) is (left of|above) the \1 (\w+)\.")
    for first, second in documents:
        one, other = form.fullmatch(first), form.fullmatch(second)
        assert one[1] == other[1]  # one colour
        assert one[3] == other[3]  # one relation
        assert one[4] == other[2]  # from where the first one ends
        assert len({one[2], one[4], other[4]}) == 3
    assert len({first.split()[1] for first, _ in documents}) == 12
    assert short_documents("val", 400) == documents != short_documents("val", 400, seed=1)


def test_short_documents_are_true():
    scenes = Scenes("train", size=32, length=60)
    facts = [
        {
            (" ".join(scene.objects[i].name.split()[2:]), how, " ".join(scene.objects[j].name.split()[2:]))
            for i, how, j in scene.graph
        }
        for scene in (scenes[i] for i in range(60))
    ]
    for document in short_documents("train", 60):
        told = re.findall(r"the (\w+ \w+) is (left of|above) the (\w+ \w+)", " ".join(document))
        assert any(set(told) <= true for true in facts)


# Brackets: closed in the right order, no deeper than they may be, each with its partner.


def sentences(**options):
    return bracket_sentences(300, torch.Generator().manual_seed(0), **options)


def test_each_closing_bracket_has_its_partner():
    tokens, partner = sentences()
    assert tokens.shape == partner.shape == (300, 17)
    assert (tokens[:, 0] == 1).all()
    for row, positions in zip(tokens.tolist(), partner.tolist()):
        still_open, deepest = [], 0
        for i, (token, position) in enumerate(zip(row, positions)):
            if token >= FIRST and token % 2 == 0:
                still_open.append(i)
                deepest = max(deepest, len(still_open))
            elif token >= FIRST:
                assert position == still_open.pop()
                assert token == row[position] + 1  # of the same kind
                continue
            assert position == -1
        assert still_open == []
        assert deepest <= 5


def test_every_depth_and_every_kind_comes():
    tokens, _ = sentences()
    assert set(tokens.unique().tolist()) == {1, *range(FIRST, FIRST + 8)}
    texts = [spell_brackets(row) for row in tokens]
    assert len(set(texts)) > 290
    depths = [max(sum(1 if sign in "([{<" else -1 for sign in text[:i]) for i in range(17)) for text in texts]
    assert set(depths) >= {2, 3, 4, 5}
    assert (tokens[:, 2] % 2 == 0).float().mean().item() == pytest.approx(0.5, abs=0.1)  # opened with equal odds
    assert torch.equal(tokens, sentences()[0])


def test_short_and_flat_sentences():
    assert {spell_brackets(row) for row in sentences(pairs=1)[0]} == {"()", "[]", "{}", "<>"}
    text = spell_brackets(sentences(pairs=3, deepest=1)[0][0])
    assert all(text[i : i + 2] in ("()", "[]", "{}", "<>") for i in (0, 2, 4))
    assert bracket_sentences(0, torch.Generator())[0].shape == (0, 17)
    refused("at least one pair", sentences, pairs=0)
    refused("at least one pair", sentences, deepest=0)
