"""Clusters as targets: k-means gives every frame a number, and a system learns to predict it.

The numbers are poor at first. A system that predicts them from context learns better features than those that were
clustered, so that these can be clustered in turn.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor


def nearest(features: Float[Tensor, "*n d"], centroids: Float[Tensor, "k d"]) -> Int[Tensor, "*n"]:
    r"""The number of the centroid that is nearest to each row, :math:`\arg\min_k \lVert x_i - c_k \rVert^2`.

    Source: Hsu et al. 2021 (HuBERT), section II-A.
    """
    return _distances(features, centroids).argmin(-1)


def cluster(
    features: Float[Tensor, "n d"], k: int, *, generator: torch.Generator, steps: int = 50
) -> Float[Tensor, "k d"]:
    r"""k-means: k centroids such that rows are near their nearest one.

    .. math:: \min_{c_1, \dots, c_k} \sum_i \min_j \lVert x_i - c_j \rVert^2

    The first centroids are rows, each drawn in proportion to its squared distance from those before it (k-means++).
    Then centroids become the means of their rows, until nothing changes or for ``steps`` rounds; one without rows goes
    to the row that is farthest from its own. Features are compared as they are: scale them first where they differ.

    Raises ``ValueError`` for a k below 1 or more clusters than rows.
    Source: Lloyd 1982; Arthur & Vassilvitskii 2007; Hsu et al. 2021 (HuBERT), section II-A.
    """
    if not 1 <= k <= len(features):
        raise ValueError(f"There are {len(features)} rows for {k} clusters: ask for at least 1 and at most that many.")
    centroids = _spread(features, k, generator)
    before = None
    for _ in range(steps):
        distance, number = _distances(features, centroids).min(-1)
        if before is not None and torch.equal(number, before):
            break
        before = number
        rows = torch.bincount(number, minlength=k)
        total = torch.zeros_like(centroids).index_add_(0, number, features)
        centroids = total / rows.clamp(min=1)[:, None]
        empty = rows == 0
        if empty.any():
            centroids[empty] = features[distance.topk(int(empty.sum())).indices]
    return centroids


def _spread(features: Tensor, k: int, generator: torch.Generator) -> Float[Tensor, "k d"]:
    """k rows that are far apart."""
    chosen = [int(torch.randint(len(features), (), generator=generator, device=generator.device))]
    distance = torch.full((len(features),), torch.inf, device=features.device)
    chance = torch.rand(k - 1, generator=generator, device=generator.device).tolist()
    for share in chance:
        last = (features - features[chosen[-1]]).square().sum(-1)
        distance = torch.minimum(distance, last)
        reached = distance.double().cumsum(0)
        # Rows that are chosen already have distance 0, and are passed over unless all have.
        position = int(torch.searchsorted(reached, share * reached[-1], right=True))
        chosen.append(min(position, len(features) - 1))
    return features[chosen]


def _distances(features: Tensor, centroids: Tensor) -> Float[Tensor, "*n k"]:
    """Squared, and from a middle at which little is lost to rounding."""
    middle = centroids.mean(0)
    x, c = features - middle, centroids - middle
    return (x.square().sum(-1, keepdim=True) + c.square().sum(-1) - 2 * x @ c.T).clamp(min=0)
