"""Plain answers to the tasks; each comment is one step, and what ``mmlearn exercises hint`` gives."""

import torch


def add_noise(waveform, snr, generator):
    # White noise of the sound's shape, from the generator.
    noise = torch.randn(waveform.shape, generator=generator)
    # The power of each row, of the sound and of the noise that was drawn; keepdim leaves an axis to multiply with.
    power, drawn = waveform.square().sum(-1, keepdim=True), noise.square().sum(-1, keepdim=True)
    # Decibels are 10 log10 of a ratio of powers. snr is one number or one for each row: bring it to (b, 1) or ().
    ratio = 10 ** (torch.as_tensor(snr).double() / 10)
    ratio = ratio[:, None] if ratio.ndim else ratio
    # The gain of amplitudes is the root of that of powers.
    gain = (power / drawn / ratio).sqrt()
    return waveform + (gain * noise).to(waveform.dtype)


def ratio_masks(magnitude):
    # The sum over the sources, which are axis 1; keep the axis.
    total = magnitude.sum(1, keepdim=True)
    # Where all are silent put 1 below the line, so that nothing is divided by 0.
    share = magnitude / torch.where(total > 0, total, 1)
    # There each source gets the same share.
    return torch.where(total > 0, share, 1 / magnitude.shape[1])


def si_sdr(estimate, reference):
    # Take the mean off both, over the samples of each row.
    estimate = estimate - estimate.mean(-1, keepdim=True)
    reference = reference - reference.mean(-1, keepdim=True)
    # α scales the reference to what of it is in the estimate.
    scale = (estimate * reference).sum(-1, keepdim=True) / reference.square().sum(-1, keepdim=True)
    right, wrong = scale * reference, scale * reference - estimate
    # Powers are sums of squares over the samples.
    right, wrong = right.square().sum(-1), wrong.square().sum(-1)
    # Keep the fraction finite with something small beside the estimate's own energy.
    least = 1e-10 * (right + wrong)
    score = 10 * torch.log10((right + least) / (wrong + least))
    # A silent estimate has 0 / 0: a very low score.
    return torch.where(right + wrong > 0, score, -100.0)


def frames_near(time, frames, fps, tolerance=1):
    # The frame that each moment falls in: seconds times frames a second, rounded down.
    own = (time * fps).floor()
    # Compare it with the number of every frame, (n, frames).
    return (torch.arange(frames) - own[:, None]).abs() <= tolerance
