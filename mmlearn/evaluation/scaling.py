"""How loss falls with parameters and samples, fitted to small trainings, so that a larger one can be planned."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class ScalingLaw:
    r"""The loss of a model with N parameters that has read D samples.

    .. math:: L(N, D) = E + \frac{A}{N^\alpha} + \frac{B}{D^\beta}

    Source: Hoffmann et al. 2022 (Chinchilla), equation 2.
    """

    floor: float  # E: what no model of this data falls below
    of_parameters: float  # A
    of_samples: float  # B
    alpha: float
    beta: float

    def loss(self, parameters: float, samples: float) -> float:
        """L(N, D)."""
        return self.floor + self.of_parameters / parameters**self.alpha + self.of_samples / samples**self.beta


def fit_scaling_law(parameters: Sequence[float], samples: Sequence[float], loss: Sequence[float]) -> ScalingLaw:
    """The law with the smallest squared errors: all exponents from 0.05 to 2 are tried, and the rest is linear.

    Raises ``ValueError`` for fewer than the five trainings that five numbers need, and where no law with positive A, B
    and E fits.
    """
    n, d, wanted = (torch.tensor(x, dtype=torch.float64) for x in (parameters, samples, loss))
    if not len(n) == len(d) == len(wanted) >= 5:
        raise ValueError(f"A law of five numbers needs five trainings or more, got {len(n)}, {len(d)}, {len(wanted)}.")
    grid = torch.arange(0.05, 2.0, 0.01, dtype=torch.float64)
    alpha, beta = (x.flatten() for x in torch.meshgrid(grid, grid, indexing="ij"))
    # By the mean size and the mean of samples, so that columns are of one magnitude.
    middle_n, middle_d = n.log().mean().exp(), d.log().mean().exp()
    columns = [torch.ones(len(alpha), len(n), dtype=torch.float64)]
    columns += [(x / middle) ** -power[:, None] for x, middle, power in ((n, middle_n, alpha), (d, middle_d, beta))]
    matrix = torch.stack(columns, -1)  # (exponents, trainings, 3)
    found, _ = torch.linalg.solve_ex(matrix.mT @ matrix, matrix.mT @ wanted)  # the normal equations
    errors = ((matrix @ found[..., None])[..., 0] - wanted).square().sum(-1)
    errors[~(found > 0).all(-1)] = torch.inf
    best = int(errors.argmin())
    if errors[best].isinf():
        raise ValueError("No law with positive numbers fits these losses: do they fall with size and with samples?")
    floor, a, b = found[best].tolist()
    alpha, beta = alpha[best].item(), beta[best].item()
    return ScalingLaw(floor, a * middle_n.item() ** alpha, b * middle_d.item() ** beta, alpha, beta)
