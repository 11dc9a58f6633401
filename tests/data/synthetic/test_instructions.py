"""Instructions: the sample decides which, most are questions, and the response is what is true of the picture."""

import pickle

import pytest
import torch
from testing_tools import close, refused

from mmlearn.data import load
from mmlearn.data.synthetic.instructions import LEARNED, PREFIXES, WORDINGS, Instruct, instruct, wording
from mmlearn.recipes import REPLY


@pytest.fixture(scope="module")
def scenes():
    data = load("scenes", "train", size=32)
    return [data[i] for i in range(200)]


def test_the_sample_decides_and_both_tasks_occur_in_both_wordings(scenes):
    asked = [instruct(sample) for sample in scenes]
    assert [one.caption for one in asked] == [instruct(sample).caption for sample in scenes]
    questions = sum(one.task == "answer" for one in asked) / len(asked)
    assert 0.6 < questions < 0.9
    seen = set()
    for one, sample in zip(asked, scenes):
        forms = [form.format(question=sample.question.text) for form in WORDINGS[one.task]]
        seen.add((one.task, forms.index(one.prompt)))
        assert one.response == {"answer": sample.question.answer, "describe": sample.caption}[one.task]
    assert seen == {(task, number) for task in ("answer", "describe") for number in range(LEARNED)}


def test_wordings_that_are_kept_for_tests_are_asked_by_number(scenes):
    for number in range(LEARNED, 4):
        assert instruct(scenes[0], "describe", number).prompt == WORDINGS["describe"][number]
    refused("There is no wording 4 of 'answer'", wording, "answer", 4)
    refused("There is no wording 0 of 'sing'", instruct, scenes[0], "sing", 0)


def test_a_sample_becomes_its_instruction_and_response(scenes):
    one = REPLY.ask(scenes[3])
    assert one.caption == f"{one.prompt} {one.response}"
    assert one.image is scenes[3].image
    with pytest.raises(ValueError, match="learns from questions with answers"):
        REPLY.ask(type("Plain", (), {"caption": "a ring"})())


def test_where_the_caption_is_made_of_the_question_all_are_questions():
    data = load("easy-vqa", "train")
    assert {instruct(data[i]).task for i in range(40)} == {"answer"}


# One of many tasks.


@pytest.mark.parametrize("task", ["caption", "vqa", "grounding", "naming", "infilling"])
def test_each_task_comes_in_the_wordings_that_are_learned(scenes, task):
    found = [Instruct(task)(sample) for sample in scenes]
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
    assert [Instruct(task)(sample).prompt for sample in scenes] == [one.prompt for one in found]
    assert torch.equal(pickle.loads(pickle.dumps(found[0])).image, scenes[0].image)


def test_a_form_of_ones_own(scenes):
    assert Instruct("vqa", PREFIXES["vqa"])(scenes[0]).prompt == f"vqa: {scenes[0].question.text}"


def test_what_is_unknown_is_told(scenes):
    refused("There is no task 'sing'; known are answer, describe, caption", Instruct("sing"), scenes[0])
    refused("There is no wording 4 of 'vqa'", wording, "vqa", 4)
    plain = type("Plain", (), {"caption": "a ring"})()
    refused("grounding learns from objects with boxes", Instruct("grounding"), plain)
    refused("vqa learns from questions", Instruct("vqa"), plain)
