"""Answers counted by hand, and guesses that know only which answers are common."""

from collections import Counter

import pytest
import torch
from testing_tools import refused
from torch import nn

from mmlearn.evaluation.answers import nlvr_accuracy, predict, prior_guesses, soft_scores, vqa_accuracy

KINDS = ("count", "colour", "exist")


def random_answers(n=60, answers=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    guess, answer = (torch.randint(0, answers, (n,), generator=generator) for _ in range(2))
    kind = [KINDS[i] for i in torch.randint(0, 3, (n,), generator=generator)]
    return guess, answer, kind


# Scores.


def test_an_answer_of_three_people_is_right():
    assert soft_scores(torch.tensor([0, 1, 2, 3, 4, 10])).tolist() == pytest.approx([0, 1 / 3, 2 / 3, 1, 1, 1])
    assert soft_scores(torch.zeros(2, 3, dtype=torch.long)).shape == (2, 3)
    refused("0 or more", soft_scores, torch.tensor([1, -1]))


# Accuracies.


@pytest.mark.parametrize("seed", range(3))
def test_accuracy_by_kind_of_question(seed):
    guess, answer, kind = random_answers(seed=seed)
    got = vqa_accuracy(guess, answer, kind)
    right = [a == b for a, b in zip(guess.tolist(), answer.tolist())]
    assert got["accuracy"] == pytest.approx(sum(right) / 60)
    assert set(got) == {"accuracy", *(f"accuracy/{name}" for name in KINDS)}
    for name in KINDS:
        mine = [one for one, other in zip(right, kind) if other == name]
        assert got[f"accuracy/{name}"] == pytest.approx(sum(mine) / len(mine))
    counts = Counter(kind)
    weighted = sum(got[f"accuracy/{name}"] * counts[name] for name in KINDS) / 60
    assert got["accuracy"] == pytest.approx(weighted)
    assert vqa_accuracy(guess, answer) == {"accuracy": got["accuracy"]}


def test_soft_answers_are_worth_their_score():
    guess, answer, kind = random_answers()
    scores = torch.rand(60, 5)
    got = vqa_accuracy(guess, scores, kind)
    assert got["accuracy"] == pytest.approx(sum(scores[i, a].item() for i, a in enumerate(guess)) / 60)
    hard = vqa_accuracy(guess, nn.functional.one_hot(answer, 5).float(), kind)
    assert hard == pytest.approx(vqa_accuracy(guess, answer, kind))


@pytest.mark.parametrize("seed", range(3))
def test_a_sentence_counts_where_all_its_pairs_are_right(seed):
    generator = torch.Generator().manual_seed(seed)
    label = torch.randint(0, 2, (50,), generator=generator)
    guess = torch.where(torch.rand(50, generator=generator) < 0.8, label, 1 - label)
    sentence = [f"sentence {i % 17}" for i in range(50)]
    got = nlvr_accuracy(guess, label, sentence)
    table = {}
    for name, one, other in zip(sentence, guess.tolist(), label.tolist()):
        table.setdefault(name, []).append(one == other)
    assert got["accuracy"] == pytest.approx(sum(map(sum, table.values())) / 50)
    assert got["consistency"] == pytest.approx(sum(map(all, table.values())) / 17)
    assert got["consistency"] < got["accuracy"]
    order = torch.randperm(50, generator=generator)
    assert nlvr_accuracy(guess[order], label[order], [sentence[i] for i in order]) == pytest.approx(got)
    each = nlvr_accuracy(guess, label, range(50))
    assert each["consistency"] == pytest.approx(each["accuracy"])


@pytest.mark.usefixtures("unchecked")
def test_counts_that_differ_and_none_at_all():
    guess, answer, kind = random_answers()
    none = guess[:0]
    for call in (
        lambda: vqa_accuracy(none, none),
        lambda: nlvr_accuracy(none, none, []),
        lambda: prior_guesses(kind, [], none),
    ):
        refused("at least one sample", call)
    for call, says in (
        (lambda: vqa_accuracy(guess, answer[1:]), "60 samples and 59 of answer"),
        (lambda: vqa_accuracy(guess, answer, kind[:-1]), "60 samples and 59 of kind"),
        (lambda: nlvr_accuracy(guess, answer, ["a"]), "60 samples and 1 of sentence"),
        (lambda: nlvr_accuracy(guess, answer[1:], kind), "60 samples and 59 of label"),
        (lambda: prior_guesses(kind, kind[1:], answer), "60 samples and 59 of train_kind"),
    ):
        refused(says, call)


# Guesses of a system.


class Counting(nn.Module):
    """Answers with its first token, and notes in what mode it was."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.modes = []

    def forward(self, **batch):
        self.modes.append((self.training, torch.is_grad_enabled(), len(batch["tokens"])))
        return nn.functional.one_hot(batch["tokens"], 10).float() + self.weight


def collate(samples):
    tokens = torch.tensor(samples)
    return {"tokens": tokens, "answer": tokens % 3, "soft": nn.functional.one_hot(tokens % 3, 10) / 2}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("batch_size", [1, 3, 7, 100])
def test_predict(batch_size, training):
    system = Counting().train(training)
    got = predict(system, [5, 2, 1, 0, 9, 4, 2], collate, "answer", batch_size=batch_size)
    assert got.guess.tolist() == [5, 2, 1, 0, 9, 4, 2]
    assert got.label.tolist() == [2, 2, 1, 0, 0, 1, 2]
    assert {mode[:2] for mode in system.modes} == {(False, False)}
    assert sum(mode[2] for mode in system.modes) == 7
    assert max(mode[2] for mode in system.modes) == min(batch_size, 7)
    assert system.training is training
    assert vqa_accuracy(*got)["accuracy"] == pytest.approx(4 / 7)
    soft = predict(system, [5, 2], collate, "soft")
    assert vqa_accuracy(*soft)["accuracy"] == pytest.approx((0 + 0.5) / 2)


# Priors.


@pytest.mark.parametrize("seed", range(3))
def test_the_prior_is_the_most_common_answer_of_its_kind(seed):
    _, answer, kind = random_answers(seed=seed)
    asked = [*KINDS, "never seen", "count"]
    got = prior_guesses(asked, kind, answer).tolist()
    for name, guess in zip(asked, got):
        mine = Counter(a for a, k in zip(answer.tolist(), kind) if name in (k, "never seen"))
        assert guess == min(a for a in mine if mine[a] == max(mine.values()))
    own = vqa_accuracy(prior_guesses(kind, kind, answer), answer, kind)
    for name in KINDS:  # no other constant does better
        for constant in range(5):
            other = vqa_accuracy(torch.full((60,), constant), answer, kind)
            assert own[f"accuracy/{name}"] >= other[f"accuracy/{name}"]


@pytest.mark.parametrize("guess", [3, -1])
def test_a_guess_without_a_score_is_refused(guess):
    refused("Guesses are 0 to 2", vqa_accuracy, torch.tensor([0, guess]), torch.rand(2, 3))
