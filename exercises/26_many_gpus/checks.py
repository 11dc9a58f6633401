"""What a training costs, worked out on paper: what each function must do, told one property at a time."""

import math
from collections.abc import Callable
from typing import Any

import torch

from mmlearn.data.batches import rank_batches
from mmlearn.exercises import (
    agreement,
    by_hand,
    case,
    expect,
    expect_close,
    expect_not,
    expect_number,
    expect_one_number,
    expect_sure_and_wrong,
    expect_tensor,
    expect_trains,
    expect_whole,
    over,
    task,
)
from mmlearn.exercises.inputs import between, uniform, unit
from mmlearn.objectives import info_nce
from mmlearn.objectives.large_batch import accumulated_info_nce
from mmlearn.training.estimates import block_flops, kept_by_block, recomputed_bytes, sharded_bytes, utilisation
from mmlearn.training.optimizers import scaled_rate


def expect_formula(got: Any, wanted: float, property: str, hint: str, *mistaken: tuple[float, str, str]) -> None:
    """Fail unless ``got`` is this number; a known mistake gives a number of its own, and is told as such."""
    got = expect_one_number(got)
    for value, words, instead in mistaken:
        mistake = math.isclose(got, value, rel_tol=1e-6) and not math.isclose(value, wanted, rel_tol=1e-6)
        expect(not mistake, words, instead)
    expect_number(got, wanted, property, hint)


# How busy a device is.


@task(utilisation, difficulty=1, minutes=5, example=by_hand(35e9, 1000.0, 312e12, gives=0.3365))
def check_utilisation(function: Callable) -> None:
    """Three forward passes' work for each sample, over what the device could do."""
    forward, rate, peak = uniform(1e9, 9e10), uniform(50, 900), uniform(2e14, 9e14)
    part = forward * rate / peak
    expect_formula(
        function(forward, rate, peak),
        3 * part,
        "It must be the model's operations a second, over those that the device can do at most.",
        "operations of a training step for one sample, times samples a second, divided by peak_flops.",
        (part, "A training step is a forward and a backward pass; this counts the forward pass alone.", "3 in all."),
        (2 * part, "A backward pass costs twice the forward pass; this counts it once.", "1 + 2 = 3."),
        (4 * part, "What is computed again is no work of the model; this counts 4 forward passes.", "1 + 2 = 3."),
        (1 / (3 * part), "A busy device must have a share near 1; this is upside down.", "peak_flops divides."),
        (300 * part, "It must be a share from 0 to 1, not a percentage.", "leave out the 100."),
    )


# Accumulated gradients.


FOUR = torch.tensor([[1.0, 0.0]]).repeat(4, 1)


@task(
    accumulated_info_nce, difficulty=1, minutes=10, example=by_hand(FOUR, FOUR, torch.tensor(3.0), 2, gives=math.log(2))
)
def check_accumulated_info_nce(function: Callable) -> None:
    """The mean of the parts' losses, each with the wrong answers of its own part only."""
    parts, each, scale = between(2, 4), between(3, 5), torch.tensor(4.0)
    b = parts * each
    expect_tensor(function(unit(b, 8), unit(b, 8), scale, parts), ())
    alike = unit(1, 8).repeat(b, 1)
    nothing = function(alike, alike, scale, parts)
    expect_not(
        nothing,
        math.log(b),
        f"A part must not see the pairs of other parts: of nothing known it costs ln {each}, and here ln {b}.",
        "cut pictures and texts into parts first, and then take the loss of each.",
    )
    words = f"Embeddings that know nothing must cost ln(b / parts) = ln {each}."
    expect_close(nothing, math.log(each), words, "the mean of the parts' losses: neither their sum nor a part of it.")
    draws = [(unit(b, 8), unit(b, 8), scale, parts) for _ in range(3)]
    got, same = over(draws, function), agreement(function, accumulated_info_nce)
    first = over(draws, lambda u, v, s, parts: info_nce(u[:each], v[:each], s))
    expect_not(got, first, "Every part must count; here it is the first alone.", "a loop over all parts, or chunk.")
    turns = over(draws, lambda u, v, s, n: torch.stack([info_nce(u[i::n], v[i::n], s) for i in range(n)]).mean())
    expect_not(got, turns, "A part must be b / parts pairs in a row; here parts take turns.", "tensor.chunk(parts).")
    same(draws, "It must be the mean over parts of InfoNCE.", "info_nce(images of a part, texts of a part, scale).")
    with case("With one part"):
        whole = [(*draw[:3], 1) for draw in draws]
        same(whole, "It must be InfoNCE of the whole batch.", "no special case is needed.")
    with case("With parts of a single pair"):
        single = function(*draws[0][:3], b)
        expect_close(single, 0.0, "Nothing can be learned: it must cost 0.", "a softmax over one logit is 1.")
    expect_trains(function, *draws[0][:3], fixed=(parts,), like=accumulated_info_nce)
    sure = draws[0][0], torch.cat([part.roll(1, 0) for part in draws[0][0].chunk(parts)]), torch.tensor(200.0)
    with case("At logit_scale 200, where the wrong ones are nearest"):
        expect_sure_and_wrong(function, *sure, fixed=(parts,), like=accumulated_info_nce)


# What a device holds.


@task(sharded_bytes, difficulty=2, minutes=10, example=by_hand(1e9, 8, 1, gives=9e9))
def check_sharded_bytes(function: Callable) -> None:
    """Sixteen bytes a parameter; moments, gradients and weights are shared one stage after the other."""
    n, devices = float(between(10**8, 10**9)), between(5, 64)
    sixteen = "Four bytes of weights, four of gradients and eight of moments: 16 for each parameter."
    expect_formula(
        function(n, devices, 0),
        16 * n,
        "At stage 0 each device must hold everything.",
        sixteen,
        (12 * n, "AdamW keeps two moments for each parameter; this counts one of them.", sixteen),
        (8 * n, "The moments of AdamW count too, or the gradients; this counts 8 bytes of 16.", sixteen),
        (4 * n, "Weights are only 4 bytes of 16: gradients and moments count too.", sixteen),
        (16 * n / devices, "At stage 0 nothing is shared; this shares everything.", "only stage 3 shares it all."),
        (16 * n * devices, "It must be the bytes on each device, not on all together.", "divide what is shared."),
    )
    shares = {1: 8 + 8 / devices, 2: 4 + 12 / devices, 3: 16 / devices}
    moments = "From stage 1 on the moments must be shared"
    wanted = {
        1: f"{moments}, and only these.",
        2: "Stage 2 must share moments and gradients.",
        3: "Stage 3 shares all.",
    }
    order = "moments from stage 1 on, gradients from 2, weights from 3: stage >= 1, stage >= 2, stage >= 3."
    for stage, share in shares.items():
        late = (shares | {0: 16})[stage - 1] * n
        weights_first = {1: 12 + 4 / devices, 2: 8 + 8 / devices}.get(stage, share) * n
        alone = {2: 12 + 4 / devices, 3: 12 + 4 / devices}.get(stage, share) * n
        with case(f"At stage {stage}"):
            expect_formula(
                function(n, devices, stage),
                share * n,
                wanted[stage],
                order,
                (late, "Sharing must begin one stage earlier.", order),
                (weights_first, f"{moments} first; here the weights are.", order) if stage == 1 else (0, "", ""),
                (alone, "A later stage must share what earlier ones share as well.", order),
            )
    for stage in range(4):
        one = function(n, 1, stage)
        expect_number(one, 16 * n, "A single device must hold everything, whatever the stage.", "1 / devices is 1.")


# Rates of larger batches.


@task(scaled_rate, difficulty=2, minutes=10, example=by_hand(50, 0.1, 1024, 256, 100, "linear", gives=0.25))
def check_scaled_rate(function: Callable) -> None:
    """The factor of each rule, after a straight way that begins with the rate itself."""
    rate, base, k, warmup = uniform(0.01, 0.2), 32 * between(2, 8), between(5, 9), 2 * between(10, 50)
    batch, root = k * base, math.sqrt(k)

    def at(step: int, rule: str = "linear", batch: int = batch, warmup: int = warmup) -> Any:
        return function(step, rate, batch, base, warmup, rule)

    linear = "By the linear rule a batch k times as large must get k times the rate."
    expect_formula(
        at(warmup),
        k * rate,
        linear,
        "k = batch / base_batch.",
        (rate / k, "A larger batch must get a larger rate; this one is smaller.", "batch / base_batch."),
        (root * rate, f"{linear} This takes the root of k.", "math.sqrt is for the rule 'root'."),
        (rate, "After the warm-up the rate must be scaled; this leaves it as it was.", "rate times the factor."),
    )
    words = "By the root rule a batch k times as large must get √k times the rate."
    wrong = (k * rate, f"{words} This takes k itself.", "look at rule.")
    expect_formula(at(warmup, "root"), root * rate, words, "math.sqrt(batch / base_batch).", wrong)
    line = "on a straight line from rate: rate · (1 + (factor - 1) · step / warmup)."
    for rule, factor in (("linear", k), ("root", root)):
        half = rate * (1 + factor) / 2
        expect_formula(
            at(warmup // 2, rule),
            half,
            "Half way through the warm-up it must be half way between rate and the scaled rate.",
            line,
            (factor * rate / 2, "The warm-up must begin with rate; this one begins with 0.", line),
            (factor * rate, "In the warm-up the rate must still grow; this has no warm-up.", line),
            (rate * math.sqrt(factor), "It must grow along a straight line; this grows by a factor.", line),
        )
        expect_number(at(0, rule), rate, "At step 0 it must be rate.", line)
        expect_number(at(3 * warmup, rule), factor * rate, "After the warm-up it must stay.", "min(1, step / warmup).")
        expect_number(at(0, rule, warmup=0), factor * rate, "Without a warm-up it must be scaled at once.", "no 0 / 0.")
    expect_number(at(warmup, batch=base), rate, "The batch that rate was found for must keep it.", "k is 1.")
    smaller = at(warmup, batch=base // 2)
    expect_number(smaller, rate / 2, "A smaller batch must get a smaller rate.", "/ divides, // rounds down.")
    between_two = at(warmup, batch=5 * base // 2)
    expect_number(between_two, 2.5 * rate, "Two batches and a half must get as much of the rate.", "/, not //.")
    quarter = at(warmup, "root", batch=base // 4)
    expect_number(quarter, rate / 2, "A quarter of the batch must get half of the rate, by the root.", "no max(1, …).")


# Who reads what.


@task(
    rank_batches,
    difficulty=2,
    minutes=15,
    example=by_hand(torch.tensor([4, 2, 0, 5, 1, 3, 6]), 1, 2, 2, gives=torch.tensor([[2], [5], [3]])),
)
def check_rank_batches(function: Callable) -> None:
    """Equal parts of the same batches, each sample once, whatever the number of ranks."""
    own, world, steps = between(2, 4), between(2, 4), between(3, 5)
    batch = own * world
    order = 2**26 + torch.randperm(steps * batch + own)
    every = [expect_whole(function(order, rank, world, batch), (steps, own)) for rank in range(world)]
    got = torch.cat(every, 1)  # (steps, batch): what each batch of all ranks holds
    expect(
        torch.isin(got, order).all(),
        "It must hold samples of order, each as it is.",
        "take order[…], not positions in it; and int64, because float32 is exact up to 2²⁴ only.",
    )
    expect(
        len(got.unique()) == got.numel(),
        "No two ranks must have the same sample, and no rank must have one twice.",
        "cut each batch into world parts, of which a rank takes one; what fills no batch is left out.",
    )
    wanted = order[: steps * batch].view(steps, batch)
    expect(
        torch.equal(got.sort(1).values, wanted.sort(1).values),
        "Batch k of all ranks must be the k-th batch_size samples of order, whatever world is.",
        "first cut order into batches, and then each batch into parts: view(steps, world, own).",
    )
    expect(
        torch.equal(got, wanted),
        "Of each batch rank 0 must have the first part, rank 1 the next, each in the order that they came in.",
        "part r of a batch is its samples r · own … (r + 1) · own - 1; order[rank::world] takes turns.",
    )
    alone = expect_whole(function(order, 0, 1, batch), (steps, batch))
    expect(torch.equal(alone, wanted), "One rank must have the whole batches.", "no special case is needed.")
    with case("Where the samples fill no batch"):
        expect_whole(function(order[: batch - 1], 0, world, batch), (0, own))
    with case("Where all batches are full"):
        exact = expect_whole(function(order[: 2 * batch], world - 1, world, batch), (2, own))
        hint = "len(order) // batch_size batches."
        expect(torch.equal(exact, wanted[:2, -own:]), "All samples must be used.", hint)


# Operations and bytes of a block.


@task(block_flops, difficulty=2, minutes=15, example=by_hand(3, 2, 8, gives=360))
def check_block_flops(function: Callable) -> None:
    """Four projections, two products of tokens with tokens, and two layers of the MLP."""
    n, d, m = 2 * between(30, 45) + 1, 16 * between(3, 5), 16 * between(9, 11)
    projections, pairs, mlp = 4 * n * d**2, 2 * n**2 * d, 2 * n * d * m
    whole = projections + pairs + mlp
    expect_formula(
        function(n, d, m),
        2 * whole,
        "It must be 2 (4 n d² + 2 n² d + 2 n d m).",
        "(a, b) times (b, c) is a · b · c multiplications, and as many additions.",
        (whole, "A multiplication with its addition must count as two; this counts one.", "twice the sum."),
        (2 * (whole - pairs), "Tokens must meet tokens: the products of attention are missing.", "n · d · n, twice."),
        (2 * (whole - pairs / 2), "Attention is two products of tokens with tokens; one is missing.", "QKᵀ, and AV."),
        (2 * (whole - n * d**2), "There are four projections; one is missing.", "query, key, value, output."),
        (2 * (whole - mlp / 2), "An MLP has two layers; one is missing.", "d to m, and m to d."),
        (2 * (whole - mlp + 8 * n * d**2), "mlp_width need not be 4 · width.", "two layers of n · d · m."),
        (6 * whole, "It must be the forward pass alone; this counts the backward pass too.", "leave out the 3."),
    )


@task(recomputed_bytes, difficulty=2, minutes=15, example=by_hand(12, 3, 1.0, 16.0, gives=52.0))
def check_recomputed_bytes(function: Callable) -> None:
    """An input for each segment, and everything of one segment."""
    every, i, a = between(3, 5), uniform(1, 3), uniform(10, 40)
    segments = between(6, 8)
    depth = every * segments
    expect_formula(
        function(depth, every, i, a),
        segments * i + every * a,
        "It must be an input for each segment, and all that the blocks of one segment keep.",
        "depth / every segments, of which one at a time is computed again.",
        (segments * i, "The segment that is computed again must be held too.", "every · block_bytes beside it."),
        (
            depth * i + every * a,
            "Only the first input of each segment must be kept; here each block's.",
            "per segment.",
        ),
        (segments * i + a, "All blocks of a segment are computed again at once; here one is held.", "every blocks."),
        (segments * i + depth * a, "Only one segment must be held whole; here all are.", "every · block_bytes."),
        (every * (i + a), "Inputs of all segments wait at once; here those of one are counted.", "depth / every."),
        (every * i + segments * a, "every is the length of a segment, not their number.", "depth / every of them."),
    )
    with case("With a last segment that is shorter"):
        words = "Its input must be kept as well: round up."
        expect_number(function(depth + 1, every, i, a), (segments + 1) * i + every * a, words, "math.ceil.")
    with case("With segments of one block"):
        words = "It must be the inputs of all blocks, and one block."
        expect_number(function(depth, 1, i, a), depth * i + a, words, "every is 1.")
    with case("With one segment"):
        words = "It must be one input, and all blocks: nothing is saved."
        expect_number(function(depth, depth, i, a), i + depth * a, words, "every is depth.")


@task(kept_by_block, difficulty=3, minutes=20, example=by_hand(3, 2, 1, 8, gives=117))
def check_kept_by_block(function: Callable) -> None:
    """Eight tensors of the width, two of the MLP's, four numbers a token, and the weights of attention."""
    n, h = between(67, 90), between(2, 5)
    d = h * between(7, 9)
    m = 3 * d + between(1, 9)
    whole, weights = 8 * n * d + 2 * n * m + 4 * n + h * n**2, h * n**2
    sizes = (
        "inputs of two norms, query, key and value projections together, output projection, MLP; then q, k and v: 8."
    )
    expect_formula(
        function(n, d, h, m),
        whole,
        "It must be 8 n d + 2 n m + 4 n + h n².",
        "write down each operation, and what its gradient needs.",
        (whole - weights, "The weights of attention must be kept too.", "a number for each two tokens and head."),
        (whole - weights + n**2, "Each head has weights of its own; this counts one head.", "h · n²."),
        (whole - 3 * n * d, "Query, key and value must be kept too: they are factors of products.", sizes),
        (whole - n * m, "The input of the activation and the input of the second layer are two.", "2 n m."),
        (whole - 4 * n, "Each norm keeps a mean and a deviation for each token.", "two norms, two numbers: 4 n."),
        (whole + 2 * n * d, "Query, key and value projections have one input together.", sizes),
        (4 * whole, "It must be numbers, not bytes.", "leave out the 4."),
        (whole - 2 * n * m + 8 * n * d, "mlp_width need not be 4 · width.", "2 n m."),
    )
    expect_formula(
        function(n, d, h, m, True),
        whole - weights + h * n,
        "With the fused kernel h n sums must stand in place of the weights.",
        "it keeps a sum of exponentials for each row of weights.",
        (whole, "The fused kernel must keep no weights of attention.", "look at fused."),
        (whole - weights, "The fused kernel must keep a sum for each row of weights.", "h · n of them."),
    )
    expect_number(function(n, d, h, m, False), whole, "Unless fused, weights must be kept.", "fused: bool = False.")
