"""Dropped modalities and hidden frames: what each function must do, told one property at a time."""

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
    expect_boolean,
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
    near,
    task,
)
from mmlearn.exercises.inputs import between, first_of, seeded, uniform
from mmlearn.models.audiovisual.av_hubert import imposters
from mmlearn.objectives import masked_multimodal_cluster, modality_dropout


def _half_and_quarters(kept: tuple[Tensor, Tensor]) -> bool:
    heard, seen = (part.float() for part in kept)
    shares = torch.stack([heard * seen, heard * (1 - seen), seen * (1 - heard)]).mean(1)
    return near(shares, torch.tensor([0.5, 0.25, 0.25]), 0.06)


@task(
    modality_dropout,
    difficulty=2,
    minutes=15,
    example=by_hand(
        torch.ones(4000, 1, dtype=torch.bool),
        generator=seeded,
        gives=_half_and_quarters,
        says="both for half of the clips, and the sound alone and the pictures alone for a quarter each",
    ),
)
def check_modality_dropout(function: Callable) -> None:
    """Nothing at probability 0, never both, each clip by itself, from the generator."""
    clips, both, audio = between(2800, 3200), uniform(0.3, 0.5), uniform(0.68, 0.72)
    real = torch.ones(clips, 3, dtype=torch.bool)

    def draw(seed: Generator | None = None, **probability: float) -> tuple[Tensor, Tensor]:
        kept = expect_parts(function(real, generator=seeded(seed), **probability), "audio_kept", "video_kept")
        return expect_boolean(kept[0], (clips,)), expect_boolean(kept[1], (clips,))

    for p in (0.0, 1.0):
        heard, seen = draw(both=1.0, audio=p)
        expect(
            heard.all() and seen.all(),
            "With both = 1 nothing must be dropped: that is the identity.",
            "both is the probability to keep both; True means kept.",
        )
    heard, seen = draw(both=both, audio=audio)
    expect((heard | seen).all(), "No clip must lose both.", "choose which one goes; do not drop each by itself.")
    constant = all(int(part.sum()) in (0, clips) for part in (heard, seen))
    expect(
        not constant,
        "Each clip must be drawn by itself; here one draw holds for the whole batch.",
        "len(real) numbers.",
    )
    alone = "With both = 0 and audio = 1 the sound alone must stay."
    expect(
        all(map(torch.equal, draw(both=0.0, audio=1.0), (real[:, 0], ~real[:, 0]))), alone, "audio_kept comes first."
    )
    expect_share(heard & seen, both, f"Both must be kept in a share of {both:.2f} of clips.", "rand < both.")
    expect_share(
        heard & ~seen,
        (1 - both) * audio,
        f"The sound alone must stay in (1 - {both:.2f}) · {audio:.2f} of clips.",
        "two numbers a clip: audio counts only for those that lose one.",
    )
    lonely = ~heard | ~seen
    pairs = float((lonely[1:] & lonely[:-1]).float().mean())
    expect(
        abs(pairs - (1 - both) ** 2) < 0.08,
        "Clips that follow each other must have nothing to do with each other.",
        "draw for each clip; do not drop in order, or the first so many.",
    )
    expect_seeded(lambda seed: draw(seed, both=both, audio=audio))
    counts = {int((part[0] & part[1]).sum()) for part in (draw(both=both, audio=audio) for _ in range(20))}
    expect(len(counts) > 1, "Each clip must be drawn by itself; here as many keep both each time.", "rand < both.")


SURE = F.one_hot(torch.tensor([[0, 2, 0]]), 4).float() * torch.tensor([0.0, 99.0, 0.0])[:, None]


@task(
    masked_multimodal_cluster,
    difficulty=2,
    minutes=15,
    example=by_hand(
        SURE,
        torch.tensor([[0, 2, 1]]),
        torch.tensor([[True, False, False]]),
        torch.tensor([[True, True, False]]),
        torch.ones(1, 3, dtype=torch.bool),
        gives=math.log(4) / 2,
    ),
)
def check_masked_multimodal_cluster(function: Callable) -> None:
    """The mean over real frames of which at least one stream is hidden."""
    b, f, c = 3, 12, between(5, 8)
    real = first_of(f, [12, 9, 7])
    cluster = torch.randint(c, (b, f))
    audio, video = torch.zeros(2, b, f, dtype=torch.bool)
    audio[:, 1:4], video[:, 3:6] = True, True
    audio[1, 4:8] = True
    audio[:, -2:] = True  # also where clips are over
    given = cluster, audio, video, real
    same = agreement(function, masked_multimodal_cluster)
    mean = "a mean over the frames that count, of the cross-entropy."
    expect_log(function(torch.zeros(b, f, c), *given), c, "c", mean)
    logits = _check_which_count(function, c, *given)
    same(
        (logits, *given),
        "It must be the mean cross-entropy of the frames that count.",
        "-log softmax at the cluster's number, over the last axis.",
    )
    expect_trains(function, logits, fixed=given, like=masked_multimodal_cluster)
    with case("Padding with other numbers"):
        same(
            (logits, cluster.where(real, torch.tensor(-100)), *given[1:]),
            "What stands where clips are over must change nothing.",
            "index logits and clusters with what counts first.",
        )
        padded = (cluster.where(real, torch.tensor(-100)), *given[1:])
        expect_trains(function, logits, fixed=padded, like=masked_multimodal_cluster)
    with case("Logits of hundreds, of which the wrong ones are the highest"):
        sure = logits + 200 * F.one_hot((cluster + 1) % c, c)
        expect_sure_and_wrong(function, sure, fixed=given, like=masked_multimodal_cluster)
    with case("Nothing hidden"):
        expect_zero(function, logits, cluster, torch.zeros_like(audio), torch.zeros_like(audio), real)


def _check_which_count(
    function: Callable, c: int, cluster: Tensor, audio: Tensor, video: Tensor, real: Tensor
) -> Tensor:
    """Tell which frames were counted by mistake, and return the logits of which that can be told."""
    told = (
        (real, "Frames that are seen and heard must not count.", "only audio_masked | video_masked."),
        (
            audio & video & real,
            "It must count frames hidden in either stream; here only those hidden in both.",
            "or, not and.",
        ),
        (audio & real, "Frames whose picture is hidden must count as well.", "audio_masked | video_masked."),
        (video & real, "Frames whose sound is hidden must count as well.", "audio_masked | video_masked."),
        ((audio ^ video) & real, "Frames hidden in both streams must count too, once.", "|, not ^."),
        (audio | video, "Frames where a clip is over must not count.", "& real."),
    )
    right, apart = (audio | video) & real, 0.0
    while apart < 0.005:  # draw until the mean over each of these sets of frames is another number
        logits = 3 * torch.randn(*cluster.shape, c)
        each = -logits.log_softmax(-1).gather(2, cluster[..., None])[..., 0]
        means = [each[frames].mean() for frames in (right, *(frames for frames, *_ in told))]
        clips = torch.stack([row[frames].mean() for row, frames in zip(each, right)]).mean()
        apart = torch.stack([*means, clips]).sort().values.diff().min()
    got = expect_tensor(function(logits, cluster, audio, video, real), ())
    for mean, (_, property, hint) in zip(means[1:], told):
        expect(not near(got, mean), property, hint)
    expect(
        not near(got, clips),
        "It must be the mean over all frames that count, whatever clip they are of; here it is over clips.",
        "clips with more hidden frames weigh more: one mean, not a mean of means.",
    )
    return logits


THREE_OF_NINE = (torch.arange(9) < 3)[None]


@task(
    imposters,
    difficulty=5,
    minutes=40,
    example=by_hand(
        THREE_OF_NINE,
        torch.ones(1, 9, dtype=torch.bool),
        generator=seeded,
        gives=lambda got: got[0, :3].tolist() in ([3, 4, 5], [4, 5, 6], [5, 6, 7], [6, 7, 8]),
        says="3 4 5, 4 5 6, 5 6 7 or 6 7 8 at the first three frames",
    ),
)
def check_imposters(function: Callable) -> None:
    """A hidden run shows another place of its clip, whole, and never itself."""
    lengths, f = [20, between(14, 18), 9], 20
    real, position = first_of(f, lengths), torch.arange(f).expand(3, f)
    first, second = between(1, 5), between(10, 14)
    runs = [(0, first, first + 4), (0, second, second + 3), (1, 9, 14), (2, 0, 3)]
    masked = torch.zeros(3, f, dtype=torch.bool)
    for row, start, stop in runs:
        masked[row, start:stop] = True

    def draw(masked: Tensor = masked, real: Tensor = real, seed: Generator | None = None) -> Tensor:
        return expect_whole(function(masked, real, generator=seeded(seed)), tuple(masked.shape))

    drawn = torch.stack([draw() for _ in range(60)])
    itself = "A frame that is not hidden must show itself."
    expect((drawn == position)[:, ~masked].all(), itself, "start from arange, and change hidden positions only.")
    expect((drawn >= 0).all(), "Frames have numbers from 0 on.", "% of the clip's length brings them back.")
    inside = "Only real frames of the same clip must be shown; here some lie behind its end."
    expect((drawn < torch.tensor(lengths)[:, None])[:, masked].all(), inside, "% the clip's own length.")
    shifts = [_shifts_of_run(drawn[:, row, start:stop], start, lengths[row]) for row, start, stop in runs]
    expect(
        any(len(one.unique()) > 1 for one in shifts),
        "The shift must be drawn anew by chance.",
        "a number from the length of the run to the clip's length less that.",
    )
    together = torch.equal(shifts[0], shifts[1])
    expect(not together, "Two runs of a clip must be shifted each by itself.", "one number a run, not one a clip.")
    alike = THREE_OF_NINE.expand(20, 9)
    expect_rows_differ(lambda seed: draw(alike, torch.ones_like(alike), seed)[:, :1], "clip")
    _check_every_shift(draw)
    with case("A run that is half of its clip"):
        half = (torch.arange(8) < 4)[None]
        shown = draw(half, torch.ones_like(half))[0, :4].tolist()
        expect(shown == [4, 5, 6, 7], f"It must show the other half; this shows {shown}.", "the only shift is n / 2.")
    expect_seeded(lambda seed: draw(seed=seed))


def _shifts_of_run(shown: Tensor, start: int, frames: int) -> Tensor:
    """By how much a hidden run from ``start`` on was shifted in each draw."""
    expect(
        (shown.diff(dim=1) % frames == 1).all(),
        "A run must show another run: frames that follow each other there too, also around the clip's end.",
        "one shift for a whole run, not one for each frame, and no clamp at the end.",
    )
    own = (shown >= start) & (shown < start + shown.shape[1])
    hint = "shift it by its length at least, and leave as much at the end."
    expect(not own.any(), "Nothing of a hidden run must show itself.", hint)
    return (shown[:, 0] - start) % frames


def _check_every_shift(draw: Callable) -> None:
    """Of many clips of nine frames whose first three are hidden, which so are shifted by 3 to 6."""
    many = torch.zeros(between(850, 950), 9, dtype=torch.bool)
    many[:, :3] = True
    drawn = draw(many, torch.ones_like(many))[:, 0] % 9
    share = {k: float((drawn == k).float().mean()) for k in range(3, 7)}
    said = ", ".join(f"{k}: {value:.2f}" for k, value in share.items())
    expect(
        all(math.isclose(value, 1 / 4, abs_tol=0.09) for value in share.values()),
        f"Every shift from l to n - l must be as likely; of 3 hidden of 9 these come ({said}).",
        "n - 2 l + 1 shifts, both ends too.",
    )
