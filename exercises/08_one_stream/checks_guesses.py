"""What is guessed of hidden regions: what each function must do, told one property at a time."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from mmlearn.exercises import (
    agreement,
    by_hand,
    case,
    expect,
    expect_close,
    expect_log,
    expect_not,
    expect_sure_and_wrong,
    expect_tensor,
    expect_trains,
    expect_zero,
    over,
    task,
)
from mmlearn.exercises.inputs import between, some_of
from mmlearn.objectives import masked_region_classification, masked_region_kl, masked_region_regression


def region_batch(b: int = 3, classes: int = 6) -> tuple[Tensor, Tensor, Tensor]:
    """Logits or features, a detector's distributions, and what is hidden: 1, 2 and 4 regions."""
    p = between(5, 8)
    masked = some_of(b, p, real=[1, 2, 4])
    return torch.randn(b, p, classes), (2 * torch.randn(b, p, classes)).softmax(-1), masked


def check_positions(function: Callable, reference: Callable, formula: str) -> None:
    """Hidden regions alone count, all the same; none costs 0."""
    draws = [region_batch() for _ in range(3)]
    others = []
    for x, target, masked in draws:
        there = masked[..., None]
        strange = (2 * torch.randn(target.shape)).softmax(-1)
        others.append((torch.where(there, x, torch.randn(x.shape)), torch.where(there, target, strange), masked))
    expect_close(
        over(others, function),
        over(draws, function),
        "What stands at regions that are not hidden must not matter.",
        "masked is True at hidden regions; x[masked] has these alone.",
    )
    once = "one mean over the hidden regions of all pictures, not a mean of each picture first."
    agreement(function, reference)(draws, f"{formula}, in which every hidden region counts the same.", once)
    x, target, masked = draws[0]
    with case("With nothing hidden"):
        expect_zero(function, x, target, torch.zeros_like(masked))
    expect_trains(function, x, fixed=(target, masked), like=reference)
    with case("Where the model says what the detector says"):
        expect_trains(function, target, fixed=(target, masked), like=reference)


def _check_certain(function: Callable, reference: Callable, classes: Tensor, masked: Tensor) -> None:
    """A detector without doubt, and a model that is as sure of another class."""
    certain = F.one_hot(classes.argmax(-1), classes.shape[-1]).float()
    with case("With a detector without doubt"):
        expect_trains(function, torch.randn(classes.shape), fixed=(certain, masked), like=reference)
    with case("With logits of hundreds"):
        wrong = 200 * certain.roll(1, -1) + torch.randn(classes.shape)
        expect_sure_and_wrong(function, wrong, fixed=(certain, masked), like=reference)


ONE_OF_TWO = torch.tensor([[True, False]])
FIRST = ONE_OF_TWO[:, :1]


@task(
    masked_region_regression,
    difficulty=2,
    minutes=10,
    example=by_hand(torch.tensor([[[3.0, 4.0], [1.0, 1.0]]]), torch.zeros(1, 2, 2), ONE_OF_TWO, gives=25.0),
)
def check_masked_region_regression(function: Callable) -> None:
    """A squared distance: summed over features, mean over hidden regions."""
    prediction, target, masked = region_batch()
    f = target.shape[-1]
    expect_tensor(function(prediction, target, masked), ())
    right = "A prediction that is right must cost 0."
    expect_close(function(target.clone(), target, masked), 0.0, right, "the distance to the target.")
    expect_close(
        function(target + 2 * torch.randn(target.shape).sign(), target, masked),
        4.0 * f,
        f"Where each of {f} features is off by 2, the loss must be {f} · 2²: a sum over features.",
        "the squared length, without a root; a mean over hidden regions, and not over features or other regions.",
    )
    check_positions(function, masked_region_regression, "It must be the mean squared distance")


@task(
    masked_region_classification,
    difficulty=2,
    minutes=10,
    example=by_hand(torch.zeros(1, 1, 3), torch.tensor([[[0.5, 0.3, 0.2]]]), FIRST, gives=math.log(3)),
)
def check_masked_region_classification(function: Callable) -> None:
    """The detector's first choice is the label."""
    logits, classes, masked = region_batch()
    c = classes.shape[-1]
    expect_tensor(function(logits, classes, masked), ())
    mean = "the mean over hidden regions, however many; the logarithm of a softmax over classes, with a minus."
    expect_log(function(torch.zeros_like(logits), classes, masked), c, "c", mean)
    expect_close(
        function(50 * F.one_hot(classes.argmax(-1), c).float(), classes, masked),
        0.0,
        "A model that is sure of the detector's first choice must pay 0, also where the detector has doubts.",
        "the label is argmax over the classes of the detector; to keep its doubts is the next task.",
    )
    draws = [region_batch() for _ in range(3)]
    certain = [(logits, F.one_hot(classes.argmax(-1), c).float(), masked) for logits, classes, masked in draws]
    expect_close(
        over(certain, function),
        over(draws, function),
        "Only which class is likeliest must matter, and not how likely.",
        "cross_entropy with class numbers, argmax(-1), as its target.",
    )
    formula = "It must be the mean of -log softmax at the detector's first choice"
    check_positions(function, masked_region_classification, formula)
    _check_certain(function, masked_region_classification, classes, masked)


@task(
    masked_region_kl,
    difficulty=3,
    minutes=15,
    example=by_hand(
        torch.tensor([[[0.25, 0.75]]]).log(), torch.tensor([[[0.5, 0.5]]]), FIRST, gives=math.log(4 / 3) / 2
    ),
)
def check_masked_region_kl(function: Callable) -> None:
    """0 where both agree; the direction; a detector without doubt."""
    logits, classes, masked = region_batch()
    c = classes.shape[-1]
    expect_tensor(function(logits, classes, masked), ())
    expect_close(
        function(classes.log() + 3 * torch.randn(*masked.shape, 1), classes, masked),
        0.0,
        "Where model and detector agree, the loss must be 0.",
        "log c belongs to it, or the detector's entropy is left; classes are probabilities, logits are not.",
    )
    draws = [region_batch() for _ in range(3)]
    got = over(draws, function)
    expect_not(
        got,
        over(draws, _reversed_kl),
        "The direction must be KL(detector || model); this is KL(model || detector).",
        "the detector's probabilities stand before the logarithm. F.kl_div takes the model's logarithms first.",
    )
    expect((got > 0).all(), "A divergence must never be negative.", "F.kl_div takes log_softmax first, then classes.")
    with case("With a detector without doubt, for which it is classification"):
        certain = F.one_hot(classes.argmax(-1), c).float()
        hint = 'a sum over classes, a mean over hidden regions: reduction="sum", then divide by their number.'
        expect_log(function(torch.zeros_like(logits), certain, masked), c, "c", hint)
    check_positions(function, masked_region_kl, "It must be Σ c log(c / softmax)")
    _check_certain(function, masked_region_kl, classes, masked)


def _reversed_kl(logits: Tensor, classes: Tensor, masked: Tensor) -> Tensor:
    return F.kl_div(classes[masked].log(), logits[masked].softmax(-1), reduction="sum") / masked.sum()
