"""Questions of several looks: each is answered anew from the objects, and neither text nor picture tells it alone."""

import re
from collections import Counter
from functools import cache

import numpy as np
import pytest
import torch

from mmlearn.data.synthetic.scene_tasks import FIGURES, PALETTE, HopQuestions


@cache
def some(split="train", count=800):
    return HopQuestions(split, size=24).__getitems__(range(count))


def solve(text, objects):
    """Follow the words of a question through the objects: the cells looked at, and the answer."""
    by_position = {(item.row, item.column): item for item in objects}
    item = next(item for item in objects if item.shape == re.search(r"the (\w+)\?$", text)[1])
    seen = [item]
    if "left of" in text:
        seen.append(by_position[item.row, item.column - 1])
    if "has the colour" in text:
        seen += [other for other in objects if other.colour == seen[-1].colour and other is not seen[-1]]
    return tuple(item.cell for item in seen), seen[-1].colour if "what colour" in text else seen[-1].shape


def test_every_answer_and_every_chain_follows_from_the_objects():
    hops = {"1 hop": 1, "2 hops, side": 2, "2 hops, colour": 2, "3 hops": 3}
    for sample in some():
        chain, answer = solve(sample.text, sample.images[0].objects)
        assert sample.chain == chain
        assert HopQuestions.labels[sample.label] == answer
        assert len(set(chain)) == len(chain) == hops[sample.kind]
    assert {sample.kind for sample in some()} == set(hops) == set(HopQuestions.kinds)


def test_nine_things_one_of_each_shape_and_four_pairs_of_colours_fill_the_image():
    for sample in some():
        objects = sample.images[0].objects
        assert [item.cell for item in objects] == list(range(9))
        assert sorted(item.shape for item in objects) == sorted(FIGURES)
        assert sorted(Counter(item.colour for item in objects).values()) == [1, 2, 2, 2, 2]
        assert sample.images[0].image.shape == (3, 24, 24)


def test_a_image_shows_each_thing_where_it_is_said():
    for sample in some()[:40]:
        image, scene = sample.images[0].image, sample.images[0]
        for item, mask in zip(scene.objects, scene.masks):
            rows, columns = mask.nonzero().T
            assert {item.cell} == set((rows // 8 * 3 + columns // 8).tolist())
            assert image[:, mask].mean() > 0.2  # the grounds are darker


def test_a_question_alone_and_its_kind_tell_little():
    """Of answers to a text, none is much more frequent than 1 of 5 colours or of 8 shapes would be."""
    samples, chance = HopQuestions(size=24).__getitems__(range(8000)), {"colour": 1 / 5, "shape": 1 / 8}
    for kind in HopQuestions.kinds:
        labels = torch.tensor([sample.label for sample in samples if sample.kind == kind])
        share = labels.bincount().max() / len(labels)
        assert share < 1.2 * chance["colour" if labels.max() < len(PALETTE) else "shape"]


def share_of_favoured(split, move):
    """How many answers about colours are the one that the asked shape favours, moved by so many."""
    asked = [
        (FIGURES.index(re.search(r"the (\w+)\?$", s.text)[1]), s.label) for s in some(split) if s.label < len(PALETTE)
    ]
    return sum(label == (shape + move) % len(PALETTE) for shape, label in asked) / len(asked)


def test_priors():
    assert 0.85 < share_of_favoured("skewed", 0) < 0.95
    assert 0.85 < share_of_favoured("skewed-test", 0) < 0.95
    assert 0.85 < share_of_favoured("changed-prior", 1) < 0.95
    assert 0.1 < share_of_favoured("train", 0) < 0.28

    def asked(split):
        return [(s.text, s.label) for s in some(split) if s.label < len(PALETTE)]

    def moved(one, other):
        """Of each question half the sum of the differences of how often each answer is right."""
        shares = [{q: np.bincount([a for r, a in split if r == q], minlength=len(PALETTE)) for q, _ in split}
                  for split in (one, other)]  # fmt: skip
        return [abs(x[q] / x[q].sum() - y[q] / y[q].sum()).sum() / 2 for x, y in [shares] for q in x.keys() & y.keys()]

    assert min(moved(asked("skewed"), asked("changed-prior"))) > 0.6
    assert max(moved(asked("skewed"), asked("skewed-test"))) < 0.3


def test_skewed_questions_are_still_answered_by_the_image():
    for split in ("skewed", "changed-prior"):
        for sample in some(split):
            assert solve(sample.text, sample.images[0].objects)[1] == HopQuestions.labels[sample.label]


def test_splits_share_no_ground():
    grounds = {split: {int(s.images[0].layout.ground[s.images[0].row]) for s in some(split, 200)}
               for split in ("train", "val", "test", "skewed", "changed-prior")}  # fmt: skip
    assert not grounds["train"] & grounds["val"]
    assert not grounds["train"] & grounds["test"]
    assert not grounds["val"] & grounds["test"]
    assert grounds["skewed"] == grounds["train"]
    assert grounds["changed-prior"] == grounds["test"]


@pytest.mark.parametrize("kind", HopQuestions.kinds)
def test_every_kind_is_as_likely(kind):
    assert abs(sum(sample.kind == kind for sample in some()) / 800 - 0.25) < 0.06
