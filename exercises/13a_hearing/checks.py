"""From a waveform to words: what each function must do, told one property at a time."""

import itertools
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torchaudio.functional import melscale_fbanks

from mmlearn.exercises import (
    agreement,
    by_hand,
    case,
    expect,
    expect_boolean,
    expect_close,
    expect_not,
    expect_number,
    expect_tensor,
    expect_trains,
    expect_whole,
    task,
)
from mmlearn.exercises.inputs import between, first_of
from mmlearn.generation.ctc import collapse
from mmlearn.models.speech.encoder import frame_count, frame_mask, receptive_field
from mmlearn.objectives import ctc_log_likelihood


@task(
    collapse,
    difficulty=1,
    minutes=10,
    example=by_hand(torch.tensor([0, 3, 3, 0, 3, 5, 0]), gives=torch.tensor([3, 3, 5])),
)
def check_collapse(function: Callable) -> None:
    """Repeats are merged first, blanks removed then."""
    a, b, c = (torch.randperm(20)[:3] + 1).tolist()

    def expect_text(path: list[int], text: list[int], property: str, hint: str, *blank: int) -> None:
        got = expect_tensor(function(torch.tensor(path, dtype=torch.long), *blank))
        expect(got.ndim == 1, "It must return a text, (t,).", "one axis, of tokens.")
        expect(got.tolist() == text, f"{property} {path} must read {text}; this reads {got.tolist()}.", hint)

    expect_tensor(function(torch.tensor([a, b, c])), (3,))
    expect_text([a, b, c, a], [a, b, c, a], "A token may come back later.", "only neighbours are merged, no set.")
    expect_text([a, a, a, b, b], [a, b], "Repeats must be merged.", "unique_consecutive.")
    expect_text([0, a, 0, b, 0], [a, b], "Blanks must be removed.", "keep what is not the blank.")
    apart = "A blank between two equal tokens must keep them apart."
    expect_text([a, a, 0, a, b], [a, a, b], apart, "merge first, remove blanks then.")
    expect_text([0, 0, 0], [], "A path of blanks must read nothing.", "an empty tensor.")
    with case(f"With blank {a}"):
        expect_text([a, b, 0, 0, a, 0], [b, 0, 0], "0 is a token then.", "use the argument.", a)
        expect_text([0, b, a], [0, b], "0 is a token then, at the beginning too.", "nothing must stand before it.", a)
    with case("With blank 30"):
        expect_text(
            [30, a, a, 30, a], [a, a], "Other tokens are those that are not the blank, not those above it.", "!=", 30
        )
    expect_text([0, a, a], [a], "A text of one token must have its axis.", "no squeeze().")
    expect_text([], [], "A path without frames must read nothing.", "path[0] is not there.")
    large = 2**24
    with case("Tokens above 2²⁴"):
        exact = "keep whole numbers: as float32 two tokens so large become one."
        expect_text([large, large + 1], [large, large + 1], "Neighbouring numbers must stay apart.", exact)
    path = torch.randint(0, 4, (60,)).tolist()
    expect_text(path, collapse(torch.tensor(path)).tolist(), "Long paths must be read too.", "the same two steps.")


# Frames.


@task(
    melscale_fbanks,
    difficulty=3,
    minutes=20,
    example=by_hand(7, 0.0, 2100.0, 1, 4200, gives=torch.tensor([[0.0], [0.5], [1.0], [0.75], [0.5], [0.25], [0.0]])),
)
def check_melscale_fbanks(function: Callable) -> None:
    """As many triangles as bands, of height 1, with corners at equal distances in mel and straight sides in Hz."""
    bins, bands, rate = between(1900, 2100), between(12, 20), 16_000  # so many bins that each triangle shows its tip
    low, high = float(between(80, 200)), float(between(6500, 7500))
    got = expect_tensor(function(bins, low, high, bands, rate), (bins, bands))
    expect((got >= 0).all(), "No weight may be below 0.", "clamp(min=0): beyond its corners a triangle is over.")
    _check_triangles(got, low, high, rate)
    expect_close(
        got,
        melscale_fbanks(bins, low, high, bands, rate),
        "The sides must be straight in Hz.",
        "the corners go back to Hz first; distances are of frequencies, not of mels.",
        tolerance=1e-3,
    )
    for rate in (8000, 22_050, 44_100):
        with case(f"At {rate} samples a second"):
            given, wanted = (bins, 60.0, 0.45 * rate, bands, rate), "The bands must be where they belong."
            same, hint = agreement(function, melscale_fbanks, tolerance=1e-3), "n_freqs points from 0 to rate / 2."
            same(given, wanted, hint)


def _check_triangles(got: Tensor, low: float, high: float, rate: int) -> None:
    bins, bands = got.shape
    hertz = torch.linspace(0, rate / 2, bins)
    mel = torch.linspace(2595 * math.log10(1 + low / 700), 2595 * math.log10(1 + high / 700), bands + 2)
    corner = 700 * (10 ** (mel / 2595) - 1)
    step = 1.5 * rate / 2 / (bins - 1)
    peak, at = got.max(0)
    expect(
        (peak > 0.9).all() and (peak < 1.001).all(),
        f"Each triangle must reach 1 at its middle; these reach {float(peak.min()):.2g} to {float(peak.max()):.2g}.",
        "height 1, not area 1: rising (f - left) / (middle - left), falling (right - f) / (right - middle).",
    )
    middle = hertz[at]
    gaps = middle.diff()
    expect(
        gaps.max() > 1.5 * gaps.min(),
        "The middles must lie at equal distances in mel; these lie at equal distances in Hz.",
        "linspace between the two mels, and only then back to Hz.",
    )
    wrong = (middle - corner[1:-1]).abs() > step
    k = int(wrong.int().argmax())
    expect(
        not wrong.any(),
        f"The middle of band {k} must be at {float(corner[1:-1][k]):.0f} Hz; this is at {float(middle[k]):.0f} Hz.",
        "m = 2595 log10(1 + f / 700); bands + 2 corners from f_min to f_max; bins from 0 to half the sample rate.",
    )
    inside = (hertz[:, None] > corner[:-2] - step) & (hertz[:, None] < corner[2:] + step)
    expect(
        not got[~inside].any(),
        "A triangle must be 0 beyond its neighbours' middles.",
        "it rises from the middle of the band below and falls to the middle of the band above.",
    )


@task(frame_count, difficulty=2, minutes=10, example=by_hand(12, [4, 2], [2, 2], gives=2))
def check_frame_count(function: Callable) -> None:
    """One convolution, then several; numbers and tensors of them; never below 0."""
    kernel, stride, n = between(4, 9), between(2, 4), between(600, 9000)
    kernels, strides = [10, 3, 3, 2], [5, 2, 3, 2]

    def compare(samples: Tensor, kernels: Sequence[int], strides: Sequence[int], property: str, hint: str) -> None:
        got = expect_whole(function(samples, kernels, strides), samples.shape, "// and not /.")
        expect(torch.equal(got, frame_count(samples, kernels, strides)), property, hint)

    compare(
        torch.randint(400, 3000, (6,)),
        [kernel],
        [1],
        f"A kernel of {kernel} with stride 1 must give n - {kernel} + 1 frames: nothing is padded.",
        "the last window begins at sample n - kernel; the first at 0.",
    )
    compare(
        torch.arange(kernel, kernel + 3 * stride),
        [kernel],
        [stride],
        f"A kernel of {kernel} with stride {stride} must give ⌊(n - {kernel}) / {stride}⌋ + 1 frames.",
        "divide what is left after the first window, round down, and then count that first one.",
    )
    compare(
        torch.randint(600, 9000, (40,)),
        kernels,
        strides,
        "Of several convolutions each must read the frames of the one before it.",
        "in a loop: what comes out of one goes into the next, in their order.",
    )
    with case("A number instead of a tensor"):
        same = agreement(function, frame_count)
        same((n, kernels, strides), "It must work as well.", "no tensor needed.")
    compare(
        torch.arange(1, receptive_field(kernels, strides)),
        kernels,
        strides,
        "A clip that is shorter than a window must have 0 frames.",
        "clamp at 0, but only in the end.",
    )
    expect_number(function(3, kernels, strides), 0, "A number of samples below a window must give 0 frames.", "max.")
    with case("A number just below the window"):
        none = "It must give 0 frames."
        expect_number(function(kernel - 1, [kernel], [kernel]), 0, none, "// rounds down, int() towards 0.")
    with case("Seven convolutions"):
        seven = [5, 3, 3, 3, 3, 2, 2]
        compare(torch.randint(600, 9000, (9,)), seven, seven[::-1], "All of them must be counted.", "a loop over both.")
    number = function(n, kernels, strides)
    expect(not isinstance(number, float), "It must be a whole number; this is a float.", "// and not /.")
    for samples in (torch.tensor(n), torch.randint(600, 9000, (2, 3))):
        with case(f"Samples of shape {tuple(samples.shape)}"):
            compare(samples, kernels, strides, "It must work too.", "one operation on the whole tensor.")
    with case("More than 2²⁴ samples"):
        hint = "stay with whole numbers, //: float32 leaves out every second one there."
        compare(2**24 + torch.arange(9), [1], [1], "Every sample must count.", hint)


@task(
    frame_mask,
    difficulty=3,
    minutes=15,
    example=by_hand(first_of(12, [9, 10]), [4, 2], [2, 2], gives=torch.tensor([[True, False], [True, True]])),
)
def check_frame_mask(function: Callable) -> None:
    """A frame is real where all samples that it sees are."""
    kernels, strides = [(10, 3, 3), (8, 4, 2), (6, 5, 4)][between(0, 2)], (5, 2, 2)
    hop, seen = math.prod(strides), receptive_field(kernels, strides)
    n = seen + hop * between(12, 16) + between(0, hop - 1)
    frames = frame_count(n, kernels, strides)

    def ask(lengths: Tensor) -> Tensor:
        return expect_boolean(function(first_of(n, lengths), kernels, strides), (len(lengths), frames))

    whole = ask(torch.tensor([n, n])).all()
    expect(whole, "Without padding every frame must be real.", "True is real; as many frames as frame_count says.")
    last = torch.arange(1, frames)  # frame `last` sees samples up to hop · last + seen
    just, before = ask(hop * last + seen), ask(hop * last + seen - 1)
    rows = torch.arange(frames - 1)
    expect(
        just[rows, last].all(),
        "A frame of which all samples are real must be real.",
        f"the last of {seen} samples that it sees may be the last of the clip.",
    )
    expect(
        not before[rows, last].any(),
        "A frame that sees even one padded sample must not be real: it would change with the padding.",
        "count the frames of each clip's own length, by frame_count, and compare with arange.",
    )
    expect(
        before[rows, last - 1].all() and before[:, 0].all(),
        "All frames before it must be real.",
        "frames that are real come first, without a gap.",
    )
    lengths = torch.randint(seen, n + 1, (8,))
    expect(
        torch.equal(ask(lengths), frame_mask(first_of(n, lengths), kernels, strides)),
        "Each clip must be counted by its own length.",
        "sum the mask along its samples.",
    )
    with case("Clips of just one window"):
        got = expect_boolean(function(first_of(seen, [seen, seen - 1]), kernels, strides), (2, 1))
        expect(got.tolist() == [[True], [False]], "The first clip must have a frame that is real.", "n - seen = 0.")


# Words.


@task(
    ctc_log_likelihood,
    difficulty=5,
    minutes=45,
    example=by_hand(torch.full((1, 2, 2), 0.5).log(), torch.tensor([[1]]), gives=torch.tensor([-0.288])),
)
def check_ctc_log_likelihood(function: Callable) -> None:
    """All paths that read the text, and no other; in logarithms; padding and blanks where they belong."""
    v = between(4, 6)
    same = agreement(function, ctc_log_likelihood, tolerance=1e-4)

    def speak(b: int, s: int) -> Tensor:
        return (1.5 * torch.randn(b, s, v)).log_softmax(-1)

    def ask(log_probs: Tensor, text: list[int], *, finite: bool = True) -> Tensor:
        tokens = torch.tensor(text).repeat(len(log_probs), 1)
        return expect_tensor(function(log_probs, tokens), (len(log_probs),), finite=finite)

    one, two = speak(5, 1), speak(5, 2)
    expect_close(
        ask(one, [2]),
        one[:, 0, 2],
        "In one frame a text of one token must have that token's ln p.",
        "a logarithm: no minus, no exp, no division; the start may be the first token, not only a blank.",
    )
    _check_two_frames(two, ask(two, [2]))
    same(
        (speak(5, 2), torch.tensor([[1, 2]] * 5)),
        "Between two different tokens the blank may be left out.",
        "from a token one may go two on, if the token there is another one; ln p is not divided by the length.",
    )
    expect(
        (ask(speak(5, 2), [1, 1], finite=False) < -1e6).all(),
        "Two equal tokens need a blank between them, so that no path of two frames reads them: ln 0.",
        "no step of two between equal tokens.",
    )
    twice = torch.tensor([[1, 1, 2]] * 5)
    same((speak(5, 4), twice), "Repeated tokens must be read with a blank between them.", "only that pair.")
    frames = speak(1, 4)
    texts = [torch.tensor(list(itertools.product(range(1, v), repeat=t))) for t in range(1, 5)]
    each = [
        expect_tensor(function(frames.expand(len(some), -1, -1), some), (len(some),), finite=False) for some in texts
    ]
    total = torch.cat([frames[:, :, 0].sum(1), *each])
    expect_close(
        total.logsumexp(0),
        0.0,
        "The probabilities of all texts must add up to 1.",
        "each path reads just one text.",
        tolerance=1e-3,
    )
    _check_long_and_padded(function, speak(2, 400), speak(3, 9))


def _check_two_frames(frames: Tensor, got: Tensor) -> None:
    """A text of one token, 2, in two frames."""
    ways = torch.stack([frames[:, 0, i] + frames[:, 1, j] for i, j in ((2, 2), (0, 2), (2, 0))])
    alone = "All paths must be added; here it is the likeliest one alone."
    expect_not(got, ways.amax(0), alone, "logsumexp instead of max.", tolerance=1e-4)
    expect_not(
        got,
        (ways[:2].logsumexp(0), ways[2]),
        "A text may end with its last token or with a blank after it.",
        "add the last two states in the end.",
        tolerance=1e-4,
    )
    expect_close(
        got,
        ways.logsumexp(0),
        "In two frames a text of one token has three paths: twice the token, or a blank before or after it.",
        "the states are blank, token, blank; from frame to frame one stays or goes one on.",
        tolerance=1e-4,
    )


def _check_long_and_padded(function: Callable, long: Tensor, heard: Tensor) -> None:
    same = agreement(function, ctc_log_likelihood, tolerance=1e-4)
    v = heard.shape[2]
    with case("A long clip"):
        same((long, torch.randint(1, v, (2, 60))), "It must stay finite and right.", "add logarithms.")
    text = torch.tensor([[1, 2, 3], [2, 1, 1], [3, 1, 2]])
    same(
        (heard, text, first_of(9, [9, 5, 7])),
        "Frames that frame_mask leaves out must change nothing.",
        "where a frame is not real the state stays as it was.",
    )
    real = first_of(3, [1, 3, 2])
    same(
        (heard, text.masked_fill(~real, 0), None, real),
        "Tokens that token_mask leaves out must change nothing.",
        "each text ends at its own last token: gather the states 2 · length and 2 · length - 1.",
    )
    with case(f"With blank {v - 1}"):
        same((heard, torch.tensor([[0, 2, 0]] * 3)), "0 is a token then.", "use the argument.", blank=v - 1)
    both = first_of(9, [9, 6, 7]), real
    with case("With both masks"):
        same((heard, text.masked_fill(~real, 0), *both), "Neither may change the other.", "frames first, then ends.")
        _check_gradient(function, heard, text.masked_fill(~real, 0), *both)
    _check_gradient(function, heard, text)


def _check_gradient(function: Callable, logits: Tensor, *fixed: Tensor) -> None:
    """That of the logits, which a log_softmax stands behind: F.ctc_loss has it for no others."""

    def after_softmax(likelihood: Callable) -> Callable:
        def of_logits(log_probs: Tensor, *fixed: Tensor) -> Tensor:
            return likelihood(log_probs.log_softmax(-1), *fixed)

        return of_logits

    expect_trains(after_softmax(function), logits, fixed=fixed, like=after_softmax(ctc_log_likelihood))
