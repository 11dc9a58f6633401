"""What modalities share should have one distribution; what each keeps for itself should be about something else.

Source: Hazarika et al. 2020 (MISA), section 3.5.
"""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.linalg import vector_norm


def central_moment_discrepancy(
    x: Float[Tensor, "n d"], y: Float[Tensor, "m d"], moments: int = 5, low: float = 0.0, high: float = 1.0
) -> Float[Tensor, ""]:
    r"""CMD: how far apart two samples are in their mean and in each central moment up to the K-th.

    .. math:: \mathrm{CMD}_K(X, Y) = \frac{1}{|b - a|} \lVert \mathrm{E}(X) - \mathrm{E}(Y) \rVert_2
       + \sum_{k=2}^K \frac{1}{|b - a|^k} \lVert C_k(X) - C_k(Y) \rVert_2, \quad
       C_k(X) = \mathrm{E}\big((X - \mathrm{E}(X))^k\big)

    All features lie between a = ``low`` and b = ``high``, as after a sigmoid. Samples of one distribution give about 0,
    in whatever order; equal ones give 0. Raises ``ValueError`` for an empty sample, fewer than one moment, or bounds
    that are the wrong way round. Source: Zellinger et al. 2017 (CMD), definition 2; Hazarika et al. 2020 (MISA),
    equations 8 and 9.
    """
    if not len(x) or not len(y):
        raise ValueError(f"Both samples hold at least one row; got {len(x)} and {len(y)}.")
    if moments < 1 or not low < high:
        raise ValueError(f"At least one moment, and low < high; got {moments} moments, low {low} and high {high}.")
    means = x.mean(0), y.mean(0)
    distance = vector_norm(means[0] - means[1]) / (high - low)
    x, y = x - means[0], y - means[1]
    for k in range(2, moments + 1):
        distance = distance + vector_norm(x.pow(k).mean(0) - y.pow(k).mean(0)) / (high - low) ** k
    return distance


def difference_loss(x: Float[Tensor, "n d"], y: Float[Tensor, "n e"]) -> Float[Tensor, ""]:
    r"""Two views of the same n rows should not vary together: no feature of one says anything of one of the other.

    .. math:: \ell = \frac{1}{d e} \lVert \hat X^\top \hat Y \rVert_F^2

    where columns have mean 0 before rows get unit length. Directions that share nothing give 0. The equation of the
    paper has no 1/(d e), which the official code has. Raises ``ValueError`` where the rows are not as many, or none.
    Source: Bousmalis et al. 2016 (Domain Separation Networks), equation 5; Hazarika et al. 2020 (MISA), equation 10.
    """
    if not 1 <= len(x) == len(y):
        raise ValueError(f"Both views have the same rows, and at least one; got {len(x)} and {len(y)}.")
    x, y = (F.normalize(view - view.mean(0), dim=-1, eps=1e-6) for view in (x, y))
    return (x.T @ y).square().mean()
