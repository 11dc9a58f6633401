"""Scenes: what a sample says of itself is checked against its pixels, its caption and its centres, and nothing else."""

import re
from collections import Counter, defaultdict
from functools import cache
from itertools import product

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mmlearn.data import load
from mmlearn.data.synthetic import drawing
from mmlearn.data.synthetic.drawing import CANVAS, COLOURS, SHAPES, SIZES, TEXTURES
from mmlearn.data.synthetic.layouts import HELD_OUT, RELATIONS, SPLITS, scene_layout
from mmlearn.data.synthetic.questions import ANSWERS
from mmlearn.data.synthetic.scenes import Scenes, translate

SEEN = ("train", "val", "test")
HELD_OUT_NAMES = {(list(COLOURS)[colour], list(SHAPES)[shape]) for colour, shape in HELD_OUT}
NAME = rf"({'|'.join(SIZES)}) ({'|'.join(TEXTURES)}) ({'|'.join(COLOURS)}) ({'|'.join(SHAPES)})"
CAPTION = re.compile(rf"(?:a {NAME} ({'|'.join(RELATIONS)}) a {NAME}|the {NAME} is ({'|'.join(RELATIONS)}) the {NAME})")
NUMBERS = {"one": 0, "two": 1, "three": 2, "four": 3}
OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}


@cache
def some(split="train", count=300, size=64):
    return Scenes(split, size=size).__getitems__(range(count))


def parse(caption):
    """Subject, relation and object of a caption, each thing as (size, texture, colour, shape)."""
    words = [word for word in CAPTION.fullmatch(caption).groups() if word]
    return tuple(words[:4]), words[4], tuple(words[5:])


def attributes(item):
    return item.size, item.texture, item.colour, item.shape


def stands(one, relation, other, size=64):
    """Whether a relation is true by the middles of two objects: half a cell apart or more counts as apart."""
    (x, y), (other_x, other_y), near = one.centre, other.centre, size / 8
    return {
        "left of": x < other_x - near,
        "right of": x > other_x + near,
        "above": y < other_y - near,
        "below": y > other_y + near,
    }[relation]


def test_another_split_index_or_seed_gives_another_scene():
    images = [
        Scenes(split, seed=seed)[index].image.numpy().tobytes()
        for split, seed, index in product(SPLITS, (0, 1, 2**31), (0, 1, 10**9, 10**9 + 1))
    ]
    assert len(set(images)) == len(images)
    layouts = [(s.caption, s.objects) for split in SPLITS for s in some(split, 300)]
    assert len(set(layouts)) == len(layouts)  # not only other grounds


# Splits.


def test_each_split_has_grounds_of_its_own():
    """No picture of one split can occur in another: their grounds are different pictures."""
    for size in (32, 64):
        images = drawing.grounds(size)
        assert len({ground.tobytes() for ground in images}) == len(images) == 64
        assert 0 <= images.min() <= images.max() < 0.3  # dark
    used = {split: set(scene_layout(split, np.arange(3000), 0).ground.tolist()) for split in SPLITS}
    assert sorted(ground for grounds in used.values() for ground in grounds) == list(range(64))
    for split in SPLITS:
        layout = scene_layout(split, np.arange(20), 0)
        for i, sample in enumerate(some(split)[:20]):
            ground = drawing.grounds(64)[layout.ground[i]].reshape(3, 4, 16, 4, 16)
            cells = sample.image.numpy().reshape(3, 4, 16, 4, 16)
            free = set(range(16)) - {item.cell for item in sample.objects}
            assert all((cells[:, k // 4, :, k % 4] == ground[:, k // 4, :, k % 4]).all() for k in free)
            assert not all((cells[:, k // 4, :, k % 4] == ground[:, k // 4, :, k % 4]).all() for k in range(16))


def test_each_colour_and_each_shape_is_held_out_once():
    assert {colour for colour, _ in HELD_OUT_NAMES} == set(COLOURS)
    assert {shape for _, shape in HELD_OUT_NAMES} == set(SHAPES)
    assert len(HELD_OUT_NAMES) == 12


@pytest.mark.parametrize("split", SEEN)
@pytest.mark.parametrize("seed", [0, 11])
def test_no_object_of_a_seen_split_is_a_held_out_pair(split, seed):
    layout = scene_layout(split, np.arange(20_000), seed)
    present = np.arange(9) < layout.count[:, None]
    pairs = set(zip(layout.colour[present].tolist(), layout.shape[present].tolist()))
    assert not pairs & set(HELD_OUT)
    assert len(pairs) == 12 * 12 - 12  # and every other pair occurs
    named = {(item.colour, item.shape) for sample in some(split) for item in sample.objects}
    assert not named & HELD_OUT_NAMES


def test_every_caption_of_composition_mentions_a_held_out_pair():
    """And no other caption does."""
    for split in SPLITS:
        for sample in some(split):
            subject, _, other = parse(sample.caption)
            new = {subject[2:], other[2:]} & HELD_OUT_NAMES
            assert bool(new) == (split == "composition")


# What stands where.


@pytest.mark.parametrize("split", SPLITS)
def test_eight_or_nine_objects_in_cells_of_their_own(split):
    counts = Counter()
    for sample in some(split):
        counts[len(sample.objects)] += 1
        cells = [item.cell for item in sample.objects]
        assert cells == sorted(set(cells))  # in reading order
        for item in sample.objects:
            row, column = divmod(item.cell, 4)
            assert abs(item.centre[0] - 16 * column - 8) <= 1
            assert abs(item.centre[1] - 16 * row - 8) <= 1
    assert set(counts) == {8, 9}
    assert min(counts.values()) > 100  # of 300


@pytest.mark.parametrize("split", SPLITS)
def test_a_scene_is_a_conjunction_search(split):
    """Each mentioned object shares its colour with one other and its shape with one other; both together name it."""
    for sample in some(split):
        for name in parse(sample.caption)[::2]:
            *_, colour, shape = name
            assert sum(item.colour == colour for item in sample.objects) == 2
            assert sum(item.shape == shape for item in sample.objects) == 2
            (found,) = [item for item in sample.objects if (item.colour, item.shape) == (colour, shape)]
            assert attributes(found) == name
        assert len({item.colour for item in sample.objects}) == len({item.shape for item in sample.objects}) == 3


def test_captions_use_every_word_about_equally():
    words = Counter()
    for sample in some("train", 2000, 24):
        subject, relation, other = parse(sample.caption)
        words.update([*subject, *other, relation, sample.caption.split()[0]])
    for group, total in (
        (SIZES, 4000),
        (TEXTURES, 4000),
        (COLOURS, 4000),
        (SHAPES, 4000),
        (RELATIONS, 2000),
        (("a", "the"), 2000),
    ):
        share = 1 / len(group)
        spread = (total * share * (1 - share)) ** 0.5
        assert all(abs(words[word] - total * share) < 5 * spread for word in group), {w: words[w] for w in group}


@pytest.mark.parametrize("split", SPLITS)
def test_links_cover_exactly_the_names(split):
    for sample in some(split):
        first, second = sample.links
        assert first.end < second.start
        for link, name in zip(sample.links, parse(sample.caption)[::2]):
            assert sample.caption[link.start : link.end] == " ".join(name) == sample.objects[link.object].name


@pytest.mark.parametrize("split", SPLITS)
def test_the_caption_is_true(split):
    for sample in some(split):
        subject, relation, other = sample.relation
        assert (attributes(sample.objects[subject]), relation, attributes(sample.objects[other])) == parse(
            sample.caption
        )
        assert stands(sample.objects[subject], relation, sample.objects[other])


def test_the_graph_is_complete_and_true():
    for sample in some():
        every = {
            (i, relation, j)
            for (i, one), (j, other) in product(enumerate(sample.objects), repeat=2)
            for relation in RELATIONS
            if stands(one, relation, other)
        }
        assert set(sample.graph) == every
        assert len(sample.graph) == len(every)
        assert sample.relation in every


# Pixels.


def test_images_are_float32_from_0_to_1():
    images = torch.stack([sample.image for sample in some()])
    assert images.dtype == torch.float32
    assert images.shape == (300, 3, 64, 64)
    assert 0 <= images.min() <= images.max() <= 1


def test_a_sample_owns_its_pixels():
    one, other = Scenes().__getitems__([0, 1])
    before = other.image.clone()
    one.image.zero_()
    assert torch.equal(other.image, before)
    assert Scenes()[0].image.max() > 0


def test_masks_are_disjoint_inside_their_boxes_and_around_their_centres():
    for sample in some():
        assert sample.masks.dtype == torch.bool
        assert sample.masks.sum(0).max() == 1
        for item, mask, box in zip(sample.objects, sample.masks, sample.boxes, strict=True):
            assert torch.equal(box, torch.tensor(item.box))
            rows, columns = mask.nonzero().T + 0.5  # middles of pixels
            left, top, right, bottom = item.box
            assert left <= columns.min() < columns.max() <= right
            assert top <= rows.min() < rows.max() <= bottom
            assert (left + right) / 2 == pytest.approx(item.centre[0])
            assert (top + bottom) / 2 == pytest.approx(item.centre[1])
            assert abs(columns.mean() - item.centre[0]) < 3.5  # a moon's mass is left of its middle
            assert abs(rows.mean() - item.centre[1]) < 2.5


def test_the_brightest_pixels_of_an_object_have_its_colour():
    """Textures darken a colour, so the brightest pixels inside a mask are the palette's."""
    palette = torch.tensor(list(COLOURS.values()))
    for sample in some():
        for item, mask in zip(sample.objects, sample.masks):
            pixels = sample.image[:, mask]
            bright = pixels[:, pixels.sum(0).topk(4).indices].mean(1)
            assert list(COLOURS)[int((palette - bright).norm(dim=1).argmin())] == item.colour
            assert (bright - torch.tensor(COLOURS[item.colour])).abs().max() < 0.15


def test_textures_can_be_seen():
    """Away from its edge a solid object has its colour all over; stripes and dots have dark parts."""
    darkest = defaultdict(list)  # brightness of the darkest pixel away from the edge, as a share of the colour's
    for sample in some():
        inner = F.avg_pool2d(sample.masks.float(), 3, stride=1, padding=1) > 0.99
        for item, mask in zip(sample.objects, inner):
            if mask.any():
                darkest[item.texture].append(float(sample.image[:, mask].sum(0).min()) / sum(COLOURS[item.colour]))
    assert min(map(len, darkest.values())) > 500
    assert min(darkest["solid"]) > 0.999
    assert max(darkest["striped"]) < 0.6
    assert max(darkest["dotted"]) < 0.85
    assert abs(np.median(darkest["striped"]) - np.median(darkest["dotted"])) > 0.05


def test_small_is_smaller_than_large():
    areas = defaultdict(set)
    for sample in some("train", 2000, 64)[:1000]:
        for item, mask in zip(sample.objects, sample.masks):
            areas[item.shape, item.size].add(int(mask.sum()))
    for shape in SHAPES:
        assert max(areas[shape, "small"]) < min(areas[shape, "large"]), shape


def test_shapes_differ_wherever_they_stand():
    masks = defaultdict(set)
    for sample in some("train", 2000, 64)[:1000]:
        for item, mask in zip(sample.objects, sample.masks):
            row, column = divmod(item.cell, 4)
            cell = mask[16 * row : 16 * row + 16, 16 * column : 16 * column + 16]
            masks[cell.numpy().tobytes()].add(item.shape)
    assert all(len(shapes) == 1 for shapes in masks.values())


def test_what_belongs_to_no_object_is_dark():
    """An edge pixel is less than half covered; everything else is ground."""
    for sample in some():
        outside = sample.image[:, ~sample.masks.any(0)]
        assert outside.max() < 0.5 * 1.0 + 0.5 * 0.26
        assert outside.median() < 0.25
        assert (outside.amax(0) < 0.26).float().mean() > 0.8


@pytest.mark.parametrize("size", [24, 32, 128])
def test_other_sizes_show_the_same_scene(size):
    scale = size / CANVAS
    for sample, known in zip(some("train", 40, size), some()[:40]):
        assert sample.image.shape == (3, size, size)
        assert (sample.caption, sample.question, sample.graph) == (known.caption, known.question, known.graph)
        assert [attributes(item) for item in sample.objects] == [attributes(item) for item in known.objects]
        assert torch.allclose(sample.boxes, known.boxes * scale)
        assert sample.masks.any(2).any(1).all()
        assert sample.masks.sum(0).max() == 1
        for mask, same in zip(sample.masks, known.masks):
            area, expected = float(mask.sum()) / scale**2, float(same.sum())
            assert abs(area - expected) < 0.25 * expected + (16 if size < 64 else 0)
        outside = sample.image[:, ~sample.masks.any(0)]
        assert outside.max() < 0.63


# Questions.


def answer(question, objects):
    """The answer to a question, worked out from its words and the objects."""
    text = question.text
    pair = r"(\w+) (\w+)"

    def named(colour, shape):
        (found,) = [item for item in objects if (item.colour, item.shape) == (colour, shape)]
        return found

    if match := re.fullmatch(rf"is there an? {pair}\?", text):
        colour, shape = match.groups()
        assert any(item.colour == colour for item in objects)  # neither word alone gives a no away
        assert any(item.shape == shape for item in objects)
        assert ("an " in text[:12]) == (colour[0] in "aeiou")
        return "exist", "yes" if any((item.colour, item.shape) == (colour, shape) for item in objects) else "no"
    if match := re.fullmatch(r"how many (\w+?) objects are there\?", text):
        return "count", str(sum(match[1] in (item.colour, item.size, item.texture) for item in objects))
    if match := re.fullmatch(r"how many (\w+) are there\?", text):
        return "count", str(sum(match[1] == item.shape + ("es" if item.shape[-1] == "s" else "s") for item in objects))
    if match := re.fullmatch(rf"what (size|texture) is the {pair}\?", text):
        return match[1], getattr(named(*match.groups()[1:]), match[1])
    if match := re.fullmatch(r"what (colour|shape) is the object in row (\w+), column (\w+)\?", text):
        row, column = NUMBERS[match[2]], NUMBERS[match[3]]
        (found,) = [item for item in objects if (int(item.centre[0]) // 6, int(item.centre[1]) // 6) == (column, row)]
        return match[1], getattr(found, match[1])
    match = re.fullmatch(rf"is the {pair} ({'|'.join(RELATIONS)}) the {pair}\?", text)
    one, relation, other = named(match[1], match[2]), match[3], named(match[4], match[5])
    assert stands(one, relation, other, 24) or stands(one, OPPOSITE[relation], other, 24)  # never a trick
    return "relation", "yes" if stands(one, relation, other, 24) else "no"


def test_every_question_has_its_answer():
    kinds, yes = Counter(), Counter()
    for split in ("train", "composition"):
        for sample in some(split, 2000, 24):
            question = sample.question
            assert (question.kind, question.answer) == answer(question, sample.objects), question
            assert question.answer in ANSWERS
            kinds[question.kind] += 1
            yes[question.kind, question.answer] += 1
    assert set(kinds) == {"exist", "count", "size", "texture", "colour", "shape", "relation"}
    assert all(abs(count - 4000 / 7) < 5 * (4000 / 7 * 6 / 7) ** 0.5 for count in kinds.values()), kinds
    for kind in ("exist", "relation"):
        assert abs(yes[kind, "yes"] - kinds[kind] / 2) < 4 * kinds[kind] ** 0.5 / 2, yes
    for kind in ("size", "texture", "colour", "shape", "count"):  # no answer that is nearly always right
        assert max(count for (of, _), count in yes.items() if of == kind) < 0.6 * kinds[kind]


# The second language: each word has one translation, known by its number.


def test_a_translation_by_hand():
    assert translate("a red star above a blue bar") == "rab eulb a evoba rats der a"
    assert translate("") == ""


@pytest.mark.parametrize("name", ["scenes", "crowded-scenes"])
def test_scenes_say_the_same_in_both(name):
    words = {}
    for sample in load(name, "val", size=48, length=50).__getitems__(range(50)):
        caption, translation = sample.caption.split(), sample.translation.split()
        assert translate(sample.translation) == " ".join(caption)
        assert len(sample.translated_words) == len(translation)
        for position, number in enumerate(sample.translated_words):
            words.setdefault(caption[number], set()).add(translation[position])
        assert translation != caption
    assert all(len(found) == 1 for found in words.values())
    assert [word for word, found in words.items() if found == {word}] == ["a"]


def test_stamps_are_translated_into_english():
    sample = load("stamps", language="fr", size=16)[0]
    assert sample.translation == sample.english != sample.caption
