"""Crowded scenes: what a sample says of itself is checked against its pixels, its caption and its centres."""

import re
from collections import Counter
from functools import cache

import numpy as np
import pytest
import torch
from testing_tools import close

from mmlearn.data import Tokenizer, fetch, load
from mmlearn.data.synthetic.drawing import COLOURS, SHAPES, SIZES, TEXTURES
from mmlearn.data.synthetic.layouts import HELD_OUT, RELATIONS, SPLITS, crowded_layout, named_once_layout
from mmlearn.data.synthetic.questions import ANSWERS
from mmlearn.data.synthetic.regions import CLASSES, SceneDetector
from mmlearn.data.synthetic.scenes import CrowdedScenes, NamedOnce, SceneSample
from mmlearn.evaluation import find_mentions, on_grid, pointing_accuracy
from mmlearn.evaluation.captions import check_facts, stated_facts, well_formed

SEEN = ("train", "val", "test")
HELD_OUT_NAMES = {(list(COLOURS)[colour], list(SHAPES)[shape]) for colour, shape in HELD_OUT}
THING = rf"(?:{'|'.join(SIZES)}) (?:{'|'.join(TEXTURES)}) (?:{'|'.join(COLOURS)}) (?:{'|'.join(SHAPES)})"
HOW = "|".join(RELATIONS)
CLAUSE = re.compile(rf"(a|the) ({THING}) (is )?({HOW}) (a|the) ({THING})(?: and ({HOW}) (a|the) ({THING}))?")
NUMBERS = ("one", "two", "three", "four", "five", "six", "seven")


@cache
def some(split="train", count=500, size=28):
    return CrowdedScenes(split, size=size).__getitems__(range(count))


def parse(caption):
    """What each clause says: its first thing, and of every other how the first one stands to it."""
    clauses = []
    for text in caption.split("; "):
        article, first, verb, *rest = CLAUSE.fullmatch(text).groups()
        assert (verb == "is ") == (article == "the")
        assert {rest[1], rest[4] or article} == {article}
        clauses.append((first, [(how, thing) for how, _, thing in (rest[:3], rest[3:]) if thing]))
    return clauses


def mentioned(caption):
    return [thing for first, rest in parse(caption) for thing in (first, *(thing for _, thing in rest))]


def stands(one, relation, other, cell):
    """Whether a relation is true by the middles of two objects: half a cell apart or more counts as apart."""
    (x, y), (other_x, other_y), near = one.centre, other.centre, cell / 2
    return {
        "left of": x < other_x - near,
        "right of": x > other_x + near,
        "above": y < other_y - near,
        "below": y > other_y + near,
    }[relation]


# What is said.


@pytest.mark.parametrize("split", SPLITS)
def test_captions_mention_four_to_eight_objects_in_two_to_four_clauses(split):
    clauses, mentions, forms = Counter(), Counter(), set()
    for sample in some(split):
        clauses[len(parse(sample.caption))] += 1
        mentions[len(mentioned(sample.caption))] += 1
        forms.add(frozenset(text.split()[0] for text in sample.caption.split("; ")))
    assert forms == {frozenset(articles) for articles in (["a"], ["the"], ["a", "the"])}  # each clause has its own
    assert set(clauses) == {2, 3, 4}
    assert set(mentions) == {4, 5, 6, 7, 8}
    assert min(*clauses.values(), *mentions.values()) > 40  # of 500


@pytest.mark.parametrize("split", SPLITS)
def test_each_name_fits_one_object_and_links_say_which(split):
    for sample in some(split):
        names = [item.name for item in sample.objects]
        spoken = mentioned(sample.caption)
        assert [sample.caption[link.start : link.end] for link in sample.links] == spoken
        assert [names[link.object] for link in sample.links] == spoken
        assert all(names.count(name) == 1 for name in spoken)
        assert len(set(spoken)) == len(spoken)


@pytest.mark.parametrize("split", SPLITS)
def test_all_that_is_said_is_true(split):
    for sample in some(split):
        by_name = {item.name: item for item in sample.objects}
        said = []
        for first, rest in parse(sample.caption):
            for how, other in rest:
                assert stands(by_name[first], how, by_name[other], 4), sample.caption
                said.append((first, how, other))
        names = [item.name for item in sample.objects]
        assert [(names[i], how, names[j]) for i, how, j in sample.relations] == said
        assert sample.relation == sample.relations[0]
        assert set(sample.relations) <= set(sample.graph)


@pytest.mark.parametrize("split", SPLITS)
def test_no_word_alone_finds_a_mentioned_object(split):
    """A twin has its colour and shape; others have its colour or its shape alone."""
    for sample in some(split):
        for name in mentioned(sample.caption):
            colour, shape = name.split()[2:]
            twins = [item for item in sample.objects if (item.colour, item.shape) == (colour, shape)]
            assert len(twins) == 2
            assert len({(item.size, item.texture) for item in twins}) == 2
            assert any(item.colour == colour and item.shape != shape for item in sample.objects)
    alone = [
        name
        for sample in some(split)
        for name in mentioned(sample.caption)
        if not any(item.shape == name.split()[3] and item.colour != name.split()[2] for item in sample.objects)
    ]
    assert len(alone) < 0.2 * sum(len(mentioned(sample.caption)) for sample in some(split))  # where a pair is held out


def test_words_are_about_equally_frequent():
    words = Counter()
    for sample in some("train", 3000, 28):
        words.update(word for name in mentioned(sample.caption) for word in name.split())
        words.update(how for _, rest in parse(sample.caption) for how, _ in rest)
    for group in (SIZES, TEXTURES, COLOURS, SHAPES, RELATIONS):
        total = sum(words[word] for word in group)
        assert all(0.9 < words[word] * len(group) / total < 1.1 for word in group), {w: words[w] for w in group}


def test_what_is_said_can_be_checked_as_facts():
    samples = some()[:100]
    captions = [sample.caption for sample in samples]
    facts = check_facts(captions, samples)
    assert (facts.missing, facts.made_up) == (0, 0)
    assert facts.true == sum(len(sample.links) + len(sample.relations) for sample in samples)
    assert all(map(well_formed, captions))
    one, two, three = (frozenset(name.split()) for name in ("red star", "blue ring", "pink bar"))
    assert stated_facts("a red star left of a blue ring and below a pink bar") == {
        *((thing,) for thing in (one, two, three)),
        (one, "left of", two),
        (three, "above", one),
    }
    assert not well_formed(captions[0].replace(";", " and"))


# Splits.


def test_each_split_has_grounds_of_its_own():
    used = {split: set(crowded_layout(split, np.arange(3000), 0).ground.tolist()) for split in SPLITS}
    assert sorted(ground for grounds in used.values() for ground in grounds) == list(range(64))


@pytest.mark.parametrize("split", SEEN)
def test_no_object_of_a_seen_split_is_a_held_out_pair(split):
    layout = crowded_layout(split, np.arange(20_000), 11)
    present = np.arange(32) < layout.count[:, None]
    pairs = set(zip(layout.colour[present].tolist(), layout.shape[present].tolist()))
    assert not pairs & set(HELD_OUT)
    assert len(pairs) == 12 * 12 - 12


def test_every_caption_of_composition_mentions_one_held_out_pair():
    positions = Counter()
    for split in SPLITS:
        for sample in some(split):
            new = [tuple(name.split()[2:]) in HELD_OUT_NAMES for name in mentioned(sample.caption)]
            assert sum(new) == (split == "composition")
            if any(new):
                positions[new.index(True)] += 1
    assert all(positions[k] > 20 for k in range(6))  # anywhere in the caption


# What stands where, and pixels.


@pytest.mark.parametrize("size", [28, 100, 224])
def test_sixteen_to_thirty_two_objects_in_cells_of_their_own(size):
    side, edge = size // 7, (size - size // 7 * 7) // 2
    samples = some("train", 500 if size == 28 else 12, size)
    for sample in samples:
        cells = [item.cell for item in sample.objects]
        assert cells == sorted(set(cells))
        assert cells[0] >= 0
        assert cells[-1] < 49
        for item in sample.objects:
            assert (item.row, item.column) == divmod(item.cell, 7)
            assert abs(item.centre[0] - edge - side * (item.column + 0.5)) <= side / 16
            assert abs(item.centre[1] - edge - side * (item.row + 0.5)) <= side / 16
    if size == 28:
        counts = Counter(len(sample.objects) for sample in samples)
        assert set(counts) == set(range(16, 33))


def test_objects_stand_a_little_beside_the_middles_of_their_cells():
    for axis, position in ((0, "column"), (1, "row")):
        moved = {x.centre[axis] - 32 * (getattr(x, position) + 0.5) for s in some("train", 12, 224) for x in s.objects}
        assert moved == {-2, 0, 2}


@pytest.mark.parametrize("size", [100, 112, 224])
def test_masks_and_pixels_agree(size):
    palette, beyond = torch.tensor(list(COLOURS.values())), size / 224  # a moon is a little wider than its box
    for sample in some("train", 12, size):
        assert sample.image.shape == (3, size, size)
        assert 0 <= sample.image.min() <= sample.image.max() <= 1
        assert sample.masks.sum(0).max() == 1
        for item, mask in zip(sample.objects, sample.masks, strict=True):
            rows, columns = mask.nonzero().T + 0.5
            left, top, right, bottom = item.box
            assert left - beyond <= columns.min() < columns.max() <= right + beyond
            assert top - beyond <= rows.min() < rows.max() <= bottom + beyond
            pixels = sample.image[:, mask]
            bright = pixels[:, pixels.sum(0).topk(4).indices].mean(1)
            assert list(COLOURS)[int((palette - bright).norm(dim=1).argmin())] == item.colour
        outside = sample.image[:, ~sample.masks.any(0)]
        assert outside.max() < 0.5 * 1.0 + 0.5 * 0.26
        assert not (sample.free & sample.masks.any(0)).any()
        assert sample.free.sum() == (size // 7) ** 2
        assert sample.image[:, sample.free].max() < 0.26


def test_another_size_shows_the_same_scene():
    for small, large in zip(some("train", 12, 112), some("train", 12, 224)):
        assert (small.caption, small.question, small.graph) == (large.caption, large.question, large.graph)
        close(small.boxes * 2, large.boxes)
        areas = [scene.masks.sum((1, 2)) / scene.image.shape[-1] ** 2 for scene in (small, large)]
        assert ((areas[0] - areas[1]).abs() < 0.3 * areas[1]).all()


def test_a_fixed_number_of_objects():
    for count in (16, 20, 32):
        for sample in CrowdedScenes(size=28, objects=count).__getitems__(range(100)):
            assert len(sample.objects) == count
            assert 3 * len(sample.links) <= count


# Those who use it.


def test_questions_have_their_answers():
    kinds = Counter()
    for sample in some():
        question, objects = sample.question, sample.objects
        assert question.answer in ANSWERS
        kinds[question.kind] += 1
        if question.kind == "count":
            word = re.match(r"how many (\w+)", question.text)[1]
            word = word if "objects" in question.text else word.removesuffix("es" if word.endswith("sses") else "s")
            assert int(question.answer) == sum(word in item.name.split() for item in objects) < 10
        if question.kind in ("colour", "shape"):
            row, column = (NUMBERS.index(word) for word in re.findall(r"row (\w+), column (\w+)", question.text)[0])
            (found,) = [item for item in objects if (item.row, item.column) == (row, column)]
            assert getattr(found, question.kind) == question.answer
        if question.kind == "relation":
            one, how, other = re.fullmatch(rf"is the (\w+ \w+) ({HOW}) the (\w+ \w+)\?", question.text).groups()
            (i,), (j,) = (
                [k for k, o in enumerate(objects) if f"{o.colour} {o.shape}" == name] for name in (one, other)
            )
            assert question.answer == ("yes" if stands(objects[i], how, objects[j], 4) else "no")
    assert len(kinds) == 7
    assert all(abs(count - 500 / 7) < 40 for count in kinds.values()), kinds


@pytest.mark.parametrize("size", [100, 112])
def test_the_detector_finds_every_object_in_reading_order(size):
    samples = some("train", 12, size)
    found = SceneDetector()(samples)
    most = max(len(sample.objects) for sample in samples)
    assert found["regions"].shape == (12, most, 216)
    for i, sample in enumerate(samples):
        count = len(sample.objects)
        assert found["region_mask"][i].sum() == count
        close(found["boxes"][i, :count], (sample.boxes / size).clamp(0, 1), 1e-6)
        classes = [CLASSES[k] for k in found["region_classes"][i, :count].argmax(-1)]
        assert classes == [f"{item.colour} {item.shape}" for item in sample.objects]
        pixels = found["regions"][i, :count, :192].unflatten(-1, (3, 8, 8)) * 4 + 0.3
        for item, mask, crop in zip(sample.objects, sample.masks, pixels):
            if item.texture == "solid" and item.shape == "square":
                close(crop[:, 3:5, 3:5].mean((1, 2)), sample.image[:, mask].median(1).values, 0.02)


def test_mentions_point_at_their_objects():
    samples = some("val", 40, 112)
    tokenizer = Tokenizer.train([sample.caption for sample in samples], vocab_size=512, max_length=96)
    assert int(tokenizer([sample.caption for sample in samples])[1].sum(1).max()) < 77  # CLIP reads so many
    mentions = find_mentions(samples, tokenizer, (7, 7))
    assert len(mentions.sample) == sum(len(sample.links) for sample in samples)
    for i, phrase, number, region in zip(mentions.sample, mentions.phrase, mentions.object, mentions.region):
        item = samples[i].objects[number]
        assert phrase == item.name
        assert region.argmax() == item.cell  # at 7 × 7 a cell is a patch
        close(region, on_grid(samples[i].masks[number][None], (7, 7))[0])
    assert pointing_accuracy(mentions.region, mentions.region) == 1


def test_it_is_in_the_catalogue():
    data = load("crowded-scenes", "composition", size=32, objects=20, seed=3, length=5)
    assert type(data) is CrowdedScenes
    assert len(data) == 5
    assert type(data[4]) is SceneSample
    assert load("crowded-scenes")[0].image.shape == (3, 224, 224)


# Every name once.


def nameless(item):
    return item.size, item.texture, item.shape


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("objects", [16, 32])
def test_each_name_without_its_colour_fits_one_object(split, objects):
    for sample in fetch(NamedOnce(split, size=28, objects=objects), range(50)):
        assert len({nameless(item) for item in sample.objects}) == len(sample.objects) == objects
        named = [sample.objects[link.object] for link in sample.links]
        assert [sample.caption[link.start : link.end] for link in sample.links] == [item.name for item in named]
        held_out = [item for item in sample.objects if (item.colour, item.shape) in HELD_OUT_NAMES]
        assert all(item in named for item in held_out)
        assert len(held_out) == (split == "composition")


def test_nothing_else_tells_a_colour():
    samples = fetch(NamedOnce(size=28, objects=24), range(2000))
    colours = Counter(sample.objects[sample.links[0].object].colour for sample in samples)
    assert set(colours) == set(COLOURS)
    assert max(colours.values()) < 2 * min(colours.values())
    # In crowded scenes the other objects have the colours of the mentioned ones; here a colour is drawn by itself.
    alone = sum(
        all(item.colour != sample.objects[sample.links[0].object].colour for item in sample.objects if item is not own)
        for sample in samples
        for own in [sample.objects[sample.links[0].object]]
    )
    assert alone / len(samples) == pytest.approx((1 - 1 / 12) ** 23, abs=0.04)


def test_layouts_follow_seed_and_split_and_have_every_pair_that_is_not_held_out():
    index = np.arange(20_000)
    one, seed, split = (named_once_layout(*of) for of in (("train", index, 0), ("train", index, 1), ("val", index, 0)))
    assert (one.shape != seed.shape).any()
    assert (one.shape != split.shape).any()
    present = np.arange(32) < one.count[:, None]
    pairs = set(zip(one.colour[present].tolist(), one.shape[present].tolist()))
    assert len(pairs) == 12 * 12 - len(HELD_OUT)
