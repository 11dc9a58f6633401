"""Captions in two languages: numbered where words translate each other, exchanged whole, and hidden in both."""

from types import SimpleNamespace

import pytest
import torch
from testing_tools import Listed, refused, seeded

from mmlearn.data import load
from mmlearn.data.fields import Tokens
from mmlearn.data.fields.translations import EitherLanguage, MaskedTranslations, Translations
from mmlearn.data.synthetic.regions import CLASSES
from mmlearn.layers.config import Config


@pytest.fixture(scope="module")
def scenes():
    return load("scenes", size=24, length=60).__getitems__(range(60))


@pytest.fixture(scope="module")
def field(scenes):
    return Translations(vocab_size=800, class_names=CLASSES).fitted(Listed(scenes), Config(), 0)


def test_the_vocabulary_is_of_both_languages(scenes, field):
    spoken = field.tokenizer.decode(field.tokenizer(["erauqs der"])[0][0])
    assert spoken == "erauqs der"
    assert len(field.tokenizer.prompt("star rats")) < 5  # not letter by letter
    assert field.tokenizer.max_length == max(int(m.sum()) for m in (field(scenes)["mask"]))


def test_texts_are_as_they_are_said(scenes, field):
    batch = field(scenes)
    plain = Tokens(field.tokenizer)(scenes)
    for name in ("tokens", "mask", "caption_id"):
        assert torch.equal(batch[name], plain[name])
    assert batch["translation_mask"].any(0).all()
    for row, sample in enumerate(scenes):
        real = batch["translation"][row][batch["translation_mask"][row]]
        assert field.tokenizer.decode(real) == sample.translation


def test_a_word_and_its_translation_have_one_number(scenes, field):
    batch = field(scenes[:9])
    for row, sample in enumerate(scenes[:9]):
        for number, word in enumerate(sample.caption.split()):
            here = batch["tokens"][row][batch["word_pair"][row] == number]
            there = batch["translation"][row][batch["translation_pair"][row] == number]
            assert field.tokenizer.decode(here) == word
            assert field.tokenizer.decode(there) == word[::-1]
    for pair, mask in (("word_pair", "mask"), ("translation_pair", "translation_mask")):
        assert (batch[pair][~batch[mask]] == -1).all()
        assert (batch[pair][:, 0] == -1).all()
    without = [SimpleNamespace(caption=one.caption, translation=one.translation) for one in scenes[:3]]
    assert field(without).keys() == batch.keys() - {"word_pair", "translation_pair"}


def test_classes_are_named_by_their_last_token(field):
    names = field.sizes()["class_tokens"]
    assert len(names) == len(CLASSES)
    assert all(field.tokenizer.decode([token]) in name for token, name in zip(names, CLASSES))
    assert len(set(names)) == 12  # the shapes


def test_half_of_the_rows_speak_the_other_language(scenes, field):
    batch = field(scenes[:11])
    changed = EitherLanguage()(batch, seeded(), field.sizes().__getitem__)
    assert changed.keys() == batch.keys()
    swapped = []
    for row, sample in enumerate(scenes[:11]):
        said = field.tokenizer.decode(changed["tokens"][row][changed["mask"][row]])
        other = field.tokenizer.decode(changed["translation"][row][changed["translation_mask"][row]])
        swapped.append(said == sample.translation)
        assert {said, other} == {sample.caption, sample.translation}
        for tokens, pair in (("tokens", "word_pair"), ("translation", "translation_pair")):
            first = field.tokenizer.decode(changed[tokens][row][changed[pair][row] == 0])
            assert first in (sample.caption.split()[0], sample.caption.split()[0][::-1])
    assert sum(swapped) == 5
    again = EitherLanguage()(batch, seeded(), field.sizes().__getitem__)
    assert torch.equal(again["tokens"], changed["tokens"])


@pytest.mark.parametrize("together", [False, True])
def test_hidden_words_can_be_put_back(scenes, field, together):
    batch = field(scenes)
    hidden = MaskedTranslations(together)(batch, seeded(), field.sizes().__getitem__)
    for tokens, label in (("tokens", "token_label"), ("translation", "translation_label")):
        asked = hidden[label] != -100
        assert torch.equal(torch.where(asked, hidden[label], hidden[tokens]), batch[tokens])
    pairs = [
        {
            (row, number)
            for row, number in zip(*torch.where(hidden[label] != -100)[:1], batch[pair][hidden[label] != -100])
        }
        for label, pair in (("token_label", "word_pair"), ("translation_label", "translation_pair"))
    ]
    numbers = [{(int(row), int(number)) for row, number in each} for each in pairs]
    assert (numbers[0] == numbers[1]) == together


def test_what_cannot_be_read_is_told():
    lone = SimpleNamespace(caption="a text")
    refused(
        "infoxlm reads captions in two languages, .* no translation: use --data",
        Translations().check_sample,
        lone,
        "infoxlm",
    )
