"""Dialogues: which tokens answer, and that the language model's positions are its own."""

from types import SimpleNamespace

import pytest
import torch
from testing_tools import Listed, refused

from mmlearn.data.fields import Dialogues, Tokens
from mmlearn.data.tokenizer import Tokenizer
from mmlearn.models import GPT2Config

TEXTS = ["what colour is it? red", "how many are there? twelve of them", "a small ring left of a large star"]


@pytest.fixture
def field():
    return Dialogues(Tokenizer.train(TEXTS, vocab_size=300, max_length=24))


def sample(text, prompt=""):
    return SimpleNamespace(caption=text, prompt=prompt)


def test_what_answers_is_what_follows_the_prompt(field):
    rows = [sample(TEXTS[0], "what colour is it?"), sample(TEXTS[1], "how many are there?"), sample(TEXTS[2])]
    batch = field(rows)
    said = [field.tokenizer.decode(tokens[answers]) for tokens, answers in zip(batch["tokens"], batch["response"])]
    assert said == ["red", "twelve of them", TEXTS[2]]
    for tokens, answers, real in zip(batch["tokens"], batch["response"], batch["mask"]):
        assert tokens[answers][-1] == Tokenizer.end_token
        assert not answers[0]
        assert not answers[~real].any()


def test_a_sample_that_knows_no_prompt_answers_with_all_of_its_text(field):
    batch = field([SimpleNamespace(caption=text) for text in TEXTS])
    expected = batch["mask"].clone()
    expected[:, 0] = False
    assert torch.equal(batch["response"], expected)


def test_a_text_that_is_cut_before_its_response_has_none():
    field = Dialogues(Tokenizer.train(TEXTS, vocab_size=300, max_length=5))
    batch = field([sample(TEXTS[1], "how many are there?")])
    assert batch["tokens"].shape == (1, 5)
    assert batch["response"].sum() <= 1  # the end token, at most


def test_positions_are_those_of_the_language_model(field):
    data = Listed([sample(text) for text in TEXTS])
    fitted = Dialogues().fitted(data, GPT2Config.tiny(), 0)
    assert "max_length" not in fitted.sizes()
    assert fitted.sizes()["vocab_size"] == fitted.tokenizer.vocab_size
    refused("Texts of 24 tokens are more than the 8", field.fitted, data, GPT2Config(max_length=8), 0)


def test_a_vocabulary_that_is_there_stays(field):
    data = Listed([sample("entirely other words")])
    assert field.fitted(data, GPT2Config(), 0) is field
    plain = Tokens(field.tokenizer)
    assert plain.fitted(data, GPT2Config(), 0) is plain
