"""Captions with tags: both are there as they are, tags are what the detector sees, and only what may be is polluted."""

from types import SimpleNamespace

import pytest
import torch
from testing_tools import Listed, refused, seeded

from mmlearn.data.boxes import BoxDetector
from mmlearn.data.collate import Collate
from mmlearn.data.fields import MaskedTokens, MatchLabel, PollutedTriples, TaggedCaptions
from mmlearn.data.synthetic.regions import CLASSES, SceneDetector
from mmlearn.data.synthetic.scenes import Scenes
from mmlearn.layers import Config
from mmlearn.recipes.objectives import Reworded

START, END, MASK = 1, 2, 3


@pytest.fixture(scope="module")
def scenes():
    return Scenes(size=24).__getitems__(range(40))


@pytest.fixture(scope="module")
def field(scenes):
    return TaggedCaptions(detector=SceneDetector(error_rate=0.2), vocab_size=400).fitted(Listed(scenes), Config(), 0)


class With(Reworded):
    """A scene with tags of its own."""

    def __init__(self, scene, tags):
        super().__init__(scene)
        self.tags = tags


def parts(field, batch):
    """The caption and the tags of each row, as text."""
    rows = zip(batch["tokens"], batch["token_type"], batch["mask"])
    return [tuple(field.tokenizer.decode(row[real & (kind == k)]) for k in (0, 1)) for row, kind, real in rows]


@pytest.mark.parametrize("rate", [0.0, 0.5])
def test_tags_are_the_likeliest_classes_of_the_regions(scenes, rate):
    detector = SceneDetector(error_rate=rate)
    found = detector(scenes)
    likeliest = [
        [CLASSES[number] for number in row[real].argmax(-1).tolist()]
        for row, real in zip(found["region_classes"], found["region_mask"])
    ]
    assert detector.tags(scenes) == likeliest
    true = [[f"{item.colour} {item.shape}" for item in scene.objects] for scene in scenes]
    assert (likeliest == true) == (rate == 0)


def test_tags_of_annotated_boxes_are_their_names():
    images = [SimpleNamespace(names=("dog", "cat", "dog")), SimpleNamespace(names=())]
    assert BoxDetector(("cat", "dog"), most=2).tags(images) == [["dog", "cat"], []]


def test_a_row_is_a_caption_and_the_tags_of_its_image(field, scenes):
    batch = field(scenes)
    tags = [" ".join(row) for row in field.detector.tags(scenes)]
    assert parts(field, batch) == [(scene.caption, text) for scene, text in zip(scenes, tags)]
    assert (batch["tokens"][:, 0] == START).all()
    assert ((batch["tokens"] == END).sum(1) == 2).all()
    for row, kind, real in zip(batch["tokens"], batch["token_type"], batch["mask"]):
        assert kind[real].tolist() == sorted(kind[real].tolist())
        assert row[real][-1] == row[real & (kind == 0)][-1] == END
    assert batch["tokens"].shape[1] <= field.sizes()["max_length"] < 64
    ids = field([scenes[0], With(scenes[1], tags[0]), scenes[1]])["tag_id"]
    assert ids[0] == ids[1] != ids[2]


def test_words_and_tags_have_one_vocabulary(field, scenes):
    """Of whole words: no colour and no shape is in pieces, though those of tags may be in no caption."""
    batch, longest = field(scenes), field.sizes()["vocab_size"]
    names = sorted({word for name in CLASSES for word in name.split()})
    pieces = [len(field.tokenizer.words(f"a {name}")[1][1]) for name in names]
    assert max(pieces) <= 2
    assert sum(pieces) < 1.2 * len(names)
    assert batch["tokens"].max() < longest <= 400


def test_a_sample_may_have_tags_of_its_own_or_none(field, scenes):
    """None at all, and those of another picture."""
    batch = field([With(scenes[0], ""), With(scenes[1], "two dogs")])
    assert parts(field, batch) == [(scenes[0].caption, ""), (scenes[1].caption, "two dogs")]
    assert ((batch["tokens"] == END).sum(1) == 2).all()


def test_what_is_too_long_loses_its_last_tokens(scenes):
    short = TaggedCaptions(vocab_size=400, max_length=12).fitted(Listed(scenes), Config(), 0)
    batch = short(scenes)
    assert batch["tokens"].shape[1] == short.sizes()["max_length"] == 13
    assert ((batch["tokens"] == END).sum(1) == 2).all()
    polluted = PollutedTriples()(batch, seeded(), short.sizes().__getitem__)
    assert polluted["tokens"].shape[1] <= 13


@pytest.mark.parametrize("words", [False, True])
def test_polluted_parts_are_those_of_another_image(field, scenes, words):
    batch = Collate((field,), (PollutedTriples(words),), seed=1)(scenes)
    own, label = parts(field, field(scenes)), batch["polluted"]
    assert label.bincount().tolist() == ([20, 10, 10] if words else [20, 20])
    assert batch["tokens"].shape == batch["token_type"].shape == batch["mask"].shape
    assert batch["tokens"].shape[1] <= field.sizes()["max_length"]
    for k, (caption, tags), before in zip(label.tolist(), parts(field, batch), own):
        assert (caption == before[0]) == (k != 2)
        assert (tags == before[1]) == (k != 1)
        assert caption in [other for other, _ in own]
        assert tags in [other for _, other in own]


@pytest.mark.parametrize("segment", [0, 1, None])
def test_words_or_tags_alone_may_be_hidden(field, scenes, segment):
    batch = Collate((field,), (PollutedTriples(), MaskedTokens(0.5, segment=segment)), seed=1)(scenes)
    hidden = batch["token_label"] != -100
    assert hidden.any(1).all()
    kinds = set(batch["token_type"][hidden].tolist())
    assert kinds == ({0, 1} if segment is None else {segment})
    assert not (hidden & ~batch["mask"]).any()
    assert (batch["tokens"][hidden] == MASK).float().mean() == pytest.approx(0.8, abs=0.1)


def test_a_whole_text_moves_with_its_tags(field, scenes):
    """Where a caption and its tags are given to another picture together, types and tags' number go with them."""
    batch, plain = Collate((field,), (MatchLabel(),), seed=1)(scenes), field(scenes)
    source = {int(number): row for row, number in enumerate(plain["tag_id"])}
    rows = [source[int(number)] for number in batch["tag_id"]]
    assert torch.equal(batch["token_type"], plain["token_type"][rows])
    assert torch.equal(batch["tokens"], plain["tokens"][rows])


def test_tags_need_a_tokenizer(scenes):
    refused(r"TaggedCaptions has no tokenizer yet: TaggedCaptions\(Tokenizer.train", TaggedCaptions(), scenes)
