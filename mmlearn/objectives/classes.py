"""Which class, or which of several at once."""

import torch.nn.functional as F
from jaxtyping import Float, Shaped
from torch import Tensor


def class_cross_entropy(logits: Float[Tensor, "b c"], label: Shaped[Tensor, "b *c"]) -> Float[Tensor, ""]:
    r"""Cross-entropy of a class for each row, or for float labels (b, c) of a yes or no to each class.

    .. math:: \ell = -\frac{1}{b} \sum_i \log \mathrm{softmax}(z_i)_{y_i} \quad\text{or}\quad
       -\frac{1}{b c} \sum_{ij} \left[y_{ij} \log \sigma(z_{ij}) + (1 - y_{ij}) \log \sigma(-z_{ij})\right]

    Logits that know nothing give ln c or ln 2.
    """
    criterion = F.binary_cross_entropy_with_logits if label.is_floating_point() else F.cross_entropy
    return criterion(logits, label)
