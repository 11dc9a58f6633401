"""Tasks about scenes: every label is worked out anew from the objects, and no text tells it."""

import re
from collections import Counter, defaultdict
from functools import cache

import numpy as np
import pytest
import torch
from testing_tools import close, refused

from mmlearn.data import Batches, Tokenizer
from mmlearn.data.fields import Image, Regions
from mmlearn.data.synthetic.drawing import COLOURS, SHAPES
from mmlearn.data.synthetic.layouts import HELD_OUT, RELATIONS
from mmlearn.data.synthetic.questions import ANSWERS, position
from mmlearn.data.synthetic.regions import SceneDetector
from mmlearn.data.synthetic.scene_tasks import NLVR, VQA, Entailment, Referring, task_collate
from mmlearn.data.synthetic.scenes import Scenes

TASKS = {"vqa": VQA, "nlvr": NLVR, "referring": Referring, "entailment": Entailment}
NUMBERS = {"one": 0, "two": 1, "three": 2, "four": 3}


@cache
def some(task, split="train", count=600):
    return task(split, size=32).__getitems__(range(count))


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train(sample.text for task in TASKS.values() for sample in some(task))


def digest(samples):
    return [
        (sample.text, sample.kind, sample.label, *(image.image.numpy().tobytes() for image in sample.images))
        for sample in samples
    ]


def by_kind(samples):
    kinds = defaultdict(list)
    for sample in samples:
        kinds[sample.kind].append(sample)
    return kinds


# All tasks.


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_splits_share_no_image(task):
    grounds = {split: {int(p.layout.ground[p.row]) for s in some(task, split, 60) for p in s.images}
               for split in task.splits}  # fmt: skip
    for one in task.splits:
        for other in task.splits:
            shared = {one, other} in ({"train", "skewed"}, {"test", "skewed-test"}, {"test", "changed-prior"})
            if one != other and not shared and {one, other} != {"skewed-test", "changed-prior"}:
                assert not grounds[one] & grounds[other]


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_training_never_shows_the_pairs_held_out(task):
    held_out = {(list(COLOURS)[colour], list(SHAPES)[shape]) for colour, shape in HELD_OUT}
    for sample in some(task):
        assert not held_out & {(item.colour, item.shape) for image in sample.images for item in image.objects}


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_all_kinds_occur_often(task):
    counts = Counter(sample.kind for sample in some(task))
    assert set(counts) == set(task.kinds)
    assert min(counts.values()) > 0.6 * 600 / len(task.kinds)
    assert {sample.task for sample in some(task)} == {task}


# Questions.


def test_questions_are_those_of_the_scenes():
    scenes = Scenes("test", size=32).__getitems__(range(50))
    for sample, scene in zip(some(VQA, "test"), scenes):
        kind, text, answer = scene.question
        assert (sample.text, sample.kind, ANSWERS[sample.label]) == (text, kind, answer)


def look(sample):
    """The answer to some kinds of questions, from the objects."""
    objects, text = sample.images[0].objects, sample.text
    if sample.kind == "exist":
        colour, shape = re.fullmatch(r"is there an? (\w+) (\w+)\?", text).groups()
        return "yes" if any((item.colour, item.shape) == (colour, shape) for item in objects) else "no"
    if sample.kind in ("size", "texture"):
        colour, shape = re.fullmatch(r"what \w+ is the (\w+) (\w+)\?", text).groups()
        (item,) = (item for item in objects if (item.colour, item.shape) == (colour, shape))
        return getattr(item, sample.kind)
    if sample.kind in ("colour", "shape"):
        row, column = re.search(r"row (\w+), column (\w+)\?", text).groups()
        (item,) = (item for item in objects if item.cell == 4 * NUMBERS[row] + NUMBERS[column])
        return getattr(item, sample.kind)
    return None


@pytest.mark.parametrize(
    ("split", "low", "high"), [("skewed", 0.72, 0.97), ("skewed-test", 0.72, 0.97), ("changed-prior", 0.03, 0.28)]
)
def test_priors_are_skewed_and_answers_still_true(split, low, high):
    samples = some(VQA, split, 900)
    for kind, of_kind in by_kind(samples).items():
        favoured = np.mean([ANSWERS[sample.label] in VQA.FAVOURED[kind] for sample in of_kind])
        assert low < favoured < high, kind
    seen = [sample for sample in samples if look(sample) is not None]
    assert len(seen) > 500
    assert [look(sample) for sample in seen] == [ANSWERS[sample.label] for sample in seen]


def blind_accuracy(train, test):
    """Of a guesser that knows the most frequent answer of each kind, and of each text where it has seen it."""
    answers = defaultdict(Counter)
    for sample in train:
        for key in (sample.kind, sample.text):
            answers[key][sample.label] += 1
    guesses = [answers.get(sample.text, answers[sample.kind]).most_common(1)[0][0] for sample in test]
    return np.mean([guess == sample.label for guess, sample in zip(guesses, test)])


def test_who_learns_the_prior_is_misled_by_the_changed_one():
    train = some(VQA, "skewed", 900)
    same, changed, plain = (
        blind_accuracy(train, some(VQA, split, 900)) for split in ("skewed-test", "changed-prior", "test")
    )
    assert same > plain + 0.1
    assert changed < plain - 0.1


# Two pictures.


def things(name):
    """Which attribute a plural names, and its value."""
    if name.endswith(" objects"):
        return "colour", name.removesuffix(" objects")
    return "shape", name.removesuffix("es") if name.removesuffix("es") in SHAPES else name.removesuffix("s")


def shown(sample):
    """How many of the things of the sentence the left and the right picture show, and the number it says."""
    pattern = {
        "both": r"both pictures show (?P<things>.+)",
        "one": r"only one picture shows (?P<things>.+)",
        "more": r"the left picture has more (?P<things>.+) than the right one",
        "total": r"there are (?P<number>\d+) (?P<things>.+) in the two pictures together",
    }[sample.kind]
    said = re.fullmatch(pattern, sample.text).groupdict()
    attribute, value = things(said["things"])
    assert value in COLOURS or value in SHAPES
    left, right = (sum(getattr(o, attribute) == value for o in image.objects) for image in sample.images)
    return left, right, said.get("number")


def truth(sample):
    left, right, number = shown(sample)
    return {
        "both": left > 0 and right > 0,
        "one": (left > 0) != (right > 0),
        "more": left > right,
        "total": str(left + right) == number,
    }[sample.kind]


def test_a_sentence_is_true_of_its_images_or_not_as_labelled():
    assert [truth(sample) for sample in some(NLVR)] == [sample.label == 1 for sample in some(NLVR)]
    assert all(one.layout is not None for sample in some(NLVR) for one in sample.images)
    assert all(len(sample.images) == 2 for sample in some(NLVR))


def test_each_sentence_comes_true_and_false():
    samples = some(NLVR)
    for false, true in zip(samples[::2], samples[1::2]):
        assert (false.text, false.kind, false.label, true.label) == (true.text, true.kind, 0, 1)
    assert len({sample.text for sample in samples}) > 100


def test_false_sentences_are_near_misses():
    false = by_kind(sample for sample in some(NLVR) if sample.label == 0)
    assert all((left > 0) != (right > 0) for left, right, _ in map(shown, false["both"]))
    assert all(left < right for left, right, _ in map(shown, false["more"]))
    assert all(left + right > 0 for left, right, _ in map(shown, false["total"]))
    neither = [left + right == 0 for left, right, _ in map(shown, false["one"])]
    assert 0.3 < np.mean(neither) < 0.7


def test_one_image_is_not_enough():
    """A guesser that sees how many such things the left picture shows, and the kind, is far from sure."""
    cases = defaultdict(Counter)
    for sample in some(NLVR, "train", 1200):
        left, _, number = shown(sample)
        cases[sample.kind, left, number][sample.label] += 1
    assert 600 < sum(max(case.values()) for case in cases.values()) < 0.85 * 1200


def test_where_no_pair_fits_the_sentence_compares():
    counts = np.zeros((12, 24), int)
    counts[:, 3] = 1 + np.arange(12) % 2  # every picture shows them, so no sentence with "both" is false
    data = NLVR()
    for label in (0, 1):
        text, kind, (left, right) = data._choose(counts, np.full(6, 0.1, np.float32), label)
        assert (kind, text) == ("more", "the left picture has more lime objects than the right one")
        assert (counts[left, 3] > counts[right, 3]) == bool(label)


# Referring expressions.


def fits(sample, i):
    """Whether the expression fits object i."""
    objects = sample.images[0].objects
    if sample.kind == "place":
        row, column = re.fullmatch(r"the object in row (\w+), column (\w+)", sample.text).groups()
        return objects[i].cell == 4 * NUMBERS[row] + NUMBERS[column]
    name = f"the {objects[i].colour} {objects[i].shape}"
    if sample.kind == "attributes":
        return sample.text == name
    one, predicate, other = re.fullmatch(rf"(the \w+ \w+) ({'|'.join(RELATIONS)}) (the \w+ \w+)", sample.text).groups()
    landmarks = [j for j, item in enumerate(objects) if f"the {item.colour} {item.shape}" == other]
    assert len(landmarks) == 1
    return name == one and (i, predicate, landmarks[0]) in sample.images[0].graph


def test_an_expression_fits_one_object_and_no_other():
    for sample in some(Referring):
        assert [fits(sample, i) for i in range(len(sample.images[0].objects))].index(True) == sample.label
        assert sum(fits(sample, i) for i in range(len(sample.images[0].objects))) == 1


def test_a_relation_is_needed_where_one_is_given():
    for sample in by_kind(some(Referring))["relation"]:
        one = sample.images[0].objects[sample.label]
        assert sum((item.colour, item.shape) == (one.colour, one.shape) for item in sample.images[0].objects) > 1


def test_any_region_may_be_meant():
    counts = Counter(sample.label for sample in some(Referring))
    assert set(counts) == set(range(9))
    assert max(counts.values()) < 2 * 600 / 9


# Entailment.


def covered(image):
    """Which cells are one flat grey."""
    cells = image.image.unfold(1, 8, 8).unfold(2, 8, 8).reshape(3, 16, 64)
    return ((cells == 0.5).all(2).all(0)).nonzero()[:, 0].tolist()


def test_labels_are_what_the_images_say():
    for sample in some(Entailment):
        (image,) = sample.images
        row, column, value = re.fullmatch(
            r"the object in row (\w+), column (\w+) is (?:an? )?(\w+)", sample.text
        ).groups()
        cell = 4 * NUMBERS[row] + NUMBERS[column]
        there = [item for item in image.objects if item.cell == cell]
        label = Entailment.labels[sample.label]
        if label == "neutral":
            assert cell in covered(image)
            assert not there
        else:
            assert cell not in covered(image)
            assert (getattr(there[0], sample.kind) == value) == (label == "entailment")
    assert "an arrow" in {sample.text.rpartition(" is ")[2] for sample in some(Entailment)}


def test_each_sentence_comes_with_every_label():
    samples = some(Entailment)
    for three in zip(samples[::3], samples[1::3], samples[2::3]):
        assert len({(sample.text, sample.kind) for sample in three}) == 1
        assert [sample.label for sample in three] == [0, 1, 2]
    assert len({sample.text for sample in samples}) > 120


def test_four_cells_are_covered_and_two_objects_gone_whatever_the_label():
    whole = {}
    for sample in some(Entailment):
        (image,) = sample.images
        cells = covered(image)
        assert len(cells) == 4
        assert not set(cells) & {item.cell for item in image.objects}
        assert len(image.objects) in (6, 7)
        whole.setdefault(sample.label, []).append(len(image.objects))
    close(torch.tensor([np.mean(counts) for counts in whole.values()]), torch.full((3,), 6.5).double(), 0.12)


def test_what_is_covered_is_two_objects_and_two_empty_cells():
    scenes = Scenes(size=24).__getitems__(range(20))
    for number, sample in enumerate(some(Entailment)[:60]):
        (image,), scene = sample.images, scenes[number // 3]
        shown, whole = ({item.cell: item for item in each.objects} for each in (image, scene))
        gone = whole.keys() - shown.keys()
        assert len(gone) == 2
        assert gone < set(covered(image))
        assert shown.keys() < whole.keys()
        # All but the object that is spoken of is as it was, and the caption still names what is there.
        changed = [cell for cell in shown if shown[cell].name != whole[cell].name]
        assert all(f"the object {position(cell)} is" in sample.text for cell in changed)
        assert image.caption == scene.caption
        names = [each.objects[i].name for each in (image, scene) for i in each.relation[::2]]
        assert names[:2] == names[2:]
        assert all([item.name for item in image.objects].count(name) == 1 for name in names)


def test_the_image_alone_does_not_tell_entailment_from_contradiction():
    """What the sentence says of its object is as often shown, and as often in any relation to the other objects."""
    alone, samples = Counter(), some(Entailment, "train", 3000)
    for sample in samples:
        (image,), kind = sample.images, sample.kind
        cell = next((k for k in range(16) if f"the object {position(k)} is" in sample.text), None)
        for item in image.objects:
            if item.cell == cell:
                others = [getattr(other, kind) for other in image.objects if other is not item]
                alone[sample.label] += getattr(item, kind) in others
    assert alone[0] > 200
    assert abs(alone[0] - alone[2]) < 4 * (2 * alone[0]) ** 0.5


def test_what_is_covered_is_in_no_region():
    samples = some(Entailment)[:60]
    found = SceneDetector()([sample.images[0] for sample in samples])
    for sample, boxes, mask in zip(samples, found["boxes"], found["region_mask"]):
        close(boxes[mask], sample.images[0].boxes / 32, 1e-6)
        assert sample.images[0].masks.shape[0] == mask.sum()


# Batches.


def test_batches_hold_texts_targets_and_kinds(tokenizer):
    names = {"vqa": "answer", "nlvr": "label", "referring": "referred", "entailment": "label"}
    for name, task in TASKS.items():
        samples = some(task)[:20]
        batch = task_collate(tokenizer, (Image((0.1, 0.2, 0.3), (0.5, 0.4, 0.3)),))(samples)
        tokens, mask = tokenizer([sample.text for sample in samples])
        longest = int(mask.sum(1).max())
        assert torch.equal(batch["tokens"], tokens[:, :longest])
        assert torch.equal(batch["mask"], mask[:, :longest])
        assert batch[names[name]].tolist() == [sample.label for sample in samples]
        assert batch[names[name]].dtype == torch.int64
        assert [task.kinds[kind] for kind in batch["kind"].tolist()] == [sample.kind for sample in samples]
        pixels = batch["image"] * torch.tensor([0.5, 0.4, 0.3])[:, None, None]
        pixels = pixels + torch.tensor([0.1, 0.2, 0.3])[:, None, None]
        images = torch.stack([torch.stack([image.image for image in sample.images]) for sample in samples])
        close(pixels, images if name == "nlvr" else images[:, 0], 1e-6)
        extra = {"referred_box"} if name == "referring" else set()
        assert batch.keys() == {"image", "tokens", "mask", "kind", names[name]} | extra


def test_two_images_are_two_along_an_axis(tokenizer):
    samples = some(NLVR)[:10]
    detector = SceneDetector(0.1)
    batch = task_collate(tokenizer, (Image(), Regions(detector)))(samples)
    assert batch["image"].shape == (10, 2, 3, 32, 32)
    assert batch["region_mask"].shape == (10, 2, 9)
    for side in (0, 1):
        found = detector([sample.images[side] for sample in samples])
        p = found["boxes"].shape[1]
        for name in ("regions", "boxes", "region_mask", "region_classes"):
            assert torch.equal(batch[name][:, side, :p], found[name])


def test_the_referred_box_is_the_referred_regions(tokenizer):
    batch = task_collate(tokenizer)(some(Referring)[:50])
    close(batch["referred_box"], batch["boxes"][torch.arange(50), batch["referred"]], 1e-6)
    assert batch["region_mask"][torch.arange(50), batch["referred"]].all()


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_who_is_blind_gets_the_same_image_with_every_text(tokenizer, task):
    samples = some(task)[:30]
    seeing, blind = (task_collate(tokenizer, blind=blind)(samples) for blind in (False, True))
    images = ("image", "regions", "boxes", "region_mask", "region_classes")
    for name in images:
        assert blind[name].shape == seeing[name].shape
        assert blind[name].dtype == seeing[name].dtype
        assert (blind[name] == blind[name][:1]).all()
        assert not torch.equal(blind[name], seeing[name]) or name == "region_mask"
    for name in seeing.keys() - set(images):
        assert torch.equal(blind[name], seeing[name])
    assert torch.equal(blind["boxes"].flatten(0, -2)[0], torch.tensor([0.0, 0, 1, 1]))
    assert blind["region_mask"].all()
    close(blind["region_classes"].sum(-1), torch.ones(blind["region_mask"].shape))


def test_batches_of_tasks_are_the_same_again(tokenizer):
    data = Batches(Referring(size=24, length=40), task_collate(tokenizer, (Regions(SceneDetector(0.2)),)), 10)
    one, again = data[3], data[3]
    assert all(torch.equal(one[name], again[name]) for name in one)


def test_a_batch_is_of_one_task(tokenizer):
    collate = task_collate(tokenizer)
    refused("at least one sample; got none", collate, [])
    refused("samples of one task; got samples of 2 tasks", collate, [some(VQA)[0], some(Referring)[0]])
