"""A word that only the picture can tell is hidden: by a model that knows it, and by one that says the same always."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from mmlearn.data import fetch, load
from mmlearn.data.fields import Image, Segments, Tokens
from mmlearn.data.tokenizer import Tokenizer
from mmlearn.evaluation.hidden_words import grounded_word_accuracy


class Knows(torch.nn.Module):
    """It finds each picture's caption by the picture's mean."""

    def __init__(self, means, tokens, always=None):
        super().__init__()
        self.means, self.tokens, self.always = means, tokens, always

    def forward(self, image, tokens, mask):
        nearest = torch.cdist(image.flatten(1), self.means).argmin(1)
        true = self.tokens[nearest][:, : tokens.shape[1]]
        said = true if self.always is None else torch.full_like(true, self.always)
        return SimpleNamespace(token_logits=F.one_hot(said, 400).float())


def run_of(samples, field, always=None):
    image = Image()(samples)["image"]
    tokens, _ = field.tokenizer([sample.caption for sample in samples])
    system = Knows(image.flatten(1), tokens, always)

    def read(batch, what):
        return what(system(batch["image"], batch["tokens"], batch["mask"]), batch)

    return SimpleNamespace(
        system=system,
        tokenizer=field.tokenizer,
        field=lambda entry: field,
        plain=lambda chosen: Image()(chosen) | field(chosen),
        read=read,
    )


@pytest.mark.parametrize("name", ["collages", "scenes"])
def test_who_knows_the_picture_knows_the_word(name):
    samples = load(name, "test", size=64).__getitems__(range(30))
    field = Tokens(Tokenizer.train([sample.caption for sample in samples], vocab_size=400))
    rows = grounded_word_accuracy(run_of(samples, field), samples)
    assert rows["hidden grounded word"]["obtained"] == 1
    assert rows["hidden grounded word, another picture"]["obtained"] < 0.3
    assert 0 < rows["hidden grounded word"]["chance"] < 0.3


def test_who_says_one_word_always_is_at_most_at_chance():
    samples = load("scenes", "test", size=32).__getitems__(range(40))
    field = Tokens(Tokenizer.train([sample.caption for sample in samples], vocab_size=400))
    (red,) = field.tokenizer.prompt("red").tolist()
    rows = grounded_word_accuracy(run_of(samples, field, red), samples)
    assert 0 < rows["hidden grounded word"]["obtained"] <= rows["hidden grounded word"]["chance"]


def test_nothing_where_no_word_is_grounded():
    samples = fetch(load("emoji", size=16), range(4))
    field = Tokens(Tokenizer.train([sample.caption for sample in samples], vocab_size=400))
    assert grounded_word_accuracy(run_of(samples, field), samples) == {}
    assert grounded_word_accuracy(SimpleNamespace(field=lambda entry: Segments(field.tokenizer)), samples) == {}
