"""What is wrong in a text, what a length tells, how well a text fits, and CLAP's loss, told one property at a time.

What the library has not is written here, above its check.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from mmlearn.evaluation.speech import edit_rate
from mmlearn.evaluation.spoken_retrieval import ctc_scores, length_scores
from mmlearn.exercises import (
    agreement,
    by_hand,
    case,
    expect,
    expect_close,
    expect_not,
    expect_number,
    expect_sure_and_wrong,
    expect_tensor,
    expect_trains,
    over,
    task,
)
from mmlearn.exercises.inputs import between, evenly, numbers, seeded, uniform, unit

# How many letters are wrong?


@task(edit_rate, difficulty=2, minutes=25, example=by_hand(["kat", "dog"], ["cats", "dog"], gives=2 / 7))
def check_edit_rate(function: Callable) -> None:
    """Put in, left out, replaced: the fewest of them, over all right letters of all texts together."""
    least = "the fewest edits; each puts in, leaves out or replaces one letter."
    expect_number(function(["abcd"], ["abcd"]), 0.0, "The right text must cost nothing.", "equal letters need no edit.")
    for said, right, mistaken, property, hint in (
        ("dcba", "abcd", 0, "The same letters in another order must cost edits.", "no sets, and no counts."),
        (
            "bcdefgh",
            "abcdefg",
            1,
            "A text that is moved by one position must cost 2; here positions are compared.",
            least,
        ),
    ):
        expect(float(function([said], [right])) != mistaken, property, hint)
    for said, right, wanted, property, hint in (
        (["abxd"], ["abcd"], 1 / 4, "A letter that is replaced must cost 1.", "not 2, as leaving out and putting in."),
        (["abd"], ["abcd"], 1 / 4, "A letter that is missing must cost 1.", least),
        (["abxcd"], ["abcd"], 1 / 4, "A letter too many must cost 1, of four right ones.", "over right letters."),
        (["bacd"], ["abcd"], 2 / 4, "Two letters that have changed positions must cost 2.", "there is no such edit."),
        ([""], ["abcd"], 1.0, "Where nothing is said, all letters must be missing.", "4 of 4."),
        (["abcdefgh"], ["ab"], 3.0, "It may be above 1: six letters too many, of two.", "no min(…, 1)."),
        (["sitting"], ["kitten"], 3 / 6, "It must be the fewest edits: kitten to sitting takes 3.", least),
    ):
        expect_number(function(said, right), wanted, property, hint)
    once = "add all edits, and divide once by all right letters."
    long, short = "abcdefgh" * 2, "xy"
    got = function([long, "ab"], [long, short])
    expect(float(got) != 1 / 2, "All letters must count alike; here all texts do.", once)
    expect_number(got, 2 / 18, "It must be all edits over all right letters.", once)
    with case("Letters drawn at random"):
        text = ["".join("abc"[i] for i in torch.randint(3, (between(5, 9),), generator=seeded())) for _ in range(8)]
        agreement(function, edit_rate)((text[:4], text[4:]), "It must be the fewest edits.", least)
    with case("Texts that are lists of words"):
        words = [["a", "red", "circle"]], [["the", "red", "circle"]]
        expect_number(function(*words), 1 / 3, "Then words must be counted.", "anything that can be compared.")


# What a length tells.


@task(
    length_scores,
    difficulty=3,
    minutes=20,
    example=by_hand(
        torch.tensor([[10.0, 1.0], [100.0, 10.0]]), torch.tensor([50.0]), torch.tensor([5.0, 10.0]),
        gives=torch.tensor([[0.0, -math.log(2)]]),
    ),
)  # fmt: skip
def check_length_scores(function: Callable) -> None:
    """A line through logarithms, with both its numbers, and nearness in logarithms."""
    n, clips, texts = between(30, 40), between(4, 5), between(6, 7)
    frames = 100 * (1 + 2 * evenly(n))
    noise = 0.08 * numbers(n)
    known = torch.stack([frames, 3 * frames.pow(uniform(0.5, 0.6)) * noise.exp()], dim=1)  # no line through 0
    heard = torch.linspace(100, 300, clips) + 20 * evenly(clips)
    lengths = torch.arange(20.0, 20 + 6 * texts, 6)
    got = expect_tensor(function(known, heard, lengths), (clips, texts))

    def slope(x: Tensor, y: Tensor) -> Tensor:
        return ((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum()

    def line(x: Tensor, y: Tensor, at: Tensor) -> Tensor:
        return y.mean() + slope(x, y) * (at - x.mean())

    def score(expected: Tensor, of: Callable = torch.log) -> Tensor:
        return -(expected[:, None] - of(lengths)).abs()

    x, y = known.log().unbind(1)
    expected, logs = line(x, y, heard.log()), "ln letters = slope · ln frames + rest, of all known clips."
    right = score(expected)
    expect_not(got, -right, "The likelier length must score higher; here it is the other way.", "minus.")
    expect_not(got, -right.square(), "It must be how far apart they are; here it is squared.", "abs().")
    letters = score(expected.exp(), lambda of: of)
    property = "Compare logarithms, not numbers of letters."
    expect_not(got, letters, property, "lengths.log()", tolerance=1e-3)
    raw = line(*known.unbind(1), heard)
    property = "The line must go through logarithms; here it goes through numbers."
    expect_not(got, (score(raw, lambda of: of), score(raw.clamp(min=1e-3).log())), property, logs, tolerance=1e-3)
    base = right / math.log(10), right / math.log(2)
    expect_not(got, base, "It must be the natural logarithm.", "log(), not log10() or log2().")
    ratio = score(heard.log() + (y - x).mean()), score((heard * (known[:, 1] / known[:, 0]).mean()).log())
    property = "The line has a slope; here letters are a fixed share of frames."
    expect_not(got, ratio, property, logs, tolerance=1e-3)
    through = score(heard.log() * (x * y).sum() / x.square().sum())
    expect_not(got, through, "The line need not go through 0: it has two numbers.", "a column of ones.", tolerance=1e-3)
    turned = score(y.mean() + (heard.log() - x.mean()) / slope(y, x))
    property = "Letters must be told from frames; here the line was fitted for frames from letters."
    expect_not(got, turned, property, "squares of what is wrong in ln letters.", tolerance=1e-3)
    mean = score(y.mean().expand(clips))
    expect_not(got, mean, "How long a clip is must count; here all clips say as much.", logs, tolerance=1e-3)
    same = agreement(function, length_scores, tolerance=1e-3)
    same((known, heard, lengths), "It must be -|expected - ln length|.", logs)
    with case("A single clip and a single text"):
        same((known, heard[:1], lengths[:1]), "It must be of shape (1, 1).", "(clips, 1) and (texts,).")
    with case("Clips that are ten times as long, with texts that are"):
        same((10 * known, 10 * heard, 10 * lengths), "The line must be found anew.", "nothing is kept between calls.")


# Sounds and captions.


def clap_loss(
    audio_embedding: Float[Tensor, "b d"],
    text_embedding: Float[Tensor, "b d"],
    audio_logit_scale: Float[Tensor, ""],
    text_logit_scale: Float[Tensor, ""],
    caption_id: Int[Tensor, "b"],
) -> Float[Tensor, ""]:
    """Each sound picks its captions at one temperature, each caption its sounds at another, equal captions alike."""
    target = (caption_id[:, None] == caption_id).float()
    target = target / target.sum(1, keepdim=True)
    cosine = audio_embedding @ text_embedding.T
    by_audio = F.cross_entropy(audio_logit_scale * cosine, target)
    return (by_audio + F.cross_entropy(text_logit_scale * cosine.T, target)) / 2


EYE = torch.eye(2)


@task(
    clap_loss,
    difficulty=3,
    minutes=20,
    example=by_hand(EYE, EYE, torch.tensor(3.0).log(), torch.tensor(0.0), torch.tensor([7, 7]), gives=0.7651),
)
def check_clap_loss(function: Callable) -> None:
    """Two temperatures, both directions, and equal captions that share the target."""
    b, d = between(7, 8), 12
    ids = torch.arange(b)
    ids[[2, 4]], ids[5] = 0, 1
    audio_scale, text_scale = torch.tensor(uniform(2, 4)), torch.tensor(uniform(7, 9))
    draws = [(unit(b, d), unit(b, d), audio_scale, text_scale, ids) for _ in range(3)]
    got = over(draws, function)
    equal = (ids[:, None] == ids).float()
    even = equal / equal.sum(1, keepdim=True)

    def cost(target: Tensor = even, both: tuple = (0.5, 0.5), scales: tuple = (audio_scale, text_scale)) -> Tensor:
        found = []
        for u, v, *_ in draws:
            ways = (scales[0] * u @ v.T, scales[1] * v @ u.T)
            paid = [-(target * logits.log_softmax(1)).sum(1).mean() for logits in ways]
            found.append(both[0] * paid[0] + both[1] * paid[1])
        return torch.stack(found)

    fit = "caption_id[:, None] == caption_id, each row divided by its sum."
    expect_not(got, cost(torch.eye(b)), "Captions that are equal must all be right; here only the own one is.", fit)
    expect_not(got, cost(equal), "A row's target must sum to 1; here each right answer counts 1.", fit)
    _expect_no_left_out(got, draws)
    expect_not(got, cost(scales=(audio_scale,) * 2), "Captions have a temperature of their own.", "text_logit_scale.")
    expect_not(got, cost(scales=(text_scale,) * 2), "Sounds have a temperature of their own.", "audio_logit_scale.")
    middle = (audio_scale + text_scale) / 2
    expect_not(
        got, cost(scales=(middle,) * 2), "Each direction has its scale; here both share the mean.", "two of them."
    )
    exchanged = "audio_logit_scale belongs to sounds that pick captions; here it is the other way."
    expect_not(got, cost(scales=(text_scale, audio_scale)), exchanged, "rows of sounds, columns of captions.")
    divided = cost(scales=(1 / audio_scale, 1 / text_scale))
    expect_not(got, divided, "A scale is 1 / τ already: it must multiply.", "times, not over.")
    powers = cost(scales=(audio_scale.exp(), text_scale.exp()))
    expect_not(got, powers, "A scale is exponentiated already.", "no exp().")
    halves = "half of what sounds pay, and half of what captions pay."
    expect_not(got, cost(both=(1, 0)), "Captions must pick their sounds, too; here only sounds pick.", halves)
    expect_not(got, cost(both=(0, 1)), "Sounds must pick their captions, too; here only captions pick.", halves)
    expect_not(got, cost(both=(1, 1)), "It must be the mean of both directions; here it is their sum.", halves)
    expect_not(got, b * cost(), "It must be a mean over the batch; here it is a sum.", "mean over rows.")
    agreement(function, clap_loss)(draws, "It must be the mean of both cross-entropies.", f"{fit[:-1]}; {halves}")
    expect_trains(function, *draws[0][:4], like=clap_loss, fixed=(ids,))
    with case("With ids above 2²⁴"):
        large = [(*draw[:4], 2**24 + ids) for draw in draws]
        agreement(function, clap_loss)(large, "Neighbouring ids are different captions.", "compare whole numbers.")
    with case("With scales of hundreds, and the opposite of what is right"):
        u = unit(b, d)
        sure = u, -u, torch.tensor(300.0), torch.tensor(400.0)
        expect_sure_and_wrong(function, *sure, like=clap_loss, fixed=(torch.arange(b),))


def _expect_no_left_out(got: Tensor, draws: list[tuple]) -> None:
    """Equal captions must neither be taken out of the answers nor be added up inside the logarithm."""
    out, inside = [], []
    for u, v, s, t, ids in draws:
        equal, own = ids[:, None] == ids, torch.eye(len(ids), dtype=torch.bool)
        ways = (s * u @ v.T, t * v @ u.T)
        out.append(sum(-z.masked_fill(equal & ~own, -1e9).log_softmax(1).diagonal().mean() for z in ways) / 2)
        inside.append(sum(-z.log_softmax(1).exp().mul(equal).sum(1).log().mean() for z in ways) / 2)
    fit = "caption_id[:, None] == caption_id, each row divided by its sum."
    expect_not(got, torch.stack(out), "Equal captions must be right; here they are only left out.", fit)
    property = "Each right answer has its share of the target; here their probabilities are added."
    expect_not(got, torch.stack(inside), property, fit)


# Which text fits?

EVEN = torch.full((3, 2), 0.5).log()


@task(
    ctc_scores,
    difficulty=4,
    minutes=30,
    example=by_hand(
        [EVEN], [torch.tensor([1]), torch.tensor([1, 1])],
        gives=torch.tensor([[math.log(0.75), math.log(0.125) / 2]]),
    ),
)  # fmt: skip
def check_ctc_scores(function: Callable) -> None:
    """All paths of CTC, for each letter, of clips and texts of any length; what no path reads stands last."""
    v = between(5, 6)
    said = [(2 * numbers(s, v)).log_softmax(-1) for s in (11, 14, 9)]
    texts = [torch.randint(1, v, (t,), generator=seeded()) for t in (2, 5, 3, 4)]
    texts[1][1] = texts[1][0]  # a letter that comes twice
    got = expect_tensor(function(list(said), list(texts)), (3, 4))
    whole, length = ctc_scores(said, texts, per_token=False), torch.tensor([2, 5, 3, 4])
    frames = torch.tensor([[11], [14], [9]])
    letters = "divide by len(text)."
    expect_not(got, whole, "It must be for each letter; here it is of the whole text.", letters)
    expect_not(got, -whole / length, "A likely text must score high: ln p, which is below 0.", "ctc_loss is -ln p.")
    expect_not(got, whole / frames, "Divide by the letters of the text; here it is by the frames.", letters)
    expect_not(got, (whole / length).exp(), "It must be a logarithm; here it is a probability.", "no exp().")
    best = torch.tensor([[_best_path(frames, text) / len(text) for text in texts] for frames in said])
    expect_not(got, best, "All paths must count; here only the best one does.", "add probabilities: logaddexp.")
    same = agreement(function, ctc_scores, tolerance=1e-4)
    forward = "F.ctc_loss(…, blank=0, reduction='none') is -ln p; or the forward algorithm of exercise 13a."
    same((said, texts), "It must be ln p of all paths that read the text, over its letters.", forward)
    with case("With per_token=False"):
        same((said, texts), "It must be ln p itself.", "leave out the division.", per_token=False)
    with case("A single clip and a single text"):
        same((said[:1], texts[:1]), "It must be of shape (1, 1).", "rows are clips, columns are texts.")
    with case("A text that no path reads"):
        long = torch.ones(8, dtype=torch.long)  # needs 15 frames
        scores = expect_tensor(function(said, [texts[0], long]), (3, 2))
        property = "It must get -10,000."
        expect_close(scores[:, 1], torch.full((3,), -1e4), property, "clamp(min=-1e4) of what is -inf; not 0.")
        same((said, [texts[0], long]), "All others must have their score.", forward)
    with case("Frames that are all but sure"):
        sure = [100 * frames for frames in said]
        sure = [(x - x.logsumexp(-1, keepdim=True)) for x in sure]
        same((sure, texts), "Probabilities too small for float32 must count.", "stay in logarithms.")


def _best_path(frames: Tensor, text: Tensor) -> float:
    """ln p of the likeliest path that reads a text."""
    states = [0, *(state for letter in text.tolist() for state in (letter, 0))]
    score = [0.0] + [-math.inf] * (len(states) - 1)  # before the first frame
    for number, frame in enumerate(frames.tolist()):
        before = score
        score = []
        for i, state in enumerate(states):
            ways = [before[i], before[i - 1] if i else -math.inf]
            if i > 1 and state not in (0, states[i - 2]) and number:
                ways.append(before[i - 2])
            score.append(max(ways) + frame[state])
    return max(score[-2:])
