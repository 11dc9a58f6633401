"""How well is a sound separated from others? In decibels, beside the mixture left as it is and beside ideal masks."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from mmlearn.objectives.separation import binary_masks, from_spectrum, ratio_masks, spectrum

LIMIT = 1e-10  # of an estimate's energy: what is lost in counting, so that scores lie between -100 and 100 dB


def si_sdr(estimate: Float[Tensor, "*b samples"], reference: Float[Tensor, "*b samples"]) -> Float[Tensor, "*b"]:
    r"""How loud what an estimate holds of its reference is, against all else in it, in dB: 0 if they are alike.

    .. math:: \text{SI-SDR} = 10 \log_{10} \frac{\lVert \alpha s \rVert^2}{\lVert \alpha s - \hat s \rVert^2}, \quad
       \alpha = \frac{\hat s^\top s}{\lVert s \rVert^2}

    Both have their mean taken off first, so neither a constant nor a louder or softer estimate changes the score.
    Numbers are kept from -100 to 100 dB: a perfect estimate would be infinite and gets 100; a silent one, or one
    that has nothing of its reference, gets -100. Raises ``ValueError`` for a silent reference, against which nothing
    can be measured, and for samples that are not finite. Source: Le Roux et al. 2019, equation 5.
    """
    estimate, reference = (x.double() - x.double().mean(-1, keepdim=True) for x in (estimate, reference))
    if not (estimate.isfinite().all() and reference.isfinite().all()):
        raise ValueError("A waveform has samples that are not finite; look for NaN in the estimate.")
    power = reference.square().sum(-1)
    # What rounding leaves of a constant is no sound.
    if (power <= 1e-20 * reference.shape[-1]).any():
        raise ValueError("A reference is silent, so that nothing can be measured against it; leave it out.")
    scale = (estimate * reference).sum(-1) / power
    target = scale[..., None] * reference
    right, wrong = target.square().sum(-1), (target - estimate).square().sum(-1)
    least = LIMIT * (right + wrong)
    score = 10 * torch.log10((right + least) / (wrong + least))
    return torch.where(right + wrong > 0, score, -100.0).float()


def si_sdr_improvement(
    estimate: Float[Tensor, "*b samples"], reference: Float[Tensor, "*b samples"], mixture: Float[Tensor, "*b samples"]
) -> Float[Tensor, "*b"]:
    """By how many dB an estimate is better than the mixture would be as the estimate. Errors as in :func:`si_sdr`."""
    return si_sdr(estimate, reference) - si_sdr(mixture, reference)


def ideal_estimates(
    sources: Float[Tensor, "b n samples"],
    fft_size: int,
    hop: int,
    masks: Callable[[Float[Tensor, "b n frequency s"]], Float[Tensor, "b n frequency s"]] = ratio_masks,
) -> Float[Tensor, "b n samples"]:
    """What masks that know the sources get out of the mixture: about the most that any mask of this kind can.

    The phase stays the mixture's. ``masks`` is :func:`~mmlearn.objectives.separation.ratio_masks` or
    :func:`~mmlearn.objectives.separation.binary_masks`. Estimates of ratio masks sum to the mixture.
    """
    each = spectrum(sources, fft_size, hop)
    masked = masks(each.abs()) * each.sum(1, keepdim=True)
    return from_spectrum(masked, fft_size, hop, sources.shape[-1])


class SeparationScores(NamedTuple):
    """Mean SI-SDR in dB over sources, and by how much that is better than the mixture left as it is."""

    mixture: float
    estimate: float
    improvement: float
    ratio_improvement: float  # of the ideal ratio mask
    binary_improvement: float  # of the ideal binary mask


def separation_scores(
    estimate: Float[Tensor, "b n samples"], sources: Float[Tensor, "b n samples"], fft_size: int, hop: int
) -> SeparationScores:
    """An estimate of each source of mixtures beside the mixture itself and two ideal masks.

    The mixture is the sum of the sources. Errors as in :func:`si_sdr`.
    """
    mixture = sources.sum(1, keepdim=True).expand_as(sources)
    before = si_sdr(mixture, sources).mean()
    own = si_sdr(estimate, sources).mean()
    ratio, binary = (
        si_sdr(ideal_estimates(sources, fft_size, hop, masks), sources).mean() for masks in (ratio_masks, binary_masks)
    )
    return SeparationScores(float(before), float(own), *(float(x - before) for x in (own, ratio, binary)))
