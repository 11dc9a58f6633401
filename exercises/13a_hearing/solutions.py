"""Plain answers to the tasks; each comment is one step, and what ``mmlearn exercises hint`` gives."""

import math

import torch


def melscale_fbanks(n_freqs, f_min, f_max, n_mels, sample_rate):
    # The frequencies of the spectrum, from 0 to half the sample rate.
    frequency = torch.linspace(0, sample_rate / 2, n_freqs)
    # n_mels + 2 corners at equal distances in mel, and then back to Hz: f = 700 (10^(m / 2595) - 1).
    low, high = (2595 * math.log10(1 + f / 700) for f in (f_min, f_max))
    corner = 700 * (10 ** (torch.linspace(low, high, n_mels + 2) / 2595) - 1)
    # Each band has a left, a middle and a right corner.
    left, middle, right = corner[:-2], corner[1:-1], corner[2:]
    # It rises from left to middle and falls from middle to right, straight in Hz; frequencies are a column.
    rising = (frequency[:, None] - left) / (middle - left)
    falling = (right - frequency[:, None]) / (right - middle)
    # The lower of the two lines is the triangle, and below 0 it is over.
    return torch.minimum(rising, falling).clamp(min=0)


def frame_count(samples, kernels, strides):
    # Each convolution reads the frames of the one before it; // rounds down, also for tensors.
    for kernel, stride in zip(kernels, strides):
        samples = (samples - kernel) // stride + 1
    # Below 0 there is nothing; a tensor has clamp, a number max.
    return samples.clamp(min=0) if isinstance(samples, torch.Tensor) else max(samples, 0)


def frame_mask(waveform_mask, kernels, strides):
    # A clip of so many real samples has so many real frames, and they come first.
    real = frame_count(waveform_mask.sum(1), kernels, strides)
    # As many positions as the padded clip has frames.
    frames = frame_count(waveform_mask.shape[1], kernels, strides)
    # Frame k is real if k is below the number of real ones.
    return torch.arange(frames) < real[:, None]


def collapse(path, blank=0):
    # First merge repeats that stand together: unique_consecutive.
    merged = path.unique_consecutive()
    # Then keep what is not the blank.
    return merged[merged != blank]


def ctc_log_likelihood(log_probs, tokens, frame_mask=None, token_mask=None, blank=0):
    b, s, _ = log_probs.shape
    if frame_mask is None:
        frame_mask = torch.ones(b, s, dtype=torch.bool)
    if token_mask is None:
        token_mask = torch.ones_like(tokens, dtype=torch.bool)
    # A blank before, between and after the tokens: 2 t + 1 symbols.
    symbols = torch.full((b, 2 * tokens.shape[1] + 1), blank)
    symbols[:, 1::2] = tokens.masked_fill(~token_mask, blank)
    # What each frame says of each symbol, (b, s, symbols).
    said = log_probs.gather(2, symbols[:, None].expand(-1, s, -1))
    # From which symbols one may come by a step of two: the symbol is no blank, and not that of two before.
    skips = torch.zeros_like(symbols, dtype=torch.bool)
    skips[:, 2:] = (symbols[:, 2:] != blank) & (symbols[:, 2:] != symbols[:, :-2])
    # Before the first frame only the state of the first blank is reached, with ln 1; ln 0 is a very low number.
    never = torch.full((b, 2), -1e30)
    alpha = torch.cat([torch.zeros(b, 1), torch.full((b, symbols.shape[1] - 1), -1e30)], dim=1)
    for t in range(s):
        # Three ways to come to a symbol: stay, one step, or two steps where that is allowed; logsumexp adds them.
        before = torch.cat([never, alpha], dim=1)
        two = torch.where(skips, before[:, :-2], -1e30)
        new = torch.stack([alpha, before[:, 1:-1], two]).logsumexp(0) + said[:, t]
        # A frame that is not real changes nothing.
        alpha = torch.where(frame_mask[:, t, None], new, alpha)
    # A text ends with its own last token or with the blank after it: the states 2 · length - 1 and 2 · length.
    last = 2 * token_mask.sum(1, keepdim=True)
    return torch.cat([alpha.gather(1, last), alpha.gather(1, last - 1)], dim=1).logsumexp(1)


def whisper_log_mel(waveform, mels=80):
    from mmlearn.data.mel import slaney_bands

    # A window of 400 samples every 160; it is centred, and mirrors the clip at its ends.
    spectrum = torch.stft(waveform, 400, 160, window=torch.hann_window(400), return_complex=True)
    # The last window is centred behind the clip; of the others the power, (b, 201, s).
    power = spectrum[:, :, :-1].abs().square()
    # Each band sums up the frequencies of its triangle: (mels, 201) times (b, 201, s).
    band = slaney_bands(mels).T @ power
    # The floor comes before the logarithm, which is log10.
    log = band.clamp(min=1e-10).log10()
    # Of each clip only the loudest 80 dB are kept, and all is brought near [-1, 1].
    loudest = log.amax((1, 2), keepdim=True)
    return (log.maximum(loudest - 8) + 4) / 4


def may_follow(written, words, times, first_within=50):
    # The end token is number words, and time 0 stands behind it.
    first, tokens = words + 1, written.tolist()
    allowed = torch.zeros(words + 1 + times, dtype=torch.bool)
    # Nothing is written: one of the first times.
    if not tokens:
        allowed[first : first + first_within + 1] = True
        return allowed
    # Everywhere else the text may end.
    allowed[words] = True
    # A time ends a phrase if a word stands before it; otherwise it begins one.
    is_time = tokens[-1] >= first
    ends = is_time and len(tokens) > 1 and tokens[-2] < first
    # The last time that was written, wherever it stands.
    last = max(token for token in tokens if token >= first)
    # Behind an end: the same time or later. Behind a beginning: words. Behind a word: words, or a later time.
    if ends:
        allowed[last:] = True
    else:
        allowed[:words] = True
        if not is_time:
            allowed[last + 1 :] = True
    return allowed
