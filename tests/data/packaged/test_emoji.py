"""The packaged emoji: what is in each split, and that nothing leaks between them."""

import hashlib
import unicodedata

import pytest
import torch
from testing_tools import refused

from mmlearn.data.packaged.archives import read_json
from mmlearn.data.packaged.emoji import FLUENT, KNOWN, Emoji, OpenMoji, emoji_texts, held_out

COUNTS = {
    "train": {"noto": 1444, "noto-v1": 1072, "twemoji": 1444},
    "unseen-style": {"fluent-flat": 1392, "fluent-3d": 1366},
    "unseen-concept": {"noto": 200, "noto-v1": 142, "twemoji": 200},
    "unseen-both": {"fluent-flat": 194, "fluent-3d": 191},
}
OPENMOJI = {"unseen-style": {"openmoji": 1444}, "unseen-both": {"openmoji": 200}}


@pytest.fixture(scope="module")
def splits():
    return {split: Emoji(split) for split in COUNTS} | {f"openmoji {split}": OpenMoji(split) for split in OPENMOJI}


@pytest.mark.parametrize("split", COUNTS)
def test_how_many_images_each_style_has(splits, split):
    found = [style for style, _ in splits[split].entries]
    assert {style: found.count(style) for style in dict.fromkeys(found)} == COUNTS[split]
    assert len(splits[split]) == len(splits[split].captions) == sum(COUNTS[split].values())


@pytest.mark.parametrize("split", OPENMOJI)
def test_openmoji_is_complete(splits, split):
    assert {style: len(splits[f"openmoji {split}"]) for style, _ in splits[f"openmoji {split}"].entries} == OPENMOJI[
        split
    ]


def test_no_image_is_in_two_splits(splits):
    pairs = [pair for data in splits.values() for pair in data.entries]
    assert len(pairs) == len(set(pairs)) == 7645 + 1644


def test_what_is_unseen_is_not_in_train(splits):
    styles = {name: {style for style, _ in data.entries} for name, data in splits.items()}
    concepts = {name: {concept for _, concept in data.entries} for name, data in splits.items()}
    for name in splits:
        if "concept" in name or "both" in name:
            assert not concepts[name] & concepts["train"], name
        if "style" in name or "both" in name:
            assert not styles[name] & styles["train"], name
            assert not any("fluent" in style for style in styles["train"])
        if "both" not in name and "concept" not in name:
            assert concepts[name] <= concepts["train"], name


def test_the_held_out_concepts_never_change():
    assert len(held_out()) == 200
    digest = hashlib.sha256(" ".join(sorted(held_out())).encode()).hexdigest()
    assert digest.startswith("e30f7b433ad87a53"), (
        "Every recorded result was measured on other concepts; do not change them."
    )


def test_concepts_that_differ_little_are_held_out_together():
    names = {named["name"]: concept for concept, named in read_json("emoji", "names.json.gz")["en"].items()}
    held = {name: concept in held_out() for name, concept in names.items()}
    pairs = [(name, name.replace("woman ", "man ", 1)) for name in names if name.startswith("woman ")]
    pairs += [(name, name.replace("woman ", "", 1)) for name in names if name.startswith("woman ")]
    pairs += [(name, name.split(":")[0]) for name in names if ":" in name]
    pairs = [(one, other) for one, other in pairs if other in names]
    assert len(pairs) > 150
    assert any(held[one] for one, _ in pairs)
    assert [pair for pair in pairs if held[pair[0]] != held[pair[1]]] == []
    clocks = [name for name in names if name.endswith(("o’clock", "-thirty"))]
    assert len(clocks) == 24
    assert len({held[name] for name in clocks}) == 1


def test_every_image_can_be_drawn_and_shows_something(splits):
    for name, data in splits.items():
        for start in range(0, len(data), 256):
            images = torch.stack([data[i].image for i in range(start, min(start + 256, len(data)))])
            assert images.shape[1:] == (3, 64, 64)
            assert images.min() >= 0
            assert images.max() <= 1
            assert images.std((2, 3)).amax(1).min() > 0.005, (name, start)
            assert (images - 0.8).abs().mean((1, 2, 3)).min() > 0.002, (name, start)


def test_what_a_sample_holds(splits):
    data = splits["train"]
    sample = data[data.entries.index(("noto", "1f600"))]
    assert (sample.caption, sample.concept, sample.style) == ("grinning face", "1f600", "noto")
    assert sample.category == "Smileys & Emotion"
    assert {"happy", "smile"} <= set(sample.keywords)
    torch.testing.assert_close(sample.image[:, 0, 0], torch.full((3,), 0.8))  # the ground, beside the face
    red, green, blue = sample.image[:, 20, 32]  # the forehead
    assert red > 0.9
    assert green > 0.6
    assert blue < 0.5


@pytest.mark.parametrize(
    ("language", "caption", "script"),
    [
        ("fr", "tête de chien", "LATIN"),
        ("de", "Hundegesicht", "LATIN"),
        ("ru", "морда собаки", "CYRILLIC"),
        ("zh", "狗脸", "CJK"),
        ("ja", "イヌの顔", "KATAKANA"),
        ("hi", "कुत्ते का चेहरा", "DEVANAGARI"),
        ("ka", "ძაღლის სახე", "GEORGIAN"),
    ],
)
def test_captions_in_other_languages(language, caption, script):
    data = Emoji("unseen-concept", language=language)
    assert data.captions[[concept for _, concept in data.entries].index("1f436")] == caption
    assert unicodedata.name(caption[0]).startswith(script)


def test_every_language_names_nearly_everything():
    names = read_json("emoji", "names.json.gz")
    assert len(names) == 30
    assert next(iter(names)) == "en"
    concepts = set(read_json("emoji", "concepts.json"))
    for language, named in names.items():
        assert set(named) <= concepts
        assert len(named) >= (1641 if language in ("hi", "id", "sw") else 1644), language
        assert all(entry["name"].strip() and entry["keywords"] for entry in named.values()), language
        assert len({entry["name"] for entry in named.values()}) == len(named), language  # each caption has one concept


def test_a_concept_without_a_name_is_left_out():
    nameless = set(read_json("emoji", "names.json.gz")["en"]) - set(read_json("emoji", "names.json.gz")["id"])
    assert len(nameless) == 3
    data = Emoji("train", language="id")
    assert len(data) == 3951
    assert not nameless & {concept for _, concept in data.entries}


def test_styles_narrow_a_split(splits):
    data = Emoji("train", styles=["twemoji", "noto", "twemoji"])
    assert data.styles == ("twemoji", "noto")
    assert len(data) == 2888
    assert set(data.entries) < set(splits["train"].entries)


@pytest.mark.parametrize("hold_out", [(), ("twemoji",), FLUENT, ("noto", "noto-v1")])
def test_other_styles_are_held_out(hold_out):
    train, concept = (Emoji(split, hold_out=hold_out) for split in ("train", "unseen-concept"))
    known = {"noto", "noto-v1", "twemoji", "fluent-flat", "fluent-3d"} - set(hold_out)
    assert {style for style, _ in train.entries} == {style for style, _ in concept.entries} == known
    everything = [*train.entries, *concept.entries]
    if hold_out:
        for split in ("unseen-style", "unseen-both"):
            unseen = Emoji(split, hold_out=hold_out)
            assert {style for style, _ in unseen.entries} == set(hold_out)
            everything += unseen.entries
    assert len(set(everything)) == len(everything) == sum(sum(count.values()) for count in COUNTS.values())


def test_five_styles_to_train_on_leave_openmoji():
    refused("'unseen-style' of emoji is empty; load emoji-openmoji", Emoji, "unseen-style", hold_out=())
    refused("no style 'twemoij' to hold out; did you mean 'twemoji'", Emoji, hold_out=["twemoij"])
    refused("same drawings: hold out both or neither", Emoji, hold_out=["fluent-3d"])
    refused("none is left to train on", Emoji, hold_out=[*KNOWN, *FLUENT])
    assert len(Emoji("train", hold_out=())) == 3960 + 2758


def test_texts_are_names_with_keywords_and_their_category():
    (texts, kinds), (unseen, unseen_kinds) = emoji_texts("es"), emoji_texts("es", unseen=True)
    assert (len(texts), len(unseen)) == (len(kinds), len(unseen_kinds)) == (1444, 200)
    assert not set(texts) & set(unseen)
    assert set(kinds) == set(unseen_kinds) == set(read_json("emoji", "concepts.json").values())
    assert dict(zip(*emoji_texts()))["dog: animal, animals, dog, dogs, pet"] == "Animals & Nature"
    named = read_json("emoji", "names.json.gz")["es"].values()
    assert {*texts, *unseen} == {f"{it['name']}: {', '.join(it['keywords'])}" for it in named}


def test_texts_of_a_language_that_is_not_there():
    refused("emoji has no names in 'xx'", emoji_texts, "xx")
