"""Two networks against each other: one tells real pictures from made ones, the other makes what passes for real.

A discriminator's scores are above 0 for what it takes for real. It may score a whole picture, (b,), or each patch,
(b, 1, rows, columns). In each step the discriminator learns on pictures that were made, without a gradient to their
maker; then the maker learns by the scores of the discriminator, which stays as it is (two
:class:`~mmlearn.recipes.Turn` of a recipe).
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def hinge_discrimination(real: Float[Tensor, "*n"], made: Float[Tensor, "*m"]) -> Float[Tensor, ""]:
    r"""The discriminator's loss: real above 1, made below −1, and no more to gain beyond.

    .. math:: \frac{1}{2} \left( \mathbb{E} [1 - D(x)]_+ + \mathbb{E} [1 + D(\hat x)]_+ \right)

    Scores that know nothing, 0, give 1; a perfect discriminator 0. Source: Lim & Ye 2017; Esser et al. 2021 (VQGAN),
    official code, ``hinge_d_loss``.
    """
    return (F.relu(1 - real).mean() + F.relu(1 + made).mean()) / 2


def hinge_generation(made: Float[Tensor, "*n"]) -> Float[Tensor, ""]:
    r"""The maker's loss: higher scores, :math:`-\mathbb{E}\, D(\hat x)`.

    Source: Lim & Ye 2017; Esser et al. 2021 (VQGAN), official code.
    """
    return -made.mean()


def logistic_discrimination(real: Float[Tensor, "*n"], made: Float[Tensor, "*m"]) -> Float[Tensor, ""]:
    r"""The discriminator's loss as cross-entropy, where scores are log-odds of being real.

    .. math:: -\mathbb{E} \log \sigma(D(x)) - \mathbb{E} \log (1 - \sigma(D(\hat x)))

    Scores that know nothing give 2 ln 2. The official code of VQGAN takes half of it. Source: Goodfellow et al. 2014,
    equation 1; Esser et al. 2021 (VQGAN), equation 5.
    """
    return F.softplus(-real).mean() + F.softplus(made).mean()


def logistic_generation(made: Float[Tensor, "*n"]) -> Float[Tensor, ""]:
    r"""The maker's loss that goes with it and does not fade while the discriminator wins: :math:`-\log \sigma(D)`.

    Scores that know nothing give ln 2. Source: Goodfellow et al. 2014, section 3, last paragraph.
    """
    return F.softplus(-made).mean()


def adaptive_weight(
    reconstruction: Float[Tensor, ""], adversarial: Float[Tensor, ""], last_layer: Float[Tensor, "..."]
) -> Float[Tensor, ""]:
    r"""How much the adversarial loss is to weigh, so that both losses pull equally hard at the maker's last layer.

    .. math:: \lambda = \frac{\lVert \nabla_L \mathcal{L}_\mathrm{rec} \rVert}
       {\lVert \nabla_L \mathcal{L}_\mathrm{GAN} \rVert + \delta}

    with δ = 1e-4, and at most 1e4, as in the official code; the paper's δ is 1e-6. It is a number, without a gradient
    of its own. Where no gradient is computed, as in evaluation, it is 1, there 0. Source: Esser et al. 2021 (VQGAN),
    equation 7, and official code.
    """
    if not (torch.is_grad_enabled() and last_layer.requires_grad):
        return torch.ones_like(adversarial)
    of_both = (torch.autograd.grad(loss, last_layer, retain_graph=True)[0] for loss in (reconstruction, adversarial))
    rebuilt, passed = (gradient.norm() for gradient in of_both)
    return (rebuilt / (passed + 1e-4)).clamp(max=1e4).detach()
