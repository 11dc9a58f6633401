"""Pretraining batches: labels against the samples, nothing special hidden, and the same bits for the same samples."""

import pickle
from collections import Counter
from copy import copy
from types import SimpleNamespace

import pytest
import torch
from testing_tools import close

from mmlearn.data import Batches, PairCollate, Tokenizer, fetch, load
from mmlearn.data.fusion import FusionCollate
from mmlearn.data.made.questions import ANSWERS, Question
from mmlearn.data.made.regions import SceneDetector
from mmlearn.data.made.scenes import COLOURS, SHAPES, Scenes

ALL = ("mlm", "mrm", "itm", "vqa")


@pytest.fixture(scope="module")
def scenes():
    return Scenes(size=32).__getitems__(range(200))


def train(scenes, **size):
    texts = [text for scene in scenes for text in (scene.caption, scene.question.text)]
    return Tokenizer.train(texts, vocab_size=330, **size)  # so small that words have several tokens


@pytest.fixture(scope="module")
def tokenizer(scenes):
    return train(scenes)


@pytest.fixture(scope="module")
def roomy(scenes):
    return train(scenes, max_length=64)  # so long that no word is cut


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def text_of(batch):
    """The tokens without masks."""
    label = batch.get("token_label", torch.full_like(batch["tokens"], -100))
    return batch["tokens"].where(label == -100, label)


# Each objective.


def test_pictures_are_those_of_pairs(scenes, tokenizer):
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.4, 0.3)
    before = scenes[0].image.clone()
    batch = FusionCollate(tokenizer, ("mlm",), mean=mean, std=std)(scenes)
    pairs = PairCollate(tokenizer, mean=mean, std=std)(scenes)
    assert torch.equal(batch["image"], pairs["image"])
    assert torch.equal(batch["mask"], pairs["mask"])
    assert torch.equal(text_of(batch), pairs["tokens"])
    assert torch.equal(scenes[0].image, before)


@pytest.mark.parametrize("objectives", [("mlm",), ALL])
def test_no_special_token_and_no_padding_is_hidden_or_drawn(scenes, tokenizer, objectives):
    batch = FusionCollate(tokenizer, objectives, detector=SceneDetector(), probability=1.0, together=True)(scenes)
    text = text_of(batch)
    assert torch.equal(batch["token_label"] == -100, text < 4)  # all that can be hidden is
    assert torch.equal(batch["tokens"] < 3, text < 3)
    shares = [(batch["tokens"] == tokenizer.mask_token), (batch["tokens"] == text) & (text > 3)]
    close(torch.stack(shares).sum((1, 2)) / (text > 3).sum(), torch.tensor([0.8, 0.1]), 0.02)


def test_about_so_many_tokens_are_hidden(scenes, tokenizer):
    batch = FusionCollate(tokenizer, ("mlm",), probability=0.4)(scenes)
    hidden = (batch["token_label"] != -100).sum() / (text_of(batch) > 3).sum()
    assert hidden.item() == pytest.approx(0.4, abs=0.03)


@pytest.mark.parametrize(("options", "times"), [({}, 0), ({"whole_words": True}, 1), ({"masked_words": ["red"]}, 1)])
def test_texts_are_cut_into_words_only_where_words_count(scenes, tokenizer, options, times):
    class Counted:
        calls = 0

        def __getattr__(self, name):
            self.calls += name == "encode_batch"
            return getattr(tokenizer.engine, name)

    collate = FusionCollate(copy(tokenizer), ("mlm",), **options)
    collate.tokenizer.engine = Counted()
    collate(scenes[:4])
    assert collate.tokenizer.engine.calls == times


def test_whole_words_are_hidden_as_a_whole(scenes, tokenizer):
    def broken(whole_words):
        batch = FusionCollate(tokenizer, ("mlm",), probability=0.3, whole_words=whole_words)(scenes)
        hidden, torn, several = (batch["token_label"] != -100).tolist(), 0, 0
        for row, scene in zip(hidden, scenes):
            for _, places in tokenizer.words(scene.caption):
                several += len(places) > 1
                torn += len({row[place] for place in places}) > 1
        assert several > 200
        assert 0.2 < batch["token_label"].ne(-100).sum() / (text_of(batch) > 3).sum() < 0.4
        return torn

    assert broken(True) == 0
    assert broken(False) > 50


def word_places(tokenizer, text, chosen):
    """Which places of a text hold one of these words: a space before it is part of a word, as of its token."""
    found = {place for word, places in tokenizer.words(text) if word.lower() in chosen for place in places}
    return found | {place - 1 for place in found if is_space(tokenizer, text, place - 1)}


def is_space(tokenizer, text, place):
    return tokenizer.engine.encode(text).tokens[place] == "Ġ"


def hidden_places(batch):
    return [set(row.nonzero().flatten().tolist()) for row in batch["token_label"] != -100]


@pytest.mark.parametrize("whole_words", [False, True])
@pytest.mark.parametrize("chosen", [COLOURS, set(SHAPES), ["the", "a", "circle"]])
def test_only_the_named_words_are_hidden(scenes, roomy, chosen, whole_words):
    def hidden(probability):
        arguments = dict(probability=probability, whole_words=whole_words, masked_words=chosen)
        batch = FusionCollate(roomy, ("mlm",), **arguments)(scenes)
        assert torch.equal(text_of(batch), roomy([scene.caption for scene in scenes])[0])
        return hidden_places(batch)

    expected = [word_places(roomy, scene.caption, chosen) for scene in scenes]
    assert sum(len(places) for places in expected) > 300
    assert hidden(1.0) == expected
    some = hidden(0.4)
    assert all(got and got <= places for got, places in zip(some, expected))  # at least one of each row
    assert 0.4 < sum(map(len, some)) / sum(map(len, expected)) < 0.85


def texts_of(*captions):
    return [SimpleNamespace(image=torch.zeros(3, 24, 24), caption=caption) for caption in captions]


def test_named_words_of_several_tokens_are_hidden_as_a_whole(scenes, tokenizer):
    several = [word for word in COLOURS if len(tokenizer.words(f"a {word}")[1][1]) > 1]
    samples = texts_of(*(f"a {word} {word} thing, {word}" for word in several))
    assert len(several) > 3
    collate = FusionCollate(tokenizer, ("mlm",), probability=0.5, whole_words=True, masked_words=COLOURS)
    counts = Counter()
    for _ in range(30):
        for got, sample in zip(hidden_places(collate(samples)), samples, strict=True):
            for word, places in tokenizer.words(sample.caption):
                share = len(got & set(places)) / len(places)
                assert share in ({0, 1} if word in several else {0}), word
                counts[word in several, share] += 1
        samples = samples[1:] + samples[:1]  # other texts, and so other masks
    assert min(counts.values()) > 20


def test_named_words_are_found_in_upper_case_and_beside_punctuation_and_never_within_others(tokenizer):
    samples = texts_of("RED, a Red ring (red)", "redder tired r ed re d")
    batch = FusionCollate(tokenizer, ("mlm",), probability=1.0, masked_words=["red"])(samples)
    hidden = [place for start in (0, 7, 17) for place in tokenizer.positions(samples[0].caption, start, start + 3)]
    spaces = [place - 1 for place in hidden if is_space(tokenizer, samples[0].caption, place - 1)]
    assert hidden_places(batch) == [{*hidden, *spaces}, set()]
    labels = [label for label in batch["token_label"][0].tolist() if label >= 0]
    assert tokenizer.decode(labels) == "red redred"  # the bracket has the space before the last


@pytest.mark.parametrize("absent", [["zebra"], []])
def test_a_word_of_no_caption_hides_nothing(scenes, tokenizer, absent):
    batch = FusionCollate(tokenizer, ("mlm",), probability=1.0, masked_words=absent)(scenes)
    assert (batch["token_label"] == -100).all()
    assert torch.equal(batch["tokens"], tokenizer([scene.caption for scene in scenes])[0])


def test_hidden_regions_are_zero_and_the_target_is_what_they_were(scenes, tokenizer):
    detector = SceneDetector(0.2)
    batch = FusionCollate(tokenizer, ("mrm",), detector=detector, region_probability=0.3)(scenes)
    found = detector(scenes)
    masked = batch["masked_regions"]
    assert torch.equal(batch["region_target"], found["regions"])
    assert (batch["regions"][masked] == 0).all()
    assert torch.equal(batch["regions"][~masked], found["regions"][~masked])
    assert (masked <= batch["region_mask"]).all()
    assert masked.any(1).all()
    assert (masked.sum() / batch["region_mask"].sum()).item() == pytest.approx(0.3, abs=0.04)
    for name in ("boxes", "region_mask", "region_classes"):
        assert torch.equal(batch[name], found[name])
    assert "token_label" not in batch


@pytest.mark.parametrize(("words", "regions"), [(0.2, 0.6), (0.7, 0.3), (0.4, 1.0)])
def test_words_and_regions_have_a_share_each(scenes, tokenizer, words, regions):
    arguments = dict(probability=words, region_probability=regions, together=True)
    batch = FusionCollate(tokenizer, ("mlm", "mrm"), detector=SceneDetector(), **arguments)(scenes)
    hidden = (batch["token_label"] != -100).sum() / (text_of(batch) > 3).sum()
    assert hidden.item() == pytest.approx(words, abs=0.03)
    assert (batch["masked_regions"].sum() / batch["region_mask"].sum()).item() == pytest.approx(regions, abs=0.04)


@pytest.mark.parametrize("count", [2, 7, 200])
def test_half_the_rows_have_another_caption(scenes, tokenizer, count):
    batch = FusionCollate(tokenizer, ("itm",))(scenes[:count])
    own = tokenizer([scene.caption for scene in scenes[:count]])[0]
    assert torch.equal((batch["tokens"] == own).all(1), batch["match_label"] == 1)
    assert (batch["match_label"] == 0).sum() == count // 2
    captions = {tuple(row) for row in own.tolist()}
    assert all(tuple(row) in captions for row in batch["tokens"].tolist())
    assert torch.equal(batch["mask"], batch["tokens"] != 0)


def test_an_equal_caption_is_no_wrong_one(tokenizer):
    image = torch.zeros(3, 24, 24)
    samples = [SimpleNamespace(image=image, caption=caption) for caption in ["a red ring"] * 15 + ["a blue bar"]]
    for seed in range(20):
        batch = FusionCollate(tokenizer, ("itm",), seed=seed)(samples)
        own = tokenizer([sample.caption for sample in samples])[0]
        assert torch.equal((batch["tokens"] == own).all(1), batch["match_label"] == 1)


def test_questions_have_their_answers(scenes, tokenizer):
    batch = FusionCollate(tokenizer, ("vqa",))(scenes)
    assert torch.equal(batch["tokens"], tokenizer([scene.question.text for scene in scenes])[0])
    assert [ANSWERS[i] for i in batch["answer"].tolist()] == [scene.question.answer for scene in scenes]
    assert batch.keys() == {"image", "tokens", "mask", "answer"}


def test_caption_numbers_are_those_of_pairs(scenes, tokenizer):
    batch = FusionCollate(tokenizer, ("itc",))(scenes)
    assert torch.equal(batch["caption_id"], PairCollate(tokenizer, mark_repeats=True)(scenes)["caption_id"])


# One objective a batch, or all together.

LABELS = {"mlm": "token_label", "mrm": "masked_regions", "itm": "match_label", "vqa": "answer", "itc": "caption_id"}


def served(batch):
    return tuple(name for name, label in LABELS.items() if label in batch)


def test_a_batch_serves_one_objective_each_as_often(scenes, tokenizer):
    collate = FusionCollate(tokenizer, tuple(LABELS), detector=SceneDetector())
    counts = Counter(served(collate(scenes[i : i + 2])) for i in range(198))
    assert set(counts) == {(name,) for name in LABELS}
    assert min(counts.values()) > 24
    assert max(counts.values()) < 57


def test_or_all_of_them_with_questions_in_every_other_batch(scenes, tokenizer):
    collate = FusionCollate(tokenizer, ALL, detector=SceneDetector(), together=True)
    counts = Counter(served(collate(scenes[i : i + 2])) for i in range(198))
    assert set(counts) == {("mlm", "mrm", "itm"), ("mlm", "mrm", "vqa")}
    assert 75 < counts["mlm", "mrm", "itm"] < 123
    collate = FusionCollate(tokenizer, ("mlm", "itc"), together=True)
    assert {served(collate(scenes[i : i + 2])) for i in range(10)} == {("mlm", "itc")}
    assert served(FusionCollate(tokenizer, ("vqa",), together=True)(scenes)) == ("vqa",)


def test_together_texts_are_swapped_and_then_masked(scenes, tokenizer):
    collate = FusionCollate(tokenizer, ("mlm", "mrm", "itm"), detector=SceneDetector(), together=True)
    batch = collate(scenes)
    own = tokenizer([scene.caption for scene in scenes])[0]
    assert torch.equal((text_of(batch) == own).all(1), batch["match_label"] == 1)
    assert (batch["token_label"] != -100).any(1).all()
    assert torch.equal(batch["mask"], text_of(batch) != 0)


# Wrong captions for good.


def test_the_stated_share_of_captions_is_wrong_for_good(scenes, tokenizer):
    collate = FusionCollate(tokenizer, ("itc",), wrong_captions=0.3)
    wrong = collate.is_wrong(scenes)
    captions = collate.captions(scenes)
    assert wrong.float().mean().item() == pytest.approx(0.3, abs=0.07)
    assert [caption != scene.caption for caption, scene in zip(captions, scenes)] == wrong.tolist()
    order = torch.randperm(200, generator=torch.Generator().manual_seed(0)).tolist()
    assert collate.captions([scenes[i] for i in order]) == [captions[i] for i in order]
    alone = [collate.captions([Scenes(size=24)[i]])[0] for i in range(30)]  # drawn anew
    assert alone == captions[:30]
    other_seed = FusionCollate(tokenizer, ("itc",), wrong_captions=0.3, seed=1)
    assert not torch.equal(other_seed.is_wrong(scenes), wrong)


def test_wrong_captions_are_captions_like_others_and_all_different(scenes, tokenizer):
    captions = FusionCollate(tokenizer, wrong_captions=1.0).captions(scenes)
    assert len(set(captions)) == 200
    words = {word for scene in Scenes(size=24).__getitems__(range(1000)) for word in scene.caption.split()}
    assert {word for caption in captions for word in caption.split()} <= words
    more = FusionCollate(tokenizer, wrong_captions=0.6)
    few = FusionCollate(tokenizer, wrong_captions=0.2)
    assert (few.is_wrong(scenes) <= more.is_wrong(scenes)).all()


def test_batches_hold_the_wrong_captions(scenes, tokenizer):
    collate = FusionCollate(tokenizer, ("mlm", "itm"), wrong_captions=0.5, together=True)
    batch = collate(scenes)
    told = tokenizer(collate.captions(scenes))[0]
    assert torch.equal((text_of(batch) == told).all(1), batch["match_label"] == 1)  # a wrong caption is not marked


def test_without_noise_captions_stay_and_no_scene_is_needed(scenes, tokenizer):
    collate = FusionCollate(tokenizer, ("itm", "itc"))
    assert collate.captions(scenes) == [scene.caption for scene in scenes]
    assert not collate.is_wrong(scenes).any()
    emoji = fetch(load("emoji", size=24), range(8))
    assert collate(emoji)["image"].shape == (8, 3, 24, 24)


# The same bits for the same samples.


@pytest.mark.parametrize("together", [False, True])
def test_a_batch_is_a_function_of_the_samples_and_the_seed(scenes, tokenizer, together):
    arguments = dict(detector=SceneDetector(0.2), together=together, wrong_captions=0.2, whole_words=True)
    collate = FusionCollate(tokenizer, ALL, **arguments)
    for first in range(0, 200, 20):
        samples = scenes[first : first + 20]
        batch = collate(samples)
        torch.manual_seed(first)
        assert same(batch, pickle.loads(pickle.dumps(collate))(samples))
    one, other = (FusionCollate(tokenizer, ("mlm",), seed=seed)(scenes) for seed in (0, 1))
    assert not torch.equal(one["token_label"], other["token_label"])


def test_batches_go_on_where_they_stopped_and_differ_each_step(tokenizer):
    def batches():
        collate = FusionCollate(tokenizer, ("mlm", "mrm"), detector=SceneDetector(), together=True)
        return Batches(load("scenes", size=24, length=40), collate, 20)

    first, again = batches(), batches()
    assert all(same(first[step], again[step]) for step in (0, 5, 1))
    assert not torch.equal(first[0]["token_label"], first[2]["token_label"])  # the next epoch


# Errors.


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"objectives": ()}, "at least one of mlm, mrm, itm, vqa, itc"),
        ({"objectives": "mlm"}, "are a list with at least one"),
        ({"objectives": ("mlm", "wra")}, "no objective 'wra'.*choose from mlm"),
        ({"objectives": ("mrm",)}, "pass a detector"),
        ({"objectives": ("itm", "itc"), "together": True}, "cannot share a batch: leave itm out"),
        ({"probability": 1.5}, "^probability is a share from 0 to 1, got 1.5"),
        ({"region_probability": 1.5}, "^region_probability is a share from 0 to 1, got 1.5"),
        ({"region_probability": -0.1}, "^region_probability is a share from 0 to 1, got -0.1"),
        ({"region_probability": float("nan")}, "^region_probability is a share from 0 to 1, got nan"),
        ({"wrong_captions": -0.1}, "wrong_captions is a share from 0 to 1, got -0.1"),
    ],
)
def test_what_cannot_be_is_said(tokenizer, unchecked, arguments, said):
    with pytest.raises(ValueError, match=said):
        FusionCollate(tokenizer, **arguments)


def test_samples_that_do_not_serve_are_named(scenes, tokenizer, unchecked):
    with pytest.raises(ValueError, match="at least one"):
        FusionCollate(tokenizer)([])
    with pytest.raises(ValueError, match="at least two different captions"):
        FusionCollate(tokenizer, ("itm",))(scenes[:1])
    emoji = fetch(load("emoji", size=24), range(3))
    says = r"^vqa learns from questions with answers, as scenes and easy-vqa have; got EmojiSample\.$"
    with pytest.raises(ValueError, match=says):
        FusionCollate(tokenizer, ("vqa",))(emoji)
    question = Question("shape", "what shape is it?", "rectangle")  # as of easy-vqa, an answer that scenes lack
    asked = [SimpleNamespace(image=scene.image, caption=scene.caption, question=question) for scene in scenes[:3]]
    with pytest.raises(ValueError, match=r"^'rectangle' is none of the \d+ answers: "):
        FusionCollate(tokenizer, ("vqa",))(asked)
    batch = FusionCollate(tokenizer, ("vqa",), answers=("circle", "rectangle"))(asked)
    assert batch["answer"].tolist() == [1, 1, 1]
    with pytest.raises(ValueError, match="Only scenes"):
        FusionCollate(tokenizer, ("itc",), wrong_captions=0.5)(emoji)
