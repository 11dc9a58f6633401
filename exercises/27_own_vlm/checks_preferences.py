"""Direct preference optimisation: its loss, and the gradient that it comes to."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from mmlearn.exercises import (
    by_hand,
    case,
    expect,
    expect_close,
    expect_not,
    expect_parts,
    expect_tensor,
    expect_trains,
    task,
)
from mmlearn.exercises.inputs import between, numbers, uniform

Gradients = tuple[Float[Tensor, ""], Float[Tensor, "b"], Float[Tensor, "b"]]


def dpo(
    chosen: Float[Tensor, "b"],
    rejected: Float[Tensor, "b"],
    reference_chosen: Float[Tensor, "b"],
    reference_rejected: Float[Tensor, "b"],
    beta: float,
) -> Gradients:
    """DPO's loss, and its derivatives by ``chosen`` and by ``rejected``.

    Source: Rafailov et al. 2023, "Direct Preference Optimization", equation 7, and the gradient below it.
    """
    margin = beta * ((chosen - reference_chosen) - (rejected - reference_rejected))
    slope = beta * torch.sigmoid(-margin) / len(chosen)
    return -F.logsigmoid(margin).mean(), -slope, slope


def _of_autograd(*given: Tensor, beta: float) -> tuple[Tensor, ...]:
    """The same, where PyTorch finds the derivatives."""
    chosen, rejected = (one.clone().requires_grad_() for one in given[:2])
    loss = -F.logsigmoid(beta * (chosen - given[2] - rejected + given[3])).mean()
    return loss.detach(), *torch.autograd.grad(loss, [chosen, rejected])


def _draw() -> tuple[list[Tensor], float]:
    b = between(4, 6)
    return [3 * numbers(b) - 12 for _ in range(4)], uniform(0.3, 0.6)


@task(
    dpo,
    difficulty=3,
    minutes=25,
    example=by_hand(
        torch.tensor([-1.0]), torch.tensor([-2.0]), torch.tensor([-2.0986]), torch.tensor([-2.0]), 1.0,
        gives=(torch.tensor(0.2877), torch.tensor([-0.25]), torch.tensor([0.25])),
    ),
)  # fmt: skip
def check_dpo(function: Callable) -> None:
    """The loss counts what has changed since the reference; its gradient is largest where the order is wrong."""
    given, beta = _draw()
    b = len(given[0])
    loss, up, down = expect_parts(function(*given, beta), "loss", "by_chosen", "by_rejected")
    loss, up, down = expect_tensor(loss, ()), expect_tensor(up, (b,)), expect_tensor(down, (b,))
    wanted, by_chosen, by_rejected = _of_autograd(*given, beta=beta)
    chosen, rejected, reference_chosen, reference_rejected = given
    margin = chosen - reference_chosen - rejected + reference_rejected
    formula = "−log σ(β((chosen − reference_chosen) − (rejected − reference_rejected))), and the mean over pairs."
    alone = -F.logsigmoid(beta * (chosen - rejected)).mean()
    expect_not(loss, alone, "What counts is the change since the reference; here the reference is missing.", formula)
    expect_not(
        loss, -F.logsigmoid(-beta * margin).mean(), "The chosen answer must win; here the rejected one does.", (formula)
    )
    outside = -beta * F.logsigmoid(margin).mean(), -F.logsigmoid(margin).mean()
    expect_not(loss, outside, "β must be inside the sigmoid, times the margin.", formula)
    expect_not(loss, -F.logsigmoid(margin / beta).mean(), "β must multiply the margin; here it divides it.", formula)
    expect_not(loss, -torch.sigmoid(beta * margin).mean(), "The logarithm of σ must count; here σ does.", formula)
    expect_not(loss, wanted * b, "The loss must be the mean over pairs; here it is their sum.", "mean, not sum.")
    expect_close(loss, wanted, "It must be DPO's loss.", formula)
    slope = "the derivative of −log σ(h) by h is −σ(−h); h has β in it, and the mean has 1 / b."
    expect_not(up, by_rejected, "A likelier chosen answer lowers the loss: its derivative must be negative.", slope)
    expect_not(
        up,
        -beta * torch.sigmoid(beta * margin) / b,
        ("The gradient must be large where the order is wrong; here it is large where it is right."),
        slope,
    )
    expect_not(up, by_chosen / beta, "The derivative of the margin must be in it; here β is missing.", slope)
    expect_not(up, by_chosen * b, "The loss is a mean; here its derivative is not divided by b.", slope)
    expect_close(up, by_chosen, "by_chosen must be what autograd finds.", slope)
    expect_close(down, by_rejected, "by_rejected must be what autograd finds.", "the margin has rejected with a minus.")
    fixed = (reference_chosen, reference_rejected, beta)
    with case("Where the loss is learned from"):
        expect_trains(
            lambda chosen, rejected: function(chosen, rejected, *fixed)[0], chosen, rejected,
            like=lambda chosen, rejected: dpo(chosen, rejected, *fixed)[0],
        )  # fmt: skip
    far = chosen - 4000 / beta
    with case("Where the order is wrong by thousands"):
        loss, *slopes = (expect_tensor(part) for part in function(far, rejected, *fixed))
        wanted, *right = _of_autograd(far, *given[1:], beta=beta)
        hint = "F.logsigmoid takes a margin of any size; log(sigmoid(h)) meets log 0."
        expect_close(loss, wanted, "It must cost thousands.", hint, tolerance=1e-4)
        expect(
            all(one.allclose(two, atol=1e-5) for one, two in zip(slopes, right)),
            ("Its gradient must be ∓β / b."),
            slope,
        )
