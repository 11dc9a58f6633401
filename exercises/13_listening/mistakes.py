"""Wrong answers that people really give, and what each is told: ``MISTAKES[task][what it says][name]``."""

import math
from functools import partial

import torch
import torch.nn.functional as F

from mmlearn.exercises.mistakes import detached, from_global_state, from_own_seed, then
from mmlearn.generation.ctc import collapse
from mmlearn.models.speech.encoder import frame_count, frame_mask
from mmlearn.models.speech.quantiser import straight_through
from mmlearn.objectives import ctc_log_likelihood, distractor_contrast, mask_spans, masked_cluster, sample_distractors

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
    """A filterbank of triangles, or one that differs in a single place."""
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


# Without labels.


def _spans(
    real,
    *,
    generator,
    probability=0.065,
    length=10,
    spans=lambda p, n, length, u: (p * n + u).floor().clamp(min=1),
    most=lambda n, length: (n - 1).clamp(min=0) // length,
    last=lambda n, length, s: n - length,
    hide=None,
):
    """Spans by the order of random numbers, or by a rule that differs in a single place."""
    n = real.sum(1)
    chance = torch.rand(len(real), 1 + real.shape[1], generator=generator)
    wanted = torch.minimum(spans(probability, n, length, chance[:, 0]), most(n, length))
    order = chance[:, 1:].masked_fill(torch.arange(real.shape[1]) > last(n, length, real.shape[1])[:, None], 2.0)
    starts = order.argsort(1).argsort(1) < wanted[:, None]
    starts = starts & (order < 2)
    hidden = starts.clone()
    for later in range(1, hide or length):
        hidden[:, later:] |= starts[:, : hidden.shape[1] - later]
    return hidden


def _each_by_a_coin(real, *, generator, probability=0.065, length=10):
    """Each frame begins a span by chance, so that their number is chance as well."""
    n = real.sum(1)[:, None]
    starts = (torch.rand(real.shape, generator=generator) < probability) & (torch.arange(real.shape[1]) <= n - length)
    hidden = starts.clone()
    for later in range(1, length):
        hidden[:, later:] |= starts[:, :-later]
    one = _spans(real, generator=generator, probability=0, length=length)
    return torch.where(starts.any(1, keepdim=True), hidden, one)


def _distractors(
    masked,
    count,
    *,
    generator,
    allowed=lambda masked: masked,
    own=True,
    each=True,
    shape=lambda b, s, count: (b, s, count),
):
    """Evenly among the hidden frames of a clip but its own, or by a rule that differs in a single place."""
    b, s = masked.shape
    result = torch.zeros(b, s, count, dtype=torch.long)
    for i in range(b):
        for j in range(s):
            choice = allowed(masked)[i].nonzero()[:, 0]
            choice = choice[choice != j] if own else choice
            if len(choice):
                size = (count,) if each else (1,)
                drawn = torch.randint(len(choice), size, generator=generator)
                result[i, j] = choice[drawn].expand(count)
    return result


def _numbers_not_places(masked, count, *, generator):
    """The how-manieth hidden frame, and not where it is."""
    places = sample_distractors(masked, count, generator=generator)
    number = masked.long().cumsum(1) - 1
    return number.gather(1, places.flatten(1)).view_as(places)


def _moved_by_one(masked, count, *, generator):
    """Where its own place was drawn, the next hidden one is taken, which so comes twice as often."""
    drawn = _distractors(masked, count, generator=generator, own=False)
    hidden = masked.sum(1)
    places = (~masked).int().argsort(dim=1, stable=True)
    number = masked.long().cumsum(1) - 1
    following = places.gather(1, (number + 1) % hidden[:, None].clamp(min=1))
    return torch.where(drawn == torch.arange(masked.shape[1])[:, None], following[..., None], drawn)


def _one_draw_for_all(masked, count, *, generator):
    """The same random numbers for every frame of a clip."""
    hidden = masked.sum(1)[:, None, None]
    places, own = (~masked).int().argsort(dim=1, stable=True), (masked.int().cumsum(1) - 1)[:, :, None]
    drawn = (torch.rand(len(masked), 1, count, generator=generator) * (hidden - 1)).long()
    other = (drawn + (drawn >= own)).clamp(0, masked.shape[1] - 1)
    return places.gather(1, other.flatten(1)).view_as(other)


def _contrast(
    context,
    target,
    codes,
    distractor,
    masked,
    temperature=0.1,
    *,
    unit=lambda x: F.normalize(x, dim=-1),
    scale=lambda x, t: x / t,
    leave_out=lambda same: same.all(-1),
    low=-torch.inf,
    with_target=True,
    mean=lambda loss, masked: loss[masked].sum() / masked.sum().clamp(min=1),
):
    similarity = scale(unit(context) @ unit(target).mT, temperature)
    own = similarity.diagonal(dim1=1, dim2=2)[..., None]
    others = torch.stack([row[place] for row, place in zip(codes, distractor)])
    left = leave_out(others == codes[:, :, None])
    other = similarity.gather(2, distractor).masked_fill(left, low)
    logits = torch.cat([own, other], 2) if with_target else other
    return mean(logits.logsumexp(-1) - own[..., 0], masked)


def _clusters(
    logits,
    cluster,
    masked,
    alpha=1.0,
    *,
    hidden=lambda masked, real: masked & real,
    seen=lambda masked, real: ~masked & real,
    mean=lambda loss, where: loss[where].sum() / where.sum().clamp(min=1),
    mix=lambda a, h, s: a * h + (1 - a) * s,
):
    real = cluster != -100
    loss = F.cross_entropy(logits.mT, cluster.clamp(min=0), reduction="none")
    return mix(alpha, mean(loss, hidden(masked, real)), mean(loss, seen(masked, real)))


def _mean_of_means(loss, where):
    rows = [row[m].mean() for row, m in zip(loss, where) if m.any()]
    return torch.stack(rows).mean() if rows else loss.sum() * 0


# Choices with a gradient.


def _choice(logits, noise, temperature, *, soft=lambda z, n, t: ((z + n) / t).softmax(-1), pick=None):
    """One-hot of the largest, with the gradient of ``soft``."""
    p = soft(logits, noise, temperature)
    hard = F.one_hot((logits + noise if pick is None else pick(logits, noise)).argmax(-1), logits.shape[-1]).float()
    return hard + (p - p.detach())


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
    """The forward algorithm, or one that differs in a single place."""
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
        "Frames are whole numbers": {"not rounded": partial(_count, step=lambda n, k, s: (n - k) / s + 1)},
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
    "mask_spans": {
        "frames in a row must be hidden": {
            "single frames": partial(_spans, hide=1),
            "spans over the end": partial(_spans, last=lambda n, length, s: n - 1),
            "visible instead": lambda real, **more: real & ~mask_spans(real, **more),
        },
        "Padding must never be hidden": {
            "padding too": partial(_spans, last=lambda n, length, s: torch.full_like(n, s - length))
        },
        "Spans must begin anywhere where they fit": {
            "the last place never": partial(_spans, last=lambda n, length, s: n - length - 1)
        },
        "At least one span of each clip must be hidden": {
            "possibly none": partial(_spans, spans=lambda p, n, length, u: (p * n + u).floor())
        },
        "must begin a span; here it is": {"each frame by a coin": _each_by_a_coin},
        "about 49 % of a long clip must be hidden; here it is": {
            "a share of frames hidden": partial(
                _spans, spans=lambda p, n, length, u: (p * n / length + u).floor().clamp(min=1)
            )
        },
        "so 1 or 2 by chance": {
            "always rounded down": partial(_spans, spans=lambda p, n, length, u: (p * n + 0 * u).floor().clamp(min=1)),
            "of the padded clip": lambda real, *, generator, probability=0.065, length=10: _spans(
                real,
                generator=generator,
                probability=probability,
                length=length,
                spans=lambda p, n, length, u: (p * real.shape[1] + u).floor().clamp(min=1),
            ),
        },
        "Something of each clip must stay visible": {
            "everything": partial(_spans, most=lambda n, length: (n - length + 1).clamp(min=0))
        },
        "left whole": {
            "a clip of one span": partial(
                _spans, most=lambda n, length: torch.where(n == length, 1, (n - 1).clamp(min=0) // length)
            )
        },
        "The same seed must give the same result": {"torch's own generator": from_global_state(mask_spans)},
        "Another seed must draw something else": {"a seed of its own": from_own_seed(mask_spans)},
    },
    "sample_distractors": {
        "must never be its own distractor": {"its own too": partial(_distractors, own=False)},
        "Distractors must be hidden frames of the same clip": {
            "any frame": partial(_distractors, allowed=lambda masked: torch.ones_like(masked)),
            "frames that are seen": partial(_distractors, allowed=lambda masked: ~masked),
            "of other clips": partial(_distractors, allowed=lambda masked: masked.roll(1, 0)),
            "numbers, not places": _numbers_not_places,
        },
        "Places are of frames of the same clip": {
            "places in the whole batch": lambda masked, count, *, generator: (
                sample_distractors(masked, count, generator=generator)
                + masked.shape[1] * torch.arange(len(masked))[:, None, None]
            )
        },
        "must be drawn one by one; here all are the same": {
            "one for all": partial(_distractors, each=False),
            "its neighbour": lambda masked, count, *, generator: (
                ((~masked).int().argsort(dim=1, stable=True))
                .gather(1, (masked.long().cumsum(1) % masked.sum(1, keepdim=True)))[..., None]
                .expand(-1, -1, count)
            ),
        },
        "Each other hidden frame must be as likely": {"moved by one": _moved_by_one},
        "Each frame must draw its own distractors": {"one draw for all frames": _one_draw_for_all},
        "The same seed must give the same result": {"torch's own generator": from_global_state(sample_distractors)},
        "Another seed must draw something else": {"a seed of its own": from_own_seed(sample_distractors)},
        "must have shape": {
            "hidden frames alone": lambda masked, count, *, generator: sample_distractors(
                masked, count, generator=generator
            )[masked]
        },
    },
    "straight_through": {
        "Going forward it must be one-hot": {"soft": lambda z, n, t: ((z + n) / t).softmax(-1)},
        "A gradient must flow back to the logits": {
            "hard alone": lambda z, n, t: F.one_hot((z + n).argmax(-1), z.shape[-1]).float(),
            "all detached": detached(straight_through),
        },
        "The choice must be a sample": {"no noise": lambda z, n, t: straight_through(z, 0 * n, t)},
        "The choice must be the largest of logits + noise": {
            "noise taken away": partial(_choice, pick=lambda z, n: z - n),
            "noise alone": partial(_choice, pick=lambda z, n: n),
        },
        "Going back it must be a softmax, not the identity": {
            "the identity going back": partial(_choice, soft=lambda z, n, t: z)
        },
        "Going back it must have the gradient of softmax(logits + noise)": {
            "no noise going back": partial(_choice, soft=lambda z, n, t: (z / t).softmax(-1)),
            "hard times soft": lambda z, n, t: (
                (p := ((z + n) / t).softmax(-1)) / p.detach() * F.one_hot((z + n).argmax(-1), z.shape[-1])
            ),
            "the wrong one detached": lambda z, n, t: (
                F.one_hot((z + n).argmax(-1), z.shape[-1])
                - ((z + n) / t).softmax(-1)
                + ((z + n) / t).softmax(-1).detach()
            ),
        },
        "Going back the softmax must have temperature": {
            "multiplied by the temperature": partial(_choice, soft=lambda z, n, t: ((z + n) * t).softmax(-1)),
            "noise not divided": partial(_choice, soft=lambda z, n, t: (z / t + n).softmax(-1)),
            "no temperature": partial(_choice, soft=lambda z, n, t: (z + n).softmax(-1)),
        },
        "must have shape": {"which it is": lambda z, n, t: (z + n).argmax(-1)},
    },
    "distractor_contrast": {
        "it must cost ln(1 + k)": {
            "the target is no candidate": partial(_contrast, with_target=False),
            "a sum": partial(_contrast, mean=lambda loss, m: loss[m].sum()),
        },
        "How long vectors are must not matter": {"products": partial(_contrast, unit=lambda x: x)},
        "frames that are not hidden must not matter": {
            "every frame": partial(_contrast, mean=lambda loss, m: (loss * (1 if m.any() else 0)).mean())
        },
        "-log softmax(cosine / 0.1) at the target": {
            "multiplied by the temperature": partial(_contrast, scale=lambda x, t: x * t),
            "no temperature": partial(_contrast, scale=lambda x, t: x),
        },
        "With temperature 0.5": {"a fixed temperature": partial(_contrast, scale=lambda x, t: x / 0.1)},
        "here it is the other way": {
            "exchanged": lambda c, q, *more, **named: distractor_contrast(q, c, *more, **named)
        },
        "with the codes of the target is the target, and must be left out": {
            "distractors that are the target": partial(
                _contrast, leave_out=lambda same: torch.zeros_like(same[..., 0])
            ),
            "0 instead of -inf": partial(_contrast, low=0.0),
        },
        "Only a distractor of which all codes are the target's": {
            "one codebook is enough": partial(_contrast, leave_out=lambda same: same.any(-1))
        },
        "Its result must be finite": {"nothing hidden": partial(_contrast, mean=lambda loss, m: loss[m].mean())},
        "A gradient must flow back": {"no gradient": detached(distractor_contrast)},
        "must have shape ()": {"one loss a frame": partial(_contrast, mean=lambda loss, m: loss)},
    },
    "masked_cluster": {
        "Only hidden frames must count": {
            "every frame": partial(_clusters, hidden=lambda masked, real: real & masked.any())
        },
        "here it is those that are seen": {
            "frames that are seen": partial(_clusters, hidden=lambda masked, real: ~masked & real & masked.any()),
            "alpha for what is seen": partial(_clusters, mix=lambda a, h, s: (1 - a) * h + a * s),
        },
        "Logits that know nothing must cost ln c": {
            "divided by all frames": partial(_clusters, mean=lambda loss, where: (loss * where).mean()),
            "a sum": partial(_clusters, mean=lambda loss, where: loss[where].sum()),
        },
        "mean cross-entropy of hidden frames": {"a mean of means": partial(_clusters, mean=_mean_of_means)},
        "padding, of cluster -100, is none of them": {
            "padding is seen": partial(_clusters, seen=lambda masked, real: ~masked),
            "α = 1 always": lambda z, k, m, alpha=1.0: masked_cluster(z, k, m),
            "hidden added whole": partial(_clusters, mix=lambda a, h, s: h + (1 - a) * s if a < 1 else h),
        },
        "times the seen mean": {"α squared": partial(_clusters, mix=lambda a, h, s: a**2 * h + (1 - a**2) * s)},
        "must be finite": {"nothing hidden": partial(_clusters, mean=lambda loss, where: loss[where].mean())},
        "A gradient must flow back to the logits": {"no gradient": detached(masked_cluster)},
        "must have shape ()": {"one loss a frame": partial(_clusters, mean=lambda loss, where: loss * where)},
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
        "A gradient must flow back": {"no gradient": detached(ctc_log_likelihood)},
    },
}
