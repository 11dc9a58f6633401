r"""Separating sounds by masks: which part of every frequency, at every moment, belongs to which source?

A mixture is the sum of its sources, and so is its spectrum. A mask gives each bin of the mixture's spectrum a share
from 0 to 1; the masked spectrum, turned back, is the estimate of one source. Axes: ``n`` sources of one mixture,
``frequency`` bins, ``s`` frames. Magnitudes are not negative.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Complex, Float
from torch import Tensor


def spectrum(waveform: Float[Tensor, "*b samples"], fft_size: int, hop: int) -> Complex[Tensor, "*b frequency s"]:
    r"""The short-time Fourier transform with a Hann window: ``fft_size // 2 + 1`` frequencies, a frame every ``hop``.

    .. math:: X(\omega, t) = \sum_m w(m)\, x(t\,\mathrm{hop} + m)\, e^{-2\pi i \omega m / \mathrm{fft}}

    Frames are centred, with silence around the clip, so a clip may be shorter than a window: ``1 + ⌈samples / hop⌉``
    of them. Raises ``ValueError`` for a hop beyond half a window, from which nothing could be turned back, and for an
    empty clip.
    """
    if not 1 <= hop <= fft_size // 2:
        raise ValueError(f"hop is from 1 to half of fft_size {fft_size}, got {hop}.")
    if not waveform.shape[-1]:
        raise ValueError("A clip has at least one sample; this one is empty.")
    flat = waveform.reshape(-1, waveform.shape[-1])
    # To whole hops: else the last samples lie under the end of one window alone, where it is almost 0.
    flat = F.pad(flat, (0, -flat.shape[-1] % hop))
    window = torch.hann_window(fft_size, dtype=flat.dtype, device=flat.device)
    frames = torch.stft(flat, fft_size, hop, window=window, pad_mode="constant", return_complex=True)
    return frames.reshape(*waveform.shape[:-1], *frames.shape[1:])


def from_spectrum(
    spectrum: Complex[Tensor, "*b frequency s"], fft_size: int, hop: int, samples: int
) -> Float[Tensor, "*b samples"]:
    """The inverse of :func:`spectrum`, the first ``samples`` of it; for a masked spectrum, the closest waveform.

    Source: Griffin & Lim 1984, equation 6.
    """
    flat = spectrum.reshape(-1, *spectrum.shape[-2:])
    window = torch.hann_window(fft_size, dtype=flat.real.dtype, device=flat.device)
    waveform = torch.istft(flat, fft_size, hop, window=window)[:, :samples]
    return waveform.reshape(*spectrum.shape[:-2], waveform.shape[-1])


def ratio_masks(magnitude: Float[Tensor, "b n frequency s"]) -> Float[Tensor, "b n frequency s"]:
    r"""The ideal ratio masks: each source's share of the sum of all magnitudes, so that they sum to 1.

    .. math:: M_n(u, v) = \frac{|S_n(u, v)|}{\sum_m |S_m(u, v)|}

    Where all are silent, all get the same share. The paper divides by the magnitude of the mixture, which is less than
    the sum where sources cancel: its masks go beyond 1 and do not sum to it. Source: Zhao et al. 2018, equation 4.
    """
    total = magnitude.sum(1, keepdim=True)
    return torch.where(total > 0, magnitude / total.clamp(min=torch.finfo(total.dtype).tiny), 1 / magnitude.shape[1])


def binary_masks(magnitude: Float[Tensor, "b n frequency s"]) -> Float[Tensor, "b n frequency s"]:
    r"""The ideal binary masks: a bin belongs to its loudest source, and of equally loud ones to the first.

    .. math:: M_n(u, v) = \big[\,|S_n(u, v)| \ge |S_m(u, v)| \;\forall m\,\big]

    They sum to 1. Source: Zhao et al. 2018, equation 3.
    """
    loudest = magnitude.argmax(1, keepdim=True)
    return torch.zeros_like(magnitude).scatter_(1, loudest, 1.0)


def loudness(mixture: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    r"""How much a bin of this magnitude counts in a loss, :math:`\min(\max(\ln(1 + |S|), 10^{-3}), 10)`.

    Source: the official code of Zhao et al. 2018.
    """
    return mixture.log1p().clamp(1e-3, 10)


def binary_mask_loss(
    logits: Float[Tensor, "*b frequency s"],
    target: Float[Tensor, "*b frequency s"],
    weight: Float[Tensor, "*b frequency s"],
) -> Float[Tensor, ""]:
    r"""The cross-entropy of each bin between its mask and 0 or 1, as a mean by ``weight``.

    .. math:: \ell = -\frac{\sum_{uv} w_{uv} [M_{uv} \log \hat M_{uv} + (1 - M_{uv}) \log(1 - \hat M_{uv})]}
       {\sum_{uv} w_{uv}}, \quad \hat M = \sigma(z)

    Logits that know nothing give ln 2. The official code divides by the number of bins. Source: Zhao et al. 2018,
    section 3.2.
    """
    each = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return _weighted_mean(each, weight)


def ratio_mask_loss(
    mask: Float[Tensor, "*b frequency s"],
    target: Float[Tensor, "*b frequency s"],
    weight: Float[Tensor, "*b frequency s"],
) -> Float[Tensor, ""]:
    r"""The absolute distance of each bin's mask from its share, as a mean by ``weight``.

    .. math:: \ell = \frac{\sum_{uv} w_{uv} |\hat M_{uv} - M_{uv}|}{\sum_{uv} w_{uv}}

    Source: Zhao et al. 2018, section 3.2 (per-pixel L1).
    """
    return _weighted_mean((mask - target).abs(), weight)


def _weighted_mean(each: Tensor, weight: Tensor) -> Float[Tensor, ""]:
    return (each * weight).sum() / weight.sum().clamp(min=torch.finfo(each.dtype).tiny)
