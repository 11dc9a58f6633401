"""Questions in plain English: every answer is true of its picture, and held-out wordings are never trained on."""

import dataclasses
from collections import Counter

import numpy as np
import pytest
import torch

from mmlearn.data.packaged.emoji import KNOWN
from mmlearn.data.synthetic import collage_chat as chat
from mmlearn.data.synthetic.collage_words import relation
from mmlearn.data.synthetic.collages import Thing, draw, lay_out
from mmlearn.models.vision.backbone import BackboneConfig
from mmlearn.pretrained.backbone import load_positions


def pictures(count):
    rng = np.random.default_rng(0)
    return [lay_out(rng, KNOWN, 1, 4) for _ in range(count)]


def test_answers_are_true():
    asked = Counter()
    for seed, things in enumerate(pictures(300)):
        kind, question, answer = chat.ask_about(things, np.random.default_rng(seed))
        asked[kind] += 1
        names, nouns = [thing.name for thing in things], [thing.noun for thing in things]
        said = answer.rstrip(".").lower()
        if kind == "exist":
            noun = next(noun for noun in sorted(chat.NOUNS, key=len, reverse=True) if f" {noun}" in question)
            assert said == ("yes" if noun in nouns else "no")
        elif kind == "count":
            assert chat.NUMBERS.index(said) == len(things)
        elif kind == "kind":
            assert said.split(maxsplit=1)[1] == chat.KINDS[nouns[0]]
            assert len(things) == 1
        elif kind in ("colour", "where"):
            (thing,) = [thing for thing in things if f" {thing.noun}" in f"{question} "]
            assert said == (thing.colour if kind == "colour" else f"at the {chat.corner(thing)}")
        elif kind == "relation":
            how = next(how for how in ("left of", "right of", "above", "below") if how in question)
            other = next(thing for thing in things if question.rstrip("?").endswith(f"the {thing.noun}"))
            standing = [thing.name for thing in things if thing is not other and relation(thing, other) == how]
            assert [chat.with_article(name) for name in standing] == [said]
        elif kind == "name":
            assert all(name in said or chat.PLURALS[name.split()[-1]] in said for name in names)
        else:
            assert any(name in said or chat.PLURALS[name.split()[-1]] in said for name in names)
    assert set(asked) == set(chat.WORDINGS)


def test_a_list_has_each_name_once_row_by_row():
    cat, dog, bus, again = (
        Thing(noun, "noto", None, centre, 0.2, False)
        for noun, centre in (("cat", (0.8, 0.2)), ("dog", (0.1, 0.7)), ("bus", (0.2, 0.3)), ("dog", (0.6, 0.7)))
    )
    assert chat.listed([dog, cat, again, bus]) == "a bus, a cat and two dogs"
    assert chat.listed([cat]) == "a cat"
    boxes = chat.boxes_of([dog, cat, again, bus], "dog")
    assert [((a + c) / 2, (b + d) / 2) for a, b, c, d in boxes] == [
        pytest.approx(one.centre, abs=0.01) for one in (dog, again)
    ]


def test_corners_kinds_and_right_answers():
    star = Thing("star", "noto", None, (0.2, 0.8), 0.2, False)
    assert chat.corner(star) == "bottom left"
    things = {"duck": "animal", "watermelon": "food", "sailboat": "vehicle", "saxophone": "musical instrument"}
    assert {noun: chat.KINDS[noun] for noun in things} == things
    assert "hammer" not in chat.KINDS
    name, where = chat.Asked("name", "?", "A star."), chat.Asked("where", "?", "At the bottom left.")
    assert chat.fits(name, "I see a big Star!", [star])
    assert not chat.fits(name, "A starfish.", [star])
    assert not chat.fits(name, "A star and a flower.", [star])
    assert not chat.fits(name, "Two stars, a cow.", [star])
    assert chat.nouns_in("Two Buses, a catfish, a sheep and a cow.") == ["cow", "bus"]
    assert not chat.fits(name, "a star", [star, dataclasses.replace(star, centre=(0.7, 0.2))])
    assert chat.fits(where, "at the bottom left.", [star])
    assert not chat.fits(where, "At the bottom.", [star])


def test_a_held_out_wording_is_the_last_and_never_trained():
    known = {wording.split("{")[0] for wordings in chat.WORDINGS.values() for wording in wordings[:-1]}
    for things in pictures(40):
        for kind in chat.kinds_for(things):
            rng = np.random.default_rng(1)
            held = chat.ask_about(things, rng, kind, held_out=True).question
            assert held.startswith(chat.WORDINGS[kind][-1].split("{")[0])
            trained = [chat.ask_about(things, rng, kind).question for _ in range(8)]
            assert all(any(question.startswith(start) for start in known) for question in trained)
            assert held not in trained


def test_a_seed_asks_always_the_same():
    shown = chat.compose(KNOWN, 12, 3, fewest=2)
    once, again, other = (chat.ask_each(shown, "exist", seed) for seed in (1, 1, 2))
    assert once == again != other
    assert {each.kind for each in once} == {"exist"}
    assert {each.answer for each in once} == {"Yes.", "No."}
    for asked, (things, _) in zip(once, shown):
        mentioned = max((noun for noun in chat.NOUNS if f" {noun}" in asked.question), key=len)
        assert asked.answer == ("Yes." if mentioned in {thing.noun for thing in things} else "No.")


def test_a_question_that_has_no_answer_here_is_refused():
    rng = np.random.default_rng(0)
    single = lay_out(rng, KNOWN, 1, 1)
    with pytest.raises(ValueError, match="Nothing can be asked of kind 'count' here; there are name, "):
        chat.ask_about(single, rng, "count")


def test_what_a_tower_sees_is_computed_once(monkeypatch, tmp_path):
    monkeypatch.setenv("MMLEARN_HOME", str(tmp_path))
    shown = []

    class Tower(torch.nn.Module):
        def forward(self, images):
            shown.append(images)
            return images.mean((2, 3))[:, None]  # (n, 1, 3)

    pictures = chat.compose(KNOWN, 34, seed=1, most=2)
    assert {len(things) for things, _ in pictures} == {1, 2}
    assert chat.compose(KNOWN, 34, seed=1, most=2) == pictures
    seen = chat.seen_by(Tower(), pictures, 48)
    expected = draw(pictures, 48).mean((2, 3))[:, None]
    torch.testing.assert_close(seen, expected, atol=1e-3, rtol=0)  # kept as float16
    coarse, fine = (load_positions(BackboneConfig(image_size=64, patch_size=size)) for size in (64, 32))
    assert [chat.seen_by(tower, pictures[:2], 64).shape[1] for tower in (coarse, fine)] == [1, 4]
    assert [len(images) for images in shown] == [32, 2]
    assert torch.equal(chat.seen_by(Tower(), pictures, 48), seen)
    assert len(shown) == 2
    assert not torch.equal(chat.seen_by(Tower(), pictures[:-1] + pictures[:1], 48), seen)


def test_a_box_touches_the_patches_that_it_overlaps():
    rng = np.random.default_rng(5)
    for side in (1, 3, 4, 7):
        for _ in range(20):
            boxes = [(*low, *(low + rng.uniform(0.05, 0.6, 2))) for low in rng.uniform(-0.1, 0.9, (2, 2))]
            expected = []
            for row, column in np.ndindex(side, side):
                overlaps = [
                    (
                        min(right, (column + 1) / side) - max(left, column / side),
                        min(bottom, (row + 1) / side) - max(top, row / side),
                    )
                    for left, top, right, bottom in boxes
                ]
                expected.append(any(min(overlap) > 0.02 for overlap in overlaps))
            assert chat.patches_touched(boxes, side).tolist() == expected
    assert chat.patches_touched([]).tolist() == [False] * 16
    assert chat.patches_touched([(0.3, 0.3, 0.45, 0.45)]).nonzero().tolist() == [[5]]
