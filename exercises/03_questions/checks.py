"""Questions about pictures, before transformers: what each part must do, told one property at a time."""

from collections.abc import Callable
from itertools import combinations

import torch
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
from mmlearn.exercises.inputs import between, seeded, some_of
from mmlearn.models.question_answering.memory_network import position_encoding


def numbers(*shape: int) -> Tensor:
    """Random numbers."""
    return torch.randn(*shape, generator=seeded())


# One vector each, and what needs no picture.


def pointwise_fusion(
    picture: Float[Tensor, "b f"],
    question: Float[Tensor, "b k"],
    picture_weight: Float[Tensor, "d f"],
    question_weight: Float[Tensor, "d k"],
) -> Float[Tensor, "b d"]:
    """What the classifier of the library's LSTM + CNN reads; there the weights are layers with biases."""
    return torch.tanh(picture @ picture_weight.T) * torch.tanh(question @ question_weight.T)


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
    pairs = [("how", high)] * 3 + [("who", some), ("who", more)] * 2 + [("why", low)] * 5
    pairs = [("how", low), *(pairs[i] for i in torch.randperm(len(pairs), generator=seeded()))]
    train_kind, train_answer = [kind for kind, _ in pairs], torch.tensor([answer for _, answer in pairs])
    kind = ["why", "when", "how", "who", "how", "when"]
    got = expect_whole(function(kind, train_kind, train_answer), (len(kind),))
    why, when, how, who = got[:4].tolist()
    own = "train_answer of the rows of this kind, and bincount().argmax()."
    expect(not (got == low).all(), "Each kind has an answer of its own; here all get the most common of all.", own)
    expect(how != low, "It must be the most common answer of a kind; here it is the first, or the lowest.", own)
    expect(who != more, "Of several that are equally common it must be the lowest; here it is the highest.", own)
    lacks = "train_answer.bincount().argmax() where no row has this kind."
    expect(when == low, "A kind that training lacks must get the most common answer of all; here it does not.", lacks)
    right = (why, how, who) == (low, high, some) and (got[4], got[5]) == (how, when)
    expect(right, "Each question must get the most common answer of its kind.", own)


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
    expect_not(got, scores.sigmoid(), "Cells share one softmax; here each has a sigmoid of its own.", hint)
    expect_not(got, scores.softmax(0), "The softmax must be over cells; here it is over pictures.", hint)
    blind = "The question must count; here weights are the same whatever is asked."
    expect_not(
        got, (weighed(cells), weighed(cells.tanh())), blind, "without a tanh a softmax does not see the question."
    )
    linear = "The sum must pass a tanh. Without one the question adds the same to all cells, and a softmax loses it."
    expect_not(got, weighed(cells + asked), linear, hint)
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
            looks = [
                lambda u, v, way=numbers(d): ((v * (u * way)[:, None]).sum(-1) / 3).softmax(-1) for _ in range(hops)
            ]
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
    lost = "What is found must be added to u; here it takes its place, and the question is lost."
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
            mask = some_of(*shape, real=torch.arange(b) + 2)
            got = expect_tensor(function(mask, d), (*shape, d))
            count, real = mask.sum(-1)[..., None, None], mask[..., None]
            k = torch.arange(1, d + 1) / d

            def made(place: Tensor, k: Tensor = k) -> Tensor:
                return (1 - place) - k * (1 - 2 * place)

            j = mask.cumsum(-1)[..., None]
            right = made(j / count)
            one = "mask.cumsum(-1) is j, and mask.sum(-1) is J."
            expect_not(
                got, right, "What is no word must have weights of 0; here it does not.", "times mask[..., None]."
            )
            expect_not(got, made((j - 1) / count) * real, "j must begin at 1; here it begins at 0.", one)
            from_0 = made(j / count, torch.arange(d) / d) * real
            expect_not(got, from_0, "k must begin at 1; here it begins at 0.", "torch.arange(1, width + 1).")
            expect_not(got, made(j / t) * real, "J counts words that are real; here it counts all places.", one)
            every = torch.arange(1, t + 1)[:, None] / count
            expect_not(got, made(every) * real, "j counts words that are real; here it counts all places.", one)
            expect_close(got, right * real, "It must be (1 - j/J) - (k/d)(1 - 2j/J).", one)


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
    expect_not(got, o, "What is found must be added to u; here it takes its place.", along)
    expect_close(got, u + o, "It must be u and what was found.", along)
    expect_trains(function, u, m, c, like=memory_hop, fixed=(mask,))


# What belongs to the question, and how strongly.


def attention_gate(
    query: Float[Tensor, "b q d"],
    found: Float[Tensor, "b q d"],
    information: Float[Tensor, "d d_and_d"],
    gate: Float[Tensor, "d d_and_d"],
) -> Float[Tensor, "b q d"]:
    """What the library's attention on attention makes of a query and of what was found; there with biases."""
    both = torch.cat([query, found], -1)
    return torch.sigmoid(both @ gate.T) * (both @ information.T)


@task(
    attention_gate,
    difficulty=2,
    minutes=10,
    example=by_hand(
        torch.ones(1, 1, 1), torch.ones(1, 1, 1), torch.tensor([[2.0, 1.0]]), torch.tensor([[1.0986, 0.0]]),
        gives=torch.tensor([[[2.25]]]),
    ),
)  # fmt: skip
def check_attention_gate(function: Callable) -> None:
    """Both see the query and what was found; the gate alone is between 0 and 1."""
    b, q, d = between(3, 4), between(5, 6), between(7, 8)
    given = numbers(b, q, d), numbers(b, q, d), 0.5 * numbers(d, 2 * d), 0.5 * numbers(d, 2 * d)
    query, found, w_i, w_g = given
    got = expect_tensor(function(*given), (b, q, d))
    both = torch.cat([query, found], -1)
    i, g = both @ w_i.T, both @ w_g.T
    hint = "torch.sigmoid(both @ gate.T) * (both @ information.T), where both = [query; found]."
    expect_not(got, i, "A gate must decide how much is let through; here all is.", hint)
    expect_not(got, g.sigmoid() * found, "The gate is on the information; here it is on what was found.", hint)
    expect_not(got, g.sigmoid() * i.tanh(), "Information has no tanh; here it has one.", hint)
    expect_not(got, g * i, "The gate must pass a sigmoid; here it is linear.", hint)
    expect_not(got, g.softmax(-1) * i, "Each number has a gate of its own; here they share a softmax.", hint)
    expect_not(got, query + g.sigmoid() * i, "The query is added later, by the layer; here it is added.", hint)
    agreement(function, attention_gate)(given, "It must be gate ⊙ information, of [query; found].", hint)
    expect_trains(function, *given, like=attention_gate)


def weighed_vertex(
    parts: Float[Tensor, "b p d"], logits: Float[Tensor, "b p"], weight: Float[Tensor, "e p_times_d"]
) -> Float[Tensor, "b e"]:
    """A vertex of the library's dynamic fusion graph; there the weight is a layer with a bias."""
    return torch.tanh((torch.sigmoid(logits)[..., None] * parts).flatten(1) @ weight.T)


@task(
    weighed_vertex,
    difficulty=2,
    minutes=10,
    example=by_hand(
        torch.tensor([[[2.0], [1.0]]]), torch.tensor([[0.0, 1.0986]]), torch.tensor([[1.0, -1.0]]),
        gives=torch.tensor([[0.2449]]),
    ),
)  # fmt: skip
def check_weighed_vertex(function: Callable) -> None:
    """An efficacy for each part, from 0 to 1, that does not take from the others."""
    b, p, d, e = between(4, 5), 3, between(6, 7), between(8, 9)
    parts, logits, weight = numbers(b, p, d), numbers(b, p), 0.3 * numbers(e, p * d)
    got = expect_tensor(function(parts, logits, weight), (b, e))

    def made(strength: Tensor) -> Tensor:
        return (strength[..., None] * parts).flatten(1) @ weight.T

    hint = "(torch.sigmoid(logits)[..., None] * parts).flatten(1) @ weight.T, and tanh."
    strength = logits.sigmoid()
    share = "Efficacies do not add up to 1; here they share a softmax."
    expect_not(got, made(logits.softmax(1)).tanh(), share, hint)
    expect_not(got, made(logits).tanh(), "An efficacy is from 0 to 1; here it is linear.", hint)
    expect_not(got, made(torch.ones(b, p)).tanh(), "Each part must be weighed; here none is.", hint)
    expect_not(got, made(strength), "A vertex must pass a tanh; here it is linear.", hint)
    late = (strength[..., None] * parts).mT.flatten(1) @ weight.T
    expect_not(got, late.tanh(), "Parts stand one behind the other; here their numbers take turns.", ".flatten(1).")
    turned = made(1 - strength).tanh()
    expect_not(got, turned, "A high logit lets a part through; here it keeps it out.", hint)
    agreement(function, weighed_vertex)((parts, logits, weight), "It must be tanh of what is weighed.", hint)
    expect_trains(function, parts, logits, weight, like=weighed_vertex)


def graph_efficacies(logits: Float[Tensor, "b e"], members: Bool[Tensor, "v m"]) -> Float[Tensor, "b v v"]:
    """The efficacies between the vertices of the library's dynamic fusion graph, as a table."""
    inside = members.float()
    within = inside @ (1 - inside).T == 0  # (part, whole): nobody of the part is missing in the whole
    into = (within & ~within.T).T.expand(len(logits), -1, -1)  # (b, whole, part)
    strength = logits.new_zeros(into.shape).masked_scatter(into, torch.sigmoid(logits))
    return strength.transpose(1, 2)


def all_subsets(m: int) -> Tensor:
    """All subsets of m modalities but the empty one, small ones first: (2ᵐ - 1, m)."""
    every = [subset for size in range(1, m + 1) for subset in combinations(range(m), size)]
    return torch.tensor([[i in subset for i in range(m)] for subset in every])


@task(
    graph_efficacies,
    difficulty=4,
    minutes=20,
    example=by_hand(
        torch.tensor([[0.0, 1.0986]]), all_subsets(2),
        gives=torch.tensor([[[0.0, 0.0, 0.5], [0.0, 0.0, 0.75], [0.0, 0.0, 0.0]]]),
    ),
)  # fmt: skip
def check_graph_efficacies(function: Callable) -> None:
    """From each part to each larger whole that holds it, and nowhere else."""
    for m in (3, 4):
        with case(f"For {m} modalities"):
            b, members = between(2, 3), all_subsets(m)
            v = len(members)
            sets = [set(row.nonzero()[:, 0].tolist()) for row in members]
            edges = [(i, j) for j in range(v) for i in range(v) if sets[i] < sets[j]]
            logits = 0.3 + numbers(b, len(edges)).abs()
            got = expect_tensor(function(logits, members), (b, v, v))
            right = torch.zeros(b, v, v)
            parts, wholes = torch.tensor(edges).T
            right[:, parts, wholes] = logits.sigmoid()
            order = "for each whole in turn, its parts in turn: sets[i] < sets[j]."
            expect_not(
                got, right.mT, "The part must come first, then the whole; here the whole does.", "[:, part, whole]."
            )
            linear = right.clone()
            linear[:, parts, wholes] = logits
            expect_not(got, linear, "An efficacy is from 0 to 1; here it is a logit.", "torch.sigmoid(logits).")
            half = right.masked_fill(right == 0, 0.5)
            expect_not(
                got, half, "Without an edge it must be 0; here it is the sigmoid of 0.", "sigmoid first, then place."
            )
            other = torch.zeros(b, v, v)
            by_part = torch.tensor(sorted(edges)).T
            other[:, by_part[0], by_part[1]] = logits.sigmoid()
            expect_not(got, other, "Edges must be in the order of their wholes; here it is that of their parts.", order)
            own = got.diagonal(dim1=1, dim2=2)
            expect(not own.any(), "No vertex feeds itself; here one does.", order)
            single = right * (members.sum(1) == 1)[:, None]
            expect_not(got, single, "Pairs feed what holds them, too; here only single modalities do.", order)
            expect_close(
                got, right, "It must be the efficacy from each part to each larger whole that holds it.", order
            )
            expect_trains(function, logits, like=graph_efficacies, fixed=(members,))
