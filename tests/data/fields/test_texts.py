"""Texts in batches: as long as the longest, numbered where they repeat, cut into words only where words count."""

from copy import copy
from types import SimpleNamespace

import pytest
import torch
from testing_tools import Listed, refused

from mmlearn.data import Tokenizer, load
from mmlearn.data.fields import Answers, Labels, Tokens
from mmlearn.data.synthetic.questions import ANSWERS, Question
from mmlearn.layers.config import Config
from mmlearn.models.contrastive.clip import CLIPConfig

LETTERS = ["a", "b", "a", "ab", "b", "", "B", "a longer text than all others"]


def texts(*captions, **more):
    return [SimpleNamespace(caption=caption, **more) for caption in captions]


@pytest.fixture(scope="module")
def captions():
    return [scene.caption for scene in load("scenes", size=24).__getitems__(range(100))]


@pytest.fixture(scope="module")
def tokenizer(captions):
    return Tokenizer.train([*captions, *LETTERS], vocab_size=330, max_length=40)


# Tokens.


@pytest.mark.parametrize("options", [{}, {"words": True}, {"maskable": ["red"]}, {"words": True, "maskable": ["red"]}])
@pytest.mark.parametrize("chosen", [slice(0, 7), slice(5, 6), slice(2, 8)])
def test_a_batch_is_as_long_as_its_longest_text_unless_whole(tokenizer, options, chosen):
    samples = texts(*LETTERS[chosen])
    tokens, mask = tokenizer(LETTERS[chosen])
    longest = max(40 - tokenizer.engine.encode(text).tokens.count("<pad>") for text in LETTERS[chosen])
    trimmed, whole = (Tokens(tokenizer, whole=whole, **options)(samples) for whole in (False, True))
    assert torch.equal(whole["tokens"], tokens)
    assert torch.equal(whole["mask"], mask)
    assert longest < 40
    assert trimmed.keys() == whole.keys()
    for name in whole.keys() - {"caption_id"}:
        assert whole[name].shape == (len(samples), 40)
        assert torch.equal(trimmed[name], whole[name][:, :longest])
    assert not mask[:, longest:].any()
    assert trimmed["mask"].any(0).all()
    assert torch.equal(trimmed["caption_id"], whole["caption_id"])


def test_repeated_captions_have_one_number_and_others_another(tokenizer):
    number = Tokens(tokenizer)(texts(*LETTERS))["caption_id"]
    assert number.dtype == torch.int64
    assert (number >= 0).all()
    assert (number[:, None] == number).tolist() == [[one == other for other in LETTERS] for one in LETTERS]
    assert number[0] == 3136151050186550259  # in every process, so that they agree
    assert Tokens(tokenizer)(texts(*map(str, range(1000))))["caption_id"].unique().numel() == 1000
    assert Tokens(tokenizer, repeats=False)(texts("a")).keys() == {"tokens", "mask"}


@pytest.mark.parametrize(("options", "times"), [({}, 0), ({"words": True}, 1), ({"maskable": ["red"]}, 1)])
def test_texts_are_cut_into_words_only_where_words_count(tokenizer, options, times):
    class Counted:
        calls = 0

        def __getattr__(self, name):
            self.calls += name == "encode_batch"
            return getattr(tokenizer.engine, name)

    field = Tokens(copy(tokenizer), **options)
    field.tokenizer.engine = Counted()
    field(texts(*LETTERS))
    assert field.tokenizer.engine.calls == times


def test_tokens_of_a_word_have_its_number(tokenizer, captions):
    """By the tokenizer's own account of where each word's characters are."""
    batch, several = Tokens(tokenizer, words=True)(texts(*captions)), 0
    assert torch.equal(batch["word"] >= 0, batch["tokens"] > 3)  # no special token is of a word
    for row, caption in zip(batch["word"].tolist(), captions):
        numbers = []
        for _, positions in tokenizer.words(caption):
            found = {row[position] for position in positions}
            assert len(found) == 1
            numbers += found
            several += len(positions) > 1
        assert len(set(numbers)) == len(numbers)
    assert several > 100


def test_maskable_words_are_found_in_upper_case_and_beside_punctuation_and_never_within_others(tokenizer):
    samples = texts("RED, a Red ring (red)", "redder tired r ed re d", "no such word")
    batch = Tokens(tokenizer, maskable=["Red"])(samples)
    found = [tokenizer.decode(tokens[maskable]) for tokens, maskable in zip(batch["tokens"], batch["maskable"])]
    assert found == ["red redred", "", ""]  # the bracket has the space before the last
    assert (batch["maskable"] <= batch["mask"]).all()
    assert not Tokens(tokenizer, maskable=[])(samples)["maskable"].any()
    assert "maskable" not in Tokens(tokenizer)(samples)


def test_another_text_of_a_sample_may_be_read(tokenizer):
    samples = texts("a", "b", text="a longer text")
    batch = Tokens(tokenizer, source="text")(samples)
    assert [tokenizer.decode(row) for row in batch["tokens"]] == ["a longer text"] * 2
    assert batch["caption_id"].unique().numel() == 1
    field = Tokens(source="text", vocab_size=262).fitted(Listed(samples), Config(), 0)
    assert field.tokenizer.decode(field(samples)["tokens"][0]) == "a longer text"
    refused("reads story, and these samples have none", Tokens(source="story").check_sample, samples[0], "clip")


class Told(Listed):
    """Captions of a list, whose samples must not be drawn for them."""

    def caption(self, index):
        return self.samples[index]

    def __getitem__(self, index):
        raise AssertionError("a picture was drawn for its caption alone")


@pytest.mark.parametrize("most", [8, 40])
def test_a_vocabulary_is_made_of_the_datas_captions(captions, most):
    """Equal to one trained by hand, at most so large; and no longer than the longest caption."""
    field = Tokens(vocab_size=300, max_length=most).fitted(Told(captions), CLIPConfig.tiny(), 0)
    by_hand = Tokenizer.train(captions, vocab_size=300, max_length=most)
    tokens, mask = by_hand(captions)
    longest = int(mask.sum(1).max())
    assert torch.equal(field(texts(*captions))["tokens"], tokens[:, :longest])
    sizes = {"vocab_size": 300, "max_length": longest, "pad_token": 0, "start_token": 1, "end_token": 2}
    assert field.sizes() == sizes
    batch = field(texts(*captions))
    assert (batch["tokens"] == sizes["end_token"]).sum() == len(captions)
    assert torch.equal(batch["tokens"] != sizes["pad_token"], batch["mask"])


def test_texts_that_cannot_be_read_are_told(tokenizer):
    refused(r"maskable is a collection of words.*got 'red'", Tokens, tokenizer, maskable="red")
    refused("Tokens has no tokenizer yet", Tokens(), texts("a"))


# One of several names.


@pytest.mark.parametrize("known", [False, True])
def test_labels_are_the_number_of_a_caption_among_all(known):
    """Sorted, or in the order in which a data set names its own words."""
    words = ["stop", "go", "yes", "go", "stop", "yes"]
    data = Told(words)
    if known:
        data.words = ("yes", "no", "go", "stop")
    field = Labels().fitted(data, Config(), 0)
    names = ["yes", "no", "go", "stop"] if known else ["go", "stop", "yes"]
    assert field(texts(*words))["label"].tolist() == [names.index(word) for word in words]
    assert field.sizes() == {"num_classes": len(names)}
    refused(rf"^'sit' is none of the {len(names)} names that were learned", field, texts("go", "sit"))


def test_labels_of_another_attribute_are_numbered_for_another_size():
    samples = [SimpleNamespace(order=order) for order in (2, 0, 1, 0, 2)]
    field = Labels(into="outputs", source="order").fitted(Listed(samples), Config(), 0)
    assert field(samples)["label"].tolist() == [2, 0, 1, 0, 2]
    assert field.sizes() == {"outputs": 3}


@pytest.mark.parametrize("words", [["a"] * 6, ["a", "b", "c", "d", "a", "b"]])
def test_captions_of_which_hardly_two_are_equal_are_no_labels(words):
    refused(rf"these are {len(set(words))} different ones of 6: use data", Labels().fitted, Told(words), Config(), 0)


def test_a_rare_name_is_not_missed():
    words = ["often"] * 12_000  # more than are read where each costs a whole sample
    words[4321] = "rare"
    assert Labels().fitted(Told(words), Config(), 0).names == ("often", "rare")


def test_answers_are_counted_in_those_of_the_data():
    scenes = load("scenes", size=24, length=30)
    samples = [scenes[i] for i in range(30)]
    field = Answers().fitted(scenes, Config(), 0)
    assert [ANSWERS[i] for i in field(samples)["answer"].tolist()] == [sample.question.answer for sample in samples]
    assert field.sizes() == {"answers": len(ANSWERS)}
    question = Question("shape", "what shape is it?", "rectangle")  # as of easy-vqa, an answer that scenes lack
    asked = [SimpleNamespace(question=question)] * 3
    refused(r"^'rectangle' is none of the \d+ answers: ", field, asked)
    own = Listed(asked)
    own.labels = ("circle", "rectangle")
    assert Answers().fitted(own, Config(), 0)(asked)["answer"].tolist() == [1, 1, 1]
