"""Captions beside what people wrote, as pycocoevalcap counts, and beside what is true of a scene."""

import random

import pytest
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge
from testing_tools import refused

from mmlearn.data.synthetic.layouts import RELATIONS, SHAPES
from mmlearn.data.synthetic.scenes import Scenes
from mmlearn.evaluation.captions import (
    bleu,
    check_facts,
    cider_d,
    cider_d_of_each,
    document_frequency,
    rouge_l,
    stated_facts,
    well_formed,
)

WORDS = ["a", "the", "red", "blue", "large", "small", "star", "ring", "left", "right", "above", "of", "is"]


def corpus(seed, images=12, empty=True):
    """Random texts; candidates are at times a reference, a part of one, one word, or nothing."""
    draw = random.Random(seed)

    def text(least=1, most=12):
        return " ".join(draw.choice(WORDS) for _ in range(draw.randint(least, most)))

    candidates, references = [], []
    for i in range(images):
        texts = [text() for _ in range(draw.randint(1, 5))]
        words = texts[0].split()
        candidates.append(
            [text(0 if empty else 1), texts[-1], " ".join(words[: len(words) // 2 + 1]), text(6, 20)][i % 4]
        )
        references.append(texts)
    return candidates, references


def published(measure, candidates, references):
    texts = {i: list(each) for i, each in enumerate(references)}
    said = {i: [text] for i, text in enumerate(candidates)}
    quiet = dict(verbose=0) if isinstance(measure, Bleu) else {}
    return measure.compute_score(texts, said, **quiet)[0]


@pytest.mark.parametrize("seed", range(8))
def test_as_pycocoevalcap(seed):
    given = corpus(seed, images=1 + 5 * seed)
    for n, expected in enumerate(published(Bleu(4), *given), start=1):
        assert bleu(*given, n=n) == pytest.approx(expected, rel=1e-9)
    assert rouge_l(*given) == pytest.approx(published(Rouge(), *given), rel=1e-9)
    assert cider_d(*given) == pytest.approx(published(Cider(), *given), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("candidates", [[""] * 3, ["a"] * 3, ["no word of them", "", "a a a a a a a a"]])
def test_as_pycocoevalcap_where_nothing_or_little_fits(candidates):
    given = candidates, [["a red star", "a star"], ["the ring"], ["a a", "blue"]]
    assert bleu(*given) == pytest.approx(published(Bleu(4), *given)[3], rel=1e-9, abs=1e-15)
    assert rouge_l(*given) == pytest.approx(published(Rouge(), *given), rel=1e-9)
    assert cider_d(*given) == pytest.approx(published(Cider(), *given), rel=1e-9, abs=1e-12)


def test_captions_of_scenes_as_pycocoevalcap():
    samples = [Scenes("val")[i] for i in range(40)]
    given = [sample.caption for sample in samples[1:]], [[sample.caption] for sample in samples[:-1]]
    assert bleu(*given) == pytest.approx(published(Bleu(4), *given)[3], rel=1e-9)
    assert rouge_l(*given) == pytest.approx(published(Rouge(), *given), rel=1e-9)
    assert cider_d(*given) == pytest.approx(published(Cider(), *given), rel=1e-9)


def test_what_is_written_already_is_best():
    _, references = corpus(0)
    references = [[text for text in texts if len(text.split()) > 3] or ["a star of red"] for texts in references]
    same, alone = [texts[0] for texts in references], [[texts[0]] for texts in references]
    assert bleu(same, references) == pytest.approx(1)
    assert rouge_l(same, references) == pytest.approx(1)
    assert cider_d(same, alone) == pytest.approx(10)
    worse = [text + " the" for text in same]
    for measure in (bleu, rouge_l, cider_d):
        assert measure(worse, alone) < measure(same, alone)


def test_the_order_of_images_and_of_references_changes_nothing():
    candidates, references = corpus(3)
    back = candidates[::-1], [texts[::-1] for texts in references[::-1]]
    for measure in (bleu, rouge_l, cider_d):
        assert measure(*back) == pytest.approx(measure(candidates, references))


def test_what_cannot_be():
    for measure in (bleu, rouge_l, cider_d):
        refused("got 0 candidates and 0", measure, [], [])
        refused("got 2 candidates and 1", measure, ["a", "b"], [["a"]])
        refused("got one text and 1", measure, "a", [["a"]])
        refused("references of picture 1 are a list", measure, ["a", "b"], [["a"], []])
        refused("references of picture 0 are a list", measure, ["a", "b"], ["a", "b"])


def test_each_caption_as_pycocoevalcap():
    """Its scorer also gives one number a picture; and with the rarity of a corpus a few of them are judged alike."""
    candidates, references = corpus(5, images=20)
    texts, said = dict(enumerate(references)), {i: [text] for i, text in enumerate(candidates)}
    expected = Cider().compute_score(texts, said)[1]
    each = cider_d_of_each(candidates, references)
    assert each == pytest.approx(list(expected), rel=1e-9, abs=1e-12)
    rare = document_frequency(references)
    assert rare.count == 20
    assert rare.images["red",] == sum(any("red" in text.split() for text in texts) for texts in references)
    assert cider_d_of_each(candidates[3:6], references[3:6], rare) == each[3:6]
    assert cider_d_of_each(candidates[3:6], references[3:6]) != each[3:6]
    refused("got 2 candidates and 1", cider_d_of_each, ["a", "b"], [["a"]], rare)


# Facts.


def thing(words):
    return frozenset(words.split())


def test_what_a_text_states():
    one, other = thing("small striped red star"), thing("large dotted blue ring")
    said = "a small striped red star left of a large dotted blue ring"
    assert stated_facts(said) == {(one,), (other,), (one, "left of", other)}
    turned = "The large dotted blue ring, is right of the small striped red star."
    assert stated_facts(turned) == stated_facts(said)  # the same seen from the other side
    assert stated_facts("a red star below a ring above a heart") == {
        (thing("red star"),),
        (thing("ring"),),
        (thing("heart"),),
        (thing("ring"), "above", thing("red star")),
        (thing("ring"), "above", thing("heart")),
    }
    assert stated_facts("") == stated_facts("left of, above red and the blue") == set()
    assert stated_facts("a star a star") == {(thing("star"),)}
    assert stated_facts("red left of a star") == {(thing("star"),)}  # what stands nowhere has no colour


@pytest.mark.parametrize("split", ["train", "composition"])
def test_own_captions_state_three_facts_that_are_true(split):
    samples = [Scenes(split)[i] for i in range(200)]
    assert check_facts([sample.caption for sample in samples], samples) == (600, 0, 0)


def test_facts_against_the_graph_one_by_one():
    """Whatever two objects are named and however they are said to stand."""
    for sample in (Scenes("val")[i] for i in range(6)):
        edges = set(sample.graph)
        for i, one in enumerate(sample.objects):
            for j, other in enumerate(sample.objects):
                for relation in RELATIONS:
                    if one.name == other.name:
                        continue
                    twins = sum(item.name in (one.name, other.name) for item in sample.objects) > 2
                    facts = check_facts([f"a {one.name} {relation} a {other.name}"], [sample])
                    if not twins:
                        assert facts.true == 2 + ((i, relation, j) in edges)
                    assert facts.true + facts.made_up == 3


def test_facts_that_are_made_up_or_missing():
    sample = Scenes("val")[0]
    subject, relation, other = sample.relation
    one, two = sample.objects[subject], sample.objects[other]
    opposite = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}[relation]
    assert check_facts([f"a {one.name} {opposite} a {two.name}"], [sample]) == (2, 1, 1)
    assert check_facts([f"a {one.name}"], [sample]) == (1, 2, 0)
    assert check_facts([""], [sample]) == (0, 3, 0)
    absent = next(shape for shape in SHAPES if all(item.shape != shape for item in sample.objects))
    assert check_facts([f"a {absent}"], [sample]) == (0, 3, 1)
    crossed = f"{one.colour} {two.shape}"  # each word is right of some object, and no object has both
    facts = check_facts([f"a {one.size} {one.texture} {crossed}"], [sample])
    assert facts.made_up == all(
        not {one.size, one.texture, one.colour, two.shape} <= set(item.name.split()) for item in sample.objects
    )


def test_scenes_alone_have_facts():
    refused("one caption of each scene; got 2 captions and 1", check_facts, ["a", "b"], [Scenes("val")[0]])
    refused("must have a graph", check_facts, ["a"], [object()])


# Whether a text is a sentence of scenes.


@pytest.mark.parametrize("split", ["train", "composition"])
def test_captions_of_scenes_are_well_formed(split):
    scenes = Scenes(split, size=32, length=200)
    assert all(well_formed(scenes[i].caption) for i in range(200))
    assert {scenes[i].caption.split()[0] for i in range(200)} == {"a", "the"}


def test_what_may_be_said_and_need_not_be_true():
    thing = "large solid red star"
    assert well_formed(f"a {thing} above a {thing}")
    assert well_formed(f"  The {thing} is  LEFT of the {thing} ")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a large solid red star",
        "a large solid red star above a large solid blue",  # breaks off
        "a large solid red star above a large solid blue ring ring",  # goes on
        "a large solid red star above the large solid blue ring",  # both articles
        "the large solid red star above the large solid blue ring",  # no verb
        "a solid large red star above a large solid blue ring",  # another order
        "a large solid red star near a large solid blue ring",  # no relation of scenes
        "a large solid redish star above a large solid blue ring",
        "a large solid red star above a large solid blue ring. a",
    ],
)
def test_other_texts_are_not_well_formed(text):
    assert not well_formed(text)
