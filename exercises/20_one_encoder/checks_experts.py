"""Experts and pairs: what each function must do, told one property at a time."""

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
    expect_not,
    expect_sure_and_wrong,
    expect_tensor,
    expect_trains,
    expect_zero,
    over,
    task,
)
from mmlearn.exercises.inputs import between, evenly, numbers, some_of, uniform, unit
from mmlearn.models.unified.sparse import send_to_experts
from mmlearn.objectives.experts import balance, global_entropy
from mmlearn.objectives.matched import matched_info_nce

# Experts.


@task(
    send_to_experts,
    difficulty=3,
    minutes=20,
    example=by_hand(
        torch.tensor([[1.0], [2.0], [3.0]]), torch.tensor([[0.5], [1.0], [1.0]]), torch.tensor([[0], [1], [1]]),
        [lambda x: 10 * x, lambda x: x + 1], torch.tensor([True, True, False]),
        gives=torch.tensor([[5.0], [3.0], [0.0]]),
    ),
)  # fmt: skip
def check_send_to_experts(function: Callable) -> None:
    """Each expert computes the tokens that chose it; answers are weighed and added; padding is 0."""
    n, d, e = between(9, 11), between(5, 6), 4
    tokens, weight = numbers(n, d), 0.2 + 0.6 * evenly(n, 2)
    choice = evenly(n, e).argsort(1)[:, :2]
    choice[0], choice[1], choice[2], choice[3] = (torch.tensor(pair) for pair in ([0, 1], [1, 0], [2, 3], [3, 2]))
    real = torch.arange(n) < n - 2
    seen: list[Tensor] = []

    def expert(number: int) -> Callable:
        def says(x: Tensor) -> Tensor:
            seen.append(x.detach())
            return ((number + 1) * x).tanh() + number

        return says

    experts = [expert(number) for number in range(e)]
    got = expect_tensor(function(tokens, weight, choice, list(experts), real), (n, d))
    computed = sum(x.numel() for x in seen) // d
    expect(not got[~real].any(), "Padding must be 0: it goes to no expert.", "choose among the tokens that are real.")

    def mixed(weight: Tensor, rank: int = 2, inside: bool = False) -> Tensor:
        total = torch.zeros(n, d)
        for j in range(rank):
            for i in range(n):
                w, says, x = weight[i, j], experts[choice[i, j]], tokens[i : i + 1]
                total[i] += (says(w * x) if inside else w * says(x))[0]
        return total * real[:, None]

    weigh = "weight[i, j] times what expert choice[i, j] makes of token i, added over j."
    expect_not(got, mixed(torch.ones(n, 2)), "What experts say must be weighed; here it is only added.", weigh)
    even = mixed(weight / weight.sum(1, keepdim=True))
    expect_not(got, even, "Weights must stay as they are; here they are made to sum to 1.", weigh)
    expect_not(got, mixed(weight, inside=True), "Weigh what an expert says, not what it reads.", weigh)
    expect_not(got, mixed(weight, rank=1), "All experts of a token must be asked; here only the first is.", weigh)
    for order in (range(e), reversed(range(e))):
        over_it = torch.zeros(n, d)
        for number in order:
            for i, j in (choice == number).nonzero().tolist():
                over_it[i] = weight[i, j] * experts[number](tokens[i : i + 1])[0] * real[i]
        expect_not(got, over_it, "Answers of several experts must be added; here the last one stays.", "index_add, +=.")
    expect_not(got, mixed(weight) + tokens * real[:, None], "The token itself must not be added.", "not here.")
    same = agreement(function, send_to_experts)
    same((tokens, weight, choice, experts, real), "It must be the weighed sum over the experts of a token.", weigh)
    few = "Each expert must compute only the tokens that chose it; here it computes others, too."
    expect(computed <= 2 * int(real.sum()), few, "pick the rows first: expert(tokens[rows]).")
    fixed = choice, experts, real
    expect_trains(function, tokens, weight, like=send_to_experts, fixed=fixed)


def routed(n: int, e: int) -> Tensor:
    """Probabilities of which some experts get much."""
    return (numbers(n, e) + torch.linspace(0, 1.5, e)).softmax(-1)


@task(
    balance,
    difficulty=3,
    minutes=15,
    example=by_hand(torch.tensor([[0.6, 0.4], [0.8, 0.2]]), torch.tensor([True, True]), gives=1.4),
)
def check_balance(function: Callable) -> None:
    """N times the sum of shares times mean probabilities, of real tokens; shares are counted, so they are constants."""
    n, e = between(11, 13), between(4, 5)
    real = some_of(n, real=n - 4)
    draws = [(routed(n, e), real) for _ in range(3)]
    got = over(draws, function)

    def cost(
        share: Callable | None = None, likely: Callable | None = None, rows: Tensor = real, scale: float = e
    ) -> Tensor:
        found = []
        for p, _ in draws:
            counted = F.one_hot(p[rows].argmax(1), e).float().mean(0)
            expected = p[rows].mean(0)
            f = share(counted, expected) if share else counted
            found.append(scale * (f * (likely(counted, expected) if likely else expected)).sum())
        return torch.stack(found)

    expect_not(got, cost(scale=1), "It must be N times the sum, so that even odds cost 1.", "N experts.")
    shares = "f counts: the share of tokens whose likeliest expert it is."
    expect_not(got, cost(share=lambda f, p: p), "f must count choices; here it is the mean probability.", shares)
    expect_not(got, cost(likely=lambda f, p: f), "P must be the mean probability; here choices are counted.", shares)
    everyone = torch.ones_like(real)
    expect_not(got, cost(rows=everyone), "Padding must not count; here it does.", "real, in both means.")
    diluted = cost() * (real.sum() / n) ** 2, cost() * real.sum() / n
    expect_not(got, diluted, "Means must be over real tokens; here they are divided by all.", "real.sum().")
    expect_not(got, cost(scale=int(real.sum()) * e), "f must be a share; here it is a count.", "over real.sum().")
    agreement(function, balance)(draws, "It must be N · Σ f · P.", shares)
    with case("Where all experts are equally likely"):
        even = torch.full((n, e), 1 / e)
        expect_close(function(even, real), 1.0, "It must cost 1.", "P is 1 / N everywhere, and f sums to 1.")
    with case("Where one expert gets all"):
        one = F.one_hot(torch.full((n,), 2), e).float()
        expect_close(function(one, real), float(e), "It must cost N.", "f and P are 1 there, and 0 elsewhere.")
    with case("With two experts a token"):
        two = [(*draw, 2) for draw in draws]
        again = over(two, function)
        expect_not(again, cost(), "The second choice must count as well.", "topk(k) gives them all.")
        agreement(function, balance)(two, "f must be the share of all k choices, and sum to 1.", "over k · real.sum().")
    expect_trains(function, draws[0][0], like=balance, fixed=(real,))
    with case("Without a real token"):
        expect_zero(function, draws[0][0], torch.zeros_like(real))


@task(
    global_entropy,
    difficulty=3,
    minutes=15,
    example=by_hand(
        torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]), torch.tensor([True, True]), 3.0, gives=0.405
    ),
)  # fmt: skip
def check_global_entropy(function: Callable) -> None:
    """ln of how many are wanted, less the entropy of the mean, and never below 0."""
    n, e = between(11, 13), between(6, 7)
    real = some_of(n, real=n - 4)
    sure = F.one_hot(torch.arange(n) % 2, e).float()
    draws = [(0.9 * sure + 0.1 * routed(n, e), real, uniform(e - 1, e)) for _ in range(3)]
    got = over(draws, function)

    def entropy(p: Tensor) -> Tensor:
        return -torch.xlogy(p, p).sum(-1)

    def cost(of: Callable, rows: Tensor = real, wanted: Callable = math.log) -> Tensor:
        return torch.stack([wanted(experts) - of(p[rows]) for p, _, experts in draws])

    mean = cost(lambda p: entropy(p.mean(0)))
    first = "p.mean over the tokens first, and then one entropy."
    local = cost(lambda p: entropy(p).mean())
    expect_not(got, local, "Take the entropy of the mean, not the mean of entropies.", first)
    expect_not(got, -mean, "It must cost where too few are used; here the sign is turned.", "ln τ minus the entropy.")
    used = cost(lambda p: entropy(p.mean(0)), wanted=lambda experts: 0.0)
    used = used, -used
    expect_not(got, used, "The threshold must be there: ln of how many experts are wanted.", "math.log(experts).")
    raw = cost(lambda p: entropy(p.mean(0)), wanted=float)
    expect_not(got, raw, "The threshold is a number of experts: take its logarithm.", "math.log(experts).")
    bits = mean / math.log(2)
    expect_not(got, bits, "It must be in nats, not in bits.", "log, not log2.")
    counted = cost(lambda p: entropy(p.mean(0)).exp(), wanted=float)
    expect_not(got, counted, "Compare entropies, not numbers of experts.", "ln τ - H.")
    expect_not(got, cost(lambda p: entropy(p.mean(0)), torch.ones_like(real)), "Padding must not count.", "real.")
    same = agreement(function, global_entropy)
    same(draws, "It must be ln τ - H(mean).", first)
    with case("Where more experts are used than are wanted"):
        even = torch.full((n, e), 1 / e)
        expect_close(function(even, real, 2.0), 0.0, "It must cost nothing.", "clamp(min=0).")
    with case("Where some experts are never likely"):
        same((sure, real, 4.0), "It must be ln τ - H(mean).", "0 · ln 0 is 0: clamp what is under the logarithm.")
    expect_trains(function, draws[0][0], like=global_entropy, fixed=draws[0][1:])
    with case("Without a real token"):
        expect_zero(function, draws[0][0], torch.zeros_like(real), 4.0)


# Pairs, of which some are wrong.


@task(
    matched_info_nce,
    difficulty=4,
    minutes=25,
    example=by_hand(
        torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor(1.0986),
        torch.tensor([True, False]), gives=0.4904,
    ),
)  # fmt: skip
def check_matched_info_nce(function: Callable) -> None:
    """Rows of true pairs ask, all rows are answers; without a true pair all ask."""
    b, d = between(7, 8), 12
    matched, scale = some_of(b, real=b - 3), torch.tensor(uniform(3, 6))
    draws = [(unit(b, d), unit(b, d), scale, matched) for _ in range(3)]
    got = over(draws, function)

    def cost(
        ask: Tensor = matched, both: tuple = (0.5, 0.5), s: Tensor = scale, answers: Tensor = matched | True
    ) -> Tensor:
        found = []
        for u, v, *_ in draws:
            ways = ((s * logits).masked_fill(~answers, -1e9) for logits in (u @ v.T, v @ u.T))
            there, again = (-each.log_softmax(1).diagonal()[ask].mean() for each in ways)
            found.append(both[0] * there + both[1] * again)
        return torch.stack(found)

    asks = "the rows where matched is True, in both directions: keep all columns."
    expect_not(got, cost(matched | True), "Wrong pairs must not ask; here all rows do.", asks)
    expect_not(got, cost(~matched), "True pairs must ask; here the wrong ones do.", asks)
    among = "What belongs to wrong pairs must stay among the answers; here it is taken out."
    expect_not(got, cost(answers=matched), among, asks)
    halves = "half of what pictures pay, and half of what texts pay."
    expect_not(got, cost(both=(1, 0)), "Texts must pick their pictures too; here only pictures pick.", halves)
    expect_not(got, cost(both=(0, 1)), "Pictures must pick their texts too; here only texts pick.", halves)
    expect_not(got, cost(both=(1, 1)), "It must be the mean of both directions; here it is their sum.", halves)
    diluted = cost() * matched.sum() / b
    expect_not(got, diluted, "Divide by the rows that ask; here it is by all.", "matched.sum(), not b.")
    total = cost() * matched.sum()
    expect_not(got, total, "It must be a mean over rows; here it is a sum.", "divide by matched.sum().")
    scaled = "logit_scale is 1 / τ already: multiply by it."
    expect_not(got, cost(s=1 / scale), "logit_scale must multiply; here it divides.", scaled)
    expect_not(got, cost(s=torch.tensor(1.0)), "The logits must be scaled; here they are cosines.", scaled)
    agreement(function, matched_info_nce)(draws, "It must be InfoNCE of the rows that ask.", f"{asks[:-1]}; {halves}")
    expect_trains(function, *draws[0][:3], like=matched_info_nce, fixed=(matched,))
    with case("With a scale of hundreds, and the opposite of what is right"):
        u = unit(b, d)
        expect_sure_and_wrong(function, u, -u, torch.tensor(300.0), like=matched_info_nce, fixed=(matched,))
    with case("Where no pair is true"):
        none = torch.zeros_like(matched)
        same = agreement(function, matched_info_nce)
        same([(*draw[:3], none) for draw in draws], "All rows must ask.", "matched | ~matched.any().")
