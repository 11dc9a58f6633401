"""What one-stream fusion learns from hidden words and regions: what each function must do, one property at a time."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from mmlearn.exercises import (
    agreement,
    case,
    expect,
    expect_close,
    expect_log,
    expect_not,
    expect_parts,
    expect_seeded,
    expect_share,
    expect_tensor,
    expect_trains,
    expect_whole,
    expect_zero,
    over,
    task,
)
from mmlearn.exercises.inputs import between, seeded, some_of
from mmlearn.objectives import (
    mask_tokens,
    masked_cross_entropy,
    masked_region_classification,
    masked_region_kl,
    masked_region_regression,
)
from mmlearn.objectives.masked import IGNORED

# Words.


@task(mask_tokens, difficulty=4, minutes=30)
def check_mask_tokens(function: Callable) -> None:
    """15 % of the ordinary tokens, in three ways; the text can be recovered; whole words; all chance from a seed."""
    vocabulary = between(24, 31)
    order = torch.randperm(vocabulary)  # special tokens may have any number
    special, mask_token, ordinary = order[:3].tolist(), int(order[3]), order[4:]

    def hide(tokens: Tensor, mask: Tensor, seed: int | None = None, **more) -> tuple[Tensor, Tensor]:
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
    _check_what_is_shown(read[hidden], tokens[hidden], mask_token, ordinary)
    expect_seeded(lambda seed: hide(tokens, mask, seed))
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


def _texts(b: int, t: int, ordinary: Tensor, special: list[int]) -> Tensor:
    """Ordinary tokens between a special one at each end."""
    tokens = ordinary[torch.randint(len(ordinary), (b, t))]
    tokens[:, 0], tokens[:, -1] = special[1], special[2]
    return tokens


def _check_words(hide: Callable, ordinary: Tensor, special: list[int]) -> None:
    """Four words of one, two, three and two pieces."""
    tokens = _texts(1000, 10, ordinary, special)
    names = torch.cat([torch.randperm(50)[:4], torch.tensor([-1])])
    words = names[torch.tensor([4, 0, 1, 1, 2, 2, 2, 3, 3, 4])].repeat(1000, 1)
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
    tokens = _texts(3000, 6, ordinary, special)
    tokens[5] = special[1]
    some = torch.arange(len(tokens)) != 5
    with case("With probability 0"):
        hidden = hide(tokens, tokens >= 0, probability=0.0)[1] != IGNORED
        expect(
            torch.equal(hidden.any(1), some),
            "A text with anything to hide must have something hidden.",
            "where no draw is low enough, hide the place with the lowest draw.",
        )
        for place in range(1, 5):
            hint = "the place of the lowest draw, among those that can be hidden."
            expect_share(hidden[some, place], 1 / 4, "The one that is hidden anyway must be any of four.", hint)


@task(masked_cross_entropy, difficulty=2, minutes=10)
def check_masked_cross_entropy(function: Callable) -> None:
    """ln v of nothing; hidden places only, all the same; 0 of no place."""
    b, t, v = 3, between(6, 9), between(7, 11)

    def draw() -> tuple[Tensor, Tensor]:
        hidden = some_of(b, t, real=[1, 2, 5])  # of each text another number, so that a mean of means is another one
        return torch.randn(b, t, v), torch.randint(v, (b, t)).masked_fill(~hidden, IGNORED)

    draws = [draw() for _ in range(3)]
    logits, label = draws[0]
    same = agreement(function, masked_cross_entropy)
    expect_tensor(function(logits, label), ())
    mean = "the sum over hidden places, however many, divided by their number and not by that of all places."
    expect_log(function(torch.zeros(b, t, v), label), v, "v", mean)
    sure = 50 * F.one_hot(label.clamp(min=0), v).float()
    expect_close(
        function(sure, label),
        0.0,
        "Logits that are sure and right must cost 0.",
        "place i answers label i, no place further; cross_entropy takes logits, so no softmax before it.",
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
        "It must be the mean of -log softmax at the label, in which every hidden place counts the same.",
        "one mean over all hidden places, not a mean of each text first.",
    )
    with case("With labels of shape (n)"):
        first = [(z[0], y[0]) for z, y in draws]
        same(first, "It must be the same mean for any shape.", "reshape(-1, v) makes one list of places of any shape.")
    with case("With nothing hidden"):
        expect_zero(function, logits, torch.full((b, t), IGNORED))
    expect_trains(function, logits, fixed=(label,), like=masked_cross_entropy)


# Regions.


def region_batch(b: int = 3, classes: int = 6) -> tuple[Tensor, Tensor, Tensor]:
    """Logits or features, a detector's distributions, and what is hidden: 1, 2 and 4 regions."""
    p = between(5, 8)
    masked = some_of(b, p, real=[1, 2, 4])
    return torch.randn(b, p, classes), (2 * torch.randn(b, p, classes)).softmax(-1), masked


def check_places(function: Callable, reference: Callable, formula: str) -> None:
    """Hidden regions alone count, all the same; none costs 0."""
    draws = [region_batch() for _ in range(3)]
    others = []
    for x, target, masked in draws:
        there = masked[..., None]
        strange = (2 * torch.randn(target.shape)).softmax(-1)
        others.append((torch.where(there, x, torch.randn(x.shape)), torch.where(there, target, strange), masked))
    expect_close(
        over(others, function),
        over(draws, function),
        "What stands at regions that are not hidden must not matter.",
        "masked is True at hidden regions; x[masked] has these alone.",
    )
    once = "one mean over the hidden regions of all pictures, not a mean of each picture first."
    agreement(function, reference)(draws, f"{formula}, in which every hidden region counts the same.", once)
    x, target, masked = draws[0]
    with case("With nothing hidden"):
        expect_zero(function, x, target, torch.zeros_like(masked))
    expect_trains(function, x, fixed=(target, masked), like=reference)


@task(masked_region_regression, difficulty=2, minutes=10)
def check_masked_region_regression(function: Callable) -> None:
    """A squared distance: summed over features, mean over hidden regions."""
    prediction, target, masked = region_batch()
    f = target.shape[-1]
    expect_tensor(function(prediction, target, masked), ())
    right = "A prediction that is right must cost 0."
    expect_close(function(target.clone(), target, masked), 0.0, right, "the distance to the target.")
    expect_close(
        function(target + 2 * torch.randn(target.shape).sign(), target, masked),
        4.0 * f,
        f"Where each of {f} features is off by 2, the loss must be {f} · 2²: a sum over features.",
        "the squared length, without a root; a mean over hidden regions, and not over features or other regions.",
    )
    check_places(function, masked_region_regression, "It must be the mean squared distance")


@task(masked_region_classification, difficulty=2, minutes=10)
def check_masked_region_classification(function: Callable) -> None:
    """The detector's first choice is the label."""
    logits, classes, masked = region_batch()
    c = classes.shape[-1]
    expect_tensor(function(logits, classes, masked), ())
    mean = "the mean over hidden regions, however many; the logarithm of a softmax over classes, with a minus."
    expect_log(function(torch.zeros_like(logits), classes, masked), c, "c", mean)
    expect_close(
        function(50 * F.one_hot(classes.argmax(-1), c).float(), classes, masked),
        0.0,
        "A model that is sure of the detector's first choice must pay 0, also where the detector has doubts.",
        "the label is argmax over the classes of the detector; to keep its doubts is the next task.",
    )
    draws = [region_batch() for _ in range(3)]
    certain = [(logits, F.one_hot(classes.argmax(-1), c).float(), masked) for logits, classes, masked in draws]
    expect_close(
        over(certain, function),
        over(draws, function),
        "Only which class is likeliest must matter, and not how likely.",
        "cross_entropy with class numbers, argmax(-1), as its target.",
    )
    formula = "It must be the mean of -log softmax at the detector's first choice"
    check_places(function, masked_region_classification, formula)


@task(masked_region_kl, difficulty=3, minutes=15)
def check_masked_region_kl(function: Callable) -> None:
    """0 where both agree; the direction; a detector without doubt."""
    logits, classes, masked = region_batch()
    c = classes.shape[-1]
    expect_tensor(function(logits, classes, masked), ())
    expect_close(
        function(classes.log() + 3 * torch.randn(*masked.shape, 1), classes, masked),
        0.0,
        "Where model and detector agree, the loss must be 0.",
        "log c belongs to it, or the detector's entropy is left; classes are probabilities, logits are not.",
    )
    draws = [region_batch() for _ in range(3)]
    got = over(draws, function)
    expect_not(
        got,
        over(draws, _reversed_kl),
        "The direction must be KL(detector || model); this is KL(model || detector).",
        "the detector's probabilities stand before the logarithm. F.kl_div takes the model's logarithms first.",
    )
    expect((got > 0).all(), "A divergence must never be negative.", "F.kl_div takes log_softmax first, then classes.")
    with case("With a detector without doubt, for which it is classification"):
        certain = F.one_hot(classes.argmax(-1), c).float()
        hint = 'a sum over classes, a mean over hidden regions: reduction="sum", then divide by their number.'
        expect_log(function(torch.zeros_like(logits), certain, masked), c, "c", hint)
    check_places(function, masked_region_kl, "It must be Σ c log(c / softmax)")


def _reversed_kl(logits: Tensor, classes: Tensor, masked: Tensor) -> Tensor:
    return F.kl_div(classes[masked].log(), logits[masked].softmax(-1), reduction="sum") / masked.sum()
