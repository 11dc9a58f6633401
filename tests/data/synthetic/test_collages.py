"""Collages: what is said of them is what is drawn, and what is held out is seen nowhere else."""

from itertools import permutations

import numpy as np
import pytest
import torch
from testing_tools import refused

from mmlearn.data import Tokenizer, load
from mmlearn.data.packaged.archives import read_json
from mmlearn.data.packaged.emoji import FLUENT, KNOWN, OPENMOJI
from mmlearn.data.synthetic.collage_words import SINGULARS, held_out_pair, stated_facts
from mmlearn.data.synthetic.collages import Collages, draw
from mmlearn.data.synthetic.cutouts import COLOURS, DYED, NOUNS, PHOTOGRAPHS, PLURALS, STAMPS, single_things
from mmlearn.evaluation import find_mentions, on_grid
from mmlearn.evaluation.captions import check_facts

STYLES = {"unseen-style": FLUENT, "line-art": OPENMOJI, "photographs": PHOTOGRAPHS}
N = 60


@pytest.fixture(scope="module")
def samples():
    """Some of each split."""
    return {split: load("collages", split).__getitems__(range(N)) for split in Collages.splits}


@pytest.fixture(scope="module")
def all_samples(samples):
    return [sample for part in samples.values() for sample in part]


def told(sample):
    """All that a sample is made of."""
    return sample.things, sample.caption, sample.links, sample.paper, sample.bits


def named(sample):
    return [sample.things[link.object].noun for link in sample.links]


# Sample i, and what is held out.


def test_a_sample_depends_on_split_number_and_seed_alone(samples):
    again = load("collages", "train", length=3)
    assert [told(again[i]) for i in (40, 7)] == [told(samples["train"][i]) for i in (40, 7)]
    assert torch.equal(again[7].image, samples["train"][7].image)
    assert torch.equal(again.__getitems__([9, 7])[1].image, again[7].image)
    first = {split: told(part[0]) for split, part in samples.items()}
    first["another seed"] = told(load("collages", "train", seed=1)[0])
    first["the next"] = told(samples["train"][1])
    assert all(one != other for one, other in permutations(first.values(), 2))


def test_styles_of_the_splits_have_none_in_common(samples):
    for split, part in samples.items():
        styles = {thing.style for sample in part for thing in sample.things}
        assert styles == set(STYLES.get(split, KNOWN))
        assert all(len({thing.style for thing in sample.things}) == 1 for sample in part)
    assert not set(KNOWN) & {*FLUENT, *OPENMOJI, *PHOTOGRAPHS}
    assert {thing.noun for sample in samples["photographs"] for thing in sample.things} <= set(STAMPS)


def test_held_out_pairs_are_named_in_unseen_pairs_and_nowhere_else(samples):
    pairs = [held_out_pair(one, other) for one, other in permutations(NOUNS, 2)]
    assert 0.1 < np.mean(pairs) < 0.15
    for split, part in samples.items():
        for sample in part:
            found = [held_out_pair(one, other) for one, other in permutations(named(sample), 2) if one != other]
            assert any(found) == (split == "unseen-pairs"), sample.caption
            assert len(named(sample)) >= 2


# Pixels.


@pytest.mark.parametrize("size", [64, 96, 320])
def test_boxes_and_masks_are_where_a_thing_changes_the_picture(samples, size):
    """Compared with the same collage without its last thing, on which nothing lies."""
    for sample in (samples[split][i].drawn(size) for split in samples for i in range(2)):
        assert sample.image.shape == (3, size, size)
        assert sample.image.dtype == torch.float32
        without = draw([(sample.things[:-1], sample.paper)], size)[0]
        change = (sample.image - without).abs().amax(0)
        left, top, right, bottom = sample.boxes[-1].int().tolist()
        inside = torch.zeros(size, size, dtype=torch.bool)
        inside[top:bottom, left:right] = True
        assert (change[~inside] < 0.3).all()  # a shadow
        assert (sample.masks[-1] <= inside).all()
        assert (change[sample.masks[-1]] > 0.02).float().mean() > 0.8  # white on white is no change
        rows, columns = (sample.masks[-1].any(axis).nonzero() for axis in (1, 0))
        assert rows[0] - top <= 0.1 * size
        assert bottom - 1 - rows[-1] <= 0.1 * size
        assert columns[0] - left <= 0.1 * size
        assert right - 1 - columns[-1] <= 0.1 * size
        assert (sample.boxes >= 0).all()
        assert (sample.boxes <= size).all()
        assert torch.equal(sample.free, ~sample.masks.any(0))


def test_a_mirrored_thing_has_a_mirrored_mask_in_the_same_box(samples):
    from dataclasses import replace

    for sample in samples["train"][:5]:
        thing = sample.things[0]
        other = replace(sample, things=(replace(thing, mirrored=not thing.mirrored), *sample.things[1:]))
        left, top, right, bottom = sample.boxes[0].int().tolist()
        assert torch.equal(other.boxes, sample.boxes)
        one, two = (each.masks[0, top:bottom, left:right] for each in (sample, other))
        assert torch.equal(one, two.flip(1))


def test_drawn_larger_boxes_are_the_same_shares(all_samples):
    for sample in all_samples[::20]:
        large = sample.drawn(320)
        assert (large.size, large.caption, large.names) == (320, sample.caption, sample.names)
        assert (large.boxes / 320 - sample.boxes / 96).abs().max() < 2.5 / 96  # whole pixels
        assert torch.equal(large.drawn(96).image, sample.image)


def test_pictures_are_light(all_samples):
    assert torch.stack([sample.image for sample in all_samples[::5]]).mean() > 0.6


# Words.


def test_links_spell_what_is_there(all_samples):
    for sample in all_samples:
        for link in sample.links:
            things = [sample.things[number] for number in sample.boxes_of(link)]
            assert link.object in sample.boxes_of(link)
            assert {thing.name for thing in things} == {sample.things[link.object].name}
            noun = sample.caption[slice(*sample.grounded_position(link))]
            assert noun == (PLURALS[things[0].noun] if len(things) > 1 else things[0].noun)
            said = sample.caption[link.start : link.end]
            assert said == f"{things[0].colour} {noun}" * bool(things[0].colour) + noun * (not things[0].colour)
            assert (sample.caption[: link.start].split()[-1] == "two") == (len(things) == 2)
        assert sample.known == NOUNS
        assert set(sample.names) <= set(NOUNS)


def test_a_link_to_two_means_both(all_samples):
    double = [(one, link) for one in all_samples for link in one.links if len(one.boxes_of(link)) == 2]
    assert len(double) > 10
    for sample, link in double:
        one, other = sample.boxes_of(link)
        assert torch.equal(sample.mask_of(link), sample.masks[one] | sample.masks[other])
    chosen = [sample for sample, _ in double]
    tokenizer = Tokenizer.train([sample.caption for sample in chosen], vocab_size=300, max_length=40)
    mentions = find_mentions(chosen, tokenizer, (6, 6))
    links = [(i, link) for i, sample in enumerate(chosen) for link in sample.links]
    assert mentions.sample == [i for i, _ in links]
    for (i, link), region in zip(links, mentions.region):
        assert torch.equal(region, on_grid(chosen[i].mask_of(link)[None], (6, 6))[0])


def test_cells_are_of_the_smallest_box_that_holds_them(samples):
    for sample in samples["test"][:10]:
        cells = sample.region_cells(6)
        for cell in range(36):
            x, y = 16 * (cell % 6) + 8, 16 * (cell // 6) + 8
            holds = [k for k, (a, b, c, d) in enumerate(sample.boxes.tolist()) if a <= x <= c and b <= y <= d]
            assert cells[:, cell].nonzero().flatten().tolist() == holds[-1:]


def middle(box):
    left, top, right, bottom = box
    return (left + right) / 2, (top + bottom) / 2


def test_relations_are_those_of_the_boxes(all_samples):
    for sample in all_samples[::4]:
        large = sample.drawn(960)
        points = [middle(box) for box in large.boxes.tolist()]
        for i, how, j in large.graph:
            across, down = points[i][0] - points[j][0], points[i][1] - points[j][1]
            far = {"left of": -across, "right of": across, "above": -down, "below": down}
            assert far[how] > max(far.values()) - 3  # pixels, of 960
        assert len(large.graph) == len(large.things) * (len(large.things) - 1)


def test_captions_are_true_and_whole(all_samples):
    captions = [sample.caption for sample in all_samples]
    facts = check_facts(captions, all_samples)
    assert (facts.missing, facts.made_up) == (0, 0)
    relations = sum(len(sample.links) - 1 for sample in all_samples if " with " not in sample.caption)
    assert facts.true == sum(len(sample.links) for sample in all_samples) + relations
    again = [sample.retold(3) for sample in all_samples[:N]]
    assert check_facts([sample.caption for sample in again], again).made_up == 0
    assert sum(one.caption != other.caption for one, other in zip(again, all_samples)) > N // 2
    assert all(one.things == other.things for one, other in zip(again, all_samples))


def test_what_a_text_states():
    def thing(words):
        return frozenset(words.split())

    said = stated_facts("Two red cars, with a fish and a cow.")
    assert said == {(thing("two red car"),), (thing("fish"),), (thing("cow"),)}
    said = stated_facts("a plane below a green umbrella and to the right of two purple shirts")
    plane, umbrella, shirts = thing("plane"), thing("green umbrella"), thing("two purple shirt")
    assert said == {(plane,), (umbrella,), (shirts,), (umbrella, "above", plane), (shirts, "left of", plane)}
    assert stated_facts("a cat above a dog and a pig") >= {(thing("cat"), "above", thing("pig"))}
    assert stated_facts("") == stated_facts("red and above the two") == set()
    assert stated_facts("red above a dog") == {(thing("dog"),)}
    assert set(SINGULARS.values()) == set(NOUNS)


def test_facts_are_made_up_where_noun_colour_number_or_relation_is_wrong(all_samples):
    opposite = {"left of": "to the right of", "right of": "to the left of", "above": "below", "below": "above"}
    seen = set()
    for sample in all_samples:
        names = [thing.name for thing in sample.things]
        single = [i for i, name in enumerate(sample.names) if sample.names.count(name) == 1]
        absent = next(noun for noun in NOUNS if noun not in sample.names)
        assert check_facts([f"a {absent}"], [sample])[::2] == (0, 1)
        if len(single) > 1:
            i, j = single[:2]
            how = next(relation for one, relation, other in sample.graph if (one, other) == (i, j))
            assert check_facts([f"a {names[i]} {opposite[how]} a {names[j]}"], [sample])[::2] == (2, 1)
            assert check_facts([f"two {PLURALS[sample.names[i]]}"], [sample])[::2] == (0, 1)
            seen.add(how)
        for thing in sample.things:
            assert check_facts([f"a {thing.noun}"], [sample])[::2] == (1, 0)  # without its colour too
            others = {each.colour for each in sample.things if each.noun == thing.noun}
            wrong = next(colour for colour in COLOURS if colour not in others)
            assert check_facts([f"a {wrong} {thing.noun}"], [sample])[::2] == (0, 1)
        for name in {name for name in names if names.count(name) == 2}:
            noun = name.split()[-1]
            assert check_facts([f"two {name.removesuffix(noun)}{PLURALS[noun]}"], [sample])[::2] == (1, 0)
    assert seen == set(opposite)


def test_colours_are_of_dyed_things_and_of_drawings(samples):
    for split, part in samples.items():
        for thing in (thing for sample in part for thing in sample.things):
            assert (thing.colour in COLOURS) == (thing.noun in DYED and split != "photographs")


# Questions.


def test_answers_are_true_and_balanced():
    data = load("collages", "val")
    asked = {"yes": 0, "no": 0}
    kinds = {}
    for sample in data.__getitems__(range(500)):
        kind, text, answer = sample.question
        words, names = text.rstrip("?").split(), list(sample.names)
        kinds[kind] = kinds.get(kind, 0) + 1
        if kind == "exist":
            assert answer == ("yes" if words[-1] in names else "no")
        elif kind == "count":
            assert answer == str(sum(PLURALS[name] == words[2] for name in names))
        elif kind == "colour":
            assert [answer] == [thing.colour for thing in sample.things if thing.noun == words[-1]]
        else:
            one, other = names.index(words[2]), names.index(words[-1])
            assert names.count(words[2]) == names.count(words[-1]) == 1
            how = next(relation for i, relation, j in sample.graph if (i, j) == (one, other))
            assert answer == ("yes" if how == " ".join(words[3:-2]) else "no")
        if answer in asked:
            asked[answer] += 1
        assert answer in data.labels
    assert set(kinds) == {"exist", "count", "colour", "relation"}
    assert abs(asked["yes"] / sum(asked.values()) - 0.5) < 0.08


# Options.


def test_names_in_thirty_languages():
    languages = list(read_json("emoji", "names.json.gz"))
    assert len(languages) == 30
    english = load("collages", "test")
    for language in languages[1:]:
        data = load("collages", "test", language=language)
        for i in (0, 1):
            sample = data[i]
            parts = [sample.caption[link.start : link.end] for link in sample.links]
            assert ", ".join(parts) == sample.caption
            assert [link.object for link in sample.links] == [link.object for link in english[i].links]
            assert parts == [data.translated[noun] for noun in named(sample)]
            assert [sample.caption[slice(*sample.grounded_position(link))] for link in sample.links] == parts
    assert load("collages", "test", language="de")[0].caption != english[0].caption


def test_few_pictures_have_many_captions_and_questions():
    data, whole = load("collages", "train", pictures=5), load("collages", "train")
    assert [told(data[i]) for i in range(5)] == [told(whole[i]) for i in range(5)]
    again = [data[i] for i in range(3, 100, 5)]
    assert {sample.things for sample in again} == {whole[3].things}
    assert len({sample.caption for sample in again}) > 5
    assert len({sample.question for sample in again}) > 5
    assert told(load("collages", "train", pictures=5)[88]) == told(data[88])
    assert check_facts([sample.caption for sample in again], again).made_up == 0
    held = load("collages", "unseen-pairs", pictures=3).__getitems__(range(3, 15))
    assert all(any(held_out_pair(a, b) for a, b in permutations(named(one), 2) if a != b) for one in held)


def test_nouns_of_which_no_caption_can_be_made_are_refused_and_not_looked_for_without_end():
    refused("has 0 of these nouns, and a picture shows 4", load, "collages", "photographs", nouns=DYED)
    refused("no 'unicorn'", load, "collages", nouns=("unicorn", "cat"))
    one, other = next(pair for pair in permutations(NOUNS, 2) if held_out_pair(*pair))
    refused("No two of these nouns may stand in a caption of train", load, "collages", nouns=(one, other), things=2)
    assert len(load("collages", "unseen-pairs", nouns=(one, other), things=2)[0].links) == 2


def test_options_that_cannot_be():
    refused("no split 'photos'; did you mean 'photographs'", load, "collages", "photos")
    refused("no names in 'dee'; did you mean 'de'", load, "collages", language="dee")
    for size in (28, 66, -64):
        refused("at least 32 pixels, a multiple of 4", load, "collages", size=size)
    for things in (1, 9):
        refused(f"2 to 8 things, got {things}", load, "collages", things=things)
    refused("pictures must be at least 1", load, "collages", pictures=-1)
    for things in (2, 8):
        assert len(load("collages", things=things)[0].things) == things


def test_single_things_are_those_of_the_emoji_and_stamps():
    """Each alone in the middle of the light grey, named as its emoji; of photographs all variants."""
    photographs, drawings = single_things("stamps"), single_things("fluent-flat", size=48)
    assert [thing.noun for thing in drawings] == list(STAMPS)
    assert [thing.noun for thing in photographs] == [noun for noun, names in STAMPS.items() for _ in names]
    named = {*load("emoji", "unseen-style").captions, *load("emoji", "unseen-both").captions}
    assert {thing.name for thing in drawings} <= named
    for side, things in ((64, photographs), (48, drawings)):
        images = torch.stack([thing.image for thing in things])
        assert images.shape == (len(things), 3, side, side)
        assert images.aminmax().min >= 0
        assert images.aminmax().max <= 1
        for off in ((images - 0.8).abs().amax(1) > 0.02).unbind():
            for line in (off.any(0), off.any(1)):  # as much ground on either side
                covered = line.nonzero()[:, 0]
                assert abs(int(covered[0]) - (side - 1 - int(covered[-1]))) <= 3
