"""The second language: each word has one translation, known by its number, and to translate twice changes nothing."""

import pytest

from mmlearn.data import load
from mmlearn.data.made.second_language import translate, translated_words


def test_by_hand():
    assert translate("a red star above a blue bar") == "rab eulb a evoba rats der a"
    assert translated_words("a red star above") == (3, 2, 1, 0)
    assert translate("") == ""


@pytest.mark.parametrize("name", ["scenes", "crowded-scenes"])
def test_scenes_say_the_same_in_both(name):
    words = {}
    for sample in load(name, "val", size=48, length=50).__getitems__(range(50)):
        caption, translation = sample.caption.split(), sample.translation.split()
        assert translate(sample.translation) == " ".join(caption)
        assert len(sample.translated_words) == len(translation)
        for place, number in enumerate(sample.translated_words):
            words.setdefault(caption[number], set()).add(translation[place])
        assert translation != caption
    assert all(len(found) == 1 for found in words.values())
    assert [word for word, found in words.items() if found == {word}] == ["a"]


def test_stamps_are_translated_into_english():
    sample = load("stamps", language="fr", size=16)[0]
    assert sample.translation == sample.english != sample.caption
