"""Answers counted by hand, official scores by leaving people out, and who knows only which answers are common."""

from collections import Counter
from itertools import combinations

import pytest
import torch
from testing_tools import close, refused
from torch import nn

from mmlearn.evaluation.answers import (
    Predictions,
    compare_priors,
    entailment_accuracy,
    image_gain,
    nlvr_accuracy,
    official_scores,
    predict,
    prior_guesses,
    prior_shift,
    soft_scores,
    vqa_accuracy,
)

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


@pytest.mark.parametrize("people", [1, 2, 5, 10])
def test_official_scores_leave_each_person_out_once(people):
    for count in range(people + 1):
        said = [True] * count + [False] * (people - count)
        subsets = list(combinations(said, people - 1))
        expected = sum(min(sum(subset) / 3, 1) for subset in subsets) / len(subsets)
        assert official_scores(torch.tensor([count]), people).item() == pytest.approx(expected, abs=1e-6)


def test_official_scores_of_ten_people():
    got = official_scores(torch.tensor([0, 1, 2, 3, 4, 7, 10]))
    assert got.tolist() == pytest.approx([0, 0.3, 0.6, 0.9, 1, 1, 1])
    for wrong in (-1, 11):
        refused("Of 10 people 0 to 10 give an answer", official_scores, torch.tensor([wrong]))


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


def test_entailment_by_class():
    guess, label = torch.tensor([0, 1, 2, 0, 1, 1]), torch.tensor([0, 1, 1, 0, 0, 1])
    got = entailment_accuracy(guess, label, ("entailment", "neutral", "contradiction"))
    assert got == pytest.approx({"accuracy": 4 / 6, "accuracy/entailment": 2 / 3, "accuracy/neutral": 2 / 3})
    refused("Labels are 0 to 1 for no, yes; got one outside", entailment_accuracy, guess, label + 1, ("no", "yes"))
    refused("Labels are 0 to 2", entailment_accuracy, guess, label - 1, ("a", "b", "c"))


@pytest.mark.usefixtures("unchecked")
def test_counts_that_differ_and_none_at_all():
    guess, answer, kind = random_answers()
    none = guess[:0]
    for call in (
        lambda: vqa_accuracy(none, none),
        lambda: nlvr_accuracy(none, none, []),
        lambda: entailment_accuracy(none, none, ("a", "b")),
        lambda: prior_guesses(kind, [], none),
        lambda: prior_shift([], none, kind, answer),
        lambda: prior_shift(kind, answer, [], none),
    ):
        refused("at least one sample", call)
    for call, says in (
        (lambda: vqa_accuracy(guess, answer[1:]), "60 samples and 59 of answer"),
        (lambda: vqa_accuracy(guess, answer, kind[:-1]), "60 samples and 59 of kind"),
        (lambda: nlvr_accuracy(guess, answer, ["a"]), "60 samples and 1 of sentence"),
        (lambda: nlvr_accuracy(guess, answer[1:], kind), "60 samples and 59 of label"),
        (lambda: entailment_accuracy(guess, answer[1:], KINDS), "60 samples and 59 of label"),
        (lambda: prior_guesses(kind, kind[1:], answer), "60 samples and 59 of train_kind"),
        (lambda: prior_shift(kind[1:], answer, kind, answer), "60 samples and 59 of kind"),
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


# Without the picture.


@pytest.mark.parametrize("soft", [False, True])
def test_what_the_image_adds_by_kind(soft):
    guess, answer, kind = random_answers()
    label = torch.rand(60, 5) if soft else answer
    sees, blind = Predictions(answer, label), Predictions(guess, label)
    got = image_gain(sees, blind, kind)
    one, other = vqa_accuracy(*sees, kind), vqa_accuracy(*blind, kind)
    assert list(got) == list(one)
    for name, row in got.items():
        assert row == pytest.approx({"sees": one[name], "blind": other[name], "gain": one[name] - other[name]})
    assert image_gain(sees, blind) == {"accuracy": got["accuracy"]}
    assert image_gain(sees, sees)["accuracy"]["gain"] == 0


def test_the_blind_must_be_asked_the_same():
    guess, answer, _ = random_answers()
    for other in (answer.flip(0), answer[1:]):
        with pytest.raises(ValueError, match="the same questions in the same order"):
            image_gain(Predictions(guess, answer), Predictions(guess, other))


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


def test_how_far_priors_moved():
    one, other = torch.tensor([0, 0, 0, 1, 5, 5]), torch.tensor([0, 1, 1, 1, 2, 3])
    kind, moved = ["a"] * 4 + ["b"] * 2, ["a"] * 4 + ["b", "c"]
    got = prior_shift(kind, one, moved, other)
    assert got == pytest.approx({"a": 0.5, "b": 1.0})
    assert prior_shift(moved, other, kind, one) == pytest.approx(got)
    assert prior_shift(kind, one, kind, one) == {"a": 0, "b": 0}
    repeated = prior_shift(kind * 3, one.repeat(3), moved, other)  # shares, not counts
    assert repeated == pytest.approx(got)


def test_who_looks_does_not_fall():
    """Two splits whose yes and no change places; one system sees, the other knows what was common in training."""
    train_kind, train = ["exist"] * 10, torch.tensor([1] * 8 + [0] * 2)
    same, changed = torch.tensor([1] * 8 + [0] * 2), torch.tensor([1] * 2 + [0] * 8)
    prior = prior_guesses(train_kind, train_kind, train)
    assert prior_shift(train_kind, train, train_kind, changed) == pytest.approx({"exist": 0.6})
    got = compare_priors(
        {"sees": Predictions(same, same), "prior": Predictions(prior, same)},
        {"sees": Predictions(changed, changed), "prior": Predictions(prior, changed)},
    )
    assert got["sees"] == {"same": 1, "changed": 1, "fall": 0}
    assert got["prior"] == pytest.approx({"same": 0.8, "changed": 0.2, "fall": 0.6})
    with pytest.raises(ValueError, match="the same systems; got a and b"):
        compare_priors({"a": Predictions(same, same)}, {"b": Predictions(same, same)})


def test_a_system_that_looks_loses_by_being_blind():
    """Trained with and without the picture on answers that only the picture tells."""
    from mmlearn.models.fusion.finetune import FineTuned
    from mmlearn.models.fusion.heads import VQAHead

    class Looks(nn.Module):
        def __init__(self):
            super().__init__()
            self.look = nn.Linear(7, 16)

        def forward(self, regions, region_mask):
            return Predicted((self.look(regions) * region_mask[..., None]).sum(1))

    class Predicted:
        def __init__(self, pooled):
            self.pooled = pooled

    regions = torch.randn(64, 5, 7, generator=torch.Generator().manual_seed(0))
    answer = (regions[:, 0, 0] > 0).long()
    batch = {"regions": regions, "region_mask": torch.ones(64, 5).bool(), "answer": answer}
    said = {}
    for name, batch_seen in (("sees", batch), ("blind", batch | {"regions": torch.zeros_like(regions)})):
        torch.manual_seed(0)
        system = FineTuned(Looks(), VQAHead(16, 2))
        optimizer = torch.optim.AdamW(system.parameters(), lr=1e-2)
        for _ in range(60):
            optimizer.zero_grad()
            system.loss(batch_seen)["vqa"].backward()
            optimizer.step()
        said[name] = Predictions(system(**batch_seen).argmax(-1), answer)
    accuracy = image_gain(**said)["accuracy"]
    assert accuracy["sees"] > 0.95
    common = vqa_accuracy(prior_guesses(["q"] * 64, ["q"] * 64, answer), answer)["accuracy"]
    close(torch.tensor(accuracy["blind"]), torch.tensor(common))


@pytest.mark.parametrize("guess", [3, -1])
def test_a_guess_without_a_score_is_refused(guess):
    refused("Guesses are 0 to 2", vqa_accuracy, torch.tensor([0, guess]), torch.rand(2, 3))
