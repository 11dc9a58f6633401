"""Instructions: the sample decides which, most are questions, and the response is what is true of the picture."""

import pytest
from testing_tools import refused

from mmlearn.data import load
from mmlearn.data.made.instructions import LEARNED, WORDINGS, instruct, wording
from mmlearn.recipes import REPLY


@pytest.fixture(scope="module")
def scenes():
    data = load("scenes", "train", size=32)
    return [data[i] for i in range(200)]


def test_the_sample_decides_and_both_tasks_occur_in_both_wordings(scenes):
    asked = [instruct(sample) for sample in scenes]
    assert asked == [instruct(sample) for sample in scenes]
    questions = sum(one.task == "answer" for one in asked) / len(asked)
    assert 0.6 < questions < 0.9
    seen = set()
    for one, sample in zip(asked, scenes):
        forms = [form.format(question=sample.question.text) for form in WORDINGS[one.task]]
        seen.add((one.task, forms.index(one.prompt)))
        assert one.response == {"answer": sample.question.answer, "describe": sample.caption}[one.task]
    assert seen == {(task, number) for task in WORDINGS for number in range(LEARNED)}


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
