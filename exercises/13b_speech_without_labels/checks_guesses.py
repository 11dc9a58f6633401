"""What is guessed of speech without labels: what each function must do, told one property at a time."""

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
    expect_finite_gradient,
    expect_log,
    expect_not,
    expect_sure_and_wrong,
    expect_tensor,
    expect_trains,
    expect_zero,
    near,
    over,
    task,
)
from mmlearn.exercises.inputs import between, first_of, seeded, uniform
from mmlearn.layers.gumbel import straight_through
from mmlearn.objectives import distractor_contrast, masked_cluster, sample_distractors
from mmlearn.objectives.masked import IGNORED


@task(
    straight_through,
    difficulty=3,
    minutes=15,
    example=by_hand(torch.tensor([[1.0, 3.0]]).log(), torch.zeros(1, 2), 1.0, gives=torch.tensor([[0.0, 1.0]])),
)
def check_straight_through(function: Callable) -> None:
    """One-hot going forward, the gradient of a softmax going back."""
    n, v, temperature = 40, 7, uniform(0.5, 1.5)
    logits, noise = torch.randn(n, v), 2 * torch.randn(n, v)
    got = expect_tensor(function(logits, noise, temperature), (n, v))
    hot = near(got.max(-1).values, 1.0) and near(got.sum(-1), 1.0)
    expect(hot, "Going forward it must be one-hot: 1 at the choice and 0 elsewhere.", "one_hot of the argmax.")
    without = torch.equal(got.argmax(-1), logits.argmax(-1))
    expect(not without, "The choice must be a sample: noise is added before it.", "argmax of logits + noise.")
    largest = F.one_hot((logits + noise).argmax(-1), v).float()
    expect_close(
        got, largest, "The choice must be the largest of logits + noise.", "it is the same at any temperature."
    )
    flows = function(logits.clone().requires_grad_(), noise, temperature).requires_grad
    hint = "argmax has none: add the softmax, and take away the same softmax as a constant."
    expect(flows, "A gradient must flow from the result to the logits.", hint)

    def gradient(function: Callable, temperature: float) -> Tensor:
        leaf = logits.clone().requires_grad_()
        return torch.autograd.grad((function(leaf, noise, temperature) * towards).sum(), leaf)[0]

    towards = torch.randn(n, v)
    reached = gradient(function, 1.0)
    expect_not(
        reached,
        towards,
        "Going back it must be a softmax, not the identity.",
        "what you add and subtract is the softmax, not the logits.",
    )
    expect_close(
        reached,
        gradient(straight_through, 1.0),
        "Going back it must have the gradient of softmax(logits + noise).",
        "the same noise in both, and nothing of the one-hot choice multiplied in.",
    )
    expect_close(
        gradient(function, temperature),
        gradient(straight_through, temperature),
        f"Going back the softmax must have temperature {temperature:.2f}.",
        "(logits + noise) / temperature: the sum is divided.",
    )
    for shape in ((v,), (2, 3, v)):
        with case(f"Logits of shape {shape}"):
            given, fixed = torch.randn(shape), (2 * torch.randn(shape), temperature)
            same = agreement(function, straight_through)
            same((given, *fixed), "It must be one-hot along the last axis.", "dim=-1 everywhere.")
            expect_trains(function, given, fixed=fixed, like=straight_through)
    with case("Logits of hundreds"):
        expect_trains(function, 300 * logits, fixed=(noise, temperature), like=straight_through)


ONES = torch.ones(1, 4, 2)
OTHERS = torch.tensor([[[1, 2, 3]] * 4])
FIRST = torch.tensor([[True, False, False, False]])


@task(
    distractor_contrast,
    difficulty=3,
    minutes=20,
    example=by_hand(ONES, ONES, torch.arange(4).view(1, 4, 1), OTHERS, FIRST, gives=math.log(4)),
)
def check_distractor_contrast(function: Callable) -> None:
    """ln(1 + k) of nothing, cosines, hidden frames only, and no distractor that is the target."""
    b, s, d, k = 3, 12, 16, between(5, 8)
    masked = first_of(s, [9, 6, 10])
    distractor = sample_distractors(masked, k, generator=seeded())
    context, target = torch.randn(b, s, d), torch.randn(b, s, d)
    codes = torch.arange(s).expand(b, s)[..., None].repeat(1, 1, 2)  # no two frames sound alike
    rest = codes, distractor, masked
    same = agreement(function, distractor_contrast)
    got = expect_tensor(function(context, target, *rest), ())
    draws = [(torch.randn(b, s, d), torch.randn(b, s, d), *rest) for _ in range(3)]
    expect_not(
        over(draws, function),
        over(draws, lambda context, target, *rest: distractor_contrast(target, context, *rest)),
        "The context of the frame must pick among the sounds of others; here it is the other way.",
        "candidates are target[distractor]; the context is that of the hidden frame.",
    )
    same(
        (context, torch.randn(b, 1, d).repeat(1, s, 1), *rest),
        f"Where all sounds are alike it must cost ln(1 + k) = ln {1 + k}.",
        "the target is one of the 1 + k candidates, and the loss the mean over hidden frames of -log softmax.",
    )
    expect(
        near(function(3 * context, target, *rest), got) and near(function(context, 5 * target, *rest), got),
        "How long vectors are must not matter: similarity is the cosine.",
        "F.normalize(…, dim=-1), both.",
    )
    expect_close(
        function(torch.where(masked[..., None], context, 9 * torch.randn(b, s, d)), target, *rest),
        got,
        "What the context says at frames that are not hidden must not matter.",
        "mean over the hidden frames only.",
    )
    same(
        (context, target, *rest),
        "It must be the mean over hidden frames of -log softmax(cosine / 0.1) at the target.",
        "without an argument the temperature is 0.1; divide by it.",
    )
    half = "With temperature 0.5 it must divide cosines by 0.5."
    same((context, target, *rest), half, "use the argument.", temperature=0.5)
    twins, alike = codes.clone(), codes.clone()
    twins[:, 1:4], alike[:, 1:4, 0] = twins[:, :1], alike[:, :1, 0]  # the first four frames, by both codes or by one
    same(
        (context, target, twins, distractor, masked),
        "A distractor with the codes of the target is the target, and must be left out.",
        "masked_fill its logit with -inf where all codes are equal.",
    )
    same(
        (context, target, alike, distractor, masked),
        "Only a distractor of which all codes are the target's must be left out.",
        "(…).all(-1) over the codebooks.",
    )
    with case("With three codebooks"):
        three = torch.stack([torch.zeros(s).long(), torch.arange(s), -torch.arange(s)], -1).expand(b, s, 3).clone()
        three[:, 4:6, 1] = three[:, :1, 1]
        middle = torch.stack([three[..., 0], three[..., 1] + 7, three[..., 0]], -1)
        for books in (three, middle):  # of which sums are equal, or the first and the last code
            hint = "compare code by code: (…).all(-1)."
            same((context, target, books, distractor, masked), "All codes must be the target's.", hint)
    expect_trains(function, context, target, fixed=rest, like=distractor_contrast)
    expect_zero(function, context, target, codes, distractor, torch.zeros_like(masked))
    _check_extremes(function, context, target, *rest)


def _check_extremes(
    function: Callable, context: Tensor, target: Tensor, codes: Tensor, distractor: Tensor, masked: Tensor
) -> None:
    """Short and silent vectors, sure and wrong ones, large codes, and distractors that all are the target."""
    same, rest = agreement(function, distractor_contrast, tolerance=1e-3), (codes, distractor, masked)
    with case("Vectors of a ten-thousandth"):
        hint = "what is added so as not to divide by 0 must be smaller than any vector."
        same((1e-4 * context, 1e-4 * target, *rest), "The cost must be that of long ones.", hint)
    with case("Where the context is of zeros"):
        expect_finite_gradient(function, 0 * context, target, fixed=rest)
    with case("At temperature 0.001, with a context that says the opposite"):
        sure = (-target, target, *rest, 0.001)
        hint = "cross_entropy takes logits of any size; a small number inside the logarithm limits the cost."
        same(sure, "A wrong answer so sure must cost hundreds.", hint)
        expect_trains(function, -target, target, fixed=sure[2:], like=distractor_contrast)
    with case("Codes above 2²⁴"):
        hint = "compare whole numbers: as float32 two codes so large become one."
        same((context, target, 2**24 + codes, distractor, masked), "Neighbouring codes are different sounds.", hint)
    with case("Where all distractors have the codes of the target"):
        alone = context, target, torch.zeros_like(codes), distractor, masked
        same(alone, "Nothing is left to choose from, so that it must cost 0.", "a softmax over the target alone is 1.")
        expect_finite_gradient(function, context, target, fixed=alone[2:])


@task(
    masked_cluster,
    difficulty=2,
    minutes=10,
    example=by_hand(torch.zeros(1, 4, 8), torch.tensor([[3, 1, 0, -100]]), FIRST, 0.4, gives=math.log(8)),
)
def check_masked_cluster(function: Callable) -> None:
    """ln c of nothing, hidden frames only, or mixed with those that are seen."""
    b, s, c = 3, 14, between(6, 9)
    real = first_of(s, [14, 9, 11])
    cluster = torch.randint(c, (b, s)).masked_fill(~real, IGNORED)
    masked = (torch.rand(b, s) < 0.4) & real
    masked[:, 1], masked[:, 2] = True, False
    masked[0, 3:] = True  # more than of any other clip, so that a mean of means is another number
    same = agreement(function, masked_cluster)
    expect_tensor(function(torch.zeros(b, s, c), cluster, masked), ())
    divide = "the mean of the cross-entropy over hidden frames: divide by how many are hidden."
    expect_log(function(torch.zeros(b, s, c), cluster, masked), c, "c", divide)

    def cost(frames: Tensor) -> Tensor:
        return F.cross_entropy(logits[frames], cluster[frames])

    logits = 2 * torch.randn(b, s, c)
    while near(cost(masked), cost(real & ~masked), 0.05):  # by chance, and then the means below would be one
        logits = 2 * torch.randn(b, s, c)
    got = function(logits, cluster, masked)
    expect_not(
        got,
        cost(real),
        "Only hidden frames must count: what is seen can be copied, and nothing is learned from it.",
        "logits[masked] and cluster[masked].",
    )
    seen = "Hidden frames must count, and here it is those that are seen."
    expect_not(got, cost(real & ~masked), seen, "True in masked is hidden.")
    mean = "It must be the mean cross-entropy of hidden frames."
    same((logits, cluster, masked), mean, "each frame counts as much.")
    spread = torch.zeros_like(masked)
    spread[0, :6], spread[1, 2] = True, True
    same(
        (logits, cluster, spread),
        "All hidden frames of the batch must count as much, whichever clip they are in.",
        "one mean over all of them, not a mean of means.",
    )
    same(
        (logits, cluster, masked, 0.0),
        "With α = 0 it must be the mean of the frames that are seen; padding, of cluster -100, is none of them.",
        "α L_hidden + (1 - α) L_seen; -100 counts nowhere.",
    )
    alpha = uniform(0.3, 0.7)
    same(
        (logits, cluster, masked, alpha),
        f"With α = {alpha:.2f} it must be α times the hidden mean plus 1 - α times the seen mean.",
        "two means, each over its own frames, and then the mixture.",
    )
    expect_trains(function, logits, fixed=(cluster, masked, alpha), like=masked_cluster)
    expect_trains(function, logits, fixed=(cluster, masked), like=masked_cluster)
    expect_zero(function, logits, cluster, torch.zeros_like(masked))
    nothing, everything = torch.zeros_like(masked), torch.ones_like(masked)
    for words, which, share in (("hidden", nothing, f"1 - {alpha:.2f}"), ("seen", everything, f"{alpha:.2f}")):
        with case(f"With α = {alpha:.2f} and nothing {words}"):
            same((logits, cluster, which, alpha), f"It must be {share} times the other mean.", "the mean of none is 0.")
            expect_trains(function, logits, fixed=(cluster, which, alpha), like=masked_cluster)
    with case("With logits of hundreds, of which the wrong ones are the highest"):
        sure = logits + 200 * F.one_hot((cluster + 1).clamp(min=0) % c, c)
        expect_sure_and_wrong(function, sure, fixed=(cluster, masked, alpha), like=masked_cluster)
