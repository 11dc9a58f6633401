"""Answers to questions, verdicts on pairs and entailment: how many are right, and whether the picture was needed."""

from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mmlearn.data.batches import CollateFunction
from mmlearn.evaluation.eval_mode import evaluating


class Predictions(NamedTuple):
    """What a system says of n samples, and what is right."""

    guess: Int[Tensor, "n"]
    label: Tensor  # (n,), or soft scores (n, answers)


def predict(
    system: nn.Module, samples: Sequence[Any], collate: CollateFunction, label: str, *, batch_size: int = 256
) -> Predictions:
    """The highest logit of ``system(**batch)`` for every sample, beside ``batch[label]``.

    In evaluation mode and on the system's own device; the result is on the CPU.
    """
    device = next(system.parameters()).device
    guesses, labels = [], []
    with evaluating(system):
        for start in range(0, len(samples), batch_size):
            batch = {name: value.to(device) for name, value in collate(samples[start : start + batch_size]).items()}
            guesses.append(system(**batch).argmax(-1).cpu())
            labels.append(batch[label].cpu())
    return Predictions(torch.cat(guesses), torch.cat(labels))


# How many are right.


def soft_scores(counts: Int[Tensor, "..."]) -> Float[Tensor, "..."]:
    r"""What an answer is worth that so many people gave: :math:`\min(n / 3, 1)`.

    Raises ``ValueError`` for a count below 0. Source: Antol et al. 2015 (VQA), section 3.
    """
    if (counts < 0).any():
        raise ValueError("So many people gave an answer: 0 or more; got fewer.")
    return (counts / 3).clamp(max=1)


def official_scores(counts: Int[Tensor, "..."], people: int = 10) -> Float[Tensor, "..."]:
    r"""The same as the official evaluation has it: the mean of :func:`soft_scores` over leaving out each person once.

    .. math:: \frac{n}{N} \min\!\left(\frac{n - 1}{3}, 1\right) + \frac{N - n}{N} \min\!\left(\frac{n}{3}, 1\right)

    Of ten people 0, 1, 2, 3, 4 and more make 0, 0.3, 0.6, 0.9 and 1. Raises ``ValueError`` for counts that people
    cannot make. Source: the official evaluation code of VQA.
    """
    if (counts < 0).any() or (counts > people).any():
        raise ValueError(f"Of {people} people 0 to {people} give an answer; got a count outside.")
    said = counts / people
    return said * soft_scores((counts - 1).clamp(min=0)) + (1 - said) * soft_scores(counts)


def vqa_accuracy(guess: Int[Tensor, "n"], answer: Tensor, kind: Sequence[Hashable] | None = None) -> dict[str, float]:
    """``accuracy``, and ``accuracy/kind`` for each kind of question.

    ``answer`` is the right one, (n,), or a score for each, (n, answers); then a guess is worth its score.
    Raises ``ValueError`` where there is no question, not as many of each, or a guess that has no score.
    """
    _check_length(guess, answer=answer, **({} if kind is None else {"kind": kind}))
    if answer.is_floating_point() and not ((guess >= 0) & (guess < answer.shape[1])).all():
        raise ValueError(f"Guesses are 0 to {answer.shape[1] - 1}, as there are scores for; got one outside.")
    worth = answer.gather(1, guess[:, None])[:, 0] if answer.is_floating_point() else (guess == answer).float()
    return {"accuracy": float(worth.mean())} | {
        f"accuracy/{name}": float(worth[_rows(kind, name)].mean()) for name in dict.fromkeys(kind or ())
    }


def nlvr_accuracy(guess: Int[Tensor, "n"], label: Int[Tensor, "n"], sentence: Sequence[Hashable]) -> dict[str, float]:
    """``accuracy``, and ``consistency``: the share of sentences of which every pair of pictures is judged rightly.

    ``sentence`` says of each pair which sentence it is judged by. Raises ``ValueError`` where there is no pair, or not
    as many of each. Source: Suhr et al. 2019 (NLVR2), section 5 (consistency as in Goldman et al. 2018).
    """
    _check_length(guess, label=label, sentence=sentence)
    right = guess == label
    wrong = {name for name, good in zip(sentence, right.tolist()) if not good}
    sentences = set(sentence)
    return {"accuracy": float(right.float().mean()), "consistency": len(sentences - wrong) / len(sentences)}


def entailment_accuracy(guess: Int[Tensor, "n"], label: Int[Tensor, "n"], classes: Sequence[str]) -> dict[str, float]:
    """``accuracy``, and ``accuracy/class`` for each class that occurs; ``classes`` are their names, from label 0.

    Raises ``ValueError`` where there is no sample, not as many of each, or a label without a name.
    """
    _check_length(guess, label=label)
    if int(label.min()) < 0 or int(label.max()) >= len(classes):
        raise ValueError(f"Labels are 0 to {len(classes) - 1} for {', '.join(classes)}; got one outside.")
    return vqa_accuracy(guess, label, [classes[i] for i in label.tolist()])


# Whether the picture was needed.


def image_gain(
    sees: Predictions, blind: Predictions, kind: Sequence[Hashable] | None = None
) -> dict[str, dict[str, float]]:
    """What a system that ``sees`` gets right, what one gets that was trained without pictures, and the ``gain``.

    A row for ``accuracy`` and one for each kind of question: without a gain the question gives its answer away. Train
    and ask the ``blind`` one by ``task_collate(..., blind=True)``. Raises ``ValueError`` unless both answered the same
    questions. Source: Goyal et al. 2017, "Making the V in VQA Matter", section 4 (the language-only baseline).
    """
    if not torch.equal(sees.label, blind.label):
        raise ValueError("Both systems must answer the same questions in the same order; their labels differ.")
    one, other = vqa_accuracy(*sees, kind), vqa_accuracy(*blind, kind)
    return {name: {"sees": one[name], "blind": other[name], "gain": one[name] - other[name]} for name in one}


def prior_guesses(
    kind: Sequence[Hashable], train_kind: Sequence[Hashable], train_answer: Int[Tensor, "n"]
) -> Int[Tensor, "m"]:
    """The answer that is most common in training among questions of the same kind, the lowest of several.

    A kind that training lacks gets the most common answer of all. Raises ``ValueError`` without training questions.
    Source: Agrawal et al. 2018, "Don't Just Assume; Look and Answer", section 5 (the per question-type prior).
    """
    _check_length(train_answer, train_kind=train_kind)
    common = {name: train_answer[_rows(train_kind, name)].bincount().argmax() for name in dict.fromkeys(train_kind)}
    most = train_answer.bincount().argmax()
    return torch.stack([common.get(name, most) for name in kind])


def prior_shift(
    kind: Sequence[Hashable], answer: Int[Tensor, "n"], other_kind: Sequence[Hashable], other_answer: Int[Tensor, "m"]
) -> dict[Hashable, float]:
    r"""How far the answers of each kind of question moved between two splits, from 0 to 1: half the sum of differences.

    .. math:: \tfrac12 \sum_a |p(a) - q(a)|

    Kinds that only one split has are left out. Raises ``ValueError`` for an empty split.
    """
    _check_length(answer, kind=kind)
    _check_length(other_answer, kind=other_kind)
    size = int(max(answer.max(), other_answer.max())) + 1

    def share(kinds: Sequence[Hashable], answers: Tensor, name: Hashable) -> Tensor:
        counts = answers[_rows(kinds, name)].bincount(minlength=size)
        return counts / counts.sum()

    both = [name for name in dict.fromkeys(kind) if name in set(other_kind)]
    return {
        name: float((share(kind, answer, name) - share(other_kind, other_answer, name)).abs().sum() / 2)
        for name in both
    }


def compare_priors(same: dict[str, Predictions], changed: dict[str, Predictions]) -> dict[str, dict[str, float]]:
    """For each system: its accuracy where answers are as common as in training, where they are not, and the ``fall``.

    One that looks hardly falls; one that only knows which answers are common falls far. Compare with
    :func:`prior_guesses` and with the same system trained without pictures. Raises ``ValueError`` where the two hold
    other systems. Source: Agrawal et al. 2018, "Don't Just Assume; Look and Answer" (VQA-CP).
    """
    if set(same) != set(changed):
        raise ValueError(f"Both splits need the same systems; got {', '.join(same)} and {', '.join(changed)}.")
    rows = {}
    for name in same:
        before, after = (vqa_accuracy(*split[name])["accuracy"] for split in (same, changed))
        rows[name] = {"same": before, "changed": after, "fall": before - after}
    return rows


def _rows(names: Sequence[Hashable], name: Hashable) -> list[int]:
    return [i for i, one in enumerate(names) if one == name]


def _check_length(guess: Tensor, **others: Any) -> None:
    if not len(guess):
        raise ValueError("An accuracy needs at least one sample.")
    for name, other in others.items():
        if len(other) != len(guess):
            raise ValueError(f"There are {len(guess)} samples and {len(other)} of {name}; give one for each.")
