"""Questions about pictures, before transformers: what each part must do, told one property at a time."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from mmlearn.evaluation.answers import prior_guesses
from mmlearn.exercises import (
    agreement,
    by_hand,
    case,
    expect,
    expect_close,
    expect_not,
    expect_parts,
    expect_tensor,
    expect_trains,
    expect_whole,
    task,
)
from mmlearn.exercises.inputs import between, evenly, numbers, seeded, some_of
from mmlearn.models.question_answering.memory_network import position_encoding

# One vector each, and what needs no picture.


def pointwise_fusion(
    image: Float[Tensor, "b f"],
    question: Float[Tensor, "b k"],
    image_weight: Float[Tensor, "d f"],
    question_weight: Float[Tensor, "d k"],
) -> Float[Tensor, "b d"]:
    """What the classifier of the library's LSTM + CNN reads; there the weights are layers with biases."""
    return torch.tanh(image @ image_weight.T) * torch.tanh(question @ question_weight.T)


@task(
    pointwise_fusion,
    difficulty=1,
    minutes=10,
    example=by_hand(
        torch.tensor([[1.0]]), torch.tensor([[1.0]]), torch.tensor([[0.5493]]), torch.tensor([[1.0986]]),
        gives=torch.tensor([[0.4]]),
    ),
)  # fmt: skip
def check_pointwise_fusion(function: Callable) -> None:
    """Both at one width, between -1 and 1, and multiplied."""
    b, f, k, d = between(3, 5), between(6, 7), between(8, 9), between(10, 12)
    given = numbers(b, f), numbers(b, k), 0.5 * numbers(d, f), 0.5 * numbers(d, k)
    got = expect_tensor(function(*given), (b, d))
    one, two = given[0] @ given[2].T, given[1] @ given[3].T
    hint = "torch.tanh(W_I x) * torch.tanh(W_Q q)."
    expect_not(got, one.tanh() + two.tanh(), "They must be multiplied; here they are added.", hint)
    expect_not(got, one * two, "Each must pass a tanh first; here none does.", hint)
    expect_not(got, (one * two).tanh(), "Each must pass a tanh by itself; here the product does.", hint)
    half = one * two.tanh(), one.tanh() * two
    expect_not(got, half, "Both must pass a tanh; here only one does.", hint)
    agreement(function, pointwise_fusion)(given, "It must be the product of both.", hint)
    expect_trains(function, *given, like=pointwise_fusion)


@task(
    prior_guesses,
    difficulty=2,
    minutes=15,
    example=by_hand(
        ["colour", "shape", "size"], ["colour", "colour", "colour", "shape", "shape"], torch.tensor([0, 2, 2, 4, 3]),
        gives=torch.tensor([2, 3, 2]),
    ),
)  # fmt: skip
def check_prior_guesses(function: Callable) -> None:
    """The most common answer of each kind, learned from training alone."""
    low, some, more, high = (torch.randperm(12, generator=seeded())[:4].sort().values + 1).tolist()
    pairs = [("how", high)] * 3 + [("who", some)] * 2 + [("who", more)] + [("why", low)] * 5
    pairs = [("how", low), ("who", more), *(pairs[i] for i in torch.randperm(len(pairs), generator=seeded()))]
    train_kind, train_answer = [kind for kind, _ in pairs], torch.tensor([answer for _, answer in pairs])
    kind = ["why", "when", "how", "who", "how", "when"]
    got = expect_whole(function(kind, train_kind, train_answer), (len(kind),))
    why, when, how, who = got[:4].tolist()
    own = "train_answer of the rows of this kind, and bincount().argmax()."
    expect(not (got == low).all(), "Each kind has an answer of its own; here all get the most common of all.", own)
    expect(how != low, "It must be the most common answer of a kind; here it is the first, or the lowest.", own)
    tie = "Of several that are equally common it must be the lowest; here it is the highest, or the first."
    expect(who != more, tie, own)
    lacks = "train_answer.bincount().argmax() where no row has this kind."
    expect(when == low, "A kind that training lacks must get the most common answer of all; here it does not.", lacks)
    right = (why, how, who) == (low, high, some) and (got[4], got[5]) == (how, when)
    expect(right, "Each question must get the most common answer of its kind.", own)
    with case("For one question, after one of training"):
        large = 256 * between(2, 9) + between(1, 9)
        alone = expect_whole(function(["what"], ["what"], torch.tensor([large])), (1,), "no squeeze(): (1,), not ().")
        expect(alone[0] == large, f"Its answer must be {large}, the only one there is.", "int64.")
    with case("For kinds that are numbers or tuples"):
        names = (0, ("how", "many"), -1)
        many = expect_whole(function([*names, 5], names, torch.tensor([4, 3, 2])), (4,))
        expect(many.tolist() == [4, 3, 2, 2], "Each must be a kind of its own.", "compare kinds with ==.")


# A question looks.


def region_weights(
    u: Float[Tensor, "b d"],
    v: Float[Tensor, "b p d"],
    cell_weight: Float[Tensor, "a d"],
    question_weight: Float[Tensor, "a d"],
    bias: Float[Tensor, "a"],
    score: Float[Tensor, "a"],
) -> Float[Tensor, "b p"]:
    """Where a look of the library's SAN goes; there the weights are layers."""
    hidden = torch.tanh(v @ cell_weight.T + (u @ question_weight.T + bias)[:, None])
    return (hidden @ score).softmax(-1)


@task(
    region_weights,
    difficulty=2,
    minutes=15,
    example=by_hand(
        torch.tensor([[1.0]]), torch.tensor([[[0.0], [-1.0]]]), torch.tensor([[0.5493]]), torch.tensor([[0.5493]]),
        torch.zeros(1), torch.tensor([2.1972]), gives=torch.tensor([[0.75, 0.25]]),
    ),
)  # fmt: skip
def check_region_weights(function: Callable) -> None:
    """Each cell is compared with the question, and all weights of a picture add up to 1."""
    b, p, d, a = between(3, 4), between(5, 6), between(7, 8), between(9, 10)
    given = numbers(b, d), numbers(b, p, d), 0.5 * numbers(a, d), 0.5 * numbers(a, d), numbers(a), numbers(a)
    u, v, w_v, w_u, bias, w = given
    got = expect_tensor(function(*given), (b, p))
    cells, asked = v @ w_v.T, (u @ w_u.T + bias)[:, None]
    hint = "torch.tanh(v @ W_v.T + (u @ W_u.T + b)[:, None]) @ w, and softmax(-1)."

    def weighed(hidden: Tensor) -> Tensor:
        return (hidden @ w).softmax(-1)

    scores = (cells + asked).tanh() @ w
    expect_not(got, scores, "Weights must add up to 1; here they are scores.", hint)
    expect_not(got, scores.sigmoid(), "GridEncoder share one softmax; here each has a sigmoid of its own.", hint)
    expect_not(got, scores.softmax(0), "The softmax must be over cells; here it is over pictures.", hint)
    blind = "The question must count; here weights are the same whatever is asked."
    expect_not(
        got, (weighed(cells), weighed(cells.tanh())), blind, "without a tanh a softmax does not see the question."
    )
    expect_not(got, weighed((cells * asked).tanh()), "Both must be added; here they are multiplied.", hint)
    bare = weighed((cells + (u @ w_u.T)[:, None]).tanh())
    expect_not(got, bare, "The bias must be added; here it is not.", hint)
    agreement(function, region_weights)(given, "It must be a softmax over cells.", hint)
    expect_trains(function, *given, like=region_weights)


def several_looks(
    u: Float[Tensor, "b d"], v: Float[Tensor, "b p d"], looks: list[Callable]
) -> tuple[Float[Tensor, "b d"], Float[Tensor, "b hops p"]]:
    """The looks of the library's SAN, one after the other."""
    maps = []
    for look in looks:
        maps.append(look(u, v))
        u = u + (maps[-1][..., None] * v).sum(1)
    return u, torch.stack(maps, 1)


def by_product(u: Tensor, v: Tensor) -> Tensor:
    """A look that compares by a product: a softmax of ln 3 / 4 times u · v."""
    return ((v * u[:, None]).sum(-1) * 0.27465).softmax(-1)


@task(
    several_looks,
    difficulty=3,
    minutes=15,
    example=by_hand(
        torch.tensor([[0.0]]), torch.tensor([[[1.0], [3.0]]]), [by_product, by_product],
        gives=(torch.tensor([[4.5]]), torch.tensor([[[0.5, 0.5], [0.25, 0.75]]])),
    ),
)  # fmt: skip
def check_several_looks(function: Callable) -> None:
    """Each look begins with what the ones before have found, and every one reads the same cells."""
    for hops in (2, 3):
        with case(f"For {hops} looks"):
            b, p, d = between(3, 4), between(6, 7), between(8, 9)
            u, v = numbers(b, d), numbers(b, p, d)
            ways = numbers(hops, d) / 3
            looks = [lambda u, v, way=way: (v * (u * way)[:, None]).sum(-1).softmax(-1) for way in ways]
            _check_looks(function, u, v, looks)


def _check_looks(function: Callable, u: Tensor, v: Tensor, looks: list[Callable]) -> None:
    """The looks of one number of hops."""
    got, maps = expect_parts(function(u, v, looks), "u", "maps")
    right, where = several_looks(u, v, looks)
    got, maps = expect_tensor(got, right.shape), expect_tensor(maps, where.shape)
    first = torch.stack([look(u, v) for look in looks], 1)
    add = "u = u + (weights[..., None] * v).sum(1), and the next look takes this u."
    expect_not(maps, first, "A look must begin with what was found before; here each begins with the question.", add)
    new, seen = u, []
    for look in looks:
        seen.append(look(new, v))
        new = (seen[-1][..., None] * v).sum(1)
    lost = "What is found must be added to u; here it takes its position, and the question is lost."
    expect_not(got, new, lost, add)
    again = torch.stack([looks[0](u, v)] * len(looks), 1)
    expect_not(maps, again, "Each look has weights of its own; here the first one's are repeated.", add)
    expect_not(
        maps, where.flip(1), "maps must have the first look first; here the last one is.", "torch.stack(maps, 1)."
    )
    last = "u must hold what all looks found; here the last one's is missing."
    expect_not(got, several_looks(u, v, looks[:-1])[0], last, add)
    expect_close(maps, where, "maps must hold where each look goes.", add)
    expect_close(got, right, "It must be u and what each look found, added up.", add)
    expect_trains(function, u, v, like=several_looks, fixed=(looks,))


# A memory.


@task(
    position_encoding,
    difficulty=3,
    minutes=15,
    example=by_hand(torch.tensor([[True, True, False]]), 2, gives=torch.tensor([[[0.5, 0.5], [0.5, 1.0], [0.0, 0.0]]])),
)
def check_position_encoding(function: Callable) -> None:
    """Places are counted from 1 among the words that are real, numbers of a vector too."""
    b, t, d = 4, between(6, 8), between(3, 5)
    for words, shape in (("For a batch of sentences", (b, t)), ("For a batch of lists of sentences", (2, b, t))):
        with case(words):
            mask = F.pad(some_of(*shape, real=torch.arange(b) + 2), (1, 0))  # so that real words are not the first ones
            positions = mask.shape[-1]
            got = expect_tensor(function(mask, d), (*mask.shape, d))
            count, real = mask.sum(-1)[..., None, None], mask[..., None]
            k = torch.arange(1, d + 1) / d

            def made(position: Tensor, k: Tensor = k) -> Tensor:
                return (1 - position) - k * (1 - 2 * position)

            j = mask.cumsum(-1)[..., None]
            right = made(j / count)
            one = "mask.cumsum(-1) is j, and mask.sum(-1) is J."
            expect_not(
                got, right, "What is no word must have weights of 0; here it does not.", "times mask[..., None]."
            )
            expect_not(got, made((j - 1) / count) * real, "j must begin at 1; here it begins at 0.", one)
            from_0 = made(j / count, torch.arange(d) / d) * real
            expect_not(got, from_0, "k must begin at 1; here it begins at 0.", "torch.arange(1, width + 1).")
            expect_not(
                got, made(j / positions) * real, "J counts words that are real; here it counts all positions.", one
            )
            every = torch.arange(1, positions + 1)[:, None] / count
            expect_not(got, made(every) * real, "j counts words that are real; here it counts all positions.", one)
            expect_close(got, right * real, "It must be (1 - j/J) - (k/d)(1 - 2j/J).", one)
    with case("For a sentence without words"):
        none = torch.zeros(2, t, dtype=torch.bool)
        expect_close(
            function(none, d), torch.zeros(2, t, d), "All weights must be 0.", "J is at least 1 in a quotient."
        )


def memory_hop(
    u: Float[Tensor, "b d"], m: Float[Tensor, "b n d"], c: Float[Tensor, "b n d"], mask: Bool[Tensor, "b n"]
) -> tuple[Float[Tensor, "b d"], Float[Tensor, "b n"]]:
    """One hop of the library's memory network."""
    scores = (m * u[:, None]).sum(-1)
    p = scores.masked_fill(~mask, torch.finfo(scores.dtype).min).softmax(-1)
    return u + (p[..., None] * c).sum(1), p


@task(
    memory_hop,
    difficulty=3,
    scores="u m",
    minutes=15,
    example=by_hand(
        torch.tensor([[1.0]]), torch.tensor([[[1.0986], [0.0], [5.0]]]), torch.tensor([[[4.0], [0.0], [9.0]]]),
        torch.tensor([[True, True, False]]), gives=(torch.tensor([[4.0]]), torch.tensor([[0.75, 0.25, 0.0]])),
    ),
)  # fmt: skip
def check_memory_hop(function: Callable) -> None:
    """Found by one embedding, taken along by the other, and never where nothing is."""
    b, n, d = 4, between(6, 7), between(8, 9)
    u, m, c = numbers(b, d), numbers(b, n, d) / 2, numbers(b, n, d)
    mask = some_of(b, n, real=torch.arange(b) + 2)
    got, p = expect_parts(function(u, m, c, mask), "u", "p")
    got, p = expect_tensor(got, (b, d)), expect_tensor(p, (b, n))
    scores = torch.einsum("bd,bnd->bn", u, m)
    hide = "scores.masked_fill(~mask, torch.finfo(scores.dtype).min) before the softmax."
    expect_not(p, scores.softmax(-1), "What is not there must have no weight; here the mask is forgotten.", hide)
    after = "Weights must add up to 1; here the mask is used after the softmax."
    expect_not(p, scores.softmax(-1) * mask, after, hide)
    expect_not(p, scores.masked_fill(~mask, 0).softmax(-1), "A score of 0 is still a weight.", hide)
    right = scores.masked_fill(~mask, -torch.inf).softmax(-1)
    small = (scores / d**0.5).masked_fill(~mask, -torch.inf).softmax(-1)
    expect_not(p, small, "Scores are products alone; here they are divided by √d.", "that is attention's, of 2017.")
    by_c = torch.einsum("bd,bnd->bn", u, c).masked_fill(~mask, -torch.inf).softmax(-1)
    expect_not(p, by_c, "Places must be found by m; here they are found by c.", "p from u · m, o from c.")
    expect_close(p, right, "p must be a softmax over what is there.", hide)
    by_m, o = (torch.einsum("bn,bnd->bd", right, one) for one in (m, c))
    along = "u + (p[..., None] * c).sum(1)."
    expect_not(got, (u + by_m, by_m), "What is taken along is c; here it is m.", along)
    expect_not(got, o, "What is found must be added to u; here it takes its position.", along)
    expect_close(got, u + o, "It must be u and what was found.", along)
    expect_trains(function, u, m, c, like=memory_hop, fixed=(mask,))
    with case("Where all scores are far below 0"):
        away = -(3e4 + 10 * evenly(b, n, 1)) * u[:, None] / u.square().sum(1)[:, None, None]
        wanted = memory_hop(u, away, c, mask)
        found = expect_parts(function(u, away, c, mask), "u", "p")
        low = "masked_fill with torch.finfo(scores.dtype).min, which is below any score, and softmax itself."
        for one, other in zip(found, wanted):
            expect_close(one, other, "What is not there must have no weight.", low, tolerance=1e-2)
