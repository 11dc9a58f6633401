"""Contrastive objectives: what each function must do, told one property at a time."""

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
    expect_boolean,
    expect_close,
    expect_not,
    expect_parts,
    expect_sure_and_wrong,
    expect_tensor,
    expect_trains,
    near,
    over,
    task,
)
from mmlearn.exercises.inputs import between, orthogonal, some_of, unit
from mmlearn.objectives import (
    info_nce,
    late_interaction,
    pair_cross_entropy,
    pairwise_sigmoid,
    ranking_hinge,
    same_caption,
)


def with_pairs(b: int, *pairs: tuple[int, int]) -> Tensor:
    """Positives on the diagonal, and at these positions of picture and text."""
    positives = torch.eye(b, dtype=torch.bool)
    positives[tuple(torch.tensor(pairs).T)] = True
    return positives


SAME = torch.tensor([[True, False, True], [False, True, False], [True, False, True]])


@task(same_caption, difficulty=1, minutes=5, example=by_hand(torch.tensor([7, 3, 7]), gives=SAME))
def check_same_caption(function: Callable) -> None:
    """True exactly where two ids are equal."""
    caption_id = torch.tensor([3, 5, 3, 8, 5, 3])[torch.randperm(6)] + between(0, 99)
    got = expect_boolean(function(caption_id), (6, 6))
    expect(got.diagonal().all(), "A caption must fit its own picture: the diagonal is True.", "each id equals itself.")
    wanted = same_caption(caption_id)
    expect((got | ~wanted).all(), "True wherever two ids are equal, also off the diagonal.", "compare all with all.")
    expect(
        (wanted | ~got).all(),
        "True only where two ids are equal: that both are repeated is not enough.",
        "a column of ids against a row of ids.",
    )
    with case("Ids above 2²⁴"):
        caption_id = 2**24 + torch.tensor([0, 1, 0, 2**30, 2**30 + 1])
        got = expect_boolean(function(caption_id), (5, 5))
        hint = "compare whole numbers: as float32 two ids so large become one."
        expect(torch.equal(got, same_caption(caption_id)), "Neighbouring ids must stay apart.", hint)


ALIKE, SCALE = torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor(3.0)


@task(info_nce, difficulty=2, minutes=15, example=by_hand(ALIKE, ALIKE, SCALE, gives=math.log(2)))
def check_info_nce(function: Callable) -> None:
    """ln b of nothing, 0 of everything, the same from both sides, no overflow."""
    b, d = between(5, 8), 16
    image, text, scale = unit(b, d), unit(b, d), torch.tensor(3.0)
    expect_tensor(function(image, text, scale), ())
    alike = image[:1].expand(b, d)
    expect_close(
        function(alike, alike, scale),
        math.log(b),
        f"Embeddings that are all alike know nothing: the loss must be ln b = ln {b}.",
        "a mean over the b pairs, and half of each direction; the matching pair stays in the softmax.",
    )
    distinct = orthogonal(b)
    with case("Perfect embeddings at a large logit_scale"):
        hint = "multiply by logit_scale, it is 1/τ; cross_entropy takes logits, so no softmax before it."
        expect_close(function(distinct, distinct, torch.tensor(20.0)), 0.0, "The loss must be 0.", hint)
    expect_close(
        function(distinct, distinct, torch.tensor(0.0)),
        math.log(b),
        f"At logit_scale 0 all logits are equal: the loss must be ln b = ln {b}.",
        "logit_scale has been exponentiated already.",
    )
    with case("At logit_scale 100"):
        expect_tensor(function(image, image, torch.tensor(100.0)), ())
    draws, matching = [(unit(b, d), unit(b, d), scale) for _ in range(3)], torch.arange(b)
    rows = over(draws, lambda image, text, scale: F.cross_entropy(scale * image @ text.T, matching))
    columns = over(draws, lambda image, text, scale: F.cross_entropy(scale * text @ image.T, matching))
    expect_not(
        over(draws, function),
        (rows, columns),
        "It must be the same when pictures and texts change places; this looks one way only.",
        "each picture picks its text, and each text its picture: two cross-entropies, rows and columns.",
    )
    agreement(function, info_nce)(
        draws,
        "It must be the mean of -log softmax at the matching pairs, by rows and by columns.",
        "the only target of row i is column i: F.cross_entropy(logits, torch.arange(b)).",
    )
    expect_trains(function, image, text, scale, like=info_nce)
    with case("At logit_scale 200, where the wrong ones are nearest"):
        expect_sure_and_wrong(function, image, image.roll(1, 0), torch.tensor(200.0), like=info_nce)


TWO_FIT = torch.eye(2, dtype=torch.bool).repeat_interleave(2, 0).repeat_interleave(2, 1)  # of four, in each row


@task(
    pair_cross_entropy,
    difficulty=3,
    minutes=15,
    example=by_hand(torch.zeros(4, 4), torch.zeros(4, 4), TWO_FIT, gives=math.log(4)),
)
def check_pair_cross_entropy(function: Callable) -> None:
    """Two matrices, and rows that spread their target over all columns that fit."""
    b = between(5, 8)
    draws = [(torch.randn(b, b), torch.randn(b, b)) for _ in range(3)]
    same = agreement(function, pair_cross_entropy)
    expect_not(
        over(draws, function),
        over(draws, lambda by_image, by_text: pair_cross_entropy(by_image, by_image.T)),
        "It must use the second matrix, which need not be the first transposed.",
        "late interaction gives two matrices that differ.",
    )
    same(
        draws,
        "Without positives, row i of either matrix must pick column i; the loss is the mean of both.",
        "F.cross_entropy(matrix, torch.arange(b)) for each, then half their sum.",
    )
    same(
        [(*draw, with_pairs(b, (0, 0))) for draw in draws],
        "With positives on the diagonal only, it must be what it is without positives.",
        "one column that fits gets the whole target.",
    )
    positives = with_pairs(b, (0, 1), (0, 2), (3, 4))  # text 1 fits picture 0; text 0 does not fit picture 1
    flat = torch.zeros(b, b)
    expect_close(
        function(flat, flat, positives),
        math.log(b),
        f"Where all logits are equal, the loss must be ln b = ln {b}, however many columns fit.",
        "the target of a row sums to 1: divide it by the number of columns that fit. It goes outside the logarithm.",
    )
    got = over(draws, lambda *matrices: function(*matrices, positives))
    expect_not(got, over(draws, pair_cross_entropy), "It must use positives.", "they change the target.")
    target, hint = positives / positives.sum(1, keepdim=True), "first positives.T, and then divide each row by its sum."
    expect_not(
        got,
        over(draws, lambda *matrices: sum(F.cross_entropy(each, target) for each in matrices) / 2),
        "For text → picture, positives must be transposed: its entry (i, j) is picture i and text j.",
        hint,
    )
    several = [(*draw, positives) for draw in draws]
    same(several, "Each row's target must be spread evenly over all columns that fit.", hint)
    expect_trains(function, *draws[0], like=pair_cross_entropy)
    expect_trains(function, *draws[0], fixed=(positives,), like=pair_cross_entropy)
    sure = tuple(200 * (torch.eye(b).roll(1, 1) - 0.5) + torch.randn(b, b) for _ in range(2))
    with case("Logits of hundreds, of which the wrong ones are the highest"):
        expect_sure_and_wrong(function, *sure, like=pair_cross_entropy)
        expect_sure_and_wrong(function, *sure, fixed=(positives,), like=pair_cross_entropy)


@task(
    pairwise_sigmoid,
    difficulty=3,
    minutes=20,
    example=by_hand(ALIKE, ALIKE, torch.tensor(0.0), torch.tensor(0.0), gives=2 * math.log(2)),
)
def check_pairwise_sigmoid(function: Callable) -> None:
    """b² questions; sum over b; the bias is added; chunks change nothing."""
    b, d = 5 + 2 * between(0, 1), 16  # no multiple of the chunks below
    image, text = unit(b, d), unit(b, d)
    scale, bias, nothing = torch.tensor(5.0), torch.tensor(-2.0), torch.tensor(0.0)
    same = agreement(function, pairwise_sigmoid)
    expect_tensor(function(image, text, scale, bias), ())
    expect_close(
        function(image, text, nothing, nothing),
        b * math.log(2),
        f"Where all logits are 0, each of the b² pairs costs ln 2: the loss must be b ln 2 = {b} ln 2.",
        "sum over all pairs, divide by b: a mean would divide by b². The scale is not exponentiated again.",
    )
    distinct = orthogonal(b)
    with case("Perfect embeddings at a large scale"):
        got = expect_tensor(function(distinct, distinct, torch.tensor(60.0), nothing), ())
        expect(got < 30, "Matching pairs must cost nearly nothing.", "z is +1 on the diagonal and -1 elsewhere.")
    with case("With logit_bias -10 and logit_scale 0"):
        hint = "the bias is added to the logits before z multiplies them."
        same((image, text, nothing, torch.tensor(-10.0)), "Only the b matching pairs must pay, about 10 each.", hint)
    with case("With logits of ±200"):
        got = expect_tensor(function(distinct, -distinct, torch.tensor(200.0), nothing), ())
        expect(got > 190, "A wrong answer so sure must cost about 200.", "F.logsigmoid(x), not log(sigmoid(x)).")
        expect_trains(function, distinct, -distinct, torch.tensor(200.0), nothing, like=pairwise_sigmoid)
    draws = [(unit(b, d), unit(b, d), scale, bias) for _ in range(3)]
    same(draws, "It must be -Σ log σ(z (s u·v + β)) / b.", "one matrix of logits, one of signs.")
    several = [(*draw, with_pairs(b, (0, 1), (2, 3))) for draw in draws]
    same(
        several,
        "Every pair that positives marks must count as matching.",
        "z is +1 there; entry (i, j) is picture i and text j.",
    )
    one_piece = "The loss must be the same as in one piece."
    for chunk in (2, 1, 3, b, b + 3):
        with case(f"In chunks of {chunk} pictures of {b}"):
            hint = (
                "add the sums of all chunks, a last short one too, each with its rows of positives; then divide by b."
            )
            same([(*draw, chunk) for draw in several], one_piece, hint)
    for chunk in (1, 2, 3, b, b + 3):
        with case(f"In chunks of {chunk} pictures of {b}, without positives"):
            hint = "the matching texts of a chunk begin at its own first row: cut the diagonal into chunks as well."
            same([(*draw, None, chunk) for draw in draws], one_piece, hint)
    expect_trains(function, image, text, scale, bias, like=pairwise_sigmoid)
    with case("In chunks of 2"):
        expect_trains(function, image, text, scale, bias, fixed=(several[0][4], 2), like=pairwise_sigmoid)


@task(
    late_interaction,
    difficulty=4,
    minutes=25,
    example=by_hand(
        torch.tensor([[[1.0, 0.0]]]), torch.eye(2)[None], gives=(torch.tensor([[1.0]]), torch.tensor([[0.5]]))
    ),
)
def check_late_interaction(function: Callable) -> None:
    """Each patch its best word, each word its best patch; padding neither wins nor counts."""
    images, texts, p, t, d = 3, 4, 5, 6, 8
    image, text = unit(images, p, d), unit(texts, t, d)

    def both(*arguments: Tensor, finite: bool = True) -> tuple[Tensor, Tensor]:
        by_image, by_text = expect_parts(function(*arguments), "image_to_text", "text_to_image")
        i, j = len(arguments[0]), len(arguments[1])
        return expect_tensor(by_image, (i, j), finite=finite), expect_tensor(by_text, (j, i), finite=finite)

    by_image, by_text = both(image, text)
    expect(
        (by_image.abs() <= 1 + 1e-5).all() and (by_text.abs() <= 1 + 1e-5).all(),
        "A mean of cosines must not exceed 1.",
        "the mean over tokens, not their sum.",
    )
    axes = orthogonal(d)
    few, many = axes[None, :1], axes[None, :4]  # one patch, which equals the first of four words
    expect(
        all(near(got, 1.0) for got in both(many, many)),
        "A picture and a text of the same tokens must have similarity 1: each token finds its twin.",
        "the maximum over the tokens of the other side, then the mean over one's own.",
    )
    one, four = both(few, many)
    expect(
        not (near(one, 0.25) and near(four, 1.0)),
        "In picture → text every patch must find its best word; here every word finds its patch.",
        "the first matrix is the mean over patches of the maximum over words.",
    )
    expect(
        near(one, 1.0) and near(four, 0.25),
        "One patch that equals one of four words must give 1 from the picture, and 1/4 from the text.",
        "the two directions differ: each takes its mean over its own tokens.",
    )
    expect(
        all(map(near, both(image.flip(1), text), (by_image, by_text))),
        "The order of patches must not matter.",
        "compare every patch with every word, not each with its neighbour.",
    )
    away, towards = (F.normalize(x.abs() + 0.1, dim=-1) for x in (image, text))
    for got, wanted in zip(both(-away, towards), late_interaction(-away, towards)):
        negative = "Where all cosines are negative, the best of them must count, which is negative."
        expect(near(got, wanted), negative, "a maximum that begins at 0, or a clamp, leaves out what is negative.")
    _check_padding(both, image, text)
    for way, got, wanted in zip(("picture → text", "text → picture"), both(image, text), late_interaction(image, text)):
        expect_close(got, wanted, f"{way} must be the mean of the best cosines.", "compare with a loop over all pairs.")
    expect_trains(function, image, text, like=late_interaction)
    mask = some_of(texts, t, real=[1, 3, 6, 2])
    with case("With padding"):
        expect_trains(function, image, text, fixed=(mask,), like=late_interaction)
    with case("With a text without words"):
        expect_trains(function, image, text, fixed=(mask & (torch.arange(texts) > 0)[:, None],), like=late_interaction)


def _check_padding(both: Callable, image: Tensor, text: Tensor) -> None:
    texts, t, _ = text.shape
    mask = some_of(texts, t, real=3)
    noisy = torch.where(mask[..., None], text, unit(*text.shape))
    away, towards = (F.normalize(x.abs() + 0.1, dim=-1) for x in (image, text))  # all cosines of these are negative
    with case("With padding"):
        expect(
            (both(-away, towards, mask)[0] < -1e-4).all(),
            "Padding must never be the best word: where all cosines are negative, the best is negative.",
            "multiplying by the mask makes padding 0, which beats them; fill with -inf before the maximum.",
        )
        got, other, wanted = both(image, text, mask), both(image, noisy, mask), late_interaction(image, text, mask)
        for way, one, two in zip(("picture → text", "text → picture"), got, other):
            expect(near(one, two), f"What stands in padding must not matter, {way}.", "mask the words.")
        real = "A mean over words must be over the real ones only."
        expect_not(got[1], wanted[1] * 3 / t, real, "divide by mask.sum(-1), not by the length.")
        expect(near(got[0], wanted[0]), "picture → text must be the mean over all patches.", "patches have no mask.")
        mean = "text → picture must be the mean over the real words."
        expect(near(got[1], wanted[1]), mean, "divide by their count.")
    with case("With a text without words"):
        mask[1] = False
        by_image, by_text = both(image, text, mask, finite=False)
        expect(
            near(by_image[:, 1], 0.0) and near(by_text[1], 0.0),
            "Its similarity must be 0, not NaN or infinite.",
            "fill where a text has no word, and let the divisor be at least 1.",
        )
        wanted = late_interaction(image, text, mask)
        expect(near(by_image, wanted[0]) and near(by_text, wanted[1]), "Others must not change.", "only that text.")


@task(
    ranking_hinge,
    difficulty=3,
    minutes=15,
    example=by_hand(torch.tensor([[0.9, 0.8], [0.1, 0.5]]), torch.eye(2), 0.2, gives=0.3),
)
def check_ranking_hinge(function: Callable) -> None:
    """A margin over each wrong pair, both ways; the hardest only; repeated captions."""
    b, d, margin = between(5, 8), 16, 0.3
    image, text, distinct = unit(b, d), unit(b, d), orthogonal(b)
    same = agreement(function, ranking_hinge)
    expect_tensor(function(image, text, margin), ())
    expect_close(
        function(distinct, distinct, margin),
        0.0,
        "Where every pair wins by more than the margin, the loss must be 0.",
        "[x]₊ is clamp(min=0), x is margin + wrong - right, and a pair is no rival of its own.",
    )
    alike = image[:1].expand(b, d)
    expect_close(
        function(alike, alike, margin),
        2 * (b - 1) * margin,
        f"Where all are alike, each pair has b - 1 rivals in its row and b - 1 in its column: 2·{b - 1}·{margin}.",
        "sum over rivals and both directions, mean over the b pairs.",
    )
    property = "hardest must keep the largest term of each row, and of each column."
    hint = "amax(1) in place of sum(1), for the matrix and for its transpose."
    same((alike, alike, margin, True), property, hint)
    for hardest in (False, True):
        with case("With one pair" + " and hardest" * hardest):
            none = "It has no rival, so the loss must be 0."
            expect_close(function(image[:1], text[:1], margin, hardest), 0.0, none, "the largest of no terms is 0.")
    draws = [(unit(b, d), unit(b, d)) for _ in range(3)]
    same(
        [(*draw, margin) for draw in draws],
        "It must be the mean over pairs of Σ [margin + wrong - right]₊ over rows and columns.",
        "rivals of pair i are compared with s_ii; the hinge is not squared.",
    )
    same([(*draw, margin, True) for draw in draws], property, hint)
    same(draws, "Without an argument the margin must be 0.2.", "margin: float = 0.2")
    for hardest in (False, True):
        with case("With positives" + " and hardest" * hardest):
            same(
                [(*draw, 1.5, hardest, with_pairs(b, (0, 1), (2, 3))) for draw in draws],
                "A text that fits must not count as a rival.",
                "set those terms to 0: positives by rows, positives.T by columns.",
            )
    expect_trains(function, image, text, fixed=(1.5,), like=ranking_hinge)
    for hardest in (False, True):
        fixed = (1.5, hardest, with_pairs(b, (0, 1), (2, 3)))
        expect_trains(function, image, text, fixed=fixed, like=ranking_hinge)
