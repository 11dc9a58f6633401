"""Answers to questions, and verdicts on pairs: how many are right, and what knowing common answers alone would get."""

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


def _rows(names: Sequence[Hashable], name: Hashable) -> list[int]:
    return [i for i, one in enumerate(names) if one == name]


def _check_length(guess: Tensor, **others: Any) -> None:
    if not len(guess):
        raise ValueError("An accuracy needs at least one sample.")
    for name, other in others.items():
        if len(other) != len(guess):
            raise ValueError(f"There are {len(guess)} samples and {len(other)} of {name}; give one for each.")
