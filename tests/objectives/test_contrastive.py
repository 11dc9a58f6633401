"""Each contrastive objective equals plain Python loops, and keeps its invariants on random batches."""

import math

import pytest
import torch
import torch.nn.functional as F
from testing_tools import close, refused, seeded

from mmlearn.objectives import (
    binding_loss,
    info_nce,
    late_interaction,
    late_interaction_info_nce,
    logits_both_ways,
    pair_cross_entropy,
    pairwise_sigmoid,
    ranking_hinge,
    same_caption,
)

SEEDS = range(3)
B, D, P, T = 5, 6, 4, 3
ID = torch.tensor([3, 7, 3, 3, 1])  # of captions: 0, 2 and 3 are one


def scalar(value):
    return torch.tensor(value, dtype=torch.float64)


def unit(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(*shape, D, generator=generator, dtype=torch.float64), dim=-1)


def pair(seed):
    return unit(B, seed=seed), unit(B, seed=seed + 100)


def text_mask(seed):
    """Every text has a token; the others are real by chance."""
    mask = torch.rand(B, T, generator=torch.Generator().manual_seed(seed)) < 0.5
    mask[torch.arange(B), torch.arange(B) % T] = True
    return mask


# Each takes (image, text, positives=None) with rows of one modality on the left, rows of the other on the right.
LOSSES = {
    "info_nce": lambda u, v, positives=None: info_nce(u, v, scalar(4.0), positives),
    "sigmoid": lambda u, v, positives=None: pairwise_sigmoid(u, v, scalar(4.0), scalar(-1.5), positives),
    "late": lambda u, v, positives=None: late_interaction_info_nce(
        u.unflatten(1, (-1, 3)), v.unflatten(1, (-1, 3)), scalar(4.0), None, positives
    ),
    "hinge": lambda u, v, positives=None: ranking_hinge(u, v, 0.3, False, positives),
    "hardest": lambda u, v, positives=None: ranking_hinge(u, v, 0.3, True, positives),
}


def dots(u, v):
    return [[sum(a * b for a, b in zip(x, y)) for y in v.tolist()] for x in u.tolist()]


def cross_entropy(logits, fitting):
    """Mean over rows i of the mean over the columns that fit of −log softmax; UniCL's equations 3 and 4."""
    total = 0
    for i, row in enumerate(logits):
        log_sum = max(row) + math.log(sum(math.exp(z - max(row)) for z in row))
        total -= sum(row[j] - log_sum for j in fitting[i]) / len(fitting[i])
    return total / len(logits)


def fitting(positives):
    if positives is None:
        return [[i] for i in range(B)]
    return [[j for j in range(B) if positives[i][j]] for i in range(B)]


def transposed(rows):
    return [list(column) for column in zip(*rows)]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("repeated", [False, True])
def test_info_nce_equals_loops(repeated, seed):
    (u, v), positives = pair(seed), same_caption(ID) if repeated else None
    logits = [[4 * s for s in row] for row in dots(u, v)]
    fits = fitting(positives)
    expected = (cross_entropy(logits, fits) + cross_entropy(transposed(logits), fits)) / 2
    assert info_nce(u, v, scalar(4.0), positives).item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("smoothing", [0.1, 0.5, 1.0])
@pytest.mark.parametrize("repeated", [False, True])
def test_smoothing_mixes_the_target_with_even_odds(repeated, smoothing):
    (u, v), positives = pair(0), same_caption(ID) if repeated else None
    everything = [list(range(B))] * B
    logits, expected = [[4 * s for s in row] for row in dots(u, v)], 0
    for matrix in (logits, transposed(logits)):
        right, even = cross_entropy(matrix, fitting(positives)), cross_entropy(matrix, everything)
        expected += ((1 - smoothing) * right + smoothing * even) / 2
    got = info_nce(u, v, scalar(4.0), positives, label_smoothing=smoothing)
    assert got.item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("hardest", [False, True])
@pytest.mark.parametrize("repeated", [False, True])
def test_the_hinge_of_some_rows_is_their_share(repeated, hardest):
    """Rows that two processes have: the mean of their losses, weighed by rows, is the loss of all."""
    (u, v), positives, parts = pair(0), same_caption(ID) if repeated else None, (slice(0, 2), slice(2, 5))
    losses = [ranking_hinge(u, v, 0.3, hardest, None if positives is None else positives[rows], rows) for rows in parts]
    expected = ranking_hinge(u, v, 0.3, hardest, positives)
    assert ((2 * losses[0] + 3 * losses[1]) / B).item() == pytest.approx(expected.item(), abs=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
def test_positives_need_not_be_symmetric(seed):
    """Image i fits text j, but image j may not fit text i: columns then read down, not across."""
    generator = torch.Generator().manual_seed(seed)
    first, second = torch.randn(2, B, B, generator=generator, dtype=torch.float64)
    positives = (torch.rand(B, B, generator=generator) < 0.4) | torch.eye(B, dtype=torch.bool)
    expected = cross_entropy(first.tolist(), fitting(positives)) + cross_entropy(second.tolist(), fitting(positives.T))
    assert pair_cross_entropy(first, second, positives).item() == pytest.approx(expected / 2, abs=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("repeated", [False, True])
def test_sigmoid_equals_loops(repeated, seed):
    (u, v), positives = pair(seed), same_caption(ID) if repeated else None
    total = 0
    for i, row in enumerate(dots(u, v)):
        for j, s in enumerate(row):
            z = 1 if j in fitting(positives)[i] else -1
            total += math.log(1 + math.exp(-z * (4 * s - 1.5)))
    got = pairwise_sigmoid(u, v, scalar(4.0), scalar(-1.5), positives)
    assert got.item() == pytest.approx(total / B, abs=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("repeated", [False, True])
@pytest.mark.parametrize("hardest", [False, True])
def test_hinge_equals_loops(hardest, repeated, seed):
    (u, v), positives = pair(seed), same_caption(ID) if repeated else None
    s, fits, total = dots(u, v), fitting(positives), 0
    for i in range(B):
        row = [max(0, 0.3 + s[i][j] - s[i][i]) for j in range(B) if j not in fits[i]]
        column = [max(0, 0.3 + s[j][i] - s[i][i]) for j in range(B) if j not in fits[i]]
        total += max(row) + max(column) if hardest else sum(row) + sum(column)
    assert ranking_hinge(u, v, 0.3, hardest, positives).item() == pytest.approx(total / B, abs=1e-12)


def late_by_loops(image, text, mask):
    """FILIP's equations 3 to 5, token by token."""
    image_to_text = [[0.0] * len(text) for _ in image]
    text_to_image = [[0.0] * len(image) for _ in text]
    for i, patches in enumerate(image):
        for j, tokens in enumerate(text):
            words = [token for token, real in zip(tokens, mask[j]) if real]
            if words:
                image_to_text[i][j] = sum(max((p @ w).item() for w in words) for p in patches) / len(patches)
                text_to_image[j][i] = sum(max((p @ w).item() for p in patches) for w in words) / len(words)
    return image_to_text, text_to_image


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("masked", [False, True])
def test_late_interaction_equals_loops(masked, seed):
    image, text = unit(B + 1, P, seed=seed), unit(B, T, seed=seed + 100)  # other numbers of images and of texts
    mask = text_mask(seed) if masked else None
    expected = late_by_loops(image, text, torch.ones(B, T, dtype=torch.bool) if mask is None else mask)
    got = late_interaction(image, text, mask)
    assert [tuple(similarity.shape) for similarity in got] == [(B + 1, B), (B, B + 1)]
    for similarity, rows in zip(got, expected):
        close(similarity, torch.tensor(rows, dtype=torch.float64), 1e-12)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("repeated", [False, True])
def test_late_interaction_info_nce_equals_loops(repeated, seed):
    image, text, mask = unit(B, P, seed=seed), unit(B, T, seed=seed + 100), text_mask(seed)
    positives = same_caption(ID) if repeated else None
    logits = [[[4 * s for s in row] for row in rows] for rows in late_by_loops(image, text, mask)]
    expected = sum(cross_entropy(rows, fitting(positives)) for rows in logits) / 2
    got = late_interaction_info_nce(image, text, scalar(4.0), mask, positives)
    assert got.item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("b", [1, 2, 7])
def test_embeddings_that_know_nothing(b):
    """Where all pairs look the same: ln b, and closed forms for the objectives that are no choice among b."""
    same, tokens = unit(1).expand(b, D), unit(1, 1).expand(b, P, D)
    for scale in (1.0, 14.3, 100.0):
        assert info_nce(same, same, scalar(scale)).item() == pytest.approx(math.log(b), abs=1e-9)
        late = late_interaction_info_nce(tokens, tokens, scalar(scale))
        assert late.item() == pytest.approx(math.log(b), abs=1e-9)
    assert info_nce(unit(b), unit(b, seed=1), scalar(0.0)).item() == pytest.approx(math.log(b), abs=1e-9)
    half = pairwise_sigmoid(same, same, scalar(10.0), scalar(-10.0))  # every logit is 0, every question costs ln 2
    assert half.item() == pytest.approx(b * math.log(2), abs=1e-9)
    assert ranking_hinge(same, same, 0.2).item() == pytest.approx(2 * (b - 1) * 0.2, abs=1e-12)
    assert ranking_hinge(same, same, 0.2, hardest=True).item() == pytest.approx(2 * (b > 1) * 0.2, abs=1e-12)


def test_perfect_embeddings_cost_nothing_and_swapped_ones_a_lot():
    u = torch.eye(D, dtype=torch.float64)
    swapped = u.roll(1, 0)
    for loss in (
        lambda v: info_nce(u, v, scalar(200.0)),
        lambda v: pairwise_sigmoid(u, v, scalar(200.0), scalar(-100.0)),
        lambda v: late_interaction_info_nce(u[:, None], v[:, None], scalar(200.0)),
        lambda v: ranking_hinge(u, v, 0.9) * 100,
        lambda v: ranking_hinge(u, v, 0.9, hardest=True) * 100,
    ):
        assert 0 <= loss(u).item() < 1e-30
        assert loss(swapped).item() > 100


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", LOSSES)
def test_symmetric_in_the_modalities(name, seed):
    """A loss with one direction only is not."""
    (u, v), positives = pair(seed), torch.rand(B, B) < 0.3
    positives = positives | torch.eye(B, dtype=torch.bool)
    close(LOSSES[name](u, v), LOSSES[name](v, u), 1e-12)
    close(LOSSES[name](u, v, positives), LOSSES[name](v, u, positives.T), 1e-12)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", LOSSES)
def test_shuffling_the_pairs_changes_nothing_and_breaking_them_does(name, seed):
    (u, v), positives = pair(seed), same_caption(ID)
    order = torch.randperm(B, generator=torch.Generator().manual_seed(seed))
    close(LOSSES[name](u[order], v[order]), LOSSES[name](u, v), 1e-12)
    close(LOSSES[name](u[order], v[order], same_caption(ID[order])), LOSSES[name](u, v, positives), 1e-12)
    assert abs(LOSSES[name](u, v.roll(1, 0)) - LOSSES[name](u, v)).item() > 1e-3


@pytest.mark.parametrize("name", LOSSES)
def test_positives_on_the_diagonal_are_the_plain_loss(name):
    u, v = pair(0)
    close(LOSSES[name](u, v, torch.eye(B, dtype=torch.bool)), LOSSES[name](u, v), 1e-12)
    assert abs(LOSSES[name](u, v, same_caption(ID)) - LOSSES[name](u, v)).item() > 1e-3


@pytest.mark.parametrize("name", LOSSES)
def test_duplicate_captions_are_not_pushed_apart(name):
    """Images are unit vectors, so ∂loss/∂v_j[i] is what becomes of the similarity of image i and text j.

    Plain losses lower it for every i ≠ j; with positives, a caption that fits is pulled in, or left alone by a hinge.
    """
    u, positives = torch.eye(6, dtype=torch.float64), same_caption(torch.tensor([0, 1, 0, 2, 3, 4]))
    loss = LOSSES[name]
    if name == "late":  # one token each
        loss = lambda u, v, known: late_interaction_info_nce(u[:, None], v[:, None], scalar(4.0), None, known)  # noqa: E731
    push = []
    for known in (None, positives):
        v = (0.1 * u + 0.05 * positives).requires_grad_()  # so duplicates are the hardest negatives
        push.append(torch.autograd.grad(loss(u, v, known), v)[0].T)
        assert (push[-1].diagonal() < -1e-3).all()
        if name != "hardest":
            assert (push[-1][~positives] > 1e-3).all()
    plain, aware = (torch.stack([rise[0, 2], rise[2, 0]]) for rise in push)
    assert (plain > 1e-3).all()
    assert (aware == 0).all() if name in ("hinge", "hardest") else (aware < -1e-3).all()


def test_same_caption_compares_all_pairs():
    got = same_caption(ID)
    assert got.dtype == torch.bool
    assert got.tolist() == [[a == b for b in ID.tolist()] for a in ID.tolist()]


def gradients(loss, *inputs):
    return [loss.detach(), *torch.autograd.grad(loss, inputs)]


@pytest.mark.parametrize("repeated", [False, True])
@pytest.mark.parametrize("chunk_size", [1, 2, 3, 4, B, B + 1, 100])
def test_sigmoid_in_chunks_is_the_whole(chunk_size, repeated):
    """The loss and the gradient of every input, whether the chunks divide the batch or not."""
    u, v = (x.requires_grad_() for x in pair(0))
    scale, bias = scalar(4.0).requires_grad_(), scalar(-1.5).requires_grad_()
    positives = same_caption(ID) if repeated else None
    whole = gradients(pairwise_sigmoid(u, v, scale, bias, positives), u, v, scale, bias)
    chunks = gradients(pairwise_sigmoid(u, v, scale, bias, positives, chunk_size), u, v, scale, bias)
    for got, expected in zip(chunks, whole, strict=True):
        assert expected.abs().max() > 1e-3
        close(got, expected, 1e-12)


@pytest.mark.parametrize("chunk_size", [0, -2])
def test_chunks_hold_at_least_one_image(chunk_size):
    with pytest.raises(ValueError, match=f"chunk_size must be at least 1, got {chunk_size}"):
        pairwise_sigmoid(*pair(0), scalar(1.0), scalar(0.0), chunk_size=chunk_size)


@pytest.mark.parametrize("seed", SEEDS)
def test_late_interaction_does_not_know_the_order_of_patches_or_words(seed):
    image, text, mask = unit(B, P, seed=seed), unit(B, T, seed=seed + 100), text_mask(seed)
    patches, words = torch.randperm(P), torch.randperm(T)
    expected = late_interaction(image, text, mask)
    for got in (
        late_interaction(image[:, patches], text, mask),
        late_interaction(image, text[:, words], mask[:, words]),
    ):
        for similarity, wanted in zip(got, expected):
            close(similarity, wanted, 1e-12)


@pytest.mark.parametrize("seed", SEEDS)
def test_padding_is_never_the_maximum_and_never_counts(seed):
    """Padding of any number, aligned with every picture or against it, is as if it were not there."""
    image, text = unit(1, 1, seed=seed).expand(B, P, D) + 0.1 * unit(B, P, seed=seed), unit(B, 2, seed=seed + 100)
    expected = late_interaction(image, text)
    for huge in (1e6, -1e6):
        padded = torch.cat([text, huge * image[:1, :1].expand(B, 3, D)], 1).requires_grad_()
        mask = (torch.arange(5) < 2).expand(B, 5)
        got = late_interaction(image, padded, mask)
        for similarity, wanted in zip(got, expected):
            close(similarity, wanted, 1e-12)
        (gradient,) = torch.autograd.grad(sum(similarity.sum() for similarity in got), padded)
        assert (gradient[:, 2:] == 0).all()
        assert (gradient[:, :2] != 0).any()
        assert late_interaction(image, padded)[huge < 0].abs().max() > 1e5  # unmasked, they take over


def test_a_text_without_tokens_is_like_no_image():
    image, text = unit(B, P).requires_grad_(), unit(B, T, seed=1).requires_grad_()
    mask = text_mask(0)
    mask[2] = False
    image_to_text, text_to_image = late_interaction(image, text, mask)
    assert (image_to_text[:, 2] == 0).all()
    assert (text_to_image[2] == 0).all()
    assert (image_to_text[:, [0, 1, 3, 4]] != 0).all()
    loss = late_interaction_info_nce(image, text, scalar(4.0), mask)
    for gradient in gradients(loss, image, text):
        assert gradient.isfinite().all()
    assert (torch.autograd.grad(late_interaction_info_nce(image, text, scalar(4.0), mask), text)[0][2] == 0).all()


def test_one_token_each_is_the_cosine():
    u, v = pair(0)
    image_to_text, text_to_image = late_interaction(u[:, None], v[:, None])
    close(image_to_text, u @ v.T, 1e-12)
    close(text_to_image, v @ u.T, 1e-12)
    close(late_interaction_info_nce(u[:, None], v[:, None], scalar(4.0)), info_nce(u, v, scalar(4.0)), 1e-12)


@pytest.mark.parametrize("hardest", [False, True])
def test_hinge_rests_where_every_margin_is_kept(hardest):
    u, v = torch.eye(B, dtype=torch.float64), torch.eye(B, dtype=torch.float64).requires_grad_()
    assert ranking_hinge(u, v, 0.99, hardest).item() == 0
    assert (torch.autograd.grad(ranking_hinge(u, v, 0.99, hardest), v)[0] == 0).all()
    assert ranking_hinge(u, v, 1.5, hardest).item() == pytest.approx(2 * 0.5 * (1 if hardest else B - 1))


@pytest.mark.parametrize("scale", [100.0, 1e4])
@pytest.mark.parametrize("repeated", [False, True])
def test_large_logits_do_not_overflow(repeated, scale):
    """In float32, right and wrong pairs alike; and the number is the one that float64 gives."""
    u, v = pair(0)
    positives = same_caption(ID) if repeated else None
    for text in (v, u, -u):
        low = [x.float().requires_grad_() for x in (u, text, torch.tensor(scale))]
        bias = torch.tensor(-10.0)
        tokens = (low[0].unflatten(1, (-1, 3)), low[1].unflatten(1, (-1, 3)), low[2])
        for got, expected in (
            (info_nce(*low, positives), info_nce(u, text, scalar(scale), positives)),
            (pairwise_sigmoid(*low, bias, positives), pairwise_sigmoid(u, text, scalar(scale), bias, positives)),
            (
                late_interaction_info_nce(*tokens, None, positives),
                late_interaction_info_nce(
                    u.unflatten(1, (-1, 3)), text.unflatten(1, (-1, 3)), scalar(scale), None, positives
                ),
            ),
        ):
            assert all(part.isfinite().all() for part in gradients(got, *low))
            assert got.item() == pytest.approx(expected.item(), rel=1e-5, abs=1e-5 * scale**0.5)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("given", [False, True])
def test_a_batch_of_one_is_finite(name, given):
    """Nothing is there to be confused with; only the sigmoid still asks whether the pair matches."""
    u, v = unit(1).requires_grad_(), unit(1, seed=9)
    loss = LOSSES[name](u, v, torch.ones(1, 1, dtype=torch.bool) if given else None)
    loss.backward()
    expected = math.log1p(math.exp(1.5 - 4 * float(u.detach() @ v.T))) if name == "sigmoid" else 0
    assert loss.item() == pytest.approx(expected, abs=1e-9)
    assert u.grad.isfinite().all()


@pytest.mark.parametrize("name", [*LOSSES, "in chunks"])
@pytest.mark.usefixtures("unchecked")
def test_batches_that_are_no_pairs(name):
    """A mean over none would be NaN, and rows without a partner would count as something."""
    in_chunks = lambda u, v: pairwise_sigmoid(u, v, scalar(4.0), scalar(-1.5), chunk_size=2)  # noqa: E731
    loss = LOSSES.get(name, in_chunks)
    for images, texts in ((0, 0), (0, 2), (3, 2), (2, 3)):
        refused(f"at least one: got {images} images and {texts} texts", loss, unit(images), unit(texts))


# Pictures with what only some of them have.


@pytest.mark.parametrize("seed", SEEDS)
def test_binding_is_info_nce_among_rows_that_are_present(seed):
    u, v = pair(seed)
    present = torch.tensor([True, False, True, True, False])
    rows = [0, 2, 3]
    logits = [[4 * x for x in row] for row in dots(u[rows], v[rows])]
    by_row = [math.log(sum(math.exp(x) for x in row)) - row[i] for i, row in enumerate(logits)]
    by_column = [math.log(sum(math.exp(x) for x in row)) - row[i] for i, row in enumerate(zip(*logits))]
    close(binding_loss(u, v, scalar(4.0), present), scalar((sum(by_row) + sum(by_column)) / 6))
    close(binding_loss(u, v, scalar(4.0), torch.ones(B, dtype=torch.bool)), info_nce(u, v, scalar(4.0)))
    positives = same_caption(ID)
    close(
        binding_loss(u, v, scalar(4.0), present, positives),
        info_nce(u[rows], v[rows], scalar(4.0), positives[rows][:, rows]),
    )


def test_what_is_absent_changes_nothing_and_gets_no_gradient():
    u, v = (x.requires_grad_() for x in pair(0))
    present = torch.tensor([True, False, True, True, False])
    loss = binding_loss(u, v, scalar(4.0), present)
    for gradient in torch.autograd.grad(loss, (u, v)):
        assert (gradient[present] != 0).any(1).all()
        assert (gradient[~present] == 0).all()
    changed = torch.where(present[:, None], v, unit(B, seed=7))
    close(binding_loss(u, changed, scalar(4.0), present), loss)
    nothing = binding_loss(u, v, scalar(4.0), torch.zeros(B, dtype=torch.bool))
    assert nothing.item() == 0
    assert all((gradient == 0).all() for gradient in torch.autograd.grad(nothing, (u, v)))


# Of several processes each has the rows of its own samples.

OF_ROWS = {  # (u, v, positives, rows)
    "info_nce": lambda u, v, *rest: info_nce(u, v, scalar(4.0), *rest),
    "pair": lambda u, v, positives, rows: pair_cross_entropy(
        *(scale * logits for scale, logits in zip((4, 9), logits_both_ways(u, v, rows))), positives, rows
    ),
    "sigmoid": lambda u, v, positives, rows: pairwise_sigmoid(u, v, scalar(4.0), scalar(-1.5), positives, None, rows),
    "sigmoid in chunks": lambda u, v, positives, rows: pairwise_sigmoid(
        u, v, scalar(4.0), scalar(-1.5), positives, 1, rows
    ),
    "late": lambda u, v, *rest: late_interaction_info_nce(
        u.unflatten(1, (-1, 3)), v.unflatten(1, (-1, 3)), scalar(4.0), torch.rand(len(u), 2, generator=seeded(1)) < 0.6,
        *rest,
    ),
}  # fmt: skip


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("repeated", [False, True])
@pytest.mark.parametrize("processes", [2, 4])
@pytest.mark.parametrize("name", OF_ROWS)
def test_the_mean_over_parts_of_the_rows_is_the_whole(name, processes, repeated, seed):
    """Loss and gradients; and no part is the whole by itself."""
    u, v = (unit(8, seed=seed + more).requires_grad_() for more in (0, 100))
    ids = torch.randint(4, (8,), generator=seeded(seed))
    positives = same_caption(ids) if repeated else None
    whole = OF_ROWS[name](u, v, positives, slice(None))
    b = 8 // processes
    parts = [
        OF_ROWS[name](u, v, positives[rows] if repeated else None, rows)
        for rows in (slice(start, start + b) for start in range(0, 8, b))
    ]
    assert all(abs(part - whole) > 1e-6 for part in parts)
    mean = torch.stack(parts).mean()
    close(mean, whole, 1e-12)
    for one, two in zip(torch.autograd.grad(mean, (u, v)), torch.autograd.grad(whole, (u, v)), strict=True):
        close(one, two, 1e-12)


def test_rows_that_are_not_there():
    refused("got 2 images and 0 texts", pair_cross_entropy, torch.randn(2, 8), torch.randn(2, 8), None, slice(8, 10))
