"""What one-stream fusion learns from hidden words and regions: what each function must do, one property at a time."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from mmlearn.exercises import (
    agreement,
    by_hand,
    case,
    expect,
    expect_close,
    expect_finite_gradient,
    expect_log,
    expect_parts,
    expect_rows_differ,
    expect_seeded,
    expect_share,
    expect_sure_and_wrong,
    expect_tensor,
    expect_trains,
    expect_whole,
    expect_zero,
    over,
    task,
)
from mmlearn.exercises.inputs import between, orthogonal, seeded, some_of
from mmlearn.objectives import cosine_cost, mask_tokens, masked_cross_entropy
from mmlearn.objectives.masked import IGNORED


@task(
    cosine_cost,
    difficulty=1,
    minutes=5,
    example=by_hand(
        torch.tensor([[[2.0, 0.0]]]),
        torch.tensor([[[1.0, 0.0], [0.0, 3.0], [-1.0, 0.0]]]),
        gives=torch.tensor([[[0.0, 1.0, 2.0]]]),
    ),
)
def check_cosine_cost(function: Callable) -> None:
    """0, 1 and 2; lengths do not matter; each text meets its own picture."""
    b, t, p, d = 3, 4, between(5, 7), 8
    x, y, u = torch.randn(b, t, d), torch.randn(b, p, d), torch.randn(b, 1, d)
    expect_tensor(function(x, y), (b, t, p))
    zero, two, one = torch.zeros(b, 1, 1), torch.full((b, 1, 1), 2.0), torch.ones(b, t, d - t)
    axes = orthogonal(b, d)
    expect_close(function(u, 3 * u), zero, "The same direction must cost 0, at any length.", "1 - cosine.")
    expect_close(function(u, -2 * u), two, "The opposite direction must cost 2.", "1 - cosine, and no abs.")
    expect_close(function(axes[:, :t], axes[:, t:]), one, "A right angle must cost 1.", "1 - cosine.")
    with case("With a vector of zeros"):
        expect_close(function(0 * x, y), torch.ones(b, t, p), "It must cost 1, not NaN.", "F.normalize divides safely.")
        expect_finite_gradient(function, 0 * x, y)
    agreement(function, cosine_cost)(
        (x, y),
        "Entry (i, j) must be 1 - the cosine of word i and region j of the same pair.",
        "divide each vector by its own length, dim=-1; @ with y.mT multiplies pair by pair.",
    )
    with case("Vectors of a ten-thousandth"):
        wanted, hint = cosine_cost(x, y), "what is added so as not to divide by 0 must be smaller than any vector."
        got = function(1e-4 * x, 1e-4 * y)
        expect_close(got, wanted, "The cost must be that of long ones.", hint, tolerance=1e-3)
    expect_trains(function, x, y, like=cosine_cost)


# Words.


@task(
    mask_tokens,
    difficulty=4,
    minutes=30,
    example=by_hand(
        torch.tensor([[1, 7, 2, 0]]),
        torch.tensor([[True, True, True, False]]),
        vocab_size=9,
        mask_token=3,
        special=[0, 1, 2],
        generator=seeded,
        gives=lambda got: got[1].tolist() == [[-100, 7, -100, -100]],
        says="the labels [[-100, 7, -100, -100]]",
    ),
)
def check_mask_tokens(function: Callable) -> None:
    """15 % of the ordinary tokens, in three ways; the text can be recovered; whole words; all chance from a seed."""
    vocabulary = between(24, 31)
    order = torch.randperm(vocabulary)  # special tokens may have any number
    special, mask_token, ordinary = order[:3].tolist(), int(order[3]), order[4:]

    def hide(tokens: Tensor, mask: Tensor, seed: Generator | None = None, **more) -> tuple[Tensor, Tensor]:
        settings = {"vocab_size": vocabulary, "mask_token": mask_token, "special": special}
        parts = expect_parts(function(tokens, mask, **settings, generator=seeded(seed), **more), "tokens", "label")
        read, label = (expect_whole(part, tokens.shape) for part in parts)
        expect(read.dtype == label.dtype == tokens.dtype, "Both must be int64, as tokens are.", "keep the type.")
        second = "The text to read must come first, and the labels second."
        expect((read != IGNORED).all(), second, "return the tokens to read, and the labels.")
        return read, label

    b, t = 150, 100
    tokens = ordinary[torch.randint(10, (b, t))]  # few of the ordinary tokens: others can only come by chance
    end = torch.randint(t // 2, t, (b, 1))
    tokens[:, 0], tokens[:, 2] = special[1], mask_token
    tokens.scatter_(1, end, special[2])
    mask = torch.arange(t) <= end  # padding here looks like words
    possible = mask & torch.isin(tokens, ordinary)
    read, label = hide(tokens, mask, probability=0.5)
    hidden = label != IGNORED
    _check_what_is_hidden(tokens, mask, possible, read, label)
    usual = hide(tokens, mask)[1] != IGNORED
    expect_share(usual[possible], 0.15, "Without an argument it must hide 15 %.", "probability: float = 0.15")
    _check_own_chance(possible, hidden, hidden & (read == mask_token))
    _check_what_is_shown(read[hidden], tokens[hidden], mask_token, ordinary)
    expect_seeded(lambda seed: hide(tokens, mask, seed))
    alike = tokens[:1].expand(30, t), mask[:1].expand(30, t)
    expect_rows_differ(lambda seed: hide(*alike, seed, probability=0.5)[1], "text")
    everything = hide(tokens, mask, probability=1.0)[1] != IGNORED
    expect(torch.equal(everything, possible), "With probability 1 all must be hidden that can be.", "draw < share.")
    _check_short_texts(hide, ordinary, special)
    _check_words(hide, ordinary, special)


def _check_what_is_hidden(tokens: Tensor, mask: Tensor, possible: Tensor, read: Tensor, label: Tensor) -> None:
    hidden = label != IGNORED
    everywhere = hidden[possible].float().mean() > 0.95
    expect(not everywhere, "label must be -100 where nothing is hidden.", "not 0, not the token.")
    expect(not hidden[~mask].any(), "Padding must never be hidden.", "it is where mask is False; & it in.")
    expect(
        not hidden[~possible].any(),
        "Special tokens must never be hidden, nor mask_token itself.",
        "torch.isin(tokens, …) tells where they are.",
    )
    expect(
        (label == tokens)[hidden].all(),
        "Where something is hidden, label must be the token of the text, and not what is shown in its place.",
        "take the labels from tokens, which you leave as they are.",
    )
    expect(
        (read == tokens)[~hidden].all(),
        "What is not hidden must stay as it is, so that read and label together give the text back.",
        "both kinds of change happen where hidden is True only.",
    )
    expect_share(hidden[possible], 0.5, "It must hide this share of ordinary tokens.", "each by its own draw < share.")


def _check_own_chance(possible: Tensor, hidden: Tensor, masked: Tensor) -> None:
    """That texts, and positions, of which half is hidden are not all treated as one."""
    off = (hidden.sum(1) - 0.5 * possible.sum(1)).abs().max()
    fixed = "Each position must have its own chance; here each text loses just its share."
    expect(off > 1, fixed, "a draw for each position, and those below probability.")
    some = 0.05 < float(masked.sum() / hidden.sum()) < 0.95
    for axis, what in ((1, "positions of a text"), (0, "texts at a position")):
        count, all_of_it = masked.sum(axis), hidden.sum(axis)
        alike = ((count == 0) | (count == all_of_it)).all()
        expect(
            not (some and alike),
            f"All hidden {what} are shown in the same way.",
            "one more draw for each position, (b, t).",
        )


def _check_what_is_shown(shown: Tensor, true: Tensor, mask_token: int, ordinary: Tensor) -> None:
    same = shown == true
    expect(
        same.float().mean() < 0.95,
        "The text to read must not show what is hidden: this leaks nearly every label.",
        "most hidden positions show mask_token; return the changed text, not tokens.",
    )
    hint = (
        "one more draw for each position: below 0.8, from 0.8 to 0.9, or above. All of it within the hidden positions."
    )
    expect_share(shown == mask_token, 0.8, "mask_token must stand at 80 % of hidden positions.", hint)
    by_chance = 0.1 / len(ordinary)  # a random token that is the true one
    expect_share(same, 0.1 + by_chance, "10 % of hidden positions must show their own token.", hint)
    drawn = shown[~same & (shown != mask_token)]
    expect(torch.isin(drawn, ordinary).all(), "A random token must not be special.", "draw from the ordinary ones.")
    expect(
        torch.isin(ordinary, drawn).all(),
        "A random token must be any ordinary one of the vocabulary, drawn anew for each position.",
        "number the ordinary tokens and draw a number for each position; the text need not hold that token.",
    )


def _texts(b: int, t: int, ordinary: Tensor, special: list[int]) -> Tensor:
    """Ordinary tokens between a special one at each end."""
    tokens = ordinary[torch.randint(len(ordinary), (b, t))]
    tokens[:, 0], tokens[:, -1] = special[1], special[2]
    return tokens


def _check_words(hide: Callable, ordinary: Tensor, special: list[int]) -> None:
    """Four words of one, two, three and two pieces."""
    tokens = _texts(1000, 10, ordinary, special)
    names = torch.cat([torch.tensor([7]), torch.tensor([-3, 0, 107])[torch.randperm(3)], torch.tensor([-1])])
    at = torch.tensor([0, 4, 1, 6, 2, 5, 8, 3, 7, 9])  # no piece stands beside another one of its word
    words = torch.zeros(1000, 10, dtype=torch.long)
    words[:, at] = names[torch.tensor([4, 0, 1, 1, 2, 2, 2, 3, 3, 4])]
    with case("With words"):
        hidden = (hide(tokens, tokens >= 0, words=words, probability=0.3)[1] != IGNORED)[:, at]
        expect(
            (hidden[:, [2, 4, 4, 7]] == hidden[:, [3, 5, 6, 8]]).all(),
            "Pieces of one word must be hidden together: a piece left over tells the rest.",
            "one draw for each word: every piece takes the draw of its word's first piece.",
        )
        expect(
            (hidden != hidden[0]).any(),
            "Each text must draw for itself, though its words have the same numbers.",
            "a draw for each word of each text.",
        )
        for first, pieces in ((1, 1), (2, 2), (4, 3)):
            expect_share(
                hidden[:, first],
                0.3 + 0.7**4 / 4,  # by chance, or as the one of four that is always hidden
                f"A word of {pieces} must be hidden as often as any.",
                "one draw a word; to hide it if any of its pieces is drawn hides long words too often.",
            )
        one = (hide(tokens, tokens >= 0, words=words, probability=0.0)[1] != IGNORED)[:, at][:, [1, 2, 4, 7]]
        lowest = "the word of the lowest draw, among those that can be hidden."
        expect(one.any(1).all(), "With probability 0 a word of each text must be hidden.", lowest)


def _check_short_texts(hide: Callable, ordinary: Tensor, special: list[int]) -> None:
    tokens = _texts(3000, 6, ordinary, special)
    tokens[5] = special[1]
    some = torch.arange(len(tokens)) != 5
    with case("With probability 0"):
        hidden = hide(tokens, tokens >= 0, probability=0.0)[1] != IGNORED
        expect(
            torch.equal(hidden.any(1), some),
            "A text with anything to hide must have something hidden.",
            "where no draw is low enough, hide the position with the lowest draw.",
        )
        for position in range(1, 5):
            hint = "the place of the lowest draw, among those that can be hidden."
            expect_share(hidden[some, position], 1 / 4, "The one that is hidden anyway must be any of four.", hint)
    rare = hide(tokens[some], tokens[some] >= 0, probability=0.05)[1] != IGNORED
    for position in range(1, 5):
        anyway = "Where chance hides nothing, the one that is hidden anyway must be any of four."
        expect_share(rare[:, position], 0.05 + 0.95**4 / 4, anyway, "the place of the lowest draw.")


@task(
    masked_cross_entropy,
    difficulty=2,
    minutes=10,
    example=by_hand(torch.zeros(3, 4), torch.tensor([IGNORED, 2, IGNORED]), gives=math.log(4)),
)
def check_masked_cross_entropy(function: Callable) -> None:
    """ln v of nothing; hidden positions only, all the same; 0 of no position."""
    b, t, v = 3, between(6, 9), between(7, 11)

    def draw() -> tuple[Tensor, Tensor]:
        hidden = some_of(b, t, real=[1, 2, 5])  # of each text another number, so that a mean of means is another one
        label = torch.randint(v, (b, t)).masked_fill(~hidden, IGNORED)
        label[2, hidden[2].int().argmax()] = 0  # a class as any other
        return torch.randn(b, t, v), label

    draws = [draw() for _ in range(3)]
    logits, label = draws[0]
    same = agreement(function, masked_cross_entropy)
    expect_tensor(function(logits, label), ())
    mean = "the sum over hidden positions, however many, divided by their number and not by that of all positions."
    expect_log(function(torch.zeros(b, t, v), label), v, "v", mean)
    sure = 50 * F.one_hot(label.clamp(min=0), v).float()
    expect_close(
        function(sure, label),
        0.0,
        "Logits that are sure and right must cost 0.",
        "position i answers label i, no position further; cross_entropy takes logits, so no softmax before it.",
    )
    with case("With logits of ±200"):
        wrong = (label + 1).remainder(v).masked_fill(label == IGNORED, IGNORED)
        expect_tensor(function(8 * sure - 200, wrong), ())
    expect_close(
        over([(torch.where((y != IGNORED)[..., None], z, 3 * torch.randn(b, t, v)), y) for z, y in draws], function),
        over(draws, function),
        "Logits where label is -100 must not matter.",
        "-100 means not asked; it is no class: ignore_index.",
    )
    same(
        draws,
        "It must be the mean of -log softmax at the label, in which every hidden position counts the same.",
        "one mean over all hidden positions, not a mean of each text first.",
    )
    with case("With labels of shape (n)"):
        first = [(z[0], y[0]) for z, y in draws]
        same(
            first, "It must be the same mean for any shape.", "reshape(-1, v) makes one list of positions of any shape."
        )
    with case("With logits (b, t, positions, v)"):
        more = torch.randn(b, t, 2, v), label[..., None].repeat(1, 1, 2)
        same(more, "It must be the same mean for any axes.", "reshape(-1, v) makes one list of positions of any shape.")
    with case("With logits that are cut out of longer ones"):
        cut = [(torch.cat([z, z], 1)[:, :t].mT.contiguous().mT, y) for z, y in draws]
        same(cut, "It must be the same mean.", "reshape, which copies where it must; view does not.")
    with case("With nothing hidden"):
        expect_zero(function, logits, torch.full((b, t), IGNORED))
    expect_trains(function, logits, fixed=(label,), like=masked_cross_entropy)
    with case("With logits of ±200"):
        expect_sure_and_wrong(function, 8 * sure - 200 + logits, fixed=(wrong,), like=masked_cross_entropy)
