"""Orders: the sample decides the wording, boxes are of unmistakable objects, and what is unknown is told."""

import pickle

import pytest
import torch
from testing_tools import close, refused

from mmlearn.data import load
from mmlearn.data.made.orders import LEARNED, PREFIXES, WORDINGS, Order, wording


@pytest.fixture(scope="module")
def scenes():
    data = load("scenes", "train", size=32)
    return [data[i] for i in range(60)]


@pytest.mark.parametrize("task", WORDINGS)
def test_each_task_comes_in_the_wordings_that_are_learned(scenes, task):
    found = [Order(task)(sample) for sample in scenes]
    forms = set()
    for one, sample in zip(found, scenes):
        name = "" if task not in ("grounding", "naming") else f"{sample.objects[one.number].colour} "
        name += f"{sample.objects[one.number].shape}" if name else ""
        texts = [form.format(question=sample.question.text, phrase=name) for form in WORDINGS[task]]
        forms.add(texts.index(one.prompt))
        right = {"caption": sample.caption, "vqa": sample.question.answer, "naming": name}.get(task, "")
        assert one.response == right
        assert one.caption == f"{one.prompt} {right}".strip()
        assert one.image is sample.image
        if name:
            assert [f"{item.colour} {item.shape}" for item in sample.objects].count(name) == 1
            close(one.box * 32, sample.boxes[one.number].clamp(0, 32), 1e-4)
    assert forms == set(range(LEARNED))
    assert [Order(task)(sample).prompt for sample in scenes] == [one.prompt for one in found]
    assert torch.equal(pickle.loads(pickle.dumps(found[0])).image, scenes[0].image)


def test_a_form_of_ones_own(scenes):
    assert Order("vqa", PREFIXES["vqa"])(scenes[0]).prompt == f"vqa: {scenes[0].question.text}"


def test_what_is_unknown_is_told(scenes):
    refused("There is no task 'sing'; known are caption", Order("sing"), scenes[0])
    refused("There is no wording 4 of 'vqa'", wording, "vqa", 4)
    plain = type("Plain", (), {"caption": "a ring"})()
    refused("grounding learns from objects with boxes", Order("grounding"), plain)
    refused("vqa learns from questions", Order("vqa"), plain)
