"""Words, positions and codes of one vocabulary: what each function must do, told one property at a time."""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mmlearn.exercises import (
    agreement,
    by_hand,
    case,
    expect,
    expect_boolean,
    expect_not,
    expect_tensor,
    expect_whole,
    near,
    task,
)
from mmlearn.exercises.inputs import between, evenly, numbers, seeded
from mmlearn.objectives.boxes import dequantise, quantise

# Places.


def inside_bins(n: int, bins: int) -> Tensor:
    """Coordinates of which none is as near to one bin as to the next: 0, 1, and n others."""
    number = torch.arange(n) % (bins - 2) + 1
    shares = (number + 0.9 * evenly(n) - 0.45) / (bins - 1)
    return torch.cat([torch.tensor([0.0, 1.0]), shares])


@task(
    quantise,
    difficulty=1,
    minutes=10,
    example=by_hand(torch.tensor([0.0, 0.44, 1.0]), 11, gives=torch.tensor([0, 4, 10])),
)
def check_quantise(function: Callable) -> None:
    """The nearest of B bins, of which the first stands on the left edge and the last on the right one."""
    bins = between(20, 30)
    x = inside_bins(2 * bins, bins)
    got = expect_whole(function(x, bins), x.shape, "round() leaves floats: long() behind it.")
    nearest = "x · (B - 1), and round()."
    expect(not torch.equal(got, quantise(x, bins) + 1), "Bins are counted from 0; here they begin with 1.", nearest)
    expect((got < bins).all(), f"The last of {bins} bins is {bins - 1}; here there is {int(got.max())}.", nearest)
    expect((got >= 0).all(), f"The first bin is 0; here there is {int(got.min())}.", nearest)
    parts = (x * bins).floor().clamp(max=bins - 1).long()
    cut = "Bins must stand on both edges, B - 1 steps apart; here the picture is cut into B equal parts."
    expect(not torch.equal(got, parts), cut, nearest)
    rounded = (x * bins).round().clamp(max=bins - 1).long()
    expect(not torch.equal(got, rounded), "From edge to edge there are B - 1 steps; here there are B.", nearest)
    below, above = (x * (bins - 1)).floor().long(), (x * (bins - 1)).ceil().long()
    expect(not torch.equal(got, below), "It must be the nearest bin; here it is the one below.", "round, not floor.")
    expect(not torch.equal(got, above), "It must be the nearest bin; here it is the one above.", "round, not ceil.")
    expect(got[0] == 0, f"The left edge, 0, must be bin 0; here it is {int(got[0])}.", nearest)
    expect(
        got[1] == bins - 1, f"The right edge, 1, must be the last bin, {bins - 1}; here it is {int(got[1])}.", nearest
    )
    expect(torch.equal(got, quantise(x, bins)), "It must be the nearest of the bins k / (B - 1).", nearest)
    with case("With boxes"):
        boxes = inside_bins(22, bins).view(2, 3, 4)
        got = expect_whole(function(boxes, bins), boxes.shape)
        expect(torch.equal(got, quantise(boxes, bins)), "Each coordinate must have its bin.", "any number of axes.")
    for number in (3, 1000):
        with case(f"With {number} bins"):
            x = inside_bins(2 * number, number)
            exact = "bins is an argument; and long(), because a byte holds 256 numbers and float16 some 2000."
            got = expect_whole(function(x, number), x.shape)
            expect(torch.equal(got.long(), quantise(x, number)), "It must be the nearest bin.", exact)


@task(
    dequantise,
    difficulty=1,
    minutes=5,
    example=by_hand(torch.tensor([0, 4, 10]), 11, gives=torch.tensor([0.0, 0.4, 1.0])),
)
def check_dequantise(function: Callable) -> None:
    """Where a bin stands: never farther than half a bin from what it was made of."""
    bins = between(20, 30)
    positions = torch.cat([torch.tensor([0, bins - 1]), torch.randint(bins, (20,), generator=seeded())])
    got = expect_tensor(function(positions, bins), positions.shape)
    steps = "k / (B - 1): the inverse of x · (B - 1)."
    expect(got.is_floating_point(), f"It must hold shares, with a fraction; this is {got.dtype}.", "/, not //.")
    expect_not(got, positions / bins, "The last bin must be the right edge, 1; here B steps are counted.", steps)
    middle = (positions + 0.5) / bins
    expect_not(got, middle, "Bins stand on the edges; here each is the middle of one of B equal parts.", steps)
    expect_not(got, (positions - 1) / (bins - 1), "Bins are counted from 0; here they begin with 1.", steps)
    expect_not(got, (positions + 1) / bins, "Bins are counted from 0; here they are moved by one.", steps)
    same = agreement(function, dequantise)
    same((positions, bins), "It must be the share at which a bin stands.", steps)
    with case("Without the last bin"):
        same((positions % 7, bins), "It must be the share at which a bin stands.", "bins - 1, and not the largest.")
    with case("From a share to a bin and back"):
        x = evenly(2, 30, 4)
        back = expect_tensor(function(quantise(x, bins), bins), x.shape)
        worst = float((back - x).abs().max())
        bound = 0.5 / (bins - 1)
        far = f"It must be at most half a bin, {bound:.4f}, from what it was; here it is {worst:.4f} off."
        expect(worst <= bound + 1e-5, far, steps)


# One vocabulary.


def one_vocabulary(number: Int[Tensor, "n"], kind: Int[Tensor, "n"], words: int, bins: int) -> Int[Tensor, "n"]:
    """The token of word, position or code ``number``; ``kind`` is 0 for a word, 1 for a position, 2 for a code."""
    first = torch.tensor([0, words, words + bins])
    return first[kind] + number


@task(
    one_vocabulary,
    difficulty=1,
    minutes=10,
    example=by_hand(torch.tensor([3, 3, 3]), torch.tensor([0, 1, 2]), 10, 4, gives=torch.tensor([3, 13, 17])),
)
def check_one_vocabulary(function: Callable) -> None:
    """Words first, then positions, then codes, so that no two share a token."""
    words, bins, codes = between(30, 40), between(10, 14), between(20, 25)
    sizes = words, bins, codes
    kind = torch.arange(3).repeat_interleave(torch.tensor(sizes))
    number = torch.cat([torch.arange(size) for size in sizes])
    order = torch.randperm(len(kind), generator=seeded())
    number, kind = number[order], kind[order]
    got = expect_whole(function(number, kind, words, bins), (len(kind),))
    wanted = one_vocabulary(number, kind, words, bins)
    starts = "words begin at 0, positions at words, and codes at words + bins."
    expect(torch.equal(got[kind == 0], number[kind == 0]), "Words must keep their numbers.", starts)
    alone = f"Place 0 must be token {words}, behind the words; here it is {int(got[(kind == 1) & (number == 0)])}."
    expect(torch.equal(got[kind == 1], words + number[kind == 1]), alone, starts)
    shared = len(got) - len(got.unique())
    expect(shared == 0, f"No two may share a token; here {shared} positions and codes do.", starts)
    first = int(got[(kind == 2) & (number == 0)])
    behind = f"Code 0 must be token {words + bins}, behind words and positions; here it is {first}."
    expect(torch.equal(got, wanted), behind, starts)


def next_of_box(written: Int[Tensor, "b t"], positions: range, end_token: int, all_tokens: int) -> Bool[Tensor, "b v"]:
    """Which of all tokens may follow in a box: left, top, right, bottom, and the end."""
    number, t = torch.arange(all_tokens), written.shape[1]
    if t >= 4:
        return (number == end_token).expand(len(written), -1)
    may = ((number >= positions.start) & (number < positions.stop)).expand(len(written), -1)
    return may if t < 2 else may & (number >= written[:, t - 2, None])


@task(
    next_of_box,
    difficulty=3,
    minutes=20,
    example=by_hand(
        torch.tensor([[4, 3]]), range(3, 6), 1, 7,
        gives=torch.tensor([[False, False, False, False, True, True, False]]),
    ),
)  # fmt: skip
def check_next_of_box(function: Callable) -> None:
    """Places alone, right behind left and bottom behind top, and then the end and nothing else."""
    words, bins, b = between(7, 9), between(8, 10), 5
    positions, v, end = range(words, words + bins), words + bins + 4, 2
    number = torch.arange(v)
    left_top = torch.stack([torch.arange(b) + words + 1, words + bins - 1 - torch.arange(b)], 1)
    right_bottom = torch.stack([left_top[:, 0] + 1, torch.full((b,), positions[-1])], 1)
    box = torch.cat([left_top, right_bottom], 1)
    for t, name in enumerate(("left", "top", "right", "bottom")):
        with case(f"For the {name}"):
            got = expect_boolean(function(box[:, :t], positions, end, v), (b, v))
            expect(
                not got[:, end].any(), "The end must not come before the box is whole.", "only behind four positions."
            )
            expect(not got[:, :words].any(), "No word may come inside a box.", "positions.start is the first position.")
            codes = "No code may come inside a box."
            expect(not got[:, positions.stop :].any(), codes, "positions.stop is the first token that is no position.")
            if t < 2:
                expect(
                    got[:, positions.start : positions.stop].all(), "Any position may come here.", "all of positions."
                )
                continue
            position = number >= words
            wrong = position & (number < positions.stop) & (number >= box[:, t - 1, None])
            other = f"The {name} must be compared with the {('left', 'top')[t - 2]}; here it is with the token before."
            expect(not torch.equal(got, wrong), other, "it stands two tokens back.")
            least = box[:, t - 2]
            smaller = got & (number < least[:, None])
            expect(not smaller.any(), f"The {name} must not come before the {('left', 'top')[t - 2]}.", "number >= it.")
            thin = "Both ends may fall into one bin, because a box can be that thin."
            expect(got.gather(1, least[:, None]).all(), thin, ">=, not >.")
            expect(
                torch.equal(got, next_of_box(box[:, :t], positions, end, v)),
                "Every position from there to the last must be allowed.",
                "number >= written[:, t - 2, None], and a position.",
            )
    with case("Behind four positions"):
        got = expect_boolean(function(box, positions, end, v), (b, v))
        expect(got[:, end].all(), "The end must be allowed.", "the number of tokens so far says what comes next.")
        expect(got.sum() == b, "Nothing but the end may come.", "number == end_token.")


def write_box(score: Callable, start: Int[Tensor, "b 1"], positions: range) -> Float[Tensor, "b 4"]:
    """The likeliest position, four times, of those that may come next; as shares of the picture."""
    tokens = start
    for t in range(4):
        scores = score(tokens)
        number = torch.arange(scores.shape[1])
        may = ((number >= positions.start) & (number < positions.stop)).expand_as(scores)
        if t >= 2:
            may = may & (number >= tokens[:, -2, None])
        best = scores.masked_fill(~may, -torch.inf).argmax(1, keepdim=True)
        tokens = torch.cat([tokens, best], 1)
    return (tokens[:, 1:] - positions.start) / (len(positions) - 1)


@task(
    write_box,
    difficulty=4,
    minutes=25,
    example=by_hand(
        lambda tokens: torch.tensor(
            [[0.0, 0, 1, 4, 2, 9], [0, 0, 3, 1, 2, 9], [0, 0, 5, 1, 4, 9], [0, 0, 1, 7, 2, 9]]
        )[tokens.shape[1] - 1].expand(len(tokens), -1),
        torch.tensor([[0]]), range(2, 5), gives=torch.tensor([[0.5, 0.0, 1.0, 0.5]]),
    ),
)  # fmt: skip
def check_write_box(function: Callable) -> None:
    """Four positions, each asked with those before it, of which none is behind its other end."""
    words, bins = between(6, 8), between(9, 12)
    positions, v = range(words, words + bins), words + bins + 5
    b = v
    table = numbers(8, 8, v, v)  # of a length, a place in it, a token, and the next token
    start = torch.randperm(v, generator=seeded())[:, None]

    def score(tokens: Tensor) -> Tensor:
        """Of the tokens so far and their order; below 0, so that 0 is more than all."""
        t = tokens.shape[1]
        return sum(table[t, i, tokens[:, i]] for i in range(t)) - 30

    likely = torch.zeros(v).index_fill(0, torch.tensor(positions.stop - 1), 9.0)
    edge = expect_tensor(function(lambda tokens: likely.expand(len(tokens), -1), start, positions), (b, 4))
    thin = "Where left and top are the last position, right and bottom must be it too: a box can be that thin."
    expect(not near(edge[:, :2], 1.0) or near(edge[:, 2:], 1.0), thin, ">=, not >.")
    got = expect_tensor(function(score, start, positions), (b, 4))
    shares = "(token - positions.start) / (len(positions) - 1) is a share."
    expect((got >= 0).all() and (got <= 1).all(), "It must be shares of the picture, from 0 to 1.", shares)
    masked = "masked_fill(~may, -torch.inf): a score that is set to 0 may still be the highest."
    right, bottom = (got[:, 2] >= got[:, 0] - 1e-6).all(), (got[:, 3] >= got[:, 1] - 1e-6).all()
    expect(right, "The right must not come before the left.", f"from the third place on. {masked}")
    expect(bottom, "The bottom must not come before the top.", f"compare with the position two tokens back. {masked}")
    expect(bool(got.std(0).any()), "Each row must have a box of its own; here all have one.", "argmax(1).")

    def written(seen: Callable = lambda tokens: tokens, steps: int = bins - 1, back: int = 2) -> Tensor:
        tokens = start
        for t in range(4):
            scores, number = score(seen(tokens)), torch.arange(v)
            least = tokens[:, -back, None] if t >= 2 else torch.tensor(words)
            may = (number >= least) & (number >= words) & (number < positions.stop)
            tokens = torch.cat([tokens, scores.masked_fill(~may, -torch.inf).argmax(1, keepdim=True)], 1)
        return (tokens[:, 1:] - words) / steps

    again = "score(tokens), where tokens grow by one each time."
    expect_not(got, written(lambda x: x[:, :1]), "Each position must be asked with those before it.", again)
    expect_not(
        got, written(steps=bins), "The last position must be the right edge, 1; here B steps are counted.", shares
    )
    expect_not(
        got, written(back=1), "Compare with the position two tokens back; here it is with the one before.", masked
    )
    agreement(function, write_box)(
        (score, start, positions),
        "Each position must be the likeliest of those that may come.",
        f"{again[:-1]}; {masked}",
    )
