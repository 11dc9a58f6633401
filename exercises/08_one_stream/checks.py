"""One-stream fusion and what it learns from: what each function must do, told one property at a time."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from mmlearn.exercises import case, expect, expect_close, expect_tensor, expect_trains, near, task
from mmlearn.exercises.inputs import new_seed
from mmlearn.objectives import (
    cosine_cost,
    ipot,
    mask_tokens,
    masked_cross_entropy,
    masked_region_classification,
    masked_region_kl,
    masked_region_regression,
    random_negatives,
    word_region_alignment,
)

IGNORED = -100


def expect_integers(got: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Hand back ``got`` if it is an int64 tensor of this shape."""
    got = expect_tensor(got, shape)
    expect(got.dtype == torch.int64, f"It must be int64, as tokens are; this is {got.dtype}.", "keep the type.")
    return got


def expect_share(hits: Tensor, share: float, property: str, hint: str) -> None:
    """Fail where the share of hits is more than six standard deviations off, which chance does once in 10⁸ times."""
    got, error = hits.float().mean().item(), 6 * math.sqrt(share * (1 - share) / hits.numel())
    expect(abs(got - share) <= error, f"{property} Expected about {share:.1%}, got {got:.1%}.", hint)


def over(draws: list[tuple[Tensor, ...]], loss: Callable) -> Tensor:
    """The loss of several draws, so that no wrong one is right by luck."""
    return torch.stack([expect_tensor(loss(*draw), ()) for draw in draws])


# Words.


@task(mask_tokens, difficulty=4, minutes=30)
def check_mask_tokens(function: Callable) -> None:
    """15 % of the ordinary tokens, in three ways; the text can be recovered; whole words; all chance from a seed."""
    vocabulary = 24 + int(torch.randint(8, ()))
    order = torch.randperm(vocabulary)  # special tokens may have any number
    special, mask_token, ordinary = order[:3].tolist(), int(order[3]), order[4:]

    def hide(tokens: Tensor, mask: Tensor, seed: int | None = None, **more) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(new_seed() if seed is None else seed)
        settings = {"vocab_size": vocabulary, "mask_token": mask_token, "special": special, "generator": generator}
        result = function(tokens, mask, **settings, **more)
        hint = "return the tokens to read, and the labels"
        expect(isinstance(result, tuple) and len(result) == 2, "It must return two tensors.", hint)
        read, label = (expect_integers(x, tokens.shape) for x in result)
        expect((read != IGNORED).all(), "The text to read must come first, and the labels second.", hint)
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
    expect(
        hidden[possible].float().mean() < 0.95, "label must be -100 where nothing is hidden.", "not 0, not the token."
    )
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
    usual = hide(tokens, mask)[1] != IGNORED
    expect_share(usual[possible], 0.15, "Without an argument it must hide 15 %.", "probability: float = 0.15")
    _check_what_is_shown(read[hidden], tokens[hidden], mask_token, ordinary)
    seed = new_seed()
    first, again, other = hide(tokens, mask, seed), hide(tokens, mask, seed), hide(tokens, mask, seed + 1)
    hint = "torch.rand(…, generator=generator), for every draw; make no generator of your own."
    expect(all(map(torch.equal, first, again)), "The same seed must give the same result: all chance is its.", hint)
    expect(not torch.equal(first[1], other[1]), "Another seed must hide other tokens.", hint)
    _check_short_texts(hide, ordinary, special)
    _check_words(hide, ordinary, special)


def _check_what_is_shown(shown: Tensor, true: Tensor, mask_token: int, ordinary: Tensor) -> None:
    same = shown == true
    expect(
        same.float().mean() < 0.95,
        "The text to read must not show what is hidden: this leaks nearly every label.",
        "most hidden places show mask_token; return the changed text, not tokens.",
    )
    hint = "one more draw for each place: below 0.8, from 0.8 to 0.9, or above. All of it within the hidden places."
    expect_share(shown == mask_token, 0.8, "mask_token must stand at 80 % of hidden places.", hint)
    by_chance = 0.1 / len(ordinary)  # a random token that is the true one
    expect_share(same, 0.1 + by_chance, "10 % of hidden places must show their own token.", hint)
    drawn = shown[~same & (shown != mask_token)]
    expect(torch.isin(drawn, ordinary).all(), "A random token must not be special.", "draw from the ordinary ones.")
    expect(
        torch.isin(ordinary, drawn).all(),
        "A random token must be any ordinary one of the vocabulary, drawn anew for each place.",
        "number the ordinary tokens and draw a number for each place; the text need not hold that token.",
    )


def _check_words(hide: Callable, ordinary: Tensor, special: list[int]) -> None:
    """Four words of one, two, three and two pieces."""
    b = 1000
    tokens = ordinary[torch.randint(len(ordinary), (b, 10))]
    tokens[:, 0], tokens[:, -1] = special[1], special[2]
    names = torch.cat([torch.randperm(50)[:4], torch.tensor([-1])])
    words = names[torch.tensor([4, 0, 1, 1, 2, 2, 2, 3, 3, 4])].repeat(b, 1)
    with case("With words"):
        hidden = hide(tokens, tokens >= 0, words=words, probability=0.3)[1] != IGNORED
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


def _check_short_texts(hide: Callable, ordinary: Tensor, special: list[int]) -> None:
    tokens = ordinary[torch.randint(len(ordinary), (3000, 6))]
    tokens[:, 0], tokens[:, -1] = special[1], special[2]
    tokens[5] = special[1]
    with case("With probability 0"):
        hidden = hide(tokens, tokens >= 0, probability=0.0)[1] != IGNORED
        expect(
            hidden.sum(1).ne(0).sum() == len(tokens) - 1,
            "A text with anything to hide must have something hidden.",
            "where no draw is low enough, hide the place with the lowest draw.",
        )
        some = torch.arange(len(tokens)) != 5
        for place in range(1, 5):
            hint = "the place of the lowest draw, among those that can be hidden."
            expect_share(hidden[some, place], 1 / 4, "The one that is hidden anyway must be any of four.", hint)


@task(masked_cross_entropy, difficulty=2, minutes=10)
def check_masked_cross_entropy(function: Callable) -> None:
    """ln v of nothing; hidden places only, all the same; 0 of no place."""
    b, t, v = 3, int(torch.randint(6, 10, ())), int(torch.randint(7, 12, ()))

    def draw() -> tuple[Tensor, Tensor]:
        hidden = torch.rand(b, t).argsort(1) < torch.tensor([1, 2, 5])[:, None]  # mean of means is another number
        return torch.randn(b, t, v), torch.randint(v, (b, t)).masked_fill(~hidden, IGNORED)

    logits, label = draw()
    expect_tensor(function(logits, label), ())
    expect_close(
        function(torch.zeros(b, t, v), label),
        torch.tensor(v).log(),
        f"Logits that know nothing must cost ln v = ln {v}, however many places are hidden.",
        "the sum over hidden places, divided by their number and not by that of all places.",
    )
    sure = 50 * F.one_hot(label.clamp(min=0), v).float()
    expect_close(
        function(sure, label),
        torch.tensor(0.0),
        "Logits that are sure and right must cost 0.",
        "place i answers label i, no place further; cross_entropy takes logits, so no softmax before it.",
    )
    with case("With logits of ±200"):
        expect_tensor(function(8 * sure - 200, (label + 1).remainder(v).masked_fill(label == IGNORED, IGNORED)), ())
    draws = [draw() for _ in range(3)]
    moved = [(torch.where((y != IGNORED)[..., None], z, 3 * torch.randn(b, t, v)), y) for z, y in draws]
    got, wanted = over(draws, function), over(draws, masked_cross_entropy)
    expect(
        near(got, over(moved, function)),
        "Logits where label is -100 must not matter.",
        "-100 means not asked; it is no class: ignore_index.",
    )
    expect_close(
        got,
        wanted,
        "It must be the mean of -log softmax at the label, in which every hidden place counts the same.",
        "one mean over all hidden places, not a mean of each text first.",
    )
    with case("With labels of shape (n)"):
        expect_close(
            over([(z[0], y[0]) for z, y in draws], function),
            over([(z[0], y[0]) for z, y in draws], masked_cross_entropy),
            "It must be the same mean for any shape.",
            "reshape(-1, v) makes one list of places of any shape.",
        )
    with case("With nothing hidden"):
        _expect_zero(function(logits.requires_grad_(), torch.full((b, t), IGNORED)))
    expect_trains(lambda z: function(z, label), logits.detach())


def _expect_zero(got: Tensor) -> None:
    hint = "the sum over no place is 0 and has a gradient; divide it by at least 1."
    expect_close(got, torch.tensor(0.0), "The loss must be 0.", hint)
    expect(got.requires_grad, "The loss must still have a gradient, of 0, so that backward() does not stop.", hint)


# Regions.


def region_batch(b: int = 3, classes: int = 6) -> tuple[Tensor, Tensor, Tensor]:
    """Logits or features, a detector's distributions, and what is hidden: 1, 2 and 4 regions."""
    p = int(torch.randint(5, 9, ()))
    masked = torch.rand(b, p).argsort(1) < torch.tensor([1, 2, 4])[:, None]
    return torch.randn(b, p, classes), (2 * torch.randn(b, p, classes)).softmax(-1), masked


def check_places(function: Callable, reference: Callable, formula: str, hint: str) -> None:
    """Hidden regions alone count, all the same; none costs 0."""
    draws = [region_batch() for _ in range(3)]
    others = []
    for x, target, masked in draws:
        there = masked[..., None]
        strange = (2 * torch.randn(target.shape)).softmax(-1)
        others.append((torch.where(there, x, torch.randn(x.shape)), torch.where(there, target, strange), masked))
    got = over(draws, function)
    expect(
        near(got, over(others, function)),
        "What stands at regions that are not hidden must not matter.",
        "masked is True at hidden regions; x[masked] has these alone.",
    )
    expect_close(got, over(draws, reference), formula, hint)
    x, target, masked = draws[0]
    with case("With nothing hidden"):
        _expect_zero(function(x.clone().requires_grad_(), target, torch.zeros_like(masked)))
    expect_trains(lambda x: function(x, target, masked), x)


@task(masked_region_regression, difficulty=2, minutes=10)
def check_masked_region_regression(function: Callable) -> None:
    """A squared distance: summed over features, mean over hidden regions."""
    prediction, target, masked = region_batch()
    f = target.shape[-1]
    expect_tensor(function(prediction, target, masked), ())
    expect_close(
        function(target.clone(), target, masked),
        torch.tensor(0.0),
        "A prediction that is right must cost 0.",
        "the distance to the target.",
    )
    away = target + 2 * torch.randint(2, target.shape).mul(2).sub(1)
    expect_close(
        function(away, target, masked),
        torch.tensor(4.0 * f),
        f"Where each of {f} features is off by 2, the loss must be {f} · 2²: a sum over features.",
        "the squared length, without a root; a mean over hidden regions, and not over features or other regions.",
    )
    check_places(
        function,
        masked_region_regression,
        "It must be the mean squared distance, in which every hidden region counts the same.",
        "one mean over the hidden regions of all pictures, not a mean of each picture first.",
    )


@task(masked_region_classification, difficulty=2, minutes=10)
def check_masked_region_classification(function: Callable) -> None:
    """The detector's first choice is the label."""
    logits, classes, masked = region_batch()
    c, best = classes.shape[-1], classes.argmax(-1)
    expect_tensor(function(logits, classes, masked), ())
    expect_close(
        function(torch.zeros_like(logits), classes, masked),
        torch.tensor(c).log(),
        f"Logits that know nothing must cost ln c = ln {c}, however many regions are hidden.",
        "the mean over hidden regions; the logarithm of a softmax over classes, with a minus.",
    )
    expect_close(
        function(50 * F.one_hot(best, c).float(), classes, masked),
        torch.tensor(0.0),
        "A model that is sure of the detector's first choice must pay 0, also where the detector has doubts.",
        "the label is argmax over the classes of the detector; to keep its doubts is the next task.",
    )
    draws = [region_batch() for _ in range(3)]
    certain = [(logits, F.one_hot(classes.argmax(-1), c).float(), masked) for logits, classes, masked in draws]
    expect(
        near(over(draws, function), over(certain, function)),
        "Only which class is likeliest must matter, and not how likely.",
        "cross_entropy with class numbers, argmax(-1), as its target.",
    )
    check_places(
        function,
        masked_region_classification,
        "It must be the mean of -log softmax at the detector's first choice; every hidden region counts the same.",
        "one mean over the hidden regions of all pictures, not a mean of each picture first.",
    )


@task(masked_region_kl, difficulty=3, minutes=15)
def check_masked_region_kl(function: Callable) -> None:
    """0 where both agree; the direction; a detector without doubt."""
    logits, classes, masked = region_batch()
    c = classes.shape[-1]
    expect_tensor(function(logits, classes, masked), ())
    expect_close(
        function(classes.log() + 3 * torch.randn(*masked.shape, 1), classes, masked),
        torch.tensor(0.0),
        "Where model and detector agree, the loss must be 0.",
        "log c belongs to it, or the detector's entropy is left; classes are probabilities, logits are not.",
    )
    draws = [region_batch() for _ in range(3)]
    got = over(draws, function)
    expect(
        not near(got, over(draws, _reversed_kl)),
        "The direction must be KL(detector || model); this is KL(model || detector).",
        "the detector's probabilities stand before the logarithm. F.kl_div takes the model's logarithms first.",
    )
    expect((got > 0).all(), "A divergence must never be negative.", "F.kl_div takes log_softmax first, then classes.")
    certain = F.one_hot(classes.argmax(-1), c).float()
    with case("With a detector without doubt, for which it is classification"):
        expect_close(
            function(torch.zeros_like(logits), certain, masked),
            torch.tensor(c).log(),
            f"Logits that know nothing must cost ln c = ln {c}: a sum over classes, a mean over hidden regions.",
            'reduction="sum", then divide by the number of hidden regions.',
        )
    check_places(
        function,
        masked_region_kl,
        "It must be Σ c log(c / softmax), in which every hidden region counts the same.",
        "one mean over the hidden regions of all pictures, not a mean of each picture first.",
    )


def _reversed_kl(logits: Tensor, classes: Tensor, masked: Tensor) -> Tensor:
    return F.kl_div(classes[masked].log(), logits[masked].softmax(-1), reduction="sum") / masked.sum()


# Pairs of text and picture.


@task(random_negatives, difficulty=2, minutes=15)
def check_random_negatives(function: Callable) -> None:
    """Never a caption that fits; all others, equally likely; all chance from a seed."""
    names = 100 + torch.randperm(50)[:3]
    caption_id = names[torch.tensor([0, 0, 1, 2, 0, 2, 2, 2]).roll(int(torch.randint(8, ())))]  # some neighbours fit
    b, calls = len(caption_id), 600

    def draw(generator: torch.Generator) -> Tensor:
        rows = expect_integers(function(caption_id, generator=generator), (b,))
        hint = "not the caption's id: the place of a row in the batch."
        expect(((rows >= 0) & (rows < b)).all(), f"It must return numbers of rows, from 0 to {b - 1}.", hint)
        return rows

    generator = torch.Generator().manual_seed(new_seed())
    drawn = torch.stack([draw(generator) for _ in range(calls)])
    expect((drawn != torch.arange(b)).all(), "A row must never be its own negative.", "its caption fits its picture.")
    expect(
        (caption_id[drawn] != caption_id).all(),
        "A negative must never have the row's own caption: in another row it fits this picture as well.",
        "allow only rows with caption_id[:, None] != caption_id; a shift or a shuffle does not look.",
    )
    seed, several = new_seed(), []
    for _ in range(2):
        generator.manual_seed(seed)
        several.append(torch.stack([draw(generator) for _ in range(20)]))
    hint = "pass generator to every draw, and make none of your own."
    expect(torch.equal(*several), "The same seed must draw the same rows: all chance comes from generator.", hint)
    expect((drawn != drawn[0]).any(), "It must draw anew with each call: this always returns the same rows.", hint)
    different = caption_id[:, None] != caption_id
    share = F.one_hot(drawn, b).float().mean(0)
    wanted = different / different.sum(1, keepdim=True)
    error = 7 * (wanted * (1 - wanted) / calls).sqrt()  # one of all shares is so far off once in 10⁷ times
    expect(
        ((share - wanted).abs() <= error + 1e-6).all(),
        "Every row with another caption must be equally likely.",
        "torch.multinomial takes a row of weights, here 1 or 0; do not draw a caption first, and not the nearest row.",
    )


@task(cosine_cost, difficulty=1, minutes=5)
def check_cosine_cost(function: Callable) -> None:
    """0, 1 and 2; lengths do not matter; each text meets its own picture."""
    b, t, p, d = 3, 4, int(torch.randint(5, 8, ())), 8
    x, y = torch.randn(b, t, d), torch.randn(b, p, d)
    expect_tensor(function(x, y), (b, t, p))
    u = torch.randn(b, 1, d)
    expect_close(
        function(u, 3 * u), torch.zeros(b, 1, 1), "The same direction must cost 0, at any length.", "1 - cosine."
    )
    expect_close(
        function(u, -2 * u),
        torch.full((b, 1, 1), 2.0),
        "The opposite direction must cost 2.",
        "1 - cosine, and no abs.",
    )
    axes = torch.linalg.qr(torch.randn(b, d, d))[0]
    right = function(axes[:, :t], axes[:, t:])
    expect_close(right, torch.ones(b, t, d - t), "A right angle must cost 1.", "1 - cosine.")
    with case("With a vector of zeros"):
        expect_close(function(0 * x, y), torch.ones(b, t, p), "It must cost 1, not NaN.", "F.normalize divides safely.")
    expect_close(
        function(x, y),
        cosine_cost(x, y),
        "Entry (i, j) must be 1 - the cosine of word i and region j of the same pair.",
        "divide each vector by its own length, dim=-1; @ with y.mT multiplies pair by pair.",
    )
    expect_trains(function, x, y)


@task(ipot, difficulty=5, minutes=30)
def check_ipot(function: Callable) -> None:
    """A plan with the right marginals that is the cheapest; padding gets nothing; no gradient."""
    b, t, p = 3, 5, int(torch.randint(6, 9, ()))
    x_mask, y_mask = torch.ones(b, t, dtype=torch.bool), torch.ones(b, p, dtype=torch.bool)
    cost = cosine_cost(torch.randn(b, t, 6), torch.randn(b, p, 6))
    plan = expect_tensor(function(cost, x_mask, y_mask), cost.shape)
    expect((plan >= 0).all(), "Mass must not be negative.", "Q, δ and σ are all positive.")
    _expect_marginals(function, cost, x_mask, y_mask)
    order = torch.stack([torch.randperm(t) for _ in range(b)])
    twin = F.one_hot(order, t).float()
    plan = expect_tensor(function(1 - twin, x_mask, x_mask), twin.shape)
    expect(
        (plan * twin).sum((1, 2)).gt(0.1).all(),
        "Mass must go where the cost is low; this goes where it is high.",
        "exp(-C / β), with the minus.",
    )
    expect(
        near(plan, twin / t, 1e-4),
        "Where each word has one region of cost 0, all its mass must go there, after 50 steps.",
        "each step starts from the plan before, Q = exp(-C/β) ⊙ T; without T it is Sinkhorn, and mass stays spread.",
    )
    _check_padding(function, cost)
    for beta, iterations in ((0.5, 1), (0.5, 3), (2.0, 3), (0.2, 10)):
        with case(f"With beta {beta} and iterations {iterations}"):
            expect_close(
                function(cost, x_mask, y_mask, beta, iterations),
                ipot(cost, x_mask, y_mask, beta, iterations),
                "It must be the plan of the algorithm.",
                "T = 1 and σ = 1/m at first; then Q, δ, σ and T in each of the steps, σ is kept for the next one.",
            )
    usual = function(cost, x_mask, y_mask)
    hint = "beta: float = 0.5, iterations: int = 50"
    expect_close(usual, ipot(cost, x_mask, y_mask), "Without arguments β must be 0.5, with 50 steps.", hint)
    expect(
        not function(cost.clone().requires_grad_(), x_mask, y_mask).requires_grad,
        "The plan must have no gradient: it counts as a constant.",
        "@torch.no_grad() above the function.",
    )


def _expect_marginals(function: Callable, cost: Tensor, x_mask: Tensor, y_mask: Tensor) -> None:
    rows, columns = (mask / mask.sum(1, keepdim=True) for mask in (x_mask, y_mask))
    plan = expect_tensor(function(cost, x_mask, y_mask, 0.5, 1), cost.shape)
    expect_close(
        plan.sum((1, 2)),
        torch.ones(len(cost)),
        "All mass together must be 1 for each pair.",
        "n words send 1/n each, m regions receive 1/m each; n and m count real ones only.",
    )
    expect_close(
        plan.sum(1),
        columns,
        "Each of m real regions must receive exactly 1/m, even after one step.",
        "regions are scaled last: σ = 1 / (m Qᵀδ), where Qᵀδ is a sum over words; m counts real regions only.",
    )
    plan = expect_tensor(function(cost, x_mask, y_mask, 0.5, 1000), cost.shape)
    expect(
        near(plan.sum(2), rows, 1e-3),
        "Each of n real words must send 1/n, after many steps.",
        "δ = 1 / (n Qσ), a sum over regions with the σ of the step before; n counts real words only.",
    )


def _check_padding(function: Callable, cost: Tensor) -> None:
    b, t, p = cost.shape
    x_mask = torch.rand(b, t).argsort(1) < torch.tensor([2, 3, 4])[:, None]
    y_mask = torch.rand(b, p).argsort(1) < torch.tensor([5, 3, 2])[:, None]
    both = x_mask[:, :, None] & y_mask[:, None]
    with case("With padding"):
        plan = expect_tensor(function(cost, x_mask, y_mask), cost.shape)
        expect(
            (plan[~both] == 0).all(),
            "Padding must neither send nor receive anything.",
            "Q is 0 wherever the word or the region is padding.",
        )
        _expect_marginals(function, cost, x_mask, y_mask)
        other = torch.where(both, cost, 2 * torch.rand(cost.shape))
        expect_close(function(other, x_mask, y_mask), plan, "The cost of padding must not matter.", "mask Q.")
        before = plan
    with case("With a text without words"):
        x_mask[1] = False
        plan = expect_tensor(function(cost, x_mask, y_mask), cost.shape)
        expect((plan[1] == 0).all(), "Nothing must move.", "divide by at least a tiny number: 0 / tiny is 0.")
        expect_close(plan[::2], before[::2], "Other pairs must not change.", "only that text has no words.")


@task(word_region_alignment, difficulty=3, minutes=15)
def check_word_region_alignment(function: Callable) -> None:
    """One number a pair; 0 for the same set; padding; the plan is a constant."""
    b, t, p, d = 3, 4, int(torch.randint(5, 8, ())), 8
    words, regions = torch.randn(b, t, d), torch.randn(b, p, d)
    every = torch.ones(b, 9, dtype=torch.bool)
    real = every[:, :t], every[:, :p]
    expect_tensor(function(words, regions, *real), (b,))
    u = torch.randn(b, 1, d)
    for y, wanted, what in ((u, 0.0, "the same direction"), (-u, 2.0, "opposite directions")):
        expect_close(
            function(u.repeat(1, t, 1), y.repeat(1, p, 1), *real),
            torch.full((b,), wanted),
            f"Where all words and regions have {what}, the cost must be {wanted:g}, at any number of them.",
            "Σ T C: a sum, since T sums to 1; C is 1 - cosine.",
        )
    axes = torch.linalg.qr(torch.randn(b, d, d))[0]
    expect_close(
        function(axes[:, :1], axes[:, :4], every[:, :1], every[:, :4]),
        torch.full((b,), 0.75),
        "One word must pay the mean over four regions, of which one is its twin: 3/4.",
        "each region receives 1/m from somewhere; it is not the cost of the best region.",
    )
    order = torch.randperm(t)
    got = expect_tensor(function(axes[:, :t], 2 * axes[:, order], real[0], real[0]), (b,))
    expect(
        near(got, 0.0, 1e-3),
        "The same vectors in another order must cost 0: the plan finds each its twin.",
        "the plan of ipot for this cost, and not the same mass everywhere.",
    )
    word_mask = torch.rand(b, t).argsort(1) < torch.tensor([1, 2, 3])[:, None]
    region_mask = torch.rand(b, p).argsort(1) < torch.tensor([4, 2, 3])[:, None]
    with case("With padding"):
        strange = [
            torch.where(mask[..., None], x, torch.randn(x.shape))
            for x, mask in ((words, word_mask), (regions, region_mask))
        ]
        got = expect_tensor(function(words, regions, word_mask, region_mask), (b,))
        hint = "give ipot both masks, in their order."
        expect_close(function(*strange, word_mask, region_mask), got, "What stands in padding must not matter.", hint)
    for masks in (real, (word_mask, region_mask)):
        for settings in ((), (0.2, 3)):
            expect_close(
                function(words, regions, *masks, *settings),
                word_region_alignment(words, regions, *masks, *settings),
                "It must be Σ T C with the plan T of ipot, with this β and so many steps.",
                "pass beta and iterations on to ipot.",
            )
    expect_trains(lambda words, regions: function(words, regions, *real), words, regions)
    gradients = []
    for each in (function, word_region_alignment):
        leaf = words.clone().requires_grad_()
        gradients.append(torch.autograd.grad(each(leaf, regions, *real, 0.5, 2).sum(), leaf)[0])
    expect(
        near(*gradients, 1e-4),
        "The gradient must go through the cost alone: the plan counts as a constant.",
        "ipot under torch.no_grad(); the cost outside it.",
    )
