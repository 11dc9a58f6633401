r"""Pictures as codes: an encoder's vectors become entries of a codebook, and a decoder paints from these.

The choice of the nearest entry has no gradient, so what is learned of it is put together: the gradient is copied past
the choice, the encoder is drawn to its entry, and entries follow the vectors that chose them. A discrete variational
autoencoder draws its codes instead, and pays for what they tell, as a divergence from drawing evenly.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor


def copied_gradient(z: Float[Tensor, "*n d"], entry: Float[Tensor, "*n d"]) -> Float[Tensor, "*n d"]:
    r"""The entries going forward, and the vectors that chose them going back: the gradient passes straight through.

    .. math:: z + \mathrm{sg}[e - z]

    The entries learn nothing from it. Source: van den Oord et al. 2017 (VQ-VAE), section 3.2.
    """
    return z + (entry - z).detach()


def commitment(z: Float[Tensor, "*n d"], entry: Float[Tensor, "*n d"]) -> Float[Tensor, ""]:
    r"""The encoder is to stay near the entries that it chose, :math:`\lVert z - \mathrm{sg}[e] \rVert^2`, as a mean.

    The mean is over numbers, as in the official code. Source: van den Oord et al. 2017 (VQ-VAE), section 3.2, the
    loss's third term, without its weight β.
    """
    return F.mse_loss(z, entry.detach())


def codebook_loss(z: Float[Tensor, "*n d"], entry: Float[Tensor, "*n d"]) -> Float[Tensor, ""]:
    r"""Entries move to the vectors that chose them, :math:`\lVert \mathrm{sg}[z] - e \rVert^2`, as a mean.

    Source: van den Oord et al. 2017 (VQ-VAE), section 3.2, the loss's second term.
    """
    return F.mse_loss(entry, z.detach())


def code_statistics(
    z: Float[Tensor, "n d"], codes: Int[Tensor, "n"], entries: int
) -> tuple[Float[Tensor, "k"], Float[Tensor, "k d"]]:
    r"""How many vectors chose each of the k ``entries``, and their sum: :math:`n_k` and :math:`\sum_{i \in k} z_i`."""
    count = z.new_zeros(entries).index_add(0, codes, z.new_ones(len(codes)))
    return count, z.new_zeros(entries, z.shape[1]).index_add(0, codes, z)


def moving_entries(
    count: Float[Tensor, "k"],
    total: Float[Tensor, "k d"],
    new_count: Float[Tensor, "k"],
    new_total: Float[Tensor, "k d"],
    decay: float,
) -> tuple[Float[Tensor, "k"], Float[Tensor, "k d"], Float[Tensor, "k d"]]:
    r"""Entries as moving averages of the vectors that chose them: the new counts, sums and entries.

    .. math:: N_k \leftarrow \gamma N_k + (1 - \gamma)\, n_k, \quad
       m_k \leftarrow \gamma m_k + (1 - \gamma) \sum_{i \in k} z_i, \quad e_k = m_k / N_k

    An entry that nothing chose keeps its position, because both shrink alike. With γ = 0 this is a step of k-means, but
    for entries that nothing chose: they have no place then, and are NaN. Source: van den Oord et al. 2017 (VQ-VAE),
    appendix A.1.
    """
    count, total = torch.lerp(new_count, count, decay), torch.lerp(new_total, total, decay)
    return count, total, total / count[:, None]


def dead_entries(count: Float[Tensor, "k"], least: float) -> Bool[Tensor, "k"]:
    r"""Which entries are chosen less often than ``least`` times their even share, :math:`N_k < \lambda \bar N`.

    0 finds none. Source: Dhariwal et al. 2020 (Jukebox), random restarts, whose threshold is a number of choices.
    """
    return count < least * count.mean()


def codes_in_use(codes: Int[Tensor, "*n"], entries: int) -> float:
    """The share of all ``entries`` that occur among these codes."""
    return len(codes.unique()) / entries


def divergence_from_even(logits: Float[Tensor, "*n k"]) -> Float[Tensor, "*n"]:
    r"""What a choice among k tells, in nats: its Kullback–Leibler divergence from an even one.

    .. math:: D_\mathrm{KL}(q \,\|\, \mathrm{Uniform}) = \ln k - H(q)

    0 where all are equally likely, ln k where one is certain. Source: Ramesh et al. 2021 (DALL·E), equation 1, with the
    prior of section 2.1.
    """
    log_p = logits.log_softmax(-1)  # finite, and so is its gradient, where a probability becomes 0
    return (log_p.exp() * (log_p + math.log(logits.shape[-1]))).sum(-1)


EDGE = 0.1  # pixels are kept so far from 0 and 1, where a logit has no end


def to_open_interval(pixels: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    r"""Pixels from 0 to 1, squeezed into :math:`[\epsilon, 1 - \epsilon]` with ε = 0.1.

    Source: Ramesh et al. 2021 (DALL·E), appendix A.3, equation 3.
    """
    return (1 - 2 * EDGE) * pixels + EDGE


def from_open_interval(pixels: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """The inverse of :func:`to_open_interval`, cut to [0, 1]. Source: official code, ``unmap_pixels``."""
    return ((pixels - EDGE) / (1 - 2 * EDGE)).clamp(0, 1)


def logit_laplace(
    pixels: Float[Tensor, "*n"], middle: Float[Tensor, "*n"], log_scale: Float[Tensor, "*n"]
) -> Float[Tensor, "*n"]:
    r"""The negative log-likelihood of pixels in (0, 1) whose logits are spread by a Laplace distribution.

    .. math:: -\log \left[ \frac{1}{2 b x (1 - x)} \exp\left(-\frac{|\mathrm{logit}(x) - \mu|}{b}\right) \right]

    Where pixels are surely below 1 and above 0, so is what is drawn from it; a Laplace or normal distribution on pixels
    would spend some of its mass beyond them. Source: Ramesh et al. 2021 (DALL·E), appendix A.3, equation 2.
    """
    distance = (pixels.logit() - middle).abs() * (-log_scale).exp()
    return math.log(2) + log_scale + pixels.log() + (-pixels).log1p() + distance


def cosine_ramp(step: Int[Tensor, ""], steps: int, start: float, end: float) -> Float[Tensor, ""]:
    r"""A number that goes from ``start`` to ``end`` within so many steps, along half a cosine, and stays there.

    Source: Ramesh et al. 2021 (DALL·E), appendix A.2, of temperature and of the divergence's weight.
    """
    way = (step.double() / steps).clamp(max=1) if steps else torch.ones_like(step, dtype=torch.double)
    return end + (start - end) * (1 + torch.cos(math.pi * way)) / 2
