"""Conversations about collages: notes hold all names, answers are true, and which tokens answer."""

import numpy as np
import pytest
import torch

from mmlearn.data import Tokenizer, load
from mmlearn.data.synthetic import collage_talk as talk


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_notes_hold_every_name_and_give_their_order(rng):
    for _ in range(50):
        names = talk.imagine(rng)
        text, order = talk.notes(names, rng)
        assert 4 <= len(names) <= 8
        assert len(text.split()) <= talk.LONGEST
        assert sorted(order) == sorted(names)
        assert [text.index(name) for name in order] == sorted(text.index(name) for name in order)


def test_answers_are_true_and_each_noun_is_asked_about_once(rng):
    for _ in range(50):
        names = talk.imagine(rng)
        asked = talk.questions(names, rng)
        nouns = [question.rstrip("?").split()[-1] for question, _ in asked]
        assert len(asked) == len(set(nouns)) == 5
        for (question, answer), noun in zip(asked, nouns):
            if question.startswith("what colour"):
                assert f"{answer.rstrip('.')} {noun}" in names
            else:
                assert (answer == "yes.") == (noun in [name.split()[-1] for name in names])


def test_a_colour_is_asked_where_one_thing_is_dyed():
    assert talk.colour_asked(["cat", "red car", "owl"]) == [("what colour is the car?", "red.")]
    assert talk.colour_asked(["cat", "owl"]) == talk.colour_asked(["red car", "blue shirt"]) == []


def test_only_tokens_of_answers_are_marked():
    tokenizer = Tokenizer.train(["what is there? a cat. red"] * 5, vocab_size=300, max_length=32)
    conversations = [[("what is there?", "a cat."), ("a cat?", "red.")], [("what is there?", "")]]
    tokens, is_answer = talk.encode(tokenizer, [[3] * 4, []], conversations)
    assert tokens[0, :5].tolist() == [tokenizer.start_token, 3, 3, 3, 3]
    assert tokenizer.decode(tokens[0][is_answer[0]]) == "a cat. red."
    assert not is_answer[1].any()
    assert (tokens[1] == tokenizer.pad_token).sum() == tokens.shape[1] - 1 - len(tokenizer.prompt("what is there?"))


def test_boxes_are_those_of_the_thing_that_is_asked_about():
    samples = load("collages", "test", nouns=talk.PICTURED).__getitems__(range(24))
    samples = [sample for sample in samples if talk.colour_asked(talk.names_in_order(sample.things))]
    turns = [talk.colour_asked(talk.names_in_order(sample.things))[0] for sample in samples]
    boxes = talk.boxes_asked(samples, turns)
    assert all(boxes)
    for sample, (box, *_), (question, _) in zip(samples, boxes, turns):
        number = sample.names.index(question.rstrip("?").split()[-1])
        torch.testing.assert_close(torch.tensor(box), sample.boxes[number] / sample.size)
