"""Codes and what is learned with them: what each function must do, told one property at a time."""

import math
from collections.abc import Callable

import torch

from mmlearn.exercises import (
    by_hand,
    case,
    expect,
    expect_boolean,
    expect_close,
    expect_constant,
    expect_finite_gradient,
    expect_not,
    expect_parts,
    expect_tensor,
    expect_trains,
    expect_whole,
    near,
    task,
)
from mmlearn.exercises.inputs import between, uniform
from mmlearn.layers.gumbel import gumbel_noise, relaxed_choice
from mmlearn.objectives.adversarial import adaptive_weight
from mmlearn.objectives.causal_masked import move_spans, put_back
from mmlearn.objectives.codes import commitment, copied_gradient, dead_entries, divergence_from_even, moving_entries

# Past a choice.


@task(
    copied_gradient,
    difficulty=1,
    minutes=10,
    example=by_hand(torch.tensor([[1.0]]), torch.tensor([[3.0]]), gives=torch.tensor([[3.0]])),
)
def check_copied_gradient(function: Callable) -> None:
    """Entries going forward; going back, the gradient of what chose them."""
    z, entry = torch.randn(4, 6), torch.randn(4, 6)
    got = expect_tensor(function(z, entry), (4, 6))
    expect(not near(got, z), "Going forward it must be the entries; these are the vectors.", "z plus what it lacks.")
    expect_not(got, (z + entry) / 2, "It must be the entries, not the middle of both.", "no halves anywhere.")
    expect_close(got, entry, "Going forward it must be the entries.", "z + (entry - z).")
    entry.requires_grad_()
    leaf = z.clone().requires_grad_()
    result = function(leaf, entry)
    if result.requires_grad:
        also = torch.autograd.grad(result.sum(), entry, allow_unused=True)[0]
        expect(
            also is None or not also.any(),
            "The entries must not learn from this.",
            "both of entry - z stand inside of detach().",
        )
    expect_trains(function, z, fixed=(entry.detach(),), like=copied_gradient)


@task(
    commitment,
    difficulty=1,
    minutes=5,
    example=by_hand(torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 2.0]]), gives=2.0),
)
def check_commitment(function: Callable) -> None:
    """The mean squared distance, of which only the encoder learns."""
    z, entry = torch.randn(4, 6), torch.randn(4, 6)
    got = expect_tensor(function(z, entry), ())
    squared = (z - entry).square()
    expect_not(got, squared.sum(), "It must be a mean over all numbers; this is the sum.", "mean().")
    expect_not(got, squared.sum(1).mean(), "The mean must be over the numbers of a vector, too.", "mean(), over all.")
    expect_not(got, squared.sum(1).sqrt().mean(), "The distance must be squared.", "no root.")
    expect_not(got, (z - entry).abs().mean(), "The distance must be squared.", "square(), not abs().")
    expect_close(got, squared.mean(), "It must be the mean of (z - e)².", "square, then mean.")
    leaf = entry.clone().requires_grad_()
    result = function(z.clone().requires_grad_(), leaf)
    if result.requires_grad:
        of_entry = torch.autograd.grad(result, leaf, allow_unused=True)[0]
        expect(of_entry is None or not of_entry.any(), "The entries must not move.", "detach the entry, not z.")
    expect_trains(function, z, fixed=(entry,), like=commitment)


# The codebook.


@task(
    moving_entries,
    difficulty=2,
    minutes=15,
    example=by_hand(
        torch.tensor([2.0]), torch.tensor([[4.0]]), torch.tensor([4.0]), torch.tensor([[20.0]]), 0.5,
        gives=(torch.tensor([3.0]), torch.tensor([[12.0]]), torch.tensor([[4.0]])),
    ),
)  # fmt: skip
def check_moving_entries(function: Callable) -> None:
    """Averages of counts and of sums, and their quotient."""
    k, d, decay = 5, 3, uniform(0.6, 0.9)
    count, new_count = 1 + 3 * torch.rand(k), torch.randint(1, 9, (k,)).float()
    total, new_total = torch.randn(k, d), torch.randn(k, d)
    given = count, total, new_count, new_total, decay
    got = expect_parts(function(*given), "count", "total", "entries")
    for part, shape in zip(got, ((k,), (k, d), (k, d))):
        expect_tensor(part, shape)
    wanted = moving_entries(*given)
    other = moving_entries(*given[:4], 1 - decay)
    expect(
        not near(got[0], other[0]), "decay must be the share of the old; here it is that of the new.", "decay · old."
    )
    added = decay * count + new_count
    expect(not near(got[0], added), "Old and new shares must sum to 1.", "(1 - decay) · new.")
    expect_close(got[0], wanted[0], "The count must move a little to the new one.", "decay · old + (1 - decay) · new.")
    expect_close(got[1], wanted[1], "The sum must move by the same rule as the count.", "the same line for both.")
    means = decay * total / count[:, None] + (1 - decay) * new_total / new_count[:, None]
    expect_not(
        got[2],
        means,
        "An entry must be the quotient of averages, not an average of quotients.",
        "divide at the end: how much a step counts goes by how many vectors it had.",
    )
    expect_not(got[2], wanted[1], "An entry must be a mean; this is a sum.", "over the new count.")
    expect_not(got[2], wanted[1] / count[:, None], "Both must be new: this divides by the old count.", "total / count.")
    expect_close(got[2], wanted[2], "An entry must be its sum over its count.", "count[:, None] beside (k, d).")
    with case("For an entry that nothing chose"):
        count = count / 20
        none = function(count, total, torch.zeros(k), torch.zeros(k, d), decay)
        position = total / count[:, None]
        shrink = "count and sum shrink alike: do not clamp them."
        expect_close(none[2], position, "It must stay where it is.", shrink)
        for part, old in zip(none, (count, total)):
            expect_close(part, decay * old, "Its count and its sum must become less by the decay.", shrink)
        few = function(count / 1000, total / 1000, torch.zeros(k), torch.zeros(k, d), decay)
        expect_close(few[2], position, "It must stay where it is, however small its count.", shrink)


@task(
    dead_entries,
    difficulty=1,
    minutes=5,
    example=by_hand(torch.tensor([0.0, 1.0, 5.0]), 0.6, gives=torch.tensor([True, True, False])),
)
def check_dead_entries(function: Callable) -> None:
    """Below a part of the even share."""
    count, least = torch.tensor([0.05, 0.21, 1.1, 1.5, 6.5, 30.0]), 0.2  # even: 6.56, of which a fifth is 1.31
    count = uniform(1.0, 1.2) * count[torch.randperm(6)]
    got = expect_boolean(function(count, least), (6,))
    expect(
        not torch.equal(got, count < least),
        "The least must be a part of the even share, not a number of choices.",
        "least · count.mean().",
    )
    expect(not torch.equal(got, ~dead_entries(count, least)), "True must be dead, not alive.", "below, not above.")
    expect(
        not torch.equal(got, count < least * count.max()), "Compare with the mean, not with the most.", "count.mean()."
    )
    expect(
        not torch.equal(got, count < least * count.sum()), "Compare with the mean, not with the sum.", "count.mean()."
    )
    expect(torch.equal(got, dead_entries(count, least)), "Dead is below least times the mean.", "count < least · mean.")
    scaled = function(1000 * count, least)
    expect(torch.equal(scaled, got), "Counts a thousand times as high must say the same.", "no number but least.")
    with case("With a least of 0"):
        expect(not function(count * (count > 1), 0.0).any(), "Nothing must be dead.", "<, not <=.")
    with case("Where a count stands just at the line"):
        equal = function(torch.tensor([0.0, 1.0, 5.0]), 0.5).tolist() == [True, False, False]
        expect(equal, "It must not be dead: it is not chosen less often.", "<, not <=.")
    for part in (0.01, 0.5, 1.5):
        with case(f"With a least of {part}, and counts of 0"):
            some = torch.cat([torch.zeros(3), 10 * torch.rand(between(8, 20)), torch.tensor([0.2])])
            right = torch.equal(function(some, part), dead_entries(some, part))
            expect(right, "Dead is below least times the mean of all.", "count.mean(), zeros too, whatever least is.")


# Drawn choices.


@task(
    relaxed_choice,
    difficulty=2,
    minutes=10,
    example=by_hand(torch.tensor([0.0, 0.0]), torch.tensor([math.log(3), 0.0]), 1.0, gives=torch.tensor([0.75, 0.25])),
)
def check_relaxed_choice(function: Callable) -> None:
    """A softmax of noisy logits over a temperature."""
    logits = torch.randn(6, 5)
    noise = gumbel_noise((6, 5), generator=torch.Generator().manual_seed(between(0, 10**6)))
    temperature = uniform(0.4, 0.7)
    got = expect_tensor(function(logits, noise, temperature), (6, 5))
    sums = "Each row must sum to 1."
    expect(near(got.sum(-1), 1.0, 1e-4), sums, "a softmax over the last axis.")
    alone = (logits / temperature).softmax(-1)
    expect_not(got, alone, "The noise must count; this is as without.", "logits + noise.")
    late = (logits / temperature + noise).softmax(-1)
    expect_not(got, late, "The temperature must divide the noise, too.", "(logits + noise) / temperature.")
    warm = ((logits + noise) * temperature).softmax(-1)
    expect_not(got, warm, "A low temperature must sharpen; this makes it even.", "divide by it.")
    wanted = relaxed_choice(logits, noise, temperature)
    expect_close(got, wanted, "It must be softmax((logits + noise) / τ).", "add, divide, softmax.")
    with case("At a temperature near 0"):
        noisy = 0.02 * torch.rand(6, 5).argsort(-1)  # scores so near that a temperature of 0.1 cannot tell them apart
        sharp = function(noisy - noise, noise, 1e-4)
        one_hot = torch.nn.functional.one_hot(noisy.argmax(-1), 5).float()
        expect_close(sharp, one_hot, "It must be the choice that the noise draws.", "no clamp of τ.", tolerance=1e-2)
    expect_trains(function, logits, fixed=(noise, temperature), like=relaxed_choice)


@task(
    divergence_from_even,
    difficulty=2,
    minutes=10,
    example=by_hand(torch.tensor([[0.0, 0.0, 0.0]]), gives=torch.tensor([0.0])),
)
def check_divergence_from_even(function: Callable) -> None:
    """ln k minus the entropy, for each row."""
    k = between(4, 9)
    logits = 2 * torch.randn(5, k)
    got = expect_tensor(function(logits), (5,))
    p = logits.softmax(-1)
    entropy = -(p * p.log()).sum(-1)
    expect_not(
        got, entropy, "It must be 0 for even odds; this is the entropy, which is largest there.", "ln k minus it."
    )
    expect_not(got, -entropy, "It must be 0 for even odds; here ln k is missing.", "log(p / (1 / k)) = log p + ln k.")
    expect_not(got, (entropy - math.log(k)), "It must be above 0; this has the other sign.", "ln k minus the entropy.")
    backward = -(p.log() + math.log(k)).mean(-1)
    expect_not(
        got, backward, "This is the divergence of even odds from these; turn it round.", "weigh by p, not by 1 / k."
    )
    expect_not(got, (math.log(k) - entropy) / math.log(2), "It must be in nats, not in bits.", "log, not log2.")
    expect_close(got, math.log(k) - entropy, "It must be the sum of p · log(p · k).", "over the last axis.")
    with case("Where one choice is certain"):
        certain = function(1000 * torch.eye(k))
        expect_close(certain, torch.full((k,), math.log(k)), "It must be ln k, not NaN.", "log_softmax.")
        expect_finite_gradient(function, 1000 * torch.eye(k))
    with case("With several axes"):
        expect_tensor(function(torch.randn(2, 3, k)), (2, 3))
    expect_trains(function, logits, like=divergence_from_even)


# Two losses at one layer.


def _at_one_number(function: Callable) -> None:
    """Losses 3w and 4w at a layer of one number: 3 / 4."""
    w = torch.tensor([1.0], requires_grad=True)
    got = function(3 * w.sum(), 4 * w.sum(), w)
    expect(near(got.detach(), 0.75, 1e-3), "For the losses 3w and 4w it must be 3 / 4.", "gradients 3 and 4.")


@task(adaptive_weight, difficulty=3, minutes=20, example=_at_one_number)
def check_adaptive_weight(function: Callable) -> None:
    """The quotient of two gradients' lengths at one layer, as a number."""
    layer, x = torch.nn.Linear(4, 3), torch.randn(8, 4)

    def losses(scale: float) -> tuple:
        painted = layer(x)
        # one row of the gradient or all, so that no other size of a gradient has about the same quotient
        return painted[:, 0].square().mean(), scale * painted.abs().mean(), layer.weight

    given = losses(uniform(8.0, 20.0))
    got = expect_tensor(function(*given), ())
    one, two = (torch.autograd.grad(loss, given[2], retain_graph=True)[0].norm() for loss in given[:2])
    wanted = one / (two + 1e-4)
    expect_not(got.detach(), two / one, "It is upside down.", "the gradient of the pixels' loss is above.")
    expect_not(got.detach(), (given[0] / given[1]).detach(), "Compare gradients, not losses.", "torch.autograd.grad.")
    expect_not(got.detach(), (one / two).square(), "It must be the lengths' quotient; this is its square.", "norm().")
    property, hint = "It must be ‖∇ pixels‖ / (‖∇ passing‖ + 1e-4).", "two gradients, two norms."
    expect_close(got.detach(), wanted, property, hint, tolerance=1e-6)
    expect_constant(got)
    expect(given[2].grad is None, "The layer's .grad must stay empty.", "torch.autograd.grad, not backward().")
    (given[0] + got * given[1]).backward()  # which needs the graph
    with case("Where the adversarial loss has no gradient"):
        zero = losses(0.0)
        expect_close(function(1e6 * zero[0], *zero[1:]), 1e4, "It must be at most 10,000.", "clamp(max=1e4).")
        small = function(1e-6 * zero[0], *zero[1:])
        expect_tensor(small, ())
        expect(small < 1, "It must not be cut from below.", "clamp(max=…) alone.")


# There and back.


SENTINELS, END = range(100, 103), 103


def moved_document(sentinels: range = SENTINELS, end: int = END) -> tuple:
    """A document with spans at its end, and the document; beside other sentinels some of its tokens are above them."""
    n = between(10, 14)
    document = torch.randint(1, 90, (n,))
    if sentinels != SENTINELS:
        document[[4, 8, 9]] = 2000
    first, second = between(0, 3), between(5, 7)
    spans = torch.tensor([[[first, first + 2], [second, second + between(1, 3)], [0, 0]]])
    moved, mask = move_spans(document[None], torch.tensor([n]), spans, sentinels.start, end)
    return moved[0][mask[0]], document


@task(
    put_back,
    difficulty=4,
    minutes=25,
    example=by_hand(torch.tensor([1, 100, 4, 100, 2, 3, 103]), SENTINELS, END, gives=torch.tensor([1, 2, 3, 4])),
)
def check_put_back(function: Callable) -> None:
    """Every span where its sentinel stands, and nothing behind."""
    moved, document = moved_document()
    got = function(moved, SENTINELS, END)
    length = got.shape if isinstance(got, torch.Tensor) and got.ndim == 1 else document.shape  # told below, in words
    got = expect_whole(got, tuple(length), "moved.new_tensor(list), or torch.tensor(list).")
    for token, what in ((SENTINELS.start, "sentinel"), (END, "end of a span")):
        expect(not (got == token).any(), f"No {what} must be left.", "they give way to what they stand for.")
    expect(len(got) >= len(document), "Tokens are lost.", "all spans come back, the second one too.")
    expect(len(got) == len(document), "Nothing must stand twice.", "what is behind the document is not part of it.")
    same = torch.equal(got.sort().values, document.sort().values)
    expect(same, "The tokens must be those of the document.", "each span once.")
    expect(torch.equal(got, document), "Each span must be where its own sentinel stands.", "the first of the two.")
    with case("Without spans"):
        plain = torch.randint(1, 90, (7,))
        expect(torch.equal(function(plain, SENTINELS, END), plain), "It must stay as it is.", "no sentinel, no span.")
    for _ in range(4):
        moved, document = moved_document()
        expect(torch.equal(function(moved, SENTINELS, END), document), "It must undo the move.", "draw it on paper.")
    start = between(300, 900)
    for end in (95, start - 1, start + 3):
        with case(f"With sentinels from {start} on, and {end} as the end"):
            moved, document = moved_document(range(start, start + 3), end)
            undone = torch.equal(function(moved, range(start, start + 3), end), document)
            expect(undone, "It must undo the move.", "sentinels and end are arguments, and any token may be larger.")
    with case("With sentinels, and spans behind, in any order"):
        for behind in ([100, 2, 3, 103, 102, 5, 103], [102, 5, 103, 100, 2, 3, 103]):
            moved = torch.tensor([1, 102, 4, 100, 6, *behind])
            own = function(moved, SENTINELS, END).tolist() == [1, 5, 4, 2, 3, 6]
            expect(own, "Each span must be where its own sentinel stands.", "a dictionary from sentinel to span.")
    with case("Where the whole document is a span"):
        whole = torch.tensor([100, 100, 5, 6, 7, 103])
        expect(
            function(whole, SENTINELS, END).tolist() == [5, 6, 7], "It must come back whole.", "a body of one token."
        )
