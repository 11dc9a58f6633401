"""Wrong answers that people really give, and what each is told: ``MISTAKES[task][what it says][name]``."""

import math
from functools import partial

import torch
import torch.nn.functional as F
from common_mistakes import detached, then

from mmlearn.generation.ctc import collapse
from mmlearn.models.speech.encoder import frame_count, frame_mask
from mmlearn.objectives import ctc_log_likelihood

# Frames.


def _mel(f):
    return 2595 * math.log10(1 + f / 700)


def _hertz(m):
    return 700 * (10 ** (m / 2595) - 1)


def _triangles(
    n_freqs,
    f_min,
    f_max,
    n_mels,
    sample_rate,
    *,
    mel=_mel,
    hertz=_hertz,
    corners=2,
    top=0.5,
    height=lambda left, right: 1.0,
    clamp=True,
    reach=1.0,
    shape=lambda up, down: torch.minimum(up, down),
):
    """A filterbank of triangles, or one that differs in a single position."""
    f = torch.linspace(0, top * sample_rate, n_freqs)[:, None]
    points = hertz(torch.linspace(mel(f_min), mel(f_max), n_mels + corners))[: n_mels + 2]
    left, middle, right = points[:-2], points[1:-1], points[2:]
    up, down = (f - left) / (middle - left), (right - f) / (right - middle)
    bank = shape(up, down) * height(left, right)
    return bank.clamp(min=0) if clamp else bank


def _straight_in_mel(n_freqs, f_min, f_max, n_mels, sample_rate):
    f = 2595 * (1 + torch.linspace(0, sample_rate / 2, n_freqs)[:, None] / 700).log10()
    corner = torch.linspace(_mel(f_min), _mel(f_max), n_mels + 2)
    step = corner[1] - corner[0]
    return (1 - (f - corner[1:-1]).abs() / step).clamp(min=0)


def _count(samples, kernels, strides, *, step=lambda n, k, s: (n - k) // s + 1, least=0):
    for kernel, stride in zip(kernels, strides):
        samples = step(samples, kernel, stride)
    return samples.clamp(min=least) if isinstance(samples, torch.Tensor) else max(samples, least)


def _reversed_layers(samples, kernels, strides):
    return frame_count(samples, kernels[::-1], strides[::-1])


def _frames(mask, kernels, strides, *, real=lambda windows: windows.all(-1)):
    """Which windows are real, by looking at every sample that a frame sees."""
    hop, seen = math.prod(strides), 1 + sum((k - 1) * math.prod(strides[:i]) for i, k in enumerate(kernels))
    return real(mask.unfold(1, seen, hop))


def _by_share(mask, kernels, strides):
    """Frames in proportion to the samples."""
    frames = frame_count(mask.shape[1], kernels, strides)
    real = (mask.sum(1) * frames / mask.shape[1]).ceil()
    return torch.arange(frames) < real[:, None]


def _every_so_many(mask, kernels, strides):
    return mask[:, :: math.prod(strides)]


def _of_the_longest(mask, kernels, strides):
    return torch.ones_like(frame_mask(mask, kernels, strides))


# Words.


def _collapsed(path, blank=0, *, merge=torch.unique_consecutive, blanks_first=False):
    if blanks_first:
        path = path[path != blank]
    path = merge(path)
    return path[path != blank]


def _forward(
    log_probs,
    tokens,
    frame_mask=None,
    token_mask=None,
    blank=0,
    *,
    skip=lambda symbols, before, blank: symbols != before,
    add=lambda ways: ways.logsumexp(0),
    end=lambda last_two: last_two.logsumexp(1),
    first=lambda new: new,
    low=-1e30,
    masked_frames=True,
    own_end=True,
):
    """The forward algorithm, or one that differs in a single position."""
    real = torch.ones_like(tokens, dtype=torch.bool) if token_mask is None else token_mask
    frames = torch.ones_like(log_probs[..., 0], dtype=torch.bool) if frame_mask is None else frame_mask
    symbols = torch.full((len(tokens), 2 * tokens.shape[1] + 1), blank)
    symbols[:, 1::2] = tokens.masked_fill(~real, blank)
    emission = log_probs.gather(2, symbols[:, None].expand(-1, log_probs.shape[1], -1))
    before = F.pad(symbols, (2, 0), value=blank)[:, :-2]
    cost = torch.zeros_like(emission[:, 0]).masked_fill(~skip(symbols, before, blank), low)
    alpha = torch.full_like(cost, low)
    alpha[:, 0] = 0
    for t in range(log_probs.shape[1]):
        moved = F.pad(alpha, (2, 0), value=low)
        new = emission[:, t] + add(torch.stack([alpha, moved[:, 1:-1], moved[:, :-2] + cost]))
        new = new if t else first(new)
        alpha = torch.where(frames[:, t, None], new, alpha) if masked_frames else new
    last = 2 * real.sum(1, keepdim=True) if own_end else torch.full((len(tokens), 1), 2 * tokens.shape[1])
    return end(torch.cat([alpha.gather(1, last), alpha.gather(1, (last - 1).clamp(min=0))], 1))


def _never_skip(symbols, before, blank):
    return torch.zeros_like(symbols, dtype=torch.bool)


def _skip_any_token(symbols, before, blank):
    return symbols != blank


def _in_probabilities(log_probs, *rest, **named):
    """The same sums of products, which soon are too small for float32."""
    add = partial(_forward, add=lambda ways: (ways.exp().sum(0)).log())
    return add(log_probs, *rest, **named).clamp(min=-1e30)


RIGHT = {  # right answers that are written in another way than the library's
    "melscale_fbanks": _triangles,
    "frame_count": _count,
    "frame_mask": _frames,
    "collapse": _collapsed,
    "ctc_log_likelihood": _forward,
}

MISTAKES = {
    "melscale_fbanks": {
        "these lie at equal distances in Hz": {
            "equal distances in Hz": partial(_triangles, mel=float, hertz=lambda m: m)
        },
        "must be at": {
            "another logarithm": partial(
                _triangles, mel=lambda f: 1127 * math.log10(1 + f / 700), hertz=lambda m: 700 * ((m / 1127).exp() - 1)
            ),
            "logarithm of base 2": partial(_triangles, mel=math.log2, hertz=torch.exp2),
            "bands + 1 corners of a longer row": partial(_triangles, corners=3),
            "bins up to the sample rate": partial(_triangles, top=1.0),
            "from 0 Hz": lambda n, low, *more: _triangles(n, 0.0, *more),
            "rectangles": then(_triangles, lambda y: (y > 0).float()),
        },
        "Each triangle must reach 1": {
            "area 1": partial(_triangles, height=lambda left, right: 2 / (right - left)),
            "the larger side": partial(_triangles, shape=torch.maximum),
        },
        "No weight may be below 0": {"not cut at 0": partial(_triangles, clamp=False)},
        "beyond its neighbours' middles": {
            "hills without an end": partial(
                _triangles, shape=lambda up, down: (-4 * (torch.minimum(up, down) - 1) ** 2).exp()
            )
        },
        "The sides must be straight in Hz": {
            "straight in mel": _straight_in_mel,
            "rounded hills": partial(
                _triangles, shape=lambda up, down: (torch.minimum(up, down).clamp(min=0) * math.pi / 2).sin()
            ),
        },
        "must have shape": {"bands first": then(_triangles, lambda y: y.T)},
    },
    "frame_count": {
        "nothing is padded": {
            "samples over stride": partial(_count, step=lambda n, k, s: n // s),
            "one too few": partial(_count, step=lambda n, k, s: (n - k) // s),
            "as if padded": partial(_count, step=lambda n, k, s: (n - 1) // s + 1),
        },
        "⌋ + 1 frames": {
            "rounded up": partial(_count, step=lambda n, k, s: -((k - n) // s) + 1),
            "one inside": partial(_count, step=lambda n, k, s: (n - k + 1) // s),
        },
        "It must hold whole numbers": {"not rounded": partial(_count, step=lambda n, k, s: (n - k) / s + 1)},
        "Of several convolutions each must read": {
            "layers in the other order": _reversed_layers,
            "the first layer alone": lambda n, kernels, strides: frame_count(n, kernels[:1], strides[:1]),
            "the largest kernel over all strides": lambda n, kernels, strides: frame_count(
                n, [max(kernels)], [math.prod(strides)]
            ),
        },
        "A number instead of a tensor: It stops in line": {"tensors only": then(frame_count, lambda y: y.clamp(min=0))},
        "shorter than a window must have 0 frames": {
            "below 0": partial(_count, least=-(10**6)),
            "at least one": partial(_count, least=1),
        },
    },
    "frame_mask": {
        "sees even one padded sample must not be real": {
            "any real sample": partial(_frames, real=lambda w: w.any(-1)),
            "the middle sample": partial(_frames, real=lambda w: w[..., w.shape[-1] // 2]),
            "the first sample": partial(_frames, real=lambda w: w[..., 0]),
            "by share": _by_share,
            "nothing is padding": _of_the_longest,
        },
        "must have shape": {"every so many samples": _every_so_many},
        "Without padding every frame must be real": {
            "turned round": lambda *a: ~frame_mask(*a),
            "one too few": lambda *a: F.pad(frame_mask(*a), (0, 1), value=False)[:, 1:],
        },
        "A frame of which all samples are real must be real": {
            "sure by one more": lambda mask, kernels, strides: (
                frame_mask(mask, kernels, strides)
                & (mask.all(1)[:, None] | F.pad(frame_mask(mask, kernels, strides), (0, 1), value=False)[:, 1:])
            ),
            "frames at the end": lambda *a: frame_mask(*a).flip(1),
        },
        "It must be boolean": {"numbers": lambda *a: frame_mask(*a).float()},
    },
    "collapse": {
        "must keep them apart": {"blanks first": partial(_collapsed, blanks_first=True)},
        "A token may come back later": {
            "a set": partial(_collapsed, merge=torch.unique),
            "in order of first sight": partial(
                _collapsed, merge=lambda path: torch.tensor(list(dict.fromkeys(path.tolist())))
            ),
        },
        "Repeats must be merged": {
            "repeats stay": partial(_collapsed, merge=lambda path: path),
            "the path": lambda path, blank=0: path.clone(),
        },
        "Blanks must be removed": {
            "blanks stay": lambda path, blank=0: path.unique_consecutive(),
            "blanks marked": lambda path, blank=0: path.unique_consecutive().masked_fill(
                path.unique_consecutive() == blank, -1
            ),
        },
        "0 is a token then": {"blank 0 always": lambda path, blank=0: collapse(path)},
        "must have shape": {"a column": lambda path, blank=0: collapse(path, blank)[:, None]},
    },
    "ctc_log_likelihood": {
        "must have that token's ln p": {
            "minus": then(ctc_log_likelihood, lambda y: -y),
            "no logarithm": then(ctc_log_likelihood, lambda y: y.exp()),
            "the first blank is needed": partial(
                _forward, first=lambda new: F.pad(new[:, :1], (0, new.shape[1] - 1), value=-1e30)
            ),
            "ends with a blank": partial(_forward, end=lambda e: e[:, 0]),
            "over blanks and tokens": partial(
                _forward, skip=lambda s, before, blank: torch.ones_like(s, dtype=torch.bool)
            ),
        },
        "alone": {"the likeliest path": partial(_forward, add=lambda ways: ways.amax(0), end=lambda e: e.amax(1))},
        "last token or with a blank after it": {"ends with a token": partial(_forward, end=lambda e: e[:, 1])},
        "the blank may be left out": {
            "blanks between all tokens": partial(_forward, skip=_never_skip),
            "divided by the length": lambda log_probs, tokens, *more, **named: (
                ctc_log_likelihood(log_probs, tokens, *more, **named) / tokens.shape[1]
            ),
        },
        "Two equal tokens need a blank": {"no blank between equal ones": partial(_forward, skip=_skip_any_token)},
        "A long clip: ": {"probabilities": _in_probabilities},
        "Frames that frame_mask leaves out must": {"padded frames": partial(_forward, masked_frames=False)},
        "Tokens that token_mask leaves out must": {"the end of the longest": partial(_forward, own_end=False)},
        "0 is a token then": {
            "blank 0 always": lambda log_probs, tokens, frames=None, real=None, blank=0: _forward(
                log_probs, tokens, frames, real, 0
            )
        },
        "must have shape (5,)": {"their mean": then(ctc_log_likelihood, lambda y: y.mean())},
        "A gradient must flow from the result": {"no gradient": detached(ctc_log_likelihood)},
    },
}
