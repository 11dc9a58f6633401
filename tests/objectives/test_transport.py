"""Plans of IPOT keep their marginals, come close to the exact optimum, and see neither padding nor order."""

import math
from functools import cache
from itertools import pairwise

import pytest
import torch
from testing_tools import close, refused

from mmlearn.objectives import cosine_cost, ipot, word_region_alignment

SEEDS = range(3)
B, T, P, D = 4, 5, 7, 6


def normal(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def real(*shape):
    return torch.ones(*shape, dtype=torch.bool)


def problem(seed=0, b=B, t=T, p=P, d=D):
    return normal(b, t, d, seed=seed), normal(b, p, d, seed=seed + 100)


def masks():
    """All lengths differ, and padding is not always at the end."""
    x_mask = torch.arange(T) < torch.tensor([T, 1, 3, 4])[:, None]
    y_mask = torch.arange(P) < torch.tensor([2, P, 1, 5])[:, None]
    return x_mask, y_mask.flip(1)


def plan_and_cost(seed=0, **options):
    x, y = problem(seed)
    cost = cosine_cost(x, y)
    return ipot(cost, real(B, T), real(B, P), **options), cost


# The exact optimum.


def splits(left, amount):
    """All ways to take so many units from rows that have so many left."""
    if not left:
        yield from [()] if amount == 0 else []
        return
    for take in range(min(left[0], amount) + 1):
        for rest in splits(left[1:], amount - take):
            yield take, *rest


def optimum(cost):
    """The lowest cost of all plans. With integer marginals some best plan is integer, so it tries all of those."""
    n, m = len(cost), len(cost[0])
    units = math.lcm(n, m)

    @cache
    def rest(column, left):
        if column == m:
            return 0.0
        return min(
            sum(take * row[column] for take, row in zip(taken, cost))
            + rest(column + 1, tuple(a - b for a, b in zip(left, taken)))
            for taken in splits(left, units // m)
        )

    return rest(0, (units // n,) * n) / units


SIZES = [(3, 4), (4, 5), (5, 3), (5, 5)]


@cache
def solved(t, p, count=20):
    cost = cosine_cost(*problem(t * 10 + p, count, t, p, 8))
    return cost, torch.tensor([optimum(c) for c in cost.tolist()], dtype=torch.float64)


def gaps(t, p, **options):
    """How far the cost of a plan is from the optimum, and how far its rows are from their marginals in all."""
    cost, best = solved(t, p)
    plan = ipot(cost, real(len(cost), t), real(len(cost), p), **options)
    return (plan * cost).sum((1, 2)) - best, (plan.sum(2) - 1 / t).abs().sum(1)


def test_the_exact_optimum_of_problems_with_a_known_one():
    assert optimum([[0, 1], [1, 0]]) == 0
    assert optimum([[1, 0], [2, 4]]) == 1
    assert optimum([[0, 2, 1]]) == 1  # one word pays the mean over regions
    close(optimum([[0, 1, 1], [1, 1, 0]]), 1 / 3)  # 1/2 to 1/3 each: the middle one pays


@pytest.mark.parametrize(("t", "p"), SIZES)
@pytest.mark.parametrize("iterations", [10, 50, 200])
def test_a_plan_is_nearly_optimal(t, p, iterations):
    """Proximal points promise β KL(T* || uniform) / k, and that divergence is at most the log of the shorter side."""
    gap, _ = gaps(t, p, iterations=iterations)
    assert gap.max() <= 0.5 * math.log(min(t, p)) / iterations
    if iterations == 50:
        assert gap.max() < 2.5e-3  # the largest of all 80 is 1.9e-3, at costs from 0.66 to 0.81 on average
        assert gap.mean() < 7e-4  # the largest of four is 5.3e-4


@pytest.mark.parametrize(("t", "p"), SIZES)
def test_more_iterations_come_closer(t, p):
    errors = [[part.abs().mean().item() for part in gaps(t, p, iterations=k)] for k in (10, 50, 200, 1000)]
    for before, after in pairwise(errors):
        assert after[0] < before[0] / 4
        assert after[1] < before[1] / 4 + 1e-15
    assert errors[-1][0] < 2e-6
    assert errors[-1][1] < 1e-7


@pytest.mark.parametrize(("t", "p"), SIZES)
@pytest.mark.parametrize("iterations", [1, 10, 50, 1000])
def test_no_plan_beats_the_optimum_beyond_its_error_in_the_marginals(t, p, iterations):
    """Mending the rows moves half of their error, and no unit gains more than the range of the cost."""
    cost, _ = solved(t, p)
    gap, error = gaps(t, p, iterations=iterations)
    spread = cost.amax((1, 2)) - cost.amin((1, 2))
    assert (gap >= -spread * error / 2 - 1e-15).all()


@pytest.mark.parametrize(("t", "p"), SIZES)
def test_inner_steps_mend_the_rows(t, p):
    _, once = gaps(t, p, iterations=10)
    gap, often = gaps(t, p, iterations=10, inner=100)
    assert often.max() < once.max() / 500
    assert gap.min() > -often.max()


# The plan.


def ipot_by_loops(cost, beta, iterations, inner):
    """Algorithm 1 for one pair without padding."""
    n, m = len(cost), len(cost[0])
    sigma, plan = [1 / m] * m, [[1.0] * m for _ in range(n)]
    for _ in range(iterations):
        q = [[math.exp(-cost[i][j] / beta) * plan[i][j] for j in range(m)] for i in range(n)]
        for _ in range(inner):
            delta = [1 / (n * sum(q[i][j] * sigma[j] for j in range(m))) for i in range(n)]
            sigma = [1 / (m * sum(q[i][j] * delta[i] for i in range(n))) for j in range(m)]
        plan = [[delta[i] * q[i][j] * sigma[j] for j in range(m)] for i in range(n)]
    return plan


@pytest.mark.parametrize("options", [(0.5, 50, 1), (0.2, 7, 3), (1.0, 1, 1)])
def test_a_plan_equals_the_algorithm_in_loops(options):
    beta, iterations, inner = options
    plan, cost = plan_and_cost(beta=beta, iterations=iterations, inner=inner)
    expected = [ipot_by_loops(c, *options) for c in cost.tolist()]
    close(plan, torch.tensor(expected, dtype=torch.float64), 1e-13)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_plan_has_its_marginals(seed, dtype):
    cost = cosine_cost(*problem(seed)).to(dtype)
    x_mask, y_mask = masks()
    plan = ipot(cost, x_mask, y_mask)
    assert plan.dtype == dtype
    assert (plan >= 0).all()
    rows, columns = (mask.double() / mask.sum(1, keepdim=True) for mask in (x_mask, y_mask))
    close(plan.sum(1), columns.to(dtype), 10 * torch.finfo(dtype).eps)
    assert (plan.sum(2) - rows).abs().sum(1).max() < 3e-3  # 0.2e-3 to 1.5e-3 for these three
    close(ipot(cost, x_mask, y_mask, iterations=1000).sum(2), rows.to(dtype), 1e-5)


def test_padding_has_no_mass_and_no_say():
    x, y = problem()
    x_mask, y_mask = masks()
    cost = cosine_cost(x, y)
    plan = ipot(cost, x_mask, y_mask)
    both = x_mask[:, :, None] & y_mask[:, None]
    assert (plan[~both] == 0).all()
    assert (plan.sum((1, 2)) - 1).abs().max() < 1e-12
    for padding in (-50.0, 1e30, torch.nan):
        assert torch.equal(ipot(cost.masked_fill(~both, padding), x_mask, y_mask), plan)
    distance = word_region_alignment(x, y, x_mask, y_mask)
    other = word_region_alignment(
        torch.where(x_mask[..., None], x, 9.0), torch.where(y_mask[..., None], y, -3.0), x_mask, y_mask
    )
    close(other, distance, 1e-13)
    for i in range(B):
        alone = ipot(cost[i : i + 1, x_mask[i]][:, :, y_mask[i]], real(1, x_mask[i].sum()), real(1, y_mask[i].sum()))
        close(plan[i, x_mask[i]][:, y_mask[i]], alone[0], 1e-13)


def test_pairs_of_a_batch_do_not_meet():
    x, y = problem()
    whole = word_region_alignment(x, y, *masks())
    x[1:], y[1:] = normal(B - 1, T, D, seed=7), normal(B - 1, P, D, seed=8)
    mixed = word_region_alignment(x, y, *masks())
    close(mixed[0], whole[0], 1e-14)
    assert not torch.allclose(mixed[1:], whole[1:], atol=1e-3)


def test_where_nothing_is_real_nothing_moves():
    x, y = (z.requires_grad_() for z in problem())
    x_mask, y_mask = masks()
    x_mask[0], y_mask[1] = False, False
    distance = word_region_alignment(x, y, x_mask, y_mask)
    distance.sum().backward()
    assert distance[:2].tolist() == [0, 0]
    assert (distance[2:] > 0).all()
    assert (x.grad[:2] == 0).all()
    assert torch.isfinite(x.grad).all()
    assert torch.isfinite(y.grad).all()


@pytest.mark.parametrize("seed", SEEDS)
def test_order_does_not_matter(seed):
    x, y = problem(seed)
    x_mask, y_mask = masks()
    by_word = torch.randperm(T, generator=torch.Generator().manual_seed(seed))
    by_region = torch.randperm(P, generator=torch.Generator().manual_seed(seed + 1))
    plan = ipot(cosine_cost(x, y), x_mask, y_mask)
    moved = x[:, by_word], y[:, by_region]
    moved_masks = x_mask[:, by_word], y_mask[:, by_region]
    close(ipot(cosine_cost(*moved), *moved_masks), plan[:, by_word][:, :, by_region], 1e-12)
    close(word_region_alignment(*moved, *moved_masks), word_region_alignment(x, y, x_mask, y_mask), 1e-13)


def test_regions_that_are_alike_share_evenly():
    x, y = problem()
    plan = ipot(cosine_cost(x, y[:, :1].expand(B, P, D)), real(B, T), real(B, P))
    close(plan, torch.full((B, T, P), 1 / (T * P), dtype=torch.float64), 1e-14)


def test_a_long_way_in_single_precision_stays_finite():
    cost = torch.where(torch.rand(B, T, P, generator=torch.Generator().manual_seed(0)) < 0.5, 0.0, 2.0)
    plan = ipot(cost, real(B, T), real(B, P), beta=0.05, iterations=1000)
    assert torch.isfinite(plan).all()
    close(plan.sum(1), torch.full((B, P), 1 / P))


def test_half_precision_is_planned_in_single():
    x, y = (z.float() for z in problem())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        plan = ipot(cosine_cost(x, y), real(B, T), real(B, P))
    assert plan.dtype == torch.float32
    close(plan.sum(1), torch.full((B, P), 1 / P), 1e-6)


@pytest.mark.parametrize("wrong", [{"beta": 0.0}, {"beta": -1.0}, {"iterations": 0}, {"inner": 0}])
def test_settings_are_positive(wrong):
    refused("must be positive", plan_and_cost, **wrong)


# The distance.


def test_cosine_cost_equals_loops():
    x, y = problem()
    x, y = 5 * x, y / 3  # length does not matter
    for b in range(B):
        for i, u in enumerate(x[b].tolist()):
            for j, v in enumerate(y[b].tolist()):
                dot = sum(a * c for a, c in zip(u, v)) / math.hypot(*u) / math.hypot(*v)
                close(cosine_cost(x, y)[b, i, j].item(), 1 - dot, 1e-13)


def test_the_way_to_oneself_is_short():
    x, _ = problem(d=32)
    order = torch.randperm(T, generator=torch.Generator().manual_seed(0))
    away = word_region_alignment(x, -x, real(B, T), real(B, T))
    for iterations, limit in ((50, 1e-6), (200, 1e-12)):
        for y in (x, x[:, order], 3 * x):
            assert word_region_alignment(x, y, real(B, T), real(B, T), iterations=iterations).abs().max() < limit
    assert away.min() > 0.5


def test_one_word_pays_the_mean_over_regions():
    x, y = problem(t=1)
    distance = word_region_alignment(x, y, real(B, 1), real(B, P))
    close(distance, cosine_cost(x, y).mean((1, 2)), 1e-14)


def test_the_gradient_takes_the_plan_for_a_constant():
    x, y = (z.requires_grad_() for z in problem())
    x_mask, y_mask = masks()
    got = torch.autograd.grad(word_region_alignment(x, y, x_mask, y_mask).sum(), (x, y))
    cost = cosine_cost(x, y)
    plan = ipot(cost, x_mask, y_mask)
    assert not plan.requires_grad
    expected = torch.autograd.grad((torch.tensor(plan.tolist(), dtype=torch.float64) * cost).sum(), (x, y))
    for gradient, other, mask in zip(got, expected, (x_mask, y_mask)):
        close(gradient, other, 1e-14)
        assert (gradient[~mask] == 0).all()
        assert gradient[mask].abs().sum() > 0


def test_descending_brings_words_and_regions_together():
    x, y = problem()
    x.requires_grad_()
    before = word_region_alignment(x, y, *masks())
    optimizer = torch.optim.SGD([x], lr=1.0)
    for _ in range(20):
        optimizer.zero_grad()
        word_region_alignment(x, y, *masks()).sum().backward()
        optimizer.step()
    assert (word_region_alignment(x, y, *masks()) < before).all()
