"""Sentences of the farm, read by an expression of their own."""

import random
import re

import pytest
import torch

from mmlearn.data.synthetic import farm
from mmlearn.data.synthetic.farm import (
    DONE_TO,
    ENDS,
    LOOKS,
    SOUNDS,
    TELLING,
    WHO,
    FarmTokens,
    farm_sentence,
    is_farm_sentence,
)


def pattern(alive):
    """The grammar as a regular expression; what sound belongs to which noun is checked apart."""
    verb, end, noun = ("|".join(words) for words in (DONE_TO[alive], ENDS[alive], farm.nouns_for(alive)))
    thing = f"the (?:(?:{'|'.join(LOOKS)}) )?(?:{noun})"
    sound = "|".join(f"{name} {sound}" for name, sound in SOUNDS.items()) if alive else "(?!)"
    heard = f"the (?:(?:{'|'.join(LOOKS)}) )?(?:{sound})"
    clause = f"(?:(?:{'|'.join(WHO)}) (?:{verb}) {thing}|{thing} was (?:{verb})|{heard})"
    return re.compile(rf"{clause} until it was (?:{end}) \.")


def test_every_sentence_is_of_the_grammar_and_says_where_its_noun_is():
    draw, forms = random.Random(0), set()
    for _ in range(500):
        words, alive, noun = farm_sentence(draw)
        assert pattern(alive).fullmatch(" ".join(words))
        assert is_farm_sentence(words)
        assert words[noun] in farm.nouns_for(alive)
        assert set(words) <= set(farm.WORDS)
        forms.add((words[0] in WHO, words[noun + 1] == "was", alive))
    assert len(forms) == 5  # food makes no sound


def test_what_is_asked_for_is_kept():
    draw, telling = random.Random(1), {"fed", "fried", "tired", "hot"}
    for alive in (True, False):
        sentences = [farm_sentence(draw, alive=alive, nouns=["duck"], telling=telling, sounds=False) for _ in range(50)]
        assert {one.alive for one in sentences} == {alive}
        assert all(TELLING & set(one.words) <= telling and one.words[one.noun] == "duck" for one in sentences)
    for first in (True, False):
        made = [farm_sentence(draw, verb_first=first) for _ in range(50)]
        assert {(TELLING & set(one.words[: one.noun])) != set() for one in made} == {first}
    with pytest.raises(ValueError, match="telling needs a verb and a last word"):
        farm_sentence(draw, alive=True, telling={"fed", "hot"})


def test_only_nouns_for_both_kinds_leave_it_open():
    assert set(farm.nouns_for(True)) & set(farm.nouns_for(False)) == set(farm.BOTH)
    assert not set(farm.ANIMALS) & set(farm.FOODS)
    assert len(set(farm.WORDS)) == len(farm.WORDS)


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("they chased the duck until it was tired .", True),
        ("the small duck quacked until it was tired .", True),
        ("they chased the duck until it was crispy .", False),  # the kinds differ
        ("they chased the bread until it was tired .", False),
        ("the duck barked until it was tired .", False),
        ("they chased the tired duck until it was tired .", False),
        ("they chased the duck until it was tired", False),
        ("the duck was until it was tired .", False),
        ("until it was tired .", False),
        ("", False),
    ],
)
def test_whether_a_text_is_a_sentence(text, right):
    assert is_farm_sentence(text.split()) == right
    assert right == any(pattern(alive).fullmatch(text) is not None for alive in (True, False))


def test_halves_have_half_of_every_list_and_no_word_in_common():
    first, second = farm.telling_halves(random.Random(2))
    assert first | second == TELLING
    assert not first & second
    for words in (*DONE_TO.values(), *ENDS.values()):
        assert len(first & set(words)) == len(second & set(words)) == len(words) // 2
    assert farm.telling_halves(random.Random(3))[0] != first


def test_tokens_are_read_and_written_again():
    tokens = FarmTokens()
    batch, mask = tokens(["the ⟨0⟩ quacked .", ["they", "<mask>", "the", "duck", "⟨1⟩"]])
    assert batch.shape == mask.shape == (2, 7)
    assert mask.sum(1).tolist() == [6, 7]
    assert batch[0, [0, 2, 5, 6]].tolist() == [1, len(tokens) - 1, 2, 0]  # start, the first sentinel, end, pad
    assert tokens.first_sentinel - batch[1, 5].item() == 1  # sentinels count down
    assert tokens.words(batch[1])[:3] == ["<start>", "they", "<mask>"]
    assert tokens.sentence(batch[1]) == ["they", "the", "duck", "⟨1⟩"]
    assert torch.equal(tokens.prompt("the ⟨0⟩ quacked ."), batch[0, 1:5])
    with pytest.raises(KeyError, match="cow"):
        tokens.prompt("the cow")
