"""A spoken caption looks for its text: questions, controls and scores, each by hand."""

import math

import pytest
import torch
from testing_tools import close, seeded

from mmlearn.evaluation import caption_question, caption_recalls, ctc_scores, length_scores, mean_recall, recall_table
from mmlearn.objectives import ctc_log_likelihood

SAID = [letter * length for length in range(1, 16) for letter in "ab"] + ["aaa", "bb"]  # two clips say what others do


def test_a_question_has_each_text_once_and_the_ten_of_nearest_length():
    question = caption_question(SAID, seeded())
    assert len(question.texts) == len(set(question.texts)) == 30
    assert question.positives.shape == (32, 30)
    assert question.positives.sum(1).tolist() == [1] * 32
    for said, positives, alike in zip(SAID, question.positives, question.alike.tolist()):
        right = question.texts.index(said)
        assert positives[right]
        assert alike[0] == right
        assert len(set(alike)) == 10
        away = sorted(abs(len(text) - len(said)) for text in question.texts)
        assert sorted(abs(len(question.texts[i]) - len(said)) for i in alike) == away[:10]
    assert torch.equal(caption_question(SAID, seeded()).alike, question.alike)


def test_recalls_of_one_that_knows_and_of_one_that_does_not():
    question = caption_question(SAID, seeded())
    knows = caption_recalls(question.positives.float(), question)
    assert knows == {"R@1": 1, "R@10": 1, "of ten alike": 1}
    nothing = caption_recalls(torch.zeros(32, 30), question)
    assert nothing == pytest.approx({"R@1": 1 / 30, "R@10": 10 / 30, "of ten alike": 0.1})
    length = torch.tensor([[-abs(len(text) - len(said)) for text in question.texts] for said in SAID]).float()
    by_length = caption_recalls(length, question)
    assert by_length["R@10"] == 1
    assert by_length["R@1"] == pytest.approx(0.5)  # two texts of each length


@pytest.mark.parametrize("per_token", [True, False])
def test_scores_are_the_likelihoods_of_ctc(per_token):
    said = [torch.randn(frames, 5, generator=seeded(frames)).log_softmax(-1) for frames in (6, 9)]
    texts = [torch.tensor(text) for text in ([1], [2, 2], [3, 1, 4, 1])]
    scores = ctc_scores(said, texts, per_token=per_token)
    for row, frames in zip(scores, said):
        for score, text in zip(row, texts):
            expected = ctc_log_likelihood(frames[None], text[None])[0]
            close(score, expected / len(text) if per_token else expected, 1e-4)


def test_a_text_that_no_path_reads_is_last_and_no_infinity():
    said = [torch.zeros(2, 3).log_softmax(-1)]
    scores = ctc_scores(said, [torch.tensor([1, 1]), torch.tensor([1, 2])])
    assert scores[0, 0] == -10_000
    close(scores[0, 1], torch.tensor(math.log(1 / 9) / 2))


def test_length_alone_expects_what_a_line_through_other_clips_says():
    known = torch.tensor([[10.0, 2.0], [40.0, 8.0], [80.0, 16.0]])  # five frames a letter
    scores = length_scores(known, torch.tensor([50.0, 20.0]), torch.tensor([4.0, 10.0, 20.0]))
    assert scores.argmax(1).tolist() == [1, 0]
    close(scores[0], -torch.tensor([math.log(10 / 4), 0, math.log(2)]), 1e-4)


def test_a_table_has_a_row_for_each_and_the_mean():
    found = {
        "by chance": {"es": {"R@1": 0.1}, "ru": {"R@1": 0.3}},
        "a listener with a long name": {"es": {"R@1": 1.0}, "ru": {"R@1": 0.5}},
    }
    head, first, second = recall_table(found, "R@1").splitlines()
    assert head.split() == ["R@1", "es", "ru", "mean"]
    assert first.split() == ["by", "chance", "0.100", "0.300", "0.200"]
    assert second.endswith("1.000   0.500   0.750")
    assert len(head) == len(first) == len(second)
    assert mean_recall(found["by chance"], "R@1") == pytest.approx(0.2)
    assert recall_table({"x": found["by chance"]}, "R@1").count("\n") == 1
