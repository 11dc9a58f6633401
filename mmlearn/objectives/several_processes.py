"""One mean of what several processes have, where each has another number of words."""

from jaxtyping import Float, Int
from torch import Tensor

from mmlearn.objectives.all_gather import gather


def mean_over_all(mean: Float[Tensor, ""], count: Int[Tensor, ""]) -> Float[Tensor, ""]:
    r"""A process's mean over ``count`` words, so scaled that the mean of the processes is that over all their words.

    .. math:: \frac{1}{P} \sum_p \frac{P n_p}{\sum_q n_q}\, \bar\ell_p = \frac{\sum_p n_p \bar\ell_p}{\sum_q n_q}

    Otherwise a word would count for less in a process that has more of them. One process has its mean as it is.
    """
    counts = gather(count[None])  # (processes,)
    return mean if len(counts) == 1 else mean * (len(counts) * count) / counts.sum().clamp(min=1)
