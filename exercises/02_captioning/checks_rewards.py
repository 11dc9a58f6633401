"""Captions that are judged: by rare n-grams, against the model's own greedy text, and by a goal."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import combinations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mmlearn.evaluation.captions import bleu, cider_d
from mmlearn.exercises import (
    agreement,
    by_hand,
    case,
    expect,
    expect_close,
    expect_not,
    expect_number,
    expect_one_number,
    expect_parts,
    expect_tensor,
    expect_trains,
    over,
    task,
)
from mmlearn.exercises.inputs import between, evenly, first_of, numbers, seeded
from mmlearn.objectives.rewards import self_critical

# Two measures of captions.


def _grams(text: str, k: int) -> Counter:
    words = text.split()
    return Counter(tuple(words[i : i + k]) for i in range(len(words) - k + 1))


def _shares(
    candidates: Sequence[str],
    references: Sequence[Sequence[str]],
    *,
    clip: bool = True,
    add: bool = False,
    nearest: bool = True,
    short: bool = True,
    cap: bool = True,
    sizes: Sequence[int] = (1, 2, 3, 4),
    root: bool = True,
) -> float:
    """BLEU with something that may differ, to recognise it."""
    right, written, length, wanted = Counter(), Counter(), 0, 0
    for candidate, texts in zip(candidates, references):
        words, lengths = len(candidate.split()), [len(text.split()) for text in texts]
        length += words
        wanted += min(lengths, key=lambda n: (abs(n - words), n)) if nearest else min(lengths)
        for k in sizes:
            have: Counter = Counter()
            for text in texts:
                have = have + _grams(text, k) if add else have | _grams(text, k)
            counts = _grams(candidate, k)
            right[k] += sum(min(n, have[g]) if clip else n * (g in have) for g, n in counts.items())
            written[k] += counts.total()
    shares = [right[k] / max(written[k], 1) for k in sizes]
    joined = math.prod(shares) ** (1 / len(shares)) if root else sum(shares) / len(shares)
    penalty = math.exp(1 - wanted / length)
    return joined * ((min(1.0, penalty) if cap else penalty) if short else 1.0)


WRONG_SHARES = (  # what may be wrong, what it is told, and a hint
    ({"clip": False}, "To say one again must gain nothing; here it does.", "min of both counts."),
    ({"add": True}, "The reference that has it most often counts; here all are added up.", "max over references."),
    ({"nearest": False}, "r takes the length nearest to the caption's; here the shortest.", "min by abs(r - c)."),
    ({"short": False}, "Captions that are too short must pay; here they do not.", "times min(1, exp(1 - r / c))."),
    ({"sizes": (1,)}, "All n-grams up to 4 words count; here single words do.", "k from 1 to 4."),
    ({"sizes": (4,)}, "All n-grams up to 4 words count; here only those of 4 words do.", "k from 1 to 4."),
    ({"root": False}, "It is the fourth root of the product; here the mean of all four.", "prod(p) ** (1 / 4)."),
)


def _told_twice(lengths: Sequence[int]) -> tuple[list[str], list[list[str]]]:
    """Captions of so many words, from references of 12 and of 9 words, with a word that is said too often."""
    rows = torch.randint(0, 6, (len(lengths), 2, 12), generator=seeded())
    letters = [[["abcdef"[i] for i in text] for text in texts] for texts in rows.tolist()]
    references = [[" ".join(one), " ".join(other[:9])] for one, other in letters]
    longest = [[*one[:6], one[0], one[0], *other[:3]] for one, other in letters]
    candidates = [" ".join(words[:n]) for words, n in zip(longest, lengths)]
    scores = [_shares(candidates, references, **changed) for changed in ({}, *(one for one, *_ in WRONG_SHARES))]
    scores += [_shares(candidates, [texts[:1] for texts in references]), _of_each(candidates, references)]
    return (candidates, references) if _apart(scores) else _told_twice(lengths)


def _apart(scores: Sequence[float]) -> bool:
    """Whether no two scores are alike, so that a check can tell each mistake from what is right and from the others."""
    return all(abs(x - y) > 1e-3 for x, y in combinations(scores, 2))


def _of_each(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    return sum(_shares([one], [texts]) for one, texts in zip(candidates, references)) / len(candidates)


@task(bleu, difficulty=3, minutes=35, example=by_hand(["a b c d e"], [["a b c d f"]], gives=0.6687))
def check_bleu(function: Callable) -> None:
    """Shares of n-grams of a whole corpus, of which no one counts twice, and a penalty for what is too short."""
    candidates, references = _told_twice((11, 11, 7, 7, 6))
    got = torch.tensor(expect_one_number(function(candidates, references)), dtype=torch.float64)
    for changed, property, hint in WRONG_SHARES:
        expect_not(got, _shares(candidates, references, **changed), property, hint)
    first = _shares(candidates, [texts[:1] for texts in references])
    expect_not(got, first, "All references count; here the first alone does.", "max over references.")
    whole = "add up all counts over captions, and divide, multiply and take the root once."
    expect_not(got, _of_each(candidates, references), "Counts are added over captions; here scores are.", whole)
    expect_number(got, _shares(candidates, references), "It must be the root of the shares, with the penalty.", whole)
    with case("With captions longer than their references"):
        more = [f"{text} {text.split()[0]}" for text in references[0]], [[text] for text in references[0]]
        got = torch.tensor(expect_one_number(function(*more)), dtype=torch.float64)
        longer = _shares(*more, cap=False)
        expect_not(got, longer, "Nothing must be gained; here the penalty exceeds 1.", "min(1, ...).")
        expect_number(got, _shares(*more), "It must be the root of the shares.", whole)
    with case("With two references as near"):
        near = function(["a b c d e f"], [["a b c d e f a b", "a b c d"]])
        expect_number(near, 1.0, "The shorter one's length must be taken.", "min by (abs(r - c), r).")
    with case("Without a sequence of 4 words that is right"):
        none = expect_one_number(function(["a b c d"], [["a b c e"]]))
        expect(abs(none) < 1e-2, "It must be 0, or nearly so.", "a factor of 0 makes the product 0.")


def tf_idf(count: Int[Tensor, "t v"], in_references: Int[Tensor, "p s v"]) -> Float[Tensor, "t v"]:
    """As the library's Rarity weighs counts."""
    images = (in_references > 0).any(1).sum(0)
    return count * (math.log(len(in_references)) - images.clamp(min=1).log())


@task(
    tf_idf,
    difficulty=2,
    minutes=15,
    example=by_hand(
        torch.tensor([[2, 1, 1]]), torch.tensor([[[1, 0, 0], [1, 1, 0]], [[0, 3, 0], [0, 0, 0]]]),
        gives=torch.tensor([[1.386, 0.0, 0.693]]),
    ),
)  # fmt: skip
def check_tf_idf(function: Callable) -> None:
    """How often, times how rare: pictures are counted, not texts and not words."""
    t, p, s, v = between(2, 3), between(5, 7), 3, 12
    count = torch.randint(0, 4, (t, v), generator=seeded())
    there = torch.randint(0, 3, (p, s, v), generator=seeded()) * (evenly(p, 1, v) < 0.6)
    count[:, :2], there[:, :, 0], there[:, :, 1] = 1, 0, 2
    there[0, :, 2], there[1:, :, 2], count[:, 2] = torch.tensor([2, 1, 0]), 0, 2
    got = expect_tensor(function(count, there), (t, v))
    whole = "count * (ln p - ln max(1, pictures that have it in some reference))."

    def weigh(have: Tensor, of: int = p, use: Tensor = count) -> Tensor:
        return use * (math.log(of) - have.clamp(min=1).float().log())

    images = (there > 0).any(1).sum(0)
    texts = weigh((there > 0).sum((0, 1)), p * s), weigh((there > 0).sum((0, 1)))
    expect_not(
        got, texts, "Pictures must be counted; here each of their texts is.", "(in_references > 0).any(1).sum(0)."
    )
    words = weigh(there.sum((0, 1))), weigh(there.sum((0, 1)), p * s)
    expect_not(got, words, "Pictures must be counted; here each time that it occurs is.", "any(1) before sum(0).")
    once = weigh(images, use=(count > 0).long())
    expect_not(got, once, "It counts as often as it occurs; here it counts once.", whole)
    common = count * images.clamp(min=1).float().log()
    expect_not(got, common, "What is rare must count more; here what is common does.", whole)
    more = count * (math.log(p) - (1.0 + images).log())
    expect_not(
        got, more, "An n-gram of no picture counts as one of one picture; here 1 is added to all.", "clamp(min=1)."
    )
    plain = count * p / images.clamp(min=1)
    expect_not(got, plain, "It must be the logarithm of how rare it is; here there is none.", whole)
    agreement(function, tf_idf)((count, there), "It must be the count, times the logarithm of its rarity.", whole)


def _variant(
    candidates: Sequence[str],
    references: Sequence[Sequence[str]],
    *,
    rare: bool = True,
    clip: bool = True,
    sigma: float = 6.0,
    longest: int = 4,
    shortest: int = 1,
    best: bool = False,
    each_text: bool = False,
) -> float:
    """CIDEr-D with something that may differ, to recognise it."""
    units = [[one] for texts in references for one in texts] if each_text else references
    sizes, total = range(shortest, longest + 1), 0.0
    have = Counter(g for texts in units for g in {g for text in texts for k in sizes for g in _grams(text, k)})

    def weights(text: str, k: int) -> dict:
        return {g: n * (math.log(len(units) / max(1, have[g])) if rare else 1.0) for g, n in _grams(text, k).items()}

    for candidate, texts in zip(candidates, references):
        found = []
        for text in texts:
            cosines = 0.0
            for k in sizes:
                one, other = weights(candidate, k), weights(text, k)
                shared = sum((min(x, other.get(g, 0)) if clip else x) * other.get(g, 0) for g, x in one.items())
                norms = math.prod(math.sqrt(sum(x * x for x in w.values())) for w in (one, other))
                cosines += shared / norms if norms else 0.0
            apart = len(candidate.split()) - len(text.split())
            found.append(cosines * math.exp(-(apart**2) / (2 * sigma**2)))
        total += max(found) if best else sum(found) / len(found)
    return 10 * total / len(sizes) / len(candidates)


def _spelt(text: str, blank: str) -> str:
    """Each letter as a word of several, which have letters, and beginnings, in common, and differ in capitals."""
    return blank.join({"a": "aa", "b": "aab", "c": "Aab", "d": "ba"}.get(word, f"aab-{word}") for word in text.split())


CHANGED = (  # what may be wrong, what it is told, and a hint
    ({"rare": False}, "Rare n-grams must count more; here all count alike.", "weigh them by tf-idf."),
    ({"each_text": True}, "Pictures must be counted for rarity; here texts are.", "a set for each picture."),
    ({"clip": False}, "To say one again must gain nothing; here it does.", "min(c, r) above."),
    ({"sigma": 1e9}, "Other lengths must cost; here they do not.", "exp(-(difference)² / 72)."),
    ({"longest": 1}, "All n-grams up to 4 words count; here single words do.", "k from 1 to 4."),
    ({"shortest": 4}, "All n-grams up to 4 words count; here only those of 4 words do.", "k from 1 to 4."),
    ({"best": True}, "It is a mean over references; here the best one tells.", "divide by their number."),
)


def _corpus() -> tuple[list[str], list[list[str]]]:
    """Captions with some words of their references, one of which says one too often and one of which is short."""
    rows = torch.randint(0, 9, (5, 2, 12), generator=seeded())
    letters = [["abcdefghi"[i] for i in row] for row in rows.flatten(0, 1).tolist()]
    references = [[" ".join(letters[2 * i]), " ".join(letters[2 * i + 1][:9])] for i in range(5)]
    starts = [texts[0].split() for texts in references]
    candidates = [" ".join([*one[:7], one[0], one[0], one[0], one[1]][: 11 - 2 * i]) for i, one in enumerate(starts)]
    scores = [_variant(candidates, references, **changed) for changed in ({}, *(one for one, *_ in CHANGED))]
    return (candidates, references) if _apart(scores) else _corpus()


@task(cider_d, difficulty=5, minutes=50, example=by_hand(["a", "b"], [["a"], ["b"]], gives=2.5))
def check_cider_d(function: Callable) -> None:
    """Cosines of rare n-grams: nothing for what all pictures share, and nothing for saying it again."""
    candidates, references = _corpus()
    got = torch.tensor(expect_one_number(function(candidates, references)), dtype=torch.float64)
    right = _variant(candidates, references)
    for changed, property, hint in CHANGED:
        expect_not(got, _variant(candidates, references, **changed), property, hint)
    expect_not(got, right / 10, "It is from 0 to 10; here from 0 to 1.", "times 10.")
    expect_not(got, right * 4, "It is the mean over k; here cosines are added.", "divide by 4.")
    expect_not(got, right * len(candidates), "It is the mean over pictures; here it is their sum.", "divide.")
    hint = "for each k: weights of both, the cosine with min(c, r) above, times exp(-(difference of lengths)² / 72)."
    expect_number(got, right, "It must be the mean of cosines, times 10.", hint)
    more = _corpus()
    expect_number(function(*more), _variant(*more), "It must be the mean of cosines, times 10.", hint)
    for words, blank in (("With words of several letters", " "), ("With words between tabs and line ends", "\t \n")):
        with case(words):
            spelt = [[_spelt(text, blank) for text in texts] for texts in (candidates, *references)]
            expect_number(function(spelt[0], spelt[1:]), right, "The score must be the same.", "text.split().")
    alone = function(candidates[:1], references[:1])
    expect_number(
        alone,
        0.0,
        "One picture alone must give 0, because nothing in it is rare.",
        "where a norm is 0, so is the cosine.",
    )


# Learning from it.


@task(
    self_critical,
    difficulty=3,
    minutes=15,
    example=by_hand(
        torch.tensor([[-1.0, -2.0, -9.0], [-0.5, -0.5, -9.0]]),
        torch.tensor([[True, True, False], [True, True, False]]), torch.tensor([3.0, 1.0]), torch.tensor([1.0, 2.0]),
        gives=2.5,
    ),
)  # fmt: skip
def check_self_critical(function: Callable) -> None:
    """Likelier as far as it is better than the greedy text, and rarer where it is worse."""
    b, t = between(4, 6), between(6, 8)
    written = first_of(t, torch.arange(b) + 2)
    draws = [(-numbers(b, t).abs(), written, numbers(b), numbers(b)) for _ in range(3)]
    got = over(draws, function)

    def cost(last: Callable) -> Tensor:
        return torch.stack([last(*draw) for draw in draws])

    whole = "-((reward - baseline) * log_probs of what is written, added up over a text).mean()."
    gain = cost(lambda logs, real, r, g: ((r - g) * (logs * real).sum(1)).mean())
    expect_not(got, gain, "Better texts must become likelier; here they become rarer.", "the loss has a minus.")
    plain = cost(lambda logs, real, r, g: -(r * (logs * real).sum(1)).mean())
    expect_not(got, plain, "The greedy text's reward must be taken away; here it is not.", whole)
    behind = cost(lambda logs, real, r, g: -((r - g) * logs.sum(1)).mean())
    expect_not(got, behind, "What stands behind the end must not count; here it does.", "masked_fill(~written, 0).")
    short = cost(lambda logs, real, r, g: -((r - g) * (logs * real).sum(1) / real.sum(1)).mean())
    expect_not(got, short, "Log-probabilities of a text must be added; here it is their mean.", "sum(1).")
    total = cost(lambda logs, real, r, g: -((r - g) * (logs * real).sum(1)).sum())
    expect_not(got, total, "It must be the mean over texts; here it is their sum.", "mean at the end.")
    mean = cost(lambda logs, real, r, g: -((r - r.mean()) * (logs * real).sum(1)).mean())
    expect_not(got, mean, "Each text has its own greedy text; here the mean reward is the baseline.", whole)
    likely = cost(lambda logs, real, r, g: -((r - g) * (logs * real).sum(1).exp()).mean())
    expect_not(
        got, likely, "It is the log-probability of a text; here it is its probability.", "log_probs as they are."
    )
    agreement(function, self_critical)(draws, "It must be the reward beyond the greedy text's.", whole)
    logs, _, reward, baseline = draws[0]
    expect_trains(function, logs, like=self_critical, fixed=(written, reward, baseline))
    with case("Where what stands behind the end has probability 0"):
        unlikely = logs.masked_fill(~written, -math.inf)
        hidden = "Its logarithm, minus infinity, must not count."
        expect_tensor(function(unlikely, written, reward, baseline), (), finite=False)
        got = function(unlikely, written, reward, baseline)
        expect(got.isfinite(), hidden, "-inf · 0 is NaN: masked_fill(~written, 0), not a product.")
        expect_close(got, self_critical(unlikely, written, reward, baseline), hidden, whole)
    with case("With log-probabilities of minus thousands"):
        agreement(function, self_critical)((2000 * logs - 1000, written, reward, baseline), "They must count.", whole)
    leaf = logs.clone().requires_grad_()
    (slope,) = torch.autograd.grad(function(leaf, written, reward, reward.clone()), leaf)
    expect(not slope.any(), "Where the drawn text is the greedy one nothing must be learned.", whole)
    judged = [reward.clone().requires_grad_(), baseline.clone().requires_grad_()]
    slopes = torch.autograd.grad(function(leaf, written, *judged), judged, allow_unused=True)
    constant = "Nothing is learned by reward and baseline; here a gradient comes to them."
    expect(all(slope is None or not slope.any() for slope in slopes), constant, "(reward - baseline).detach().")


def worker_step(
    seen: Float[Tensor, "b c"],
    word: Float[Tensor, "b e"],
    hidden: Float[Tensor, "b d"],
    goal: Float[Tensor, "b g"],
    proposed: Float[Tensor, "b g"],
    weight: Float[Tensor, "d all"],
    head: Float[Tensor, "v d"],
    done: Bool[Tensor, "b"],
) -> tuple[Float[Tensor, "b g"], Float[Tensor, "b d"], Float[Tensor, "b v"]]:
    """A plain recurrent step, where the paper has an LSTM's."""
    goal = torch.where(done[:, None], proposed, goal)
    hidden = torch.tanh(torch.cat([seen, goal, word, hidden], 1) @ weight.T)
    return goal, hidden, (hidden @ head.T).log_softmax(1)


@task(
    worker_step,
    difficulty=3,
    minutes=20,
    example=by_hand(
        torch.tensor([[0.0]]), torch.tensor([[0.0]]), torch.tensor([[5.0]]), torch.tensor([[9.0]]),
        torch.tensor([[0.5493]]), torch.tensor([[0.0, 1.0, 0.0, 0.0]]), torch.tensor([[2.1972], [0.0]]),
        torch.tensor([True]),
        gives=(torch.tensor([[0.5493]]), torch.tensor([[0.5]]), torch.tensor([[-0.2877, -1.3863]])),
    ),
)  # fmt: skip
def check_worker_step(function: Callable) -> None:
    """A goal is kept until it is reached, and the next word is written towards it."""
    b, c, e, d, g, v = 6, between(3, 4), between(5, 6), between(7, 8), 9, 11
    given = (*(numbers(b, n) for n in (c, e, d, g, g)), 0.4 * numbers(d, c + g + e + d), numbers(v, d))
    seen, word, hidden, goal, proposed, weight, head = given
    done = torch.arange(b) % 2 == between(0, 1)
    parts = expect_parts(function(*given, done), "goal", "hidden", "log_probs")
    for part, width in zip(parts, (g, d, v)):
        expect_tensor(part, (b, width))
    kept, state, logs = parts
    change = "torch.where(done[:, None], proposed, goal)."
    expect_not(kept, proposed, "A goal is kept until it is reached; here each step has a new one.", change)
    expect_not(kept, goal, "A goal that is reached must be followed by the proposed one; here it stays.", change)
    other = torch.where(done[:, None], goal, proposed)
    expect_not(kept, other, "A new goal comes where done is True; here where it is False.", change)
    expect_close(
        kept, torch.where(done[:, None], proposed, goal), "It is the proposed goal where done is True.", change
    )
    wanted = worker_step(*given, done)

    def after(aim: Tensor, *, parts: Callable = lambda s, a, w, h: (s, a, w, h)) -> Tensor:
        return (torch.cat(parts(seen, aim, word, hidden), 1) @ weight.T).tanh()

    side = "torch.cat([seen, goal, word, hidden], 1), with the goal that is now in force."
    expect_not(state, after(goal), "The worker must follow the goal that is now in force; here the old one.", side)
    expect_not(state, after(torch.zeros_like(goal)), "The worker must know its goal; here it does not.", side)
    forgets = after(kept, parts=lambda s, a, w, h: (s, a, w, 0 * h))
    expect_not(state, forgets, "The state before must count; here it is forgotten.", side)
    linear = torch.cat([seen, kept, word, hidden], 1) @ weight.T
    expect_not(state, linear, "The state must pass a tanh; here it is linear.", side)
    expect_close(state, wanted[1], "It must be tanh of the weights times what is seen, goal, word and state.", side)
    scores = state @ head.T
    expect_not(logs, scores, "They must be log-probabilities; here they are logits.", "log_softmax(1).")
    expect_not(
        logs, scores.softmax(1), "They must be log-probabilities; here they are probabilities.", "log_softmax(1)."
    )
    early = (hidden @ head.T).log_softmax(1)
    expect_not(logs, early, "The word is written from the new state; here from the old one.", "hidden after the step.")
    expect_close(logs, wanted[2], "They must be the log-probabilities of words from the new state.", "log_softmax(1).")
    expect_trains(function, *given, like=worker_step, fixed=(done,))
