"""Contrastive objectives and how retrieval is measured: what each function must do, told one property at a time."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from mmlearn.evaluation import median_rank, modality_gap, recall_at, zero_shot
from mmlearn.evaluation.retrieval import ranks
from mmlearn.exercises import case, expect, expect_close, expect_number, expect_tensor, expect_trains, near, task
from mmlearn.objectives import (
    info_nce,
    late_interaction,
    pair_cross_entropy,
    pairwise_sigmoid,
    ranking_hinge,
    same_caption,
)


def unit(*shape: int) -> Tensor:
    """Random embeddings of unit length."""
    return F.normalize(torch.randn(*shape), dim=-1)


def orthogonal(b: int) -> Tensor:
    """Embeddings of unit length, each at a right angle to all others, in a random place."""
    return torch.linalg.qr(torch.randn(b, b))[0]


def over(draws: list[tuple[Tensor, ...]], loss: Callable) -> Tensor:
    """The loss of several draws, so that no wrong one is right by luck."""
    return torch.stack([expect_tensor(loss(*draw), ()) for draw in draws])


# Objectives.


@task(info_nce, difficulty=2, minutes=15)
def check_info_nce(function: Callable) -> None:
    """ln b of nothing, 0 of everything, the same from both sides, no overflow."""
    b, d = int(torch.randint(5, 9, ())), 16
    image, text, scale = unit(b, d), unit(b, d), torch.tensor(3.0)
    expect_tensor(function(image, text, scale), ())
    alike = image[:1].expand(b, d)
    expect_close(
        function(alike, alike, scale),
        torch.tensor(b).log(),
        f"Embeddings that are all alike know nothing: the loss must be ln b = ln {b}.",
        "a mean over the b pairs, and half of each direction; the matching pair stays in the softmax.",
    )
    distinct = orthogonal(b)
    with case("Perfect embeddings at a large logit_scale"):
        expect_close(
            function(distinct, distinct, torch.tensor(20.0)),
            torch.tensor(0.0),
            "The loss must be 0.",
            "multiply by logit_scale, it is 1/τ; cross_entropy takes logits, so no softmax before it.",
        )
    expect_close(
        function(distinct, distinct, torch.tensor(0.0)),
        torch.tensor(b).log(),
        f"At logit_scale 0 all logits are equal: the loss must be ln b = ln {b}.",
        "logit_scale has been exponentiated already.",
    )
    with case("At logit_scale 100"):
        expect_tensor(function(image, image, torch.tensor(100.0)), ())
    draws, matching = [(unit(b, d), unit(b, d), scale) for _ in range(3)], torch.arange(b)
    got = over(draws, function)
    rows = over(draws, lambda image, text, scale: F.cross_entropy(scale * image @ text.T, matching))
    columns = over(draws, lambda image, text, scale: F.cross_entropy(scale * text @ image.T, matching))
    expect(
        not near(got, rows) and not near(got, columns),
        "It must be the same when pictures and texts change places; this looks one way only.",
        "each picture picks its text, and each text its picture: two cross-entropies, rows and columns.",
    )
    expect_close(
        got,
        over(draws, info_nce),
        "It must be the mean of -log softmax at the matching pairs, by rows and by columns.",
        "the only target of row i is column i: F.cross_entropy(logits, torch.arange(b)).",
    )
    expect_trains(lambda image, text: function(image, text, scale), image, text)


@task(same_caption, difficulty=1, minutes=5)
def check_same_caption(function: Callable) -> None:
    """True exactly where two ids are equal."""
    caption_id = torch.tensor([3, 5, 3, 8, 5, 3])[torch.randperm(6)] + torch.randint(0, 100, ())
    got = expect_tensor(function(caption_id))
    expect(got.dtype == torch.bool, f"It must be boolean; this is {got.dtype}.", "a comparison gives booleans.")
    expect_tensor(got, (6, 6))
    expect(got.diagonal().all(), "A caption must fit its own picture: the diagonal is True.", "each id equals itself.")
    wanted = same_caption(caption_id)
    expect((got | ~wanted).all(), "True wherever two ids are equal, also off the diagonal.", "compare all with all.")
    expect(
        (wanted | ~got).all(),
        "True only where two ids are equal: that both are repeated is not enough.",
        "a column of ids against a row of ids.",
    )


@task(pair_cross_entropy, difficulty=3, minutes=15)
def check_pair_cross_entropy(function: Callable) -> None:
    """Two matrices, and rows that spread their target over all columns that fit."""
    b = int(torch.randint(5, 9, ()))
    draws = [(torch.randn(b, b), torch.randn(b, b)) for _ in range(3)]
    got, wanted = over(draws, function), over(draws, pair_cross_entropy)
    expect(
        not near(got, over(draws, lambda by_image, by_text: pair_cross_entropy(by_image, by_image.T))),
        "It must use the second matrix, which need not be the first transposed.",
        "late interaction gives two matrices that differ.",
    )
    expect_close(
        got,
        wanted,
        "Without positives, row i of either matrix must pick column i; the loss is the mean of both.",
        "F.cross_entropy(matrix, torch.arange(b)) for each, then half their sum.",
    )
    positives = torch.eye(b, dtype=torch.bool)
    expect_close(
        over(draws, lambda *matrices: function(*matrices, positives)),
        wanted,
        "With positives on the diagonal only, it must be what it is without positives.",
        "one column that fits gets the whole target.",
    )
    positives[0, 1] = positives[0, 2] = positives[3, 4] = True  # text 1 fits picture 0; text 0 does not fit picture 1
    flat = torch.zeros(b, b)
    expect_close(
        function(flat, flat, positives),
        torch.tensor(b).log(),
        f"Where all logits are equal, the loss must be ln b = ln {b}, however many columns fit.",
        "the target of a row sums to 1: divide it by the number of columns that fit. It goes outside the logarithm.",
    )
    got = over(draws, lambda *matrices: function(*matrices, positives))
    expect(not near(got, wanted), "It must use positives.", "they change the target.")
    target, hint = positives / positives.sum(1, keepdim=True), "first positives.T, and then divide each row by its sum."
    expect(
        not near(got, over(draws, lambda *matrices: sum(F.cross_entropy(each, target) for each in matrices) / 2)),
        "For text → picture, positives must be transposed: its entry (i, j) is picture i and text j.",
        hint,
    )
    expect_close(
        got,
        over(draws, lambda *matrices: pair_cross_entropy(*matrices, positives)),
        "Each row's target must be spread evenly over all columns that fit.",
        hint,
    )


@task(pairwise_sigmoid, difficulty=3, minutes=20)
def check_pairwise_sigmoid(function: Callable) -> None:
    """b² questions; sum over b; the bias is added; chunks change nothing."""
    b, d = int(5 + 2 * torch.randint(0, 2, ())), 16  # no multiple of the chunks below
    image, text = unit(b, d), unit(b, d)
    scale, bias, nothing = torch.tensor(5.0), torch.tensor(-2.0), torch.tensor(0.0)
    expect_tensor(function(image, text, scale, bias), ())
    expect_close(
        function(image, text, nothing, nothing),
        torch.tensor(b * math.log(2)),
        f"Where all logits are 0, each of the b² pairs costs ln 2: the loss must be b ln 2 = {b} ln 2.",
        "sum over all pairs, divide by b: a mean would divide by b². The scale is not exponentiated again.",
    )
    distinct = orthogonal(b)
    with case("Perfect embeddings at a large scale"):
        got = expect_tensor(function(distinct, distinct, torch.tensor(60.0), nothing), ())
        expect(got < 30, "Matching pairs must cost nearly nothing.", "z is +1 on the diagonal and -1 elsewhere.")
    with case("With logit_bias -10 and logit_scale 0"):
        expect_close(
            function(image, text, nothing, torch.tensor(-10.0)),
            pairwise_sigmoid(image, text, nothing, torch.tensor(-10.0)),
            "Only the b matching pairs must pay, about 10 each.",
            "the bias is added to the logits before z multiplies them.",
        )
    with case("With logits of ±200"):
        got = expect_tensor(function(distinct, -distinct, torch.tensor(200.0), nothing), ())
        expect(got > 190, "A wrong answer so sure must cost about 200.", "F.logsigmoid(x), not log(sigmoid(x)).")
    draws = [(unit(b, d), unit(b, d), scale, bias) for _ in range(3)]
    expect_close(
        over(draws, function),
        over(draws, pairwise_sigmoid),
        "It must be -Σ log σ(z (s u·v + β)) / b.",
        "one matrix of logits, one of signs.",
    )
    positives = torch.eye(b, dtype=torch.bool)
    positives[0, 1] = positives[2, 3] = True
    wanted = over(draws, lambda *inputs: pairwise_sigmoid(*inputs, positives))
    expect_close(
        over(draws, lambda *inputs: function(*inputs, positives)),
        wanted,
        "Every pair that positives marks must count as matching.",
        "z is +1 there; entry (i, j) is picture i and text j.",
    )
    for chunk in (2, 3, b):
        with case(f"In chunks of {chunk} pictures of {b}"):
            got = over(draws, lambda *inputs: function(*inputs, positives, chunk))  # noqa: B023
            expect_close(
                got,
                wanted,
                "The loss must be the same as in one piece.",
                "add the sums of all chunks, a last short one too, each with its rows of positives; then divide by b.",
            )
    expect_trains(lambda image, text: function(image, text, scale, bias), image, text)


@task(late_interaction, difficulty=4, minutes=25)
def check_late_interaction(function: Callable) -> None:
    """Each patch its best word, each word its best patch; padding neither wins nor counts."""
    images, texts, p, t, d = 3, 4, 5, 6, 8
    image, text = unit(images, p, d), unit(texts, t, d)

    def both(*arguments: Tensor, finite: bool = True) -> tuple[Tensor, Tensor]:
        result = function(*arguments)
        hint = "return image_to_text, text_to_image"
        expect(isinstance(result, tuple) and len(result) == 2, "It must return two matrices, one a direction.", hint)
        i, j = len(arguments[0]), len(arguments[1])
        return expect_tensor(result[0], (i, j), finite=finite), expect_tensor(result[1], (j, i), finite=finite)

    by_image, by_text = both(image, text)
    expect(
        (by_image.abs() <= 1 + 1e-5).all() and (by_text.abs() <= 1 + 1e-5).all(),
        "A mean of cosines must not exceed 1.",
        "the mean over tokens, not their sum.",
    )
    axes = orthogonal(d)
    few, many = axes[None, :1], axes[None, :4]  # one patch, which equals the first of four words
    by_image, by_text = both(many, many)
    expect(
        near(by_image, 1.0) and near(by_text, 1.0),
        "A picture and a text of the same tokens must have similarity 1: each token finds its twin.",
        "the maximum over the tokens of the other side, then the mean over one's own.",
    )
    by_image, by_text = both(few, many)
    expect(
        not (near(by_image, 0.25) and near(by_text, 1.0)),
        "In picture → text every patch must find its best word; here every word finds its patch.",
        "the first matrix is the mean over patches of the maximum over words.",
    )
    expect(
        near(by_image, 1.0) and near(by_text, 0.25),
        "One patch that equals one of four words must give 1 from the picture, and 1/4 from the text.",
        "the two directions differ: each takes its mean over its own tokens.",
    )
    order = torch.arange(p).flip(0)
    expect(
        all(near(*pair) for pair in zip(both(image[:, order], text), both(image, text))),
        "The order of patches must not matter.",
        "compare every patch with every word, not each with its neighbour.",
    )
    _check_padding(both, image, text)
    for got, wanted, way in zip(both(image, text), late_interaction(image, text), ("picture → text", "text → picture")):
        expect_close(got, wanted, f"{way} must be the mean of the best cosines.", "compare with a loop over all pairs.")


def _check_padding(both: Callable, image: Tensor, text: Tensor) -> None:
    texts, t, _ = text.shape
    mask = torch.rand(texts, t).argsort(-1) < 3  # three real words each
    noisy = torch.where(mask[..., None], text, unit(*text.shape))
    away, towards = (F.normalize(x.abs() + 0.1, dim=-1) for x in (image, text))  # all cosines of these are negative
    with case("With padding"):
        by_image, _ = both(-away, towards, mask)
        expect(
            (by_image < -1e-4).all(),
            "Padding must never be the best word: where all cosines are negative, the best is negative.",
            "multiplying by the mask makes padding 0, which beats them; fill with -inf before the maximum.",
        )
        one, two = both(image, text, mask), both(image, noisy, mask)
        expect(near(one[0], two[0]), "What stands in padding must not matter, picture → text.", "mask the words.")
        expect(near(one[1], two[1]), "What stands in padding must not matter, text → picture.", "mask the words.")
        wanted = late_interaction(image, text, mask)
        expect(
            not near(one[1], wanted[1] * 3 / t),
            "A mean over words must be over the real ones only.",
            "divide by mask.sum(-1), not by the length.",
        )
        expect(near(one[0], wanted[0]), "picture → text must be the mean over all patches.", "patches have no mask.")
        expect(
            near(one[1], wanted[1]), "text → picture must be the mean over the real words.", "divide by their count."
        )
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


@task(ranking_hinge, difficulty=3, minutes=15)
def check_ranking_hinge(function: Callable) -> None:
    """A margin over each wrong pair, both ways; the hardest only; repeated captions."""
    b, d, margin = int(torch.randint(5, 9, ())), 16, 0.3
    image, text, distinct = unit(b, d), unit(b, d), orthogonal(b)
    expect_tensor(function(image, text, margin), ())
    expect_close(
        function(distinct, distinct, margin),
        torch.tensor(0.0),
        "Where every pair wins by more than the margin, the loss must be 0.",
        "[x]₊ is clamp(min=0), x is margin + wrong - right, and a pair is no rival of its own.",
    )
    alike = image[:1].expand(b, d)
    expect_close(
        function(alike, alike, margin),
        torch.tensor(2 * (b - 1) * margin),
        f"Where all are alike, each pair has b - 1 rivals in its row and b - 1 in its column: 2·{b - 1}·{margin}.",
        "sum over rivals and both directions, mean over the b pairs.",
    )
    got = expect_tensor(function(alike, alike, margin, True), ())
    property = "hardest must keep the largest term of each row, and of each column."
    hint = "amax(1) in place of sum(1), for the matrix and for its transpose."
    expect_close(got, torch.tensor(2 * margin), property, hint)
    draws = [(unit(b, d), unit(b, d)) for _ in range(3)]

    def both(*settings: float | Tensor) -> tuple[Tensor, Tensor]:
        got = over(draws, lambda *pair: function(*pair, *settings))
        return got, over(draws, lambda *pair: ranking_hinge(*pair, *settings))

    expect_close(
        *both(margin),
        "It must be the mean over pairs of Σ [margin + wrong - right]₊ over rows and columns.",
        "rivals of pair i are compared with s_ii; the hinge is not squared.",
    )
    expect_close(*both(margin, True), property, hint)
    expect_close(*both(), "Without an argument the margin must be 0.2.", "margin: float = 0.2")
    positives = torch.eye(b, dtype=torch.bool)
    positives[0, 1] = positives[2, 3] = True
    for hardest in (False, True):
        with case("With positives" + " and hardest" * hardest):
            expect_close(
                *both(1.5, hardest, positives),
                "A text that fits must not count as a rival.",
                "set those terms to 0: positives by rows, positives.T by columns.",
            )
    expect_trains(lambda image, text: function(image, text, 1.5), image, text)


# Measures.


@task(modality_gap, difficulty=1, minutes=5)
def check_modality_gap(function: Callable) -> None:
    """The distance of two means."""
    image, text = unit(20, 6), unit(20, 6)
    expect_number(
        function(image, image[torch.randperm(20)]),
        0,
        "The same points in another order must have gap 0.",
        "it is the distance of the two means, not the mean distance of pairs.",
    )
    step = 3 * unit(6)
    expect_number(
        function(image, image + step),
        3,
        "Texts moved by a step of length 3 must have gap 3.",
        "the Euclidean length of the difference: neither squared, nor a sum or mean over features.",
    )
    expect_number(
        function(image, text), modality_gap(image, text), "It must be the distance of the means.", "mean(0), then norm."
    )


@task(zero_shot, difficulty=1, minutes=5)
def check_zero_shot(function: Callable) -> None:
    """The share of pictures whose nearest class name is right."""
    n, classes = 200, 7
    names = orthogonal(16)[:classes]
    label = torch.randint(0, classes, (n,))
    expect_number(
        function(names[label], names, label),
        1,
        "Pictures that lie on the name of their class must all be right.",
        "the nearest name has the highest cosine: argmax over classes, and then a share, not a count.",
    )
    second = F.normalize(names[(label + 1) % classes] + names[label] / 2, dim=-1)
    expect_number(
        function(second, names, label),
        0,
        "Pictures whose right name comes second must all be wrong.",
        "one answer a picture: the nearest name only.",
    )
    image = F.normalize(names[label] + 0.6 * torch.randn(n, 16), dim=-1)
    expect_number(
        function(image, names, label),
        zero_shot(image, names, label),
        "It must be the share of pictures whose nearest name is right.",
        "compare argmax with label.",
    )


@task(ranks, difficulty=3, minutes=15)
def check_ranks(function: Callable) -> None:
    """Wrong items above the best right one; wrong and right ones level with it."""

    def three(*arguments: Tensor) -> list[Tensor]:
        result = function(*arguments)
        hint = "return better, wrong, right"
        expect(
            isinstance(result, tuple) and len(result) == 3, "It must return three tensors, one number a query.", hint
        )
        return [expect_tensor(part, (len(arguments[0]),)).float() for part in result]

    queries, items = 6, 9
    distinct = torch.rand(queries, items).argsort(-1).float()  # no ties
    better, wrong, right = three(distinct)
    expect(
        near(better, (distinct > distinct.diagonal()[:, None]).sum(1)),
        "better must count the items of a row that are above the right one: 0 if it comes first.",
        "without positives item i is right for query i; compare along the row with >, and do not add 1.",
    )
    expect(near(wrong, 0.0), "Without ties, wrong must be 0.", "the right item equals itself, but it is not wrong.")
    expect(near(right, 1.0), "Without ties, right must be 1: the right item itself.", "count it.")
    flat = torch.zeros(queries, items)
    better, wrong, right = three(flat)
    expect(near(better, 0.0), "In a flat row nothing must be better.", "an equal item is not above: > and not >=.")
    expect(near(wrong, items - 1) and near(right, 1.0), "In a flat row all wrong items must be level.", "use ==.")
    positives = torch.eye(queries, items, dtype=torch.bool)
    positives[:, -2:] = True
    distinct[:, -1] = items  # of the three that are right, the last comes first of all
    better, _, _ = three(distinct, positives)
    expect(
        near(better, 0.0),
        "With several right items, the best of them must count.",
        "mask wrong items with -inf, then take the maximum.",
    )
    distinct = torch.rand(queries, items).argsort(-1).float()
    distinct[:, -1] = -1
    better, _, right = three(distinct, positives)
    wanted = ranks(distinct, positives)
    expect(near(better, wanted[0]), "Another right item must not count as better.", "& ~positives.")
    expect(near(right, 1.0), "right must count only right items that are level with the best one.", "& positives.")
    similarity = torch.randint(0, 3, (queries, items)).float()
    for got, want, name in zip(
        three(similarity, positives), ranks(similarity, positives), ("better", "wrong", "right")
    ):
        expect(near(got, want), f"With ties and several right items, {name} must be right too.", "try it by hand.")


@task(recall_at, difficulty=4, minutes=20)
def check_recall_at(function: Callable) -> None:
    """A right item among the first k; ties are luck."""
    n = 8
    first = torch.rand(n, n) + 2 * torch.eye(n)
    last = torch.rand(n, n) - 2 * torch.eye(n)
    expect_number(function(1, first), 1, "Where the right item comes first, R@1 must be 1.", "a share, not a count.")
    expect_number(function(n - 1, last), 0, "Where it comes last, R@k must be 0 for all k < n.", "the first k only.")
    second = torch.rand(n, n) + 2 * torch.eye(n) + 4 * torch.eye(n).roll(1, 1)
    expect_number(function(1, second), 0, "Where it comes second, R@1 must be 0.", "ranks from 0: better < k.")
    expect_number(function(2, second), 1, "Where it comes second, R@2 must be 1.", "any of the first k, not over k.")
    wide = torch.rand(4, 9)
    wide[:, 0] += 2
    wide[0, 0] += 2
    expect_number(
        function(1, wide), 0.25, "Each row is a query, and its items are the columns.", "rank along the last axis."
    )
    positives = torch.zeros(n, n, dtype=torch.bool)
    positives[:, :2] = True
    ordered = torch.arange(n, 0, -1).float().expand(n, n)
    expect_number(
        function(1, ordered, positives),
        1,
        "With several right items, one among the first k must be enough.",
        "whether any is found, not how many of them.",
    )
    flat, one = torch.zeros(n, n), torch.zeros(n, n, dtype=torch.bool)
    one[:, torch.randint(0, n, ())] = True  # the same item for all
    expect_number(
        function(3, flat, one),
        3 / n,
        f"A flat similarity knows nothing and must find by luck: R@3 of {n} items is 3/{n}.",
        "ties are broken at random: the places left are drawn from the level items; topk takes the first of them.",
    )
    with case("A flat similarity, 2 of 8 items right, R@3"):
        missed = math.comb(6, 3) / math.comb(8, 3)
        hint = "draw without putting back: 6/8 · 5/7 · 4/6 is the probability to miss thrice."
        expect_number(function(3, flat, positives), 1 - missed, "It must be 1 - 6/8 · 5/7 · 4/6.", hint)
    similarity = torch.randint(0, 4, (n, n)).float()
    positives |= torch.rand(n, n) < 0.2
    for k in (1, 3, 5):
        wanted = recall_at(k, similarity, positives)
        expect_number(function(k, similarity, positives), wanted, f"R@{k} with many ties must be its mean.", "by hand.")


@task(median_rank, difficulty=2, minutes=10)
def check_median_rank(function: Callable) -> None:
    """From 1; the median, of an even number too; ties by their mean."""
    n = 8
    expect_number(
        function(torch.rand(n, n) + 2 * torch.eye(n)),
        1,
        "Where the right item comes first, it must be 1.",
        "1 + better.",
    )
    place = torch.tensor([1, 1, 1, 2, 2, 2, 8])  # the rank of the right item in each of seven rows
    expect_number(function(_with_ranks(place)), 2, "Of ranks 1 1 1 2 2 2 8 it must be 2.", "the median, not the mean.")
    place = torch.tensor([1, 1, 2, 5, 6, 8])
    expect_number(
        function(_with_ranks(place)),
        3.5,
        "Of an even number of ranks, 1 1 2 5 6 8, it must be the mean of the middle two.",
        "torch.median takes the lower one; quantile(0.5) does not.",
    )
    expect_number(
        function(torch.zeros(n, n)),
        (n + 1) / 2,
        f"A flat similarity of {n} items must have the rank of a guess, {(n + 1) / 2}.",
        "the right item stands at a random place among those level with it.",
    )
    positives = torch.zeros(n, n, dtype=torch.bool)
    positives[:, :2] = True
    expect_number(
        function(torch.zeros(n, n), positives),
        1 + 6 / 3,
        "Of 8 level items of which 2 are right, the first right one must come at 1 + 6/3 on average.",
        "the 6 wrong ones fall evenly into 3 gaps: before, between and after the right ones.",
    )
    similarity = torch.randint(0, 4, (n, n)).float()
    positives |= torch.rand(n, n) < 0.2
    wanted = median_rank(similarity, positives)
    expect_number(function(similarity, positives), wanted, "With many ties it must be right too.", "1 + better + …")


def _with_ranks(place: Tensor) -> Tensor:
    """A similarity of 8 items whose right one, on the diagonal, has this rank in each row."""
    rows = []
    for i, rank in enumerate(place.tolist()):
        row = torch.randperm(7).float()  # the wrong items: 6 comes first
        rows.append(torch.cat([row[:i], torch.tensor([7.5 - rank]), row[i:]]))
    return torch.stack(rows)
