"""Nucleus, whole words, spans by chance, beams: what each function must do, told one property at a time."""

from collections.abc import Callable

import torch
from torch import Generator, Tensor

from mmlearn.exercises import (
    agreement,
    by_hand,
    case,
    expect,
    expect_boolean,
    expect_not,
    expect_rows_differ,
    expect_seeded,
    expect_share,
    expect_tensor,
    expect_whole,
    task,
)
from mmlearn.exercises.inputs import between, first_of, seeded, uniform
from mmlearn.generation.decoding import beam_search, sampling_probabilities
from mmlearn.objectives import draw_spans
from mmlearn.objectives.masked import choose_positions

# By what odds a token is drawn.


@task(
    sampling_probabilities,
    difficulty=3,
    minutes=20,
    example=by_hand(
        torch.tensor([[0.5, 0.25, 0.15, 0.1]]).log(), top_p=0.7, gives=torch.tensor([[2 / 3, 1 / 3, 0, 0]])
    ),
)
def check_sampling_probabilities(function: Callable) -> None:
    """Temperature, then the k likeliest, then the nucleus of what is left; each row sums to 1."""
    n, v, k = 30, between(12, 16), between(3, 5)
    logits = 2 * torch.randn(n, v)
    same = agreement(function, sampling_probabilities)
    got = expect_tensor(function(logits), (n, v))
    hint = "scatter what was sorted back to its tokens, or mask in place of sorting."
    expect(torch.equal(got.argmax(1), logits.argmax(1)), "Each probability must stand at its own token.", hint)
    same((logits,), "Without further arguments it must be the softmax.", "softmax over the last axis.")
    with case("With a temperature"):
        cold = dict(temperature=uniform(0.3, 0.7))
        expect_not(
            expect_tensor(function(logits, **cold), (n, v)),
            (logits * cold["temperature"]).softmax(-1),
            "Below 1 it must sharpen, not flatten.",
            "logits are divided by it.",
        )
        same((logits,), "It must be the softmax of logits / temperature.", "divide before the softmax.", **cold)
    with case("With top_k"):
        kept = expect_tensor(function(logits, top_k=k), (n, v)) > 0
        expect((kept.sum(1) == k).all(), f"Just {k} tokens must stay.", "topk, and zeros elsewhere.")
        same((logits,), "The likeliest must stay, divided by their sum.", "each row sums to 1.", top_k=k)
        same((logits,), "More than there are must change nothing.", "at most v.", top_k=v + 3)
        ties = (function(torch.zeros(1, v), top_k=k) > 0).sum()
        expect(ties == k, "Of equals no more must stay than top_k.", "go by rank, not by the k-th value.")
    _check_nucleus(function, logits)
    with case("With all three"):
        all_three = dict(temperature=1.7, top_k=2 * k, top_p=0.7)
        hint = "first the k likeliest, divided by their sum; of these the nucleus."
        same((logits,), "The nucleus must be one of what top_k left.", hint, **all_three)
    with case("Logits far from 0"):
        same((logits + 500,), "Only differences must count.", "softmax, no exp of your own.", top_p=0.8)
        banned = logits.masked_fill(torch.arange(v) % 3 == 0, -torch.inf)
        same((banned,), "A token of -inf must have probability 0.", "softmax takes it.", top_p=0.95, top_k=v - 1)
        none = function(banned)[banned == -torch.inf] == 0
        expect(none.all(), "A token of -inf must have probability 0, and no small one.", "softmax takes it.")


def _check_nucleus(function: Callable, logits: Tensor) -> None:
    v = logits.shape[1]
    sure = torch.zeros(1, v)
    sure[0, between(0, v - 1)] = 6  # has more than 0.9 alone
    logits = torch.cat([logits, sure])
    with case("With top_p"):
        got = expect_tensor(function(logits, top_p=0.7), logits.shape, finite=False)
        size = (sampling_probabilities(logits, top_p=0.7) > 0).sum(1)
        mine = (got > 0).sum(1)
        hint = "what stands before a token, without itself, must be less than top_p."
        expect((mine > 0).all(), "At least the likeliest must stay.", hint)
        property = "The fewest tokens must stay that have at least top_p together, the one that reaches it too; here "
        expect(not (mine < size).any(), f"{property}there are fewer.", hint)
        expect(not (mine > size).any(), f"{property}there are more.", hint)
        same = agreement(function, sampling_probabilities)
        same((logits,), "What stays must be divided by its sum.", "each row sums to 1.", top_p=0.7)
        same((logits,), "However small it is, the likeliest must stay.", hint, top_p=1e-4)
        even = function(torch.zeros(2, 8), top_p=0.5) > 0  # sums of eighths are exact
        expect((even.sum(1) == 4).all(), "Tokens that have just top_p are enough.", "before < top_p, not ≤.")


# What is hidden.


ALIKE = 0.05  # of rows, at most: two lowest chances that are equal, which is seldom, are both chosen


@task(
    choose_positions,
    difficulty=4,
    minutes=20,
    example=by_hand(
        torch.tensor([[True, True, False]]),
        0.0,
        seeded,
        gives=lambda got: got.tolist() in ([[True, False, False]], [[False, True, False]]),
        says="one of the first two positions",
    ),
)
def check_choose_positions(function: Callable) -> None:
    """Each possible position by chance, one anyway, and words whole."""

    def choose(possible: Tensor, share: float, seed: Generator | None = None, words: Tensor | None = None):
        rest = () if words is None else (words,)
        got = expect_boolean(function(possible, share, seeded(seed), *rest), possible.shape)
        expect(not (got & ~possible).any(), "Only possible positions must be chosen.", "& possible.")
        return got

    share, t = uniform(0.2, 0.4), 300
    possible = torch.rand(40, t) < 0.7
    got = choose(possible, share)
    expect_rows_differ(lambda seed: choose(torch.ones(30, 40, dtype=torch.bool), share, seed))
    expect_share(got[possible], share, "Each possible position must be chosen with this probability.", "rand < share.")
    none = choose(possible, 0.0).sum(1)
    property = "With probability 0 just one place of each row must be chosen."
    expect(none.all() and (none > 1).float().mean() <= ALIKE, property, "a row with anything to hide has some hidden.")
    pairs = choose(torch.ones(3000, 2, dtype=torch.bool), 0.0)
    expect(pairs.any(1).all() and pairs.all(1).float().mean() <= ALIKE, property, "of two possible positions one.")
    expect_share(
        pairs[:, 0], 0.5, "The one that is chosen anyway must be any, all equally likely.", "the lowest chance."
    )
    coins = choose(torch.ones(3000, 2, dtype=torch.bool), 0.5).float().sum(1) == 2
    hint = "the lowest chance anyway: where others are chosen, that one is among them."
    expect_share(coins, 0.25, "One more must be chosen only where none is: of two coins both fall at 25 %.", hint)
    expect(
        torch.equal(choose(possible, 1.0), possible),
        "With probability 1 every possible position is chosen.",
        "rand < 1.",
    )
    empty = choose(first_of(9, [0, 4]), share)[0]
    expect(not empty.any(), "A row without a possible position has none chosen.", "& possible at the end.")
    with case("With words"):
        _check_words(choose, share)
    expect_seeded(lambda seed: choose(torch.ones(30, 40, dtype=torch.bool), share, seed))


def _check_words(choose: Callable, share: float) -> None:
    """Words of one token and of four, whose positions are anywhere; in each row others."""
    b, t = 400, 50
    long = 100 * torch.arange(-4, 6)[torch.randperm(10)]  # any whole numbers
    names = torch.cat([long, torch.arange(1, 4), 2**26 + torch.arange(7)])
    number = names[torch.cat([torch.arange(10).repeat_interleave(4), torch.arange(10, 20)])]
    words = torch.stack([number[torch.randperm(t)] for _ in range(b)])
    same, possible = words[:, None] == number.unique()[:, None], torch.ones(b, t, dtype=torch.bool)  # (b, 20 words, t)

    def counts(possible: Tensor, share: float) -> tuple[Tensor, Tensor]:
        """How many positions of each word are chosen, and how many are possible."""
        chosen = choose(possible, share, words=words)
        return (same & chosen[:, None]).sum(2), (same & possible[:, None]).sum(2)

    hint = "one random number a word: every position takes that of one place of its word."
    got, all_of_it = counts(possible, share)
    expect(((got == 0) | (got == all_of_it)).all(), "All of a word must be chosen, or nothing of it.", hint)
    hint = "one draw a word, not one a token: a word of four would have four chances."
    expect_share(got[:, :10] > 0, share, "A long word must be as likely as a short one.", hint)
    got, all_of_it = counts(possible, 0.0)
    words_chosen = (got > 0).sum(1)
    one = words_chosen.all() and (words_chosen > 1).float().mean() <= ALIKE and ((got == 0) | (got == all_of_it)).all()
    expect(
        one,
        "With probability 0 just one whole word must be chosen.",
        "the positions of the lowest chance, not the first.",
    )
    expect_share((got[:, :10] > 0).any(1), 0.5, "The word that is chosen anyway must be any, long or short.", hint)
    some = torch.rand(b, t) < 0.7
    for p in (share, 0.0):
        got, all_of_it = counts(some, p)
        property = "All possible positions of a word must be chosen, or none, also where others are not possible."
        expect(((got == 0) | (got == all_of_it)).all(), property, "take out what is not possible at the end.")
    property = "A row with a possible position must have one chosen, of a word that has a possible position."
    expect((got > 0).any(1).all(), property, "the lowest chance of possible positions.")
    again = choose(possible, share, words=number.expand(b, t))
    expect((again != again[:1]).any(), "The same number in another row must be another word.", "draw for each row.")


def _one_span(masked: Tensor) -> bool:
    return int(masked.sum()) == 3 and _spans(masked) == 1


def _spans(masked: Tensor) -> int:
    return int(masked.int().diff(prepend=torch.zeros(1, dtype=torch.int)).eq(1).sum())


@task(
    draw_spans,
    difficulty=4,
    minutes=25,
    example=by_hand(
        10, generator=seeded, share=0.3, mean_length=3.0, gives=_one_span, says="one span of three of ten tokens"
    ),
)
def check_draw_spans(function: Callable) -> None:
    """So many tokens in so many spans, apart from each other, anywhere, all ways equally likely."""

    def draw(length: int, seed: Generator | None = None, **settings: float) -> Tensor:
        return expect_boolean(function(length, generator=seeded(seed), **settings), (length,))

    def expect_counts(length: int, hidden: int, spans: int, **settings: float) -> None:
        got = [draw(length, **settings) for _ in range(12)]
        for count in (int(one.sum()) for one in got):
            words = f"Of {length} tokens {hidden} must be hidden; here {count} are."
            expect(count == hidden, words, "round(length · share), at least 1 and at most length - 1.")
        for found in map(_spans, got):
            words = f"{hidden} tokens must make {spans} spans, apart from each other; here there are {found}."
            hint = "round(hidden / mean_length), at least 1; between two spans at least one token is kept."
            expect(found == spans, words, hint)

    tens = between(4, 12)
    expect_counts(20 * tens, 3 * tens, tens)  # a share of 0.15, in spans of 3
    expect_counts(10 * tens, 4 * tens, 2 * tens, share=0.4, mean_length=2.0)
    expect_counts(10, 9, 2, share=0.9, mean_length=1.0)  # one kept token parts two spans, no more
    expect_counts(4, 1, 1, share=0.01)
    expect_counts(2, 1, 1, share=0.5)
    expect_counts(10, 2, 1, share=0.25)  # round(2.5) is 2
    full = draw(8, share=1.0)
    expect(int(full.sum()) == 7, "With a share of 1 one token must be kept.", "at most length - 1.")
    for length, share in ((0, 0.5), (1, 0.5), (9, 0.0)):
        kept = not draw(length, share=share).any()
        expect(kept, "A text of one token must be kept, and with a share of 0 every text.", "return zeros early.")
    _check_ways(draw)
    expect_seeded(lambda seed: draw(60, seed))


def _check_ways(draw: Callable) -> None:
    """Of six tokens three, in two spans: 12 ways."""
    many = torch.stack([draw(6, share=0.5, mean_length=1.5) for _ in range(2400)])
    hint = "a span may begin the text and end it: only between spans something must be kept."
    expect(many[:, 0].any() and many[:, -1].any(), "Both ends of a text must be hidden now and then.", hint)
    expect((~many[:, 0]).any() and (~many[:, -1]).any(), "Both ends of a text must be kept now and then.", hint)
    lengths = torch.tensor([1 if not row[row.int().argmax() + 1] else 2 for row in many])
    hint = "cut the hidden tokens at random positions into parts of at least one."
    expect((lengths != lengths[0]).any(), "The lengths of spans must differ by chance.", hint)
    ways, which = many.unique(dim=0, return_inverse=True)
    expect(len(ways) == 12, f"Two spans of three in six have 12 ways; here there are {len(ways)}.", hint)
    times = which.bincount(minlength=12).double()
    unlike = float(((times - 200) ** 2 / 200).sum())  # chi-squared of 11 degrees of freedom: over 75 once in 10¹¹
    property = "All ways to place the spans must be equally likely."
    found = f" Of 2400 draws each way should have about 200; here it is {int(times.min())} to {int(times.max())}."
    hint = "cut the hidden tokens by randperm, and the kept ones and 2 more, of which both ends give one back."
    expect(unlike < 75, property + found, hint)


# Several beginnings at once.


def _speaker(b: int, v: int, length: int) -> Callable:
    """A model that scores by the first token, the last, and how many there are, far from normalised."""
    table = 1.5 * torch.randn(b, v, length + 2, v) + 3 * torch.randn(b, v, length + 2, 1)

    def next_logits(tokens: Tensor) -> Tensor:
        return table[tokens[:, 0].clamp(max=b - 1), tokens[:, -1].clamp(max=v - 1), min(tokens.shape[1], length + 1)]

    return next_logits


LIKELY = torch.tensor(
    [
        [0.2, 0.2, 0.2, 0.2, 0.2],
        [0, 0, 0, 0.6, 0.4],  # of 1, the start
        [0.2, 0.2, 0.2, 0.2, 0.2],
        [0, 0, 0.3, 0.4, 0.3],
        [0, 0, 1, 0, 0],
    ]
).log()

SOON = LIKELY.clone()  # the end is the likeliest at once, and 4 leads to a text that is better for its length
SOON[1], SOON[3] = torch.tensor([[0, 0, 0.45, 0.4, 0.15], [0.2, 0.2, 0.2, 0.2, 0.2]]).log()


@task(
    beam_search,
    difficulty=5,
    minutes=55,
    example=by_hand(
        lambda tokens: LIKELY[tokens[:, -1]],
        torch.tensor([[1]]),
        end_token=2,
        max_length=4,
        beams=2,
        gives=torch.tensor([[1, 4, 2]]),
    ),
)
def check_beam_search(function: Callable) -> None:
    """The likeliest beginnings by their sum, the best text by its mean."""
    b, v, end, length = 40, between(6, 8), 2, 6
    pad = v + 1

    def search(begun: int = 1, most: int = length, **settings: float) -> tuple[Tensor, Tensor]:
        speaker, start = _speaker(b, v, length), torch.arange(b)[:, None]
        if begun > 1:
            start = torch.cat([start, torch.randint(3, v, (b, begun - 1))], dim=1)
        rest = dict(end_token=end, max_length=most, pad_token=pad, **settings)
        got, wanted = function(speaker, start, **rest), beam_search(speaker, start, **rest)
        return expect_whole(got, wanted.shape), wanted

    hint = "for each text: beginnings with their sums, and the best text so far."
    with case("Two tokens to write, as many beams as tokens"):
        got, wanted = search(most=3, beams=v, length_penalty=0.0)
        property = (
            "It must find the likeliest of all texts, ended or not, by the sum of the logarithms of probabilities."
        )
        expect(torch.equal(got, wanted), property, "log_softmax first: scores of another step are on another scale.")
    for beams in (1, 2, 3, 4):
        with case(f"With {beams} beams and no length penalty" if beams > 1 else "With one beam and no length penalty"):
            got, wanted = search(beams=beams, length_penalty=0.0)
            property = (
                "The text with the highest sum must win, of those that end among the best and those that never end."
            )
            expect(torch.equal(got, wanted), property, hint)
    start, rest = torch.tensor([[1]]), dict(end_token=2, max_length=3, beams=2, length_penalty=2.0)
    got = function(lambda tokens: SOON[tokens[:, -1]], start, **rest)
    property = (
        "A text that ends must leave its position: as many beginnings as beams go on, the likeliest that do not end."
    )
    expect(not (got == 3).any(), property, "of the ways that do not end take the best, however many ended before them.")
    for beams, penalty in ((2, 1.0), (4, 2.0)):
        with case(f"With length penalty {penalty:.0f}"):
            got, wanted = search(beams=beams, length_penalty=penalty)
            property = "The sum must be divided by the number of written tokens, the end token too, to this power."
            expect(
                torch.equal(got, wanted),
                property,
                "it chooses among texts; beginnings go by their sums, and one that ends leaves its position to others.",
            )
    with case("With a longer start"):
        got, wanted = search(begun=3, most=7, beams=3)
        expect(torch.equal(got, wanted), "The tokens of the start must not count as written.", "t - start.shape[1].")
    with case("Without further arguments"):
        for _ in range(5):
            got, wanted = search()
            expect(torch.equal(got, wanted), "It must take 3 beams and length penalty 1.", "the defaults of the stub.")
