"""Fusion before transformers: what each part must do, told one property at a time."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from mmlearn.exercises import (
    agreement,
    by_hand,
    case,
    expect,
    expect_boolean,
    expect_close,
    expect_not,
    expect_tensor,
    expect_trains,
    expect_zero,
    over,
    task,
)
from mmlearn.exercises.inputs import between, evenly, numbers, some_of, uniform
from mmlearn.models.classic_fusion.lmf import low_rank_product
from mmlearn.models.classic_fusion.tfn import outer_product
from mmlearn.objectives.cues import (
    cue_reconstruction,
    destroy_numbers,
    keep_modalities,
    pair_similarity,
    similarity_of_pairs,
)

# A pair that belongs together, or does not.


@task(
    pair_similarity,
    difficulty=1,
    minutes=10,
    example=by_hand(
        torch.tensor([[3.0, 4.0], [3.0, 4.0], [1.0, 0.0]]), torch.tensor([[2.0, 0.0], [-3.0, -4.0], [0.0, 5.0]]),
        gives=torch.tensor([0.8, 0.0, 0.5]),
    ),
)  # fmt: skip
def check_pair_similarity(function: Callable) -> None:
    """Each text with its own picture, from 0 to 1, whatever the lengths."""
    b, d = between(12, 16), between(3, 5)
    text, image = numbers(b, d), numbers(b, d)
    got = expect_tensor(function(text, image), (b,))
    dot = (text * image).sum(1)
    cosine = dot / (text.norm(dim=1) * image.norm(dim=1))
    half = "half of 1 + the cosine."
    expect_not(got, cosine, "It must be from 0 to 1; here it is the cosine, which is from -1 to 1.", half)
    expect_not(got, (1 + dot) / 2, "Lengths must not matter; here the product is not divided by them.", half)
    lost = "What points away must be less similar than what stands at a right angle; here it is not."
    expect_not(got, (cosine.clamp(min=0), cosine.abs()), lost, half)
    expect_not(got, cosine.sigmoid(), "It must reach 0 and 1; here a sigmoid keeps it away from both.", half)
    same = agreement(function, pair_similarity)
    same((text, image), "It must be half of 1 + the cosine.", half)
    with case("For numbers as small as 0.00001"):
        same((1e-5 * text / text.abs().max(), image), "Lengths must not matter.", "add nothing to the divisor.")
    zeros = "F.cosine_similarity does not divide by less than 10⁻⁸; a division by 0 gives NaN."
    with case("For vectors of zeros"):
        same((0 * text, image), "Similarity must be ½.", zeros)
    expect_trains(function, text, image, like=pair_similarity)


@task(
    similarity_of_pairs,
    difficulty=2,
    minutes=10,
    example=by_hand(torch.tensor([0.5, 0.25]), torch.tensor([1, 0]), gives=0.490),
)
def check_similarity_of_pairs(function: Callable) -> None:
    """Cross-entropy of a similarity that is read as a probability."""
    b = between(6, 9)
    true = torch.arange(b) % 3 % 2
    draws = [(0.1 + 0.8 * evenly(b), true) for _ in range(3)]
    got = over(draws, function)

    def cost(last: Callable) -> Tensor:
        return torch.stack([last(similar) for similar, _ in draws])

    yes, every = "true is 1 where the pair belongs together.", "torch.where(true == 1, s.log(), (1 - s).log())."
    other = cost(lambda s: -torch.where(true == 0, s.log(), (1 - s).log()).mean())
    expect_not(got, other, "True pairs must be similar; here false ones are to be.", yes)
    alone = cost(lambda s: -(true * s.log()).mean()), cost(lambda s: -s[true == 1].log().mean())
    expect_not(got, alone, "False pairs must count as well; here only true ones do.", every)
    total = cost(lambda s: -torch.where(true == 1, s.log(), (1 - s).log()).sum())
    expect_not(got, total, "It must be the mean over pairs; here it is their sum.", "mean, not sum.")
    square = cost(lambda s: (s - true).square().mean())
    expect_not(got, square, "It must be a cross-entropy; here it is a squared error.", every)
    twice = cost(lambda s: -torch.where(true == 1, s.sigmoid().log(), (1 - s.sigmoid()).log()).mean())
    expect_not(got, twice, "A similarity is a probability already; here it passes a sigmoid.", every)
    same = agreement(function, similarity_of_pairs)
    same(draws, "It must be the cross-entropy of true pairs and false ones.", every)
    with case("With similarities of 0 and 1"):
        finite = "s.clamp(1e-6, 1 - 1e-6) before the logarithm."
        sure = agreement(function, similarity_of_pairs, tolerance=1e-3)
        sure((torch.tensor([0.0, 1.0, 1.0]), torch.tensor([1, 0, 1])), "They must stay 10⁻⁶ away from both.", finite)
    expect_trains(function, draws[0][0], like=similarity_of_pairs, fixed=(true,))


# Products, and a gate.


@task(
    outer_product,
    difficulty=2,
    minutes=15,
    example=by_hand(torch.tensor([[[2.0], [5.0]]]), gives=torch.tensor([[10.0, 2.0, 5.0, 1.0]])),
)
def check_outer_product(function: Callable) -> None:
    """All products of one number from each vector, each vector with a 1 behind it."""
    for m in (2, 3):
        with case(f"For {m} modalities"):
            b, d = between(4, 6), between(3, 4)
            x = numbers(b, m, d)
            got = expect_tensor(function(x), (b, (d + 1) ** m))
            one = torch.ones(b, m, 1)

            def made(y: Tensor, join: Callable = torch.mul) -> Tensor:
                first, *others = y.unbind(1)
                for other in others:
                    first = join(first[:, :, None], other[:, None]).flatten(1)
                return first

            behind = torch.cat([x, one], 2)
            ones = "torch.cat([x, torch.ones_like(x[..., :1])], -1) first."
            expect_not(got, made(torch.cat([one, x], 2)), "The 1 must stand behind; here it stands in front.", ones)
            zeros = "A 1 must stand behind each vector, so that a number alone is a product; here it is a 0."
            expect_not(got, made(torch.cat([x, 0 * one], 2)), zeros, ones)
            fast = "The last vector's numbers must change fastest; here the first one's do."
            expect_not(got, made(behind.flip(1)), fast, "first[:, :, None] * other[:, None], and flatten(1).")
            added = "Numbers must be multiplied; here they are added."
            expect_not(got, made(behind, torch.add), added, "first[:, :, None] * other[:, None].")
            same = agreement(function, outer_product)
            same((x,), "It must be all products, of which the last is 1.", ones)
            expect_trains(function, x, like=outer_product)


@task(
    low_rank_product,
    difficulty=3,
    minutes=15,
    example=by_hand(
        torch.tensor([[[2.0], [5.0]]]),
        torch.tensor([[[[1.0], [0.0]], [[0.0], [1.0]]], [[[1.0], [0.0]], [[0.0], [3.0]]]]),
        gives=torch.tensor([[13.0]]),
    ),
)
def check_low_rank_product(function: Callable) -> None:
    """What a linear layer of low rank reads from the outer product."""
    b, m, d, rank, out = between(3, 4), 3, between(4, 5), between(2, 3), between(6, 7)
    # What each factor reads is about 1 in size, so that rounding stays small in a product of nine.
    x, factors = numbers(b, m, d), numbers(m, rank, d + 1, out) / (d + 1) ** 0.5
    got = expect_tensor(function(x, factors), (b, out))
    with_one = torch.cat([x, torch.ones(b, m, 1)], 2)
    parts = torch.einsum("bmd,mrdo->bmro", with_one, factors)
    product = "multiply over modalities, and then add over ranks: .prod(1).sum(1)."
    expect_not(got, parts.sum((1, 2)), "Modalities must be multiplied; here they are added.", product)
    expect_not(got, parts.prod(1).prod(1), "Ranks must be added; here they are multiplied.", product)
    expect_not(got, parts.sum(2).prod(1), "Each rank has a product of its own; here ranks are added first.", product)
    expect_not(got, parts.prod(1).mean(1), "Ranks must be added; here it is their mean.", product)
    alone = torch.einsum("bmd,mrdo->bmro", x, factors[:, :, :-1]).prod(1).sum(1)
    ones = "torch.cat([x, torch.ones_like(x[..., :1])], -1) first."
    expect_not(got, alone, "A 1 must stand behind each vector; here only products of all modalities count.", ones)
    front = torch.einsum("bmd,mrdo->bmro", with_one.roll(1, 2), factors).prod(1).sum(1)
    expect_not(got, front, "The 1 must stand behind; here it stands in front.", ones)
    whole = outer_product(x) @ sum(_outer_weights(factors[:, r]) for r in range(rank))
    equal = "It must be what a linear layer reads from the outer product, with weights that are a sum of products."
    expect_close(got, whole, equal, product, tolerance=1e-3)
    expect_trains(function, x, factors, like=low_rank_product)


def _outer_weights(factors: Tensor) -> Tensor:
    """The weights of one rank, as a linear layer on the outer product has them: (m, n, o) → (nᵐ, o)."""
    first, *others = factors
    for other in others:
        first = (first[:, None] * other[None]).flatten(0, 1)
    return first


def gated_unit(
    first: Float[Tensor, "b f"],
    second: Float[Tensor, "b k"],
    first_weight: Float[Tensor, "d f"],
    second_weight: Float[Tensor, "d k"],
    gate_weight: Float[Tensor, "d f_and_k"],
) -> Float[Tensor, "b d"]:
    """The fused vector of the library's GMU, which holds these weights as its layers."""
    gate = (torch.cat([first, second], 1) @ gate_weight.T).sigmoid()
    return gate * (first @ first_weight.T).tanh() + (1 - gate) * (second @ second_weight.T).tanh()


@task(
    gated_unit,
    difficulty=2,
    minutes=15,
    example=by_hand(
        torch.tensor([[1.0]]), torch.tensor([[1.0]]), torch.tensor([[0.5493]]), torch.tensor([[0.0]]),
        torch.tensor([[1.0986, 0.0]]), gives=torch.tensor([[0.375]]),
    ),
)  # fmt: skip
def check_gated_unit(function: Callable) -> None:
    """A gate for each number: what it leaves of one modality it takes from the other."""
    b, f, k, d = between(4, 5), between(6, 7), between(8, 9), between(10, 12)
    given = numbers(b, f), numbers(b, k), 0.5 * numbers(d, f), 0.5 * numbers(d, k), 0.5 * numbers(d, f + k)
    first, second, w1, w2, wz = given
    got = expect_tensor(function(*given), (b, d))
    logit = torch.cat([first, second], 1) @ wz.T
    one, two, z = (first @ w1.T).tanh(), (second @ w2.T).tanh(), logit.sigmoid()
    both = "z * h1 + (1 - z) * h2."
    expect_not(got, (1 - z) * one + z * two, "z must be the first modality's part; here it is the second's.", both)
    expect_not(got, z * (one + two), "What z takes from one the other must have; here both have z.", both)
    expect_not(got, (one + two) / 2, "A gate must decide; here it is the mean.", both)
    raw = z * (first @ w1.T) + (1 - z) * (second @ w2.T)
    expect_not(got, raw, "Each projection must pass a tanh; here it is linear.", "h1 = tanh(W1 x1).")
    soft = logit.softmax(1)
    shared = "Each number has a gate of its own; here they share a softmax."
    expect_not(got, soft * one + (1 - soft) * two, shared, "sigmoid of W_z [x1; x2].")
    turned = (torch.cat([second, first], 1) @ wz.T).sigmoid()
    order = "The gate must read [x1; x2]; here it reads [x2; x1]."
    expect_not(got, turned * one + (1 - turned) * two, order, "torch.cat([first, second], 1).")
    agreement(function, gated_unit)(given, "It must be z ⊙ h1 + (1 - z) ⊙ h2.", both)
    expect_trains(function, *given, like=gated_unit)


# What is lost on purpose, and restored.


@task(
    destroy_numbers,
    difficulty=2,
    minutes=10,
    example=by_hand(
        torch.tensor([[5.0, 6.0, 7.0, 8.0]]), torch.tensor([[0.9, 0.1, 0.4, 0.3]]), 0.5,
        gives=torch.tensor([[5.0, 0.0, 7.0, 0.0]]),
    ),
)  # fmt: skip
def check_destroy_numbers(function: Callable) -> None:
    """Equally many in each row, in places of its own, and all others as they were."""
    b, n, k = 8, 20, between(6, 9)
    x, chance, share = numbers(b, n), evenly(b, n), (k - 0.3) / n
    got = expect_tensor(function(x, chance, share), (b, n))
    least = "chance.argsort(1).argsort(1) tells how many chances of its row are less."
    with case("With ν = 0"):
        expect_close(function(x, chance, 0.0), x, "Nothing must change.", least)
    below = x.masked_fill(chance < share, 0)
    expect_not(got, below, "Each row must lose equally many; here all with a chance below ν are lost.", least)
    position = chance.argsort(1).argsort(1)
    rounded = "νn must be rounded; here what stands behind the point is cut off."
    expect_not(got, x.masked_fill(position < k - 1, 0), rounded, "round(share * n).")
    most = "Those with the least chance must be lost; here those with the highest are."
    expect_not(got, (x.masked_fill(position >= n - k, 0), x.masked_fill(position >= k, 0)), most, least)
    kept = x.masked_fill(position < k, 0)
    scaled = "What stays must be as it was; here it is made larger, as dropout does."
    expect_not(got, (kept / (1 - share), kept * n / (n - k)), scaled, "masked_fill alone.")
    where = "A row's own chances must tell; here all rows lose the same positions."
    expect_not(got, x.masked_fill(position[:1] < k, 0), where, least)
    once = "argsort tells which number is the least, not how many are less; here it is taken once."
    expect_not(got, x.masked_fill(chance.argsort(1) < k, 0), once, least)
    same = agreement(function, destroy_numbers)
    same((x, chance, share), "What is lost must be 0, and all else as it was.", least)
    up = "νn must be rounded; here it is rounded up."
    expect_not(function(x, chance, (k + 0.3) / n), x.masked_fill(position < k + 1, 0), up, "round(share * n).")
    same((x, chance, (k + 0.3) / n), "νn must be rounded.", "round(share * n).")


@task(
    cue_reconstruction,
    difficulty=3,
    minutes=15,
    example=by_hand(
        torch.tensor([[[1.0, 1.0], [7.0, 7.0]]]), torch.tensor([[[0.0, 3.0], [0.0, 0.0]]]),
        torch.tensor([[True, False]]), gives=2.5,
    ),
)  # fmt: skip
def check_cue_reconstruction(function: Callable) -> None:
    """The mean over the numbers of what was there, and nothing of what was not."""
    b, m, f = between(6, 8), 3, between(4, 6)
    mask = some_of(b, m, real=[1, 2, 3, 2, 1, 3, 2, 2][:b])
    draws = [(numbers(b, m, f), numbers(b, m, f), mask) for _ in range(3)]
    got = over(draws, function)

    def cost(last: Callable) -> Tensor:
        return torch.stack([last(said - cues) for said, cues, _ in draws])

    there = "the error of modalities where mask is True, as error[mask].mean()."
    every = cost(lambda e: e.square().mean())
    expect_not(got, every, "What is missing must not count; here it does.", there)
    blank = torch.stack([(said - cues * mask[..., None]).square().mean() for said, cues, _ in draws])
    expect_not(got, blank, "What is missing must not count; here it is to be restored as 0.", there)
    diluted = cost(lambda e: (e.square() * mask[..., None]).mean())
    expect_not(
        got, diluted, "Only what counts must be counted; here the sum is divided by all.", "divide by mask.sum()."
    )
    lengths = cost(lambda e: e.square().sum(2)[mask].mean())
    expect_not(got, lengths, "It must be the mean over features; here they are added.", there)
    size = cost(lambda e: e.abs().mean(2)[mask].mean())
    expect_not(got, size, "Errors must be squared; here they are absolute.", there)
    rows = cost(lambda e: ((e.square().mean(2) * mask).sum(1) / mask.sum(1)).mean())
    expect_not(got, rows, "Each modality must count alike; here each row does.", there)
    same = agreement(function, cue_reconstruction)
    same(draws, "It must be the mean squared error of what was there.", there)
    expect_trains(function, draws[0][0], like=cue_reconstruction, fixed=draws[0][1:])
    with case("Where no modality was there"):
        expect_zero(function, draws[0][0], draws[0][1], mask & False)


@task(
    keep_modalities,
    difficulty=3,
    minutes=20,
    example=by_hand(
        torch.tensor([[True, True], [True, True], [True, False]]),
        torch.tensor([[0.1, 0.7], [0.2, 0.3], [0.1, 0.4]]), 0.5,
        gives=torch.tensor([[False, True], [False, True], [True, False]]),
    ),
)  # fmt: skip
def check_keep_modalities(function: Callable) -> None:
    """p = 0 is the identity, and the last modality of a row is never dropped."""
    b, m, p = 256, 3, uniform(0.5, 0.7)
    mask = some_of(b, m, real=[0, 1, 2, 3] * (b // 4))
    chance = evenly(b, m)
    got = expect_boolean(function(mask, chance, p), (b, m))
    kept = "mask & (chance >= probability)."
    with case("With p = 0"):
        expect(torch.equal(function(mask, chance, 0.0), mask), "All must stay.", kept)
    expect(not (got & ~mask).any(), "What is not there must not be kept.", kept)
    least = mask & (chance < p)
    inverse = "A modality must be dropped where its chance is below p; here it is kept there."
    expect(not torch.equal(got & ~least, mask & False), inverse, kept)
    alone = mask & (chance >= p)
    last = "of those that are there the one with the highest chance: chance.masked_fill(~mask, -1).argmax(1)."
    none = (mask & ~alone).any(1) & ~alone.any(1)
    expect(got[none].any(1).all(), "Of a row that has a modality one must stay; here all are dropped.", last)
    back = "Where all would be dropped one must stay; here all come back."
    expect(not torch.equal(got, torch.where(none[:, None], mask, alone)), back, last)
    first = mask & (mask.long().cumsum(1) == 1)
    which = "Where all would be dropped the one with the highest chance must stay; here it is the first."
    expect(not torch.equal(got, torch.where(none[:, None], first, alone)), which, last)
    expect(
        torch.equal(got, keep_modalities(mask, chance, p)), "All else must stay where its chance is p or more.", last
    )
    with case("With p = 1"):
        expect((function(mask, chance, 1.0).sum(1) == mask.any(1)).all(), "One must stay.", last)
    with case("Where one modality is there, with a chance of 0"):
        alone = torch.eye(m).bool()
        lost = "It must stay, because it is the last; here it does not."
        expect(
            torch.equal(function(alone, 0 * evenly(m, m), p), alone), lost, "what is not there counts as -1, not as 0."
        )
    with case("With one row, whose last modality is not there"):
        one = function(torch.tensor([[True, True, False]]), torch.tensor([[p / 3, p / 2, 1.0]]), p)
        count = "F.one_hot(…, mask.shape[1]): left out, it takes the number from what is in the batch."
        expect_close(one.float(), torch.tensor([[0.0, 1.0, 0.0]]), "The second must stay alone.", count)
    with case("With a chance that is just p"):
        equal = torch.tensor([[p, p / 2, 1.0], [p / 2, p, 1.0]], dtype=torch.float64)
        kept_both = torch.equal(function(equal > 0, equal, p), equal >= p)
        expect(kept_both, "It must stay: it is dropped where its chance is below p.", kept)
