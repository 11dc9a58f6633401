"""Collation: fields, then labels, then what is varied; and all of it a function of the samples, a seed and a step."""

import pickle
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from testing_tools import Listed, close, refused

from mmlearn.data import Batches, Collate, RoundRobin, TaskSampler, Tokenizer, load
from mmlearn.data.fields import (
    Answers,
    Image,
    LogMel,
    MaskedRegions,
    MaskedTokens,
    MatchLabel,
    Regions,
    Tokens,
    Waveform,
)
from mmlearn.data.synthetic.questions import ANSWERS
from mmlearn.data.synthetic.regions import SceneDetector
from mmlearn.data.synthetic.scenes import Scenes
from mmlearn.recipes import VQA


@pytest.fixture(scope="module")
def scenes():
    return Scenes(size=32).__getitems__(range(200))


@pytest.fixture(scope="module")
def tokenizer(scenes):
    texts = [text for scene in scenes for text in (scene.caption, scene.question.text)]
    return Tokenizer.train(texts, vocab_size=330)  # so small that words have several tokens


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# One batch.


def test_a_batch_holds_what_its_fields_make_and_its_labels_add(scenes, tokenizer):
    fields = (Image(), Tokens(tokenizer), Regions())
    plain = {name: value for field in fields for name, value in field(scenes).items()}
    assert same(Collate(fields)(scenes), plain)
    batch = Collate(fields, (MatchLabel(), MaskedTokens(), MaskedRegions()))(scenes)
    assert batch.keys() == plain.keys() | {"match_label", "token_label", "masked_regions", "region_target"}
    # Texts are exchanged first and masked then.
    text = batch["tokens"].where(batch["token_label"] == -100, batch["token_label"])
    assert torch.equal((text == plain["tokens"]).all(1), batch["match_label"] == 1)
    assert (batch["token_label"] != -100).any(1).all()
    assert torch.equal(batch["region_target"], plain["regions"])
    for name in ("image", "boxes", "region_mask", "region_classes"):
        assert torch.equal(batch[name], plain[name])


def test_questions_stand_where_captions_do_and_have_their_answers(scenes, tokenizer):
    collate = Collate((Image(), Tokens(tokenizer), Answers(ANSWERS)), (MaskedTokens(),), ask=VQA.ask)
    batch = collate(scenes)
    text = batch["tokens"].where(batch["token_label"] == -100, batch["token_label"])
    questions = tokenizer([scene.question.text for scene in scenes])[0]
    assert torch.equal(text, questions[:, : text.shape[1]])
    assert [ANSWERS[i] for i in batch["answer"].tolist()] == [scene.question.answer for scene in scenes]
    asked = pickle.loads(pickle.dumps(VQA.ask(scenes[0])))
    assert (asked.caption, asked.layout.count[0]) == (scenes[0].question.text, scenes[0].layout.count[0])


@pytest.mark.parametrize(
    "labels", [(MaskedTokens(0.4),), (MatchLabel(),), (MaskedRegions(0.4),), (MatchLabel(), MaskedTokens())], ids=repr
)
def test_a_batch_is_a_function_of_the_samples_and_the_seed(scenes, tokenizer, labels):
    fields = (Tokens(tokenizer, words=True), Regions(SceneDetector(0.2)))
    collate = Collate(fields, labels)
    for first in range(0, 200, 40):
        samples = scenes[first : first + 40]
        batch = collate(samples)
        torch.manual_seed(first)
        assert same(batch, pickle.loads(pickle.dumps(collate))(samples))
    other = Collate(fields, labels, seed=1)(samples)
    backwards = {name: value.flip(0) for name, value in collate(samples[::-1]).items()}
    assert not same(batch, other)
    assert not same(batch, backwards)


@pytest.mark.parametrize("changed", ["caption", "source"])
def test_draws_depend_on_captions_and_sources(changed):
    """Words that are said often differ by their files; and one picture's captions by their words."""
    fields, base = (Image(),), {"caption": "go", "source": "1.wav", "image": torch.rand(3, 8, 8)}
    collate = Collate(fields, augment=True)
    one, again = (collate([SimpleNamespace(**base)]) for _ in range(2))
    other = collate([SimpleNamespace(**base | {changed: "another"})])
    assert same(one, again)
    assert not torch.equal(one["image"], other["image"])
    without = [SimpleNamespace(image=base["image"])]
    assert same(collate(without), collate(without))


def test_batches_go_on_where_they_stopped_and_differ_each_epoch(tokenizer):
    def batches():
        collate = Collate((Tokens(tokenizer), Regions()), (MaskedTokens(), MaskedRegions()))
        return Batches(load("scenes", size=24, length=40), collate, 20)

    first, again = batches(), batches()
    assert all(same(first[step], again[step]) for step in (0, 5, 1))
    assert not torch.equal(first[0]["token_label"], first[2]["token_label"])


# Varied.


@pytest.mark.parametrize("kind", ["image", "mel"])
def test_what_is_varied_is_a_function_of_the_samples(tokenizer, kind):
    """The same batch is changed in the same way, as a resumed run needs it; another batch in another way."""
    field = Image() if kind == "image" else LogMel(mels=20)
    data = load("scenes-sound", size=24)
    one, two = data.__getitems__([1, 2, 3]), data.__getitems__([2, 1, 3])
    plain, collate = Collate((field, Tokens(tokenizer))), Collate((field, Tokens(tokenizer)), augment=True)
    assert same(collate(one), collate(one))
    assert not torch.allclose(collate(one)[kind][2], collate(two)[kind][2], atol=1e-2)
    assert not torch.allclose(collate(one)[kind], plain(one)[kind], atol=1e-2)
    for name in plain(one).keys() - {kind}:
        assert torch.equal(collate(one)[name], plain(one)[name])


@pytest.mark.parametrize("field", [Regions(), Waveform(), LogMel(fixed="log-mels are rebuilt here")], ids=repr)
def test_what_must_stay_as_it_is_cannot_be_varied(field):
    with pytest.raises(ValueError, match=rf"^Nothing can be augmented here, because {field.fixed}: leave augment out"):
        Collate((Image(), field), augment=True)
    Collate((Image(), field))


def test_no_sample_is_no_batch(tokenizer):
    refused(r"^A batch holds at least one sample; got none\.$", Collate((Tokens(tokenizer),)), [])


# One of several collations a step.


def noted(name):
    return lambda samples: {name: torch.tensor(samples)}


@pytest.mark.parametrize("shares", [None, (0.2, 0.5, 0.3), (1, 0, 1)])
def test_steps_serve_each_collation_as_often_as_its_share_says(shares):
    collate = TaskSampler([noted("a"), noted("b"), noted("c")], shares)
    counts = Counter(next(iter(collate.at(step)([0]))) for step in range(3000))
    for name, share in zip("abc", shares or (1, 1, 1)):
        share = share / sum(shares or (1, 1, 1))
        assert abs(counts[name] - 3000 * share) <= 4 * (3000 * share * (1 - share)) ** 0.5


def test_which_one_is_a_function_of_seed_and_step():
    """So that all processes serve the same objective, and a resumed run goes on."""

    def served(seed):
        collate = pickle.loads(pickle.dumps(TaskSampler([dict, list, set], seed=seed)))
        return [collate.at(step) for step in range(40)]

    assert served(0) == served(0) != served(1)
    batches = [
        Batches(Listed(range(40)), TaskSampler([noted("a"), noted("b")]), 4, rank=rank, world=2) for rank in (0, 1)
    ]
    parts = [[next(iter(one[step])) for step in range(30)] for one in batches]
    assert parts[0] == parts[1]
    assert set(parts[0]) == {"a", "b"}


def test_a_collation_may_have_a_data_set_of_its_own():
    collate = TaskSampler([noted("main"), noted("other")], sources=(None, "other"))
    data = {None: Listed(range(12)), "other": Listed(range(100, 108))}
    batches, seen = Batches(data, collate, 4), {"main": set(), "other": set()}
    for step in range(200):
        (name, numbers), *_ = batches[step].items()
        assert batches.source(step) is data[None if name == "main" else "other"]
        assert len(set(numbers.tolist())) == 4
        seen[name] |= set(numbers.tolist())
    assert seen == {"main": set(range(12)), "other": set(range(100, 108))}
    assert collate([3]) == collate.at(0)([3])


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"shares": (1, 2)}, "got 3 collations, 2 shares and 3 sources"),
        ({"sources": (None,)}, "got 3 collations, 3 shares and 1 sources"),
        ({"shares": (1, -1, 1)}, "Shares are 0 or more"),
        ({"shares": (0, 0, 0)}, "some above 0"),
    ],
)
def test_shares_and_sources_are_one_a_collation(options, says):
    refused(says, TaskSampler, [noted("a")] * 3, **options)


def test_samples_may_be_changed_before_they_are_read(tokenizer):
    samples = load("scenes", size=24).__getitems__(range(4))
    darker = Collate((Image(), Tokens(tokenizer)), ask=lambda sample: replace(sample, image=sample.image / 2))(samples)
    close(darker["image"], Image()(samples)["image"] / 2 - 0.5)


def test_tables_are_taken_in_turn_by_rows():
    one, two = {"x": torch.arange(10)}, {"y": torch.arange(20).view(10, 2), "z": torch.arange(10) > 4}
    turns = RoundRobin([one, two])
    assert torch.equal(turns.at(0)([3, 1])["x"], torch.tensor([3, 1]))
    assert set(turns.at(1)([0])) == {"y", "z"}
    assert torch.equal(turns.at(3)([7, 2])["y"], torch.tensor([[14, 15], [4, 5]]))
    assert set(turns.at(10)([0])) == {"x"}
    assert set(RoundRobin([one, two, {"w": one["x"]}]).at(5)([0])) == {"w"}
    batches = Batches(range(10), RoundRobin([one]), batch_size=5, seed=1)
    seen = torch.cat([batch["x"] for batch, _ in zip(batches, range(2))])
    assert sorted(seen.tolist()) == list(range(10))  # each sample once an epoch
    assert torch.equal(turns([3])["x"], turns.at(0)([3])["x"])
    refused("no table was given", RoundRobin, [])
    refused("got \\[9, 10\\] rows", RoundRobin, [one, {"y": torch.arange(9)}])
